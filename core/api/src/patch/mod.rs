//! The three patch formats that change an object.
//!
//! JSON Patch (RFC 6902) addresses places, JSON merge patch (RFC 7386) merges
//! maps, strategic merge patch also merges lists by the merge keys that
//! [`crate::schema`] knows.

mod json;
mod merge;
mod strategic;

pub use self::json::json_patch;
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
    /// The patch is well formed but does not fit the object (422).
    #[error("{0}")]
    DoesNotApply(String),
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
            false => {
                return Err(PatchError::Malformed(
                    "a merge patch must be an object".to_owned(),
                ));
            }
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
