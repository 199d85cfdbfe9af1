//! Reading and mending whole messages: what a forwarder needs of this crate.

use crate::message::{CLASS_IN, HEADER, Rcode, Rejection, Transport, parse, skip_name};
use crate::name::Name;
use crate::packed::Cursor;
use crate::record::Rtype;
use crate::write::{Writer, start};

/// The EDNS option that explains an error (RFC 8914).
const EXTENDED_ERROR: u16 = 15;

/// What a query asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The name, lower-case.
    pub name: Name,
    /// The type.
    pub rtype: Rtype,
    /// The class, 1 for the Internet.
    pub class: u16,
}

/// The question of a readable query.
pub fn question(query: &[u8]) -> Option<Question> {
    let request = parse(query).ok()?;
    Some(Question {
        name: request.name.to_name(),
        rtype: request.rtype,
        class: request.class,
    })
}

/// A plain recursive query without EDNS.
pub fn query(id: u16, name: &Name, rtype: Rtype) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEADER + name.as_wire().len() + 4);
    out.extend_from_slice(&id.to_be_bytes());
    out.extend_from_slice(&[0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    out.extend_from_slice(name.as_wire());
    out.extend_from_slice(&rtype.0.to_be_bytes());
    out.extend_from_slice(&CLASS_IN.to_be_bytes());
    out
}

/// The ID of a message.
pub fn id(message: &[u8]) -> Option<u16> {
    Cursor(message).u16()
}

/// Gives a message another ID.
pub fn set_id(message: &mut [u8], id: u16) {
    if let Some(field) = message.first_chunk_mut() {
        *field = id.to_be_bytes();
    }
}

/// Says in a reply that recursion is available (RA): the zones do not know
/// whether the server around them forwards.
pub fn set_recursion_available(message: &mut [u8]) {
    if let Some(flags) = message.get_mut(3) {
        *flags |= 0x80;
    }
}

/// Whether a message says that it was cut (TC).
pub fn is_truncated(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & 0x02 != 0)
}

/// Whether a reply comes from whom the zone belongs to (AA).
pub fn is_authoritative(message: &[u8]) -> bool {
    message.get(2).is_some_and(|flags| flags & 0x04 != 0)
}

/// The type that a query with one question asks for. Reads no more than that.
pub fn rtype(query: &[u8]) -> Option<Rtype> {
    let mut rest = after_name(query)?;
    Some(Rtype(rest.u16()?))
}

/// Whether a query wants to see signatures (DO), as far as its first record behind
/// the question says so.
pub fn wants_dnssec(query: &[u8]) -> bool {
    first_opt(query).is_some_and(|(_, flags)| flags & 0x8000 != 0)
}

/// The longest reply that the asker takes.
pub fn granted(query: &[u8], transport: Transport) -> u16 {
    match transport {
        Transport::Tcp => u16::MAX,
        Transport::Udp => first_opt(query).map_or(512, |(size, _)| size.max(512)),
    }
}

fn after_name(query: &[u8]) -> Option<Cursor<'_>> {
    let mut rest = Cursor(query.get(HEADER..)?);
    skip_name(&mut rest)?;
    Some(rest)
}

/// Size and flags of an OPT record right behind the question.
fn first_opt(query: &[u8]) -> Option<(u16, u16)> {
    if query.get(10..HEADER)? == [0, 0] {
        return None;
    }
    let mut rest = after_name(query)?;
    rest.take(4)?;
    if rest.u8()? != 0 || Rtype(rest.u16()?) != Rtype::OPT {
        return None;
    }
    let size = rest.u16()?;
    rest.u16()?;
    Some((size, rest.u16()?))
}

/// The four bits of the header that state the outcome.
pub fn rcode(message: &[u8]) -> Option<u8> {
    message.get(3).map(|flags| flags & 0x0f)
}

/// The whole code of a reply of ours, with the eight bits that EDNS adds to it. Only
/// replies without any other record have such (RFC 6891 §6.1.3).
pub fn whole_rcode(reply: &[u8]) -> Option<u16> {
    let low = u16::from(rcode(reply)?);
    let counts: &[u8; 8] = reply.get(4..HEADER)?.first_chunk()?;
    let [0, questions, 0, 0, 0, 0, 0, 1] = *counts else {
        return Some(low);
    };
    let mut rest = Cursor(reply.get(HEADER..)?);
    let high = (0..questions)
        .try_for_each(|_| {
            skip_name(&mut rest)?;
            rest.take(4).map(|_| ())
        })
        .and_then(|()| rest.take(6)?.get(5).copied());
    Some(low | high.map_or(0, |high| u16::from(high) << 4))
}

/// Whether `reply` is a reply with the ID and the question of `query`: what
/// tells it from a forged or a late one. Servers may respell the name.
pub fn same_question(query: &[u8], reply: &[u8]) -> bool {
    fn read(message: &[u8]) -> Option<(u16, &[u8])> {
        let header: &[u8; HEADER] = message.first_chunk()?;
        let [i1, i2, _, _, 0, 1, ..] = *header else {
            return None;
        };
        let body = message.get(HEADER..)?;
        let mut rest = Cursor(body);
        skip_name(&mut rest)?;
        rest.take(4)?;
        let question = body.get(..body.len() - rest.0.len())?;
        Some((u16::from_be_bytes([i1, i2]), question))
    }
    let is_reply = reply.get(2).is_some_and(|flags| flags & 0x80 != 0);
    match (read(query), read(reply)) {
        (Some((asked, question)), Some((answered, echoed))) => {
            is_reply && asked == answered && question.eq_ignore_ascii_case(echoed)
        }
        (Some(_) | None, Some(_) | None) => false,
    }
}

/// Writes a reply without records: a code and, for those who sent EDNS, the
/// reason (an extended error code of RFC 8914 and a text). Says whether the
/// query deserves a reply at all.
pub fn failure(query: &[u8], rcode: Rcode, reason: (u16, &str), out: &mut Vec<u8>) -> bool {
    match parse(query) {
        Err(Rejection::Drop) => return false,
        Err(Rejection::Reply(rcode)) => start(out, query, rcode, false),
        Ok(request) => {
            let (code, text) = reason;
            let option = [&code.to_be_bytes(), text.as_bytes()].concat();
            // The size of a datagram holds for either transport: it is short.
            let writer = Writer::new(out, query, &request, Transport::Udp);
            writer.finish(rcode, Some((EXTENDED_ERROR, &option)));
        }
    }
    true
}

/// Cuts a reply from elsewhere down to its header and question, with TC set, if
/// it is longer than what the asker can take.
pub fn fit(query: &[u8], transport: Transport, reply: &mut Vec<u8>) {
    let Ok(request) = parse(query) else {
        return;
    };
    if reply.len() <= request.limit(transport) {
        return;
    }
    let flags: Option<[u8; 2]> = reply
        .get(2..4)
        .and_then(|flags| flags.first_chunk().copied());
    let mut writer = Writer::new(reply, query, &request, transport);
    writer.truncated();
    writer.finish(Rcode::NoError, None);
    if let (Some([first, second]), Some(field)) = (flags, reply.get_mut(2..4)) {
        field.copy_from_slice(&[first | 0x02, second]);
    }
}
