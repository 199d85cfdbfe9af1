//! A whole zone, for those who may have it (AXFR, RFC 5936).
//!
//! The records come in as many messages as they need, SOA first and last. A zone
//! is a snapshot, so what is sent is of one version however long it takes. IXFR
//! (RFC 1995) is answered with the whole zone, or with the SOA alone to whoever has
//! this version or asks by datagram, and comes back over TCP if it wants more;
//! differences are not kept.

use crate::message::{CLASS_IN, HEADER, Rcode, Request, Transport, parse, skip_name};
use crate::name::Spelled;
use crate::packed::{Cursor, Node};
use crate::record::Rtype;
use crate::write::{Full, Owner, Section, Writer};
use crate::zone::{Denies, Zone};
use crate::zones::Zones;

/// Room for a record before a message ends: beyond it a client's buffer and a
/// pointer's reach make longer messages no better.
const MESSAGE: usize = 16_000;

/// Whether a query asks for a zone.
pub fn is_transfer(query: &[u8]) -> bool {
    parse(query).is_ok_and(|request| {
        request.class == CLASS_IN && matches!(request.rtype, Rtype::AXFR | Rtype::IXFR)
    })
}

/// What is left of a zone to be sent.
pub struct Transfer {
    zone: Option<Zone>,
    /// Only the SOA is sent: the client has this version, or asked by datagram.
    short: bool,
    at: At,
}

/// What comes next.
enum At {
    Start,
    /// The name after this one.
    After(Node),
    /// The records of this name from this type on.
    Within(Node, Rtype),
    End,
    Done,
}

impl Zones {
    /// A zone for whoever asks `query`, which [`is_transfer`]; its messages are
    /// written one by one with [`Transfer::next`].
    pub fn transfer(&self, query: &[u8], transport: Transport) -> Transfer {
        let zone = parse(query).ok().and_then(|request| {
            let zone = self.iter().find(|zone| {
                zone.origin().as_wire() == request.name.wire() && zone.about().denies == Denies::All
            })?;
            let newest = request.rtype == Rtype::IXFR
                && (transport == Transport::Udp
                    || serial_of(query).is_some_and(|has| is_newest(has, zone.serial())));
            Some((zone.clone(), newest))
        });
        let (zone, short) = zone.unzip();
        Transfer {
            zone,
            short: short.unwrap_or(false),
            at: At::Start,
        }
    }
}

impl Transfer {
    /// Writes the next message into `out`; no more than one when it says false.
    pub fn next(&mut self, query: &[u8], transport: Transport, out: &mut Vec<u8>) -> bool {
        let Ok(request) = parse(query) else {
            return false;
        };
        let Some(zone) = self.zone.clone() else {
            Writer::new(out, query, &request, transport).finish(Rcode::NotAuth, None);
            return false;
        };
        let mut writer = Writer::new(out, query, &request, transport);
        writer.authoritative();
        let more = self.fill(&zone, &request, &mut writer);
        writer.finish(Rcode::NoError, None);
        more
    }

    /// Fills one message; says whether another one follows.
    fn fill(&mut self, zone: &Zone, request: &Request<'_>, writer: &mut Writer<'_>) -> bool {
        loop {
            let at = std::mem::replace(&mut self.at, At::Done);
            let (step, fits) = match at {
                At::Start => {
                    // There is always room for the first record.
                    let _fits = writer.soa(Section::Answer, zone, &request.name);
                    if self.short {
                        return false;
                    }
                    (first(zone), writer.ns(zone))
                }
                At::After(node) => (next(zone, &node), Ok(())),
                At::Within(node, from) => match records(zone, &node, from, writer) {
                    Ok(()) => (At::After(node), Ok(())),
                    Err(rtype) => (At::Within(node, rtype), Err(Full)),
                },
                At::End => match writer.soa(Section::Answer, zone, &request.name) {
                    Ok(()) => (At::Done, Ok(())),
                    Err(full) => (At::End, Err(full)),
                },
                At::Done => return false,
            };
            self.at = step;
            if fits.is_err() || writer.len() > MESSAGE {
                // What does not even fit alone is left out, or there were no end.
                if !writer.has_answer() {
                    self.skip();
                }
                return !matches!(self.at, At::Done);
            }
        }
    }

    /// Goes past what is next.
    fn skip(&mut self) {
        self.at = match std::mem::replace(&mut self.at, At::Done) {
            At::Within(node, rtype) => At::Within(node, Rtype(rtype.0.saturating_add(1))),
            other @ (At::Start | At::After(_)) => other,
            At::End | At::Done => At::Done,
        };
    }
}

fn first(zone: &Zone) -> At {
    zone.nodes()
        .next()
        .map_or(At::End, |node| At::Within(node.clone(), Rtype(0)))
}

fn next(zone: &Zone, node: &Node) -> At {
    zone.nodes_after(node)
        .next()
        .map_or(At::End, |node| At::Within(node.clone(), Rtype(0)))
}

/// The records of one name, from a type on; where there is no more room, the type
/// that is next. Records of one type stay together.
fn records(zone: &Zone, node: &Node, from: Rtype, writer: &mut Writer<'_>) -> Result<(), Rtype> {
    let wire = [node.name(), zone.origin().as_wire()].concat();
    let Some(owner) = Spelled::read(&wire) else {
        return Ok(());
    };
    for group in node.all_groups().filter(|group| group.rtype >= from) {
        let rtype = group.rtype;
        let mark = writer.mark();
        let at = (Owner::Spelled(owner.wire()), &owner);
        let ttl = (&group, zone.ttl());
        if writer.group(Section::Answer, at, ttl, 0).is_err() {
            writer.take_back(mark);
            return Err(rtype);
        }
    }
    Ok(())
}

/// Whether who has one version needs no other: it has this one or a newer one
/// (RFC 1995 §2, by the serial number arithmetic of RFC 1982).
fn is_newest(has: u32, serial: u32) -> bool {
    has.wrapping_sub(serial) < 1 << 31
}

/// The serial number that an IXFR query says its asker has.
fn serial_of(query: &[u8]) -> Option<u32> {
    let mut counts = Cursor(query.get(4..HEADER)?);
    let (questions, answers, authorities) = (counts.u16()?, counts.u16()?, counts.u16()?);
    if (questions, answers) != (1, 0) || authorities == 0 {
        return None;
    }
    let mut rest = Cursor(query.get(HEADER..)?);
    skip_name(&mut rest)?;
    rest.take(4)?;
    skip_name(&mut rest)?;
    if Rtype(rest.u16()?) != Rtype::SOA {
        return None;
    }
    rest.take(8)?; // class, TTL and length
    skip_name(&mut rest)?;
    skip_name(&mut rest)?;
    rest.u32()
}
