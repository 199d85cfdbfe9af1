//! What the pod serves and what the client says.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use portolan_kernel::netns::NetNs;
use socket2::{Domain, Protocol, Socket, Type};

/// Where the pod takes connections and closes them at once.
pub const CONNECT: u16 = 8080;
/// Where it reads what comes.
pub const SINK: u16 = 8081;
/// Where it takes datagrams.
pub const DATAGRAMS: u16 = 8082;

const BACKLOG: i32 = 8192;
const FIRST_PORT: u16 = 20_000;
const LAST_PORT: u16 = 60_000;
const PATIENCE: Duration = Duration::from_secs(10);

/// What the pod has seen so far. Its threads end with the process.
#[derive(Clone, Default)]
pub struct Seen {
    connections: Arc<AtomicU64>,
    datagrams: Arc<AtomicU64>,
}

/// Serves in the pod's namespace, on all of its addresses.
///
/// # Errors
/// If the ports cannot be had.
pub fn serve(pod: &NetNs) -> Result<Seen> {
    let seen = Seen::default();
    let listen = |port| pod.run(move || listener(port));
    let (connections, sink) = (listen(CONNECT)??, listen(SINK)??);
    let datagrams = pod.run(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, DATAGRAMS)))??;
    let count = Arc::clone(&seen.connections);
    thread::spawn(move || {
        for _ in connections.incoming() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    thread::spawn(move || {
        for stream in sink.incoming().flatten() {
            thread::spawn(move || swallow(stream));
        }
    });
    let count = Arc::clone(&seen.datagrams);
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while datagrams.recv(&mut buffer).is_ok() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    });
    Ok(seen)
}

fn listener(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn swallow(mut stream: TcpStream) {
    let mut buffer = vec![0; 1 << 20];
    while stream.read(&mut buffer).is_ok_and(|length| length > 0) {}
}

/// A client that never uses a port of an address twice.
pub struct Caller {
    from: Vec<IpAddr>,
    next: u32,
}

impl Caller {
    /// A client with these addresses.
    pub fn new(from: &[IpAddr]) -> Self {
        Self {
            from: from.to_vec(),
            next: 0,
        }
    }

    /// The next address and port: all addresses in turn, then the next port.
    fn source(&mut self) -> Result<SocketAddr> {
        let addresses = u32::try_from(self.from.len())?;
        let address = self.from.get((self.next % addresses) as usize);
        let port = u16::try_from(self.next / addresses)?
            .checked_add(FIRST_PORT)
            .filter(|port| *port < LAST_PORT)
            .context("all ports of all addresses are used up")?;
        self.next += 1;
        Ok(SocketAddr::new(*address.context("an address")?, port))
    }

    fn stream(&mut self, to: SocketAddr) -> Result<Socket> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.bind(&self.source()?.into())?;
        socket
            .connect(&to.into())
            .with_context(|| format!("connect to {to}"))?;
        Ok(socket)
    }

    /// Opens connections one after another, and ends each by a reset, so that none
    /// lingers. Returns how long each took to be open.
    ///
    /// # Errors
    /// If one cannot be opened, or the pod does not take it.
    pub fn connect(&mut self, to: SocketAddr, count: u64, seen: &Seen) -> Result<Vec<Duration>> {
        let target = seen.connections.load(Ordering::Relaxed) + count;
        let mut took = Vec::new();
        for _ in 0..count {
            let begin = Instant::now();
            let socket = self.stream(to)?;
            took.push(begin.elapsed());
            socket.set_linger(Some(Duration::ZERO))?;
        }
        // The pod's queue is empty again before the next round.
        wait(|| seen.connections.load(Ordering::Relaxed) >= target)
            .context("the pod did not take every connection")?;
        Ok(took)
    }

    /// A connection to write to.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn open(&mut self, to: SocketAddr) -> Result<TcpStream> {
        Ok(self.stream(to)?.into())
    }

    /// A socket that sends datagrams to one place.
    ///
    /// # Errors
    /// If there is none.
    pub fn datagrams(&mut self, to: SocketAddr) -> Result<UdpSocket> {
        let socket = UdpSocket::bind(self.source()?)?;
        socket.connect(to)?;
        Ok(socket)
    }
}

fn wait(done: impl Fn() -> bool) -> Result<()> {
    let end = Instant::now() + PATIENCE;
    while !done() {
        anyhow::ensure!(Instant::now() < end, "not within {PATIENCE:?}");
        thread::sleep(Duration::from_micros(100));
    }
    Ok(())
}

/// Writes for so long; returns bytes per second.
///
/// # Errors
/// If the connection breaks.
pub fn write(stream: &mut TcpStream, time: Duration) -> Result<f64> {
    let block = vec![0; 128 << 10];
    let begin = Instant::now();
    let mut bytes = 0;
    while begin.elapsed() < time {
        stream.write_all(&block)?;
        bytes += block.len();
    }
    Ok(bytes as f64 / begin.elapsed().as_secs_f64())
}

/// Sends datagrams; returns how many per second. A packet goes the whole way to the
/// pod's socket while it is sent. Some may be lost there, where nobody waits.
///
/// # Errors
/// If none can be sent, or none comes.
pub fn send(socket: &UdpSocket, count: u64, seen: &Seen) -> Result<f64> {
    let before = seen.datagrams.load(Ordering::Relaxed);
    let begin = Instant::now();
    for _ in 0..count {
        socket.send(&[0; 64])?;
    }
    let rate = count as f64 / begin.elapsed().as_secs_f64();
    wait(|| seen.datagrams.load(Ordering::Relaxed) > before)
        .context("the pod got none of the datagrams")?;
    Ok(rate)
}
