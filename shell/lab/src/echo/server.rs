//! The HTTP server, and the application's life from start to drained.

use std::{
    convert::Infallible,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    net::{TcpListener, TcpStream, UdpSocket},
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use super::{
    args::ServerArgs,
    lines,
    reply::{self, Answer, Asked, Route, Who},
    say,
};

/// Port when none is given.
const USUAL_PORT: u16 = 8080;
/// How long requests in flight may take after the listeners closed.
const FINISH_WITHIN: Duration = Duration::from_secs(25);
const BACKLOG: i32 = 1024;

/// Why the server could not start.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServeError {
    #[error("cannot listen on {protocol} port {port}: {cause}")]
    Listen {
        protocol: &'static str,
        port: u16,
        cause: io::Error,
    },
    #[error("cannot wait for signals: {0}")]
    Signals(io::Error),
}

/// What every connection shares.
struct Shared {
    who: Arc<Who>,
    args: ServerArgs,
    started: Instant,
    /// 0: by time, 1: made to succeed, 2: made to fail.
    health: AtomicU8,
    /// Cancelled by SIGTERM: say goodbye on every connection.
    closing: CancellationToken,
    /// Cancelled after the drain: finish and end.
    ended: CancellationToken,
}

/// Serves until SIGTERM or SIGINT, then drains.
pub(super) async fn run(mut args: ServerArgs) -> Result<i32, Box<dyn std::error::Error>> {
    if args.http.is_empty() && args.tcp.is_empty() && args.udp.is_empty() {
        args.http.push(USUAL_PORT);
    }
    let mut term = signal(SignalKind::terminate()).map_err(ServeError::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::Signals)?;
    let shared = Arc::new(Shared {
        who: Arc::new(Who::from_env(|name| std::env::var(name).ok())),
        started: Instant::now(),
        health: AtomicU8::new(0),
        closing: CancellationToken::new(),
        ended: CancellationToken::new(),
        args,
    });
    let mut servers = JoinSet::new();
    for port in &shared.args.http {
        servers.spawn(http(listen(*port)?, shared.clone()));
        say(&format!("listening on http port {port}"));
    }
    for port in &shared.args.tcp {
        servers.spawn(until(
            shared.ended.clone(),
            lines::tcp(listen(*port)?, shared.who.clone()),
        ));
        say(&format!("listening on tcp port {port}"));
    }
    for port in &shared.args.udp {
        servers.spawn(until(
            shared.ended.clone(),
            lines::udp(bind_udp(*port)?, shared.who.clone()),
        ));
        say(&format!("listening on udp port {port}"));
    }
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    say("stopping: finishing what is in flight");
    shared.closing.cancel();
    tokio::time::sleep(shared.args.drain).await;
    shared.ended.cancel();
    let finish = async { while servers.join_next().await.is_some() {} };
    if tokio::time::timeout(FINISH_WITHIN, finish).await.is_err() {
        say("gave up on requests that do not end");
    }
    Ok(0)
}

async fn until(ended: CancellationToken, server: impl Future<Output = ()>) {
    ended.run_until_cancelled_owned(server).await;
}

/// A dual-stack socket, or IPv4 alone where the kernel has no IPv6.
fn socket(kind: Type, protocol: Protocol, port: u16) -> io::Result<Socket> {
    let bound = |domain, at: SocketAddr| -> io::Result<Socket> {
        let socket = Socket::new(domain, kind, Some(protocol))?;
        if domain == Domain::IPV6 {
            socket.set_only_v6(false)?;
        }
        socket.set_reuse_address(kind == Type::STREAM)?;
        socket.set_nonblocking(true)?;
        socket.bind(&at.into())?;
        Ok(socket)
    };
    let both = bound(Domain::IPV6, (Ipv6Addr::UNSPECIFIED, port).into());
    match both {
        Err(ref e) if e.kind() != io::ErrorKind::AddrInUse => {
            bound(Domain::IPV4, (Ipv4Addr::UNSPECIFIED, port).into())
        }
        Ok(_) | Err(_) => both,
    }
}

fn listen(port: u16) -> Result<TcpListener, ServeError> {
    let open = || {
        let socket = socket(Type::STREAM, Protocol::TCP, port)?;
        socket.listen(BACKLOG)?;
        TcpListener::from_std(socket.into())
    };
    open().map_err(|cause| ServeError::Listen {
        protocol: "TCP",
        port,
        cause,
    })
}

fn bind_udp(port: u16) -> Result<UdpSocket, ServeError> {
    socket(Type::DGRAM, Protocol::UDP, port)
        .and_then(|socket| UdpSocket::from_std(socket.into()))
        .map_err(|cause| ServeError::Listen {
            protocol: "UDP",
            port,
            cause,
        })
}

/// Accepts until the drain is over, then waits for the connections.
async fn http(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = shared.ended.cancelled() => break,
            accepted = listener.accept() => {
                if let Ok((stream, client)) = accepted {
                    connections.spawn(connection(stream, client, shared.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
    drop(listener);
    while connections.join_next().await.is_some() {}
}

async fn connection(stream: TcpStream, client: SocketAddr, shared: Arc<Shared>) {
    let Ok(server) = stream.local_addr() else {
        return;
    };
    if let Err(error) = stream.set_nodelay(true) {
        say(&format!("{client}: {error}"));
    }
    let ended = shared.ended.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(answer(&shared, &request, client, server).await) }
    });
    let serving = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    let done = tokio::select! {
        done = serving.as_mut() => done,
        () = ended.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = done {
        // Clients that go away in the middle of a request are everyday life.
        tracing::debug!(%client, %error, "connection ended early");
    }
}

async fn answer(
    shared: &Shared,
    request: &Request<Incoming>,
    client: SocketAddr,
    server: SocketAddr,
) -> Response<Full<Bytes>> {
    let asked = Asked {
        method: request.method(),
        uri: request.uri(),
        version: request.version(),
        headers: request.headers(),
        client,
        server,
    };
    let answer = match reply::route(asked.method, asked.uri) {
        Route::Who(pause) => {
            tokio::time::sleep(pause).await;
            match &shared.args.text {
                Some(text) => Answer::text(StatusCode::OK, format!("{text}\n")),
                None => reply::who(&shared.who, &asked),
            }
        }
        Route::Hostname => Answer::text(StatusCode::OK, shared.who.pod.clone()),
        Route::Client => Answer::text(StatusCode::OK, reply::plain(client).to_string()),
        Route::Health if shared.healthy() => Answer::text(StatusCode::OK, "ok\n"),
        Route::Health => Answer::text(StatusCode::SERVICE_UNAVAILABLE, "failing\n"),
        Route::SetHealth(well) => {
            shared
                .health
                .store(if well { 1 } else { 2 }, Ordering::Relaxed);
            say(&format!(
                "/healthz set to {}",
                if well { "ok" } else { "fail" }
            ));
            Answer::text(StatusCode::OK, "done\n")
        }
        Route::WrongMethod => Answer::text(StatusCode::METHOD_NOT_ALLOWED, "use POST\n"),
    };
    let mut response = Response::new(Full::new(Bytes::from(answer.body)));
    *response.status_mut() = answer.status;
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(answer.content_type),
    );
    if let Ok(pod) = header::HeaderValue::from_str(&shared.who.pod) {
        headers.insert("x-pod", pod);
    }
    if shared.closing.is_cancelled() {
        headers.insert(
            header::CONNECTION,
            header::HeaderValue::from_static("close"),
        );
    }
    response
}

impl Shared {
    fn healthy(&self) -> bool {
        let age = self.started.elapsed();
        match self.health.load(Ordering::Relaxed) {
            1 => true,
            2 => false,
            _ => {
                let begun = self.args.healthz_ok_after.is_none_or(|after| age >= after);
                begun && self.args.healthz_fail_after.is_none_or(|after| age < after)
            }
        }
    }
}
