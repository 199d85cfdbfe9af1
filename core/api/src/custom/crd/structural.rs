//! The rules of structural schemas: the shape of an object follows from the
//! schema without looking at its alternatives.

use crate::cause::Cause;
use crate::custom::schema::{EMBEDDED, INT_OR_STRING, PRESERVE, flag, properties};
use crate::value::{list_at, str_at};
use serde_json::{Value, json};

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

/// What is not structural about a schema.
pub(super) fn validate(schema: &Value, path: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    outer(schema, Level::Root, path, &mut causes);
    complete(schema, schema, path, &mut causes);
    causes.sort_by_key(Cause::to_string);
    causes.dedup();
    causes
}

fn child(path: &str, field: &str) -> String {
    format!("{path}.{field}")
}

fn keyed(path: &str, key: &str) -> String {
    format!("{path}.properties[{key}]")
}

/// A schema outside of `allOf`, `anyOf`, `oneOf` and `not`.
fn outer(schema: &Value, level: Level, path: &str, causes: &mut Vec<Cause>) {
    let kind = str_at(schema, "type");
    if kind == "array" && !schema.get("items").is_some_and(Value::is_object) {
        causes.push(Cause::required(child(path, "items"), "must be specified"));
    }
    if let Some(items) = schema.get("items").filter(|items| items.is_object()) {
        outer(items, Level::Item, &child(path, "items"), causes);
    }
    for (name, property) in properties(schema) {
        outer(property, Level::Field, &keyed(path, name), causes);
    }
    if let Some(additional) = schema.get("additionalProperties") {
        let path = child(path, "additionalProperties");
        if level == Level::Root {
            causes.push(Cause::forbidden(&path, "must not be used at the root"));
        }
        if flag(schema, EMBEDDED) {
            let detail = "must not be used if x-kubernetes-embedded-resource is set";
            causes.push(Cause::forbidden(&path, detail));
        }
        if additional.is_object() {
            outer(additional, Level::Field, &path, causes);
        }
    }
    extensions(schema, path, causes);
    types(schema, level, path, causes);
    if level == Level::Root || flag(schema, EMBEDDED) {
        metadata(schema, level, path, causes);
    }
    junctors(schema, int_or_string(schema), path, causes);
}

fn extensions(schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    if schema.get(PRESERVE) == Some(&Value::Bool(false)) {
        causes.push(Cause::invalid(
            child(path, PRESERVE),
            &false.into(),
            "must be true or undefined",
        ));
    }
    if flag(schema, INT_OR_STRING) {
        for other in [PRESERVE, EMBEDDED] {
            if flag(schema, other) {
                causes.push(Cause::invalid(
                    child(path, other),
                    &true.into(),
                    "must be false if x-kubernetes-int-or-string is true",
                ));
            }
        }
    }
}

fn types(schema: &Value, level: Level, path: &str, causes: &mut Vec<Cause>) {
    let kind = str_at(schema, "type");
    let place = child(path, "type");
    let embedded = "must be object if x-kubernetes-embedded-resource is true";
    if flag(schema, EMBEDDED) && kind != "object" {
        causes.push(match kind {
            "" => Cause::required(&place, embedded),
            _ => Cause::invalid(&place, &kind.into(), embedded),
        });
    } else if kind.is_empty() && !flag(schema, INT_OR_STRING) && !flag(schema, PRESERVE) {
        let detail = match level {
            Level::Root => "must not be empty at the root",
            Level::Item => "must not be empty for specified array items",
            Level::Field => "must not be empty for specified object fields",
        };
        causes.push(Cause::required(&place, detail));
    }
    if level == Level::Root && !kind.is_empty() && kind != "object" {
        causes.push(Cause::invalid(
            &place,
            &kind.into(),
            "must be object at the root",
        ));
    }
    let bare = properties(schema).next().is_none();
    if flag(schema, EMBEDDED) && !flag(schema, PRESERVE) && bare {
        causes.push(Cause::required(
            child(path, "properties"),
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields",
        ));
    }
}

/// `kind` and `apiVersion` are texts; of `metadata` only the name may be restricted.
fn metadata(schema: &Value, level: Level, path: &str, causes: &mut Vec<Cause>) {
    for (name, property) in properties(schema) {
        let kind = str_at(property, "type");
        let wanted = match name.as_str() {
            "kind" | "apiVersion" => "string",
            "metadata" => "object",
            _ => continue,
        };
        if kind != wanted {
            let place = child(&keyed(path, name), "type");
            let detail = format!("must be {wanted}");
            causes.push(Cause::invalid(place, &kind.into(), &detail));
        }
        if name == "metadata" && level == Level::Root {
            let names_only = properties(property)
                .all(|(name, _)| matches!(name.as_str(), "name" | "generateName"));
            let fields = property.as_object().into_iter().flatten();
            let bare = fields
                .filter(|(key, _)| !matches!(key.as_str(), "type" | "properties" | "default"))
                .count()
                == 0;
            if !names_only || !bare {
                causes.push(Cause::forbidden(
                    keyed(path, name),
                    "must not specify anything other than name and generateName, but metadata is implicitly specified",
                ));
            }
        }
    }
}

/// Which `anyOf` is the allowed way to say "number or text".
#[derive(Clone, Copy, PartialEq, Eq)]
enum Skip {
    Nothing,
    AnyOf,
    FirstOfAllOf,
}

fn int_or_string(schema: &Value) -> Skip {
    let pattern = json!([{"type": "integer"}, {"type": "string"}]);
    if !flag(schema, INT_OR_STRING) {
        Skip::Nothing
    } else if schema.get("anyOf") == Some(&pattern) {
        Skip::AnyOf
    } else if list_at(schema, "allOf")
        .first()
        .is_some_and(|first| first.get("anyOf") == Some(&pattern))
    {
        Skip::FirstOfAllOf
    } else {
        Skip::Nothing
    }
}

fn junctors(schema: &Value, skip: Skip, path: &str, causes: &mut Vec<Cause>) {
    for key in ["anyOf", "allOf", "oneOf"] {
        if key == "anyOf" && skip == Skip::AnyOf {
            continue;
        }
        for (index, one) in list_at(schema, key).iter().enumerate() {
            let skip = match (key, index, skip) {
                ("allOf", 0, Skip::FirstOfAllOf) => Skip::AnyOf,
                _ => Skip::Nothing,
            };
            inner(one, skip, &format!("{path}.{key}[{index}]"), causes);
        }
    }
    if let Some(one) = schema.get("not") {
        inner(one, Skip::Nothing, &child(path, "not"), causes);
    }
}

/// A schema inside of a junctor: it restricts values and says no shapes.
fn inner(schema: &Value, skip: Skip, path: &str, causes: &mut Vec<Cause>) {
    junctors(schema, skip, path, causes);
    if let Some(items) = schema.get("items").filter(|items| items.is_object()) {
        inner(items, Skip::Nothing, &child(path, "items"), causes);
    }
    for (name, property) in properties(schema) {
        inner(property, Skip::Nothing, &keyed(path, name), causes);
        if name == "metadata" {
            causes.push(Cause::forbidden(
                keyed(path, name),
                "must not be specified in a nested context",
            ));
        }
    }
    const EMPTY: &str = "must be empty to be structural";
    const UNDEFINED: &str = "must be undefined to be structural";
    const FALSE: &str = "must be false to be structural";
    for (key, detail) in [
        ("type", EMPTY),
        ("additionalProperties", UNDEFINED),
        ("default", UNDEFINED),
        ("title", EMPTY),
        ("description", EMPTY),
        ("nullable", FALSE),
        ("externalDocs", UNDEFINED),
        (PRESERVE, FALSE),
        (EMBEDDED, FALSE),
        (INT_OR_STRING, FALSE),
        ("x-kubernetes-list-map-keys", EMPTY),
        ("x-kubernetes-list-type", UNDEFINED),
        ("x-kubernetes-map-type", UNDEFINED),
        ("x-kubernetes-validations", EMPTY),
    ] {
        let said = match schema.get(key) {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::String(text)) => !text.is_empty(),
            Some(Value::Array(list)) => !list.is_empty(),
            Some(Value::Bool(true) | Value::Number(_) | Value::Object(_)) => true,
        };
        if said {
            causes.push(Cause::forbidden(child(path, key), detail));
        }
    }
}

/// What a junctor names must also be named outside of it.
fn complete(shape: &Value, schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    let nested = ["allOf", "anyOf", "oneOf"]
        .iter()
        .flat_map(|key| {
            let list = list_at(schema, key).iter().enumerate();
            list.map(move |(index, one)| (one, format!("{key}[{index}]")))
        })
        .chain(schema.get("not").map(|one| (one, "not".to_owned())));
    for (one, key) in nested {
        named_outside(shape, one, path, &child(path, &key), causes);
    }
    for (name, property) in properties(schema) {
        if let Some(shape) = field(shape, name) {
            complete(shape, property, &keyed(path, name), causes);
        }
    }
    if let (Some(shape), Some(items)) = (shape.get("items"), schema.get("items")) {
        complete(shape, items, &child(path, "items"), causes);
    }
}

fn field<'a>(shape: &'a Value, name: &str) -> Option<&'a Value> {
    shape.get("properties").and_then(|map| map.get(name))
}

fn named_outside(shape: &Value, nested: &Value, path: &str, place: &str, causes: &mut Vec<Cause>) {
    for (name, property) in properties(nested) {
        match field(shape, name) {
            Some(shape) => {
                let place = keyed(place, name);
                named_outside(shape, property, &keyed(path, name), &place, causes);
            }
            None => causes.push(Cause::required(
                keyed(path, name),
                &format!("because it is defined in {}", keyed(place, name)),
            )),
        }
    }
    if let Some(items) = nested.get("items").filter(|items| items.is_object()) {
        match shape.get("items") {
            Some(shape) => {
                let (path, place) = (child(path, "items"), child(place, "items"));
                named_outside(shape, items, &path, &place, causes);
            }
            None => causes.push(Cause::required(
                child(path, "items"),
                &format!("because it is defined in {}", child(place, "items")),
            )),
        }
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        for (index, one) in list_at(nested, key).iter().enumerate() {
            let place = format!("{place}.{key}[{index}]");
            named_outside(shape, one, path, &place, causes);
        }
    }
    if let Some(one) = nested.get("not") {
        named_outside(shape, one, path, &child(place, "not"), causes);
    }
}
