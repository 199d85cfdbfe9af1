//! A zone: names and their records, cheap to clone and cheap to change.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Bound;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::amend::amended;
use crate::name::{Name, Spelled};
use crate::packed::{Being, Key, Node, pack};
use crate::parts::{self, Part, Parts, split};
use crate::record::Record;

/// The name does not lie in the zone that was asked to hold it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} is not in the zone {origin}")]
pub struct OutOfZone {
    /// The name that was given.
    pub name: Name,
    /// The origin of the zone.
    pub origin: Name,
}

/// Names below an origin with their records.
///
/// `clone` copies a few pointers; a change after that copies what lies on the
/// path to the changed name. Equality is about content: two zones are equal when
/// they give the same answers, whatever their serial numbers.
#[derive(Clone)]
pub struct Zone {
    about: Arc<About>,
    serial: u32,
    nodes: OrdSet<Node>,
    /// Names that have parts, which have names of their own.
    parts: OrdMap<Box<[u8]>, Arc<Parts>>,
    /// Records that are not answered as long as others of the name count for more.
    shadowed: OrdMap<Name, Vec<Record>>,
}

/// What a zone says about itself, the same for its whole life.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) origin: Name,
    pub(crate) labels: usize,
    pub(crate) ttl: u32,
    pub(crate) server: Name,
    pub(crate) mailbox: Name,
    pub(crate) denies: Denies,
}

/// Of which names without records a zone says that they are not there; the others it
/// leaves to somebody else.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Denies {
    /// Of all.
    All,
    /// Of none.
    Nothing,
    /// Of those at and below these labels under the origin.
    Below(BTreeSet<Box<[u8]>>),
}

impl About {
    /// Whether this zone says of a name, without records, that it is not there.
    pub(crate) fn denies(&self, key: &[u8]) -> bool {
        match &self.denies {
            Denies::All => true,
            Denies::Nothing => false,
            Denies::Below(labels) => {
                let (mut rest, mut top) = (key, None);
                while let Some((label, next)) = split(rest) {
                    (rest, top) = (next, Some(label));
                }
                top.is_some_and(|top| labels.contains(top))
            }
        }
    }
}

impl Zone {
    /// An empty zone. Its name server is `ns.dns` and its mailbox `hostmaster`
    /// below the origin, as the DNS of Kubernetes has them (D17); `ttl` is also
    /// the time for which an empty answer may be kept (D16).
    ///
    /// The serial number grows with each change from the given one.
    pub fn new(origin: Name, ttl: u32, serial: u32) -> Self {
        let below = |labels: &[&str]| {
            let labels = labels.iter().map(|label| label.as_bytes());
            Name::from_labels(labels.chain(origin.labels())).unwrap_or_else(|_| origin.clone())
        };
        let (server, mailbox) = (below(&["ns", "dns"]), below(&["hostmaster"]));
        Self::with_authority(origin, ttl, serial, (server, mailbox))
    }

    /// An empty zone with a name server and a mailbox of its own.
    pub fn with_authority(
        origin: Name,
        ttl: u32,
        serial: u32,
        (server, mailbox): (Name, Name),
    ) -> Self {
        let labels = origin.labels().count();
        let nodes = OrdSet::unit(Node::new(&[], 0, Being::Set, &[]));
        let about = About {
            origin,
            labels,
            ttl,
            server,
            mailbox,
            denies: Denies::All,
        };
        Self {
            about: Arc::new(about),
            serial,
            nodes,
            parts: OrdMap::new(),
            shadowed: OrdMap::new(),
        }
    }

    /// The same zone, which knows some names below its origin and leaves all
    /// others to somebody else, as CoreDNS' `fallthrough` does: for a name without
    /// records it is as if there were no such zone.
    #[must_use]
    pub fn falling_through(mut self) -> Self {
        Arc::make_mut(&mut self.about).denies = Denies::Nothing;
        self
    }

    /// The same zone, which answers for these labels under its origin and all below
    /// them, and otherwise leaves what it does not know to others: a range of
    /// addresses that ends between two labels (D12).
    #[must_use]
    pub fn answering_below(mut self, labels: impl IntoIterator<Item = impl AsRef<[u8]>>) -> Self {
        let lower = |label: &[u8]| label.to_ascii_lowercase().into_boxed_slice();
        let labels = labels.into_iter().map(|label| lower(label.as_ref()));
        Arc::make_mut(&mut self.about).denies = Denies::Below(labels.collect());
        self
    }

    /// The name at the top of the zone.
    pub fn origin(&self) -> &Name {
        &self.about.origin
    }

    /// Seconds that others may keep an answer.
    pub fn ttl(&self) -> u32 {
        self.about.ttl
    }

    /// The serial number of the SOA record.
    pub fn serial(&self) -> u32 {
        self.serial
    }

    /// Sets the serial number, for instance to that of the facts rendered here.
    pub fn set_serial(&mut self, serial: u32) {
        self.serial = serial;
    }

    pub(crate) fn about(&self) -> &About {
        &self.about
    }

    /// How many names exist, empty non-terminals and the origin among them.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether nothing but the origin exists.
    pub fn is_empty(&self) -> bool {
        self.nodes.len() <= 1
    }

    /// Gives `name` exactly these records; says whether that changed anything.
    /// Without records the name exists all the same, and every question about it
    /// is answered with no data (the name of an empty namespace, D6).
    pub fn set(&mut self, name: &Name, records: &[Record]) -> Result<bool, OutOfZone> {
        self.put(name, Being::Set, records)
    }

    /// Takes records from `name` and gives it others, at a cost that does not depend on
    /// who else has how many; says whether that changed anything. A record that is both
    /// taken and given is there afterwards. A name that is left without records goes.
    pub fn amend(
        &mut self,
        name: &Name,
        taken: &[Record],
        given: &[Record],
    ) -> Result<bool, OutOfZone> {
        let (spelled, key_len) = self.locate(name)?;
        let key = spelled.wire().get(..key_len).unwrap_or_default();
        let Some(old) = self.node(key).filter(|node| node.explicit()) else {
            return self.set_or_remove(name, given);
        };
        let Some(groups) = amended(&spelled, old, taken, given) else {
            let mut records = self.get(name).unwrap_or_default();
            records.retain(|record| !taken.contains(record));
            records.extend_from_slice(given);
            return self.set_or_remove(name, &records);
        };
        if groups.is_empty() {
            return self.remove(name);
        }
        let new = Node::new(key, old.children(), old.being(), &groups);
        if old.same(&new) {
            return Ok(false);
        }
        self.nodes.insert(new);
        self.serial = self.serial.wrapping_add(1);
        Ok(true)
    }

    fn set_or_remove(&mut self, name: &Name, records: &[Record]) -> Result<bool, OutOfZone> {
        if records.is_empty() {
            self.remove(name)
        } else {
            self.set(name, records)
        }
    }

    /// Makes `name` exist without records, and each name one label below it that
    /// spells an address with dashes have that address (D15). A name that was set
    /// there goes before.
    pub fn set_spelling(&mut self, name: &Name) -> Result<bool, OutOfZone> {
        self.put(name, Being::Spelling, &[])
    }

    /// Remembers records of `name` that are not answered, in place of those that it
    /// remembered before: whoever gives the name its records looks here for those that
    /// may come back. They are no content of the zone, and not kept with it.
    pub fn shadow(&mut self, name: &Name, records: Vec<Record>) {
        if records.is_empty() {
            self.shadowed.remove(name);
        } else {
            self.shadowed.insert(name.clone(), records);
        }
    }

    /// The records of `name` that are not answered.
    pub fn shadowed(&self, name: &Name) -> &[Record] {
        self.shadowed
            .get(name)
            .map(Vec::as_slice)
            .unwrap_or_default()
    }

    /// Gives `name` exactly these parts, each with its label and records, or takes all
    /// away; says whether that changed anything. A part is asked for as
    /// `LABEL.pin._zone.NAME`, or as `LABEL.prefer._zone.NAME`, which stands for the
    /// whole where the part has no records. What stands for LABEL makes no difference
    /// to whether such a name exists.
    pub fn set_parts(
        &mut self,
        name: &Name,
        parts: Option<&BTreeMap<Vec<u8>, Vec<Record>>>,
    ) -> Result<bool, OutOfZone> {
        let (spelled, key_len) = self.locate(name)?;
        let key = spelled.wire().get(..key_len).unwrap_or_default();
        let new = parts.map(|parts| Parts::new((&spelled, key), parts));
        if self.parts_of(key) == new.as_ref() {
            return Ok(false);
        }
        match new {
            Some(new) => drop(self.parts.insert(key.into(), Arc::new(new))),
            None => drop(self.parts.remove(key)),
        }
        self.serial = self.serial.wrapping_add(1);
        Ok(true)
    }

    /// The names that have parts.
    pub(crate) fn wholes(&self) -> impl Iterator<Item = (&[u8], &Parts)> {
        self.parts.iter().map(|(key, parts)| (&**key, &**parts))
    }

    pub(crate) fn parts_of(&self, key: &[u8]) -> Option<&Parts> {
        self.parts.get(key).map(|parts| &**parts)
    }

    pub(crate) fn put(
        &mut self,
        name: &Name,
        being: Being,
        records: &[Record],
    ) -> Result<bool, OutOfZone> {
        let (spelled, key_len) = self.locate(name)?;
        let groups = pack(&spelled, records);
        let key = spelled.wire().get(..key_len).unwrap_or_default();
        let old = self.node(key);
        let children = old.map_or(0, Node::children);
        let new = Node::new(key, children, being, &groups);
        if old.is_some_and(|old| old.same(&new)) {
            return Ok(false);
        }
        let existed = old.is_some();
        // Equal is who has the same name, so this replaces the old node.
        self.nodes.insert(new);
        if !existed {
            self.add_child_above(key);
        }
        self.serial = self.serial.wrapping_add(1);
        Ok(true)
    }

    /// Takes `name` and its records away; says whether it had been set. While
    /// names below it exist it stays as an empty non-terminal, and those above
    /// it that existed for its sake alone go with it.
    pub fn remove(&mut self, name: &Name) -> Result<bool, OutOfZone> {
        let (spelled, key_len) = self.locate(name)?;
        let key = spelled.wire().get(..key_len).unwrap_or_default();
        let Some(old) = self.node(key).filter(|node| node.explicit()) else {
            return Ok(false);
        };
        let children = old.children();
        if key.is_empty() {
            self.nodes.insert(Node::new(key, children, Being::Set, &[]));
        } else if children > 0 {
            self.nodes
                .insert(Node::new(key, children, Being::Implied, &[]));
        } else {
            self.nodes.remove(&Key::new(key));
            self.drop_child_above(key);
        }
        self.serial = self.serial.wrapping_add(1);
        Ok(true)
    }

    /// The records of a name; `None` if the name does not exist, no records if
    /// it exists without any.
    pub fn get(&self, name: &Name) -> Option<Vec<Record>> {
        let (spelled, key_len) = self.locate(name).ok()?;
        let node = self.node(spelled.wire().get(..key_len)?)?;
        Some(
            node.all_groups()
                .flat_map(|group| group.records(&spelled))
                .collect(),
        )
    }

    /// The names that were set, with their records, in the order of the names.
    pub fn entries(&self) -> Vec<(Name, Vec<Record>)> {
        let mut all: Vec<_> = self
            .nodes
            .iter()
            .filter(|node| node.explicit())
            .filter(|node| !node.name().is_empty() || !node.groups().is_empty())
            .filter_map(|node| {
                let wire = [node.name(), self.about.origin.as_wire()].concat();
                let owner = Spelled::read(&wire)?;
                let records = node.all_groups().flat_map(|group| group.records(&owner));
                Some((owner.to_name(), records.collect()))
            })
            .collect();
        all.sort_unstable();
        all
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.iter()
    }

    /// The nodes that come after this one.
    pub(crate) fn nodes_after(&self, node: &Node) -> impl Iterator<Item = &Node> {
        let after = (Bound::Excluded(node.clone()), Bound::Unbounded);
        self.nodes.range(after)
    }

    pub(crate) fn node(&self, key: &[u8]) -> Option<&Node> {
        self.nodes.get(&Key::new(key))
    }

    /// What a name that was asked for is.
    pub(crate) fn find(&self, key: &[u8]) -> Found<'_> {
        match self.node(key) {
            Some(node) => Found::Node(node),
            None => match self.spelled_address(key) {
                Some(address) => Found::Address(address),
                None if self.parts.is_empty() => Found::Nothing,
                None => parts::find(self, key).map_or(Found::Nothing, Found::Part),
            },
        }
    }

    /// The address that the first label of a name spells, where that counts.
    fn spelled_address(&self, key: &[u8]) -> Option<IpAddr> {
        let length = usize::from(*key.first()?);
        let address = spelled_address(key.get(1..=length)?)?;
        let above = self.node(parent(key)?)?;
        (above.being() == Being::Spelling).then_some(address)
    }

    /// The name on the stack, and how much of it lies before the origin.
    fn locate(&self, name: &Name) -> Result<(Spelled, usize), OutOfZone> {
        let spelled = Spelled::of(name);
        match spelled
            .prefix_above(self.about.origin.as_wire())
            .map(<[u8]>::len)
        {
            Some(key_len) => Ok((spelled, key_len)),
            None => Err(OutOfZone {
                name: name.clone(),
                origin: self.about.origin.clone(),
            }),
        }
    }

    /// A name has come to exist: counts it at the name above, which comes to
    /// exist as well if it did not.
    fn add_child_above(&mut self, mut key: &[u8]) {
        while let Some(above) = parent(key) {
            let Some(mut node) = self.nodes.remove(&Key::new(above)) else {
                self.nodes.insert(Node::new(above, 1, Being::Implied, &[]));
                key = above;
                continue;
            };
            node.set_children(node.children().saturating_add(1));
            self.nodes.insert(node);
            return;
        }
    }

    /// A name is gone: the reverse of [`Self::add_child_above`].
    fn drop_child_above(&mut self, mut key: &[u8]) {
        while let Some(above) = parent(key) {
            let Some(mut node) = self.nodes.remove(&Key::new(above)) else {
                return;
            };
            let left = node.children().saturating_sub(1);
            if left > 0 || node.explicit() {
                node.set_children(left);
                self.nodes.insert(node);
                return;
            }
            key = above;
        }
    }
}

/// What a zone has at a name.
pub(crate) enum Found<'a> {
    /// The name does not exist.
    Nothing,
    /// It was set, or exists for names below it.
    Node(&'a Node),
    /// It spells this address, below a name where that counts.
    Address(IpAddr),
    /// It is that of a part of another name.
    Part(Part<'a>),
}

/// The address in a label such as `10-0-0-7` or `fd00--7`: three single dashes are
/// dots, all others colons, as CoreDNS reads it.
fn spelled_address(label: &[u8]) -> Option<IpAddr> {
    /// The longest IPv6 address, with an IPv4 address at its end.
    const MOST: usize = 45;
    let dashes = label.iter().filter(|&&byte| byte == b'-').count();
    let doubled = label.windows(2).any(|pair| pair == b"--");
    if dashes < 2 || label.contains(&b':') {
        return None;
    }
    let mark = if dashes == 3 && !doubled { b'.' } else { b':' };
    let mut text = [0; MOST];
    let text = text.get_mut(..label.len())?;
    for (to, from) in text.iter_mut().zip(label) {
        *to = if *from == b'-' { mark } else { *from };
    }
    let address: IpAddr = std::str::from_utf8(text).ok()?.parse().ok()?;
    (address.is_ipv4() == (mark == b'.')).then_some(address)
}

/// The relative name without its first label; the origin has no parent.
fn parent(key: &[u8]) -> Option<&[u8]> {
    let first = usize::from(*key.first()?);
    key.get(first + 1..)
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.about == other.about
            && self.nodes.len() == other.nodes.len()
            && self
                .nodes
                .iter()
                .zip(&other.nodes)
                .all(|(mine, theirs)| mine.same(theirs))
            && self.parts == other.parts
    }
}

impl Eq for Zone {}

impl std::fmt::Debug for Zone {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(out, "zone {} (serial {})", self.about.origin, self.serial)?;
        for (name, records) in self.entries() {
            write!(out, "\n{name} {records:?}")?;
        }
        for (key, parts) in &self.parts {
            write!(out, "\n{:?} {parts:?}", String::from_utf8_lossy(key))?;
        }
        Ok(())
    }
}
