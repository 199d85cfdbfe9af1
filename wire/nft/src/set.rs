//! Sets and maps.

use std::collections::BTreeMap;

use crate::{Field, Name, Tuple, Verdict};

/// How a set may be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SetFlags {
    /// Keys may be ranges (`flags interval`).
    pub interval: bool,
    /// Rules add elements (`flags dynamic`). The elements of such a set belong to
    /// the packets: they are neither compared nor repaired.
    pub dynamic: bool,
    /// Elements may have a timeout (`flags timeout`).
    pub timeout: bool,
    /// Read from the kernel: there are flags that this language lacks. It is never
    /// written.
    pub alien: bool,
}

/// What a set's keys lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetData {
    /// Nothing: a plain set.
    None,
    /// A verdict: `vmap`.
    Verdict,
    /// A tuple of fields.
    Fields(Vec<Field>),
}

/// A set, map or verdict map with its elements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Set {
    /// `typeof` of the key.
    pub key: Vec<Field>,
    /// `typeof` behind the colon.
    pub data: SetData,
    /// How it is used.
    pub flags: SetFlags,
    /// The most elements it may hold; without it a hash set grows as needed.
    pub size: Option<u32>,
    /// How long an element lives, in milliseconds.
    pub timeout_ms: Option<u64>,
    /// A comment that is listed with the set.
    pub comment: Option<String>,
    /// The elements.
    pub elements: BTreeMap<Key, Data>,
}

impl Set {
    /// A plain set of exact keys.
    #[must_use]
    #[expect(
        clippy::self_named_constructors,
        reason = "set, vmap and map are nft's words for the three"
    )]
    pub fn set(key: impl Into<Vec<Field>>) -> Self {
        Self::new(key.into(), SetData::None)
    }

    /// A verdict map with exact keys.
    #[must_use]
    pub fn vmap(key: impl Into<Vec<Field>>) -> Self {
        Self::new(key.into(), SetData::Verdict)
    }

    /// A map with exact keys.
    #[must_use]
    pub fn map(key: impl Into<Vec<Field>>, data: impl Into<Vec<Field>>) -> Self {
        Self::new(key.into(), SetData::Fields(data.into()))
    }

    fn new(key: Vec<Field>, data: SetData) -> Self {
        Self {
            key,
            data,
            flags: SetFlags::default(),
            size: None,
            timeout_ms: None,
            comment: None,
            elements: BTreeMap::new(),
        }
    }

    /// The same with `flags interval`.
    #[must_use]
    pub fn interval(mut self) -> Self {
        self.flags.interval = true;
        self
    }

    /// The same with `flags dynamic,timeout`: filled by rules.
    #[must_use]
    pub fn dynamic(mut self, size: u32, timeout_ms: u64) -> Self {
        self.flags.dynamic = true;
        self.flags.timeout = true;
        self.size = Some(size);
        self.timeout_ms = Some(timeout_ms);
        self
    }

    /// The same with a comment.
    #[must_use]
    pub fn comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    /// The same with this element.
    #[must_use]
    pub fn with(mut self, key: impl Into<Key>, data: impl Into<Data>) -> Self {
        self.elements.insert(key.into(), data.into());
        self
    }

    /// How the kernel keeps the keys.
    #[must_use]
    pub fn shape(&self) -> Shape {
        match (self.flags.interval, self.key.len()) {
            (true, 1) => Shape::Edges,
            (true, _) => Shape::Boxes,
            (false, _) => Shape::Points,
        }
    }

    /// The declaration: everything but the elements.
    #[must_use]
    pub fn declaration(&self) -> Self {
        Self {
            key: self.key.clone(),
            data: self.data.clone(),
            flags: self.flags,
            size: self.size,
            timeout_ms: self.timeout_ms,
            comment: self.comment.clone(),
            elements: BTreeMap::new(),
        }
    }

    /// Whether both are declared alike, whatever they hold.
    #[must_use]
    pub fn same_declaration(&self, other: &Self) -> bool {
        self.key == other.key
            && self.data == other.data
            && self.flags == other.flags
            && self.size == other.size
            && self.timeout_ms == other.timeout_ms
            && self.comment == other.comment
    }
}

/// How the kernel keeps the keys of a set: whoever sends elements must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One element for each key.
    Points,
    /// A concatenation with `flags interval`: one element for each key, with its
    /// end even where it is one point. (nft 1.0.6 lists two elements without ends
    /// as one range.)
    Boxes,
    /// A set of one field with `flags interval`: two elements for each key, where
    /// it begins and where it has ended.
    Edges,
}

/// An element's key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// Exactly this tuple.
    Exact(Tuple),
    /// In every field from the first to the second, both included. Only in sets
    /// with `flags interval`. Boxed because few keys are ranges, and maps hold
    /// many keys.
    Range(Box<(Tuple, Tuple)>),
}

impl Key {
    /// From the first tuple to the second, both included in every field.
    #[must_use]
    pub fn range(from: Tuple, to: Tuple) -> Self {
        if from == to {
            Self::Exact(from)
        } else {
            Self::Range(Box::new((from, to)))
        }
    }

    /// The first tuple it covers.
    #[must_use]
    pub fn first(&self) -> &Tuple {
        match self {
            Self::Exact(tuple) => tuple,
            Self::Range(ends) => &ends.0,
        }
    }

    /// The last tuple it covers.
    #[must_use]
    pub fn last(&self) -> &Tuple {
        match self {
            Self::Exact(tuple) => tuple,
            Self::Range(ends) => &ends.1,
        }
    }

    /// Every field of a tuple lies between those of the first and the last.
    #[must_use]
    pub fn covers(&self, widths: &[usize], tuple: &Tuple) -> bool {
        let mut at = 0;
        widths.iter().all(|width| {
            let span = at..at + width;
            at += width;
            let (low, high) = (self.first().bytes(), self.last().bytes());
            match (
                low.get(span.clone()),
                tuple.bytes().get(span.clone()),
                high.get(span),
            ) {
                (Some(low), Some(value), Some(high)) => low <= value && value <= high,
                (_, _, _) => false,
            }
        })
    }
}

impl From<Tuple> for Key {
    fn from(tuple: Tuple) -> Self {
        Self::Exact(tuple)
    }
}

impl<const N: usize> From<[crate::Value; N]> for Key {
    fn from(values: [crate::Value; N]) -> Self {
        Self::Exact(Tuple::from(values))
    }
}

/// What an element's key leads to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Data {
    /// Nothing: an element of a plain set.
    None,
    /// A verdict.
    Verdict(Verdict),
    /// A tuple.
    Tuple(Tuple),
}

impl From<Verdict> for Data {
    fn from(verdict: Verdict) -> Self {
        Self::Verdict(verdict)
    }
}

impl From<Tuple> for Data {
    fn from(tuple: Tuple) -> Self {
        Self::Tuple(tuple)
    }
}

impl From<()> for Data {
    fn from((): ()) -> Self {
        Self::None
    }
}

impl<const N: usize> From<[crate::Value; N]> for Data {
    fn from(values: [crate::Value; N]) -> Self {
        Self::Tuple(Tuple::from(values))
    }
}

impl Data {
    /// The chain that this element leads to.
    #[must_use]
    pub fn chain(&self) -> Option<&Name> {
        match self {
            Self::Verdict(verdict) => verdict.chain(),
            Self::None | Self::Tuple(_) => None,
        }
    }
}
