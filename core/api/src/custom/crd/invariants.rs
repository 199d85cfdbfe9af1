//! Rules for every part of a schema: what OpenAPI has and Kubernetes does
//! not, lists that are sets or maps, patterns, defaults.

use crate::cause::Cause;
use crate::custom::check::{self, Patterns};
use crate::custom::prune;
use crate::custom::schema::{INT_OR_STRING, properties};
use crate::value::{list_at, str_at, strings_at};
use regex::Regex;
use serde_json::Value;

const TYPES: &[&str] = &["array", "boolean", "integer", "number", "object", "string"];
/// A schema deeper than this is refused, before anything walks it.
const MAX_DEPTH: usize = 64;

/// What is wrong with a schema anywhere in it.
pub(super) fn validate(schema: &Value, path: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut patterns = Patterns::new();
    check::patterns(schema, &mut patterns);
    let mut walker = Walker {
        patterns: &patterns,
        causes: &mut causes,
    };
    walker.schema(schema, path, 0);
    causes
}

struct Walker<'a> {
    patterns: &'a Patterns,
    causes: &'a mut Vec<Cause>,
}

impl Walker<'_> {
    fn schema(&mut self, schema: &Value, path: &str, depth: usize) {
        if depth > MAX_DEPTH {
            let detail = "the schema is nested too deeply";
            self.causes.push(Cause::forbidden(path, detail));
            return;
        }
        self.forbidden(schema, path);
        self.values(schema, path);
        self.lists(schema, path);
        for (name, property) in properties(schema) {
            self.schema(property, &format!("{path}.properties[{name}]"), depth + 1);
        }
        for key in ["items", "additionalProperties", "not"] {
            if let Some(one) = schema.get(key).filter(|one| one.is_object()) {
                self.schema(one, &format!("{path}.{key}"), depth + 1);
            }
        }
        for key in ["allOf", "anyOf", "oneOf"] {
            for (index, one) in list_at(schema, key).iter().enumerate() {
                self.schema(one, &format!("{path}.{key}[{index}]"), depth + 1);
            }
        }
    }

    fn forbidden(&mut self, schema: &Value, path: &str) {
        for key in [
            "id",
            "additionalItems",
            "patternProperties",
            "definitions",
            "dependencies",
            "$ref",
        ] {
            if schema.get(key).is_some_and(|value| !value.is_null()) {
                let detail = format!("{key} is not supported");
                self.causes
                    .push(Cause::forbidden(format!("{path}.{key}"), &detail));
            }
        }
        if schema.get("uniqueItems") == Some(&Value::Bool(true)) {
            self.causes.push(Cause::forbidden(
                format!("{path}.uniqueItems"),
                "uniqueItems cannot be set to true since the runtime complexity becomes quadratic",
            ));
        }
        if schema.get("items").is_some_and(Value::is_array) {
            self.causes.push(Cause::forbidden(
                format!("{path}.items"),
                "items must be a schema object and not an array",
            ));
        }
        let additional = schema.get("additionalProperties");
        let has_additional =
            additional.is_some_and(|one| !one.is_null() && one != &Value::Bool(true));
        if has_additional && properties(schema).next().is_some() {
            self.causes.push(Cause::forbidden(
                format!("{path}.additionalProperties"),
                "additionalProperties and properties are mutual exclusive",
            ));
        } else if additional == Some(&Value::Bool(false)) {
            self.causes.push(Cause::forbidden(
                format!("{path}.additionalProperties"),
                "additionalProperties cannot be set to false",
            ));
        }
        let place = format!("{path}.type");
        match str_at(schema, "type") {
            "null" => self.causes.push(Cause::forbidden(
                place,
                "type cannot be set to null, use nullable as an alternative",
            )),
            "" => {}
            kind if !TYPES.contains(&kind) => {
                self.causes
                    .push(Cause::not_supported(place, &kind.into(), TYPES));
            }
            _ => {}
        }
    }

    /// Patterns compile; defaults are valid and nothing of them is dropped.
    fn values(&mut self, schema: &Value, path: &str) {
        let pattern = str_at(schema, "pattern");
        if !pattern.is_empty()
            && let Err(error) = Regex::new(pattern)
        {
            let why = error.to_string();
            let why = why.lines().last().unwrap_or_default();
            self.causes.push(Cause::invalid(
                format!("{path}.pattern"),
                &pattern.into(),
                &format!("must be a valid regular expression, but isn't: {why}"),
            ));
        }
        let Some(default) = schema.get("default").filter(|value| !value.is_null()) else {
            return;
        };
        let place = format!("{path}.default");
        let mut pruned = serde_json::json!({"default": default});
        let around = serde_json::json!({"properties": {"default": schema}});
        let dropped = prune::unknown(&mut pruned, &around);
        if !dropped.is_empty() {
            let detail = "must not have unknown fields";
            self.causes.push(Cause::invalid(&place, default, detail));
        }
        for fault in check::check(self.patterns, schema, default, None) {
            let field = match fault.field.as_str() {
                "<nil>" | "" => place.clone(),
                below => format!("{place}.{below}"),
            };
            self.causes.push(Cause { field, ..fault });
        }
    }

    fn lists(&mut self, schema: &Value, path: &str) {
        let kind = str_at(schema, "type");
        let list_type = str_at(schema, "x-kubernetes-list-type");
        let keys = strings_at(schema, "x-kubernetes-list-map-keys");
        let keys_path = format!("{path}.x-kubernetes-list-map-keys");
        if !list_type.is_empty() {
            if !matches!(list_type, "atomic" | "set" | "map") {
                self.causes.push(Cause::not_supported(
                    format!("{path}.x-kubernetes-list-type"),
                    &list_type.into(),
                    &["atomic", "set", "map"],
                ));
            }
            if kind != "array" {
                let detail = "must be array if x-kubernetes-list-type is specified";
                self.causes.push(match kind {
                    "" => Cause::required(format!("{path}.type"), detail),
                    _ => Cause::invalid(format!("{path}.type"), &kind.into(), detail),
                });
            }
        }
        match (list_type, keys.is_empty()) {
            ("map", true) => self.causes.push(Cause::required(
                &keys_path,
                "must not be empty if x-kubernetes-list-type is map",
            )),
            ("map", false) => self.map_keys(schema, &keys, path),
            (_, false) => {
                let value = schema.get("x-kubernetes-list-map-keys");
                self.causes.push(Cause::invalid(
                    &keys_path,
                    value.unwrap_or(&Value::Null),
                    "must be empty if x-kubernetes-list-type is not map",
                ));
            }
            (_, true) => {}
        }
        let map_type = str_at(schema, "x-kubernetes-map-type");
        if !map_type.is_empty() && !matches!(map_type, "atomic" | "granular") {
            self.causes.push(Cause::not_supported(
                format!("{path}.x-kubernetes-map-type"),
                &map_type.into(),
                &["atomic", "granular"],
            ));
        }
    }

    fn map_keys(&mut self, schema: &Value, keys: &[&str], path: &str) {
        let items = crate::value::at(schema, "items");
        let items_path = format!("{path}.items");
        if str_at(items, "type") != "object" {
            let detail = "must be object if parent array's x-kubernetes-list-type is map";
            let kind = str_at(items, "type");
            self.causes.push(Cause::invalid(
                format!("{items_path}.type"),
                &kind.into(),
                detail,
            ));
            return;
        }
        let required = strings_at(items, "required");
        for (index, key) in keys.iter().enumerate() {
            let property = crate::value::at(items, "properties").get(key);
            let Some(property) = property else {
                self.causes.push(Cause::invalid(
                    format!("{path}.x-kubernetes-list-map-keys[{index}]"),
                    &(*key).into(),
                    "entries must all be names of item properties",
                ));
                continue;
            };
            let place = format!("{items_path}.properties[{key}]");
            let scalar = matches!(
                str_at(property, "type"),
                "string" | "integer" | "number" | "boolean"
            ) || property.get(INT_OR_STRING) == Some(&Value::Bool(true));
            if !scalar {
                self.causes.push(Cause::invalid(
                    format!("{place}.type"),
                    &str_at(property, "type").into(),
                    "must be a scalar type if parent array's x-kubernetes-list-type is map",
                ));
            }
            if property.get("default").is_none() && !required.contains(key) {
                self.causes.push(Cause::required(
                    format!("{place}.default"),
                    "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property",
                ));
            }
        }
    }
}
