//! Packets that no ordinary socket sends: TCP segments outside the window, and
//! SCTP without a kernel that speaks it.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, UdpSocket};

use anyhow::{Context, Result};
use portolan_kernel::netns::NetNs;
use portolan_model::Protocol as Transport;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::time::Instant;

use crate::talk::PATIENCE;

/// Far beyond every window that anybody offers here.
const BEYOND: u32 = 1 << 28;

const FIN: u8 = 0x01;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const ACK: u8 = 0x10;

/// Sees every packet of a protocol that comes to an address of a namespace, and
/// sends whatever it likes from there.
#[derive(Debug)]
pub struct Wire {
    socket: UdpSocket,
    me: IpAddr,
    protocol: Transport,
}

/// What the other end of a TCP connection said last.
#[derive(Debug, Clone, Copy)]
pub struct Said {
    /// The other end, as it is seen here.
    pub peer: SocketAddr,
    /// Which port it talks to.
    pub port: u16,
    /// What it will say next.
    next: u32,
    /// What it expects next.
    expects: u32,
}

/// A packet that has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Came {
    /// Who sent it.
    pub from: SocketAddr,
    /// To which port.
    pub port: u16,
    /// Whether it begins something; else it answers a SYN. Others are not told.
    pub begins: bool,
}

impl Wire {
    /// Taps an address of a namespace.
    ///
    /// # Errors
    /// If the kernel gives no raw socket.
    pub fn tap(ns: &NetNs, me: IpAddr, protocol: Transport) -> Result<Self> {
        let number = Protocol::from(i32::from(protocol.number()));
        let domain = Domain::for_address(SocketAddr::new(me, 0));
        let socket = ns.run(|| Socket::new(domain, Type::RAW, Some(number)))??;
        socket.bind(&SockAddr::from(SocketAddr::new(me, 0)))?;
        socket.set_nonblocking(true)?;
        Ok(Self {
            // A raw socket, of which only datagrams with their senders are wanted.
            socket: socket.into(),
            me,
            protocol,
        })
    }

    /// The next packet, from the transport header on, and who sent it.
    fn next(&self) -> Result<Option<(IpAddr, Vec<u8>)>> {
        let mut buffer = vec![0; 4096];
        match self.socket.recv_from(&mut buffer) {
            Ok((length, from)) => {
                buffer.truncate(length);
                // IPv4 comes with its header, IPv6 without.
                if self.me.is_ipv4() {
                    let first = *buffer.first().context("an empty packet")?;
                    buffer.drain(..usize::from(first & 0x0f) * 4);
                }
                Ok(Some((from.ip(), buffer)))
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// What was said last of what has come, if anything came since.
    ///
    /// # Errors
    /// If packets cannot be read.
    pub fn last_said(&self) -> Result<Option<Said>> {
        let mut last = None;
        while let Some((from, segment)) = self.next()? {
            last = said(from, &segment).or(last);
        }
        Ok(last)
    }

    /// Sends a segment to the other end that is outside every window, and that asks
    /// to be reset with a number that this end would believe.
    ///
    /// # Errors
    /// If it cannot be sent.
    pub fn stray(&self, said: &Said) -> Result<()> {
        let mut segment = Vec::new();
        segment.extend_from_slice(&said.port.to_be_bytes());
        segment.extend_from_slice(&said.peer.port().to_be_bytes());
        segment.extend_from_slice(&said.expects.wrapping_add(BEYOND).to_be_bytes());
        segment.extend_from_slice(&said.next.to_be_bytes());
        segment.extend_from_slice(&[5 << 4, ACK, 0x20, 0, 0, 0, 0, 0]);
        let sum = self.checksum(said.peer.ip(), &segment);
        segment
            .get_mut(16..18)
            .context("a whole header")?
            .copy_from_slice(&sum.to_be_bytes());
        self.send(said.peer.ip(), &segment)
    }

    /// Whether a stray has come that was sent upon this.
    ///
    /// # Errors
    /// If packets cannot be read.
    pub fn has_stray(&self, upon: &Said) -> Result<bool> {
        let mut came = false;
        while let Some((from, segment)) = self.next()? {
            came |= said(from, &segment)
                .is_some_and(|said| said.next == upon.expects.wrapping_add(BEYOND));
        }
        Ok(came)
    }

    fn send(&self, to: IpAddr, packet: &[u8]) -> Result<()> {
        match self.socket.send_to(packet, SocketAddr::new(to, 0)) {
            // A rule of this very machine took it.
            Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
            sent => Ok(sent.map(drop)?),
        }
    }

    /// RFC 9293 3.1, with the pseudo-header of RFC 8200 8.1, whose sum is the same
    /// for IPv4.
    fn checksum(&self, to: IpAddr, segment: &[u8]) -> u16 {
        let octets = |address: IpAddr| match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let mut bytes = octets(self.me);
        bytes.extend(octets(to));
        bytes.extend([0, self.protocol.number()]);
        bytes.extend(u16::try_from(segment.len()).unwrap_or(0).to_be_bytes());
        bytes.extend_from_slice(segment);
        let words = bytes.chunks(2).map(|word| match *word {
            [high, low] => u32::from(u16::from_be_bytes([high, low])),
            [high] => u32::from(high) << 8,
            _ => 0,
        });
        let mut sum: u32 = words.sum();
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
        !u16::try_from(sum).unwrap_or(0)
    }

    /// Asks for an SCTP association (RFC 9260 3.3.2).
    ///
    /// # Errors
    /// If it cannot be sent.
    pub fn sctp_init(&self, port: u16, to: SocketAddr) -> Result<()> {
        let mut packet = Vec::new();
        packet.extend_from_slice(&port.to_be_bytes());
        packet.extend_from_slice(&to.port().to_be_bytes());
        packet.extend_from_slice(&[0; 8]);
        packet.extend_from_slice(&[1, 0, 0, 20]);
        packet.extend_from_slice(&7_u32.to_be_bytes());
        packet.extend_from_slice(&65_536_u32.to_be_bytes());
        packet.extend_from_slice(&[0, 1, 0, 1]);
        packet.extend_from_slice(&1_u32.to_be_bytes());
        let sum = crc32c(&packet).to_le_bytes();
        packet
            .get_mut(8..12)
            .context("a whole header")?
            .copy_from_slice(&sum);
        self.send(to.ip(), &packet)
    }

    /// Begins to talk from a port: with a SYN, a datagram, an INIT.
    ///
    /// # Errors
    /// If it cannot be sent.
    pub fn begin(&self, port: u16, to: SocketAddr) -> Result<()> {
        let ports = [port.to_be_bytes(), to.port().to_be_bytes()].concat();
        let (mut packet, at) = match self.protocol {
            Transport::Sctp => return self.sctp_init(port, to),
            Transport::Tcp => {
                let header = [0, 0, 0, 9, 0, 0, 0, 0, 5 << 4, SYN, 0x20, 0, 0, 0, 0, 0];
                ([ports, header.to_vec()].concat(), 16)
            }
            Transport::Udp => ([ports, vec![0, 8, 0, 0]].concat(), 6),
        };
        // RFC 768: none at all is written as zero, so zero is written as its other self.
        let sum = match self.checksum(to.ip(), &packet) {
            0 if self.protocol == Transport::Udp => u16::MAX,
            sum => sum,
        };
        packet
            .get_mut(at..at + 2)
            .context("a whole header")?
            .copy_from_slice(&sum.to_be_bytes());
        self.send(to.ip(), &packet)
    }

    /// All that has come.
    ///
    /// # Errors
    /// If packets cannot be read.
    pub fn come(&self) -> Result<Vec<Came>> {
        let mut all = Vec::new();
        while let Some((from, packet)) = self.next()? {
            let [s0, s1, d0, d1, ..] = *packet else {
                continue;
            };
            let kind = match self.protocol {
                Transport::Udp => Some(true),
                Transport::Tcp => packet.get(13).and_then(|flags| {
                    let begins = flags & (SYN | ACK) == SYN;
                    (begins || flags & (SYN | RST) != 0).then_some(begins)
                }),
                Transport::Sctp => (packet.get(12) == Some(&1)).then_some(true),
            };
            all.extend(kind.map(|begins| Came {
                from: SocketAddr::new(from, u16::from_be_bytes([s0, s1])),
                port: u16::from_be_bytes([d0, d1]),
                begins,
            }));
        }
        Ok(all)
    }

    /// Waits for a packet to a port; who sent it, from which port.
    ///
    /// # Errors
    /// If none comes in time.
    pub async fn arrival(&self, port: u16) -> Result<SocketAddr> {
        let end = Instant::now() + PATIENCE;
        loop {
            while let Some((from, packet)) = self.next()? {
                if let [s0, s1, d0, d1, ..] = *packet
                    && u16::from_be_bytes([d0, d1]) == port
                {
                    return Ok(SocketAddr::new(from, u16::from_be_bytes([s0, s1])));
                }
            }
            anyhow::ensure!(Instant::now() < end, "nothing comes to {}:{port}", self.me);
            tokio::time::sleep(std::time::Duration::from_millis(2)).await;
        }
    }

    /// Whether a packet to a port has come by now.
    ///
    /// # Errors
    /// If packets cannot be read.
    pub fn has_come(&self, port: u16) -> Result<bool> {
        let mut came = false;
        while let Some((_, packet)) = self.next()? {
            came |= packet.get(2..4) == Some(&port.to_be_bytes());
        }
        Ok(came)
    }
}

fn said(from: IpAddr, segment: &[u8]) -> Option<Said> {
    let [
        s0,
        s1,
        d0,
        d1,
        q0,
        q1,
        q2,
        q3,
        a0,
        a1,
        a2,
        a3,
        offset,
        flags,
        ..,
    ] = *segment
    else {
        return None;
    };
    if flags & ACK == 0 {
        return None;
    }
    let data = segment.len().checked_sub(usize::from(offset >> 4) * 4)?;
    let mark = u32::from(flags & SYN != 0) + u32::from(flags & FIN != 0);
    let length = u32::try_from(data).ok()?.wrapping_add(mark);
    Some(Said {
        peer: SocketAddr::new(from, u16::from_be_bytes([s0, s1])),
        port: u16::from_be_bytes([d0, d1]),
        next: u32::from_be_bytes([q0, q1, q2, q3]).wrapping_add(length),
        expects: u32::from_be_bytes([a0, a1, a2, a3]),
    })
}

/// RFC 9260 appendix A, bit by bit.
fn crc32c(bytes: &[u8]) -> u32 {
    let step = |sum: u32| {
        let carry = if sum & 1 == 1 { 0x82f6_3b78 } else { 0 };
        sum >> 1 ^ carry
    };
    let take = |sum: u32, byte: &u8| (0..8).fold(sum ^ u32::from(*byte), |sum, _| step(sum));
    !bytes.iter().fold(u32::MAX, take)
}
