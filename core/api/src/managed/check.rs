//! Whether an object that somebody applies fits its schema: every field must
//! be declared and of its type, every element must be told apart.

use super::set::{field, shown};
use super::typed::{Odd, Ownership, Place};
use crate::patch::go_value;
use crate::schema::Shape;
use serde_json::Value;
use std::fmt;

/// Why an object cannot be divided into fields, in the words of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypedError {
    /// One for each place that does not fit.
    faults: Vec<String>,
}

impl std::error::Error for TypedError {}

impl fmt::Display for TypedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.faults.as_slice() {
            [only] => f.write_str(only),
            faults => {
                f.write_str("errors:")?;
                faults.iter().try_for_each(|fault| write!(f, "\n  {fault}"))
            }
        }
    }
}

/// Everything that does not fit.
pub(super) fn check(place: &Place<'_>, value: &Value) -> Result<(), TypedError> {
    let mut faults = Vec::new();
    walk(place, value, &mut Vec::new(), &mut faults);
    match faults.is_empty() {
        true => Ok(()),
        false => Err(TypedError { faults }),
    }
}

fn walk(place: &Place<'_>, value: &Value, path: &mut Vec<String>, faults: &mut Vec<String>) {
    let fault = |path: &[String], what: &str| {
        let steps: Vec<&str> = path.iter().map(String::as_str).collect();
        format!("{}: {what}", shown(&steps))
    };
    if let Some(what) = misfit(place.shape(), value) {
        faults.push(fault(path, &what));
        return;
    }
    match (place.ownership(value), value) {
        // What is owned as one is checked inside all the same.
        (Ownership::Fields | Ownership::Whole, Value::Object(map)) => {
            for (name, value) in map {
                path.push(field(name));
                match place.field(name) {
                    Some(below) => walk(&below, value, path, faults),
                    None => faults.push(fault(path, "field not declared in schema")),
                }
                path.pop();
            }
        }
        (ownership, Value::Array(list)) => {
            let items = place.items();
            let mut seen: Vec<String> = Vec::new();
            for (index, value) in list.iter().enumerate() {
                let step = match items.step_of(&ownership, index, value) {
                    Ok(step) => step,
                    Err(odd) => {
                        faults.push(fault(path, &format!("element {index}: {}", words(&odd))));
                        continue;
                    }
                };
                if seen.contains(&step) {
                    faults.push(fault(path, &words(&Odd::Duplicate(step))));
                    continue;
                }
                seen.push(step.clone());
                path.push(step);
                walk(&items, value, path, faults);
                path.pop();
            }
        }
        _ => {}
    }
}

fn words(odd: &Odd) -> String {
    match odd {
        Odd::NoKey(key) => format!(
            "associative list with keys has an element that omits key field {key:?} (and doesn't have default value)"
        ),
        Odd::Duplicate(step) => format!("duplicate entries for key {}", shown(&[step])),
    }
}

/// A value of another type than its place has. Null fits everywhere.
fn misfit(shape: Shape, value: &Value) -> Option<String> {
    let scalar = !value.is_object() && !value.is_array();
    let fits = match shape {
        Shape::Any => true,
        Shape::Object => value.is_object(),
        Shape::Array => value.is_array(),
        Shape::Text => value.is_string(),
        Shape::Integer | Shape::Number => value.is_number(),
        Shape::Bool => value.is_boolean(),
        Shape::IntOrText => scalar,
    };
    if fits || value.is_null() {
        return None;
    }
    let got = go_value(value);
    Some(match shape {
        Shape::Object => format!("expected map, got &{{{got}}}"),
        Shape::Array => format!("expected list, got &{{{got}}}"),
        Shape::Text => format!("expected string, got &value.valueUnstructured{{Value:{got}}}"),
        Shape::Integer | Shape::Number => {
            format!("expected numeric (int or float), got {}", go_kind(value))
        }
        Shape::Bool => format!("expected boolean, got &{{{got}}}"),
        Shape::IntOrText | Shape::Any => format!("expected scalar, got &{{{got}}}"),
    })
}

const fn go_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "int64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}
