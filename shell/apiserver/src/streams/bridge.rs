//! Between a client's channels and a process, whatever carries the channels.
//!
//! A transport gives the bridge the server's [`Ends`] of the channels and sends
//! the [`Piece`]s that come back. The end of a session, in this order: the
//! process has ended, what it printed has been read, stdout and stderr are
//! closed, the error channel says how it ended.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future;
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::PIECE_BYTES;
use super::spdy::Input;
use super::status::{self, Format, Outcome};
use crate::pods::{Exit, Input as Stdin, Output, Process, StreamError, TerminalSize};

/// A background process that inherited the output may keep it open for ever: so
/// long after the end of the command nothing more is waited for.
const DRAIN_PAUSE: Duration = Duration::from_secs(1);
/// A message with a terminal size is some thirty bytes.
const MAX_RESIZE_BYTES: usize = 4096;

/// What the server writes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    Stdout,
    Stderr,
    Error,
}

/// Something for the client.
#[derive(Debug)]
pub(super) enum Piece {
    Data(Channel, Bytes),
    /// Nothing more comes on this channel.
    End(Channel),
}

/// What the client sends on one channel, piece by piece.
pub(super) enum Source {
    Messages(mpsc::Receiver<Bytes>),
    Stream(Input),
}

impl Source {
    async fn next(&mut self) -> Option<Bytes> {
        match self {
            Self::Messages(messages) => messages.recv().await,
            Self::Stream(stream) => stream.next().await,
        }
    }
}

/// The server's ends of a client's channels.
pub(super) struct Ends {
    pub(super) stdin: Option<Source>,
    pub(super) resize: Option<Source>,
    /// Dropped by the bridge when all has been said.
    pub(super) out: mpsc::Sender<Piece>,
    /// The client is not there any more.
    pub(super) gone: CancellationToken,
}

/// What the session is about, for its texts.
#[derive(Debug)]
pub(super) enum Purpose {
    Exec { command: Vec<String> },
    Attach,
}

/// Let client and process talk until one of them ends; then say how it was.
pub(super) async fn run(
    process: Result<Process, String>,
    ends: Ends,
    purpose: &Purpose,
    format: Format,
) {
    let Ends {
        stdin,
        resize,
        out,
        gone,
    } = ends;
    let outcome = match process {
        Ok(process) => {
            // Dropped when the client has gone, which ends a command.
            let talk = talk(process, stdin, resize, &out);
            let ended = tokio::select! {
                ended = talk => ended,
                () = gone.cancelled() => return,
            };
            outcome(ended, purpose)
        }
        Err(message) => Outcome::Failed(message),
    };
    let mut last = vec![Piece::End(Channel::Stdout), Piece::End(Channel::Stderr)];
    last.extend(status::payload(format, &outcome).map(|bytes| Piece::Data(Channel::Error, bytes)));
    last.push(Piece::End(Channel::Error));
    for piece in last {
        // Fails when the client has gone: then there is nobody to tell.
        if out.send(piece).await.is_err() {
            return;
        }
    }
}

fn outcome(ended: Result<Exit, StreamError>, purpose: &Purpose) -> Outcome {
    match (ended, purpose) {
        (Ok(Exit { code: 0 }), _) => Outcome::Success,
        // The code of a container is in the status of its pod.
        (Ok(_), Purpose::Attach) => Outcome::Success,
        (Ok(Exit { code }), Purpose::Exec { command }) => Outcome::Code {
            code,
            command: command.clone(),
        },
        (Err(error), purpose) => Outcome::Failed(failure(&error, purpose)),
    }
}

/// Why there is no process, in the words of the kubelet.
pub(super) fn failure(error: &StreamError, purpose: &Purpose) -> String {
    match purpose {
        Purpose::Exec { .. } => format!("error executing command in container: {error}"),
        Purpose::Attach => format!("error attaching to container: {error}"),
    }
}

async fn talk(
    process: Process,
    client_stdin: Option<Source>,
    client_resize: Option<Source>,
    out: &mpsc::Sender<Piece>,
) -> Result<Exit, StreamError> {
    let Process {
        stdin,
        stdout,
        stderr,
        resize,
        exit,
    } = process;
    let inputs = async {
        tokio::join!(
            copy_input(client_stdin, stdin),
            copy_sizes(client_resize, resize)
        );
        // The end of the input is not the end of the process.
        future::pending::<()>().await;
    };
    let progress = Progress::default();
    let outputs = async {
        tokio::join!(
            copy_output(stdout, Channel::Stdout, out, &progress),
            copy_output(stderr, Channel::Stderr, out, &progress)
        );
    };
    let ended = async {
        let mut outputs = std::pin::pin!(future::FutureExt::fuse(outputs));
        let mut exit = exit;
        let exited = loop {
            tokio::select! {
                exited = &mut exit => break exited,
                () = &mut outputs => {}
            }
        };
        drained(outputs, &progress).await;
        exited
    };
    tokio::select! {
        exited = ended => exited,
        () = inputs => Err(StreamError::Internal("the input ended the session".to_owned())),
    }
}

/// Whether output still moves.
#[derive(Debug, Default)]
struct Progress {
    pieces: AtomicU64,
    /// Copies that wait for the client and not for the process.
    sending: [AtomicBool; 2],
}

/// Wait for the rest of the output of a process that has ended.
async fn drained<F>(mut outputs: F, progress: &Progress)
where
    F: Future<Output = ()> + Unpin + futures::future::FusedFuture,
{
    if outputs.is_terminated() {
        return;
    }
    loop {
        let before = progress.pieces.load(Ordering::Relaxed);
        tokio::select! {
            () = &mut outputs => return,
            () = tokio::time::sleep(DRAIN_PAUSE) => {}
        }
        let sending = progress
            .sending
            .iter()
            .any(|copy| copy.load(Ordering::Relaxed));
        if !sending && progress.pieces.load(Ordering::Relaxed) == before {
            return;
        }
    }
}

async fn copy_input(from: Option<Source>, to: Option<Stdin>) {
    let (Some(mut from), Some(mut to)) = (from, to) else {
        return;
    };
    while let Some(bytes) = from.next().await {
        let written = async {
            to.write_all(&bytes).await?;
            to.flush().await
        };
        // The process does not read any more; what comes is thrown away.
        if written.await.is_err() {
            return;
        }
    }
    if let Err(error) = to.shutdown().await {
        tracing::debug!(%error, "cannot end the input of a process");
    }
}

async fn copy_output(
    from: Option<Output>,
    channel: Channel,
    out: &mpsc::Sender<Piece>,
    progress: &Progress,
) {
    let Some(mut from) = from else { return };
    let [stdout, stderr] = &progress.sending;
    let sending = if channel == Channel::Stdout {
        stdout
    } else {
        stderr
    };
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PIECE_BYTES);
        match from.read_buf(&mut buffer).await {
            // A terminal answers with an error when its last process has gone.
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
        progress.pieces.fetch_add(1, Ordering::Relaxed);
        sending.store(true, Ordering::Relaxed);
        let sent = out
            .send(Piece::Data(channel, buffer.split().freeze()))
            .await;
        sending.store(false, Ordering::Relaxed);
        if sent.is_err() {
            return;
        }
    }
}

/// A terminal size as clients write it.
#[derive(Debug, Deserialize)]
struct Size {
    #[serde(rename = "Width", alias = "width")]
    width: u16,
    #[serde(rename = "Height", alias = "height")]
    height: u16,
}

/// Sizes are JSON values in a row, however the pieces cut them.
async fn copy_sizes(from: Option<Source>, to: Option<mpsc::Sender<TerminalSize>>) {
    let (Some(mut from), Some(to)) = (from, to) else {
        return;
    };
    let mut buffer = Vec::new();
    while let Some(bytes) = from.next().await {
        buffer.extend_from_slice(&bytes);
        if buffer.len() > MAX_RESIZE_BYTES {
            return;
        }
        let Some((sizes, used)) = sizes(&buffer) else {
            return;
        };
        buffer.drain(..used);
        for size in sizes {
            if to.send(size).await.is_err() {
                return;
            }
        }
    }
}

/// The whole sizes in a buffer, and how much of it they are. None for no JSON.
fn sizes(buffer: &[u8]) -> Option<(Vec<TerminalSize>, usize)> {
    let mut values = serde_json::Deserializer::from_slice(buffer).into_iter::<Size>();
    let mut found = Vec::new();
    loop {
        match values.next() {
            Some(Ok(Size { width, height })) => found.push(TerminalSize { width, height }),
            Some(Err(error)) if error.is_eof() => break,
            Some(Err(_)) => return None,
            None => break,
        }
    }
    Some((found, values.byte_offset()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_across_pieces() {
        let text = br#"{"Width":80,"Height":24}{"Height":50,"Width":100}
            {"Wid"#;
        let (found, used) = sizes(text).unwrap();
        let expected = [(80, 24), (100, 50)].map(|(width, height)| TerminalSize { width, height });
        assert_eq!(found, expected);
        assert!(
            text.get(used..)
                .unwrap()
                .trim_ascii()
                .starts_with(b"{\"Wid")
        );
        assert!(sizes(b"hello").is_none());
        assert!(sizes(br#"{"Width":-1,"Height":1}"#).is_none());
    }

    fn process(stdout: tokio::io::DuplexStream, exit: Result<Exit, StreamError>) -> Process {
        Process {
            stdin: None,
            stdout: Some(Box::new(stdout)),
            stderr: None,
            resize: None,
            exit: Box::pin(future::ready(exit)),
        }
    }

    async fn pieces(process: Process, gone: CancellationToken) -> Vec<String> {
        let (out, mut receiver) = mpsc::channel(4);
        let ends = Ends {
            stdin: None,
            resize: None,
            out,
            gone,
        };
        let purpose = Purpose::Exec {
            command: vec!["x".to_owned()],
        };
        let collect = async {
            let mut all = Vec::new();
            while let Some(piece) = receiver.recv().await {
                all.push(match piece {
                    Piece::Data(channel, bytes) => {
                        format!("{channel:?} {}", String::from_utf8_lossy(&bytes))
                    }
                    Piece::End(channel) => format!("{channel:?} end"),
                });
            }
            all
        };
        let (all, ()) = tokio::join!(collect, run(Ok(process), ends, &purpose, Format::Text));
        all
    }

    /// The output that a process leaves is read after its end, and an output
    /// that a background process keeps open does not hold the session up.
    #[tokio::test]
    async fn the_rest_of_the_output_comes_before_the_end() {
        let (mut write, read) = tokio::io::duplex(64);
        write.write_all(b"last words").await.unwrap();
        let started = tokio::time::Instant::now();
        let all = pieces(
            process(read, Ok(Exit { code: 2 })),
            CancellationToken::new(),
        )
        .await;
        assert_eq!(
            all,
            [
                "Stdout last words",
                "Stdout end",
                "Stderr end",
                "Error command terminated with non-zero exit code: error executing command [x], exit code 2",
                "Error end",
            ]
        );
        assert!(started.elapsed() >= DRAIN_PAUSE);
        drop(write);
    }

    #[tokio::test]
    async fn nothing_is_said_to_a_client_that_has_gone() {
        let (write, read) = tokio::io::duplex(64);
        let mut process = process(read, Ok(Exit { code: 0 }));
        process.exit = Box::pin(future::pending());
        let gone = CancellationToken::new();
        gone.cancel();
        assert!(pieces(process, gone).await.is_empty());
        drop(write);
    }
}
