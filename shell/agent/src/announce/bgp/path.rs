//! Whether the paths to peers carry packets: BFD beside their sessions (RFC 5882).
//!
//! ```text
//!   a socket for each port and family ──► who is it for? ──► a task for each path ──► its peer's
//! ```
//!
//! A path is looked after from the moment its session first came up, so a peer without
//! BFD is spoken with all the same. All of it runs on a thread of its own: the agent's
//! others may work for longer than packets may be late.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use portolan_announce::bfd::{Config, Output, Packet, Session, State, TTL};
use portolan_kernel::hops::{Hearing, sending};
use portolan_kernel::netns::NetNs;
use portolan_model::workloads::Bfd;
use tokio::net::UdpSocket;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::sleep_until;
use super::AnnounceTold;

/// The port of packets over one hop (RFC 5881), and over several (RFC 5883).
const NEAR: u16 = 3784;
const FAR: u16 = 4784;
/// Longer than any packet.
const LONGEST: usize = 128;
/// Packets of one peer that are not looked at yet. Of more, only the last ones matter.
const DEPTH: usize = 16;
/// How soon a socket that was refused is asked for again.
const AGAIN: Duration = Duration::from_secs(1);
/// The last packet of a session may be lost as any other.
const FAREWELLS: usize = 3;
/// How long they may take.
const PATIENCE: Duration = Duration::from_millis(250);

/// How a path is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PathStanding {
    /// The state of its session.
    pub(super) state: State,
    /// How many times it was found to be broken.
    pub(super) breaks: u64,
}

impl PathStanding {
    /// The name of its state in RFC 5880.
    pub(super) fn name(self) -> &'static str {
        match self.state {
            State::AdminDown => "AdminDown",
            State::Down => "Down",
            State::Init => "Init",
            State::Up => "Up",
        }
    }
}

/// A packet, and the TTL that it arrived with.
type Heard = (Vec<u8>, u8);

/// Somebody who waits for packets.
struct Known {
    peer: SocketAddr,
    port: u16,
    heard: mpsc::Sender<Heard>,
}

/// Who waits for packets, by our number of the session.
#[derive(Default)]
struct Table {
    known: BTreeMap<u32, Known>,
    /// The sockets there are, by whether they are of IPv4, and by port.
    hearing: BTreeSet<(bool, u16)>,
    next: u32,
}

impl Table {
    /// Whose a packet is that came to a port (RFC 5880 section 6.8.6).
    fn of(&self, packet: &Packet, from: SocketAddr, port: u16) -> Option<&Known> {
        let is_of = |known: &&Known| {
            let near = same_link(known.peer, from);
            known.port == port && near && known.peer.ip() == from.ip().to_canonical()
        };
        match packet.yours {
            0 => self.known.values().find(is_of),
            number => self.known.get(&number).filter(is_of),
        }
    }
}

/// Link-local addresses are of one link.
fn same_link(one: SocketAddr, other: SocketAddr) -> bool {
    match (one, other) {
        (SocketAddr::V6(one), SocketAddr::V6(other)) => {
            !one.ip().is_unicast_link_local() || one.scope_id() == other.scope_id()
        }
        _ => true,
    }
}

/// The thread of all paths. It ends when nobody has it any more.
struct Engine(Option<Runtime>);

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

struct Inner {
    netns: NetNs,
    told: AnnounceTold,
    engine: Mutex<Option<Engine>>,
    table: Mutex<Table>,
}

/// All paths of a node.
#[derive(Clone)]
pub(super) struct Paths {
    inner: Arc<Inner>,
}

impl Paths {
    /// No paths yet; packets go through this namespace.
    pub(super) fn new(netns: NetNs, told: AnnounceTold) -> Self {
        let random = RandomState::new().build_hasher().finish();
        let [_, low] = [random >> 32, random & 0xffff_ffff];
        let table = Table {
            // Other numbers than those of an agent before: its packets are of another
            // session.
            next: u32::try_from(low).unwrap_or(1),
            ..Table::default()
        };
        Self {
            inner: Arc::new(Inner {
                netns,
                told,
                engine: Mutex::new(None),
                table: Mutex::new(table),
            }),
        }
    }

    fn table(&self) -> std::sync::MutexGuard<'_, Table> {
        let table = self.inner.table.lock();
        table.unwrap_or_else(PoisonError::into_inner)
    }

    /// The thread, which begins with the first path.
    fn engine(&self) -> io::Result<Handle> {
        let engine = self.inner.engine.lock();
        let mut engine = engine.unwrap_or_else(PoisonError::into_inner);
        if let Some(Engine(Some(runtime))) = &*engine {
            return Ok(runtime.handle().clone());
        }
        let mut builder = Builder::new_multi_thread();
        let builder = builder.worker_threads(1).thread_name("bfd").enable_all();
        let runtime = builder.build()?;
        let handle = runtime.handle().clone();
        *engine = Some(Engine(Some(runtime)));
        Ok(handle)
    }

    /// Looks after the path between these ends from now on.
    ///
    /// # Errors
    /// If there can be no thread for it.
    pub(super) fn start(&self, ends: [SocketAddr; 2], bfd: Bfd, far: bool) -> io::Result<Path> {
        let engine = self.engine()?;
        let port = if far { FAR } else { NEAR };
        let [local, mut peer] = ends;
        peer.set_port(port);
        let (heard, inbox) = mpsc::channel(DEPTH);
        let mut table = self.table();
        let number = loop {
            table.next = table.next.wrapping_add(1);
            if table.next != 0 && !table.known.contains_key(&table.next) {
                break table.next;
            }
        };
        table.known.insert(number, Known { peer, port, heard });
        if table.hearing.insert((peer.is_ipv4(), port)) {
            let hearing = hear(Arc::downgrade(&self.inner), peer.is_ipv4(), port);
            engine.spawn(hearing);
        }
        drop(table);
        let least = bfd.least_ttl.unwrap_or(1);
        let config = Config {
            discriminator: number,
            transmit: bfd.transmit,
            receive: bfd.receive,
            multiplier: bfd.multiplier,
            least_ttl: if far { least } else { TTL },
        };
        let first = PathStanding {
            state: State::Down,
            breaks: 0,
        };
        let (standing, seen) = watch::channel(first);
        let stop = CancellationToken::new();
        let watcher = Watcher {
            paths: self.clone(),
            ends: [local, peer],
            start: Instant::now(),
            session: Session::new(config, number.into(), Duration::ZERO),
            standing,
        };
        let task = engine.spawn(watcher.run(inbox, stop.clone()));
        Ok(Path {
            ends,
            bfd,
            standing: seen,
            stop,
            task,
        })
    }
}

/// A path that is looked after.
pub(super) struct Path {
    /// Our end and the peer's, of the connection that it is beside.
    pub(super) ends: [SocketAddr; 2],
    /// As it is configured.
    pub(super) bfd: Bfd,
    standing: watch::Receiver<PathStanding>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Path {
    /// Waits until a path does otherwise than before; for ever without one.
    pub(super) async fn changed(path: &mut Option<Self>) -> PathStanding {
        if let Some(path) = path
            && path.standing.changed().await.is_ok()
        {
            return *path.standing.borrow_and_update();
        }
        std::future::pending().await
    }

    /// How it is doing.
    pub(super) fn standing(&self) -> PathStanding {
        *self.standing.borrow()
    }

    /// Ends its session. The peer is told that this is no broken path.
    pub(super) async fn end(self) {
        self.stop.cancel();
        if tokio::time::timeout(PATIENCE, self.task).await.is_err() {
            tracing::debug!(peer = %self.ends[1], "a BFD session has not ended in time");
        }
    }
}

/// Hears packets to a port, and gives them to those whom they are for.
async fn hear(paths: std::sync::Weak<Inner>, is_v4: bool, port: u16) {
    let mut buffer = [0; LONGEST];
    let mut told = false;
    loop {
        let Some(inner) = paths.upgrade() else { return };
        let opened = Hearing::open(&inner.netns, is_v4, port);
        drop(inner);
        let socket = match opened {
            Ok(socket) => socket,
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    tracing::warn!(port, %error, "BFD packets cannot be heard: is another BFD daemon on this node?");
                }
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        };
        while let Ok(arrived) = socket.receive(&mut buffer).await {
            let Some(inner) = paths.upgrade() else { return };
            let bytes = buffer.get(..arrived.length).unwrap_or_default();
            let Some(packet) = Packet::parse(bytes) else {
                continue;
            };
            let table = inner.table.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = table.of(&packet, arrived.from, port) {
                // Where so many wait, one more makes no difference.
                drop(
                    known
                        .heard
                        .try_send((bytes.to_vec(), arrived.ttl.unwrap_or(0))),
                );
            }
        }
        tokio::time::sleep(AGAIN).await;
    }
}

/// The task of one path.
struct Watcher {
    paths: Paths,
    ends: [SocketAddr; 2],
    start: Instant,
    session: Session,
    standing: watch::Sender<PathStanding>,
}

impl Watcher {
    fn peer(&self) -> IpAddr {
        self.ends[1].ip()
    }

    fn told(&self) -> &AnnounceTold {
        &self.paths.inner.told
    }

    async fn run(mut self, mut inbox: mpsc::Receiver<Heard>, stop: CancellationToken) {
        self.told().path(self.peer(), false);
        if let Some(socket) = self.open(&stop).await {
            self.work(&socket, &mut inbox, &stop).await;
            let outputs = self.session.disable(self.start.elapsed());
            for _ in 0..FAREWELLS {
                for output in &outputs {
                    if let Output::Send(bytes) = output {
                        drop(socket.send(bytes).await);
                    }
                }
            }
        }
        let number = self.session.discriminator();
        self.paths.table().known.remove(&number);
        self.told().path_ended(self.peer());
    }

    /// The socket to send from, once it is given.
    async fn open(&self, stop: &CancellationToken) -> Option<UdpSocket> {
        let [local, peer] = self.ends;
        loop {
            // Any port will do; this one is likely to be free.
            let first = (self.session.discriminator() & 0xffff) as u16;
            match sending(&self.paths.inner.netns, local, peer, first) {
                Ok(socket) => return Some(socket),
                Err(error) => tracing::warn!(%peer, %error, "BFD packets cannot be sent"),
            }
            tokio::select! {
                () = stop.cancelled() => return None,
                () = tokio::time::sleep(AGAIN) => {}
            }
        }
    }

    async fn work(
        &mut self,
        socket: &UdpSocket,
        inbox: &mut mpsc::Receiver<Heard>,
        stop: &CancellationToken,
    ) {
        loop {
            let due = self.session.deadline().map(|due| self.start + due);
            let outputs = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                Some((bytes, ttl)) = inbox.recv() => {
                    self.told().path_packet(self.peer(), true);
                    self.session.receive(&bytes, ttl, self.start.elapsed())
                }
                () = sleep_until(due) => self.session.tick(self.start.elapsed()),
            };
            for output in outputs {
                match output {
                    Output::Send(bytes) => {
                        // A peer that does not listen is no error of ours.
                        drop(socket.send(&bytes).await);
                        self.told().path_packet(self.peer(), false);
                    }
                    Output::Changed(state, _) => self.changed(state),
                }
            }
        }
    }

    fn changed(&self, state: State) {
        let peer = self.peer();
        let before = *self.standing.borrow();
        let was_up = before.state == State::Up;
        // A peer that has switched BFD off says nothing of the path (RFC 5882 section
        // 3.2).
        let off = self.session.neighbor() == Some(State::AdminDown);
        let broken = was_up && state == State::Down && !off;
        let standing = PathStanding {
            state,
            breaks: before.breaks + u64::from(broken),
        };
        match (broken, state) {
            (true, _) => tracing::warn!(%peer, "BFD: the path is down"),
            (false, State::Up) => tracing::info!(%peer, "BFD: the path is up"),
            (false, _) => tracing::debug!(%peer, state = standing.name(), "BFD"),
        }
        if was_up != (state == State::Up) {
            self.told().path(peer, state == State::Up);
        }
        self.standing.send_replace(standing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(yours: u32) -> Packet {
        Packet {
            diagnostic: portolan_announce::bfd::Diagnostic::NONE,
            state: State::Down,
            poll: false,
            last: false,
            independent: false,
            demand: false,
            multiplier: 3,
            mine: 1,
            yours,
            desired_transmit: AGAIN,
            required_receive: AGAIN,
        }
    }

    #[test]
    fn l10_packets_find_their_path() {
        let (heard, _inbox) = mpsc::channel(1);
        let mut table = Table::default();
        for (number, peer, port) in [
            (5, "192.0.2.3:3784", NEAR),
            (6, "[fe80::1%2]:3784", NEAR),
            (7, "[fe80::1%3]:3784", NEAR),
            (8, "192.0.2.4:4784", FAR),
        ] {
            let known = Known {
                peer: peer.parse().unwrap(),
                port,
                heard: heard.clone(),
            };
            table.known.insert(number, known);
        }
        let find = |yours: u32, from: &str, port: u16| {
            let from: SocketAddr = from.parse().unwrap();
            let found = table.of(&packet(yours), from, port);
            found.map(|known| known.peer.to_string())
        };
        let none = None;
        for (yours, from, port, wanted) in [
            (0, "192.0.2.3:50000", NEAR, Some("192.0.2.3:3784")),
            (5, "192.0.2.3:50000", NEAR, Some("192.0.2.3:3784")),
            (0, "192.0.2.3:50000", FAR, none),
            (0, "192.0.2.9:50000", NEAR, none),
            // Who knows a number and is somebody else.
            (5, "192.0.2.9:50000", NEAR, none),
            (9, "192.0.2.3:50000", NEAR, none),
            (0, "[fe80::1%3]:50000", NEAR, Some("[fe80::1%3]:3784")),
            (6, "[fe80::1%3]:50000", NEAR, none),
            (8, "192.0.2.4:50000", FAR, Some("192.0.2.4:4784")),
        ] {
            assert_eq!(
                find(yours, from, port).as_deref(),
                wanted,
                "{yours} of {from} at {port}"
            );
        }
    }

    /// Two ends on loopback addresses: up, and one that goes without a word.
    #[tokio::test]
    async fn l10_a_path_comes_up_and_a_peer_that_leaves_is_no_broken_one() {
        let bfd = Bfd {
            transmit: Duration::from_millis(50),
            receive: Duration::from_millis(50),
            ..Bfd::default()
        };
        let told = AnnounceTold::default();
        let paths = Paths::new(NetNs::current().unwrap(), told);
        let ends: [SocketAddr; 2] = ["127.0.0.1:1", "127.0.0.2:2"].map(|end| end.parse().unwrap());
        let near = paths.start(ends, bfd, false).unwrap();
        let far = paths.start([ends[1], ends[0]], bfd, false).unwrap();
        let until = async |path: &Path, state: State| {
            let mut seen = path.standing.clone();
            let found = seen.wait_for(|now| now.state == state);
            let found = tokio::time::timeout(Duration::from_secs(60), found).await;
            *found.expect("in time").expect("a task")
        };
        let up = until(&near, State::Up).await;
        until(&far, State::Up).await;
        far.end().await;
        let down = until(&near, State::Down).await;
        assert_eq!(down.breaks, up.breaks, "it said that it goes");
        near.end().await;
        assert!(paths.table().known.is_empty());
    }
}
