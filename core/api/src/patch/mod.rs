//! The three patch formats that change an object.
//!
//! JSON Patch (RFC 6902) addresses places, JSON merge patch (RFC 7386) merges
//! maps, strategic merge patch also merges lists by the merge keys that
//! [`crate::schema`] knows.

mod json;
mod merge;
mod strategic;

pub use self::json::{json_patch, unknown_members};
pub use merge::merge_patch;
pub use strategic::strategic_merge_patch;

use crate::kinds::Kind;
use serde_json::Value;

/// The format of a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchType {
    /// `application/json-patch+json`.
    Json,
    /// `application/merge-patch+json`.
    Merge,
    /// `application/strategic-merge-patch+json`.
    Strategic,
}

/// Media types that [`PatchType::parse`] knows.
pub const MEDIA_TYPES: &[&str] = &[
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
];

impl PatchType {
    /// Reads a content type (parameters are ignored).
    pub fn parse(content_type: &str) -> Option<Self> {
        match content_type.split(';').next().unwrap_or("").trim() {
            "application/json-patch+json" => Some(Self::Json),
            "application/merge-patch+json" => Some(Self::Merge),
            "application/strategic-merge-patch+json" => Some(Self::Strategic),
            _ => None,
        }
    }
}

/// Why a patch does not apply.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatchError {
    /// The patch itself is malformed (400).
    #[error("{0}")]
    Malformed(String),
    /// The patch asks for more than a patch may (413).
    #[error("{0}")]
    TooLarge(String),
    /// The patch is well formed but does not fit the object (422); Kubernetes
    /// does not tell its clients why.
    #[error("{0}")]
    DoesNotApply(String),
    /// A strategic merge patch with something that Kubernetes has no code for (500).
    #[error("{0}")]
    Odd(String),
}

/// The object after the patch.
pub fn apply(
    kind: &Kind,
    patch_type: PatchType,
    object: &Value,
    patch: &Value,
) -> Result<Value, PatchError> {
    let patched = match patch_type {
        PatchType::Json => json_patch(object, patch)?,
        PatchType::Merge => match patch.is_object() {
            true => merge_patch(object, patch),
            false => return Err(no_map("error decoding patch: ", patch)),
        },
        PatchType::Strategic => strategic_merge_patch(kind, object, patch)?,
    };
    match patched.is_object() {
        true => Ok(patched),
        false => Err(PatchError::DoesNotApply(
            "the patched object is no object".to_owned(),
        )),
    }
}

/// What Go's decoder says of a patch that should be a map.
fn no_map(before: &str, patch: &Value) -> PatchError {
    PatchError::Malformed(format!(
        "{before}json: cannot unmarshal {} into Go value of type map[string]interface {{}}",
        go_type(patch)
    ))
}

/// The type of a value as Go's decoder calls it.
const fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A value as Go prints it (`%v`): `map[spec:map[replicas:3]]`. Kubernetes
/// shows strategic merge patches so.
pub fn go_value(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(list) => {
            let items: Vec<String> = list.iter().map(go_value).collect();
            format!("[{}]", items.join(" "))
        }
        Value::Object(map) => {
            let mut items: Vec<String> = map
                .iter()
                .map(|(key, value)| format!("{key}:{}", go_value(value)))
                .collect();
            items.sort();
            format!("map[{}]", items.join(" "))
        }
        Value::Bool(_) | Value::Number(_) => value.to_string(),
    }
}
