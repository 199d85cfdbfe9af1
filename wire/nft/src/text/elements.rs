//! The elements of a set, in nft's order and with nft's line breaks.

use super::rule;
use crate::{Data, Family, Field, Key, Set, SetData, Value};

/// How many elements nft puts on a line before it breaks.
fn per_line(family: Family, key: &[Field]) -> usize {
    match key {
        [Field::Saddr | Field::Daddr] if family == Family::Ip => 2,
        [Field::CtState | Field::CtStatus] => 2,
        [
            Field::L4Proto
            | Field::Sport
            | Field::Dport
            | Field::OrigDport
            | Field::Mark
            | Field::CtMark
            | Field::Numgen(_),
        ] => 5,
        _ => 1,
    }
}

/// Write the line `elements = { … }`.
pub(super) fn write(out: &mut String, family: Family, set: &Set) {
    let mut elements: Vec<_> = set.elements.iter().collect();
    let network_order = matches!(
        set.key[..],
        [Field::Saddr | Field::Daddr | Field::Sport | Field::Dport]
    );
    // nft sorts by the key as one number: of a concatenation, and of a field in
    // the machine's order, the last byte counts most. It does not sort ranges of
    // concatenations.
    if network_order {
        elements.sort_by(|(a, _), (b, _)| a.first().cmp(b.first()));
    } else if !set.flags.interval {
        let reversed = |key: &Key| {
            key.first()
                .bytes()
                .iter()
                .rev()
                .copied()
                .collect::<Vec<_>>()
        };
        elements.sort_by_cached_key(|(key, _)| reversed(key));
    }
    out.push_str("\t\telements = { ");
    let per_line = per_line(family, &set.key);
    for (place, (key, data)) in elements.into_iter().enumerate() {
        if place > 0 {
            let full = place.is_multiple_of(per_line);
            out.push_str(if full { ",\n\t\t\t     " } else { ", " });
        }
        out.push_str(&key_text(family, set, key));
        match data {
            Data::None => {}
            Data::Verdict(verdict) => {
                out.push_str(" : ");
                out.push_str(&rule::verdict(verdict));
            }
            Data::Tuple(tuple) => {
                let fields = if let SetData::Fields(fields) = &set.data {
                    &fields[..]
                } else {
                    &[]
                };
                let values = tuple.values(family, fields).unwrap_or_default();
                out.push_str(" : ");
                out.push_str(&rule::values(&values));
            }
        }
    }
    out.push_str(" }\n");
}

fn key_text(family: Family, set: &Set, key: &Key) -> String {
    let first = key.first().values(family, &set.key).unwrap_or_default();
    let last = key.last().values(family, &set.key).unwrap_or_default();
    let fields = first.iter().zip(&last).map(|(first, last)| {
        if first == last {
            rule::value(first)
        } else {
            range(first, last)
        }
    });
    fields.collect::<Vec<_>>().join(" . ")
}

/// The address as a number, and its bits.
fn number(value: &Value) -> Option<(u128, u32)> {
    if let Value::V4(addr) = value {
        Some((u128::from(addr.to_bits()), 32))
    } else if let Value::V6(addr) = value {
        Some((addr.to_bits(), 128))
    } else {
        None
    }
}

fn range(first: &Value, last: &Value) -> String {
    if let (Some((low, bits)), Some((high, _))) = (number(first), number(last)) {
        let host = (low ^ high)
            .checked_add(1)
            .map_or(128, |size| size.trailing_zeros());
        let differ = low ^ high;
        let is_prefix = differ & differ.wrapping_add(1) == 0 && low & differ == 0;
        if is_prefix {
            return format!("{}/{}", rule::value(first), bits - host.min(bits));
        }
    }
    format!("{}-{}", rule::value(first), rule::value(last))
}
