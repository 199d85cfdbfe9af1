//! One name and all its records in one allocation.
//!
//! ```text
//! node   = children:u32le being:u8 length:u8 name groups…
//! group  = kind:u8 [ttl:u32be] count:varint [size:varint] entries
//! entry  = 4 octets (A) | 16 octets (AAAA) | prio weight port target (SRV)
//!        | target (PTR, CNAME, NS) | size:varint texts (TXT)
//! target = size:u8 labels skip:u8
//! ```
//!
//! `name` is relative to the zone's origin. The highest bit of `kind` says that
//! a TTL follows; `size` is there only where entries differ in length. A target
//! is kept as what differs from its owner: its first labels, then how many
//! labels of the owner to leave out before the rest. The target of an SRV
//! record is mostly a sibling of its owner and so costs a dozen octets.
//!
//! Entries are sorted and free of duplicates, so equal record sets are equal
//! bytes. Every reading function returns `None` at damaged bytes: none occur,
//! and no query may be the proof of the contrary.

use std::cmp::Ordering;
use std::hash::BuildHasher;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use equivalent::{Comparable, Equivalent};
use foldhash::fast::FixedState;

use crate::name::{Name, Spelled};
use crate::record::{Data, Record, Rtype};

const HAS_TTL: u8 = 0x80;
const HEAD: usize = 6;

/// A name with its records and the number of its children. Nodes are ordered by
/// a hash of the name, so that looking one up compares numbers that lie side by
/// side and follows a pointer only at the end.
#[derive(Clone)]
pub(crate) struct Node {
    hash: u64,
    bytes: Arc<[u8]>,
}

/// Why a name exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Being {
    /// For the names below it alone.
    Implied = 0,
    /// Somebody set it.
    Set = 1,
    /// Somebody set it, and labels below it that spell an address have that.
    Spelling = 2,
}

impl Node {
    pub(crate) fn new(name: &[u8], children: u32, being: Being, groups: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(HEAD + name.len() + groups.len());
        bytes.extend_from_slice(&children.to_le_bytes());
        bytes.push(being as u8);
        bytes.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        bytes.extend_from_slice(name);
        bytes.extend_from_slice(groups);
        Self {
            hash: hash(name),
            bytes: bytes.into(),
        }
    }

    pub(crate) fn name(&self) -> &[u8] {
        let length = usize::from(self.bytes.get(HEAD - 1).copied().unwrap_or(0));
        self.bytes.get(HEAD..HEAD + length).unwrap_or_default()
    }

    pub(crate) fn children(&self) -> u32 {
        self.bytes
            .first_chunk()
            .map_or(0, |octets| u32::from_le_bytes(*octets))
    }

    /// Whether somebody set this name; otherwise it exists for its children.
    pub(crate) fn explicit(&self) -> bool {
        self.being() != Being::Implied
    }

    pub(crate) fn being(&self) -> Being {
        match self.bytes.get(HEAD - 2) {
            Some(1) => Being::Set,
            Some(2) => Being::Spelling,
            Some(_) | None => Being::Implied,
        }
    }

    pub(crate) fn groups(&self) -> &[u8] {
        self.bytes
            .get(HEAD + self.name().len()..)
            .unwrap_or_default()
    }

    /// In place where no snapshot shares the node, else in a copy.
    pub(crate) fn set_children(&mut self, children: u32) {
        let octets = children.to_le_bytes();
        if let Some(head) = Arc::get_mut(&mut self.bytes).and_then(|bytes| bytes.first_chunk_mut())
        {
            *head = octets;
            return;
        }
        *self = Self::new(self.name(), children, self.being(), self.groups());
    }

    pub(crate) fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.bytes, &other.bytes) || self.bytes == other.bytes
    }

    pub(crate) fn group(&self, rtype: Rtype) -> Option<Group<'_>> {
        Groups(Cursor(self.groups())).find(|group| group.rtype == rtype)
    }

    pub(crate) fn all_groups(&self) -> impl Iterator<Item = Group<'_>> {
        Groups(Cursor(self.groups()))
    }
}

/// A relative name to be looked up.
pub(crate) struct Key<'a> {
    hash: u64,
    name: &'a [u8],
}

impl<'a> Key<'a> {
    pub(crate) fn new(name: &'a [u8]) -> Self {
        Self {
            hash: hash(name),
            name,
        }
    }
}

/// The seed is fixed: the same zone is the same table on every run. Names with
/// equal hashes, should somebody look for such, are told apart by the name.
fn hash(name: &[u8]) -> u64 {
    FixedState::with_seed(0).hash_one(name)
}

impl Comparable<Node> for Key<'_> {
    fn compare(&self, node: &Node) -> Ordering {
        self.hash
            .cmp(&node.hash)
            .then_with(|| self.name.cmp(node.name()))
    }
}

impl Equivalent<Node> for Key<'_> {
    fn equivalent(&self, node: &Node) -> bool {
        self.compare(node) == Ordering::Equal
    }
}

// Nodes are ordered by their names alone.
impl Ord for Node {
    fn cmp(&self, other: &Self) -> Ordering {
        Key {
            hash: self.hash,
            name: self.name(),
        }
        .compare(other)
    }
}

impl PartialOrd for Node {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Node {}

/// The records of one type of a name.
pub(crate) struct Group<'a> {
    pub(crate) rtype: Rtype,
    pub(crate) ttl: Option<u32>,
    pub(crate) count: usize,
    pub(crate) entries: &'a [u8],
}

/// One record, its target still relative to the owner.
pub(crate) enum Entry<'a> {
    /// The octets of an address or of texts, ready for the wire.
    Plain(&'a [u8]),
    /// `head` is what comes before the target in the record data: nothing, or
    /// priority, weight and port of an SRV record.
    Target {
        head: &'a [u8],
        labels: &'a [u8],
        skip: usize,
    },
}

impl<'a> Group<'a> {
    pub(crate) fn iter(&self) -> Entries<'a> {
        Entries {
            rtype: self.rtype,
            rest: Cursor(self.entries),
        }
    }

    /// The records in their public form.
    pub(crate) fn records(&self, owner: &Spelled) -> Vec<Record> {
        self.iter()
            .filter_map(|entry| {
                let data = data(self.rtype, &entry, owner)?;
                Some(Record {
                    ttl: self.ttl,
                    data,
                })
            })
            .collect()
    }
}

fn data(rtype: Rtype, entry: &Entry<'_>, owner: &Spelled) -> Option<Data> {
    match *entry {
        Entry::Plain(octets) if rtype == Rtype::A => {
            Some(Data::A(Ipv4Addr::from(*octets.first_chunk::<4>()?)))
        }
        Entry::Plain(octets) if rtype == Rtype::AAAA => {
            Some(Data::Aaaa(Ipv6Addr::from(*octets.first_chunk::<16>()?)))
        }
        Entry::Plain(mut rest) => {
            let mut texts = Vec::new();
            while let Some((&length, tail)) = rest.split_first() {
                let (text, tail) = tail.split_at_checked(usize::from(length))?;
                texts.push(text.to_vec());
                rest = tail;
            }
            Some(Data::Txt(texts))
        }
        Entry::Target { head, labels, skip } => {
            let target = Spelled::join(labels, owner, skip)?.to_name();
            let mut head = Cursor(head);
            match rtype {
                Rtype::SRV => Some(Data::Srv {
                    priority: head.u16()?,
                    weight: head.u16()?,
                    port: head.u16()?,
                    target,
                }),
                Rtype::PTR => Some(Data::Ptr(target)),
                Rtype::CNAME => Some(Data::Cname(target)),
                _ => Some(Data::Ns(target)),
            }
        }
    }
}

pub(crate) struct Entries<'a> {
    rtype: Rtype,
    rest: Cursor<'a>,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Entry<'a>;

    fn next(&mut self) -> Option<Entry<'a>> {
        let size = match self.rtype {
            Rtype::A => Some(4),
            Rtype::AAAA => Some(16),
            Rtype::TXT => Some(self.rest.varint()?),
            _ => None,
        };
        if let Some(size) = size {
            return self.rest.take(size).map(Entry::Plain);
        }
        let head = self
            .rest
            .take(if self.rtype == Rtype::SRV { 6 } else { 0 })?;
        let size = self.rest.u8()?;
        let labels = self.rest.take(usize::from(size))?;
        let skip = usize::from(self.rest.u8()?);
        Some(Entry::Target { head, labels, skip })
    }
}

struct Groups<'a>(Cursor<'a>);

impl<'a> Iterator for Groups<'a> {
    type Item = Group<'a>;

    fn next(&mut self) -> Option<Group<'a>> {
        let kind = self.0.u8()?;
        let ttl = if kind & HAS_TTL == 0 {
            None
        } else {
            Some(self.0.u32()?)
        };
        let rtype = Rtype(u16::from(kind & !HAS_TTL));
        let count = self.0.varint()?;
        let size = match rtype {
            Rtype::A => count.checked_mul(4)?,
            Rtype::AAAA => count.checked_mul(16)?,
            _ => self.0.varint()?,
        };
        let entries = self.0.take(size)?;
        Some(Group {
            rtype,
            ttl,
            count,
            entries,
        })
    }
}

/// The groups of a record set: types in the order of their numbers, entries
/// sorted, duplicates gone.
pub(crate) fn pack(owner: &Spelled, records: &[Record]) -> Vec<u8> {
    let mut rtypes: Vec<Rtype> = records.iter().map(|record| record.data.rtype()).collect();
    rtypes.sort_unstable();
    rtypes.dedup();
    let mut out = Vec::with_capacity(records.len() * 6);
    for rtype in rtypes {
        let of_type = || records.iter().filter(|record| record.data.rtype() == rtype);
        let ttl = of_type().filter_map(|record| record.ttl).min();
        let mut entries: Vec<Vec<u8>> = of_type()
            .map(|record| pack_entry(owner, &record.data))
            .collect();
        entries.sort_unstable();
        entries.dedup();
        pack_group(&mut out, rtype, ttl, &entries);
    }
    out
}

fn pack_group(out: &mut Vec<u8>, rtype: Rtype, ttl: Option<u32>, entries: &[Vec<u8>]) {
    pack_raw(out, rtype, ttl, (entries.len(), &entries.concat()));
}

/// A group of so many entries, which are sorted and one after the other.
pub(crate) fn pack_raw(
    out: &mut Vec<u8>,
    rtype: Rtype,
    ttl: Option<u32>,
    (count, entries): (usize, &[u8]),
) {
    // All types that Data knows are below 128.
    let kind = u8::try_from(rtype.0).unwrap_or(0) & !HAS_TTL;
    out.push(if ttl.is_some() { kind | HAS_TTL } else { kind });
    out.extend(ttl.into_iter().flat_map(u32::to_be_bytes));
    push_varint(out, count);
    if rtype != Rtype::A && rtype != Rtype::AAAA {
        push_varint(out, entries.len());
    }
    out.extend_from_slice(entries);
}

/// The entries of a group, each with all its octets.
pub(crate) fn raw_entries(rtype: Rtype, entries: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut read = Entries {
        rtype,
        rest: Cursor(entries),
    };
    std::iter::from_fn(move || {
        let before = read.rest.0;
        read.next()?;
        before.get(..before.len() - read.rest.0.len())
    })
}

pub(crate) fn pack_entry(owner: &Spelled, data: &Data) -> Vec<u8> {
    let mut out = Vec::new();
    match data {
        Data::A(v4) => out.extend_from_slice(&v4.octets()),
        Data::Aaaa(v6) => out.extend_from_slice(&v6.octets()),
        Data::Srv {
            priority,
            weight,
            port,
            target,
        } => {
            for number in [priority, weight, port] {
                out.extend_from_slice(&number.to_be_bytes());
            }
            push_target(&mut out, owner, target);
        }
        Data::Ptr(target) | Data::Cname(target) | Data::Ns(target) => {
            push_target(&mut out, owner, target);
        }
        Data::Txt(texts) => {
            let wire = text_wire(texts);
            push_varint(&mut out, wire.len());
            out.extend_from_slice(&wire);
        }
    }
    out
}

/// The texts in wire form: at least one, each of at most 255 octets, and all
/// together within the 65 535 octets of record data.
fn text_wire(texts: &[Vec<u8>]) -> Vec<u8> {
    let mut wire = Vec::new();
    for text in texts {
        let text = text.get(..text.len().min(255)).unwrap_or_default();
        if wire.len() + 1 + text.len() > usize::from(u16::MAX) {
            break;
        }
        wire.push(u8::try_from(text.len()).unwrap_or(u8::MAX));
        wire.extend_from_slice(text);
    }
    if wire.is_empty() {
        wire.push(0);
    }
    wire
}

fn push_target(out: &mut Vec<u8>, owner: &Spelled, target: &Name) {
    let target = Spelled::of(target);
    let kept = target.common_suffix(owner);
    let labels = target
        .start(kept)
        .and_then(|end| target.wire().get(..end))
        .unwrap_or_default();
    let skip = owner.labels() - (target.labels() - kept);
    // A name has at most 255 octets and 127 labels.
    out.push(u8::try_from(labels.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(labels);
    out.push(u8::try_from(skip).unwrap_or(u8::MAX));
}

fn push_varint(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Reads octets from the front of a slice.
#[derive(Clone, Copy)]
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(crate) fn take(&mut self, size: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(size)?;
        self.0 = rest;
        Some(taken)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take(1)?.first().copied()
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take(2)?
            .first_chunk()
            .map(|octets| u16::from_be_bytes(*octets))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take(4)?
            .first_chunk()
            .map(|octets| u32::from_be_bytes(*octets))
    }

    fn varint(&mut self) -> Option<usize> {
        let mut value = 0_usize;
        for shift in (0..usize::BITS).step_by(7) {
            let octet = self.u8()?;
            value |= usize::from(octet & 0x7f) << shift;
            if octet & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }
}
