//! Pods whose commands and ports are programs of this test.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use portolan_apiserver::{
    AttachRequest, ConnectHost, ConnectRequest, Connection, ExecRequest, Exit, LogError,
    LogRequest, LogStream, PodBackend, Process, StreamError, Streams, TerminalSize,
};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
use tokio::sync::{Notify, mpsc};

use crate::site;

/// What a pipe holds.
const PIPE: usize = 64 * 1024;

#[derive(Default)]
pub(crate) struct Fake {
    pub(crate) execs: Mutex<Vec<ExecRequest>>,
    pub(crate) attaches: Mutex<Vec<AttachRequest>>,
    pub(crate) connects: Mutex<Vec<ConnectRequest>>,
    /// Commands that run, and those whose process was dropped before its end.
    pub(crate) running: Arc<AtomicUsize>,
    pub(crate) killed: Arc<AtomicUsize>,
    /// Ends the container to which clients attach.
    pub(crate) end_container: Arc<Notify>,
}

impl PodBackend for Fake {
    fn logs(&self, _: LogRequest) -> BoxFuture<'_, Result<LogStream, LogError>> {
        async { Err(LogError::BadRequest("no logs".to_owned())) }.boxed()
    }

    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<Process, StreamError>> {
        self.execs.lock().unwrap().push(request.clone());
        async move {
            if request.target.container == "gone" {
                return Err(StreamError::NotFound(
                    "container not found (\"gone\")".to_owned(),
                ));
            }
            if request.command.first().unwrap() == "missing" {
                return Err(StreamError::Internal(
                    "exec: \"missing\": executable file not found in $PATH".to_owned(),
                ));
            }
            let (process, ends) = pipes(request.streams);
            let guard = Guard::new(&self.running, &self.killed);
            let program = tokio::spawn(program(request.command, ends));
            Ok(Process {
                exit: async move {
                    let code = program.await.unwrap();
                    guard.ended();
                    Ok(Exit { code })
                }
                .boxed(),
                ..process
            })
        }
        .boxed()
    }

    fn attach(&self, request: AttachRequest) -> BoxFuture<'_, Result<Process, StreamError>> {
        self.attaches.lock().unwrap().push(request.clone());
        let end = Arc::clone(&self.end_container);
        async move {
            let (process, ends) = pipes(request.streams);
            let program = tokio::spawn(async move {
                let Ends {
                    mut stdin,
                    mut stdout,
                    ..
                } = ends;
                stdout.write_all(b"attached\n").await.unwrap();
                let echo = async {
                    drop(tokio::io::copy(&mut stdin, &mut stdout).await);
                    std::future::pending().await
                };
                tokio::select! {
                    () = end.notified() => {}
                    () = echo => {}
                }
                stdout.write_all(b"bye\n").await.unwrap();
            });
            Ok(Process {
                exit: async move {
                    program.await.unwrap();
                    Ok(Exit { code: 3 })
                }
                .boxed(),
                ..process
            })
        }
        .boxed()
    }

    fn connect(
        &self,
        request: ConnectRequest,
    ) -> BoxFuture<'_, Result<Box<dyn Connection>, StreamError>> {
        self.connects.lock().unwrap().push(request.clone());
        async move {
            let (ours, theirs) = tokio::io::duplex(PIPE);
            match (request.port, request.host) {
                (80, _) => drop(tokio::spawn(site::serve(ours))),
                (443, _) => drop(tokio::spawn(site::serve_tls(ours))),
                // Echo, with the end of one direction told the other.
                (7, ConnectHost::Localhost) => drop(tokio::spawn(async move {
                    let (mut read, mut write) = tokio::io::split(ours);
                    drop(tokio::io::copy(&mut read, &mut write).await);
                    drop(write.shutdown().await);
                })),
                _ => return Err(StreamError::Refused("connection refused".to_owned())),
            }
            Ok(Box::new(theirs) as Box<dyn Connection>)
        }
        .boxed()
    }
}

/// Counts what runs, and what was stopped.
struct Guard {
    running: Arc<AtomicUsize>,
    killed: Arc<AtomicUsize>,
    ended: bool,
}

impl Guard {
    fn new(running: &Arc<AtomicUsize>, killed: &Arc<AtomicUsize>) -> Self {
        running.fetch_add(1, Ordering::SeqCst);
        Self {
            running: Arc::clone(running),
            killed: Arc::clone(killed),
            ended: false,
        }
    }

    fn ended(mut self) {
        self.ended = true;
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.running.fetch_sub(1, Ordering::SeqCst);
        if !self.ended {
            self.killed.fetch_add(1, Ordering::SeqCst);
        }
    }
}

/// A program's ends of its streams.
struct Ends {
    stdin: DuplexStream,
    stdout: DuplexStream,
    stderr: DuplexStream,
    sizes: mpsc::Receiver<TerminalSize>,
}

fn pipes(streams: Streams) -> (Process, Ends) {
    let (stdin_in, stdin) = tokio::io::duplex(PIPE);
    let (stdout, stdout_out) = tokio::io::duplex(PIPE);
    let (stderr, stderr_out) = tokio::io::duplex(PIPE);
    let (size_in, sizes) = mpsc::channel(4);
    let process = Process {
        stdin: streams.stdin.then(|| Box::new(stdin_in) as _),
        stdout: streams.stdout.then(|| Box::new(stdout_out) as _),
        stderr: streams.stderr.then(|| Box::new(stderr_out) as _),
        resize: streams.tty.then_some(size_in),
        exit: std::future::pending().boxed(),
    };
    let ends = Ends {
        stdin,
        stdout,
        stderr,
        sizes,
    };
    (process, ends)
}

/// The byte at a place of what `flood` writes.
pub(crate) fn pattern(at: usize) -> u8 {
    u8::try_from((at * 7 + at / 251) % 256).unwrap()
}

async fn program(command: Vec<String>, ends: Ends) -> i32 {
    let Ends {
        mut stdin,
        mut stdout,
        mut stderr,
        mut sizes,
    } = ends;
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["echo", words @ ..] => {
            let line = format!("{}\n", words.join(" "));
            drop(stdout.write_all(line.as_bytes()).await);
            0
        }
        ["cat"] => {
            drop(tokio::io::copy(&mut stdin, &mut stdout).await);
            0
        }
        ["fail", code] => {
            drop(stdout.write_all(b"out\n").await);
            drop(stderr.write_all(b"oops\n").await);
            code.parse().unwrap()
        }
        ["flood", bytes] => {
            let bytes: usize = bytes.parse().unwrap();
            let all: Vec<u8> = (0..bytes).map(pattern).collect();
            drop(stdout.write_all(&all).await);
            0
        }
        ["count"] => {
            let mut all = Vec::new();
            stdin.read_to_end(&mut all).await.unwrap();
            let right = all
                .iter()
                .enumerate()
                .all(|(at, byte)| *byte == pattern(at));
            let line = format!("{} {right}\n", all.len());
            drop(stdout.write_all(line.as_bytes()).await);
            0
        }
        ["sizes", count] => {
            for _ in 0..count.parse().unwrap() {
                let TerminalSize { width, height } = sizes.recv().await.unwrap();
                let line = format!("{width}x{height}\r\n");
                drop(stdout.write_all(line.as_bytes()).await);
            }
            0
        }
        ["first"] => {
            // Reads a little and goes, with its input still coming.
            let mut some = [0; 4];
            stdin.read_exact(&mut some).await.unwrap();
            drop(stdout.write_all(&some).await);
            0
        }
        _ => std::future::pending().await,
    }
}
