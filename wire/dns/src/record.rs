//! Records as the renderer hands them in and tests read them back.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::Name;

/// A record type by its number (RFC 1035 §3.2.2 and later).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Rtype(pub u16);

impl Rtype {
    /// An IPv4 address.
    pub const A: Self = Self(1);
    /// A name server.
    pub const NS: Self = Self(2);
    /// Another name for the owner.
    pub const CNAME: Self = Self(5);
    /// The start of a zone's authority.
    pub const SOA: Self = Self(6);
    /// The name of an address.
    pub const PTR: Self = Self(12);
    /// Two texts; the answer to ANY (RFC 8482).
    pub const HINFO: Self = Self(13);
    /// Texts.
    pub const TXT: Self = Self(16);
    /// An IPv6 address.
    pub const AAAA: Self = Self(28);
    /// Host and port of a service (RFC 2782).
    pub const SRV: Self = Self(33);
    /// EDNS (RFC 6891), never a question.
    pub const OPT: Self = Self(41);
    /// Incremental zone transfer, a question only.
    pub const IXFR: Self = Self(251);
    /// Zone transfer, a question only.
    pub const AXFR: Self = Self(252);
    /// Everything, a question only.
    pub const ANY: Self = Self(255);
}

impl fmt::Display for Rtype {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = match *self {
            Self::A => "A",
            Self::NS => "NS",
            Self::CNAME => "CNAME",
            Self::SOA => "SOA",
            Self::PTR => "PTR",
            Self::HINFO => "HINFO",
            Self::TXT => "TXT",
            Self::AAAA => "AAAA",
            Self::SRV => "SRV",
            Self::OPT => "OPT",
            Self::IXFR => "IXFR",
            Self::AXFR => "AXFR",
            Self::ANY => "ANY",
            Self(other) => return write!(out, "TYPE{other}"),
        };
        out.write_str(known)
    }
}

impl fmt::Debug for Rtype {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, out)
    }
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Data {
    /// An IPv4 address.
    A(Ipv4Addr),
    /// An IPv6 address.
    Aaaa(Ipv6Addr),
    /// Where a service is offered.
    Srv {
        /// Lower is tried first.
        priority: u16,
        /// The share among records of the same priority.
        weight: u16,
        /// The port.
        port: u16,
        /// The host.
        target: Name,
    },
    /// The name of an address.
    Ptr(Name),
    /// Another name for the owner; the owner has no other records.
    Cname(Name),
    /// Texts of at most 255 octets each; longer ones are cut.
    Txt(Vec<Vec<u8>>),
    /// A name server.
    Ns(Name),
}

impl Data {
    /// The type of this record.
    pub fn rtype(&self) -> Rtype {
        match self {
            Self::A(_) => Rtype::A,
            Self::Aaaa(_) => Rtype::AAAA,
            Self::Srv { .. } => Rtype::SRV,
            Self::Ptr(_) => Rtype::PTR,
            Self::Cname(_) => Rtype::CNAME,
            Self::Txt(_) => Rtype::TXT,
            Self::Ns(_) => Rtype::NS,
        }
    }
}

/// One record of a name. The owner is the key under which it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Record {
    /// Seconds that others may keep it; without a value the zone's. Records of
    /// one type share it (RFC 2181 §5.2): the smallest one holds.
    pub ttl: Option<u32>,
    /// What it says.
    pub data: Data,
}

impl From<Data> for Record {
    fn from(data: Data) -> Self {
        Self { ttl: None, data }
    }
}

impl From<IpAddr> for Record {
    /// An A or AAAA record with the zone's TTL.
    fn from(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => Data::A(v4).into(),
            IpAddr::V6(v6) => Data::Aaaa(v6).into(),
        }
    }
}
