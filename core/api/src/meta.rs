//! `metadata` of untyped objects.

use crate::value::{at, list_at, map_mut, place, remove, set, str_at, strings_at};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// `metadata.name`, or "".
pub fn name(object: &Value) -> &str {
    str_at(object, "metadata.name")
}

/// `metadata.generateName`, or "".
pub fn generate_name(object: &Value) -> &str {
    str_at(object, "metadata.generateName")
}

/// `metadata.namespace`, or "".
pub fn namespace(object: &Value) -> &str {
    str_at(object, "metadata.namespace")
}

/// `metadata.uid`, or "".
pub fn uid(object: &Value) -> &str {
    str_at(object, "metadata.uid")
}

/// `metadata.resourceVersion`, or "".
pub fn resource_version(object: &Value) -> &str {
    str_at(object, "metadata.resourceVersion")
}

/// `metadata.generation`, or 0.
pub fn generation(object: &Value) -> i64 {
    at(object, "metadata.generation").as_i64().unwrap_or(0)
}

/// `metadata.creationTimestamp`, or "".
pub fn creation_timestamp(object: &Value) -> &str {
    str_at(object, "metadata.creationTimestamp")
}

/// `metadata.deletionTimestamp`, if set.
pub fn deletion_timestamp(object: &Value) -> Option<&str> {
    at(object, "metadata.deletionTimestamp").as_str()
}

/// `metadata.deletionGracePeriodSeconds`, if set.
pub fn deletion_grace_period(object: &Value) -> Option<i64> {
    at(object, "metadata.deletionGracePeriodSeconds").as_i64()
}

/// One label.
pub fn label<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    at(object, "metadata.labels").get(key)?.as_str()
}

/// All labels, ordered.
pub fn labels(object: &Value) -> BTreeMap<&str, &str> {
    texts(at(object, "metadata.labels"))
}

/// One annotation.
pub fn annotation<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    at(object, "metadata.annotations").get(key)?.as_str()
}

/// All annotations, ordered.
pub fn annotations(object: &Value) -> BTreeMap<&str, &str> {
    texts(at(object, "metadata.annotations"))
}

/// The text entries of a map value, ordered.
pub fn texts(map: &Value) -> BTreeMap<&str, &str> {
    map.as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
        .collect()
}

/// `metadata.finalizers`.
pub fn finalizers(object: &Value) -> Vec<&str> {
    strings_at(object, "metadata.finalizers")
}

/// `metadata.ownerReferences`.
pub fn owner_references(object: &Value) -> &[Value] {
    list_at(object, "metadata.ownerReferences")
}

/// The owner reference with `controller: true`.
pub fn controller_of(object: &Value) -> Option<&Value> {
    owner_references(object)
        .iter()
        .find(|owner| at(owner, "controller") == &Value::Bool(true))
}

/// Sets `metadata.name`.
pub fn set_name(object: &mut Value, name: &str) {
    set(object, "metadata.name", name);
}

/// Sets `metadata.namespace`; "" removes it.
pub fn set_namespace(object: &mut Value, namespace: &str) {
    match namespace {
        "" => drop(remove(object, "metadata.namespace")),
        _ => set(object, "metadata.namespace", namespace),
    }
}

/// Sets `metadata.uid`.
pub fn set_uid(object: &mut Value, uid: &str) {
    set(object, "metadata.uid", uid);
}

/// Sets `metadata.resourceVersion`; "" removes it.
pub fn set_resource_version(object: &mut Value, version: &str) {
    match version {
        "" => drop(remove(object, "metadata.resourceVersion")),
        _ => set(object, "metadata.resourceVersion", version),
    }
}

/// Sets `metadata.generation`.
pub fn set_generation(object: &mut Value, generation: i64) {
    set(object, "metadata.generation", generation);
}

/// Sets `metadata.creationTimestamp` (RFC 3339, seconds).
pub fn set_creation_timestamp(object: &mut Value, time: &str) {
    set(object, "metadata.creationTimestamp", time);
}

/// Sets one label.
pub fn set_label(object: &mut Value, key: &str, value: &str) {
    map_mut(place(object, "metadata.labels")).insert(key.to_owned(), value.into());
}

/// Sets one annotation.
pub fn set_annotation(object: &mut Value, key: &str, value: &str) {
    map_mut(place(object, "metadata.annotations")).insert(key.to_owned(), value.into());
}

/// Marks an object as being deleted.
pub fn set_deletion(object: &mut Value, time: &str, grace_period_seconds: i64) {
    set(object, "metadata.deletionTimestamp", time);
    set(
        object,
        "metadata.deletionGracePeriodSeconds",
        grace_period_seconds,
    );
}

/// Replaces `metadata.finalizers`; an empty list removes the field.
pub fn set_finalizers(object: &mut Value, finalizers: &[&str]) {
    match finalizers {
        [] => drop(remove(object, "metadata.finalizers")),
        _ => set(object, "metadata.finalizers", finalizers.to_vec()),
    }
}

/// A `metadata` map with a name and, where not empty, a namespace.
pub fn new(name: &str, namespace: &str) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("name".to_owned(), name.into());
    if !namespace.is_empty() {
        map.insert("namespace".to_owned(), namespace.into());
    }
    map
}
