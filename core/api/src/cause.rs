//! One reason why an object is invalid: a field path, a kind of fault and its
//! text, in the words of Kubernetes (`field.Error`).

use serde_json::{Value, json};
use std::fmt;

/// What is wrong with a field. [`CauseReason::as_str`] is the `reason` of a
/// cause in a Status object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CauseReason {
    /// A field that must be there is not.
    Required,
    /// The value breaks a rule.
    Invalid,
    /// The value must be unique and is not.
    Duplicate,
    /// The value may not be set here, or not by this client.
    Forbidden,
    /// The value is not in the list of allowed values.
    NotSupported,
    /// The text or map is too long.
    TooLong,
    /// The list has too many entries.
    TooMany,
    /// The value is of another type.
    TypeInvalid,
    /// What the value refers to does not exist.
    NotFound,
    /// The server could not tell.
    Internal,
}

impl CauseReason {
    /// The text in a Status object.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::NotSupported => "FieldValueNotSupported",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::NotFound => "FieldValueNotFound",
            Self::Internal => "InternalError",
        }
    }
}

/// One fault of one field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cause {
    /// The kind of fault.
    pub reason: CauseReason,
    /// The path of the field, e.g. `spec.ports[0].port`.
    pub field: String,
    /// The text without the field, e.g. `Invalid value: 0: must be between 1 and 65535, inclusive`.
    pub message: String,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.message)
    }
}

impl Cause {
    fn new(reason: CauseReason, field: impl Into<String>, message: String) -> Self {
        Self {
            reason,
            field: field.into(),
            message,
        }
    }

    /// `Required value: detail`.
    pub fn required(field: impl Into<String>, detail: &str) -> Self {
        Self::new(CauseReason::Required, field, join("Required value", detail))
    }

    /// `Invalid value: value: detail`.
    pub fn invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        let head = format!("Invalid value: {}", shown(value));
        Self::new(CauseReason::Invalid, field, join(&head, detail))
    }

    /// `Duplicate value: value`.
    pub fn duplicate(field: impl Into<String>, value: &Value) -> Self {
        let message = format!("Duplicate value: {}", shown(value));
        Self::new(CauseReason::Duplicate, field, message)
    }

    /// `Forbidden: detail`.
    pub fn forbidden(field: impl Into<String>, detail: &str) -> Self {
        Self::new(CauseReason::Forbidden, field, join("Forbidden", detail))
    }

    /// `Unsupported value: value: supported values: "A", "B"`.
    pub fn not_supported(field: impl Into<String>, value: &Value, supported: &[&str]) -> Self {
        let list: Vec<String> = supported.iter().map(|text| format!("{text:?}")).collect();
        let head = format!("Unsupported value: {}", shown(value));
        let detail = match list.is_empty() {
            true => String::new(),
            false => format!("supported values: {}", list.join(", ")),
        };
        Self::new(CauseReason::NotSupported, field, join(&head, &detail))
    }

    /// `Too long: may not be more than max bytes`.
    pub fn too_long(field: impl Into<String>, max: usize) -> Self {
        let unit = if max == 1 { "byte" } else { "bytes" };
        let message = format!("Too long: may not be more than {max} {unit}");
        Self::new(CauseReason::TooLong, field, message)
    }

    /// `Too many: actual: must have at most max items`.
    pub fn too_many(field: impl Into<String>, actual: usize, max: usize) -> Self {
        let unit = if max == 1 { "item" } else { "items" };
        let message = format!("Too many: {actual}: must have at most {max} {unit}");
        Self::new(CauseReason::TooMany, field, message)
    }

    /// `Invalid value: value: detail`, with the reason for a wrong type.
    pub fn type_invalid(field: impl Into<String>, value: &Value, detail: &str) -> Self {
        let head = format!("Invalid value: {}", shown(value));
        Self::new(CauseReason::TypeInvalid, field, join(&head, detail))
    }

    /// `Not found: value`.
    pub fn not_found(field: impl Into<String>, value: &Value) -> Self {
        let message = format!("Not found: {}", shown(value));
        Self::new(CauseReason::NotFound, field, message)
    }

    /// `Internal error: detail`.
    pub fn internal(field: impl Into<String>, detail: &str) -> Self {
        Self::new(CauseReason::Internal, field, join("Internal error", detail))
    }

    /// The form in `details.causes` of a Status.
    pub fn to_value(&self) -> Value {
        json!({"reason": self.reason.as_str(), "message": self.message, "field": self.field})
    }
}

fn join(head: &str, detail: &str) -> String {
    match detail.is_empty() {
        true => head.to_owned(),
        false => format!("{head}: {detail}"),
    }
}

/// A value as Kubernetes shows it: texts quoted, the rest as JSON.
fn shown(value: &Value) -> String {
    match value {
        // Go prints a nil pointer as the text "null".
        Value::Null => quoted("null"),
        Value::String(text) => quoted(text),
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => value.to_string(),
    }
}

/// Go's `%q` for ordinary text.
fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_those_of_kubernetes() {
        let cases = [
            (
                Cause::required("spec.ports", ""),
                "spec.ports: Required value",
            ),
            (
                Cause::invalid(
                    "spec.ports[0].port",
                    &json!(0),
                    "must be between 1 and 65535, inclusive",
                ),
                "spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ),
            (
                Cause::duplicate("a", &json!("b")),
                "a: Duplicate value: \"b\"",
            ),
            (
                Cause::not_supported("t", &json!("x"), &["A", "B"]),
                "t: Unsupported value: \"x\": supported values: \"A\", \"B\"",
            ),
            (
                Cause::too_long("n", 63),
                "n: Too long: may not be more than 63 bytes",
            ),
        ];
        for (cause, text) in cases {
            assert_eq!(cause.to_string(), text);
        }
    }
}
