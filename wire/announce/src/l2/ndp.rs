//! Neighbour discovery for IPv6 (RFC 4861): the two messages that resolve
//! addresses. Everything else of it is left alone.

use std::net::Ipv6Addr;

use super::ethernet::{self, Frame, Mac};

/// The next header of ICMPv6.
const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Option types: the link-layer address of the source, and of the target.
const SOURCE_MAC: u8 = 1;
const TARGET_MAC: u8 = 2;
/// The hop limit that no router lets pass: who sent it is on the link.
const HOP_LIMIT: u8 = 255;

const IPV6_HEADER: usize = 40;
/// Type, code, checksum, flags or reserved, target.
const FIXED: usize = 24;

/// All nodes of the link.
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// A message that resolves addresses, and is valid by RFC 4861 section 7.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Who sent it; `::` where an address is tried before it is used (RFC 4862).
    pub source: Ipv6Addr,
    /// To whom it went.
    pub destination: Ipv6Addr,
    /// The address that is asked for, or advertised.
    pub target: Ipv6Addr,
    /// What it is.
    pub kind: Kind,
    /// The link-layer address of its option: of the source of a solicitation, of
    /// the target of an advertisement.
    pub mac: Option<Mac>,
}

/// Which of the two messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Who has the target?
    Solicitation,
    /// The target is here.
    Advertisement {
        /// It answers a solicitation.
        solicited: bool,
        /// It replaces what was known.
        overrides: bool,
    },
}

/// The group that is asked for an address: ff02::1:ff00:0/104 and its last three
/// bytes. Whoever answers for an address must hear what goes there.
#[must_use]
pub fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let low = address.to_bits() & 0x00ff_ffff;
    let base = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00, 0);
    Ipv6Addr::from_bits(base.to_bits() | low)
}

/// The link-layer address of an IPv6 group (RFC 2464 section 7).
#[must_use]
pub fn group_mac(group: Ipv6Addr) -> Mac {
    let [.., a, b, c, d] = group.octets();
    Mac([0x33, 0x33, a, b, c, d])
}

/// The Internet checksum of an ICMPv6 message with its pseudo header (RFC 4443
/// section 2.3); zero for a message whose checksum field is right.
fn checksum(source: Ipv6Addr, destination: Ipv6Addr, message: &[u8]) -> u16 {
    let sum_of = |bytes: &[u8]| -> u64 {
        let pairs = bytes.chunks(2);
        let word = |pair: &[u8]| {
            let [high, low] = [pair.first(), pair.get(1)].map(|b| b.copied().unwrap_or(0));
            u64::from(u16::from_be_bytes([high, low]))
        };
        pairs.map(word).sum()
    };
    let length = u64::try_from(message.len()).unwrap_or(u64::MAX);
    let mut sum = sum_of(&source.octets())
        + sum_of(&destination.octets())
        + length
        + u64::from(ICMPV6)
        + sum_of(message);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

impl Message {
    /// Reads an IPv6 packet. `None` unless it is a valid solicitation or
    /// advertisement: hop limit 255, right checksum, no extension header (RFC 6980
    /// forbids fragments), whole options, addresses as section 7.1 asks.
    #[must_use]
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let (header, rest) = packet.split_first_chunk::<IPV6_HEADER>()?;
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        if header[0] >> 4 != 6 || header[6] != ICMPV6 || header[7] != HOP_LIMIT {
            return None;
        }
        let source = Ipv6Addr::from(*header.get(8..24)?.first_chunk::<16>()?);
        let destination = Ipv6Addr::from(*header.get(24..40)?.first_chunk::<16>()?);
        let message = rest.get(..length)?;
        let (fixed, options) = message.split_first_chunk::<FIXED>()?;
        if fixed[1] != 0 || checksum(source, destination, message) != 0 {
            return None;
        }
        let target = Ipv6Addr::from(*fixed.get(8..24)?.first_chunk::<16>()?);
        let (kind, option) = match fixed[0] {
            SOLICITATION => (Kind::Solicitation, SOURCE_MAC),
            ADVERTISEMENT => {
                let solicited = fixed[4] & 0x40 != 0;
                let overrides = fixed[4] & 0x20 != 0;
                let kind = Kind::Advertisement {
                    solicited,
                    overrides,
                };
                (kind, TARGET_MAC)
            }
            _ => return None,
        };
        let message = Self {
            source,
            destination,
            target,
            kind,
            mac: mac_option(options, option)?,
        };
        message.is_valid().then_some(message)
    }

    /// The rules about addresses of RFC 4861 sections 7.1.1 and 7.1.2.
    fn is_valid(&self) -> bool {
        if self.target.is_multicast() || self.target.is_unspecified() || self.source.is_multicast()
        {
            return false;
        }
        match self.kind {
            Kind::Solicitation if self.source.is_unspecified() => {
                self.destination == solicited_node(self.target) && self.mac.is_none()
            }
            Kind::Solicitation => true,
            Kind::Advertisement { solicited, .. } => {
                let wide = solicited && self.destination.is_multicast();
                !self.source.is_unspecified() && !wide
            }
        }
    }

    /// The message as an IPv6 packet.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let (kind, flags, option) = match self.kind {
            Kind::Solicitation => (SOLICITATION, 0, SOURCE_MAC),
            Kind::Advertisement {
                solicited,
                overrides,
            } => {
                let flags = u8::from(solicited) << 6 | u8::from(overrides) << 5;
                (ADVERTISEMENT, flags, TARGET_MAC)
            }
        };
        let mut message = vec![kind, 0, 0, 0, flags, 0, 0, 0];
        message.extend_from_slice(&self.target.octets());
        if let Some(mac) = self.mac {
            message.extend_from_slice(&[option, 1]);
            message.extend_from_slice(&mac.0);
        }
        let sum = checksum(self.source, self.destination, &message).to_be_bytes();
        for (slot, byte) in message.iter_mut().skip(2).zip(sum) {
            *slot = byte;
        }
        let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
        let mut out = Vec::with_capacity(IPV6_HEADER + message.len());
        out.extend_from_slice(&[0x60, 0, 0, 0]);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&[ICMPV6, HOP_LIMIT]);
        out.extend_from_slice(&self.source.octets());
        out.extend_from_slice(&self.destination.octets());
        out.extend_from_slice(&message);
        out
    }
}

/// The link-layer address among options: `None` if one of them is malformed,
/// `Some(None)` if there is no such option.
fn mac_option(mut options: &[u8], wanted: u8) -> Option<Option<Mac>> {
    let mut found = None;
    while let Some((kind, rest)) = options.split_first() {
        let length = usize::from(*rest.first()?) * 8;
        if length == 0 {
            return None;
        }
        let (option, rest) = options.split_at_checked(length)?;
        if *kind == wanted && found.is_none() {
            // Ethernet's is one unit of eight bytes (RFC 2464 section 6).
            let mac = Mac(*option.get(2..8)?.first_chunk::<6>()?);
            if length != 8 || !mac.is_station() {
                return None;
            }
            found = Some(mac);
        }
        options = rest;
    }
    Some(found)
}

/// What the owner of the target at `mac` answers to a solicitation that came from
/// the station `from` (RFC 4861 section 7.2.4).
#[must_use]
pub fn answer(solicitation: &Message, from: Mac, mac: Mac) -> Option<Vec<u8>> {
    if solicitation.kind != Kind::Solicitation {
        return None;
    }
    // Who tries an address has none yet: all nodes hear that it is taken.
    let tried = solicitation.source.is_unspecified();
    let (destination, to) = if tried {
        (ALL_NODES, group_mac(ALL_NODES))
    } else {
        (solicitation.source, solicitation.mac.unwrap_or(from))
    };
    let advertisement = Message {
        source: solicitation.target,
        destination,
        target: solicitation.target,
        kind: Kind::Advertisement {
            solicited: !tried,
            overrides: true,
        },
        mac: Some(mac),
    };
    let bytes = advertisement.bytes();
    Some(ethernet::frame(to, mac, ethernet::IPV6, &bytes))
}

/// The unsolicited advertisement that moves an address to `mac` (RFC 4861 section
/// 7.2.6).
#[must_use]
pub fn announcement(address: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let advertisement = Message {
        source: address,
        destination: ALL_NODES,
        target: address,
        kind: Kind::Advertisement {
            solicited: false,
            overrides: true,
        },
        mac: Some(mac),
    };
    let bytes = advertisement.bytes();
    ethernet::frame(group_mac(ALL_NODES), mac, ethernet::IPV6, &bytes)
}

/// Reads the message of a frame, if it went to a group of IPv6 or to `mac`.
#[must_use]
pub fn of(frame: &Frame<'_>, mac: Mac) -> Option<Message> {
    let group = frame.destination.0[..2] == [0x33, 0x33];
    let ours = group || frame.destination == mac;
    if frame.ether_type != ethernet::IPV6 || !ours || !frame.source.is_station() {
        return None;
    }
    Message::parse(frame.payload)
}
