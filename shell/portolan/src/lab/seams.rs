//! Where two rooms meet that do not know each other: what the lab knows of its
//! pods (logs, running containers, networks), for the API server, and what an agent
//! knows of policies, for the lab.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use futures::future::BoxFuture;
use portolan_apiserver::{
    AttachRequest, ConnectHost, ConnectNodeRequest, ConnectRequest, Connection, ExecRequest, Exit,
    LogError, LogRequest, LogStream, PodBackend, Process, StreamError, Streams, TerminalSize,
};
use portolan_lab::kubelet::{self, Inside, InsideError};
use portolan_lab::logs::{self, LogKey, Logs};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

/// Sizes of a terminal on their way.
const SIZES: usize = 8;

/// The lab's pods, as the API server wants them.
pub(crate) struct LabPods {
    pub(crate) logs: Arc<Logs>,
    pub(crate) inside: Arc<Inside>,
}

impl PodBackend for LabPods {
    fn logs(&self, request: LogRequest) -> BoxFuture<'_, Result<LogStream, LogError>> {
        let key = LogKey {
            namespace: request.namespace,
            pod: request.pod,
            uid: Some(request.uid),
            container: request.container,
        };
        let asked = request.options;
        let options = logs::LogOptions {
            follow: asked.follow,
            previous: asked.previous,
            timestamps: asked.timestamps,
            tail_lines: asked.tail_lines,
            since: None,
            since_time: asked.since,
            limit_bytes: asked.limit_bytes,
        };
        let found = self.logs.read(&key, options).map_err(|error| match error {
            logs::LogError::NotStarted { .. } | logs::LogError::NoPrevious { .. } => {
                LogError::BadRequest(error.to_string())
            }
            logs::LogError::File { .. } => LogError::Internal(error.to_string()),
        });
        Box::pin(async move { found })
    }

    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<Process, StreamError>> {
        Box::pin(async move {
            let (uid, name) = (&request.target.uid, &request.target.container);
            let streams = wanted(request.streams);
            let started = self.inside.exec(uid, name, request.command, streams).await;
            Ok(process(started.map_err(refused)?))
        })
    }

    fn attach(&self, request: AttachRequest) -> BoxFuture<'_, Result<Process, StreamError>> {
        let (uid, name) = (&request.target.uid, &request.target.container);
        let attached = self.inside.attach(uid, name, wanted(request.streams));
        Box::pin(async move { Ok(process(attached.map_err(refused)?)) })
    }

    fn connect(
        &self,
        request: ConnectRequest,
    ) -> BoxFuture<'_, Result<Box<dyn Connection>, StreamError>> {
        Box::pin(async move {
            let address = match request.host {
                ConnectHost::Localhost => None,
                ConnectHost::Address(address) => Some(address),
            };
            let connected = self
                .inside
                .connect(&request.uid, request.port, address)
                .await;
            match connected {
                Ok(stream) => Ok(Box::new(stream) as Box<dyn Connection>),
                Err(cause) => Err(StreamError::Refused(in_words(&cause))),
            }
        })
    }

    /// From the lab's outside, where the API server is.
    fn connect_node(
        &self,
        request: ConnectNodeRequest,
    ) -> BoxFuture<'_, Result<Box<dyn Connection>, StreamError>> {
        Box::pin(async move {
            let at = SocketAddr::new(request.address, request.port);
            match TcpStream::connect(at).await {
                Ok(stream) => Ok(Box::new(stream) as Box<dyn Connection>),
                Err(cause) => Err(StreamError::Refused(in_words(&cause))),
            }
        })
    }
}

fn wanted(streams: Streams) -> kubelet::Streams {
    kubelet::Streams {
        stdin: streams.stdin,
        stdout: streams.stdout,
        stderr: streams.stderr,
        tty: streams.tty,
    }
}

fn process(process: kubelet::Process) -> Process {
    let resize = process.resize.map(|sizes| {
        let (tell, mut told) = mpsc::channel::<TerminalSize>(SIZES);
        tokio::spawn(async move {
            while let Some(size) = told.recv().await {
                if sizes.send((size.width, size.height)).await.is_err() {
                    return;
                }
            }
        });
        tell
    });
    Process {
        stdin: process.stdin,
        stdout: process.stdout,
        stderr: process.stderr,
        resize,
        exit: Box::pin(async move {
            let code = process.exit.await.map_err(refused)?;
            Ok(Exit { code })
        }),
    }
}

fn refused(error: InsideError) -> StreamError {
    match &error {
        InsideError::NotFound(_) => StreamError::NotFound(error.to_string()),
        InsideError::Exec(_) => StreamError::Internal(error.to_string()),
        InsideError::Failed { what, cause } => StreamError::Internal(format!("{what}: {cause}")),
    }
}

/// The cause alone, as connect(2) names it: `connection refused`.
fn in_words(cause: &io::Error) -> String {
    let text = cause.to_string().to_lowercase();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}
