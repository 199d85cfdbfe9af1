//! `/health`, `/ready` and `/metrics`, with CoreDNS' answers.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;
/// Connections that are served at once at one place.
const CONNECTIONS: usize = 32;
/// The longest that a caller may take for its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that a connection lasts.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is told.
#[derive(Clone)]
pub(super) struct State {
    pub(super) ready: watch::Receiver<bool>,
    /// The order to stop has come.
    pub(super) leaving: Arc<AtomicBool>,
    /// Everything that is counted.
    pub(super) registry: Arc<Registry>,
}

/// Answers one path at an address until `stop`; returns where it is, port 0 resolved.
/// An heir waits where the process before it still has the place.
pub(super) fn serve(
    address: SocketAddr,
    what: &'static str,
    state: State,
    stop: &CancellationToken,
    is_heir: bool,
) -> io::Result<SocketAddr> {
    let stop = stop.clone();
    match bind(address) {
        Ok(listener) => {
            let at = listener.local_addr()?;
            tokio::spawn(accept(listener, what, state, stop));
            Ok(at)
        }
        Err(error) if is_heir && error.kind() == io::ErrorKind::AddrInUse => {
            tokio::spawn(async move {
                if let Some(Some(listener)) = stop.run_until_cancelled(later(address, what)).await {
                    accept(listener, what, state, stop).await;
                }
            });
            Ok(address)
        }
        Err(error) => Err(error),
    }
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Binds as soon as nobody else has the place; nothing if it cannot be had at all.
async fn later(address: SocketAddr, what: &'static str) -> Option<TcpListener> {
    loop {
        tokio::time::sleep(ACCEPT_PAUSE).await;
        match bind(address) {
            Ok(listener) => return Some(listener),
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => {
                tracing::warn!(%address, what, %error, "nothing is answered there");
                return None;
            }
        }
    }
}

async fn accept(listener: TcpListener, what: &'static str, state: State, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return;
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let (state, stop) = (state.clone(), stop.clone());
                tokio::spawn(async move {
                    let one = tokio::time::timeout(CONNECTION_TIMEOUT, one(stream, what, state));
                    stop.run_until_cancelled(one).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(what, %error, "a caller could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn one(stream: TcpStream, what: &'static str, state: State) {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let response = respond(&state, what, request.uri().path());
        async move { Ok::<_, Infallible>(response) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(what, %error, "a caller broke off");
    }
}

fn respond(state: &State, what: &str, path: &str) -> Response<Full<Bytes>> {
    const PROMETHEUS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    if path.strip_prefix('/') != Some(what) {
        return told(StatusCode::NOT_FOUND, "404 page not found\n".to_owned());
    }
    match what {
        "ready" if !*state.ready.borrow() || state.leaving.load(Ordering::Relaxed) => {
            told(StatusCode::SERVICE_UNAVAILABLE, "kubernetes".to_owned())
        }
        "metrics" => {
            let mut text = String::new();
            if let Err(error) = encode(&mut text, &state.registry) {
                tracing::warn!(%error, "the counters cannot be written");
            }
            let mut response = told(StatusCode::OK, text);
            let kind = header::HeaderValue::from_static(PROMETHEUS);
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response
        }
        _ => told(StatusCode::OK, "OK".to_owned()),
    }
}

fn told(code: StatusCode, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(text));
    *response.status_mut() = code;
    response
}
