//! What every object has.

use std::collections::BTreeMap;
use std::fmt;

use jiff::Timestamp;
use portolan_api::meta as api;
use portolan_api::value::{bool_at, str_at};
use serde_json::Value;

/// Namespace and name. Cluster-scoped objects have an empty namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectKey {
    /// The key of an object.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
        }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            f.write_str(&self.name)
        } else {
            write!(f, "{}/{}", self.namespace, self.name)
        }
    }
}

/// The object that manages another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Such as `ReplicaSet`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// The part of `metadata` that controllers decide by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Meta {
    /// Namespace and name.
    pub key: ObjectKey,
    /// `uid`
    pub uid: String,
    /// `resourceVersion` as a number; versions of one kind are comparable
    /// (KEP-5504). 0 where it is none.
    pub version: u64,
    /// `generation`
    pub generation: i64,
    /// `labels`
    pub labels: BTreeMap<String, String>,
    /// `annotations`, without the last-applied configuration.
    pub annotations: BTreeMap<String, String>,
    /// The owner reference with `controller: true`.
    pub controller: Option<Owner>,
    /// `creationTimestamp`
    pub created: Option<Timestamp>,
    /// Whether it is being deleted.
    pub deleting: bool,
}

/// `kubectl apply`'s own bookkeeping: as large as the object, and nobody's
/// business here.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

impl Meta {
    /// Reads `metadata`.
    pub fn of(object: &Value) -> Self {
        Self {
            key: ObjectKey::new(api::namespace(object), api::name(object)),
            uid: api::uid(object).to_owned(),
            version: version(api::resource_version(object)),
            generation: api::generation(object),
            labels: owned(api::labels(object)),
            annotations: owned(
                api::annotations(object)
                    .into_iter()
                    .filter(|(key, _)| *key != LAST_APPLIED)
                    .collect(),
            ),
            controller: api::owner_references(object)
                .iter()
                .find(|owner| bool_at(owner, "controller"))
                .map(|owner| Owner {
                    kind: str_at(owner, "kind").to_owned(),
                    name: str_at(owner, "name").to_owned(),
                    uid: str_at(owner, "uid").to_owned(),
                }),
            created: time(api::creation_timestamp(object)),
            deleting: api::deletion_timestamp(object).is_some(),
        }
    }

    /// Whether the object with this uid controls this one.
    pub fn is_controlled_by(&self, uid: &str) -> bool {
        self.controller
            .as_ref()
            .is_some_and(|owner| owner.uid == uid)
    }
}

/// A resourceVersion as a number.
pub(crate) fn version(text: &str) -> u64 {
    text.parse().unwrap_or(0)
}

/// An RFC 3339 time; none where it is none.
pub(crate) fn time(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

pub(crate) fn owned(texts: BTreeMap<&str, &str>) -> BTreeMap<String, String> {
    texts
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// A fact of one object, read from its JSON.
pub trait Object: Clone {
    /// Reads the object.
    fn read(object: &Value) -> Self;
    /// What every object has.
    fn meta(&self) -> &Meta;
    /// The same, to change.
    fn meta_mut(&mut self) -> &mut Meta;
}

/// Implements [`Object`] for a fact with a `meta` field.
macro_rules! object {
    ($fact:ty, $read:path) => {
        impl crate::workloads::Object for $fact {
            fn read(object: &serde_json::Value) -> Self {
                $read(object)
            }
            fn meta(&self) -> &crate::workloads::Meta {
                &self.meta
            }
            fn meta_mut(&mut self) -> &mut crate::workloads::Meta {
                &mut self.meta
            }
        }
    };
}
pub(crate) use object;
