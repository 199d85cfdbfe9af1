//! Dropping what the schema of a custom resource does not have.
//!
//! Fields that the schema does not name are dropped unless
//! `x-kubernetes-preserve-unknown-fields` is set at their place; nulls are
//! dropped where they are neither allowed nor replaced by a default.

use super::schema::{self, Place};
use serde_json::Value;

/// Drops unknown fields, and tells their paths.
pub(super) fn unknown(object: &mut Value, schema: &Value) -> Vec<String> {
    let mut found = Vec::new();
    walk(object, schema, "", &mut found);
    found
}

fn walk(value: &mut Value, schema: &Value, path: &str, found: &mut Vec<String>) {
    match value {
        Value::Object(map) => {
            let resource = path.is_empty() || schema::flag(schema, schema::EMBEDDED);
            let preserve = schema::flag(schema, schema::PRESERVE);
            let mut gone = Vec::new();
            for (key, value) in map.iter_mut() {
                if resource && schema::TYPE_AND_METADATA.contains(&key.as_str()) {
                    continue;
                }
                let path = schema::join(path, key);
                match schema::below(schema, key) {
                    Place::Known(schema) => walk(value, schema, &path, found),
                    Place::Anything => {}
                    Place::Nowhere if preserve => {}
                    Place::Nowhere => {
                        gone.push(key.clone());
                        found.push(path);
                    }
                }
            }
            gone.iter().for_each(|key| drop(map.remove(key)));
        }
        Value::Array(list) => {
            if let Some(items) = schema.get("items") {
                for (index, value) in list.iter_mut().enumerate() {
                    let path = format!("{path}[{index}]");
                    // An item is never the root, whatever its path looks like.
                    walk(value, items, &path, found);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Drops nulls that are not allowed and for which there is no default.
pub(super) fn nulls(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, value| {
                let Place::Known(schema) = schema::below(schema, key) else {
                    return true;
                };
                !value.is_null()
                    || schema::flag(schema, "nullable")
                    || schema.get("default").is_some_and(|value| !value.is_null())
            });
            for (key, value) in map.iter_mut() {
                if let Place::Known(schema) = schema::below(schema, key) {
                    nulls(value, schema);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema.get("items") {
                list.iter_mut().for_each(|value| nulls(value, items));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Fills defaults, also in the place of nulls that are not allowed.
pub(super) fn defaults(value: &mut Value, schema: &Value) {
    match value {
        Value::Object(map) => {
            for (key, property) in schema::properties(schema) {
                let Some(default) = property.get("default").filter(|value| !value.is_null()) else {
                    continue;
                };
                let filled = map
                    .get(key)
                    .is_some_and(|value| !replaceable(value, property));
                if !filled {
                    map.insert(key.clone(), default.clone());
                }
            }
            for (key, value) in map.iter_mut() {
                if let Place::Known(schema) = schema::below(schema, key) {
                    replace(value, schema);
                    defaults(value, schema);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema.get("items") {
                for value in list {
                    replace(value, items);
                    defaults(value, items);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn replaceable(value: &Value, schema: &Value) -> bool {
    value.is_null() && !schema::flag(schema, "nullable")
}

fn replace(value: &mut Value, schema: &Value) {
    if replaceable(value, schema)
        && let Some(default) = schema.get("default")
    {
        *value = default.clone();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> Value {
        json!({"type": "object", "properties": {
            "spec": {"type": "object", "properties": {
                "size": {"type": "integer", "default": 3},
                "mode": {"type": "string", "nullable": true},
                "tags": {"type": "object", "additionalProperties": {"type": "string"}},
                "any": {"type": "object", "additionalProperties": true},
                "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true,
                    "properties": {"strict": {"type": "object", "properties": {"a": {"type": "string"}}}}},
                "list": {"type": "array", "items": {"type": "object", "properties": {"port": {"type": "integer", "default": 80}}}},
                "inner": {"type": "object", "x-kubernetes-embedded-resource": true, "properties": {"spec": {"type": "object"}}},
            }},
        }})
    }

    #[test]
    fn unknown_fields_go_and_are_told() {
        let mut object = json!({"apiVersion": "a/v1", "kind": "A", "metadata": {"name": "x"}, "extra": 1,
            "spec": {"size": 1, "tags": {"a": "b"}, "any": {"x": {"y": 1}}, "bad": {"deep": 1},
                "free": {"anything": {"goes": 1}, "strict": {"a": "1", "b": 2}},
                "list": [{"port": 1, "name": "x"}],
                "inner": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "status": {}}}});
        let found = unknown(&mut object, &schema());
        assert_eq!(
            found,
            [
                "extra",
                "spec.bad",
                "spec.free.strict.b",
                "spec.inner.status",
                "spec.list[0].name"
            ]
        );
        assert_eq!(
            object["spec"]["free"],
            json!({"anything": {"goes": 1}, "strict": {"a": "1"}})
        );
        assert_eq!(object["spec"]["any"], json!({"x": {"y": 1}}));
        assert!(object["spec"].get("bad").is_none());
    }

    #[test]
    fn defaults_fill_what_is_absent_or_null() {
        let schema = schema();
        let mut object = json!({"spec": {"size": null, "mode": null, "tags": {"a": null}, "list": [{}, {"port": 1}]}});
        nulls(&mut object, &schema);
        defaults(&mut object, &schema);
        assert_eq!(
            object,
            json!({"spec": {"size": 3, "mode": null, "tags": {}, "list": [{"port": 80}, {"port": 1}]}})
        );
        let mut object = json!({});
        defaults(&mut object, &schema);
        assert_eq!(object, json!({}), "defaults do not make their parents");
    }
}
