//! Tables in few bytes: everything but the elements, and a digest of these.
//!
//! Whether a table is as it should be is asked far more often than it is not. Two
//! outlines answer that without two copies of every element.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::{Data, Key, Name, Table};

/// What a set holds: equal for equal elements, in whatever order they come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digest {
    count: u64,
    /// Sums of two hashes of each element.
    sums: [u64; 2],
}

impl Digest {
    /// Takes one element in. Each may come once.
    pub fn add(&mut self, key: &Key, data: &Data) {
        self.count += 1;
        for (salt, sum) in (0_u8..).zip(&mut self.sums) {
            let mut hasher = DefaultHasher::new();
            (salt, key, data).hash(&mut hasher);
            *sum = sum.wrapping_add(hasher.finish());
        }
    }

    /// Takes in what another one is of.
    pub fn extend(&mut self, other: Self) {
        self.count += other.count;
        for (sum, more) in self.sums.iter_mut().zip(other.sums) {
            *sum = sum.wrapping_add(more);
        }
    }
}

/// A table whose sets hold digests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outline {
    /// The table without elements.
    table: Table,
    /// What its sets hold; nothing of dynamic ones, which belong to the packets.
    digests: BTreeMap<Name, Digest>,
}

impl Outline {
    /// The outline of a table.
    #[must_use]
    pub fn of(mut table: Table) -> Self {
        let mut digests = BTreeMap::new();
        for (name, set) in &mut table.sets {
            let elements = std::mem::take(&mut set.elements);
            if set.flags.dynamic {
                continue;
            }
            let mut digest = Digest::default();
            for (key, data) in &elements {
                digest.add(key, data);
            }
            digests.insert(name.clone(), digest);
        }
        Self { table, digests }
    }

    /// Takes one element of a set in.
    pub fn add(&mut self, set: &str, key: &Key, data: &Data) {
        if let Some(digest) = self.digests.get_mut(set) {
            digest.add(key, data);
        }
    }

    /// Takes in what a set holds besides.
    pub(crate) fn extend(&mut self, set: &Name, other: Digest) {
        if let Some(digest) = self.digests.get_mut(set) {
            digest.extend(other);
        }
    }
}
