//! Fields: what a rule reads from a packet, and what sets are typed by.

use std::net::{Ipv4Addr, Ipv6Addr};

use crate::{CtState, CtStatus, Family, FibType, Value};

/// A number generator: `numgen random mod 3`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Numgen {
    /// Random numbers, or counting up (per rule) if false.
    pub random: bool,
    /// Numbers are below this; at least 1.
    pub modulus: u32,
}

/// A hash of who sends a packet: `jhash ip saddr mod 251 seed 0x1`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Jhash {
    /// Numbers are below this; at least 1. See [`crate::hash::slot`].
    pub modulus: u32,
    /// Another seed, another order.
    pub seed: u32,
}

/// Something that can be read from a packet, in a table of a family.
///
/// [`Field::Saddr`] is `ip saddr` in a table `ip` and `ip6 saddr` in a table `ip6`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Field {
    /// `ip saddr`, `ip6 saddr`.
    Saddr,
    /// `ip daddr`, `ip6 daddr`.
    Daddr,
    /// `meta l4proto`.
    L4Proto,
    /// `th sport`.
    Sport,
    /// `th dport`.
    Dport,
    /// `ether saddr`: who put a packet on the link that it arrived by. Matches nothing
    /// where that link is no Ethernet. It is compared, not looked up.
    EtherSaddr,
    /// `iifname`.
    IifName,
    /// `oifname`.
    OifName,
    /// `meta mark`.
    Mark,
    /// `ct mark`.
    CtMark,
    /// `ct state`.
    CtState,
    /// `ct status`.
    CtStatus,
    /// `ct original ip daddr`, `ct original ip6 daddr`: before translation.
    OrigDaddr,
    /// `ct original proto-dst`: before translation.
    OrigDport,
    /// `fib daddr type`.
    FibDaddrType,
    /// `numgen …`. As the type of a set's field any modulus stands for all.
    Numgen(Numgen),
    /// `jhash ip saddr …`, of the type of a number generator; sets are declared by
    /// that.
    Jhash(Jhash),
}

impl Field {
    /// `numgen random mod N`.
    #[must_use]
    pub const fn random(modulus: u32) -> Self {
        Self::Numgen(Numgen {
            random: true,
            modulus,
        })
    }

    /// `numgen inc mod N`.
    #[must_use]
    pub const fn inc(modulus: u32) -> Self {
        Self::Numgen(Numgen {
            random: false,
            modulus,
        })
    }

    /// `jhash ip saddr mod N seed S`.
    #[must_use]
    pub const fn jhash(modulus: u32, seed: u32) -> Self {
        Self::Jhash(Jhash { modulus, seed })
    }

    /// The bytes this field takes in a concatenation (whole registers of 4 bytes).
    #[must_use]
    pub const fn width(self, family: Family) -> usize {
        match self {
            Self::Saddr | Self::Daddr | Self::OrigDaddr | Self::IifName | Self::OifName => {
                self.bits(family) as usize / 8
            }
            Self::L4Proto
            | Self::Sport
            | Self::Dport
            | Self::OrigDport
            | Self::Mark
            | Self::CtMark
            | Self::CtState
            | Self::CtStatus
            | Self::FibDaddrType
            | Self::Numgen(_)
            | Self::Jhash(_) => 4,
            Self::EtherSaddr => 8,
        }
    }

    /// The bytes of each field in a tuple: whole registers, but a single field has
    /// its own length.
    #[must_use]
    pub fn widths(family: Family, fields: &[Self]) -> Vec<usize> {
        match fields {
            [field] => vec![field.bits(family) as usize / 8],
            _ => fields.iter().map(|field| field.width(family)).collect(),
        }
    }

    /// The bits that carry the value.
    pub(crate) const fn bits(self, family: Family) -> u32 {
        match self {
            Self::Saddr | Self::Daddr | Self::OrigDaddr => match family {
                Family::Ip => 32,
                Family::Ip6 => 128,
            },
            Self::L4Proto => 8,
            Self::Sport | Self::Dport | Self::OrigDport => 16,
            Self::IifName | Self::OifName => 128,
            Self::EtherSaddr => 48,
            Self::Mark
            | Self::CtMark
            | Self::CtState
            | Self::CtStatus
            | Self::FibDaddrType
            | Self::Numgen(_)
            | Self::Jhash(_) => 32,
        }
    }

    /// Whether two fields have the same type, so that one may look up what the
    /// other declared. Every number generator is of one type, and so is every hash.
    #[must_use]
    pub const fn same_type(self, other: Self) -> bool {
        matches!(
            (self, other),
            (
                Self::Saddr | Self::Daddr | Self::OrigDaddr,
                Self::Saddr | Self::Daddr | Self::OrigDaddr
            ) | (Self::L4Proto, Self::L4Proto)
                | (
                    Self::Sport | Self::Dport | Self::OrigDport,
                    Self::Sport | Self::Dport | Self::OrigDport
                )
                | (Self::IifName | Self::OifName, Self::IifName | Self::OifName)
                | (Self::Mark | Self::CtMark, Self::Mark | Self::CtMark)
                | (Self::CtState, Self::CtState)
                | (Self::EtherSaddr, Self::EtherSaddr)
                | (Self::CtStatus, Self::CtStatus)
                | (Self::FibDaddrType, Self::FibDaddrType)
                | (
                    Self::Numgen(_) | Self::Jhash(_),
                    Self::Numgen(_) | Self::Jhash(_)
                )
        )
    }

    /// The value of this field's type in register bytes.
    pub(crate) fn value(self, bytes: &[u8]) -> Option<Value> {
        let word = || <[u8; 4]>::try_from(bytes).ok().map(u32::from_ne_bytes);
        Some(match self {
            Self::Saddr | Self::Daddr | Self::OrigDaddr => {
                if let Ok(octets) = <[u8; 4]>::try_from(bytes) {
                    Value::V4(Ipv4Addr::from(octets))
                } else {
                    Value::V6(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?))
                }
            }
            Self::L4Proto => Value::Proto(*bytes.first()?),
            Self::Sport | Self::Dport | Self::OrigDport => {
                Value::Port(u16::from_be_bytes([*bytes.first()?, *bytes.get(1)?]))
            }
            Self::IifName | Self::OifName => {
                let name = bytes.split(|byte| *byte == 0).next()?;
                Value::Iface(String::from_utf8(name.to_vec()).ok()?)
            }
            Self::EtherSaddr => Value::Ether(<[u8; 6]>::try_from(bytes.get(..6)?).ok()?),
            Self::Mark | Self::CtMark => Value::Mark(word()?),
            Self::CtState => Value::CtState(CtState(word()?)),
            Self::CtStatus => Value::CtStatus(CtStatus(word()?)),
            Self::FibDaddrType => Value::Fib(FibType::from_number(word()?)?),
            Self::Numgen(_) | Self::Jhash(_) => Value::Number(word()?),
        })
    }
}
