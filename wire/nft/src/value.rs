//! Constants: the values of fields, and tuples of them as set elements hold them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use smallvec::SmallVec;

use crate::Field;

/// `ct state` as a bit mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CtState(pub u32);

impl CtState {
    /// A packet that conntrack cannot place.
    pub const INVALID: Self = Self(1);
    /// Belongs to a connection that has seen both directions.
    pub const ESTABLISHED: Self = Self(2);
    /// Starts a connection that belongs to another one (an ICMP error, for example).
    pub const RELATED: Self = Self(4);
    /// Starts a connection.
    pub const NEW: Self = Self(8);
    /// Not tracked on purpose.
    pub const UNTRACKED: Self = Self(64);

    /// Both masks together.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// `ct status` as a bit mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct CtStatus(pub u32);

impl CtStatus {
    /// Packets of both directions were seen.
    pub const SEEN_REPLY: Self = Self(2);
    /// The connection is in the kernel's table: its first packet left by now.
    pub const CONFIRMED: Self = Self(8);
    /// The connection's source is translated.
    pub const SNAT: Self = Self(0x10);
    /// The connection's destination is translated.
    pub const DNAT: Self = Self(0x20);
}

/// What the routing table says of an address: `fib daddr type`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FibType {
    /// An ordinary address elsewhere (RTN_UNICAST).
    Unicast,
    /// An address of this machine (RTN_LOCAL).
    Local,
    /// A broadcast address of a link (RTN_BROADCAST).
    Broadcast,
    /// IPv6 anycast (RTN_ANYCAST).
    Anycast,
    /// A multicast group (RTN_MULTICAST).
    Multicast,
    /// A blackhole route (RTN_BLACKHOLE).
    Blackhole,
    /// An unreachable route (RTN_UNREACHABLE).
    Unreachable,
    /// A prohibiting route (RTN_PROHIBIT).
    Prohibit,
}

impl FibType {
    const ALL: [(Self, u32, &'static str); 8] = [
        (Self::Unicast, 1, "unicast"),
        (Self::Local, 2, "local"),
        (Self::Broadcast, 3, "broadcast"),
        (Self::Anycast, 4, "anycast"),
        (Self::Multicast, 5, "multicast"),
        (Self::Blackhole, 6, "blackhole"),
        (Self::Unreachable, 7, "unreachable"),
        (Self::Prohibit, 8, "prohibit"),
    ];

    /// The number of rtnetlink (RTN_*).
    #[must_use]
    pub fn number(self) -> u32 {
        Self::ALL
            .iter()
            .find(|row| row.0 == self)
            .map_or(0, |row| row.1)
    }

    /// nft's word.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|row| row.0 == self)
            .map_or("", |row| row.2)
    }

    pub(crate) fn from_number(number: u32) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|row| row.1 == number)
            .map(|row| row.0)
    }
}

/// A constant of one field's type.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Value {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// An IPv6 address.
    V6(Ipv6Addr),
    /// A transport protocol number: 6 TCP, 17 UDP, 132 SCTP.
    Proto(u8),
    /// A transport port.
    Port(u16),
    /// A number, as `numgen` makes it.
    Number(u32),
    /// A packet mark.
    Mark(u32),
    /// An Ethernet address.
    Ether([u8; 6]),
    /// An interface name (at most 15 bytes).
    Iface(String),
    /// The type of an address in the routing table.
    Fib(FibType),
    /// A conntrack state.
    CtState(CtState),
    /// A conntrack status.
    CtStatus(CtStatus),
}

/// TCP's protocol number.
pub(crate) const TCP: u8 = 6;
/// UDP's protocol number.
pub(crate) const UDP: u8 = 17;

/// The longest interface name plus its terminator (IFNAMSIZ).
pub(crate) const IFNAMSIZ: usize = 16;

impl Value {
    /// The bytes in a register, padded to whole 4-byte registers.
    ///
    /// Addresses and ports are in network order, everything else in the order of
    /// the machine, as nft declares the types.
    pub(crate) fn push(&self, out: &mut Vec<u8>) {
        match self {
            Self::V4(addr) => out.extend_from_slice(&addr.octets()),
            Self::V6(addr) => out.extend_from_slice(&addr.octets()),
            Self::Proto(proto) => out.extend_from_slice(&[*proto, 0, 0, 0]),
            Self::Port(port) => {
                out.extend_from_slice(&port.to_be_bytes());
                out.extend_from_slice(&[0, 0]);
            }
            Self::Ether(octets) => {
                out.extend_from_slice(octets);
                out.extend_from_slice(&[0, 0]);
            }
            Self::Number(word) | Self::Mark(word) => out.extend_from_slice(&word.to_ne_bytes()),
            Self::Iface(name) => {
                let mut padded = [0; IFNAMSIZ];
                for (slot, byte) in padded.iter_mut().zip(name.bytes().take(IFNAMSIZ - 1)) {
                    *slot = byte;
                }
                out.extend_from_slice(&padded);
            }
            Self::Fib(kind) => out.extend_from_slice(&kind.number().to_ne_bytes()),
            Self::CtState(CtState(bits)) | Self::CtStatus(CtStatus(bits)) => {
                out.extend_from_slice(&bits.to_ne_bytes());
            }
        }
    }

    /// The bytes without padding.
    const fn len(&self) -> usize {
        match self {
            Self::V6(_) | Self::Iface(_) => 16,
            Self::Proto(_) => 1,
            Self::Port(_) => 2,
            Self::Ether(_) => 6,
            Self::V4(_)
            | Self::Number(_)
            | Self::Mark(_)
            | Self::Fib(_)
            | Self::CtState(_)
            | Self::CtStatus(_) => 4,
        }
    }

    /// The address, if this is one.
    #[must_use]
    pub fn addr(&self) -> Option<IpAddr> {
        if let Self::V4(addr) = self {
            Some(IpAddr::V4(*addr))
        } else if let Self::V6(addr) = self {
            Some(IpAddr::V6(*addr))
        } else {
            None
        }
    }
}

impl From<Ipv4Addr> for Value {
    fn from(addr: Ipv4Addr) -> Self {
        Self::V4(addr)
    }
}

impl From<Ipv6Addr> for Value {
    fn from(addr: Ipv6Addr) -> Self {
        Self::V6(addr)
    }
}

impl From<IpAddr> for Value {
    fn from(addr: IpAddr) -> Self {
        match addr {
            IpAddr::V4(addr) => Self::V4(addr),
            IpAddr::V6(addr) => Self::V6(addr),
        }
    }
}

/// Values one after another, as set keys and map data hold them in registers:
/// each padded to whole registers of 4 bytes, a single one not at all.
///
/// Bytes rather than a list of [`Value`]: a map may hold a hundred thousand of
/// them. The fields of the set give them their meaning: [`Tuple::values`]. What
/// IPv4 maps hold lies in line; longer tuples are on the heap.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple(SmallVec<[u8; 16]>);

impl std::fmt::Debug for Tuple {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Tuple(")?;
        for byte in self.bytes() {
            write!(f, "{byte:02x}")?;
        }
        write!(f, ")")
    }
}

impl Tuple {
    /// The tuple of these values.
    #[must_use]
    pub fn new(values: &[Value]) -> Self {
        let mut bytes = Vec::with_capacity(48);
        for value in values {
            value.push(&mut bytes);
        }
        if let [value] = values {
            bytes.truncate(value.len());
        }
        Self::from_bytes(&bytes)
    }

    /// The tuple of bytes as the kernel has them.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Self {
        Self(SmallVec::from_slice(bytes))
    }

    /// The bytes as the kernel has them.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// The values, when these fields have exactly this many bytes.
    #[must_use]
    pub fn values(&self, family: crate::Family, fields: &[Field]) -> Option<Vec<Value>> {
        let mut rest = &self.0[..];
        let mut values = Vec::with_capacity(fields.len());
        for (field, width) in fields.iter().zip(Field::widths(family, fields)) {
            let (head, tail) = rest.split_at_checked(width)?;
            values.push(field.value(head)?);
            rest = tail;
        }
        rest.is_empty().then_some(values)
    }
}

impl From<&[Value]> for Tuple {
    fn from(values: &[Value]) -> Self {
        Self::new(values)
    }
}

impl<const N: usize> From<[Value; N]> for Tuple {
    fn from(values: [Value; N]) -> Self {
        Self::new(&values)
    }
}
