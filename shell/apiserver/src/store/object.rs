//! One stored object, as readers and watchers share it.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;
use portolan_api::Kind;
use serde::Deserialize;
use serde_json::{Map, Value};

/// Index of a collection among those of the store.
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

/// What the store must know about a kind.
#[derive(Debug)]
pub(crate) struct Collection {
    /// `plural` or `plural.group`; part of the key in the file, so never change one.
    pub(crate) name: String,
}

/// Texts by name, sorted.
type Pairs = Box<[(Box<str>, Box<str>)]>;

/// One version of an object. The JSON is what lists and watches send. What
/// selectors look at is read from it when the first of them looks, since most
/// objects are never selected by anything but their namespace.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) revision: u64,
    pub(crate) json: Bytes,
    /// `metadata.deletionTimestamp` is set.
    pub(crate) deleting: bool,
    labels: OnceLock<Pairs>,
    /// Selectable fields, of kinds of the table.
    fields: OnceLock<Pairs>,
}

impl Stored {
    pub(crate) fn new(revision: u64, json: Bytes, deleting: bool) -> Self {
        Self {
            revision,
            json,
            deleting,
            labels: OnceLock::new(),
            fields: OnceLock::new(),
        }
    }

    /// A label's value.
    pub(crate) fn label(&self, name: &str) -> Option<&str> {
        let labels = self.labels.get_or_init(|| read_labels(&self.json));
        find(labels, name)
    }

    /// The value of a selectable field of a kind of the table, whose fields
    /// never change.
    pub(crate) fn field(&self, kind: &Kind, name: &str) -> Option<&str> {
        let fields = self.fields.get_or_init(|| {
            let fields = kind.selectable(&self.value());
            let pairs = fields.into_iter();
            pairs
                .map(|(field, text)| (field.into(), text.into()))
                .collect()
        });
        find(fields, name)
    }

    /// The object as a value of its own. Only objects that this crate encoded
    /// are stored, so the fallback is never met.
    pub(crate) fn value(&self) -> Value {
        serde_json::from_slice(&self.json).unwrap_or(Value::Null)
    }
}

fn find<'a>(pairs: &'a Pairs, name: &str) -> Option<&'a str> {
    let index = pairs.binary_search_by(|(key, _)| (**key).cmp(name)).ok()?;
    pairs.get(index).map(|(_, value)| &**value)
}

#[derive(Deserialize)]
struct Labelled {
    metadata: Labels,
}

#[derive(Deserialize)]
struct Labels {
    #[serde(default)]
    labels: BTreeMap<Box<str>, Value>,
}

fn read_labels(json: &[u8]) -> Pairs {
    let Ok(object) = serde_json::from_slice::<Labelled>(json) else {
        return Box::default();
    };
    let labels = object.metadata.labels.into_iter();
    labels
        .filter_map(|(key, value)| Some((key, value.as_str()?.into())))
        .collect()
}

/// An object on its way to the store: encoded by whoever sends it, so that the
/// writer only has to put the revision in its place.
#[derive(Debug)]
pub(super) struct Draft {
    /// Up to the value of `metadata.resourceVersion`.
    head: Vec<u8>,
    tail: Vec<u8>,
    deleting: bool,
}

const METADATA: &str = "metadata";
const RESOURCE_VERSION: &str = "resourceVersion";

impl Draft {
    pub(super) fn new(mut value: Value) -> Self {
        let deleting = value["metadata"]["deletionTimestamp"].is_string();
        // The place is found by encoding what comes before it on its own.
        set_revision(&mut value, 0);
        let mut json = Vec::with_capacity(1024);
        let split = match value.as_object() {
            Some(object) => encode(&mut json, object),
            None => 0,
        };
        let tail = json.split_off(split);
        Self {
            head: json,
            tail,
            deleting,
        }
    }

    /// The object as this revision.
    pub(super) fn finish(self, revision: u64) -> Stored {
        let digits = revision.to_string();
        let mut json = Vec::with_capacity(self.head.len() + digits.len() + self.tail.len());
        json.extend_from_slice(&self.head);
        json.extend_from_slice(digits.as_bytes());
        json.extend_from_slice(&self.tail);
        Stored::new(revision, Bytes::from(json), self.deleting)
    }
}

/// Encodes an object without its resource version; returns where that belongs.
fn encode(json: &mut Vec<u8>, object: &Map<String, Value>) -> usize {
    let mut split = 0;
    members(json, object, |json, key, value| match value {
        Value::Object(metadata) if key == METADATA => {
            members(json, metadata, |json, key, value| {
                if key == RESOURCE_VERSION {
                    json.push(b'"');
                    split = json.len();
                    json.push(b'"');
                } else {
                    text(json, value);
                }
            });
        }
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => text(json, value),
    });
    split
}

fn members(
    json: &mut Vec<u8>,
    object: &Map<String, Value>,
    mut each: impl FnMut(&mut Vec<u8>, &str, &Value),
) {
    json.push(b'{');
    for (index, (key, value)) in object.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        text(json, key);
        json.push(b':');
        each(json, key, value);
    }
    json.push(b'}');
}

fn text(json: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    // JSON values can always be written to memory.
    if let Err(error) = serde_json::to_writer(json, value) {
        tracing::error!(%error, "cannot encode an object");
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
            .entry(METADATA)
            .or_insert_with(|| Value::Object(Map::new()))
            .as_object_mut()
    {
        metadata.insert(RESOURCE_VERSION.to_owned(), revision.to_string().into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_draft_becomes_the_object_with_its_revision() {
        let objects = [
            json!({"kind": "A", "metadata": {"name": "a\"\n", "resourceVersion": "7", "uid": "u"}, "zspec": [1, null, {"metadata": {"resourceVersion": "8"}}]}),
            json!({"a": {"metadata": {}}, "metadata": {"name": "x"}}),
            json!({"spec": 1}),
        ];
        for object in objects {
            let stored = Draft::new(object.clone()).finish(1234);
            let mut expected = object;
            set_revision(&mut expected, 1234);
            assert_eq!(
                std::str::from_utf8(&stored.json).unwrap(),
                expected.to_string()
            );
            assert_eq!(stored.revision, 1234);
            assert!(!stored.deleting);
        }
        let ending = json!({"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}});
        assert!(Draft::new(ending).finish(1).deleting);
    }

    #[test]
    fn labels_and_fields_are_read_when_asked_for() {
        let object = json!({"metadata": {"name": "p", "labels": {"b": "2", "a": "1", "odd": 3}}, "spec": {"nodeName": "n"}});
        let stored = Draft::new(object).finish(1);
        assert_eq!(stored.label("a"), Some("1"));
        assert_eq!(stored.label("b"), Some("2"));
        assert_eq!((stored.label("c"), stored.label("odd")), (None, None));
        let pods = &portolan_api::kinds::pod::KIND;
        assert_eq!(stored.field(pods, "spec.nodeName"), Some("n"));
        assert_eq!(stored.field(pods, "spec.nothing"), None);
        assert_eq!(
            Draft::new(json!({"metadata": {"labels": null}}))
                .finish(1)
                .label("a"),
            None
        );
    }
}
