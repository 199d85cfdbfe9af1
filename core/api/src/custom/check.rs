//! What is wrong with a custom resource by its schema, in the words of
//! kube-openapi's validator.
//!
//! On update, what has not changed is not looked at again (KEP-4008), so that
//! a stricter schema does not lock old objects.

use super::format;
use super::schema::{self, Place, flag, join};
use crate::cause::Cause;
use crate::value::str_at;
use regex::Regex;
use serde_json::{Number, Value};
use std::collections::BTreeMap;

/// Compiled patterns of a schema, by their text.
pub(super) type Patterns = BTreeMap<String, Regex>;

/// Compiles every pattern of a schema; those that are none are left out, which
/// the definition's own validation has refused before.
pub(super) fn patterns(schema: &Value, found: &mut Patterns) {
    match schema {
        Value::Object(map) => {
            if let Some(Value::String(text)) = map.get("pattern")
                && !found.contains_key(text)
                && let Ok(pattern) = Regex::new(text)
            {
                found.insert(text.clone(), pattern);
            }
            map.values().for_each(|schema| patterns(schema, found));
        }
        Value::Array(list) => list.iter().for_each(|schema| patterns(schema, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What is wrong with a value by its schema.
pub(super) fn check(
    patterns: &Patterns,
    schema: &Value,
    value: &Value,
    old: Option<&Value>,
) -> Vec<Cause> {
    let checker = Checker { patterns };
    let mut found = Found::default();
    let place = At {
        path: "",
        schema,
        old,
    };
    checker.value(value, &place, &mut found);
    found.causes
}

struct Checker<'a> {
    patterns: &'a Patterns,
}

/// Causes, and how much was right: of alternatives that all fail, the one with
/// most right is told.
#[derive(Default)]
struct Found {
    causes: Vec<Cause>,
    matches: usize,
}

impl Found {
    fn invalid(&mut self, path: &str, value: &Value, text: &str) {
        let detail = format!("{path} in body {text}");
        self.causes.push(Cause::invalid(path, value, &detail));
    }

    fn mistyped(&mut self, path: &str, expected: &str, found: &str) {
        let detail = format!("{path} in body must be of type {expected}: {found:?}");
        let value = Value::String(found.to_owned());
        self.causes
            .push(Cause::type_invalid(named(path), &value, &detail));
    }

    /// A fault that kube-openapi reports without a field.
    fn unplaced(&mut self, text: &str) {
        self.causes
            .push(Cause::invalid("<nil>", &Value::String(String::new()), text));
    }

    fn merge(&mut self, other: Self) {
        self.causes.extend(other.causes);
        self.matches += other.matches;
    }
}

fn named(path: &str) -> &str {
    if path.is_empty() { "<nil>" } else { path }
}

/// Where the checker is.
struct At<'a> {
    path: &'a str,
    schema: &'a Value,
    old: Option<&'a Value>,
}

impl Checker<'_> {
    fn value(&self, value: &Value, at: &At<'_>, found: &mut Found) {
        if at.old == Some(value) {
            return;
        }
        let schema = at.schema;
        let before = found.causes.len();
        if !self.shape(value, at, found) {
            return;
        }
        if value.is_null() {
            return;
        }
        self.junctors(value, at, found);
        match value {
            Value::String(text) => self.text(text, at, found),
            Value::Number(number) => numbers(number, value, at, found),
            Value::Array(list) => self.list(list, at, found),
            Value::Object(_) => self.object(value, at, found),
            Value::Null | Value::Bool(_) => {}
        }
        if let Some(Value::Array(allowed)) = schema.get("enum")
            && !allowed.iter().any(|one| same(one, value))
        {
            found
                .causes
                .push(not_supported(named(at.path), value, allowed));
        }
        if found.causes.len() == before {
            found.matches += 1;
        }
    }

    /// Whether the value is of the type; if not, that is a cause.
    fn shape(&self, value: &Value, at: &At<'_>, found: &mut Found) -> bool {
        let either = flag(at.schema, schema::INT_OR_STRING);
        let wanted = match str_at(at.schema, "type") {
            "" if either => "integer,string",
            wanted => wanted,
        };
        let is = type_of(value);
        let fits = match (wanted, is) {
            ("", _) => true,
            (_, "null") => flag(at.schema, "nullable"),
            ("number", "integer") => true,
            ("integer,string", "integer" | "string") => true,
            (wanted, is) => wanted == is,
        };
        if !fits {
            found.mistyped(at.path, wanted, is);
        }
        fits
    }

    fn text(&self, text: &str, at: &At<'_>, found: &mut Found) {
        let path = at.path;
        let value = Value::String(text.to_owned());
        let length = text.chars().count();
        if let Some(max) = size(at.schema, "maxLength").filter(|max| length > *max) {
            found.causes.push(Cause::too_long(path, max));
        } else if let Some(min) = size(at.schema, "minLength").filter(|min| length < *min) {
            found.invalid(
                path,
                &value,
                &format!("should be at least {min} chars long"),
            );
        } else if let Some(pattern) = self.patterns.get(str_at(at.schema, "pattern"))
            && !pattern.is_match(text)
        {
            let text = str_at(at.schema, "pattern");
            found.invalid(path, &value, &format!("should match '{text}'"));
        }
        let wanted = str_at(at.schema, "format");
        if !format::matches(wanted, text) {
            let detail = format!("{path} in body must be of type {wanted}: {text:?}");
            found
                .causes
                .push(Cause::type_invalid(named(path), &value, &detail));
        }
    }

    fn list(&self, list: &[Value], at: &At<'_>, found: &mut Found) {
        let path = at.path;
        if let Some(items) = at.schema.get("items") {
            for (index, item) in list.iter().enumerate() {
                let below = format!("{path}[{index}]");
                let old = correlated(at.schema, at.old, index, item);
                let at = At {
                    path: &below,
                    schema: items,
                    old,
                };
                self.value(item, &at, found);
            }
        }
        let length = list.len();
        if let Some(min) = size(at.schema, "minItems").filter(|min| length < *min) {
            let whole = Value::from(length);
            found.invalid(path, &whole, &format!("should have at least {min} items"));
        }
        if let Some(max) = size(at.schema, "maxItems").filter(|max| length > *max) {
            found.causes.push(Cause::too_many(path, length, max));
        }
    }

    fn object(&self, value: &Value, at: &At<'_>, found: &mut Found) {
        let path = at.path;
        let Value::Object(map) = value else {
            return;
        };
        let length = map.len();
        if let Some(min) = size(at.schema, "minProperties").filter(|min| length < *min) {
            let whole = Value::from(length);
            found.invalid(
                path,
                &whole,
                &format!("should have at least {min} properties"),
            );
        }
        if let Some(max) = size(at.schema, "maxProperties").filter(|max| length > *max) {
            found.causes.push(Cause::too_many(path, length, max));
        }
        for (key, value) in map {
            if let Place::Known(schema) = schema::below(at.schema, key) {
                let below = join(path, key);
                let at = At {
                    path: &below,
                    schema,
                    old: at.old.and_then(|old| old.get(key)),
                };
                self.value(value, &at, found);
            }
        }
        for name in crate::value::strings_at(at.schema, "required") {
            if !map.contains_key(name) {
                found.causes.push(Cause::required(join(path, name), ""));
            }
        }
    }

    /// `anyOf`, `oneOf`, `allOf` and `not`.
    fn junctors(&self, value: &Value, at: &At<'_>, found: &mut Found) {
        let path = at.path;
        let alternatives = |key: &str| -> Option<Vec<Found>> {
            let list = at.schema.get(key)?.as_array()?;
            let results = list
                .iter()
                .map(|schema| self.alternative(value, at, schema));
            (!list.is_empty()).then(|| results.collect())
        };
        if let Some(results) = alternatives("anyOf")
            && results.iter().all(|result| !result.causes.is_empty())
        {
            found.unplaced(&format!(
                "{path:?} must validate at least one schema (anyOf)"
            ));
            found.merge(best(results));
        }
        if let Some(results) = alternatives("oneOf") {
            let valid = results.iter().filter(|one| one.causes.is_empty()).count();
            if valid != 1 {
                let how_many = match valid {
                    0 => "Found none valid".to_owned(),
                    many => format!("Found {many} valid alternatives"),
                };
                found.unplaced(&format!(
                    "{path:?} must validate one and only one schema (oneOf). {how_many}"
                ));
                found.merge(best(results));
            }
        }
        if let Some(results) = alternatives("allOf") {
            let all = results.len();
            let valid = results.iter().filter(|one| one.causes.is_empty()).count();
            results.into_iter().for_each(|result| found.merge(result));
            if valid != all {
                let how_many = if valid == 0 { ". None validated" } else { "" };
                found.unplaced(&format!(
                    "{path:?} must validate all the schemas (allOf){how_many}"
                ));
            }
        }
        if let Some(schema) = at.schema.get("not")
            && self.alternative(value, at, schema).causes.is_empty()
        {
            found.unplaced(&format!("{path:?} must not validate the schema (not)"));
        }
    }

    fn alternative(&self, value: &Value, at: &At<'_>, schema: &Value) -> Found {
        let mut found = Found::default();
        let at = At {
            path: at.path,
            schema,
            old: None,
        };
        self.value(value, &at, &mut found);
        found
    }
}

/// The failure with most right in it; of equals the first.
fn best(results: Vec<Found>) -> Found {
    let failed = results.into_iter().filter(|one| !one.causes.is_empty());
    failed
        .reduce(|best, next| match next.matches > best.matches {
            true => next,
            false => best,
        })
        .unwrap_or_default()
}

fn numbers(number: &Number, value: &Value, at: &At<'_>, found: &mut Found) {
    let path = at.path;
    let Some(float) = number.as_f64() else {
        return;
    };
    let bound = |key: &str| at.schema.get(key).and_then(Value::as_f64);
    if let Some(factor) = bound("multipleOf").filter(|factor| *factor > 0.0) {
        let times = float / factor;
        if (times - times.round()).abs() > f64::EPSILON * times.abs().max(1.0) {
            let factor = go_number(factor);
            found.invalid(path, value, &format!("should be a multiple of {factor}"));
        }
    }
    if let Some(max) = bound("maximum") {
        let exclusive = flag(at.schema, "exclusiveMaximum");
        if float > max || (exclusive && float >= max) {
            let than = if exclusive { "" } else { " or equal to" };
            let max = go_number(max);
            let text = match than {
                "" => format!("should be less than {max}"),
                _ => format!("should be less than{than} {max}"),
            };
            found.invalid(path, value, &text);
        }
    }
    if let Some(min) = bound("minimum") {
        let exclusive = flag(at.schema, "exclusiveMinimum");
        if float < min || (exclusive && float <= min) {
            let than = if exclusive { "" } else { " or equal to" };
            let min = go_number(min);
            found.invalid(path, value, &format!("should be greater than{than} {min}"));
        }
    }
}

/// A bound as Go prints it: whole numbers without a point.
fn go_number(number: f64) -> String {
    number.to_string()
}

/// The old item that an item of a list takes the place of: by its keys in a
/// list that is a map; elsewhere lists are compared as a whole only.
pub(super) fn correlated<'a>(
    schema: &Value,
    old: Option<&'a Value>,
    index: usize,
    item: &Value,
) -> Option<&'a Value> {
    let old = old?.as_array()?;
    if str_at(schema, "x-kubernetes-list-type") != "map" {
        return None;
    }
    let keys = crate::value::strings_at(schema, "x-kubernetes-list-map-keys");
    let same = |old: &&Value| keys.iter().all(|key| old.get(key) == item.get(key));
    old.get(index)
        .filter(same)
        .or_else(|| old.iter().find(same))
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
        Value::Number(number) => match number.as_f64() {
            Some(float) if float.fract() != 0.0 => "number",
            Some(_) | None => "integer",
        },
    }
}

/// Equality in which 1 and 1.0 are one number.
fn same(one: &Value, other: &Value) -> bool {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => (one - other).abs() < f64::EPSILON,
        _ => one == other,
    }
}

fn not_supported(path: &str, value: &Value, allowed: &[Value]) -> Cause {
    let texts: Vec<String> = allowed
        .iter()
        .map(|one| match one {
            Value::String(text) => text.clone(),
            Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_) => one.to_string(),
        })
        .collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    Cause::not_supported(path, value, &texts)
}

fn size(schema: &Value, key: &str) -> Option<usize> {
    schema
        .get(key)?
        .as_u64()
        .and_then(|size| usize::try_from(size).ok())
}

/// Items that are twice in a list that is a set or a map.
pub(super) fn duplicates(value: &Value, schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    match value {
        Value::Array(list) => {
            let keys = crate::value::strings_at(schema, "x-kubernetes-list-map-keys");
            let identity = |item: &Value| -> Option<Value> {
                match str_at(schema, "x-kubernetes-list-type") {
                    "set" => Some(item.clone()),
                    "map" => {
                        let parts = keys.iter().map(|key| (*key, crate::value::at(item, key)));
                        Some(parts.map(|(key, part)| (key, part.clone())).collect())
                    }
                    _ => None,
                }
            };
            let ids: Vec<Option<Value>> = list.iter().map(identity).collect();
            for (index, id) in ids.iter().enumerate() {
                let earlier = ids.get(..index).unwrap_or_default();
                if let Some(id) = id
                    && earlier.iter().flatten().any(|other| other == id)
                {
                    let path = format!("{path}[{index}]");
                    causes.push(Cause::duplicate(path, id));
                }
            }
            if let Some(items) = schema.get("items") {
                for (index, item) in list.iter().enumerate() {
                    duplicates(item, items, &format!("{path}[{index}]"), causes);
                }
            }
        }
        Value::Object(map) => {
            for (key, value) in map {
                if let Place::Known(schema) = schema::below(schema, key) {
                    duplicates(value, schema, &join(path, key), causes);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Objects inside the object must say what they are.
pub(super) fn embedded(value: &Value, schema: &Value, path: &str, causes: &mut Vec<Cause>) {
    match value {
        Value::Object(map) => {
            if flag(schema, schema::EMBEDDED) {
                for field in ["apiVersion", "kind"] {
                    if str_at(value, field).is_empty() {
                        let path = join(path, field);
                        causes.push(Cause::required(path, "must not be empty"));
                    }
                }
            }
            for (key, value) in map {
                if let Place::Known(schema) = schema::below(schema, key) {
                    embedded(value, schema, &join(path, key), causes);
                }
            }
        }
        Value::Array(list) => {
            if let Some(items) = schema.get("items") {
                for (index, item) in list.iter().enumerate() {
                    embedded(item, items, &format!("{path}[{index}]"), causes);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
