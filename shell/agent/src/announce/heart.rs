//! Heartbeats among agents, and who of them is alive.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portolan_announce::election::{Agents, Config, Key, Output};
use portolan_kernel::netns::NetNs;
use tokio::net::UdpSocket;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// The other agents whose Leases are fresh, and where they hear.
pub(super) type Members = BTreeMap<String, SocketAddr>;

/// The longest datagram that is read: a beat with all names that it may list.
const LONGEST: usize = 2048;
/// How long to wait before a socket that was refused is tried again.
const AGAIN: Duration = Duration::from_secs(1);
/// The last beat may be lost as any other.
const FAREWELLS: usize = 3;

/// The nodes that are alive, this one among them if it answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Alive {
    pub(super) names: BTreeSet<String>,
}

/// What the heartbeats of a node need.
pub(super) struct Heart {
    pub(super) node: String,
    pub(super) netns: NetNs,
    /// Where this agent hears.
    pub(super) at: SocketAddr,
    pub(super) key: Option<Key>,
    /// What the agents of a cluster have in common: the namespace of their Leases. It
    /// must not change while some of them run, as the uid of an object may.
    pub(super) group: String,
}

/// A heart that beats.
struct Beating {
    agents: Agents,
    socket: UdpSocket,
    members: Members,
    start: Instant,
    alive: watch::Sender<Alive>,
}

impl Heart {
    /// Beats until `shutdown`, and tells the others that it is over.
    pub(super) async fn beat(
        self,
        mut members: watch::Receiver<Members>,
        alive: watch::Sender<Alive>,
        shutdown: CancellationToken,
    ) {
        let Some(socket) = self.socket(&shutdown).await else {
            return;
        };
        // Grows with each start, as long as clocks go forward.
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let incarnation = since.map_or(0, |since| since.as_millis());
        let incarnation = u64::try_from(incarnation).unwrap_or(u64::MAX);
        let config = Config {
            key: self.key.clone(),
            ..Config::new(self.node.clone(), number(&self.group), incarnation)
        };
        let known = members.borrow_and_update().clone();
        let names = known.keys().map(String::as_str);
        let mut beating = Beating {
            agents: Agents::new(config, names, Duration::ZERO),
            socket,
            members: known,
            start: Instant::now(),
            alive,
        };
        beating.publish();
        beating.work(&mut members, &shutdown).await;
        for _ in 0..FAREWELLS {
            let outputs = beating.agents.leave();
            beating.perform(outputs).await;
        }
    }

    /// The socket, once it is given; none if that takes until the end.
    async fn socket(&self, shutdown: &CancellationToken) -> Option<UdpSocket> {
        loop {
            match self.bind() {
                Ok(socket) => return Some(socket),
                Err(error) => {
                    tracing::warn!(at = %self.at, %error, "heartbeats cannot be heard");
                }
            }
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    /// A socket at the node's address; behind a translation of addresses the node does
    /// not have that one, and all of its own are as good.
    fn bind(&self) -> io::Result<UdpSocket> {
        let anywhere = match self.at {
            SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let other = SocketAddr::new(anywhere, self.at.port());
        let bind = |at: SocketAddr| {
            let socket = self.netns.run(|| std::net::UdpSocket::bind(at));
            socket.map_err(io::Error::other)?
        };
        let socket = match bind(self.at) {
            Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => bind(other),
            answer => answer,
        }?;
        socket.set_nonblocking(true)?;
        UdpSocket::from_std(socket)
    }
}

/// A group as heartbeats name it.
fn number(group: &str) -> u64 {
    group
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
        })
}

impl Beating {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    async fn work(&mut self, members: &mut watch::Receiver<Members>, shutdown: &CancellationToken) {
        let mut buffer = [0; LONGEST];
        loop {
            let due = self.start + self.agents.deadline();
            let outputs = tokio::select! {
                () = shutdown.cancelled() => return,
                received = self.socket.recv(&mut buffer) => self.heard(received, &buffer),
                changed = members.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.members = members.borrow_and_update().clone();
                    let names = self.members.keys().cloned().collect();
                    self.agents.set_members(&names, self.now())
                }
                () = tokio::time::sleep_until(due) => self.agents.tick(self.now()),
            };
            self.perform(outputs).await;
        }
    }

    fn heard(&mut self, received: io::Result<usize>, buffer: &[u8]) -> Vec<Output> {
        let length = match received {
            Ok(length) => length,
            // An ICMP error for a beat that somebody did not want.
            Err(error) => {
                tracing::trace!(%error, "a heartbeat was refused");
                return Vec::new();
            }
        };
        let now = self.now();
        let bytes = buffer.get(..length).unwrap_or_default();
        self.agents.receive(bytes, now).unwrap_or_else(|refused| {
            tracing::debug!(%refused, "a datagram is ignored");
            Vec::new()
        })
    }

    async fn perform(&mut self, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Changed => self.publish(),
                Output::Send(beat) => {
                    for (name, to) in &self.members {
                        if let Err(error) = self.socket.send_to(&beat, to).await {
                            tracing::trace!(name, %to, %error, "a heartbeat was not sent");
                        }
                    }
                }
            }
        }
    }

    fn publish(&self) {
        let names = self.agents.alive().map(str::to_owned).collect();
        let alive = Alive { names };
        self.alive.send_if_modified(|known| {
            let other = *known != alive;
            if other {
                let names: Vec<&str> = alive.names.iter().map(String::as_str).collect();
                tracing::info!(alive = names.join(","), "agents that announce");
            }
            *known = alive;
            other
        });
    }
}
