//! Completion of search lists by the server (CoreDNS' autopath): a client that asks
//! for the first name of its search list is told at once what it would find at last.
//!
//! The question stays as it was asked. An alias leads from the asked name to the one
//! that exists, as CoreDNS has it.

use crate::message::{CLASS_IN, HEADER, Request, Transport, parse, skip_name};
use crate::name::{Name, Spelled};
use crate::packed::Cursor;
use crate::record::Rtype;
use crate::splice::{read_name, spell_out};
use crate::upstream::cut;

/// A pointer to the name of the question.
const TO_QUESTION: [u8; 2] = [0xc0, HEADER as u8];
/// Owner, type, class, TTL and length before the target of the alias.
const ALIAS_HEAD: usize = 2 + 2 + 2 + 4 + 2;

/// The names that a client would ask for next if what it asks for now does not exist:
/// what stands before the first domain of its search list, with each further one,
/// and alone. None if it does not ask for a name below the first.
pub fn next_names(query: &[u8], first: &Name, further: &[Name]) -> Option<Vec<Name>> {
    let request = parse(query).ok()?;
    let base = request.name.prefix_above(first.as_wire())?;
    if base.is_empty() {
        return None;
    }
    let with = |domain: &[u8]| Some(Spelled::read(&[base, domain].concat())?.to_name());
    let further = further.iter().map(Name::as_wire);
    Some(further.chain([&[0][..]]).filter_map(with).collect())
}

/// The same query for another name.
pub fn query_for(query: &[u8], name: &Name) -> Option<Vec<u8>> {
    let request = parse(query).ok()?;
    let (header, body) = query.split_at_checked(HEADER)?;
    let rest = body.get(request.name.wire().len()..)?;
    Some([header, name.as_wire(), rest].concat())
}

/// The reply to `query` that follows from `reply`, which is one to the same query for
/// another `name`. None if it cannot be read.
pub fn completed(query: &[u8], name: &Name, transport: Transport, reply: &[u8]) -> Option<Vec<u8>> {
    let request = parse(query).ok()?;
    let (header, body) = reply.split_at_checked(HEADER)?;
    let mut counts = Cursor(header.get(4..)?);
    if counts.u16()? != 1 {
        return None;
    }
    let mut rest = Cursor(body);
    skip_name(&mut rest)?;
    rest.take(4)?;
    let mut out = [header, request.question].concat();
    let answers = counts.u16()?;
    let records = u32::from(answers) + u32::from(counts.u16()?) + u32::from(counts.u16()?);
    let mut way = Way {
        reply,
        name: Spelled::of(name),
        target: None,
    };
    if answers > 0 {
        way.alias(&request, rest, &mut out)?;
        let count = answers.checked_add(1)?;
        *out.get_mut(6..8)?.first_chunk_mut()? = count.to_be_bytes();
    }
    for _ in 0..records {
        way.record(&mut rest, &mut out)?;
    }
    if out.len() > request.limit(transport) {
        return cut(query, &request, transport, header);
    }
    Some(out)
}

/// From a reply for the name that was found to one for that which was asked for.
struct Way<'r> {
    reply: &'r [u8],
    name: Spelled,
    /// A pointer to the target of the alias, once it is written.
    target: Option<[u8; 2]>,
}

impl Way<'_> {
    /// The alias, with the TTL of the first record.
    fn alias(&mut self, request: &Request<'_>, first: Cursor<'_>, out: &mut Vec<u8>) -> Option<()> {
        let mut first = first;
        skip_name(&mut first)?;
        first.take(4)?;
        let ttl = first.u32()?;
        let at = HEADER + request.question.len() + ALIAS_HEAD;
        self.target = Some((0xc000 | u16::try_from(at).ok()?).to_be_bytes());
        out.extend_from_slice(&TO_QUESTION);
        out.extend_from_slice(&Rtype::CNAME.0.to_be_bytes());
        out.extend_from_slice(&CLASS_IN.to_be_bytes());
        out.extend_from_slice(&ttl.to_be_bytes());
        out.extend_from_slice(&u16::try_from(self.name.wire().len()).ok()?.to_be_bytes());
        out.extend_from_slice(self.name.wire());
        Some(())
    }

    /// One record, with names that hold where it stands now.
    fn record(&self, rest: &mut Cursor<'_>, out: &mut Vec<u8>) -> Option<()> {
        let owner = read_name(self.reply, self.reply.len() - rest.0.len())?;
        skip_name(rest)?;
        let fixed = rest.take(8)?;
        let rtype = Rtype(Cursor(fixed).u16()?);
        let length = usize::from(rest.u16()?);
        let at = self.reply.len() - rest.0.len();
        let data = rest.take(length)?;
        match self.target.filter(|_| owner.wire() == self.name.wire()) {
            Some(pointer) => out.extend_from_slice(&pointer),
            None => out.extend_from_slice(owner.wire()),
        }
        let data = spell_out(self.reply, at, (rtype, data), Some)?;
        out.extend_from_slice(fixed);
        out.extend_from_slice(&u16::try_from(data.len()).ok()?.to_be_bytes());
        out.extend_from_slice(&data);
        Some(())
    }
}
