//! News of a kind, taken into its store.

use std::collections::BTreeMap;
use std::sync::Arc;

use portolan_model::workloads::{Object, ObjectKey};
use portolan_plan::workloads::Store;

use super::feed::News;
use super::world::is_same;

/// An object that came, changed or went.
pub(crate) struct Seen<T> {
    /// What it was.
    pub(crate) before: Option<Arc<T>>,
    /// What it is.
    pub(crate) now: Option<T>,
}

/// Takes news of a kind in. Answers with what is not as it was.
pub(crate) fn absorb<T: Object + PartialEq>(store: &mut Store<T>, news: News<T>) -> Vec<Seen<T>> {
    match news {
        News::All(objects, version) => {
            let before: Vec<Arc<T>> = store.all().cloned().collect();
            store.replace(objects, version);
            let mut seen: Vec<Seen<T>> = Vec::new();
            for old in &before {
                if store.get(&old.meta().key).is_none() {
                    let before = Some(Arc::clone(old));
                    seen.push(Seen { before, now: None });
                }
            }
            let known: BTreeMap<&ObjectKey, &Arc<T>> =
                before.iter().map(|old| (&old.meta().key, old)).collect();
            for object in store.all() {
                let before = known.get(&object.meta().key).map(|old| Arc::clone(old));
                if !before
                    .as_ref()
                    .is_some_and(|old| is_same(old.as_ref(), object))
                {
                    let now = Some(object.as_ref().clone());
                    seen.push(Seen { before, now });
                }
            }
            seen
        }
        News::Is(object) => {
            let before = store.saw(object.clone());
            if before
                .as_ref()
                .is_some_and(|old| is_same(old.as_ref(), &object))
            {
                return Vec::new();
            }
            let now = Some(object);
            vec![Seen { before, now }]
        }
        News::Gone(object) => {
            store.saw_end(&object);
            let before = Some(Arc::new(object));
            vec![Seen { before, now: None }]
        }
    }
}

impl<T: Object> Seen<T> {
    /// Which object it is.
    pub(crate) fn key(&self) -> Option<&ObjectKey> {
        let before = self.before.as_ref().map(|old| &old.meta().key);
        self.now.as_ref().map(|now| &now.meta().key).or(before)
    }
}
