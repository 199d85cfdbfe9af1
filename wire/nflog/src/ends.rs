//! The ends of a packet, from its headers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const TCP: u8 = 6;
const UDP: u8 = 17;
const DCCP: u8 = 33;
const SCTP: u8 = 132;
const UDP_LITE: u8 = 136;

// Headers of IPv6 that others follow (RFC 8200, RFC 4302).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION_OPTIONS: u8 = 60;

/// No packet has more headers than this.
const MOST_HEADERS: usize = 8;

/// Between whom a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// Who sends it.
    pub source: IpAddr,
    /// To whom.
    pub destination: IpAddr,
    /// The number of its transport protocol.
    pub protocol: u8,
    /// Source and destination port; none for protocols without ports, and where the
    /// packet ends before them.
    pub ports: Option<(u16, u16)>,
}

impl Ends {
    /// The ends of an IP packet; none if it is none, or cut within its header.
    #[must_use]
    pub fn of(packet: &[u8]) -> Option<Self> {
        match packet.first()? >> 4 {
            4 => v4(packet),
            6 => v6(packet),
            _ => None,
        }
    }
}

fn v4(packet: &[u8]) -> Option<Ends> {
    let header = packet.first_chunk::<20>()?;
    let length = usize::from(header[0] & 0x0f) * 4;
    let [source, destination] = [12, 16].map(|at| {
        let octets = packet.get(at..at + 4).and_then(|four| four.try_into().ok());
        octets.map_or(Ipv4Addr::UNSPECIFIED, |four: [u8; 4]| four.into())
    });
    let protocol = header[9];
    // Only the first fragment has ports.
    let first = u16::from_be_bytes([header[6], header[7]]) & 0x1fff == 0;
    Some(Ends {
        source: source.into(),
        destination: destination.into(),
        protocol,
        ports: packet
            .get(length..)
            .filter(|_| first)
            .and_then(|rest| ports(protocol, rest)),
    })
}

fn v6(packet: &[u8]) -> Option<Ends> {
    let header = packet.first_chunk::<40>()?;
    let [source, destination] = [8, 24].map(|at| {
        let octets = header.get(at..at + 16).and_then(|all| all.try_into().ok());
        octets.map_or(Ipv6Addr::UNSPECIFIED, |all: [u8; 16]| all.into())
    });
    let (protocol, rest) = behind_options(header[6], packet.get(40..)?);
    Some(Ends {
        source: source.into(),
        destination: destination.into(),
        protocol,
        ports: rest.and_then(|rest| ports(protocol, rest)),
    })
}

/// The transport protocol, and what is there of it: nothing in a later fragment.
fn behind_options(mut next: u8, mut rest: &[u8]) -> (u8, Option<&[u8]>) {
    for _ in 0..MOST_HEADERS {
        let length = match next {
            HOP_BY_HOP | ROUTING | DESTINATION_OPTIONS => {
                rest.get(1).map(|length| (usize::from(*length) + 1) * 8)
            }
            AUTHENTICATION => rest.get(1).map(|length| (usize::from(*length) + 2) * 4),
            FRAGMENT => match rest.first_chunk::<8>() {
                Some(own) if u16::from_be_bytes([own[2], own[3]]) & 0xfff8 != 0 => {
                    return (own[0], None);
                }
                found => found.map(|_| 8),
            },
            _ => return (next, Some(rest)),
        };
        let (Some(length), Some(following)) = (length, rest.first()) else {
            return (next, None);
        };
        next = *following;
        match rest.get(length..) {
            Some(behind) => rest = behind,
            None => return (next, None),
        }
    }
    (next, None)
}

fn ports(protocol: u8, transport: &[u8]) -> Option<(u16, u16)> {
    if !matches!(protocol, TCP | UDP | DCCP | SCTP | UDP_LITE) {
        return None;
    }
    let [s0, s1, d0, d1] = *transport.first_chunk::<4>()?;
    Some((u16::from_be_bytes([s0, s1]), u16::from_be_bytes([d0, d1])))
}
