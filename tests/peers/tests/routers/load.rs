//! A load of packets from the router: each is a flow of its own, so that each may take
//! any of the paths.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use portolan_kernel::netns::NetNs;

/// How often a packet is sent.
const EVERY: Duration = Duration::from_millis(10);
/// A packet that is not answered by then is lost.
const LOST: Duration = Duration::from_secs(10);

/// Packets that are sent, until it is asked for what became of them.
pub(crate) struct Load {
    over: Arc<AtomicBool>,
    task: JoinHandle<Vec<Sent>>,
}

/// A packet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(crate) at: Instant,
    /// The node that answered; none if nobody did.
    pub(crate) by: Option<u8>,
}

impl Load {
    /// Sends datagrams from a namespace to port 80 of an address.
    pub(crate) fn start(ns: &NetNs, address: &str) -> Result<Self> {
        let to = SocketAddr::new(address.parse()?, 80);
        let any: IpAddr = if to.is_ipv4() { "0.0.0.0" } else { "::" }.parse()?;
        let over = Arc::new(AtomicBool::new(false));
        let (stop, ns) = (Arc::clone(&over), ns.clone());
        let task = std::thread::spawn(move || {
            ns.run(|| send(any, to, &stop))
                .expect("the namespace is there")
        });
        Ok(Self { over, task })
    }

    /// Ends it, and answers with what became of all packets.
    pub(crate) fn end(self) -> Vec<Sent> {
        self.over.store(true, Ordering::Relaxed);
        self.task.join().expect("the load does not fail")
    }
}

fn send(any: IpAddr, to: SocketAddr, over: &AtomicBool) -> Vec<Sent> {
    let mut waiting: VecDeque<(Instant, UdpSocket)> = VecDeque::new();
    let mut sent = Vec::new();
    let mut next = Instant::now();
    loop {
        let done = over.load(Ordering::Relaxed);
        if done && waiting.is_empty() {
            return sent;
        }
        if !done && Instant::now() >= next {
            next += EVERY;
            let socket = UdpSocket::bind((any, 0)).expect("a port");
            socket.set_nonblocking(true).expect("a socket");
            // Without a route it is lost, as on the way.
            if socket.send_to(b"?", to).is_err() {
                let at = Instant::now();
                sent.push(Sent { at, by: None });
            } else {
                waiting.push_back((Instant::now(), socket));
            }
        }
        waiting.retain(|(at, socket)| {
            let mut byte = [0];
            let by = socket.recv(&mut byte).ok().map(|_| byte[0]);
            let is_over = by.is_some() || at.elapsed() > LOST;
            if is_over {
                sent.push(Sent { at: *at, by });
            }
            !is_over
        });
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// For how long packets were lost: from `since` until the last one that was sent and
/// lost. None if none was.
pub(crate) fn gap(sent: &[Sent], since: Instant) -> Option<Duration> {
    let lost = sent.iter().filter(|one| one.by.is_none());
    let last = lost.map(|one| one.at).max()?;
    Some(last.saturating_duration_since(since))
}

/// How many packets were lost.
pub(crate) fn lost(sent: &[Sent]) -> usize {
    sent.iter().filter(|one| one.by.is_none()).count()
}

/// Opens so many connections from a namespace to port 80 of an address, and counts
/// which node answered each.
pub(crate) fn spread(ns: &NetNs, address: &str, count: usize) -> Result<BTreeMap<u8, usize>> {
    let to = SocketAddr::new(address.parse()?, 80);
    ns.run(|| {
        let mut by = BTreeMap::new();
        for _ in 0..count {
            let mut stream = TcpStream::connect_timeout(&to, LOST)?;
            stream.set_read_timeout(Some(LOST))?;
            let mut byte = [0];
            stream.read_exact(&mut byte)?;
            *by.entry(byte[0]).or_default() += 1;
        }
        Ok(by)
    })?
}
