//! Connections: accept, TLS handshake, HTTP/1.1 or HTTP/2, graceful end.
//!
//! Everything a client can make the server hold has a bound: connections,
//! streams per connection, time for handshake and headers, size of a body.

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::{Extensions, HeaderMap, StatusCode, Version};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::{ServiceBuilder, service_fn};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;

use crate::ServeError;
use crate::answer::Compressible;
use crate::context::Context;
use crate::dispatch::{self, Connection};
use crate::tls::Tls;

/// Connections at a time; a lab has some dozens.
const MAX_CONNECTIONS: usize = 4096;
/// Streams of one HTTP/2 connection; Kubernetes' default.
const MAX_STREAMS: u32 = 250;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// Dead peers are noticed by pings.
const PING_INTERVAL: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
const MAX_HEADER_BYTES: u32 = 64 * 1024;
/// How long open requests may take to end after the shutdown signal.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after a failed accept, for instance when descriptors run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serve until `shutdown`, then let open requests end.
pub(crate) async fn serve(
    context: Arc<Context>,
    tls: Arc<Tls>,
    listener: TcpListener,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let address = listener
        .local_addr()
        .map_err(|source| ServeError::Listener {
            address: "the given socket".to_owned(),
            source,
        })?;
    tracing::info!(%address, "serving the Kubernetes API");
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(seat) = Arc::clone(&places).try_acquire_owned() else {
            tracing::warn!("too many connections, one refused");
            continue;
        };
        // Upgraded connections outlive this task and take the seat with them.
        let newcomer = Newcomer {
            context: Arc::clone(&context),
            sessions: connections.clone(),
            seat: Arc::new(seat),
            peer: peer.ip(),
            ending: shutdown.clone(),
        };
        connections.spawn(connection(newcomer, Arc::clone(&tls), stream));
    }
    drop(listener);
    connections.close();
    if tokio::time::timeout(DRAIN_TIMEOUT, connections.wait())
        .await
        .is_err()
    {
        tracing::warn!("some requests did not end in time");
    }
    Ok(())
}

/// What a new connection gets.
struct Newcomer {
    context: Arc<Context>,
    sessions: TaskTracker,
    seat: Arc<OwnedSemaphorePermit>,
    peer: IpAddr,
    ending: CancellationToken,
}

async fn connection(newcomer: Newcomer, tls: Arc<Tls>, stream: TcpStream) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "cannot set TCP_NODELAY");
    }
    // Sessions of other protocols have no pings of ours.
    let keepalive = TcpKeepalive::new()
        .with_time(PING_INTERVAL)
        .with_interval(PING_TIMEOUT);
    if let Err(error) = SockRef::from(&stream).set_tcp_keepalive(&keepalive) {
        tracing::debug!(%error, "cannot set SO_KEEPALIVE");
    }
    let acceptor = TlsAcceptor::from(Arc::clone(&tls.config));
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            return;
        }
        Err(_) => {
            tracing::debug!("TLS handshake took too long");
            return;
        }
    };
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    let shutdown = newcomer.ending.clone();
    let connection = Arc::new(Connection {
        context: newcomer.context,
        certificate_user: tls.user(chain),
        ending: newcomer.ending,
        sessions: newcomer.sessions,
        seat: newcomer.seat,
        peer: Some(newcomer.peer),
    });
    let service = service_fn(move |request: http::Request<Incoming>| {
        let connection = Arc::clone(&connection);
        async move { Ok::<_, Infallible>(dispatch::dispatch(connection, request).await) }
    });
    let compression = CompressionLayer::new()
        .quality(CompressionLevel::Fastest)
        .compress_when(compressible);
    let service = ServiceBuilder::new().layer(compression).service(service);
    let builder = builder();
    let service = TowerToHyperService::new(service);
    let serving = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    let ended = tokio::select! {
        ended = serving.as_mut() => ended,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended with an error");
    }
}

fn builder() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT);
    builder
}

/// Only whole, large answers are compressed: a stream would wait in the encoder.
fn compressible(_: StatusCode, _: Version, _: &HeaderMap, extensions: &Extensions) -> bool {
    extensions.get::<Compressible>().is_some()
}
