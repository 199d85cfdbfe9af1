//! Sets, maps and their elements as messages.
//!
//! The key of a set of one field has the field's own length; in a concatenation
//! each field takes whole registers of 4 bytes. A range is one element with two
//! keys in a concatenation, and two elements otherwise: its begin, and the first
//! key after its end with a flag.

use super::attr::{Attrs, Writer};
use super::consts as c;
use super::udata;
use crate::{Data, Family, Field, Key, Name, Set, SetData, SetFlags, Shape, Tuple, Verdict};

/// The length of a key or of data, as the kernel counts it.
pub(super) fn kernel_len(family: Family, fields: &[Field]) -> usize {
    Field::widths(family, fields).into_iter().sum()
}

fn concat_type(family: Family, fields: &[Field]) -> u32 {
    fields
        .iter()
        .fold(0, |sum, field| sum << 6 | udata::datatype(family, *field))
}

fn flags(set: &Set) -> u32 {
    let mut flags = 0;
    if set.flags.interval {
        flags |= c::SET_INTERVAL;
        if set.key.len() > 1 {
            flags |= c::SET_CONCAT;
        }
    }
    if set.flags.dynamic {
        flags |= c::SET_EVAL;
    }
    if set.flags.timeout {
        flags |= c::SET_TIMEOUT_FLAG;
    }
    if set.data != SetData::None {
        flags |= c::SET_MAP;
    }
    flags
}

/// Write the attributes of NEWSET behind the names.
pub(super) fn write(out: &mut Writer, family: Family, set: &Set, id: u32) {
    out.be32(c::SET_FLAGS, flags(set));
    out.be32(c::SET_KEY_TYPE, concat_type(family, &set.key));
    out.be32(c::SET_KEY_LEN, kernel_len(family, &set.key) as u32);
    match &set.data {
        SetData::None => {}
        SetData::Verdict => {
            out.be32(c::SET_DATA_TYPE, c::DATA_TYPE_VERDICT);
            out.be32(c::SET_DATA_LEN, 0);
        }
        SetData::Fields(fields) => {
            out.be32(c::SET_DATA_TYPE, concat_type(family, fields));
            out.be32(c::SET_DATA_LEN, kernel_len(family, fields) as u32);
        }
    }
    out.be32(c::SET_ID, id);
    let concat_ranges = set.flags.interval && set.key.len() > 1;
    if set.size.is_some() || concat_ranges {
        let desc = out.nest(c::SET_DESC);
        if let Some(size) = set.size {
            out.be32(c::DESC_SIZE, size);
        }
        if concat_ranges {
            let list = out.nest(c::DESC_CONCAT);
            for field in &set.key {
                let one = out.nest(c::LIST_ELEM);
                out.be32(c::FIELD_LEN, field.bits(family) / 8);
                out.close(one);
            }
            out.close(list);
        }
        out.close(desc);
    }
    if let Some(timeout) = set.timeout_ms {
        out.be64(c::SET_TIMEOUT, timeout);
    }
    out.attr(c::SET_USERDATA, &udata::of_set(family, set));
}

/// Read a set's declaration.
pub(super) fn read(family: Family, attrs: &Attrs<'_>) -> Option<(Name, Set)> {
    let name = attrs.string(c::SET_NAME)?;
    let flags = attrs.be32(c::SET_FLAGS).unwrap_or(0);
    let user = attrs.get(c::SET_USERDATA).unwrap_or(&[]);
    let (key, data) = udata::set_fields(family, user);
    let data = if flags & c::SET_MAP == 0 {
        SetData::None
    } else if attrs.be32(c::SET_DATA_TYPE) == Some(c::DATA_TYPE_VERDICT) {
        SetData::Verdict
    } else {
        SetData::Fields(data)
    };
    let known = c::SET_INTERVAL | c::SET_MAP | c::SET_TIMEOUT_FLAG | c::SET_EVAL | c::SET_CONCAT;
    let set = Set {
        key,
        data,
        flags: SetFlags {
            interval: flags & c::SET_INTERVAL != 0,
            dynamic: flags & c::SET_EVAL != 0,
            timeout: flags & c::SET_TIMEOUT_FLAG != 0,
            alien: flags & !known != 0,
        },
        size: attrs
            .inside(c::SET_DESC)
            .and_then(|desc| desc.be32(c::DESC_SIZE)),
        timeout_ms: attrs.be64(c::SET_TIMEOUT).filter(|timeout| *timeout > 0),
        comment: udata::set_comment(user),
        elements: std::collections::BTreeMap::new(),
    };
    Some((name.into(), set))
}

fn value(out: &mut Writer, kind: u16, bytes: &[u8]) {
    let nest = out.nest(kind);
    out.attr(c::DATA_VALUE, bytes);
    out.close(nest);
}

/// The number after this one; none after the last.
fn after(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut next = bytes.to_vec();
    for byte in next.iter_mut().rev() {
        let (sum, carry) = byte.overflowing_add(1);
        *byte = sum;
        if !carry {
            return Some(next);
        }
    }
    None
}

fn before(bytes: &[u8]) -> Vec<u8> {
    let mut previous = bytes.to_vec();
    for byte in previous.iter_mut().rev() {
        let (rest, borrow) = byte.overflowing_sub(1);
        *byte = rest;
        if !borrow {
            break;
        }
    }
    previous
}

/// Write one element; of a range possibly two.
pub(super) fn write_element(out: &mut Writer, shape: Shape, key: &Key, data: &Data) {
    let element = out.nest(c::LIST_ELEM);
    value(out, c::ELEM_KEY, key.first().bytes());
    if shape == Shape::Boxes {
        let last = key.last();
        value(out, c::ELEM_KEY_END, last.bytes());
    }
    match data {
        Data::None => {}
        Data::Verdict(verdict) => {
            let nest = out.nest(c::ELEM_DATA);
            write_verdict(out, verdict);
            out.close(nest);
        }
        Data::Tuple(tuple) => value(out, c::ELEM_DATA, tuple.bytes()),
    }
    out.close(element);
    if shape == Shape::Edges
        && let Some(end) = after(key.last().bytes())
    {
        let element = out.nest(c::LIST_ELEM);
        out.be32(c::ELEM_FLAGS, c::ELEM_INTERVAL_END);
        value(out, c::ELEM_KEY, &end);
        out.close(element);
    }
}

/// Write a verdict as nf_tables data.
pub(super) fn write_verdict(out: &mut Writer, verdict: &Verdict) {
    let nest = out.nest(c::DATA_VERDICT);
    let code: i32 = match verdict {
        Verdict::Drop => 0,
        Verdict::Accept => 1,
        Verdict::Continue => -1,
        Verdict::Jump(_) => -3,
        Verdict::Goto(_) => -4,
        Verdict::Return => -5,
    };
    out.attr(c::VERDICT_CODE, &code.to_be_bytes());
    if let Some(chain) = verdict.chain() {
        out.string(c::VERDICT_CHAIN, chain);
    }
    out.close(nest);
}

/// Read a verdict.
pub(super) fn read_verdict(data: &Attrs<'_>) -> Option<Verdict> {
    let verdict = data.inside(c::DATA_VERDICT)?;
    let code = verdict.be32(c::VERDICT_CODE)?.cast_signed();
    let chain = || verdict.string(c::VERDICT_CHAIN).map(Name::from);
    match code {
        0 => Some(Verdict::Drop),
        1 => Some(Verdict::Accept),
        -1 => Some(Verdict::Continue),
        -3 => chain().map(Verdict::Jump),
        -4 => chain().map(Verdict::Goto),
        -5 => Some(Verdict::Return),
        _ => None,
    }
}

/// One side of an interval, as the kernel dumps it.
pub(super) struct Edge {
    bytes: Vec<u8>,
    /// Not a begin.
    end: bool,
    data: Data,
}

/// What one dumped element is.
pub(super) enum Element {
    /// A whole element.
    Whole(Key, Data),
    /// A side of an interval.
    Edge(Edge),
}

/// Read one element.
pub(super) fn read_element(shape: Shape, attrs: &Attrs<'_>) -> Option<Element> {
    let key = attrs.inside(c::ELEM_KEY)?.get(c::DATA_VALUE)?;
    let data = match attrs.inside(c::ELEM_DATA) {
        None => Data::None,
        Some(data) => match data.get(c::DATA_VALUE) {
            Some(bytes) => Data::Tuple(Tuple::from_bytes(bytes)),
            None => Data::Verdict(read_verdict(&data)?),
        },
    };
    if shape == Shape::Edges {
        let end = attrs.be32(c::ELEM_FLAGS).unwrap_or(0) & c::ELEM_INTERVAL_END != 0;
        return Some(Element::Edge(Edge {
            bytes: key.to_vec(),
            end,
            data,
        }));
    }
    let last = attrs
        .inside(c::ELEM_KEY_END)
        .and_then(|key| key.get(c::DATA_VALUE));
    Some(Element::Whole(
        Key::range(
            Tuple::from_bytes(key),
            Tuple::from_bytes(last.unwrap_or(key)),
        ),
        data,
    ))
}

/// Put the sides of intervals together.
pub(super) fn join(mut edges: Vec<Edge>) -> Vec<(Key, Data)> {
    // An end and the begin of the next interval may share a key: the end is first.
    edges.sort_by(|a, b| (&a.bytes, !a.end).cmp(&(&b.bytes, !b.end)));
    let mut whole = Vec::new();
    let mut open: Option<Edge> = None;
    for edge in edges {
        if let Some(begin) = open.take() {
            // Without an end of its own an interval ends before the next edge.
            let last = before(&edge.bytes);
            whole.push((
                Key::range(Tuple::from_bytes(&begin.bytes), Tuple::from_bytes(&last)),
                begin.data,
            ));
        }
        if !edge.end {
            open = Some(edge);
        }
    }
    if let Some(begin) = open {
        let last = vec![0xff; begin.bytes.len()];
        whole.push((
            Key::range(Tuple::from_bytes(&begin.bytes), Tuple::from_bytes(&last)),
            begin.data,
        ));
    }
    whole
}
