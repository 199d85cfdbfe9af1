//! What the server asks of whoever runs the pods: their logs.

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::BoxStream;

/// Bytes of a log as they come; an error ends the answer.
pub type LogStream = BoxStream<'static, Result<Bytes, std::io::Error>>;

/// Whoever runs the pods. On a real cluster this is the kubelet's HTTPS API;
/// in the lab a call inside the process.
pub trait PodBackend: Send + Sync + 'static {
    /// The log of one container. With `follow` the stream ends when the
    /// container does, or when the reader drops it.
    fn logs(&self, request: LogRequest) -> BoxFuture<'_, Result<LogStream, LogError>>;
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
