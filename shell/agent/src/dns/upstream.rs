//! Resolvers outside the cluster.

use std::hash::BuildHasher;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use portolan_dns::{Rcode, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

/// How long one server has for a reply.
const ATTEMPT: Duration = Duration::from_millis(1500);
/// How long all of them together have: less than the five seconds after which
/// stub resolvers ask again.
const DEADLINE: Duration = Duration::from_millis(4500);
/// How often the list of servers is gone through.
const ROUNDS: usize = 2;
/// The servers that are asked, as many as resolv.conf(5) allows.
const MOST_SERVERS: usize = 3;
/// The longest message.
const MOST_MESSAGE: usize = 65_535;
const DNS_PORT: u16 = 53;

/// Somebody who answers for names outside the zones.
pub trait Upstream: Send + Sync {
    /// Forwards a query, which has one readable question, and returns the reply
    /// with the query's ID. A reply to a query that came over TCP must be whole;
    /// one to a query over UDP may have TC set.
    fn forward(
        &self,
        query: Bytes,
        transport: Transport,
    ) -> BoxFuture<'_, Result<Bytes, UpstreamError>>;
}

/// No resolver gave a usable reply.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// The list of servers is empty.
    #[error("there is no upstream resolver")]
    NoServer,
    /// The last of the servers that were asked failed with `source`.
    #[error("no upstream resolver replied, the last one asked was {server}")]
    NoReply {
        /// The last one asked.
        server: SocketAddr,
        /// What became of it.
        source: io::Error,
    },
    /// All servers together took too long.
    #[error("the upstream resolvers took longer than {} ms", DEADLINE.as_millis())]
    TooLate,
}

/// Makes a UDP socket that is connected to an address, in the namespace from
/// where resolvers are reached.
pub type UdpFactory = Arc<dyn Fn(SocketAddr) -> io::Result<std::net::UdpSocket> + Send + Sync>;
/// Makes a TCP connection to an address, likewise.
pub type TcpFactory = Arc<dyn Fn(SocketAddr) -> io::Result<std::net::TcpStream> + Send + Sync>;

/// Forwards to given servers over sockets that somebody else makes: in a lab the
/// broker, which stayed in the host's namespaces.
///
/// Each query has a socket of its own and a random ID, so a forger has to guess
/// port and ID (RFC 5452). The servers are asked in order, beginning with the
/// one that replied last; SERVFAIL, REFUSED and NOTIMP make the next one have a
/// try, as the C library does. A query that came over TCP is first asked over
/// UDP and, if the reply is cut, over TCP.
pub struct HostUpstream {
    servers: Vec<SocketAddr>,
    udp: UdpFactory,
    tcp: TcpFactory,
    preferred: AtomicUsize,
    ids: Ids,
    pub(super) attempt: Duration,
}

impl HostUpstream {
    /// The first three servers are used, as by the C library.
    pub fn new(mut servers: Vec<SocketAddr>, udp: UdpFactory, tcp: TcpFactory) -> Self {
        servers.truncate(MOST_SERVERS);
        Self {
            servers,
            udp,
            tcp,
            preferred: AtomicUsize::new(0),
            ids: Ids::default(),
            attempt: ATTEMPT,
        }
    }

    async fn ask_all(&self, query: &[u8], transport: Transport) -> Result<Bytes, UpstreamError> {
        let first = self.preferred.load(Ordering::Relaxed);
        let mut error = UpstreamError::NoServer;
        let mut poor = None;
        for attempt in 0..ROUNDS * self.servers.len() {
            let index = (first + attempt) % self.servers.len();
            let Some(&server) = self.servers.get(index) else {
                break;
            };
            let asked = timeout(self.attempt, self.ask(server, query, transport)).await;
            match asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
                Ok(reply) if is_poor(&reply) => poor = Some(reply),
                Ok(reply) => {
                    self.preferred.store(index, Ordering::Relaxed);
                    return Ok(reply);
                }
                Err(source) => error = UpstreamError::NoReply { server, source },
            }
            // A refusal is an answer: once everybody was asked it stands.
            if attempt + 1 >= self.servers.len() && poor.is_some() {
                break;
            }
        }
        poor.ok_or(error)
    }

    async fn ask(
        &self,
        server: SocketAddr,
        query: &[u8],
        transport: Transport,
    ) -> io::Result<Bytes> {
        let asked_id = portolan_dns::id(query).unwrap_or(0);
        let mut query = BytesMut::from(query);
        portolan_dns::set_id(&mut query, self.ids.next());
        let query = query.freeze();
        let mut reply = self.ask_udp(server, &query).await?;
        if transport == Transport::Tcp && portolan_dns::is_truncated(&reply) {
            reply = self.ask_tcp(server, &query).await?;
        }
        portolan_dns::set_id(&mut reply, asked_id);
        Ok(reply.freeze())
    }

    async fn ask_udp(&self, server: SocketAddr, query: &[u8]) -> io::Result<BytesMut> {
        let factory = Arc::clone(&self.udp);
        // The factory may have to ask another process.
        let socket = tokio::task::spawn_blocking(move || factory(server)).await??;
        socket.set_nonblocking(true)?;
        let socket = tokio::net::UdpSocket::from_std(socket)?;
        socket.send(query).await?;
        let mut reply = BytesMut::with_capacity(MOST_MESSAGE);
        loop {
            reply.clear();
            socket.recv_buf(&mut reply).await?;
            // Late, forged or broken ones do not end the wait for the true one.
            if portolan_dns::same_question(query, &reply) {
                return Ok(reply);
            }
        }
    }

    async fn ask_tcp(&self, server: SocketAddr, query: &[u8]) -> io::Result<BytesMut> {
        let factory = Arc::clone(&self.tcp);
        let stream = tokio::task::spawn_blocking(move || factory(server)).await??;
        stream.set_nonblocking(true)?;
        let mut stream = tokio::net::TcpStream::from_std(stream)?;
        let length = u16::try_from(query.len()).map_err(io::Error::other)?;
        let framed = [&length.to_be_bytes(), query].concat();
        stream.write_all(&framed).await?;
        let length = stream.read_u16().await?;
        let mut reply = BytesMut::zeroed(usize::from(length));
        stream.read_exact(&mut reply).await?;
        if !portolan_dns::same_question(query, &reply) {
            return Err(io::Error::other("the reply is to another question"));
        }
        Ok(reply)
    }
}

impl Upstream for HostUpstream {
    fn forward(
        &self,
        query: Bytes,
        transport: Transport,
    ) -> BoxFuture<'_, Result<Bytes, UpstreamError>> {
        Box::pin(async move {
            let asked = timeout(DEADLINE, self.ask_all(&query, transport)).await;
            asked.unwrap_or(Err(UpstreamError::TooLate))
        })
    }
}

/// Whether another server may know better.
fn is_poor(reply: &[u8]) -> bool {
    let poor = [Rcode::ServFail, Rcode::NotImp, Rcode::Refused];
    portolan_dns::rcode(reply).is_some_and(|code| poor.iter().any(|&p| p as u16 == u16::from(code)))
}

/// Unpredictable message IDs: the standard library's keyed hash, whose key
/// comes from the operating system, over a counter.
#[derive(Default)]
struct Ids {
    key: std::hash::RandomState,
    count: AtomicU64,
}

impl Ids {
    fn next(&self) -> u16 {
        let hash = self
            .key
            .hash_one(self.count.fetch_add(1, Ordering::Relaxed));
        (hash >> 48) as u16
    }
}

/// The servers of a resolv.conf(5), in order. Lines that cannot be read are
/// passed over, as by the C library; a link-local server needs its interface by
/// number, since names of interfaces belong to a namespace.
pub fn nameservers(resolv_conf: &str) -> Vec<SocketAddr> {
    resolv_conf
        .lines()
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            words.next().filter(|&word| word == "nameserver")?;
            server_address(words.next()?)
        })
        .take(MOST_SERVERS)
        .collect()
}

fn server_address(text: &str) -> Option<SocketAddr> {
    if let Some((address, scope)) = text.split_once('%') {
        let address: Ipv6Addr = address.parse().ok()?;
        return Some(SocketAddrV6::new(address, DNS_PORT, 0, scope.parse().ok()?).into());
    }
    let address: IpAddr = text.parse().ok()?;
    Some(SocketAddr::new(address, DNS_PORT))
}
