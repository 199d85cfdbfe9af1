//! Reading a structural schema as it stands in a definition.

use serde_json::{Map, Value};

/// Unknown fields stay.
pub(super) const PRESERVE: &str = "x-kubernetes-preserve-unknown-fields";
/// The value is an object with `apiVersion`, `kind` and `metadata` of its own.
pub(super) const EMBEDDED: &str = "x-kubernetes-embedded-resource";
/// The value is a number or a text.
pub(super) const INT_OR_STRING: &str = "x-kubernetes-int-or-string";

/// What every object has, whatever its schema says.
pub(super) const TYPE_AND_METADATA: &[&str] = &["apiVersion", "kind", "metadata"];

/// What a schema says about a field.
pub(super) enum Place<'a> {
    /// It has this schema.
    Known(&'a Value),
    /// It may be anything.
    Anything,
    /// The schema has no such field.
    Nowhere,
}

/// What a schema says about a field of an object.
pub(super) fn below<'a>(schema: &'a Value, key: &str) -> Place<'a> {
    if let Some(property) = schema.get("properties").and_then(|map| map.get(key)) {
        return Place::Known(property);
    }
    match schema.get("additionalProperties") {
        Some(Value::Bool(true)) => Place::Anything,
        Some(schema @ Value::Object(_)) => Place::Known(schema),
        Some(
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_),
        )
        | None => Place::Nowhere,
    }
}

/// The named fields of a schema.
pub(super) fn properties(schema: &Value) -> impl Iterator<Item = (&String, &Value)> {
    schema
        .get("properties")
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(Map::iter)
}

/// Whether a field of the schema is `true`.
pub(super) fn flag(schema: &Value, key: &str) -> bool {
    schema.get(key) == Some(&Value::Bool(true))
}

/// The path of a field in an object.
pub(super) fn join(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        _ => format!("{path}.{key}"),
    }
}
