//! The order of addresses in replies of others.

use crate::message::{HEADER, Rcode, skip_name};
use crate::packed::Cursor;
use crate::record::Rtype;

/// The most addresses of one name whose order is turned; further ones stay where they
/// are.
const MOST: usize = 256;
/// Type, class and TTL.
const FIXED: usize = 8;
/// The longest address.
const LONGEST: usize = 16;

/// Addresses of one name, one after the other.
struct Run<'r> {
    /// The owner of the first as it is written, and where that is.
    owner: (&'r [u8], usize),
    fixed: &'r [u8],
    size: usize,
    /// Where each address stands.
    places: [u16; MOST],
    count: usize,
}

/// Turns the order of the addresses of each name in the answer section of a reply, as
/// CoreDNS' `loadbalance` does; any number that differs from query to query is a
/// `rotation`. Aliases stay in front, and signatures where they are: what they cover has
/// no order (RFC 4034 §6.3). Addresses alone are moved, so that compressed names hold. A
/// reply that cannot be read stays as it is from there on.
pub fn rotate(reply: &mut [u8], rotation: u64) {
    if crate::rcode(reply) != Some(Rcode::NoError as u8) {
        return;
    }
    let mut at = Some(HEADER);
    let mut left = 0;
    if let Some((questions, answers)) = counts(reply) {
        at = (0..questions).try_fold(HEADER, |at, _| Some(name_end(reply, at)? + 4));
        left = answers;
    }
    while let Some(start) = at.filter(|_| left > 1) {
        let Some((run, end, records)) = run(reply, start, left) else {
            return;
        };
        let (places, count, size) = (run.places, run.count, run.size);
        turn(
            reply,
            places.get(..count).unwrap_or_default(),
            size,
            rotation,
        );
        at = Some(end);
        left -= records;
    }
}

fn counts(reply: &[u8]) -> Option<(u16, u16)> {
    let mut counts = Cursor(reply.get(4..HEADER)?);
    Some((counts.u16()?, counts.u16()?))
}

fn name_end(reply: &[u8], at: usize) -> Option<usize> {
    let mut rest = Cursor(reply.get(at..)?);
    skip_name(&mut rest)?;
    Some(reply.len() - rest.0.len())
}

/// The record at an offset, or as many as are addresses of one name with it; where the
/// next one begins, and how many records that are.
fn run(reply: &[u8], start: usize, most: u16) -> Option<(Run<'_>, usize, u16)> {
    let mut run: Option<Run<'_>> = None;
    let (mut at, mut records) = (start, 0);
    while records < most {
        let fixed = name_end(reply, at)?;
        let mut rest = Cursor(reply.get(fixed + FIXED..)?);
        let length = usize::from(rest.u16()?);
        let data = fixed + FIXED + 2;
        let owner = reply.get(at..fixed)?;
        let fixed = reply.get(fixed..fixed + FIXED)?;
        rest.take(length)?;
        let rtype = Cursor(fixed).u16().map(Rtype)?;
        let is_address = matches!((rtype, length), (Rtype::A, 4) | (Rtype::AAAA, 16));
        match &mut run {
            None => {
                run = Some(Run {
                    owner: (owner, at),
                    fixed,
                    size: length.min(LONGEST),
                    places: [0; MOST],
                    count: 0,
                });
            }
            Some(run) if is_address && run.is_followed_by(owner, fixed) => {}
            Some(_) => break,
        }
        (at, records) = (data + length, records + 1);
        let run = run.as_mut()?;
        if !is_address {
            break;
        }
        if let (Some(place), Ok(data)) = (run.places.get_mut(run.count), u16::try_from(data)) {
            *place = data;
            run.count += 1;
        }
    }
    Some((run?, at, records))
}

impl Run<'_> {
    /// Whether a record has the owner, type, class and TTL of this run. Names are compared
    /// as they are written: a pointer to the first owner is the same name.
    fn is_followed_by(&self, owner: &[u8], fixed: &[u8]) -> bool {
        let (first, at) = self.owner;
        let points = |octets: [u8; 2]| {
            let pointer = u16::from_be_bytes(octets);
            pointer >= 0xc000 && usize::from(pointer & 0x3fff) == at
        };
        let same = owner == first || owner.try_into().is_ok_and(points);
        same && fixed == self.fixed
    }
}

/// Moves each address to the place of one further on.
fn turn(reply: &mut [u8], places: &[u16], size: usize, rotation: u64) {
    let turn = rotation.checked_rem(places.len() as u64).unwrap_or(0) as usize;
    if turn == 0 {
        return;
    }
    let mut kept = [[0; LONGEST]; MOST];
    for (kept, place) in kept.iter_mut().zip(places) {
        let place = usize::from(*place);
        if let (Some(to), Some(from)) = (kept.get_mut(..size), reply.get(place..place + size)) {
            to.copy_from_slice(from);
        }
    }
    let kept = kept.get(..places.len()).unwrap_or_default();
    for (place, from) in places.iter().zip(kept.iter().cycle().skip(turn)) {
        let place = usize::from(*place);
        if let (Some(to), Some(from)) = (reply.get_mut(place..place + size), from.get(..size)) {
            to.copy_from_slice(from);
        }
    }
}
