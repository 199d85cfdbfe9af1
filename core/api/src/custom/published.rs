//! The schema of a definition as clients see it: OpenAPI definitions.
//!
//! They have the form of [`crate::schema::definitions`], to which they refer
//! for `metadata`.

use super::schema::EMBEDDED;
use crate::schema::REF_PREFIX;
use crate::value::map_mut;
use serde_json::{Map, Value, json};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const API_VERSION: &str = "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized schemas to the latest internal value, and may reject unrecognized values. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#resources";
const KIND: &str = "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint the client submits requests to. Cannot be updated. In CamelCase. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";
const METADATA: &str = "Standard object's metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata";
const LIST_METADATA: &str = "Standard list metadata. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#types-kinds";

/// The name of the definition of a kind: `com.example.stable.v1.CronTab`.
pub(super) fn name(group: &str, version: &str, kind: &str) -> String {
    let parts: Vec<&str> = group.rsplit('.').collect();
    format!("{}.{version}.{kind}", parts.join("."))
}

/// The definition of a kind.
pub(super) fn schema(schema: &Value, (group, version, kind): (&str, &str, &str)) -> Value {
    let mut result = match schema {
        Value::Object(_) => schema.clone(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            json!({"type": "object"})
        }
    };
    type_and_metadata(&mut result);
    embedded(&mut result);
    map_mut(&mut result).insert(
        "x-kubernetes-group-version-kind".to_owned(),
        json!([{"group": group, "version": version, "kind": kind}]),
    );
    result
}

/// The definition of a kind's list.
pub(crate) fn list(kind: &crate::Kind) -> Value {
    json!({
        "description": format!("{} is a list of {}", kind.list_kind, kind.kind),
        "type": "object",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string", "description": API_VERSION},
            "kind": {"type": "string", "description": KIND},
            "items": {
                "type": "array",
                "description": format!("List of {}. More info: https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md", kind.plural),
                "items": {"$ref": format!("{REF_PREFIX}{}", kind.definition)},
            },
            "metadata": {
                "$ref": format!("{REF_PREFIX}{META}.ListMeta"),
                "description": LIST_METADATA,
            },
        },
        "x-kubernetes-group-version-kind": [{"group": kind.group, "version": kind.version, "kind": kind.list_kind}],
    })
}

fn type_and_metadata(schema: &mut Value) {
    let map = map_mut(schema);
    let properties = map
        .entry("properties")
        .or_insert_with(|| Value::Object(Map::new()));
    let properties = map_mut(properties);
    for (name, text) in [("apiVersion", API_VERSION), ("kind", KIND)] {
        properties.insert(
            name.to_owned(),
            json!({"type": "string", "description": text}),
        );
    }
    properties.insert(
        "metadata".to_owned(),
        json!({"$ref": format!("{REF_PREFIX}{META}.ObjectMeta"), "description": METADATA}),
    );
}

/// Objects inside the object have type and metadata, too.
fn embedded(schema: &mut Value) {
    match schema {
        Value::Object(map) => {
            map.values_mut().for_each(embedded);
            if map.get(EMBEDDED) == Some(&Value::Bool(true)) {
                type_and_metadata(schema);
            }
        }
        Value::Array(list) => list.iter_mut().for_each(embedded),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A definition as OpenAPI v2 can say it: what v2 lacks goes, and what
/// kubectl's checks before sending would get wrong is left open.
pub(crate) fn v2(schema: &Value) -> Value {
    match schema {
        Value::Object(map) => {
            let mut result: Map<String, Value> = map
                .iter()
                .filter(|(key, _)| {
                    !matches!(
                        key.as_str(),
                        "oneOf" | "anyOf" | "allOf" | "not" | "nullable" | "additionalItems"
                    )
                })
                .map(|(key, value)| {
                    let value = match (key.as_str(), value) {
                        ("properties", Value::Object(fields)) => Value::Object(
                            fields
                                .iter()
                                .map(|(name, field)| (name.clone(), v2(field)))
                                .collect(),
                        ),
                        ("items" | "additionalProperties", Value::Object(_)) => v2(value),
                        _ => value.clone(),
                    };
                    (key.clone(), value)
                })
                .collect();
            let open = map.get("nullable") == Some(&Value::Bool(true))
                || map.get(super::schema::PRESERVE) == Some(&Value::Bool(true));
            if open {
                for key in ["items", "properties"] {
                    result.remove(key);
                }
            }
            if map.get("nullable") == Some(&Value::Bool(true)) {
                result.remove("type");
                result.remove("additionalProperties");
            }
            Value::Object(result)
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            schema.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_and_metadata_are_of_every_object() {
        assert_eq!(
            name("stable.example.com", "v1", "CronTab"),
            "com.example.stable.v1.CronTab"
        );
        let given = json!({"type": "object", "properties": {"spec": {"type": "object", "properties": {
            "template": {"type": "object", "x-kubernetes-embedded-resource": true}}}}});
        let schema = schema(&given, ("example.com", "v1", "A"));
        assert_eq!(schema["properties"]["kind"]["type"], "string");
        let template = &schema["properties"]["spec"]["properties"]["template"];
        assert_eq!(
            template["properties"]["metadata"]["$ref"],
            "#/definitions/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
        );
    }

    #[test]
    fn v2_leaves_open_what_it_cannot_say() {
        let given = json!({"type": "object", "properties": {
            "a": {"type": "string", "nullable": true},
            "b": {"type": "object", "anyOf": [{"required": ["x"]}]},
            "c": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {"d": {"type": "string"}}}}});
        assert_eq!(
            v2(&given)["properties"],
            json!({"a": {}, "b": {"type": "object"}, "c": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}})
        );
    }
}
