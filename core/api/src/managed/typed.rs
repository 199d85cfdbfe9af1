//! How an object is divided into fields that can be owned: what the schema
//! says of each value (KEP-555).
//!
//! Scalars are owned as they are. Objects and maps are owned field by field,
//! unless `x-kubernetes-map-type` is `atomic`. Lists are owned whole, unless
//! they have keys (`map`) or their elements are their own keys (`set`).

use super::set::{element, keyed};
use crate::schema::{self, Shape};
use serde_json::Value;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// What is known about a value from its place in the object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    schema: Option<&'a Value>,
    /// Whether the value is one entry of a map, not a field of a type.
    pub(super) entry: bool,
}

/// How a value is owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ownership<'a> {
    /// As one: scalars, atomic lists and maps.
    Whole,
    /// Field by field.
    Fields,
    /// Element by element, by these keys.
    Keyed(Vec<&'a str>),
    /// Element by element, by value.
    Set,
}

/// What a list has under one step.
#[derive(Clone, Debug)]
pub(super) struct Element<'a, 'v> {
    pub(super) step: String,
    pub(super) place: Place<'a>,
    /// One, or several that are owned as one.
    pub(super) values: Vec<&'v Value>,
}

impl<'a, 'v> Element<'a, 'v> {
    /// The only value, and its place.
    pub(super) fn single(&self) -> Option<(Place<'a>, &'v Value)> {
        match self.values.as_slice() {
            [only] => Some((self.place, *only)),
            _ => None,
        }
    }

    /// The value, with several as a list that is owned whole.
    pub(super) fn part(&self) -> (Place<'a>, Cow<'v, Value>) {
        match self.single() {
            Some((place, only)) => (place, Cow::Borrowed(only)),
            None => {
                let all = self.values.iter().map(|value| (*value).clone()).collect();
                (Place::untyped(), Cow::Owned(Value::Array(all)))
            }
        }
    }
}

/// Why a list cannot be divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Odd {
    /// An element without a key.
    NoKey(String),
    /// Two elements of one key.
    Duplicate(String),
}

impl<'a> Place<'a> {
    pub(super) fn root(schema: Option<&'a Value>) -> Self {
        Self {
            schema,
            entry: false,
        }
    }

    fn extension(&self, name: &str) -> Option<&'a Value> {
        let schema = self.schema?;
        schema
            .get(name)
            .or_else(|| schema::resolve(schema).get(name))
    }

    fn word(&self, name: &str) -> &'a str {
        self.extension(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
    }

    /// How a value here is owned.
    pub(super) fn ownership(&self, value: &Value) -> Ownership<'a> {
        match value {
            Value::Object(_) if self.word("x-kubernetes-map-type") == "atomic" => Ownership::Whole,
            Value::Object(_) => Ownership::Fields,
            Value::Array(_) => self.list(),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ownership::Whole,
        }
    }

    fn list(&self) -> Ownership<'a> {
        match self.word("x-kubernetes-list-type") {
            "map" => {
                let keys = self.extension("x-kubernetes-list-map-keys");
                let keys = keys.and_then(Value::as_array).into_iter().flatten();
                Ownership::Keyed(keys.filter_map(Value::as_str).collect())
            }
            "set" => Ownership::Set,
            _ => Ownership::Whole,
        }
    }

    /// The place of a field; `None` if the schema does not have it.
    pub(super) fn field(&self, name: &str) -> Option<Place<'a>> {
        let Some(schema) = self.schema else {
            return Some(Place {
                schema: None,
                entry: true,
            });
        };
        let resolved = schema::resolve(schema);
        let named = resolved
            .get("properties")
            .and_then(|properties| properties.get(name));
        if let Some(schema) = named {
            return Some(Place {
                schema: Some(schema),
                entry: false,
            });
        }
        match resolved.get("additionalProperties") {
            Some(Value::Object(_)) => Some(Place {
                schema: resolved.get("additionalProperties"),
                entry: true,
            }),
            Some(Value::Bool(true)) => Some(Place::untyped()),
            _ if self.is_open(resolved) => Some(Place::untyped()),
            _ => None,
        }
    }

    /// Whether any field may be here: no fields are declared, or they are kept
    /// whatever they are.
    fn is_open(&self, resolved: &Value) -> bool {
        let preserves = "x-kubernetes-preserve-unknown-fields";
        resolved.get(preserves) == Some(&Value::Bool(true))
            || self.extension(preserves) == Some(&Value::Bool(true))
            || (resolved.get("properties").is_none()
                && resolved.get("additionalProperties").is_none())
    }

    pub(super) const fn untyped() -> Self {
        Place {
            schema: None,
            entry: true,
        }
    }

    /// The place of the elements of a list.
    pub(super) fn items(&self) -> Place<'a> {
        Place {
            schema: self.schema.and_then(schema::items),
            entry: false,
        }
    }

    /// The elements of a list by step, in order of their first. Stored lists may
    /// have several of one key (environment variables given twice).
    pub(super) fn elements<'v>(
        &self,
        ownership: &Ownership<'_>,
        list: &'v [Value],
    ) -> Result<Vec<Element<'a, 'v>>, Odd> {
        let items = self.items();
        let mut found: Vec<Element<'a, 'v>> = Vec::new();
        let mut places: BTreeMap<String, usize> = BTreeMap::new();
        for (index, value) in list.iter().enumerate() {
            let step = items.step_of(ownership, index, value)?;
            let known = places.get(&step).and_then(|place| found.get_mut(*place));
            if let Some(known) = known {
                known.values.push(value);
                continue;
            }
            places.insert(step.clone(), found.len());
            found.push(Element {
                step,
                place: items,
                values: vec![value],
            });
        }
        Ok(found)
    }

    /// The step to an element of a list that is owned so.
    pub(super) fn step_of(
        &self,
        ownership: &Ownership<'_>,
        index: usize,
        value: &Value,
    ) -> Result<String, Odd> {
        match ownership {
            Ownership::Keyed(keys) => self.key_of(keys, value),
            Ownership::Set => Ok(element(value)),
            Ownership::Whole | Ownership::Fields => Ok(format!("i:{index}")),
        }
    }

    /// What JSON types may be here.
    pub(super) fn shape(&self) -> Shape {
        self.schema.map_or(Shape::Any, schema::shape)
    }

    /// The step to an element by its keys; a key that is absent has the
    /// default of its field.
    fn key_of(&self, keys: &[&str], value: &Value) -> Result<String, Odd> {
        let mut found = BTreeMap::new();
        for key in keys {
            let own = value.get(key).filter(|own| !own.is_null());
            let own = own.cloned().or_else(|| self.default_of(key));
            let Some(own) = own else {
                return Err(Odd::NoKey((*key).to_owned()));
            };
            found.insert((*key).to_owned(), own);
        }
        Ok(keyed(found))
    }

    fn default_of(&self, key: &str) -> Option<Value> {
        let named = schema::property(self.schema?, key).and_then(|schema| schema.get("default"));
        // The types of Kubernetes have one key with a default, which our
        // schemas do not tell.
        named
            .cloned()
            .or_else(|| (key == "protocol").then(|| Value::from("TCP")))
    }

    /// Whether an object here is one that Go never leaves out, so that its
    /// presence says nothing.
    pub(super) fn is_always_there(&self, step: &str) -> bool {
        const ALWAYS: &[&str] = &[
            "f:metadata",
            "f:spec",
            "f:status",
            "f:template",
            "f:strategy",
            "f:updateStrategy",
            "f:containers",
            "f:loadBalancer",
        ];
        !self.entry && ALWAYS.contains(&step)
    }
}
