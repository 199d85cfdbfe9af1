//! `pods/NAME/portforward` over SPDY: for each connection the client opens a
//! pair of streams, `error` and `data`, with one `requestID`.
//!
//! An error of one connection is told on its error stream and ends nothing else.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::FutureExt as _;
use futures::future::FusedFuture as _;
use http::StatusCode;
use portolan_api::meta;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::pod::{self, Parameters};
use super::refused::Refused;
use super::spdy::{self, Input, Output, Stream};
use super::upgrade::{self, Offer};
use super::websocket::{self, Protocol};
use super::{PIECE_BYTES, Request, STREAM_CREATION_TIMEOUT, channels, tunnel};
use crate::answer::Answer;
use crate::pods::{ConnectHost, ConnectRequest, Connection, PodBackend, StreamError};

const PROTOCOL: &str = "portforward.k8s.io";
/// Subprotocols of the WebSocket form.
const PROTOCOLS: [Protocol; 3] = [websocket::NONE, websocket::V4, websocket::V4_BASE64];
/// How long a client may still send to a pod that sends no more.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Half pairs at a time; clients open the two streams in a row.
const MAX_HALF_PAIRS: usize = 100;

/// Where the connections of a session go.
#[derive(Clone)]
pub(super) struct Pod {
    backend: Arc<dyn PodBackend>,
    namespace: String,
    name: String,
    uid: String,
    node: String,
}

impl Pod {
    pub(super) async fn connect(&self, port: u16) -> Result<Box<dyn Connection>, String> {
        let request = ConnectRequest {
            namespace: self.namespace.clone(),
            pod: self.name.clone(),
            uid: self.uid.clone(),
            node: self.node.clone(),
            port,
            host: ConnectHost::Localhost,
        };
        let connected = self.backend.connect(request).await;
        connected.map_err(|error| {
            let why = match error {
                StreamError::Refused(why) => format!(
                    "failed to connect to localhost:{port} inside namespace {:?}: {why}",
                    self.uid
                ),
                StreamError::NotFound(why)
                | StreamError::BadRequest(why)
                | StreamError::NotImplemented(why)
                | StreamError::Internal(why) => why,
            };
            self.error(port, &why)
        })
    }

    /// An error of one connection as the kubelet words it, which leaves the uid
    /// empty.
    fn error(&self, port: u16, why: &str) -> String {
        format!(
            "error forwarding port {port} to pod {}, uid : {why}",
            self.name
        )
    }
}

pub(super) fn handle(mut request: Request) -> Result<Answer, Refused> {
    let pod = pod(&request, &pod::named(&request)?)?;
    match upgrade::offer(&request)? {
        Offer::Spdy => {
            let protocol = upgrade::stream_protocol(&request.parts.headers, &[PROTOCOL])?;
            upgrade::start(&mut request, move |io| serve(io, pod));
            Ok(upgrade::spdy_answer(&protocol))
        }
        Offer::WebSocket { accept, protocols } => {
            let tunnelled = format!("{}{PROTOCOL}", tunnel::PREFIX);
            if protocols.contains(&tunnelled) {
                upgrade::start(&mut request, move |io| async move {
                    let (inner, carry) = tunnel::open(websocket::open(io).await);
                    tokio::join!(carry, serve(inner, pod));
                });
                return Ok(upgrade::websocket_answer(&accept, &tunnelled));
            }
            let ports = ports(&request)?;
            let protocol =
                websocket::choose(&protocols, &PROTOCOLS).ok_or_else(upgrade::no_subprotocol)?;
            upgrade::start(&mut request, move |io| {
                channels::serve(io, protocol, pod, ports)
            });
            Ok(upgrade::websocket_answer(&accept, protocol.name))
        }
    }
}

fn pod(request: &Request, pod: &Value) -> Result<Pod, Refused> {
    Ok(Pod {
        backend: pod::backend(request)?,
        namespace: meta::namespace(pod).to_owned(),
        name: meta::name(pod).to_owned(),
        uid: meta::uid(pod).to_owned(),
        node: pod::node(pod)?,
    })
}

/// The ports of the WebSocket form, which are fixed for the session.
fn ports(request: &Request) -> Result<Vec<u16>, Refused> {
    let asked = Parameters::read(request.parts.uri.query().unwrap_or_default()).ports;
    let refuse = |message: String| Refused::text(StatusCode::BAD_REQUEST, &message);
    if asked.is_empty() {
        return Err(refuse("query parameter \"port\" is required".to_owned()));
    }
    if asked.len() > channels::MAX_PORTS {
        return Err(refuse(format!(
            "at most {} ports in one session",
            channels::MAX_PORTS
        )));
    }
    let port = |text: &String| match text.parse::<u16>() {
        Ok(0) => Err(refuse(format!("port {text:?} must be > 0"))),
        Ok(port) => Ok(port),
        Err(error) => Err(refuse(format!(
            "unable to parse {text:?} as a port: {error}"
        ))),
    };
    asked.iter().map(port).collect()
}

/// A session over any connection that carries SPDY.
async fn serve<T>(io: T, pod: Pod)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let (driver, mut arrivals) = spdy::connection(io);
    let pairs = async {
        let mut waiting = Waiting::default();
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                stream = arrivals.recv() => {
                    let Some(stream) = stream else { return };
                    if let Some(pair) = waiting.add(stream).await {
                        running.spawn(pair.run(pod.clone()));
                    }
                }
                () = waiting.expired() => waiting.expire().await,
                Some(ended) = running.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a forwarded connection failed");
                    }
                }
            }
        }
    };
    tokio::select! {
        () = driver.run() => {}
        () = pairs => {}
    }
}

/// Streams that wait for the other of their pair.
#[derive(Default)]
struct Waiting {
    by_request: BTreeMap<String, (Instant, Stream)>,
}

/// The two streams of a connection.
struct Pair {
    data: Stream,
    error: Stream,
    port: u16,
}

impl Waiting {
    async fn add(&mut self, stream: Stream) -> Option<Pair> {
        let kind = stream.header("streamtype").to_owned();
        let port = stream
            .header("port")
            .parse::<u16>()
            .ok()
            .filter(|port| *port > 0);
        let (Some(port), "data" | "error") = (port, kind.as_str()) else {
            tracing::debug!(kind, "a stream without port or type was refused");
            stream.output.reset().await;
            return None;
        };
        let request = match stream.header("requestid") {
            // Old clients open the error stream first, then the data stream.
            "" if kind == "error" => stream.id().to_string(),
            "" => stream.id().saturating_sub(2).to_string(),
            id => id.to_owned(),
        };
        let Some((since, other)) = self.by_request.remove(&request) else {
            if self.by_request.len() < MAX_HALF_PAIRS {
                self.by_request.insert(request, (Instant::now(), stream));
            } else {
                stream.output.reset().await;
            }
            return None;
        };
        match (other.header("streamtype"), kind.as_str()) {
            ("error", "data") => Some(Pair {
                data: stream,
                error: other,
                port,
            }),
            ("data", "error") => Some(Pair {
                data: other,
                error: stream,
                port,
            }),
            _ => {
                let message = format!(
                    "error processing stream for request {request}: {kind} stream already assigned"
                );
                if kind == "error" {
                    tell(&stream, message).await;
                }
                stream.output.reset().await;
                self.by_request.insert(request, (since, other));
                None
            }
        }
    }

    /// Until the oldest has waited too long.
    async fn expired(&self) {
        let oldest = self.by_request.values().map(|(since, _)| *since).min();
        match oldest {
            Some(since) => tokio::time::sleep_until(since + STREAM_CREATION_TIMEOUT).await,
            None => std::future::pending().await,
        }
    }

    async fn expire(&mut self) {
        let now = Instant::now();
        let late: Vec<String> = self
            .by_request
            .iter()
            .filter(|(_, (since, _))| *since + STREAM_CREATION_TIMEOUT <= now)
            .map(|(request, _)| request.clone())
            .collect();
        for request in late {
            if let Some((_, stream)) = self.by_request.remove(&request) {
                if stream.header("streamtype") == "error" {
                    let message = format!("(request={request}) timed out waiting for streams");
                    tell(&stream, message).await;
                }
                stream.output.reset().await;
            }
        }
    }
}

async fn tell(error: &Stream, message: String) {
    if error.output.write(Bytes::from(message)).await.is_err() {
        tracing::debug!("a client left before it was told an error");
    }
    error.output.finish().await;
}

impl Pair {
    async fn run(self, pod: Pod) {
        let Self {
            data,
            mut error,
            port,
        } = self;
        error.ignore_input();
        let Stream {
            input,
            output,
            reset,
            ..
        } = data;
        let connected = tokio::select! {
            connected = pod.connect(port) => connected,
            () = reset.cancelled() => return error.output.finish().await,
        };
        let connection = match connected {
            Ok(connection) => connection,
            Err(message) => {
                tell(&error, message).await;
                output.reset().await;
                return;
            }
        };
        let (mut read, mut write) = tokio::io::split(connection);
        let upload = upload(input, &mut write);
        let download = async {
            match download(&mut read, &output).await {
                Ok(()) => error.output.finish().await,
                Err(cause) => tell(&error, pod.error(port, &cause.to_string())).await,
            }
            output.finish().await;
        };
        // The client may end its direction and still read. When the pod ends
        // its own, the client waits for that and closes: nothing is left to send.
        let both = async {
            let mut upload = std::pin::pin!(upload.fuse());
            let mut download = std::pin::pin!(download);
            loop {
                tokio::select! {
                    () = &mut download => break,
                    () = &mut upload => {}
                }
            }
            if !upload.is_terminated() && tokio::time::timeout(CLOSE_TIMEOUT, upload).await.is_err()
            {
                tracing::trace!(port, "a client keeps a connection that its pod has closed");
            }
        };
        tokio::select! {
            () = both => {}
            () = reset.cancelled() => error.output.finish().await,
        }
    }
}

/// From the client to the pod.
async fn upload(mut input: Input, to: &mut (impl AsyncWrite + Unpin)) {
    while let Some(bytes) = input.next().await {
        if to.write_all(&bytes).await.is_err() || to.flush().await.is_err() {
            return;
        }
    }
    if let Err(error) = to.shutdown().await {
        tracing::debug!(%error, "cannot end a forwarded connection");
    }
}

/// From the pod to the client. An end of the client is no error.
async fn download(from: &mut (impl AsyncRead + Unpin), output: &Output) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    loop {
        buffer.reserve(PIECE_BYTES);
        if from.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        if output.write(buffer.split().freeze()).await.is_err() {
            return Ok(());
        }
    }
}
