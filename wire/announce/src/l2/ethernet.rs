//! Ethernet II frames: the addresses, what is inside, and the payload.

use std::fmt;

/// The EtherType of ARP (RFC 826).
pub const ARP: u16 = 0x0806;
/// The EtherType of IPv6 (RFC 2464).
pub const IPV6: u16 = 0x86dd;
/// The EtherType of an 802.1Q tag.
const VLAN: u16 = 0x8100;

/// The length of both addresses and the EtherType.
const HEADER: usize = 14;
/// The shortest frame without its checksum: shorter ones are padded.
const SHORTEST: usize = 60;

/// A link-layer address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Everybody on the link.
    pub const BROADCAST: Self = Self([0xff; 6]);
    /// The address that means none, in an ARP request.
    pub const ZERO: Self = Self([0; 6]);

    /// Whether it is a group of stations, the broadcast address among them.
    #[must_use]
    pub const fn is_group(self) -> bool {
        self.0[0] & 1 == 1
    }

    /// Whether it can be the address of one station.
    #[must_use]
    pub fn is_station(self) -> bool {
        !self.is_group() && self != Self::ZERO
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A frame that came in. The payload may end with padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// To whom it went.
    pub destination: Mac,
    /// Who sent it.
    pub source: Mac,
    /// The VLAN of its 802.1Q tag. `None` without one, and with a tag that gives
    /// a priority only (VLAN 0).
    pub vlan: Option<u16>,
    /// What the payload is.
    pub ether_type: u16,
    /// What is inside.
    pub payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads a frame. `None` if it ends within its header, or carries a length in
    /// place of a type (IEEE 802.3), which neither ARP nor IPv6 does.
    #[must_use]
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let (header, mut payload) = bytes.split_first_chunk::<HEADER>()?;
        let (destination, rest) = header.split_first_chunk::<6>()?;
        let (source, rest) = rest.split_first_chunk::<6>()?;
        let mut ether_type = u16::from_be_bytes(*rest.first_chunk()?);
        let mut vlan = None;
        if ether_type == VLAN {
            let (tag, inner) = payload.split_first_chunk::<4>()?;
            let [control_high, control_low, kind_high, kind_low] = *tag;
            let id = u16::from_be_bytes([control_high, control_low]) & 0x0fff;
            vlan = (id != 0).then_some(id);
            ether_type = u16::from_be_bytes([kind_high, kind_low]);
            payload = inner;
        }
        (ether_type >= 0x0600).then_some(Self {
            destination: Mac(*destination),
            source: Mac(*source),
            vlan,
            ether_type,
            payload,
        })
    }
}

/// An untagged frame with this payload, padded to the shortest length.
#[must_use]
pub fn frame(destination: Mac, source: Mac, ether_type: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity((HEADER + payload.len()).max(SHORTEST));
    out.extend_from_slice(&destination.0);
    out.extend_from_slice(&source.0);
    out.extend_from_slice(&ether_type.to_be_bytes());
    out.extend_from_slice(payload);
    if out.len() < SHORTEST {
        out.resize(SHORTEST, 0);
    }
    out
}
