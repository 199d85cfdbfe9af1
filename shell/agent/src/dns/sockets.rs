//! The server's sockets, opened in whatever network namespace the caller is in.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::num::NonZero;
use std::os::unix::net::{UnixListener, UnixStream};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::heirs;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 256;
/// Room for a burst of queries while the loop is busy: some 4 000 of them.
const RECEIVE_BUFFER: usize = 2 << 20;
/// The most threads that answer datagrams, however many processors there are.
const MOST_WORKERS: usize = 8;

/// What stands for the address of a socket that does not know its own.
const UNKNOWN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// Bound sockets. A reply leaves from the address that was asked because each
/// socket is bound to one address, never to the unspecified one.
#[derive(Debug, Default)]
pub struct DnsSockets {
    /// For datagrams: one for each address for the first worker, the same for the
    /// second and so on. The kernel spreads clients over those of one address.
    pub udp: Vec<UdpSocket>,
    /// For streams, one for each address.
    pub tcp: Vec<TcpListener>,
    /// What passes them on, one for each address.
    pub(super) ties: Vec<Ties>,
}

/// What an address has to do with other processes.
#[derive(Debug, Default)]
pub(super) struct Ties {
    /// Where others may ask for its sockets.
    pub(super) offer: Option<UnixListener>,
    /// The process from which its sockets came.
    pub(super) before: Option<UnixStream>,
}

/// A socket could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for DNS at {address}/{protocol}")]
pub struct BindError {
    /// Where.
    pub address: SocketAddr,
    /// `UDP` or `TCP`.
    pub protocol: &'static str,
    /// Why.
    pub source: io::Error,
}

impl DnsSockets {
    /// Binds a UDP and a TCP socket to each address, in the network namespace of
    /// the calling thread: meant to be called within `NetNs::run`. An address
    /// may be given before it is on a link. Port 0 takes one free port for both.
    /// Where another process of ours listens already, its sockets are shared.
    pub fn bind(addresses: &[SocketAddr]) -> Result<Self, BindError> {
        let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self::bind_for(addresses, workers.min(MOST_WORKERS))
    }

    /// The same with UDP sockets for so many workers.
    pub fn bind_for(addresses: &[SocketAddr], workers: usize) -> Result<Self, BindError> {
        let mut this = Self::default();
        let mut of_addresses = Vec::new();
        for &address in addresses {
            let (udp, tcp, ties) = match taken_of(address) {
                Some(taken) => {
                    let ties = Ties {
                        offer: Some(taken.offer),
                        before: Some(taken.line),
                    };
                    (taken.udp, taken.tcp, ties)
                }
                None => bind_new(address)?,
            };
            of_addresses.push(udp);
            this.tcp.push(tcp);
            this.ties.push(ties);
        }
        // Whoever takes more sockets than it has workers reads them all.
        let taken = of_addresses.iter().map(Vec::len).max().unwrap_or(0);
        for worker in 0..workers.max(taken) {
            for udp in &mut of_addresses {
                let Some(first) = udp.first() else { continue };
                if udp.len() > worker {
                    continue;
                }
                let more = first.local_addr().and_then(bind_udp);
                udp.push(more.map_err(|source| BindError {
                    address: first.local_addr().unwrap_or(UNKNOWN),
                    protocol: "UDP",
                    source,
                })?);
            }
        }
        let mut rows: Vec<_> = of_addresses.into_iter().map(Vec::into_iter).collect();
        for _ in 0..workers.max(taken) {
            this.udp.extend(rows.iter_mut().filter_map(Iterator::next));
        }
        Ok(this)
    }

    /// The same without any tie to other processes, as where these cannot be reached.
    #[cfg(test)]
    pub(super) fn apart(mut self) -> Self {
        self.ties.fill_with(Ties::default);
        self
    }

    /// Sockets beside those that others have bound at an address.
    #[cfg(test)]
    pub(super) fn bind_apart(address: SocketAddr) -> Self {
        let mut this = Self::default();
        for _ in 0..2 {
            this.udp.push(bind_udp(address).unwrap());
        }
        // Where the first listener was bound alone, there is none beside it.
        this.tcp
            .push(bind_tcp((Ipv4Addr::LOCALHOST, 0).into(), false).unwrap());
        this.ties.push(Ties::default());
        this
    }

    /// What was not bound here but came from other processes, by address.
    pub(crate) fn were_taken(&self) -> Vec<bool> {
        self.ties.iter().map(|ties| ties.before.is_some()).collect()
    }
}

/// The sockets of a process that listens at an address already; port 0 is none yet.
fn taken_of(address: SocketAddr) -> Option<heirs::Taken> {
    (address.port() != 0)
        .then(|| heirs::take(address))
        .flatten()
}

/// Sockets at an address at which nobody of ours listens.
fn bind_new(address: SocketAddr) -> Result<(Vec<UdpSocket>, TcpListener, Ties), BindError> {
    let failed = |protocol| {
        move |source| BindError {
            address,
            protocol,
            source,
        }
    };
    let udp = bind_udp(address).map_err(failed("UDP"))?;
    let bound = udp.local_addr().map_err(failed("UDP"))?;
    // A port that is free for UDP may be another server's for TCP.
    let share = address.port() != 0;
    let tcp = bind_tcp(bound, share).map_err(failed("TCP"))?;
    let ties = Ties {
        offer: heirs::offer(bound),
        before: None,
    };
    Ok((vec![udp], tcp, ties))
}

fn bind_udp(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::DGRAM,
        Some(Protocol::UDP),
    )?;
    prepare(&socket, address)?;
    socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
    socket.set_reuse_port(true)?;
    socket.bind(&SockAddr::from(address))?;
    Ok(socket.into())
}

fn bind_tcp(address: SocketAddr, share: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    prepare(&socket, address)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(share)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn prepare(socket: &Socket, address: SocketAddr) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    match address {
        SocketAddr::V4(_) => socket.set_freebind_v4(true),
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)
        }
    }
}
