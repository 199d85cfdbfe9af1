//! Event.

use super::{ObjectMeta, ObjectReference, nullable};
use serde::Deserialize;

/// Something that happened to an object.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Event {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// To which object.
    #[serde(deserialize_with = "nullable")]
    pub involved_object: ObjectReference,
    /// Machine readable.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Normal or Warning.
    #[serde(rename = "type")]
    pub event_type: String,
    /// When it was last seen (RFC 3339).
    pub last_timestamp: Option<String>,
}
