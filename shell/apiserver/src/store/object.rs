//! One stored object, as readers and watchers share it.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde_json::Value;

/// Index of a kind in the list that the store was opened with.
pub(crate) type KindIndex = usize;

/// Namespace (empty for cluster-scoped kinds) and name: the order of lists.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectName {
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// Where an object is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) kind: KindIndex,
    pub(crate) name: ObjectName,
}

impl Key {
    pub(crate) fn new(kind: KindIndex, namespace: &str, name: &str) -> Self {
        Self {
            kind,
            name: ObjectName {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            },
        }
    }
}

/// The selectable fields of an object, by name.
pub(crate) type Fields = Box<dyn Fn(&Value) -> BTreeMap<String, String> + Send + Sync>;

/// What the store must know about a kind: a name for the file, and the fields
/// that field selectors may use.
pub(crate) struct Collection {
    /// `plural` or `plural.group`; part of the key in the file, so never change one.
    pub(crate) name: String,
    /// Selectable fields of an object beyond metadata.name and metadata.namespace.
    pub(crate) fields: Fields,
}

impl fmt::Debug for Collection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Collection")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// One version of an object. The JSON is what lists and watches send; the
/// rest is what selecting needs, so that neither parses.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) revision: u64,
    pub(crate) json: Bytes,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) fields: BTreeMap<String, String>,
    /// `metadata.deletionTimestamp` is set.
    pub(crate) deleting: bool,
}

impl Stored {
    /// The object as a value of its own. Only objects that this crate encoded
    /// are stored, so the fallback is never met.
    pub(crate) fn value(&self) -> Value {
        serde_json::from_slice(&self.json).unwrap_or(Value::Null)
    }

    /// Encode `value` as revision `revision`.
    pub(crate) fn encode(collection: &Collection, mut value: Value, revision: u64) -> Self {
        set_revision(&mut value, revision);
        let json = Bytes::from(value.to_string());
        Self::index(collection, &value, json, revision)
    }

    /// Read an object back from the file.
    pub(crate) fn decode(collection: &Collection, json: &[u8]) -> Result<Self, serde_json::Error> {
        let value: Value = serde_json::from_slice(json)?;
        let revision = revision_of(&value).unwrap_or(0);
        let json = Bytes::copy_from_slice(json);
        Ok(Self::index(collection, &value, json, revision))
    }

    fn index(collection: &Collection, value: &Value, json: Bytes, revision: u64) -> Self {
        let metadata = &value["metadata"];
        let labels = metadata["labels"]
            .as_object()
            .map(|labels| {
                labels
                    .iter()
                    .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
                    .collect()
            })
            .unwrap_or_default();
        Self {
            revision,
            json,
            labels,
            fields: (collection.fields)(value),
            deleting: metadata["deletionTimestamp"].is_string(),
        }
    }
}

/// `metadata.resourceVersion` as a number.
pub(crate) fn revision_of(value: &Value) -> Option<u64> {
    value["metadata"]["resourceVersion"].as_str()?.parse().ok()
}

/// Write `metadata.resourceVersion`.
pub(crate) fn set_revision(value: &mut Value, revision: u64) {
    if let Some(object) = value.as_object_mut()
        && let Some(metadata) = object
            .entry("metadata")
            .or_insert_with(|| Value::Object(serde_json::Map::new()))
            .as_object_mut()
    {
        metadata.insert("resourceVersion".to_owned(), revision.to_string().into());
    }
}
