//! Questions to the kernel's connection tracking, and the frame of its answers.

use std::net::IpAddr;

use crate::entry::{self as e, Entry, Status};
use portolan_netlink::{Attrs, Message, Writer};

/// The netfilter subsystem of connection tracking (NFNL_SUBSYS_CTNETLINK).
const SUBSYSTEM: u16 = 1;
// Its messages (`enum cntl_msg_types`).
const NEW: u16 = 0;
const GET: u16 = 1;
const DELETE: u16 = 2;

const REQUEST: u16 = 1;
const DUMP: u16 = 0x300;

// Attributes of a dump request: which parts of the original tuple count (Linux
// 5.8; older kernels answer with everything), and which bits of the status.
const FILTER: u16 = 25;
const STATUS_MASK: u16 = 26;
const FILTER_ORIG_FLAGS: u16 = 1;
const FILTER_REPLY_FLAGS: u16 = 2;
// The bits of FILTER_ORIG_FLAGS.
const BY_DESTINATION: u32 = 1 << 1;
const BY_PROTOCOL: u32 = 1 << 3;
const BY_DESTINATION_PORT: u32 = 1 << 5;

/// The length of netfilter's header behind netlink's.
const NFGEN: usize = 4;

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Its number (AF_INET, AF_INET6).
    const fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }
}

/// Which entries are asked for. A kernel that does not know a part of it answers
/// with more: whoever asks looks again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Filter {
    /// Of this family.
    pub family: Option<Family>,
    /// To this address, by the original tuple.
    pub destination: Option<IpAddr>,
    /// Of this transport protocol.
    pub protocol: Option<u8>,
    /// To this port; it counts only together with a protocol.
    pub destination_port: Option<u16>,
    /// With these values of these bits of their status: value and mask.
    pub status: Option<(Status, Status)>,
    /// With these values of these bits of their mark: value and mask.
    pub mark: Option<(u32, u32)>,
}

impl Filter {
    /// The dumps that this filter takes: the kernel compares tuples only when it
    /// is told the family.
    #[must_use]
    pub fn dumps(&self) -> Vec<Self> {
        let compares = self.protocol.is_some() || self.destination.is_some();
        let family = self.destination.map(Family::of).or(self.family);
        let families = match family {
            None if compares => vec![Some(Family::V4), Some(Family::V6)],
            family => vec![family],
        };
        let of = |family| Self { family, ..*self };
        families.into_iter().map(of).collect()
    }
}

/// A request for every entry that passes a filter, which is one of [`Filter::dumps`].
#[must_use]
pub fn dump(filter: &Filter, seq: u32) -> Vec<u8> {
    let number = filter.family.map_or(0, Family::number);
    let mut out = Writer::default();
    message(&mut out, (GET, DUMP), seq, number, |out| {
        let port = filter
            .destination_port
            .filter(|_| filter.protocol.is_some());
        // An IPv6 address in a filter leaves out exactly the entries that have it
        // (ctnetlink_filter_match_tuple up to Linux 6.18 at least): not asked for.
        let destination = filter.destination.filter(IpAddr::is_ipv4);
        let parts = [
            (destination.is_some(), BY_DESTINATION),
            (filter.protocol.is_some(), BY_PROTOCOL),
            (port.is_some(), BY_DESTINATION_PORT),
        ];
        let flags = parts
            .iter()
            .filter(|(counts, _)| *counts)
            .fold(0, |flags, (_, bit)| flags | bit);
        if flags != 0 {
            out.within(e::TUPLE_ORIG, |out| {
                if let Some(address) = destination {
                    out.within(e::TUPLE_IP, |out| {
                        e::write_address(out, (e::IP_V4_DST, e::IP_V6_DST), address);
                    });
                }
                if let Some(protocol) = filter.protocol {
                    out.within(e::TUPLE_PROTO, |out| {
                        out.attr(e::PROTO_NUM, &[protocol]);
                        if let Some(port) = port {
                            out.attr(e::PROTO_DST_PORT, &port.to_be_bytes());
                        }
                    });
                }
            });
            // These two are in the order of the machine.
            out.within(FILTER, |out| {
                out.attr(FILTER_ORIG_FLAGS, &flags.to_ne_bytes());
                out.attr(FILTER_REPLY_FLAGS, &0_u32.to_ne_bytes());
            });
        }
        if let Some((value, mask)) = filter.mark {
            out.attr(e::MARK, &value.to_be_bytes());
            out.attr(e::MARK_MASK, &mask.to_be_bytes());
        }
        if let Some((value, mask)) = filter.status {
            out.attr(e::STATUS, &value.0.to_be_bytes());
            out.attr(STATUS_MASK, &mask.0.to_be_bytes());
        }
    });
    out.bytes
}

/// Requests about entries, as bytes for one `sendmsg`.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Requests {
    /// The messages. Only failures are answered.
    pub bytes: Vec<u8>,
    /// The number of messages, which are numbered one by one.
    pub count: u32,
}

/// Requests to end exactly these entries, in groups of about `limit` bytes. What
/// is gone already is answered by ENOENT.
#[must_use]
pub fn delete(entries: &[Entry], limit: usize, seq: u32) -> Vec<Requests> {
    about(entries, limit, (DELETE, seq), |out, entry| {
        out.attr(e::ID, &entry.id.to_be_bytes());
    })
}

/// Requests to set some bits of these entries' marks, in groups of about `limit`
/// bytes: those of `mask`, to those of `value`. What is gone already is answered by
/// ENOENT. Unlike a deletion this does not ask for the id: another entry that has the
/// tuple by now is marked.
#[must_use]
pub fn mark(entries: &[Entry], (value, mask): (u32, u32), limit: usize, seq: u32) -> Vec<Requests> {
    about(entries, limit, (NEW, seq), |out, _| {
        out.attr(e::MARK, &value.to_be_bytes());
        out.attr(e::MARK_MASK, &mask.to_be_bytes());
    })
}

/// A request for each entry, with more attributes.
fn about(
    entries: &[Entry],
    limit: usize,
    (kind, seq): (u16, u32),
    more: impl Fn(&mut Writer, &Entry),
) -> Vec<Requests> {
    let mut groups: Vec<Requests> = Vec::new();
    for (seq, entry) in (0..).map(|step| seq.wrapping_add(step)).zip(entries) {
        let mut one = Writer::default();
        let family = Family::of(entry.original.source).number();
        message(&mut one, (kind, 0), seq, family, |out| {
            entry.original.write(out, e::TUPLE_ORIG);
            more(out, entry);
            if entry.zone != 0 {
                out.attr(e::ZONE, &entry.zone.to_be_bytes());
            }
        });
        match groups.last_mut() {
            Some(group) if group.bytes.len() + one.bytes.len() <= limit => {
                group.bytes.extend_from_slice(&one.bytes);
                group.count += 1;
            }
            Some(_) | None => groups.push(Requests {
                bytes: one.bytes,
                count: 1,
            }),
        }
    }
    groups
}

fn message(
    out: &mut Writer,
    (kind, flags): (u16, u16),
    seq: u32,
    family: u8,
    attributes: impl FnOnce(&mut Writer),
) {
    let kind = SUBSYSTEM << 8 | kind;
    let open = out.begin(kind, REQUEST | flags, seq, [family, 0, 0, 0]);
    attributes(out);
    out.end(open);
}

impl Entry {
    /// The entry that a message tells of; none if it tells of something else, or
    /// of a protocol or family that is unknown here.
    #[must_use]
    pub fn decode(message: &Message<'_>) -> Option<Self> {
        if message.kind != SUBSYSTEM << 8 | NEW {
            return None;
        }
        Self::read(&Attrs::new(message.body.get(NFGEN..)?))
    }
}
