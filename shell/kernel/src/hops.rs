//! Datagrams with the TTL (or hop limit) that they arrived with: who sent them with 255
//! and has them arrive so is on the same link (RFC 5082).

use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6, UdpSocket};
use std::os::fd::AsRawFd;

use nix::cmsg_space;
use nix::errno::Errno;
use nix::sys::socket::sockopt::{Ipv4RecvTtl, Ipv6RecvHopLimit};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt};
use socket2::{Domain, Socket, Type};
use tokio::io::Interest;

use crate::netns::{NetNs, NetNsError};

/// What a datagram is sent with so that the other end can tell that it is near.
pub const FURTHEST: u32 = 255;
/// The class of packets without which a network does not work (CS6), as routers mark
/// them.
const NETWORK_CONTROL: u32 = 0xc0;
/// RFC 5881 section 4: the ports to send from.
const PORTS: std::ops::RangeInclusive<u16> = 49_152..=65_535;

/// A datagram that arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// How many bytes of the buffer are of it.
    pub length: usize,
    /// Who sent it.
    pub from: SocketAddr,
    /// What is left of its TTL; none where the kernel did not say.
    pub ttl: Option<u8>,
}

/// A socket that hears datagrams to a port.
#[derive(Debug)]
pub struct Hearing {
    socket: tokio::net::UdpSocket,
}

impl Hearing {
    /// Hears what is sent to any address of a family in a namespace. To be called in a
    /// runtime.
    ///
    /// # Errors
    /// Those of the namespace and of bind(2), such as a port that somebody else has.
    pub fn open(ns: &NetNs, is_v4: bool, port: u16) -> io::Result<Self> {
        let socket = ns.run(|| hearing(is_v4, port)).map_err(other)??;
        let socket = tokio::net::UdpSocket::from_std(socket)?;
        Ok(Self { socket })
    }

    /// Waits for a datagram; what does not fit into the buffer is cut off.
    ///
    /// # Errors
    /// Those of recvmsg(2).
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<Arrived> {
        let take = || Ok(take(&self.socket, buffer)?);
        self.socket.async_io(Interest::READABLE, take).await
    }
}

fn other(error: NetNsError) -> io::Error {
    io::Error::other(error)
}

fn hearing(is_v4: bool, port: u16) -> io::Result<UdpSocket> {
    let (domain, any): (Domain, IpAddr) = match is_v4 {
        true => (Domain::IPV4, Ipv4Addr::UNSPECIFIED.into()),
        false => (Domain::IPV6, Ipv6Addr::UNSPECIFIED.into()),
    };
    let socket = Socket::new(domain, Type::DGRAM, None)?;
    if is_v4 {
        setsockopt(&socket, Ipv4RecvTtl, &true)?;
    } else {
        socket.set_only_v6(true)?;
        setsockopt(&socket, Ipv6RecvHopLimit, &true)?;
    }
    socket.bind(&SocketAddr::new(any, port).into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn take(socket: &impl AsRawFd, buffer: &mut [u8]) -> Result<Arrived, Errno> {
    let mut pieces = [IoSliceMut::new(buffer)];
    let mut space = cmsg_space!(libc::c_int);
    let flags = MsgFlags::MSG_DONTWAIT;
    let message =
        recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut pieces, Some(&mut space), flags)?;
    let from = message.address.as_ref().and_then(address);
    let ttl = message.cmsgs()?.find_map(|said| {
        let (ControlMessageOwned::Ipv4Ttl(ttl) | ControlMessageOwned::Ipv6HopLimit(ttl)) = said
        else {
            return None;
        };
        u8::try_from(ttl).ok()
    });
    Ok(Arrived {
        length: message.bytes,
        from: from.ok_or(Errno::EAFNOSUPPORT)?,
        ttl,
    })
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in();
    let v4 = v4.map(|v4| SocketAddr::V4(SocketAddrV4::from(*v4)));
    let v6 = storage.as_sockaddr_in6();
    v4.or_else(|| v6.map(|v6| SocketAddr::V6(SocketAddrV6::from(*v6))))
}

/// A socket that sends from an address to another with the highest TTL, from a port of
/// 49152 to 65535. `first` is where the search for one that is free begins. To be called
/// in a runtime.
///
/// # Errors
/// Those of the namespace, of bind(2) and connect(2).
pub fn sending(
    ns: &NetNs,
    local: SocketAddr,
    to: SocketAddr,
    first: u16,
) -> io::Result<tokio::net::UdpSocket> {
    let open = || {
        let socket = Socket::new(Domain::for_address(to), Type::DGRAM, None)?;
        if to.is_ipv4() {
            socket.set_ttl_v4(FURTHEST)?;
            socket.set_tos_v4(NETWORK_CONTROL)?;
        } else {
            socket.set_unicast_hops_v6(FURTHEST)?;
            socket.set_tclass_v6(NETWORK_CONTROL)?;
        }
        let count = PORTS.end() - PORTS.start();
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for step in 0..=count {
            let mut from = local;
            from.set_port(PORTS.start() + (first % (count + 1)).wrapping_add(step) % (count + 1));
            match socket.bind(&from.into()) {
                Ok(()) => {
                    socket.connect(&to.into())?;
                    socket.set_nonblocking(true)?;
                    return Ok(UdpSocket::from(socket));
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => last = error,
                Err(error) => return Err(error),
            }
        }
        Err(last)
    };
    let socket = ns.run(open).map_err(other)??;
    tokio::net::UdpSocket::from_std(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn datagrams_tell_their_ttl() {
        let ns = NetNs::current().unwrap();
        for (is_v4, at) in [(true, "127.0.0.1"), (false, "::1")] {
            let hearing = Hearing::open(&ns, is_v4, 0).unwrap();
            let port = hearing.socket.local_addr().unwrap().port();
            let at: IpAddr = at.parse().unwrap();
            let (near, to) = (SocketAddr::new(at, 0), SocketAddr::new(at, port));
            // Two that begin at one port have two.
            let sockets = [65_535, 65_535].map(|first| sending(&ns, near, to, first).unwrap());
            let far = UdpSocket::bind(near).unwrap();
            match is_v4 {
                true => far.set_ttl(64).unwrap(),
                false => socket2::SockRef::from(&far)
                    .set_unicast_hops_v6(64)
                    .unwrap(),
            }
            let mut buffer = [0; 8];
            for socket in &sockets {
                socket.send(b"near").await.unwrap();
                let arrived = hearing.receive(&mut buffer).await.unwrap();
                assert_eq!((arrived.length, arrived.ttl), (4, Some(255)));
                assert_eq!(arrived.from, socket.local_addr().unwrap());
                assert!(arrived.from.port() >= 49_152);
            }
            far.send_to(b"far", to).unwrap();
            let arrived = hearing.receive(&mut buffer).await.unwrap();
            assert_eq!((&buffer[..3], arrived.ttl), (&b"far"[..], Some(64)));
        }
    }
}
