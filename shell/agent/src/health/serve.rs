//! HTTP/1.1 for a few callers that ask now and then.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::answer::answer;
use super::{Answers, Door};
use crate::drops::Board;
use crate::metrics::Metrics;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;
/// Connections that are served at once at one port.
const CONNECTIONS: usize = 64;
/// The longest that a caller may take for its request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that a connection lasts.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(60);
/// The pause after a connection that could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A socket, in the namespace of the calling thread.
pub(super) fn bind(address: SocketAddr) -> io::Result<StdListener> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Answers until it is told to stop.
pub(super) async fn run(
    listener: StdListener,
    door: Door,
    answers: Answers,
    stop: CancellationToken,
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::warn!(?door, %error, "health checks are not answered");
            return;
        }
    };
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
                let (answers, stop) = (answers.clone(), stop.clone());
                tokio::spawn(async move {
                    tokio::select! {
                        () = stop.cancelled() => {}
                        _late = tokio::time::timeout(CONNECTION_TIMEOUT, one(stream, door, answers)) => {}
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::debug!(?door, %error, "a health check could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn one(stream: TcpStream, door: Door, answers: Answers) {
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let answers = answers.clone();
        async move {
            let dropped = request.uri().path() == "/flows/dropped" && door == Door::Proxy;
            let response = match &answers.drops {
                Some(board) if dropped => flows(board, request.uri().query()).await,
                _ => respond(&answers, door, request.uri().path()),
            };
            Ok::<_, Infallible>(response)
        }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(?door, %error, "a health check broke off");
    }
}

/// What policies dropped after `after`, for which it waits `wait` seconds.
async fn flows(board: &Board, query: Option<&str>) -> Response<Full<Bytes>> {
    let value = |wanted: &str| {
        let pairs = query.unwrap_or_default().split('&');
        let mut pairs = pairs.filter_map(|pair| pair.split_once('='));
        pairs
            .find(|(key, _)| *key == wanted)
            .and_then(|(_, value)| value.parse().ok())
            .unwrap_or(0)
    };
    let wait = Duration::from_secs(value("wait"));
    let found = board.after(value("after"), wait).await;
    let mut response = Response::new(Full::from(found.to_string()));
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

fn respond(answers: &Answers, door: Door, path: &str) -> Response<Full<Bytes>> {
    if door == Door::Metrics {
        return told(&answers.metrics, path);
    }
    let found = {
        let facts = answers.facts.lock().unwrap_or_else(PoisonError::into_inner);
        answer(&facts, door, path)
    };
    let Some(found) = found else {
        return missing();
    };
    if door == Door::Proxy {
        answers
            .metrics
            .probed(path == "/livez", found.code.as_u16());
    }
    let mut response = Response::new(Full::from(found.body.to_string()));
    *response.status_mut() = found.code;
    let headers = response.headers_mut();
    let json = header::HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    let nosniff = header::HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, nosniff);
    if let Some(weight) = found.weight {
        headers.insert("x-load-balancing-endpoint-weight", weight.into());
    }
    response
}

/// What kube-proxy has at its metrics port.
fn told(metrics: &Metrics, path: &str) -> Response<Full<Bytes>> {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    let (text, kind) = match path {
        "/metrics" => (metrics.text(), OPEN_METRICS),
        "/proxyMode" => ("nftables".to_owned(), "text/plain; charset=utf-8"),
        "/healthz" => ("ok".to_owned(), "text/plain; charset=utf-8"),
        _ => return missing(),
    };
    let mut response = Response::new(Full::from(text));
    let kind = header::HeaderValue::from_static(kind);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn missing() -> Response<Full<Bytes>> {
    let mut missing = Response::new(Full::from("404 page not found\n"));
    *missing.status_mut() = StatusCode::NOT_FOUND;
    missing
}
