//! Opens connections to a peer.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6, TcpStream};

use portolan_kernel::link::Links;
use portolan_kernel::md5;
use portolan_kernel::netns::NetNs;
use portolan_model::workloads::Peer;
use socket2::{Domain, Socket, Type};
use tokio::net::TcpSocket;

/// How a peer is reached.
#[derive(Clone)]
pub(super) struct Dial {
    pub(super) netns: NetNs,
    pub(super) peer: Peer,
    pub(super) password: Option<Vec<u8>>,
}

impl Dial {
    /// Opens a connection. It may be given up at any time.
    pub(super) async fn connect(self) -> io::Result<tokio::net::TcpStream> {
        let address = self.peer.address.ok_or(io::ErrorKind::InvalidInput)?;
        let to = self.target(address).await?;
        let socket = self.netns.run(|| self.socket(address));
        let socket = socket.map_err(io::Error::other)??;
        TcpSocket::from_std_stream(TcpStream::from(socket))
            .connect(to)
            .await
    }

    /// Where the peer is; a link-local address is of the link that it names.
    async fn target(&self, address: IpAddr) -> io::Result<SocketAddr> {
        let port = self.peer.port;
        let (IpAddr::V6(v6), Some(name)) = (address, &self.peer.interface) else {
            return Ok(SocketAddr::new(address, port));
        };
        let links = Links::open(&self.netns).map_err(io::Error::other)?;
        let link = links.index(name).await.map_err(io::Error::other)?;
        Ok(SocketAddrV6::new(v6, port, 0, link.0).into())
    }

    fn socket(&self, address: IpAddr) -> io::Result<Socket> {
        let domain = Domain::for_address(SocketAddr::new(address, 0));
        let socket = Socket::new(domain, Type::STREAM, None)?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if let Some(password) = &self.password {
            md5::sign(&socket, address, password)?;
        }
        if let Some(hops) = hops(&self.peer) {
            match address {
                IpAddr::V4(_) => socket.set_ttl_v4(hops)?,
                IpAddr::V6(_) => socket.set_unicast_hops_v6(hops)?,
            }
        }
        if let Some(source) = self.peer.source {
            socket.bind(&SocketAddr::new(source, 0).into())?;
        }
        Ok(socket)
    }
}

/// How far packets to a peer may go: an external one is a neighbour where nothing else
/// is written; an internal one may be anywhere.
fn hops(peer: &Peer) -> Option<u32> {
    match peer.hops {
        Some(hops) => Some(hops.into()),
        None => (peer.local_as != peer.peer_as).then_some(1),
    }
}
