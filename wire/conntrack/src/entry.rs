//! One tracked connection, and how the kernel writes it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use portolan_netlink::{Attrs, Writer};

// `linux/netfilter/nfnetlink_conntrack.h`: attributes of an entry ...
pub(crate) const TUPLE_ORIG: u16 = 1;
pub(crate) const TUPLE_REPLY: u16 = 2;
pub(crate) const STATUS: u16 = 3;
pub(crate) const PROTOINFO: u16 = 4;
pub(crate) const TIMEOUT: u16 = 7;
pub(crate) const MARK: u16 = 8;
pub(crate) const ID: u16 = 12;
pub(crate) const ZONE: u16 = 18;
pub(crate) const MARK_MASK: u16 = 21;
// ... of what its protocol is at ...
pub(crate) const PROTOINFO_TCP: u16 = 1;
pub(crate) const PROTOINFO_TCP_STATE: u16 = 1;
// ... of a tuple ...
pub(crate) const TUPLE_IP: u16 = 1;
pub(crate) const TUPLE_PROTO: u16 = 2;
pub(crate) const TUPLE_ZONE: u16 = 3;
// ... of its addresses ...
pub(crate) const IP_V4_SRC: u16 = 1;
pub(crate) const IP_V4_DST: u16 = 2;
pub(crate) const IP_V6_SRC: u16 = 3;
pub(crate) const IP_V6_DST: u16 = 4;
// ... and of its protocol.
pub(crate) const PROTO_NUM: u16 = 1;
pub(crate) const PROTO_SRC_PORT: u16 = 2;
pub(crate) const PROTO_DST_PORT: u16 = 3;
/// Id, type and code of ICMP, and of ICMPv6.
const ICMP: [u16; 3] = [4, 5, 6];
const ICMP_V6: [u16; 3] = [7, 8, 9];

/// The states of TCP in which nothing more comes (`enum tcp_conntrack`): LAST_ACK,
/// TIME_WAIT, CLOSE.
pub(crate) const CLOSED: [u8; 3] = [6, 7, 8];

/// ICMP's protocol number over IPv6; over IPv4 it is 1.
const PROTOCOL_ICMP_V6: u8 = 58;

/// The addresses and ends of the packets of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// Where its packets come from.
    pub source: IpAddr,
    /// Where they go to; of the same family.
    pub destination: IpAddr,
    /// The transport protocol's number.
    pub protocol: u8,
    /// What the protocol tells connections apart by.
    pub ends: Ends,
    /// The conntrack zone of this direction alone; 0 is none.
    pub zone: u16,
}

/// What a protocol tells connections of the same addresses apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ends {
    /// Ports, or what the protocol has in their place.
    Ports {
        /// The sender's.
        source: u16,
        /// The receiver's.
        destination: u16,
    },
    /// An echo or another query by ICMP.
    Icmp {
        /// The query's identifier.
        id: u16,
        /// The message's type.
        kind: u8,
        /// The message's code.
        code: u8,
    },
    /// Nothing.
    None,
}

/// What is known of an entry, as a bit mask.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Status(pub u32);

impl Status {
    /// Packets of both directions were seen.
    pub const SEEN_REPLY: Self = Self(1 << 1);
    /// Its source is translated.
    pub const SOURCE_TRANSLATED: Self = Self(1 << 4);
    /// Its destination is translated.
    pub const DESTINATION_TRANSLATED: Self = Self(1 << 5);

    /// Whether all of these are set.
    #[must_use]
    pub const fn has(self, bits: Self) -> bool {
        self.0 & bits.0 == bits.0
    }
}

/// A tracked connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Entry {
    /// Its packets as they come from who began it.
    pub original: Tuple,
    /// The packets that are taken for answers.
    pub reply: Tuple,
    /// What is known of it.
    pub status: Status,
    /// Its conntrack zone; 0 is the default one.
    pub zone: u16,
    /// Its mark.
    pub mark: u32,
    /// In how many seconds it ends, unless packets come.
    pub timeout: u32,
    /// Whether it is a connection of TCP that both its ends have closed, or one reset: it is
    /// remembered for a while (LAST_ACK, TIME_WAIT, CLOSE).
    pub is_closed: bool,
    /// What tells it from another entry of the same tuples at another time.
    pub id: u32,
}

impl Tuple {
    /// Where its packets come from, for protocols with ports.
    #[must_use]
    pub fn from(&self) -> Option<SocketAddr> {
        match self.ends {
            Ends::Ports { source, .. } => Some(SocketAddr::new(self.source, source)),
            Ends::Icmp { .. } | Ends::None => None,
        }
    }

    /// Where its packets go to, for protocols with ports.
    #[must_use]
    pub fn to(&self) -> Option<SocketAddr> {
        match self.ends {
            Ends::Ports { destination, .. } => Some(SocketAddr::new(self.destination, destination)),
            Ends::Icmp { .. } | Ends::None => None,
        }
    }

    pub(crate) fn write(&self, out: &mut Writer, kind: u16) {
        out.within(kind, |out| {
            out.within(TUPLE_IP, |out| {
                write_address(out, (IP_V4_SRC, IP_V6_SRC), self.source);
                write_address(out, (IP_V4_DST, IP_V6_DST), self.destination);
            });
            out.within(TUPLE_PROTO, |out| {
                out.attr(PROTO_NUM, &[self.protocol]);
                match self.ends {
                    Ends::Ports {
                        source,
                        destination,
                    } => {
                        out.attr(PROTO_SRC_PORT, &source.to_be_bytes());
                        out.attr(PROTO_DST_PORT, &destination.to_be_bytes());
                    }
                    Ends::Icmp { id, kind, code } => {
                        let [for_id, for_kind, for_code] = self.icmp();
                        out.attr(for_id, &id.to_be_bytes());
                        out.attr(for_kind, &[kind]);
                        out.attr(for_code, &[code]);
                    }
                    Ends::None => {}
                }
            });
            if self.zone != 0 {
                out.attr(TUPLE_ZONE, &self.zone.to_be_bytes());
            }
        });
    }

    fn icmp(&self) -> [u16; 3] {
        if self.protocol == PROTOCOL_ICMP_V6 {
            ICMP_V6
        } else {
            ICMP
        }
    }

    fn read(attrs: &Attrs<'_>) -> Option<Self> {
        let (ip, proto) = (attrs.inside(TUPLE_IP)?, attrs.inside(TUPLE_PROTO)?);
        let (source, destination) = (
            read_address(&ip, (IP_V4_SRC, IP_V6_SRC))?,
            read_address(&ip, (IP_V4_DST, IP_V6_DST))?,
        );
        if source.is_ipv4() != destination.is_ipv4() {
            return None;
        }
        let mut tuple = Self {
            source,
            destination,
            protocol: proto.u8(PROTO_NUM)?,
            ends: Ends::None,
            zone: attrs.be16(TUPLE_ZONE).unwrap_or(0),
        };
        let [id, kind, code] = tuple.icmp();
        if let (Some(source), Some(destination)) =
            (proto.be16(PROTO_SRC_PORT), proto.be16(PROTO_DST_PORT))
        {
            tuple.ends = Ends::Ports {
                source,
                destination,
            };
        } else if let (Some(id), Some(kind), Some(code)) =
            (proto.be16(id), proto.u8(kind), proto.u8(code))
        {
            tuple.ends = Ends::Icmp { id, kind, code };
        }
        Some(tuple)
    }
}

pub(crate) fn write_address(out: &mut Writer, (v4, v6): (u16, u16), address: IpAddr) {
    match address {
        IpAddr::V4(address) => out.attr(v4, &address.octets()),
        IpAddr::V6(address) => out.attr(v6, &address.octets()),
    }
}

fn read_address(attrs: &Attrs<'_>, (v4, v6): (u16, u16)) -> Option<IpAddr> {
    let short = attrs
        .bytes::<4>(v4)
        .map(|bytes| Ipv4Addr::from(bytes).into());
    short.or_else(|| {
        attrs
            .bytes::<16>(v6)
            .map(|bytes| Ipv6Addr::from(bytes).into())
    })
}

impl Entry {
    /// The attributes of a message about an entry; none if it is about nothing
    /// that is known here.
    pub(crate) fn read(attrs: &Attrs<'_>) -> Option<Self> {
        Some(Self {
            original: Tuple::read(&attrs.inside(TUPLE_ORIG)?)?,
            reply: Tuple::read(&attrs.inside(TUPLE_REPLY)?)?,
            status: Status(attrs.be32(STATUS).unwrap_or(0)),
            zone: attrs.be16(ZONE).unwrap_or(0),
            mark: attrs.be32(MARK).unwrap_or(0),
            timeout: attrs.be32(TIMEOUT).unwrap_or(0),
            is_closed: Self::read_closed(attrs).unwrap_or(false),
            // Every kernel gives one; without it nothing could be deleted.
            id: attrs.be32(ID)?,
        })
    }

    fn read_closed(attrs: &Attrs<'_>) -> Option<bool> {
        let tcp = attrs.inside(PROTOINFO)?.inside(PROTOINFO_TCP)?;
        Some(CLOSED.contains(&tcp.u8(PROTOINFO_TCP_STATE)?))
    }

    /// Whether answers come from somewhere else than the first packet went to.
    #[must_use]
    pub fn is_translated(&self) -> bool {
        self.original.to() != self.reply.from()
    }
}
