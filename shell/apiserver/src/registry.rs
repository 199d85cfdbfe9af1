//! The kinds that are served: those of the table, and those of
//! CustomResourceDefinitions as they are now.
//!
//! A request takes one snapshot and keeps it; a changed definition is another
//! snapshot. The documents that follow from the kinds (discovery, OpenAPI) are
//! part of it, so they can never be older.

use std::sync::Arc;

use arc_swap::ArcSwap;
use portolan_api::Kind;
use portolan_api::kinds::{self, KindRef};

use crate::context::Resource;
use crate::documents::Documents;
use crate::store::Store;

/// What is served at one moment.
#[derive(Debug)]
pub(crate) struct Served {
    /// In the order of discovery: the table first.
    pub(crate) resources: Vec<Resource>,
    pub(crate) documents: Documents,
}

impl Served {
    fn new(resources: Vec<Resource>) -> Self {
        let kinds = resources
            .iter()
            .map(|resource| resource.kind.clone())
            .collect();
        Self {
            resources,
            documents: Documents::new(kinds),
        }
    }
}

#[cfg(test)]
impl Served {
    /// The table alone, for tests without a store.
    pub(crate) fn table() -> Self {
        let resources = kinds::all().enumerate().map(|(index, kind)| Resource {
            kind: KindRef::from(kind),
            index,
            gone: None,
            ending: false,
        });
        Self::new(resources.collect())
    }
}

/// Holds the current snapshot.
#[derive(Debug)]
pub(crate) struct Registry {
    table: Vec<Resource>,
    served: ArcSwap<Served>,
}

impl Registry {
    pub(crate) fn new(store: &Store) -> Self {
        let table: Vec<Resource> = kinds::all()
            .filter_map(|kind| {
                Some(Resource {
                    kind: KindRef::from(kind),
                    index: store.collection(&kind.collection())?,
                    gone: None,
                    ending: false,
                })
            })
            .collect();
        Self {
            served: ArcSwap::from_pointee(Served::new(table.clone())),
            table,
        }
    }

    /// The snapshot to work with.
    pub(crate) fn served(&self) -> Arc<Served> {
        self.served.load_full()
    }

    /// From now on these custom resources are served beside the table. Those
    /// that were and are no more are told so.
    pub(crate) fn set_custom(&self, custom: Vec<Resource>) {
        let old = self.served();
        let known = old.resources.get(self.table.len()..).unwrap_or_default();
        let same = |one: &Resource, other: &Resource| {
            std::ptr::eq::<Kind>(&*one.kind, &*other.kind) && one.ending == other.ending
        };
        let unchanged = known.len() == custom.len()
            && known
                .iter()
                .zip(&custom)
                .all(|(one, other)| same(one, other));
        // The documents stay made, too.
        if unchanged {
            return;
        }
        let still: Vec<KindRef> = custom
            .iter()
            .map(|resource| resource.kind.clone())
            .collect();
        let mut resources = self.table.clone();
        resources.extend(custom);
        self.served.store(Arc::new(Served::new(resources)));
        for resource in known {
            let stays = still
                .iter()
                .any(|kind| std::ptr::eq::<Kind>(&**kind, &*resource.kind));
            if let Some(gone) = &resource.gone
                && !stays
            {
                gone.cancel();
            }
        }
    }
}
