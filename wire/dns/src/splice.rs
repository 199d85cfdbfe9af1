//! Joining the records of another server's reply to one of our own.

use crate::message::{CLASS_IN, HEADER, Request, Transport, parse, skip_name};
use crate::name::{MAX_NAME, Spelled};
use crate::packed::Cursor;
use crate::record::Rtype;

/// An OPT record without options, which is what our own replies end with.
const OPT_SIZE: usize = 11;

/// Adds the answer records of `from`, a reply from elsewhere to a question for
/// the end of an alias chain, to those of `reply`, a reply to `query` that the
/// zones gave. Records of the type that was asked for and further aliases are
/// taken, their names spelled out, since a pointer into another message means
/// nothing. Says whether any was added; `reply` stays as it was if one does not
/// fit or cannot be read.
pub fn copy_answers(query: &[u8], transport: Transport, from: &[u8], reply: &mut Vec<u8>) -> bool {
    let added = parse(query)
        .ok()
        .and_then(|request| Some((answers(&request, from)?, request)))
        .and_then(|((count, records), request)| {
            splice(&request, transport, (count, &records), reply)
        });
    added.is_some()
}

fn splice(
    request: &Request<'_>,
    transport: Transport,
    (count, records): (u16, &[u8]),
    reply: &mut Vec<u8>,
) -> Option<()> {
    if count == 0 || reply.len() + records.len() > request.limit(transport) {
        return None;
    }
    let opt = if request.edns.is_some() { OPT_SIZE } else { 0 };
    let end = reply.len().checked_sub(opt).filter(|&end| end >= HEADER)?;
    let field = reply.get_mut(6..8)?.first_chunk_mut::<2>()?;
    *field = u16::from_be_bytes(*field).checked_add(count)?.to_be_bytes();
    reply.splice(end..end, records.iter().copied());
    Some(())
}

/// The usable answer records of a message, without compression.
fn answers(request: &Request<'_>, from: &[u8]) -> Option<(u16, Vec<u8>)> {
    let mut counts = Cursor(from.get(4..HEADER)?);
    let (questions, answers) = (counts.u16()?, counts.u16()?);
    let mut rest = Cursor(from.get(HEADER..)?);
    for _ in 0..questions {
        skip_name(&mut rest)?;
        rest.take(4)?;
    }
    let mut out = Vec::new();
    let mut count = 0_u16;
    for _ in 0..answers {
        let owner = read_name(from, from.len() - rest.0.len())?;
        skip_name(&mut rest)?;
        let (rtype, class, ttl) = (Rtype(rest.u16()?), rest.u16()?, rest.u32()?);
        let length = usize::from(rest.u16()?);
        let at = from.len() - rest.0.len();
        let data = rest.take(length)?;
        if class != CLASS_IN || (rtype != request.rtype && rtype != Rtype::CNAME) {
            continue;
        }
        let data = spell_out(from, at, rtype, data)?;
        out.extend_from_slice(owner.wire());
        out.extend_from_slice(&rtype.0.to_be_bytes());
        out.extend_from_slice(&class.to_be_bytes());
        out.extend_from_slice(&ttl.to_be_bytes());
        out.extend_from_slice(&u16::try_from(data.len()).ok()?.to_be_bytes());
        out.extend_from_slice(&data);
        count = count.checked_add(1)?;
    }
    Some((count, out))
}

/// Record data with its name, if the type has one that may be compressed,
/// spelled out.
fn spell_out(message: &[u8], at: usize, rtype: Rtype, data: &[u8]) -> Option<Vec<u8>> {
    let before = match rtype {
        Rtype::CNAME | Rtype::PTR | Rtype::NS => 0,
        Rtype::SRV => 6,
        _ => return Some(data.to_vec()),
    };
    let name = read_name(message, at + before)?;
    Some([data.get(..before)?, name.wire()].concat())
}

/// The name at an offset of a message. Each pointer must lead further to the
/// front than the one before, so there is an end.
fn read_name(message: &[u8], mut at: usize) -> Option<Spelled> {
    let mut wire = Vec::with_capacity(MAX_NAME);
    let mut front = at;
    loop {
        let length = *message.get(at)?;
        match length {
            0 => {
                wire.push(0);
                return Spelled::read(&wire);
            }
            1..=63 => {
                let end = at + 1 + usize::from(length);
                wire.extend_from_slice(message.get(at..end)?);
                if wire.len() >= MAX_NAME {
                    return None;
                }
                at = end;
            }
            0xc0.. => {
                let low = *message.get(at + 1)?;
                let target = usize::from(u16::from_be_bytes([length & 0x3f, low]));
                if target >= front {
                    return None;
                }
                front = target;
                at = target;
            }
            64..=0xbf => return None,
        }
    }
}
