//! Sockets to other servers.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::net::{TcpStream, UdpSocket};

/// Makes a UDP socket that is connected to an address, in the namespace from
/// where resolvers are reached.
pub type UdpFactory = Arc<dyn Fn(SocketAddr) -> io::Result<std::net::UdpSocket> + Send + Sync>;
/// Makes a TCP connection to an address, likewise.
pub type TcpFactory = Arc<dyn Fn(SocketAddr) -> io::Result<std::net::TcpStream> + Send + Sync>;

/// Who makes the sockets.
///
/// Each question over UDP has a socket of its own, connected to the server and
/// bound to a port that the kernel draws at random: a forger has to guess the port
/// and the ID, and what comes from another address never arrives (RFC 5452).
#[derive(Clone)]
pub enum Dial {
    /// This process, in its own namespace.
    Own,
    /// Somebody else, who may need a moment: in a lab the broker, which stayed in
    /// the host's namespaces.
    By {
        /// For datagrams.
        udp: UdpFactory,
        /// For streams.
        tcp: TcpFactory,
    },
}

impl Dial {
    pub(super) async fn udp(&self, server: SocketAddr) -> io::Result<UdpSocket> {
        match self {
            Self::Own => {
                let own: SocketAddr = match server {
                    SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                    SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let socket = UdpSocket::bind(own).await?;
                socket.connect(server).await?;
                Ok(socket)
            }
            Self::By { udp, .. } => {
                let factory = Arc::clone(udp);
                let socket = tokio::task::spawn_blocking(move || factory(server)).await??;
                socket.set_nonblocking(true)?;
                UdpSocket::from_std(socket)
            }
        }
    }

    pub(super) async fn tcp(&self, server: SocketAddr) -> io::Result<TcpStream> {
        let stream = match self {
            Self::Own => TcpStream::connect(server).await?,
            Self::By { tcp, .. } => {
                let factory = Arc::clone(tcp);
                let stream = tokio::task::spawn_blocking(move || factory(server)).await??;
                stream.set_nonblocking(true)?;
                TcpStream::from_std(stream)?
            }
        };
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// Unpredictable numbers: the standard library's keyed hash (SipHash), whose key
/// comes from the operating system, over a counter.
#[derive(Default)]
pub(super) struct Random {
    key: std::hash::RandomState,
    count: AtomicU64,
}

impl Random {
    pub(super) fn u64(&self) -> u64 {
        use std::hash::BuildHasher;
        self.key
            .hash_one(self.count.fetch_add(1, Ordering::Relaxed))
    }

    pub(super) fn id(&self) -> u16 {
        (self.u64() >> 48) as u16
    }

    pub(super) fn bits(&self) -> [u8; 32] {
        let mut bits = [0; 32];
        for part in bits.chunks_exact_mut(8) {
            part.copy_from_slice(&self.u64().to_ne_bytes());
        }
        bits
    }
}
