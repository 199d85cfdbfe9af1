//! A client that makes one HTTP connection after the other, and the nodes' servers.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use portolan_kernel::link::Links;
use portolan_kernel::sysctl;

use crate::PAUSE;
use crate::segment::Segment;

/// How long a server waits for a client that says nothing.
const SILENCE: Duration = Duration::from_secs(20);

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    /// When it was begun, and when it was over.
    pub from: Duration,
    /// When it was over.
    pub to: Duration,
    /// The node that served it, or why none did.
    pub served: Result<u8, String>,
}

/// A thread that runs until it is dropped.
struct Thread {
    stop: Arc<AtomicBool>,
    handle: Option<JoinHandle<()>>,
}

impl Thread {
    fn start(mut step: impl FnMut() + Send + 'static) -> Self {
        let stop: Arc<AtomicBool> = Arc::default();
        let end = Arc::clone(&stop);
        let handle = std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                step();
            }
        });
        Self {
            stop,
            handle: Some(handle),
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(handle) = self.handle.take() {
            drop(handle.join());
        }
    }
}

/// New connections to an address, one after the other.
pub struct Flow {
    start: Instant,
    tries: Arc<Mutex<Vec<Try>>>,
    _thread: Thread,
}

fn get(to: SocketAddr, patience: Duration) -> std::io::Result<u8> {
    let mut stream = TcpStream::connect_timeout(&to, patience)?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut said = String::new();
    stream.read_to_string(&mut said)?;
    let node = said
        .rsplit('n')
        .next()
        .and_then(|node| node.trim().parse().ok());
    node.ok_or_else(|| std::io::Error::other(format!("an answer of no node: {said:?}")))
}

impl Flow {
    /// Begins to connect from the client. A connection where nothing comes for
    /// `patience` is given up, and the next one begins.
    ///
    /// # Errors
    /// If there is no client.
    pub fn start(segment: &Segment, address: IpAddr, patience: Duration) -> Result<Self> {
        let ns = segment.client()?.clone();
        let start = Instant::now();
        let tries: Arc<Mutex<Vec<Try>>> = Arc::default();
        let book = Arc::clone(&tries);
        let to = SocketAddr::new(address, 80);
        let thread = Thread::start(move || {
            // One visit of the namespace for many connections.
            let visit = ns.run(|| {
                for _ in 0..10 {
                    let from = start.elapsed();
                    let served = get(to, patience).map_err(|error| error.to_string());
                    let to = start.elapsed();
                    let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
                    book.push(Try { from, to, served });
                    drop(book);
                    std::thread::sleep(PAUSE);
                }
            });
            drop(visit);
        });
        Ok(Self {
            start,
            tries,
            _thread: thread,
        })
    }

    /// Now, as the times of connections are.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// The connections that were begun since then.
    #[must_use]
    pub fn tries(&self, since: Duration) -> Vec<Try> {
        let tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        tries
            .iter()
            .filter(|one| one.from >= since)
            .cloned()
            .collect()
    }

    /// The node that served the last so many connections begun since then.
    #[must_use]
    pub fn served(&self, since: Duration, count: usize) -> Option<u8> {
        let tries = self.tries(since);
        let last = tries.get(tries.len().checked_sub(count)?..)?;
        let node = last.first()?.served.clone().ok()?;
        let same = last.iter().all(|one| one.served == Ok(node));
        same.then_some(node)
    }

    /// The longest time until another connection was served, from then to the last one.
    #[must_use]
    pub fn gap(&self, since: Duration) -> Duration {
        let mut last = since;
        let mut longest = Duration::ZERO;
        for one in self.tries(since) {
            if one.served.is_ok() {
                longest = longest.max(one.to.saturating_sub(last));
                last = one.to;
            }
        }
        longest
    }

    /// Why connections failed, since then.
    #[must_use]
    pub fn failures(&self, since: Duration) -> Vec<Try> {
        let mut tries = self.tries(since);
        tries.retain(|one| one.served.is_err());
        tries
    }
}

/// A server at an address of a node, which says the node's name.
pub struct Web {
    _thread: Thread,
}

impl Web {
    /// Serves on a node, which takes packets to the address for its own from now on: as
    /// a node does whose rules translate them. Its kernel answers nobody who asks for
    /// it on the link.
    ///
    /// # Errors
    /// If the kernel refuses any of it.
    pub fn start(segment: &Segment, node: u8, address: IpAddr) -> Result<Self> {
        let (ns, _) = segment.place(node)?;
        let net = match address {
            IpAddr::V4(_) => format!("{address}/32"),
            IpAddr::V6(_) => format!("{address}/128"),
        };
        // Only addresses of the link itself are answered for.
        sysctl::set(ns, "net.ipv4.conf.all.arp_ignore", "1")?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let links = Links::open(ns)?;
            let index = links.index("lo").await?;
            links.add_address(index, net.parse()?).await?;
            anyhow::Ok(())
        })?;
        let listener = ns.run(|| TcpListener::bind((address, 80)))??;
        listener.set_nonblocking(true)?;
        let answer = format!("HTTP/1.0 200 OK\r\nConnection: close\r\n\r\nn{node}");
        let thread = Thread::start(move || match listener.accept() {
            Ok((stream, _)) => {
                let answer = answer.clone();
                std::thread::spawn(move || drop(serve(stream, &answer)));
            }
            Err(_nobody) => std::thread::sleep(Duration::from_millis(1)),
        });
        Ok(Self { _thread: thread })
    }
}

fn serve(mut stream: TcpStream, answer: &str) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(SILENCE))?;
    let mut buffer = [0; 1024];
    let _length = stream.read(&mut buffer)?;
    stream.write_all(answer.as_bytes())
}
