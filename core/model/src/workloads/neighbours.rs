//! What a pod says about other pods near it.

use std::collections::BTreeMap;

use portolan_api::value::{at, int_at, list_at, str_at, strings_at};
use serde_json::Value;

use super::{Meta, Selector};

/// A required (anti-)affinity: pods like these, in the same topology domain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodTerm {
    selector: Selector,
    /// A selector without terms means all pods, none at all means no pod.
    selects_all: bool,
    /// Which namespaces; empty: the pod's own.
    namespaces: Vec<String>,
    /// All namespaces.
    everywhere: bool,
    /// The node label whose values are the domains.
    pub topology: String,
}

impl PodTerm {
    fn of(value: &Value) -> Self {
        let selector = at(value, "labelSelector");
        Self {
            selector: Selector::of(selector),
            selects_all: selector.is_object() && Selector::of(selector).is_empty(),
            namespaces: strings_at(value, "namespaces")
                .into_iter()
                .map(str::to_owned)
                .collect(),
            everywhere: at(value, "namespaceSelector")
                .as_object()
                .is_some_and(serde_json::Map::is_empty),
            topology: str_at(value, "topologyKey").to_owned(),
        }
    }

    /// Whether a term of `owner` means `other`.
    pub fn means(&self, owner: &Meta, other: &Meta) -> bool {
        let namespace = &other.key.namespace;
        let here = self.everywhere
            || self.namespaces.contains(namespace)
            || (self.namespaces.is_empty() && *namespace == owner.key.namespace);
        here && (self.selects_all || self.selector.matches(&other.labels))
    }
}

/// A constraint on how unevenly pods may be spread.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// How many pods more than in the emptiest domain there may be.
    pub max_skew: i64,
    /// The node label whose values are the domains.
    pub topology: String,
    /// With fewer domains than these, the emptiest counts as having none.
    pub min_domains: i64,
    selector: Selector,
    selects_all: bool,
}

impl Spread {
    fn of(value: &Value) -> Self {
        let selector = at(value, "labelSelector");
        Self {
            max_skew: int_at(value, "maxSkew").unwrap_or(1),
            topology: str_at(value, "topologyKey").to_owned(),
            min_domains: int_at(value, "minDomains").unwrap_or(1),
            selector: Selector::of(selector),
            selects_all: selector.is_object() && Selector::of(selector).is_empty(),
        }
    }

    /// Whether pods with these labels count.
    pub fn counts(&self, labels: &BTreeMap<String, String>) -> bool {
        self.selects_all || self.selector.matches(labels)
    }
}

/// What a pod requires of other pods. Preferences are left to chance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Neighbours {
    /// Pods that must be in its domain.
    pub together: Vec<PodTerm>,
    /// Pods that must not.
    pub apart: Vec<PodTerm>,
    /// How it must be spread.
    pub spread: Vec<Spread>,
}

impl Neighbours {
    /// Reads a pod's spec; none where it requires nothing.
    pub(super) fn of(spec: &Value) -> Option<Box<Self>> {
        let terms = |path: &str| list_at(spec, path).iter().map(PodTerm::of).collect();
        let found = Self {
            together: terms("affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution"),
            apart: terms("affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution"),
            spread: list_at(spec, "topologySpreadConstraints")
                .iter()
                .filter(|constraint| str_at(constraint, "whenUnsatisfiable") == "DoNotSchedule")
                .map(Spread::of)
                .collect(),
        };
        (found != Self::default()).then(|| Box::new(found))
    }
}
