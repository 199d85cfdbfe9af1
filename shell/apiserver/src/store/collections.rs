//! The collections of the store: those that it was opened with, and those
//! that come later with CustomResourceDefinitions or were found in the file.
//!
//! A collection keeps its index as long as the program runs; readers find it
//! without a lock.

use std::collections::BTreeMap;
use std::sync::{Mutex, OnceLock, PoisonError};

use super::object::{Collection, KindIndex};

/// How many there may be, ever: Kubernetes advises against more than 500
/// CustomResourceDefinitions.
pub(super) const MAX_COLLECTIONS: usize = 2048;

/// Collections by index and by name.
#[derive(Debug)]
pub(crate) struct Collections {
    slots: Box<[OnceLock<Collection>]>,
    by_name: Mutex<BTreeMap<String, KindIndex>>,
}

impl Collections {
    pub(crate) fn new(first: Vec<Collection>) -> Self {
        let slots = (0..MAX_COLLECTIONS).map(|_| OnceLock::new()).collect();
        let collections = Self {
            slots,
            by_name: Mutex::default(),
        };
        for collection in first {
            collections.add(collection);
        }
        collections
    }

    pub(crate) fn get(&self, index: KindIndex) -> Option<&Collection> {
        self.slots.get(index)?.get()
    }

    /// The collection of this name, made if there is none. `None` when there
    /// are too many.
    pub(crate) fn index(&self, name: &str) -> Option<KindIndex> {
        let known = self
            .by_name
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(name)
            .copied();
        known.or_else(|| {
            self.add(Collection {
                name: name.to_owned(),
            })
        })
    }

    fn add(&self, collection: Collection) -> Option<KindIndex> {
        let mut by_name = self.by_name.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(index) = by_name.get(&collection.name) {
            return Some(*index);
        }
        let index = by_name.len();
        let name = collection.name.clone();
        self.slots.get(index)?.set(collection).ok()?;
        by_name.insert(name, index);
        Some(index)
    }
}
