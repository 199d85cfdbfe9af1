//! Communities of routes.

use std::collections::BTreeMap;

use portolan_api::value::{list_at, str_at};
use serde_json::Value;

use super::super::Meta;
use super::super::meta::object;

/// The names that RFC 1997, 3765, 7999 and 8326 give.
const WELL_KNOWN: [(&str, u32); 6] = [
    ("no-export", 0xffff_ff01),
    ("no-advertise", 0xffff_ff02),
    ("no-export-subconfed", 0xffff_ff03),
    ("no-peer", 0xffff_ff04),
    ("graceful-shutdown", 0xffff_0000),
    ("blackhole", 0xffff_029a),
];

/// A community, as announcements write it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Community {
    /// One of RFC 1997, the high half first.
    Standard(u32),
    /// A large one (RFC 8092).
    Large([u32; 3]),
    /// A name that a Community object explains; or it is wrong.
    Named(String),
}

impl Community {
    /// Reads `64512:100`, `large:64512:1:2` or a name.
    pub fn parse(text: &str) -> Self {
        let known = WELL_KNOWN.iter().find(|(name, _)| *name == text);
        let number = known.map(|(_, number)| *number).or_else(|| standard(text));
        match (number, large(text)) {
            (Some(number), _) => Self::Standard(number),
            (None, Some(numbers)) => Self::Large(numbers),
            (None, None) => Self::Named(text.to_owned()),
        }
    }
}

fn standard(text: &str) -> Option<u32> {
    let (high, low) = text.split_once(':')?;
    let (high, low): (u16, u16) = (high.parse().ok()?, low.parse().ok()?);
    Some((u32::from(high) << 16) | u32::from(low))
}

fn large(text: &str) -> Option<[u32; 3]> {
    let mut parts = text.strip_prefix("large:")?.split(':').map(str::parse);
    let numbers = [
        parts.next()?.ok()?,
        parts.next()?.ok()?,
        parts.next()?.ok()?,
    ];
    parts.next().is_none().then_some(numbers)
}

/// A Community of MetalLB: names for communities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommunityNames {
    /// What every object has.
    pub meta: Meta,
    /// What the names stand for.
    pub names: BTreeMap<String, Community>,
}

object!(CommunityNames, read);

fn read(object: &Value) -> CommunityNames {
    let entries = list_at(object, "spec.communities").iter();
    let entries = entries.map(|one| {
        let value = Community::parse(str_at(one, "value"));
        (str_at(one, "name").to_owned(), value)
    });
    CommunityNames {
        names: entries.collect(),
        meta: Meta::of(object),
    }
}
