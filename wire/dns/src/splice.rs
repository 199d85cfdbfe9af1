//! Joining the records of another server's reply to one of our own.

use crate::message::{CLASS_IN, HEADER, Request, Transport, parse, skip_name};
use crate::name::{MAX_NAME, Spelled};
use crate::packed::Cursor;
use crate::record::Rtype;

/// Adds the answer records of `from`, a reply from elsewhere to a question for
/// the end of an alias chain, to those of `reply`, a reply to `query` that the
/// zones gave. Records of the type that was asked for and further aliases are
/// taken, their names spelled out, since a pointer into another message means
/// nothing. Says whether any was added. `reply` stays as it was if they cannot be
/// read; if they do not fit, it says so (TC), so that the asker comes back over TCP.
pub fn copy_answers(query: &[u8], transport: Transport, from: &[u8], reply: &mut Vec<u8>) -> bool {
    let Ok(request) = parse(query) else {
        return false;
    };
    let Some((count, records)) = answers(&request, from).filter(|(count, _)| *count > 0) else {
        return false;
    };
    if reply.len() + records.len() > request.limit(transport) {
        if let Some(flags) = reply.get_mut(2) {
            *flags |= 0x02;
        }
        return false;
    }
    splice((count, &records), reply).is_some()
}

/// Puts records behind the last one of the answer section.
fn splice((count, records): (u16, &[u8]), reply: &mut Vec<u8>) -> Option<()> {
    let mut counts = Cursor(reply.get(4..HEADER)?);
    let (questions, answers) = (counts.u16()?, counts.u16()?);
    let mut rest = Cursor(reply.get(HEADER..)?);
    for _ in 0..questions {
        skip_name(&mut rest)?;
        rest.take(4)?;
    }
    for _ in 0..answers {
        skip_name(&mut rest)?;
        rest.take(8)?;
        let length = rest.u16()?;
        rest.take(usize::from(length))?;
    }
    let end = reply.len() - rest.0.len();
    let field = reply.get_mut(6..8)?.first_chunk_mut::<2>()?;
    *field = answers.checked_add(count)?.to_be_bytes();
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
        let data = spell_out(from, at, (rtype, data), Some)?;
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

/// How many octets come before the names in the data of a type that may have
/// compressed ones (RFC 3597 §4), and how many names there are.
fn names_in(rtype: Rtype) -> Option<(usize, usize)> {
    const ONE_NAME: [u16; 9] = [2, 3, 4, 5, 7, 8, 9, 12, 39];
    match rtype.0 {
        one if ONE_NAME.contains(&one) => Some((0, 1)),
        // SOA, MINFO, RP
        6 | 14 | 17 => Some((0, 2)),
        // MX, AFSDB, RT, KX
        15 | 18 | 21 | 36 => Some((2, 1)),
        // PX
        26 => Some((2, 2)),
        // SRV
        33 => Some((6, 1)),
        _ => None,
    }
}

/// Record data, which stands at an offset of a message, with its names spelled
/// out as `name` wants them.
pub(crate) fn spell_out(
    message: &[u8],
    at: usize,
    (rtype, data): (Rtype, &[u8]),
    mut name: impl FnMut(Spelled) -> Option<Spelled>,
) -> Option<Vec<u8>> {
    let Some((before, names)) = names_in(rtype) else {
        return Some(data.to_vec());
    };
    let mut out = data.get(..before)?.to_vec();
    let mut rest = Cursor(data.get(before..)?);
    for _ in 0..names {
        let from = at + data.len() - rest.0.len();
        out.extend_from_slice(name(read_name(message, from)?)?.wire());
        skip_name(&mut rest)?;
    }
    out.extend_from_slice(rest.0);
    Some(out)
}

/// The name at an offset of a message. Each pointer must lead further to the
/// front than the one before, so there is an end.
pub(crate) fn read_name(message: &[u8], mut at: usize) -> Option<Spelled> {
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
