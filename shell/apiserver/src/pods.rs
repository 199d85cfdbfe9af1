//! What the server asks of whoever runs the pods: their logs, processes in
//! their containers, connections to their ports.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

/// Bytes of a log as they come; an error ends the answer.
pub type LogStream = BoxStream<'static, Result<Bytes, std::io::Error>>;
/// What a process prints.
pub type Output = Box<dyn AsyncRead + Send + Unpin>;
/// What a process reads.
pub type Input = Box<dyn AsyncWrite + Send + Unpin>;

/// Whoever runs the pods. On a real cluster this is the kubelet's HTTPS API;
/// in the lab a call inside the process.
pub trait PodBackend: Send + Sync + 'static {
    /// The log of one container. With `follow` the stream ends when the
    /// container does, or when the reader drops it.
    fn logs(&self, request: LogRequest) -> BoxFuture<'_, Result<LogStream, LogError>>;

    /// Start a command in a running container.
    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<Process, StreamError>> {
        let message = format!(
            "cannot run commands in pods of node {}",
            request.target.node
        );
        Box::pin(async move { Err(StreamError::NotImplemented(message)) })
    }

    /// The first process of a container: what it prints from now on, and its
    /// input where the container was made with `stdin`.
    fn attach(&self, request: AttachRequest) -> BoxFuture<'_, Result<Process, StreamError>> {
        let message = format!("cannot attach to pods of node {}", request.target.node);
        Box::pin(async move { Err(StreamError::NotImplemented(message)) })
    }

    /// A TCP connection to a port of a pod.
    fn connect(
        &self,
        request: ConnectRequest,
    ) -> BoxFuture<'_, Result<Box<dyn Connection>, StreamError>> {
        let message = format!("cannot connect to pods of node {}", request.node);
        Box::pin(async move { Err(StreamError::NotImplemented(message)) })
    }

    /// A TCP connection to a port of a node itself.
    fn connect_node(
        &self,
        request: ConnectNodeRequest,
    ) -> BoxFuture<'_, Result<Box<dyn Connection>, StreamError>> {
        let message = format!("cannot connect to node {}", request.node);
        Box::pin(async move { Err(StreamError::NotImplemented(message)) })
    }
}

/// Both directions of a connection. Shutting the writing side down must leave
/// the reading side open (half-close).
pub trait Connection: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Connection for T {}

/// One container. The server has checked that the pod exists, has a node, is
/// not completed, and has the container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ContainerTarget {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// `metadata.uid` of the pod.
    pub uid: String,
    /// `spec.nodeName` of the pod; never empty.
    pub node: String,
    /// The container, resolved when the client left it out.
    pub container: String,
}

/// Which of a process's streams the client wants. With `tty` there is no
/// stderr: the terminal carries both.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streams {
    /// The client writes to the process.
    pub stdin: bool,
    /// The client reads what the process prints.
    pub stdout: bool,
    /// The client reads the errors apart; never with `tty`.
    pub stderr: bool,
    /// The process gets a terminal (exec), or has one (attach).
    pub tty: bool,
}

/// A command to run in a container.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ExecRequest {
    /// Where.
    pub target: ContainerTarget,
    /// Program and arguments; never empty.
    pub command: Vec<String>,
    /// The streams to set up.
    pub streams: Streams,
}

/// A running container to attach to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AttachRequest {
    /// Where.
    pub target: ContainerTarget,
    /// The streams to set up.
    pub streams: Streams,
}

/// A port of a pod to connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectRequest {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// `metadata.uid` of the pod.
    pub uid: String,
    /// `spec.nodeName` of the pod; never empty.
    pub node: String,
    /// The TCP port, 1–65535.
    pub port: u16,
    /// Which address of the pod.
    pub host: ConnectHost,
}

/// A connection to make to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectNodeRequest {
    /// Name of the node.
    pub node: String,
    /// Its first internal address.
    pub address: std::net::IpAddr,
    /// The TCP port, 1–65535.
    pub port: u16,
}

/// The address inside a pod to connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConnectHost {
    /// Loopback inside the pod, IPv4 first, then IPv6: what port-forward does.
    Localhost,
    /// This address of the pod, from outside of it: what /proxy does.
    Address(std::net::IpAddr),
}

/// A process whose streams a client gets. Dropping it kills an exec'd command
/// and leaves an attached one alone.
pub struct Process {
    /// Present if asked for; dropping it, or shutting it down, is end of file.
    pub stdin: Option<Input>,
    /// Present if asked for; ends when the process (or all that hold it) ends.
    pub stdout: Option<Output>,
    /// Present if asked for without a terminal.
    pub stderr: Option<Output>,
    /// With a terminal: its size, whenever it changes.
    pub resize: Option<mpsc::Sender<TerminalSize>>,
    /// Resolves when the process has ended; output may still be buffered then.
    /// The server takes a Process apart and keeps this to the end of the session:
    /// what ends the command hangs on it.
    pub exit: BoxFuture<'static, Result<Exit, StreamError>>,
}

impl std::fmt::Debug for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Process")
            .field("stdin", &self.stdin.is_some())
            .field("stdout", &self.stdout.is_some())
            .field("stderr", &self.stderr.is_some())
            .field("resize", &self.resize.is_some())
            .finish_non_exhaustive()
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// The exit code; 128 + the number of the signal that killed it.
    pub code: i32,
}

/// The size of a terminal in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// Why there is no process or connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StreamError {
    /// The container or pod is not there (any more), or does not run:
    /// `container not found ("web")`.
    #[error("{0}")]
    NotFound(String),
    /// The request makes no sense for this container.
    #[error("{0}")]
    BadRequest(String),
    /// Nobody listens on the port, or the pod cannot be reached. The text is
    /// the cause alone, like `connection refused`.
    #[error("{0}")]
    Refused(String),
    /// Whoever runs the pods cannot do this.
    #[error("{0}")]
    NotImplemented(String),
    /// Anything else.
    #[error("{0}")]
    Internal(String),
}

/// Which log is wanted. The server has checked that the pod exists and has
/// the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRequest {
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// `metadata.uid` of the pod.
    pub uid: String,
    /// `spec.nodeName` of the pod; never empty.
    pub node: String,
    /// The container, resolved when the client left it out.
    pub container: String,
    /// How to cut the log.
    pub options: LogOptions,
}

/// Query parameters of `pods/NAME/log`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Keep the stream open for new lines.
    pub follow: bool,
    /// The previous run of the container.
    pub previous: bool,
    /// Prefix each line with its RFC 3339 time.
    pub timestamps: bool,
    /// Only this many last lines.
    pub tail_lines: Option<u64>,
    /// Only lines at or after this time (from sinceTime, or sinceSeconds).
    pub since: Option<jiff::Timestamp>,
    /// At most this many bytes; enforced by the server too.
    pub limit_bytes: Option<u64>,
}

/// Why there is no log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// Answered as 404 NotFound.
    #[error("{0}")]
    NotFound(String),
    /// Answered as 400 BadRequest, for instance "container "x" in pod "y" is waiting to start: ContainerCreating".
    #[error("{0}")]
    BadRequest(String),
    /// Answered as 500 InternalError.
    #[error("{0}")]
    Internal(String),
}
