//! The facts of one kind, never older than what we wrote ourselves.
//!
//! A watch lags behind the server. A controller that looked only at the watch
//! would create the same pod twice. Kubernetes' own controllers therefore
//! count expected events; here the answer to a write goes straight into the
//! store instead, by two rules that hold in any order of arrival:
//!
//! * Versions of one kind are comparable. A written object enters the store
//!   unless the watch is already past its version: then the watch has shown
//!   it, or its end, before.
//! * What was told to go stays marked as going, whatever older news of it is
//!   still to come, until the watch says that it is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use portolan_model::workloads::{Object, ObjectKey};

/// The labels by which a kind is looked up.
type Labels<T> = for<'a> fn(&'a T) -> Vec<(&'a str, &'a str)>;
/// A namespace, a label and its value.
type Label = (String, String, String);

/// The objects of one kind by key, and by the uid of their controller.
#[derive(Clone, Debug)]
pub struct Store<T> {
    by_key: BTreeMap<ObjectKey, Arc<T>>,
    labels: Labels<T>,
    by_label: BTreeMap<Label, BTreeSet<ObjectKey>>,
    /// Keys by controller uid; objects without one under "".
    by_controller: BTreeMap<String, BTreeSet<ObjectKey>>,
    /// The newest version that the watch has shown.
    seen: u64,
    /// Uids of objects that were told to go.
    going: BTreeSet<String>,
    /// Whether a complete list has been seen.
    listed: bool,
}

impl<T> Default for Store<T> {
    fn default() -> Self {
        Self {
            by_key: BTreeMap::new(),
            labels: |_| Vec::new(),
            by_label: BTreeMap::new(),
            by_controller: BTreeMap::new(),
            seen: 0,
            going: BTreeSet::new(),
            listed: false,
        }
    }
}

impl<T: Object> Store<T> {
    /// A store that finds objects by the labels that `labels` answers with.
    pub fn by(labels: Labels<T>) -> Self {
        Self {
            labels,
            ..Self::default()
        }
    }

    /// How many objects of a namespace are looked up by this label.
    pub fn count_labelled(&self, namespace: &str, key: &str, value: &str) -> usize {
        let label = (namespace.to_owned(), key.to_owned(), value.to_owned());
        self.by_label.get(&label).map_or(0, BTreeSet::len)
    }

    /// The objects of a namespace that are looked up by this label.
    pub fn labelled(
        &self,
        namespace: &str,
        key: &str,
        value: &str,
    ) -> impl Iterator<Item = &Arc<T>> {
        let label = (namespace.to_owned(), key.to_owned(), value.to_owned());
        self.by_label
            .get(&label)
            .into_iter()
            .flatten()
            .filter_map(|key| self.by_key.get(key))
    }

    /// Whether a complete list has been seen.
    pub fn is_listed(&self) -> bool {
        self.listed
    }

    /// One object.
    pub fn get(&self, key: &ObjectKey) -> Option<&Arc<T>> {
        self.by_key.get(key)
    }

    /// All objects, ordered by key.
    pub fn all(&self) -> impl Iterator<Item = &Arc<T>> {
        self.by_key.values()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The objects of a namespace, ordered by name.
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<T>> {
        let first = ObjectKey::new(namespace, "");
        self.by_key
            .range(first..)
            .map(|(_, object)| object)
            .take_while(move |object| object.meta().key.namespace == namespace)
    }

    /// The objects that this uid controls; "" stands for nobody.
    pub fn controlled_by(&self, uid: &str) -> impl Iterator<Item = &Arc<T>> {
        self.by_controller
            .get(uid)
            .into_iter()
            .flatten()
            .filter_map(|key| self.by_key.get(key))
    }

    /// The watch showed an object. Returns what was known of it.
    pub fn saw(&mut self, object: T) -> Option<Arc<T>> {
        self.seen = self.seen.max(object.meta().version);
        let known = self.by_key.get(&object.meta().key).cloned();
        let newer = known.as_ref().is_some_and(|known| {
            known.meta().uid == object.meta().uid && known.meta().version > object.meta().version
        });
        if !newer {
            self.put(object);
        }
        known
    }

    /// The watch showed the end of an object. Returns what was known of it.
    pub fn saw_end(&mut self, object: &T) -> Option<Arc<T>> {
        self.seen = self.seen.max(object.meta().version);
        self.going.remove(&object.meta().uid);
        let same = self
            .by_key
            .get(&object.meta().key)
            .is_some_and(|known| known.meta().uid == object.meta().uid);
        if same {
            self.take(&object.meta().key)
        } else {
            None
        }
    }

    /// A complete list as of `version`. Objects written later than that stay.
    pub fn replace(&mut self, objects: Vec<T>, version: u64) {
        self.seen = self.seen.max(version);
        self.listed = true;
        let kept: BTreeSet<ObjectKey> = objects.iter().map(|o| o.meta().key.clone()).collect();
        let gone: Vec<ObjectKey> = self
            .by_key
            .iter()
            .filter(|(key, known)| !kept.contains(key) && known.meta().version <= version)
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            if let Some(object) = self.take(&key) {
                self.going.remove(&object.meta().uid);
            }
        }
        for object in objects {
            self.saw(object);
        }
    }

    /// The server answered a write with this object.
    pub fn wrote(&mut self, object: T) {
        let version = object.meta().version;
        // A version that is no number cannot be compared: better to believe
        // the answer than to create the object again.
        if version > self.seen || version == 0 {
            self.put(object);
        }
    }

    /// The server agreed to delete the object with this uid.
    pub fn told_to_go(&mut self, key: &ObjectKey, uid: &str) {
        let known = self.by_key.get(key).filter(|known| known.meta().uid == uid);
        if let Some(known) = known.cloned() {
            self.going.insert(uid.to_owned());
            self.put(known.as_ref().clone());
        }
    }

    /// Changes an object in place, until the watch shows it anew.
    pub fn amend(&mut self, key: &ObjectKey, change: impl FnOnce(&mut T)) {
        if let Some(known) = self.by_key.get_mut(key) {
            change(Arc::make_mut(known));
        }
    }

    fn put(&mut self, mut object: T) {
        if self.going.contains(&object.meta().uid) {
            object.meta_mut().deleting = true;
        }
        let key = object.meta().key.clone();
        self.take(&key);
        for label in self.labels_of(&object) {
            self.by_label.entry(label).or_default().insert(key.clone());
        }
        self.by_controller
            .entry(controller(&object).to_owned())
            .or_default()
            .insert(key.clone());
        self.by_key.insert(key, Arc::new(object));
    }

    fn take(&mut self, key: &ObjectKey) -> Option<Arc<T>> {
        let object = self.by_key.remove(key)?;
        let controller = controller(object.as_ref());
        if let Some(keys) = self.by_controller.get_mut(controller) {
            keys.remove(key);
            if keys.is_empty() {
                self.by_controller.remove(controller);
            }
        }
        for label in self.labels_of(object.as_ref()) {
            if let Some(keys) = self.by_label.get_mut(&label) {
                keys.remove(key);
                if keys.is_empty() {
                    self.by_label.remove(&label);
                }
            }
        }
        Some(object)
    }

    fn labels_of(&self, object: &T) -> Vec<Label> {
        let namespace = &object.meta().key.namespace;
        (self.labels)(object)
            .into_iter()
            .map(|(key, value)| (namespace.clone(), key.to_owned(), value.to_owned()))
            .collect()
    }
}

fn controller<T: Object>(object: &T) -> &str {
    object
        .meta()
        .controller
        .as_ref()
        .map_or("", |owner| &owner.uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_model::workloads::Pod;
    use serde_json::json;

    fn pod(name: &str, uid: &str, version: u64) -> Pod {
        Pod::read(&json!({"metadata": {
            "namespace": "a", "name": name, "uid": uid, "resourceVersion": version.to_string(),
        }}))
    }

    fn names(store: &Store<Pod>) -> Vec<&str> {
        store.all().map(|p| p.meta.key.name.as_str()).collect()
    }

    #[test]
    fn a_written_object_is_there_at_once_and_once() {
        let mut store = Store::default();
        store.replace(vec![], 5);
        store.wrote(pod("x", "1", 7));
        assert_eq!(names(&store), ["x"]);
        store.saw(pod("x", "1", 7));
        assert_eq!(names(&store), ["x"]);
    }

    #[test]
    fn an_answer_that_comes_after_the_end_does_not_bring_it_back() {
        let mut store = Store::default();
        store.saw(pod("x", "1", 7));
        store.saw_end(&pod("x", "1", 8));
        store.wrote(pod("x", "1", 7));
        assert_eq!(names(&store), [""; 0]);
    }

    #[test]
    fn a_relist_keeps_what_was_written_after_it() {
        let mut store = Store::default();
        store.saw(pod("old", "0", 3));
        store.wrote(pod("x", "1", 7));
        store.replace(vec![pod("y", "2", 2)], 5);
        assert_eq!(names(&store), ["x", "y"]);
    }

    #[test]
    fn objects_are_found_by_label_as_long_as_they_have_it() {
        let mut store: Store<Pod> = Store::by(|pod| {
            let labels = pod.meta.labels.iter();
            labels.map(|(k, v)| (k.as_str(), v.as_str())).collect()
        });
        let labelled = |value: &str, version| {
            let mut pod = pod("x", "1", version);
            pod.meta.labels.insert("app".to_owned(), value.to_owned());
            pod
        };
        store.saw(labelled("web", 7));
        assert_eq!(store.labelled("a", "app", "web").count(), 1);
        assert_eq!(
            store.count_labelled("b", "app", "web"),
            0,
            "another namespace"
        );
        store.saw(labelled("api", 8));
        assert_eq!(store.count_labelled("a", "app", "web"), 0);
        assert_eq!(store.count_labelled("a", "app", "api"), 1);
        store.saw_end(&labelled("api", 9));
        assert!(store.by_label.is_empty(), "nothing is left behind");
    }

    #[test]
    fn what_was_told_to_go_stays_going() {
        let mut store = Store::default();
        store.saw(pod("x", "1", 7));
        store.told_to_go(&ObjectKey::new("a", "x"), "1");
        store.saw(pod("x", "1", 8));
        assert!(store.all().all(|p| p.meta.deleting));
        store.saw_end(&pod("x", "1", 9));
        store.saw(pod("x", "2", 10));
        assert!(store.all().all(|p| !p.meta.deleting));
    }
}
