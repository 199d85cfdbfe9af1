//! Pods, indexed by where they are and by their labels.

use std::net::IpAddr;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::fact::Pod;
use crate::key::PodKey;
use crate::text::Text;

/// The pods that have an address.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pods {
    all: OrdMap<PodKey, Arc<Pod>>,
    /// Where pods are, each with how many of its namespace are there.
    places: OrdMap<(Text, IpAddr), u32>,
    /// By label, and by name then.
    labelled: OrdSet<((Text, Text), PodKey)>,
}

impl PartialEq for Pods {
    /// The same pods; the rest follows from them.
    fn eq(&self, other: &Self) -> bool {
        self.all == other.all
    }
}

impl Pods {
    pub(crate) fn get(&self, key: &PodKey) -> Option<&Arc<Pod>> {
        self.all.get(key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.all.values()
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &PodKey> {
        self.all.keys()
    }

    /// Those of a namespace, by name.
    pub(crate) fn of(&self, namespace: &Text) -> impl Iterator<Item = &Arc<Pod>> {
        let inside = namespace.clone();
        self.all
            .range(PodKey::first_of(namespace)..)
            .take_while(move |(key, _)| key.namespace == inside)
            .map(|(_, pod)| pod)
    }

    /// Those that have a label, of one namespace if one is given.
    pub(crate) fn labelled(
        &self,
        label: &(Text, Text),
        namespace: Option<&Text>,
    ) -> impl Iterator<Item = &Arc<Pod>> {
        let inside = namespace.cloned();
        let none = Text::from("");
        let from = PodKey::first_of(namespace.unwrap_or(&none));
        let wanted = label.clone();
        self.labelled
            .range((label.clone(), from)..)
            .take_while(move |(label, key)| {
                *label == wanted
                    && inside
                        .as_ref()
                        .is_none_or(|inside| key.namespace == *inside)
            })
            .filter_map(|(_, key)| self.all.get(key))
    }

    pub(crate) fn has_at(&self, place: &(Text, IpAddr)) -> bool {
        self.places.contains_key(place)
    }

    pub(crate) fn places(&self) -> impl Iterator<Item = &(Text, IpAddr)> {
        self.places.keys()
    }

    /// Takes a pod in; returns the one of this name before it.
    pub(crate) fn insert(&mut self, pod: Arc<Pod>) -> Option<Arc<Pod>> {
        let before = self.remove(&pod.key);
        if let Some(place) = place(&pod) {
            let count = self.places.get(&place).copied().unwrap_or(0);
            self.places.insert(place, count + 1);
        }
        for label in pod.labels.iter() {
            self.labelled.insert((label.clone(), pod.key.clone()));
        }
        self.all.insert(pod.key.clone(), pod);
        before
    }

    pub(crate) fn remove(&mut self, key: &PodKey) -> Option<Arc<Pod>> {
        let pod = self.all.remove(key)?;
        if let Some(place) = place(&pod) {
            match self.places.get(&place).copied() {
                Some(count) if count > 1 => drop(self.places.insert(place, count - 1)),
                Some(_) | None => drop(self.places.remove(&place)),
            }
        }
        for label in pod.labels.iter() {
            self.labelled.remove(&(label.clone(), pod.key.clone()));
        }
        Some(pod)
    }
}

/// Where a pod is for its name (D15).
pub(crate) fn place(pod: &Pod) -> Option<(Text, IpAddr)> {
    let address = pod.addresses.first()?;
    Some((pod.key.namespace.clone(), *address))
}
