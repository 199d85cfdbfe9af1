//! UDP: a socket towards an endpoint for each client, until both are silent.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use socket2::Type;
use tokio::net::UdpSocket;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::{Route, Shared};

/// A session ends when nothing was said for so long, as the kernel's connection
/// tracking forgets a UDP stream (nf_conntrack_udp_timeout_stream).
const IDLE: Duration = Duration::from_secs(120);
/// How often it is looked for sessions that have ended.
const LOOK: Duration = Duration::from_secs(5);
/// Sessions of one frontend; for one more, the one that is silent longest ends.
const SESSIONS: usize = 1024;
/// The longest datagram.
const DATAGRAM: usize = 65_535;

/// One frontend.
pub(super) struct Proxy {
    socket: Arc<UdpSocket>,
    shared: Arc<Shared>,
    route: Arc<Route>,
    sessions: HashMap<SocketAddr, Session>,
    most: usize,
}

/// One client's way to an endpoint. It ends when this is dropped.
struct Session {
    endpoint: SocketAddr,
    /// Connected to the endpoint.
    socket: Arc<UdpSocket>,
    heard: Heard,
    answers: JoinHandle<()>,
    _place: tokio::sync::OwnedSemaphorePermit,
}

/// When anything was said last, in either direction.
#[derive(Clone)]
struct Heard(Arc<Mutex<Instant>>);

impl Heard {
    fn now() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    fn at(&self) -> Instant {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn again(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.answers.abort();
    }
}

impl Proxy {
    /// A frontend without sessions, at a bound socket.
    pub(super) fn new(socket: UdpSocket, shared: Arc<Shared>, route: Arc<Route>) -> Self {
        Self {
            socket: Arc::new(socket),
            shared,
            route,
            sessions: HashMap::new(),
            most: SESSIONS,
        }
    }

    /// Passes datagrams on until the token is cancelled.
    pub(super) async fn serve(mut self, stop: CancellationToken) {
        let mut buffer = vec![0; DATAGRAM];
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = look.tick(), if !self.sessions.is_empty() => self.forget(IDLE),
                received = self.socket.recv_from(&mut buffer) => match received {
                    Ok((length, client)) => {
                        let datagram = buffer.get(..length).unwrap_or_default();
                        if let Err(error) = self.pass(client, datagram).await {
                            tracing::debug!(%client, %error, "a datagram on localhost was lost");
                            self.sessions.remove(&client);
                        }
                    }
                    // An answer to a client that went away.
                    Err(error) => tracing::debug!(%error, "a client on localhost went away"),
                },
            }
        }
    }

    /// Sends a client's datagram to its endpoint, or to another if that has gone.
    async fn pass(&mut self, client: SocketAddr, datagram: &[u8]) -> io::Result<()> {
        let lives = self.sessions.get(&client).is_some_and(|session| {
            !session.answers.is_finished() && self.route.choice().serves(session.endpoint)
        });
        if !lives {
            self.sessions.remove(&client);
            self.make_room();
            let session = self.session(client).await?;
            self.sessions.insert(client, session);
        }
        let session = self.sessions.get(&client);
        let session = session.ok_or(io::ErrorKind::NotConnected)?;
        session.heard.again();
        session.socket.send(datagram).await?;
        Ok(())
    }

    /// A new session; none while there are too many in all.
    async fn session(&self, client: SocketAddr) -> io::Result<Session> {
        let place = Arc::clone(&self.shared.places).try_acquire_owned();
        let place = place.map_err(io::Error::other)?;
        let endpoint = self.route.choose(client.ip());
        let endpoint = endpoint.ok_or(io::ErrorKind::ConnectionRefused)?;
        let socket = self.shared.socket(Type::DGRAM, endpoint)?;
        let socket = Arc::new(UdpSocket::from_std(socket.into())?);
        socket.connect(endpoint).await?;
        let heard = Heard::now();
        let answers = answer(
            Arc::clone(&socket),
            Arc::clone(&self.socket),
            client,
            heard.clone(),
        );
        Ok(Session {
            endpoint,
            socket,
            heard,
            answers: tokio::spawn(answers),
            _place: place,
        })
    }

    /// Ends sessions that were silent for so long, or whose endpoint refused.
    fn forget(&mut self, idle: Duration) {
        self.sessions.retain(|_, session| {
            !session.answers.is_finished() && session.heard.at().elapsed() < idle
        });
    }

    /// Ends the session that is silent longest if there are as many as may be.
    fn make_room(&mut self) {
        if self.sessions.len() < self.most {
            return;
        }
        let silent = self.sessions.iter().min_by_key(|(_, s)| s.heard.at());
        if let Some(client) = silent.map(|(client, _)| *client) {
            self.sessions.remove(&client);
        }
    }
}

/// Passes an endpoint's answers back until it refuses. Nothing is held while
/// nothing is said.
async fn answer(from: Arc<UdpSocket>, to: Arc<UdpSocket>, client: SocketAddr, heard: Heard) {
    while from.readable().await.is_ok() {
        let mut datagram = Vec::with_capacity(DATAGRAM);
        match from.try_recv_buf(&mut datagram) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return,
        }
        heard.again();
        if let Err(error) = to.send_to(&datagram, client).await {
            tracing::debug!(%client, %error, "an answer on localhost was lost");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use portolan_kernel::netns::NetNs;
    use portolan_model::ServiceKey;
    use portolan_plan::{Decision, Forward, Masquerade, Selection, Target, Verdict};
    use tokio::sync::Semaphore;

    use super::super::choice::Choice;
    use super::*;

    fn route(to: &[SocketAddr]) -> Choice {
        let target = |to: &SocketAddr| Target {
            address: to.ip(),
            port: to.port(),
            local: true,
        };
        let decision = Decision {
            service: ServiceKey::new("default", "echo"),
            port_name: "".into(),
            verdict: Verdict::Forward(Forward {
                targets: to.iter().map(target).collect(),
                selection: Selection::Ready,
                masquerade: Masquerade::Always,
                affinity: None,
                balance: None,
            }),
            outside: None,
            sources: None,
            excluded: Vec::new(),
        };
        Choice::of(&decision).unwrap()
    }

    async fn socket() -> (UdpSocket, SocketAddr) {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let at = socket.local_addr().unwrap();
        (socket, at)
    }

    async fn proxy(to: &[SocketAddr]) -> Proxy {
        let shared = Shared {
            netns: NetNs::current().unwrap(),
            node: "n".to_owned(),
            places: Arc::new(Semaphore::new(3)),
        };
        let choice = Mutex::new(route(to));
        let route = Arc::new(Route { choice });
        Proxy::new(socket().await.0, Arc::new(shared), route)
    }

    fn client(port: u16) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, port).into()
    }

    #[tokio::test]
    async fn sessions_end_when_they_are_silent_when_there_are_too_many_or_when_their_endpoint_goes()
    {
        let ((server, at), (other, other_at)) = (socket().await, socket().await);
        let mut proxy = proxy(&[at]).await;
        proxy.most = 2;
        let mut buffer = [0; 8];
        for port in [1, 2, 1, 3] {
            proxy.pass(client(port), b"hello").await.unwrap();
            let (length, _) = server.recv_from(&mut buffer).await.unwrap();
            assert_eq!(&buffer[..length], b"hello");
        }
        let mut left: Vec<_> = proxy.sessions.keys().copied().collect();
        left.sort();
        assert_eq!(left, [client(1), client(3)], "2 was silent longest");
        proxy.route.choice().follow(route(&[other_at]));
        proxy.pass(client(1), b"again").await.unwrap();
        let (length, _) = other.recv_from(&mut buffer).await.unwrap();
        assert_eq!(&buffer[..length], b"again");
        proxy.forget(Duration::from_secs(60));
        assert_eq!(proxy.sessions.len(), 2);
        proxy.forget(Duration::ZERO);
        assert!(proxy.sessions.is_empty());
        assert_eq!(proxy.shared.places.available_permits(), 3);
    }
}
