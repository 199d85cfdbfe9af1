//! Unknown, duplicate and mistyped fields of what a client sent.
//!
//! `fieldValidation=Strict` refuses unknown and duplicate fields, `Warn` puts
//! them into warnings, `Ignore` lets them pass. Mistyped fields are always
//! refused, in the words of Go's JSON decoder, because clients show them.

mod duplicate;

pub use duplicate::duplicate;

use crate::kinds::Kind;
use crate::schema::{self, Shape};
use crate::value::{self, str_at};
use serde_json::{Map, Value};

/// `unknown field "spec.foo"` for each field that the schema does not have.
pub fn unknown(kind: &Kind, object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(definition) = &kind.custom {
        let dropped = definition.prune(&mut object.clone());
        found.extend(dropped.iter().map(|path| format!("unknown field {path:?}")));
        if let Some(metadata) =
            schema::of_kind(kind).and_then(|schema| schema::property(schema, "metadata"))
        {
            walk_unknown(
                value::at(object, "metadata"),
                metadata,
                "metadata",
                &mut found,
            );
        }
        return found;
    }
    if let Some(schema) = schema::of_kind(kind) {
        walk_unknown(object, schema, "", &mut found);
    }
    found
}

/// The same for the body of a subresource, whose type is this definition.
pub fn unknown_of(definition: &str, object: &Value) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(schema) = schema::definitions().get(definition) {
        walk_unknown(object, schema, "", &mut found);
    }
    found
}

/// The first mistyped field of the body of a subresource.
pub fn mistyped_of(definition: &str, object: &Value) -> Option<String> {
    let schema = schema::definitions().get(definition)?;
    let name = definition.rsplit('.').next().unwrap_or_default();
    let fault = walk_types(object, schema, "", name)?;
    Some(format!("json: cannot unmarshal {fault}"))
}

fn walk_unknown(value: &Value, schema: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let definition = schema::resolve(schema);
            let known = definition.get("properties").is_some()
                || definition.get("additionalProperties").is_some();
            for (key, value) in map.iter().filter(|_| known) {
                let path = join(path, key);
                match schema::property(schema, key) {
                    Some(property) => walk_unknown(value, property, &path, found),
                    None if definition.get("additionalProperties").is_some() => {}
                    None => found.push(format!("unknown field {path:?}")),
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema::items(schema) {
                for (index, value) in list.iter().enumerate() {
                    walk_unknown(value, items, &format!("{path}[{index}]"), found);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn join(path: &str, key: &str) -> String {
    match path {
        "" => key.to_owned(),
        _ => format!("{path}.{key}"),
    }
}

/// The first field of a wrong type, in the words of Go's JSON decoder:
/// `json: cannot unmarshal string into Go struct field …`.
pub fn mistyped(kind: &Kind, object: &Value) -> Option<String> {
    let schema = schema::of_kind(kind)?;
    if kind.custom.is_some() {
        // The rest of a custom resource is judged by its schema, not by types.
        let metadata = schema::property(schema, "metadata")?;
        let fault = check(
            value::at(object, "metadata"),
            metadata,
            "metadata",
            kind.kind,
        )?;
        return Some(format!("json: cannot unmarshal {fault}"));
    }
    let fault = walk_types(object, schema, "", kind.kind)?;
    Some(format!("json: cannot unmarshal {fault}"))
}

/// The first fault below a value whose own shape is right.
fn walk_types(value: &Value, schema: &Value, path: &str, owner: &str) -> Option<String> {
    match value {
        Value::Object(map) => {
            let owner = schema::ref_name(schema)
                .and_then(|name| name.rsplit('.').next())
                .unwrap_or(owner);
            map.iter().find_map(|(key, value)| {
                let property = schema::property(schema, key)?;
                check(value, property, &join(path, key), owner)
            })
        }
        Value::Array(list) => {
            let items = schema::items(schema)?;
            list.iter()
                .find_map(|value| check(value, items, path, owner))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    }
}

fn check(value: &Value, schema: &Value, path: &str, owner: &str) -> Option<String> {
    let shape = schema::shape(schema);
    let fits = match (value, shape) {
        (Value::Null, _) | (_, Shape::Any) => true,
        (Value::Object(_), Shape::Object) | (Value::Array(_), Shape::Array) => true,
        (Value::String(_), Shape::Text | Shape::IntOrText) => true,
        (Value::Bool(_), Shape::Bool) => true,
        (Value::Number(number), Shape::Integer) => {
            match str_at(schema::resolve(schema), "format") {
                "int32" => number
                    .as_i64()
                    .is_some_and(|number| i32::try_from(number).is_ok()),
                _ => number.is_i64(),
            }
        }
        (Value::Number(_), Shape::Number | Shape::IntOrText) => true,
        (
            Value::Bool(_)
            | Value::Number(_)
            | Value::String(_)
            | Value::Array(_)
            | Value::Object(_),
            Shape::Object
            | Shape::Array
            | Shape::Text
            | Shape::Integer
            | Shape::Number
            | Shape::Bool
            | Shape::IntOrText,
        ) => false,
    };
    match fits {
        true => walk_types(value, schema, path, owner),
        false => Some(format!(
            "{} into Go struct field {owner}.{path} of type {}",
            go_value(value, shape),
            go_type(schema, shape)
        )),
    }
}

fn go_value(value: &Value, shape: Shape) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(_) => "bool".to_owned(),
        Value::Number(number) if shape == Shape::Integer => format!("number {number}"),
        Value::Number(_) => "number".to_owned(),
        Value::String(_) => "string".to_owned(),
        Value::Array(_) => "array".to_owned(),
        Value::Object(_) => "object".to_owned(),
    }
}

fn go_type(schema: &Value, shape: Shape) -> String {
    match shape {
        Shape::Text => "string".to_owned(),
        Shape::Bool => "bool".to_owned(),
        Shape::Number => "float64".to_owned(),
        Shape::IntOrText => "intstr.IntOrString".to_owned(),
        Shape::Any => "interface {}".to_owned(),
        Shape::Integer => match str_at(schema::resolve(schema), "format") {
            "int32" => "int32".to_owned(),
            _ => "int64".to_owned(),
        },
        Shape::Array => match schema::items(schema) {
            Some(items) => format!("[]{}", go_type(items, schema::shape(items))),
            None => "[]interface {}".to_owned(),
        },
        Shape::Object => match schema::ref_name(schema) {
            Some(name) => {
                let mut parts = name.rsplit('.');
                let (kind, version) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
                format!("{version}.{kind}")
            }
            None => match schema.get("additionalProperties") {
                Some(values) if values.is_object() => {
                    format!("map[string]{}", go_type(values, schema::shape(values)))
                }
                Some(_) | None => "map[string]interface {}".to_owned(),
            },
        },
    }
}

/// Drops what a typed decoder of Kubernetes would not keep: nulls, fields that
/// the kind does not have, and maps without entries, which it leaves out when
/// it writes. (In a map of texts a null is an empty text.)
pub fn keep_typed(kind: &Kind, object: &mut Value) {
    if kind.custom.is_some() {
        // Nulls have a meaning there; defaulting knows which. Its schema prunes.
        let metadata =
            schema::of_kind(kind).and_then(|schema| schema::property(schema, "metadata"));
        if let (Some(schema), Some(metadata)) = (metadata, object.get_mut("metadata")) {
            walk_typed(metadata, schema);
        }
        return;
    }
    if let Some(schema) = schema::of_kind(kind) {
        walk_typed(object, schema);
    }
}

fn walk_typed(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(map) => {
            let definition = schema::resolve(schema);
            let properties = definition.get("properties");
            let named = |key: &str| properties.is_some_and(|all| all.get(key).is_some());
            let closed = properties.is_some() && definition.get("additionalProperties").is_none();
            map.retain(|key, value| match named(key) {
                true => !value.is_null() && !is_empty_map(value, schema::property(schema, key)),
                false => !closed,
            });
            fill_texts(map, schema);
            for (key, value) in map.iter_mut() {
                if let Some(property) = schema::property(schema, key) {
                    walk_typed(value, property);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema::items(schema) {
                list.iter_mut().for_each(|value| walk_typed(value, items));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// A map, not an object of fields, without entries.
fn is_empty_map(value: &Value, schema: Option<&Value>) -> bool {
    let entries = schema.and_then(|schema| schema::resolve(schema).get("additionalProperties"));
    entries.is_some() && value.as_object().is_some_and(Map::is_empty)
}

fn fill_texts(map: &mut Map<String, Value>, schema: &Value) {
    for (key, value) in map.iter_mut().filter(|(_, value)| value.is_null()) {
        let text = schema::property(schema, key)
            .is_some_and(|schema| schema::shape(schema) == Shape::Text);
        if text {
            *value = Value::String(String::new());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::{config_map, deployment, pod, service};
    use serde_json::json;

    #[test]
    fn unknown_fields_have_paths() {
        let object = json!({"apiVersion": "v1", "kind": "Service", "foo": 1, "metadata": {"labels": {"any": "x"}, "x": 1},
            "spec": {"ports": [{"port": 80, "portt": 1}], "selector": {"a": "b"}}});
        assert_eq!(
            unknown(&service::KIND, &object),
            [
                "unknown field \"foo\"",
                "unknown field \"metadata.x\"",
                "unknown field \"spec.ports[0].portt\""
            ]
        );
        assert!(unknown(&config_map::KIND, &json!({"data": {"any": "x"}})).is_empty());
        let fields_v1 = json!({"metadata": {"managedFields": [{"fieldsV1": {"f:spec": {}}}]}});
        assert!(unknown(&pod::KIND, &fields_v1).is_empty());
    }

    #[test]
    fn what_no_typed_decoder_keeps() {
        let mut object = json!({"foo": 1, "metadata": {"labels": {}, "annotations": {"a": null}, "x": 1,
                "managedFields": [{"fieldsV1": {"f:spec": {"f:x": {}}}}]},
            "spec": {"ports": [{"port": 80, "portt": 1}], "selector": {}, "type": null},
            "status": {"loadBalancer": {}}});
        keep_typed(&service::KIND, &mut object);
        assert_eq!(
            object,
            json!({"metadata": {"annotations": {"a": ""}, "managedFields": [{"fieldsV1": {"f:spec": {"f:x": {}}}}]},
                "spec": {"ports": [{"port": 80}]}, "status": {"loadBalancer": {}}})
        );
    }

    #[test]
    fn wrong_types_are_told_as_go_does() {
        let cases = [
            (
                json!({"spec": {"replicas": "3"}}),
                "string into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                json!({"spec": {"replicas": 1.5}}),
                "number 1.5 into Go struct field DeploymentSpec.spec.replicas of type int32",
            ),
            (
                json!({"spec": {"paused": "yes"}}),
                "string into Go struct field DeploymentSpec.spec.paused of type bool",
            ),
            (
                json!({"spec": {"template": {"spec": {"containers": {"name": "a"}}}}}),
                "object into Go struct field PodSpec.spec.template.spec.containers of type []v1.Container",
            ),
            (
                json!({"metadata": {"labels": {"a": 1}}}),
                "number into Go struct field ObjectMeta.metadata.labels.a of type string",
            ),
            (
                json!({"spec": "x"}),
                "string into Go struct field Deployment.spec of type v1.DeploymentSpec",
            ),
        ];
        for (object, text) in cases {
            let got = mistyped(&deployment::KIND, &object).unwrap();
            let want = format!("json: cannot unmarshal {text}");
            assert_eq!(got, want);
        }
        let fine = json!({"spec": {"strategy": {"rollingUpdate": {"maxSurge": 1, "maxUnavailable": "25%"}}, "replicas": null,
            "template": {"spec": {"containers": [{"resources": {"limits": {"cpu": 1, "memory": "1Gi"}}}]}}}});
        assert_eq!(mistyped(&deployment::KIND, &fine), None);
    }

    #[test]
    fn nulls_are_absence() {
        let mut object = json!({"metadata": {"creationTimestamp": null, "labels": {"a": null}}, "spec": {"ports": null, "selector": null}, "status": {}});
        keep_typed(&service::KIND, &mut object);
        assert_eq!(
            object,
            json!({"metadata": {"labels": {"a": ""}}, "spec": {}, "status": {}})
        );
    }
}
