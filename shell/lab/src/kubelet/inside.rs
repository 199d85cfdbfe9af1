//! The ways into running pods: commands, attached streams, connections.
//!
//! The pod managers of all nodes of a lab write down here what runs; whoever
//! serves `exec`, `attach` and `port-forward` looks it up by uid.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use futures::{StreamExt, future::BoxFuture, stream};
use portolan_kernel::netns::NetNs;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::mpsc,
};
use tokio_util::io::{CopyToBytes, SinkWriter, StreamReader};
use tokio_util::sync::PollSender;

use super::attached::Attached;
use crate::container::{self, ExecError, Launcher, User, Wanted};
use crate::probe::connect;

/// Sizes of a terminal that may wait to be set.
const SIZES: usize = 8;

/// What is printed.
pub type Output = Box<dyn AsyncRead + Send + Unpin>;
/// What is read.
pub type Input = Box<dyn AsyncWrite + Send + Unpin>;

/// Everything that runs, for those who want in.
#[derive(Default)]
pub struct Inside {
    containers: Mutex<BTreeMap<(String, String), Arc<Container>>>,
    networks: Mutex<BTreeMap<String, Network>>,
}

/// One running container.
pub(super) struct Container {
    pub(super) launcher: Launcher,
    pub(super) pid: i32,
    pub(super) env: Vec<(String, String)>,
    pub(super) cwd: String,
    pub(super) user: Option<User>,
    pub(super) attached: Arc<Attached>,
}

/// Where a pod's ports are.
#[derive(Clone)]
struct Network {
    pod: NetNs,
    node: NetNs,
}

/// Which streams are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Streams {
    /// Whether the client writes.
    pub stdin: bool,
    /// Whether the client reads what is printed.
    pub stdout: bool,
    /// Whether the client reads errors apart.
    pub stderr: bool,
    /// Whether there is a terminal.
    pub tty: bool,
}

/// A process with its streams. Dropped, an executed command is killed; one
/// that was attached to goes on.
pub struct Process {
    /// Its input.
    pub stdin: Option<Input>,
    /// What it prints; with a terminal everything.
    pub stdout: Option<Output>,
    /// Its errors.
    pub stderr: Option<Output>,
    /// Width and height of its terminal, whenever they change.
    pub resize: Option<mpsc::Sender<(u16, u16)>>,
    /// Its exit code; 128 + n after signal n.
    pub exit: BoxFuture<'static, Result<i32, InsideError>>,
}

/// Why there is no way in.
#[derive(Debug, thiserror::Error)]
pub enum InsideError {
    /// It does not run here.
    #[error("container not found ({0:?})")]
    NotFound(String),
    /// The command cannot be executed.
    #[error(
        "OCI runtime exec failed: exec failed: unable to start container process: {0}: unknown"
    )]
    Exec(String),
    /// Anything else.
    #[error("{what}")]
    Failed {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}

impl Inside {
    pub(super) fn enter(&self, uid: &str, name: &str, container: Container) {
        let key = (uid.to_owned(), name.to_owned());
        lock(&self.containers).insert(key, Arc::new(container));
    }

    /// The container with this PID is over, with this exit code.
    pub(super) fn leave(&self, uid: &str, name: &str, pid: i32, code: i32) {
        let key = (uid.to_owned(), name.to_owned());
        let mut containers = lock(&self.containers);
        if let Some(container) = containers.get(&key).filter(|found| found.pid == pid) {
            container.attached.exited(code);
            containers.remove(&key);
        }
    }

    pub(super) fn connected(&self, uid: &str, pod: NetNs, node: NetNs) {
        lock(&self.networks).insert(uid.to_owned(), Network { pod, node });
    }

    /// The pod has no network any more, and nothing in it runs.
    pub(super) fn disconnected(&self, uid: &str) {
        lock(&self.networks).remove(uid);
        lock(&self.containers).retain(|(own, _), _| own != uid);
    }

    fn find(&self, uid: &str, name: &str) -> Result<Arc<Container>, InsideError> {
        let key = (uid.to_owned(), name.to_owned());
        let found = lock(&self.containers).get(&key).cloned();
        found.ok_or_else(|| InsideError::NotFound(name.to_owned()))
    }

    /// Starts a command in a container of the pod `uid`.
    ///
    /// # Errors
    /// If the container does not run or the command cannot be executed.
    pub async fn exec(
        &self,
        uid: &str,
        name: &str,
        command: Vec<String>,
        streams: Streams,
    ) -> Result<Process, InsideError> {
        let container = self.find(uid, name)?;
        let mut env = container.env.clone();
        if streams.tty && !env.iter().any(|(name, _)| name == "TERM") {
            env.push(("TERM".to_owned(), "xterm".to_owned()));
        }
        let wanted = Wanted {
            argv: command,
            env,
            cwd: container.cwd.clone(),
            terminal: streams.tty,
            stdin: streams.stdin,
            user: container.user.clone(),
        };
        let started = container::start(&container.launcher, container.pid, &wanted).await;
        let mut running = started.map_err(|error| match error {
            ExecError::Refused { message } => InsideError::Exec(message),
            ExecError::Start { cause, .. } => InsideError::Failed {
                what: "cannot start the command",
                cause,
            },
            ExecError::Timeout { .. } => InsideError::Failed {
                what: "cannot start the command",
                cause: io::ErrorKind::TimedOut.into(),
            },
        })?;
        let resize = running
            .terminal
            .take()
            .map(|terminal| sizes(move |width, height| terminal.resize(width, height)));
        let stdout = std::mem::replace(&mut running.stdout, Box::new(tokio::io::empty()));
        let stderr = running.stderr.take();
        Ok(Process {
            stdin: running.stdin.take(),
            stdout: Some(kept(stdout, streams.stdout)).flatten(),
            stderr: stderr.and_then(|stderr| kept(stderr, streams.stderr)),
            resize,
            exit: Box::pin(async move {
                running.wait().await.map_err(|cause| InsideError::Failed {
                    what: "cannot wait for the command",
                    cause,
                })
            }),
        })
    }

    /// The first process of a container of the pod `uid`.
    ///
    /// # Errors
    /// If the container does not run.
    pub fn attach(&self, uid: &str, name: &str, streams: Streams) -> Result<Process, InsideError> {
        let attached = self.find(uid, name)?.attached.clone();
        let (stdout, stderr) = attached.listen();
        let input = attached.input().filter(|_| streams.stdin);
        let mut exit = attached.exit();
        let resize = streams.tty.then(|| {
            let attached = attached.clone();
            sizes(move |width, height| attached.resize(width, height))
        });
        let left = Leaving(input.is_some().then(|| attached.clone()));
        Ok(Process {
            stdin: input.map(|input| writer(input, left)),
            stdout: streams.stdout.then(|| reader(stdout)),
            stderr: (streams.stderr && !streams.tty).then(|| reader(stderr)),
            resize,
            exit: Box::pin(async move {
                let code = exit.wait_for(Option::is_some).await;
                code.ok().and_then(|code| *code).ok_or(InsideError::Failed {
                    what: "the container is gone",
                    cause: io::ErrorKind::NotConnected.into(),
                })
            }),
        })
    }

    /// A connection to a port of the pod `uid`: to `address` from its node, or
    /// to the loopback inside the pod, IPv4 first.
    ///
    /// # Errors
    /// If the pod has no network or nobody listens.
    pub async fn connect(
        &self,
        uid: &str,
        port: u16,
        address: Option<IpAddr>,
    ) -> io::Result<TcpStream> {
        let network = lock(&self.networks).get(uid).cloned();
        let network = network.ok_or(io::ErrorKind::NotFound)?;
        if let Some(address) = address {
            return connect(&network.node, (address, port).into()).await;
        }
        match connect(&network.pod, (Ipv4Addr::LOCALHOST, port).into()).await {
            Ok(stream) => Ok(stream),
            // What IPv4 says is what people know.
            Err(cause) => connect(&network.pod, (Ipv6Addr::LOCALHOST, port).into())
                .await
                .map_err(|_ipv6| cause),
        }
    }
}

/// What nobody wants must be read all the same, or the command blocks.
fn kept(mut output: Output, wanted: bool) -> Option<Output> {
    if wanted {
        return Some(output);
    }
    tokio::spawn(async move {
        tokio::io::copy(&mut output, &mut tokio::io::sink())
            .await
            .unwrap_or_default();
    });
    None
}

fn sizes(set: impl Fn(u16, u16) -> io::Result<()> + Send + 'static) -> mpsc::Sender<(u16, u16)> {
    let (tell, mut told) = mpsc::channel(SIZES);
    tokio::spawn(async move {
        while let Some((width, height)) = told.recv().await {
            if let Err(cause) = set(width, height) {
                tracing::debug!(%cause, "the terminal is gone");
                return;
            }
        }
    });
    tell
}

/// Tells the container that one who wrote to it is gone.
struct Leaving(Option<Arc<Attached>>);

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(attached) = &self.0 {
            attached.input_left();
        }
    }
}

fn writer(input: mpsc::Sender<Bytes>, left: Leaving) -> Input {
    use futures::SinkExt;
    let closed = |_| io::Error::from(io::ErrorKind::BrokenPipe);
    let sink = PollSender::new(input).sink_map_err(closed);
    let sink = sink.with(move |piece: Bytes| {
        // Moved in, so that it is dropped with the writer.
        let _kept = &left;
        std::future::ready(Ok::<_, io::Error>(piece))
    });
    Box::new(SinkWriter::new(CopyToBytes::new(Box::pin(sink))))
}

fn reader(mut pieces: mpsc::Receiver<Bytes>) -> Output {
    let pieces = stream::poll_fn(move |context| pieces.poll_recv(context));
    Box::new(StreamReader::new(pieces.map(Ok::<_, io::Error>)))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
