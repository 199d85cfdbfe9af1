//! User data: what only the `nft` program reads, without which it cannot list.
//!
//! Sets say by `typeof` expressions how their keys are to be printed. The layout
//! is that of libnftnl 1.2 and nft 1.0.6: type byte, length byte, value, unpadded;
//! numbers inside are in the machine's order.

use super::consts::{
    UDATA_COMMENT, UDATA_EXPR_DATA, UDATA_EXPR_ETYPE, UDATA_SET_COMMENT, UDATA_SET_DATA_INTERVAL,
    UDATA_SET_DATA_TYPEOF, UDATA_SET_DATABYTEORDER, UDATA_SET_KEY_TYPEOF, UDATA_SET_KEYBYTEORDER,
};
use crate::{Family, Field, Numgen, Set, SetData};

/// `enum expr_types` of nft 1.0.6, as far as our fields need it.
mod etype {
    pub(super) const VERDICT: u32 = 1;
    pub(super) const PAYLOAD: u32 = 7;
    pub(super) const META: u32 = 9;
    pub(super) const CT: u32 = 12;
    pub(super) const CONCAT: u32 = 13;
    pub(super) const NUMGEN: u32 = 23;
    pub(super) const FIB: u32 = 26;
}

/// nft's number of the expression that reads a field, and its arguments.
fn expression(family: Family, field: Field) -> (u32, [Option<u32>; 3]) {
    const TH: u32 = 11;
    const ETHER: u32 = 15;
    let (network, saddr, daddr) = match family {
        Family::Ip => (12, 11, 12),
        Family::Ip6 => (13, 8, 9),
    };
    match field {
        Field::Saddr => (etype::PAYLOAD, [Some(network), Some(saddr), None]),
        Field::Daddr => (etype::PAYLOAD, [Some(network), Some(daddr), None]),
        Field::Sport => (etype::PAYLOAD, [Some(TH), Some(1), None]),
        Field::Dport => (etype::PAYLOAD, [Some(TH), Some(2), None]),
        Field::EtherSaddr => (etype::PAYLOAD, [Some(ETHER), Some(2), None]),
        Field::Mark => (etype::META, [Some(3), None, None]),
        Field::IifName => (etype::META, [Some(6), None, None]),
        Field::OifName => (etype::META, [Some(7), None, None]),
        Field::L4Proto => (etype::META, [Some(16), None, None]),
        Field::CtState => (etype::CT, [Some(0), Some(u32::MAX), None]),
        Field::CtStatus => (etype::CT, [Some(2), Some(u32::MAX), None]),
        Field::CtMark => (etype::CT, [Some(3), Some(u32::MAX), None]),
        Field::OrigDaddr => {
            let key = match family {
                Family::Ip => 20,
                Family::Ip6 => 22,
            };
            (etype::CT, [Some(key), Some(0), None])
        }
        Field::OrigDport => (etype::CT, [Some(12), Some(0), None]),
        Field::FibDaddrType => (etype::FIB, [Some(3), Some(2), None]),
        Field::Numgen(numgen) => {
            let random = u32::from(numgen.random);
            (etype::NUMGEN, [Some(random), Some(numgen.modulus), Some(0)])
        }
        // nft has no words for the type of a hash; that of a generator is the same.
        Field::Jhash(jhash) => (etype::NUMGEN, [Some(1), Some(jhash.modulus), Some(0)]),
    }
}

/// The field that an expression reads, if it is one of ours.
fn field(family: Family, kind: u32, data: &[u8]) -> Option<Field> {
    let args = [0, 1, 2].map(|place| word(data, place));
    if kind == etype::NUMGEN {
        let numgen = Numgen {
            random: args[0]? == 1,
            modulus: args[1]?,
        };
        return (args[2] == Some(0)).then_some(Field::Numgen(numgen));
    }
    [
        Field::Saddr,
        Field::Daddr,
        Field::L4Proto,
        Field::Sport,
        Field::Dport,
        Field::IifName,
        Field::OifName,
        Field::Mark,
        Field::CtMark,
        Field::CtState,
        Field::CtStatus,
        Field::OrigDaddr,
        Field::OrigDport,
        Field::FibDaddrType,
    ]
    .into_iter()
    .find(|field| expression(family, *field) == (kind, args))
}

/// nft's number of a field's data type; types of concatenations are made of them.
pub(super) fn datatype(family: Family, field: Field) -> u32 {
    match field {
        Field::Saddr | Field::Daddr | Field::OrigDaddr => match family {
            Family::Ip => 7,
            Family::Ip6 => 8,
        },
        Field::L4Proto => 12,
        Field::Sport | Field::Dport | Field::OrigDport => 13,
        Field::Mark | Field::CtMark => 19,
        Field::EtherSaddr => 9,
        Field::CtState => 26,
        Field::CtStatus => 28,
        Field::FibDaddrType => 38,
        Field::IifName | Field::OifName => 41,
        Field::Numgen(_) | Field::Jhash(_) => 4,
    }
}

/// nft's byte order of a type: 0 for concatenations and verdicts, 1 the machine's,
/// 2 the network's.
fn byteorder(fields: &[Field]) -> u32 {
    match fields {
        [
            Field::Saddr
            | Field::Daddr
            | Field::OrigDaddr
            | Field::Sport
            | Field::Dport
            | Field::EtherSaddr
            | Field::OrigDport,
        ] => 2,
        [_] => 1,
        [] | [_, _, ..] => 0,
    }
}

fn put(out: &mut Vec<u8>, kind: u8, value: &[u8]) {
    out.push(kind);
    out.push(u8::try_from(value.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(value.get(..usize::from(u8::MAX)).unwrap_or(value));
}

fn put_word(out: &mut Vec<u8>, kind: u8, value: u32) {
    put(out, kind, &value.to_ne_bytes());
}

fn items(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let (&[kind, len], tail) = rest.split_first_chunk::<2>()?;
        let (value, tail) = tail.split_at_checked(usize::from(len))?;
        rest = tail;
        Some((kind, value))
    })
}

fn item(bytes: &[u8], kind: u8) -> Option<&[u8]> {
    items(bytes)
        .find(|(found, _)| *found == kind)
        .map(|(_, value)| value)
}

fn word(bytes: &[u8], kind: u8) -> Option<u32> {
    item(bytes, kind)?.try_into().ok().map(u32::from_ne_bytes)
}

fn one_typeof(family: Family, field: Field) -> Vec<u8> {
    let (kind, args) = expression(family, field);
    let mut data = Vec::new();
    for (place, arg) in (0..).zip(args) {
        if let Some(arg) = arg {
            put_word(&mut data, place, arg);
        }
    }
    let mut out = Vec::new();
    put_word(&mut out, UDATA_EXPR_ETYPE, kind);
    put(&mut out, UDATA_EXPR_DATA, &data);
    out
}

fn typeof_of(family: Family, fields: &[Field]) -> Vec<u8> {
    if let [field] = fields {
        return one_typeof(family, *field);
    }
    let mut data = Vec::new();
    for (place, field) in (0..).zip(fields) {
        put(&mut data, place, &one_typeof(family, *field));
    }
    let mut out = Vec::new();
    put_word(&mut out, UDATA_EXPR_ETYPE, etype::CONCAT);
    put(&mut out, UDATA_EXPR_DATA, &data);
    out
}

fn fields_of(family: Family, bytes: &[u8]) -> Option<Vec<Field>> {
    let kind = word(bytes, UDATA_EXPR_ETYPE)?;
    let data = item(bytes, UDATA_EXPR_DATA)?;
    if kind != etype::CONCAT {
        return field(family, kind, data).map(|field| vec![field]);
    }
    items(data)
        .map(|(_, one)| {
            field(
                family,
                word(one, UDATA_EXPR_ETYPE)?,
                item(one, UDATA_EXPR_DATA)?,
            )
        })
        .collect()
}

/// A set's user data.
pub(super) fn of_set(family: Family, set: &Set) -> Vec<u8> {
    let mut out = Vec::new();
    put_word(&mut out, UDATA_SET_KEYBYTEORDER, byteorder(&set.key));
    match &set.data {
        SetData::None => put(&mut out, UDATA_SET_KEY_TYPEOF, &typeof_of(family, &set.key)),
        SetData::Verdict => {
            put_word(&mut out, UDATA_SET_DATABYTEORDER, 0);
            put(&mut out, UDATA_SET_KEY_TYPEOF, &typeof_of(family, &set.key));
            let mut verdict = Vec::new();
            put_word(&mut verdict, UDATA_EXPR_ETYPE, etype::VERDICT);
            put(&mut verdict, UDATA_EXPR_DATA, &[]);
            put(&mut out, UDATA_SET_DATA_TYPEOF, &verdict);
            put_word(&mut out, UDATA_SET_DATA_INTERVAL, 0);
        }
        SetData::Fields(fields) => {
            put_word(&mut out, UDATA_SET_DATABYTEORDER, byteorder(fields));
            put(&mut out, UDATA_SET_KEY_TYPEOF, &typeof_of(family, &set.key));
            put(&mut out, UDATA_SET_DATA_TYPEOF, &typeof_of(family, fields));
            put_word(&mut out, UDATA_SET_DATA_INTERVAL, 0);
        }
    }
    if let Some(comment) = &set.comment {
        put_text(&mut out, UDATA_SET_COMMENT, comment);
    }
    out
}

/// What a set's user data says of its key and data; empty fields where it says
/// nothing that we know.
pub(super) fn set_fields(family: Family, bytes: &[u8]) -> (Vec<Field>, Vec<Field>) {
    let fields = |kind| item(bytes, kind).and_then(|bytes| fields_of(family, bytes));
    (
        fields(UDATA_SET_KEY_TYPEOF).unwrap_or_default(),
        fields(UDATA_SET_DATA_TYPEOF).unwrap_or_default(),
    )
}

/// The comment in a set's user data.
pub(super) fn set_comment(bytes: &[u8]) -> Option<String> {
    text(bytes, UDATA_SET_COMMENT)
}

fn put_text(out: &mut Vec<u8>, kind: u8, text: &str) {
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    put(out, kind, &bytes);
}

fn text(bytes: &[u8], kind: u8) -> Option<String> {
    let value = item(bytes, kind)?;
    let value = value.split(|byte| *byte == 0).next()?;
    String::from_utf8(value.to_vec()).ok()
}

/// The user data of a table, chain or rule that has a comment.
pub(super) fn of_comment(comment: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put_text(&mut out, UDATA_COMMENT, comment);
    out
}

/// The comment in the user data of a table, chain or rule.
pub(super) fn comment(bytes: &[u8]) -> Option<String> {
    text(bytes, UDATA_COMMENT)
}
