//! The server's sockets, opened in whatever network namespace the caller is in.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::num::NonZero;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 256;
/// Room for a burst of queries while the loop is busy: some 4 000 of them.
const RECEIVE_BUFFER: usize = 2 << 20;
/// The most threads that answer datagrams, however many processors there are.
const MOST_WORKERS: usize = 8;

/// Bound sockets. A reply leaves from the address that was asked because each
/// socket is bound to one address, never to the unspecified one.
#[derive(Debug, Default)]
pub struct DnsSockets {
    /// For datagrams: one for each address for the first worker, the same for the
    /// second and so on. The kernel spreads clients over those of one address.
    pub udp: Vec<UdpSocket>,
    /// For streams, one for each address.
    pub tcp: Vec<TcpListener>,
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
    pub fn bind(addresses: &[SocketAddr]) -> Result<Self, BindError> {
        let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
        Self::bind_for(addresses, workers.min(MOST_WORKERS))
    }

    /// The same with UDP sockets for so many workers.
    pub fn bind_for(addresses: &[SocketAddr], workers: usize) -> Result<Self, BindError> {
        let mut this = Self::default();
        let mut more = Vec::new();
        for &address in addresses {
            let failed = |protocol| {
                move |source| BindError {
                    address,
                    protocol,
                    source,
                }
            };
            let udp = bind_udp(address).map_err(failed("UDP"))?;
            let bound = udp.local_addr().map_err(failed("UDP"))?;
            this.tcp.push(bind_tcp(bound).map_err(failed("TCP"))?);
            this.udp.push(udp);
            more.push(bound);
        }
        for _ in 1..workers {
            for &address in &more {
                let udp = bind_udp(address).map_err(|source| BindError {
                    address,
                    protocol: "UDP",
                    source,
                })?;
                this.udp.push(udp);
            }
        }
        Ok(this)
    }
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

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    prepare(&socket, address)?;
    socket.set_reuse_address(true)?;
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
