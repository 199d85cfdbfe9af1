//! What is wrong with printer columns and selectable fields.

use crate::cause::Cause;
use crate::custom::jsonpath::JsonPath;
use crate::value::{list_at, str_at};
use serde_json::Value;

const TYPES: &[&str] = &["boolean", "date", "integer", "number", "string"];
const FORMATS: &[&str] = &[
    "byte",
    "date",
    "date-time",
    "double",
    "float",
    "int32",
    "int64",
    "password",
];
/// More make each write and each watch slower.
const MAX_SELECTABLE: usize = 8;

/// What is wrong with one printer column.
pub(super) fn validate(column: &Value, path: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    if str_at(column, "name").is_empty() {
        causes.push(Cause::required(format!("{path}.name"), ""));
    }
    let one_of = |list: &[&str]| format!("must be one of {}", list.join(","));
    match str_at(column, "type") {
        "" => causes.push(Cause::required(format!("{path}.type"), &one_of(TYPES))),
        kind if !TYPES.contains(&kind) => causes.push(Cause::invalid(
            format!("{path}.type"),
            &kind.into(),
            &one_of(TYPES),
        )),
        _ => {}
    }
    let format = str_at(column, "format");
    if !format.is_empty() && !FORMATS.contains(&format) {
        causes.push(Cause::invalid(
            format!("{path}.format"),
            &format.into(),
            &one_of(FORMATS),
        ));
    }
    let place = format!("{path}.jsonPath");
    match str_at(column, "jsonPath") {
        "" => causes.push(Cause::required(place, "")),
        text => {
            causes.extend(simple_path(text).map(|fault| Cause::invalid(place, &text.into(), fault)))
        }
    }
    causes
}

/// Why a text is no simple path.
pub(super) fn simple_path(text: &str) -> Option<&'static str> {
    if !text.starts_with('.') {
        return Some("must be a simple json path starting with .");
    }
    JsonPath::parse(text)
        .is_none()
        .then_some("is an invalid path: it cannot be read")
}

/// What is wrong with the selectable fields of a version.
pub(super) fn selectable(version: &Value, path: &str) -> Vec<Cause> {
    let fields = list_at(version, "selectableFields");
    let mut causes = Vec::new();
    if fields.len() > MAX_SELECTABLE {
        causes.push(Cause::too_many(path, fields.len(), MAX_SELECTABLE));
    }
    for (index, field) in fields.iter().enumerate() {
        let place = format!("{path}[{index}].jsonPath");
        let text = str_at(field, "jsonPath");
        let earlier = fields.get(..index).unwrap_or_default();
        if text.is_empty() {
            causes.push(Cause::required(place, ""));
        } else if let Some(fault) = not_selectable(version, text) {
            causes.push(Cause::invalid(place, &text.into(), fault));
        } else if earlier
            .iter()
            .any(|other| str_at(other, "jsonPath") == text)
        {
            causes.push(Cause::duplicate(place, &text.into()));
        }
    }
    causes
}

fn not_selectable(version: &Value, text: &str) -> Option<&'static str> {
    let path = JsonPath::parse(text).filter(|_| text.starts_with('.'));
    let Some(names) = path.as_ref().and_then(JsonPath::fields) else {
        return Some("is an invalid path: only simple field paths are allowed");
    };
    if names.first() == Some(&"metadata") {
        return Some("must not point to fields in metadata");
    }
    let root = crate::value::at(version, "schema.openAPIV3Schema");
    let found = names.iter().try_fold(root, |schema, name| {
        schema.get("properties").and_then(|map| map.get(*name))
    });
    match found.map(|schema| str_at(schema, "type")) {
        None => Some("is an invalid path: does not refer to a valid field"),
        Some("string" | "integer" | "boolean") => None,
        Some(_) => Some(
            "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed.",
        ),
    }
}
