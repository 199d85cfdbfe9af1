//! Names for a part of what a name stands for: CoreDNS' zonal names.
//!
//! ```text
//! PART.pin._zone.NAME       the records of that part; no data if there is none
//! PART.prefer._zone.NAME    the same, or those of NAME if the part has none
//! ```
//!
//! Whatever stands for PART, the name exists if NAME has parts, so such names are no
//! nodes of the zone: they are read when they are asked for, and not transferred.

use std::collections::BTreeMap;

use crate::name::Spelled;
use crate::packed::{Being, Node, pack};
use crate::record::Record;
use crate::zone::Zone;

/// The label between a name and what is asked of it.
const ANCHOR: &[u8] = b"_zone";
/// The part alone.
const PIN: &[u8] = b"pin";
/// The part if it has records.
const PREFER: &[u8] = b"prefer";
/// How many labels stand before NAME.
const LABELS: usize = 3;

/// The parts of one name, by label. Nodes have the name itself, so that their targets
/// are kept relative to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parts(BTreeMap<Vec<u8>, Same>);

/// A node that equals others by its content.
#[derive(Clone)]
struct Same(Node);

impl PartialEq for Same {
    fn eq(&self, other: &Self) -> bool {
        self.0.same(&other.0)
    }
}

impl Eq for Same {}

impl std::fmt::Debug for Same {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "{} octets", self.0.groups().len())
    }
}

/// What a name with such labels stands for.
pub(crate) struct Part<'z> {
    /// Its records, if it has any.
    pub(crate) node: Option<&'z Node>,
}

impl Part<'_> {
    /// The name that the part is of, to which targets are relative.
    pub(crate) fn whole(name: &Spelled) -> Option<Spelled> {
        Spelled::read(name.suffix(LABELS)?)
    }
}

impl Parts {
    /// These parts of a name, which is `key` in its zone.
    pub(crate) fn new(
        (name, key): (&Spelled, &[u8]),
        parts: &BTreeMap<Vec<u8>, Vec<Record>>,
    ) -> Self {
        let node = |records: &Vec<Record>| Node::new(key, 0, Being::Set, &pack(name, records));
        let lower = |(label, records): (&Vec<u8>, &Vec<Record>)| {
            (label.to_ascii_lowercase(), Same(node(records)))
        };
        Self(parts.iter().map(lower).collect())
    }
}

impl Parts {
    /// The parts with their labels, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &Node)> {
        self.0.iter().map(|(label, Same(node))| (&**label, node))
    }
}

/// Reads a relative name as that of a part.
pub(crate) fn find<'z>(zone: &'z Zone, key: &[u8]) -> Option<Part<'z>> {
    let (label, rest) = split(key)?;
    let (directive, rest) = split(rest)?;
    let (anchor, rest) = split(rest)?;
    if anchor != ANCHOR {
        return None;
    }
    let parts = zone.parts_of(rest)?;
    let own = parts.0.get(label).map(|Same(node)| node);
    let node = match directive {
        PIN => own,
        PREFER => own.or_else(|| zone.node(rest)),
        _ => return None,
    };
    Some(Part { node })
}

/// The first label and what follows.
pub(crate) fn split(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = key.split_first()?;
    rest.split_at_checked(usize::from(length))
}
