//! What is wrong with an object, in Kubernetes' words.
//!
//! Every rule gives [`crate::Cause`]s with the field path, reason and message
//! that kube-apiserver gives; they are lists with repeats on purpose, since
//! some inputs break two rules on one path. Types have been checked before
//! ([`crate::fields::mistyped`]), so a wrong type just reads as absent here.

pub mod address;
pub mod container;
pub mod daemon_set;
pub mod data;
pub mod endpoints;
pub mod ingress;
pub mod labels;
pub mod lease;
pub mod meta;
pub mod names;
pub mod network_policy;
pub mod node;
pub mod pod;
pub mod quantity;
pub mod secret;
pub mod service;
pub mod service_cidr;
pub mod service_ips;
pub mod service_warnings;
pub mod stateful_set;
pub mod workload;

use crate::cause::Cause;
use serde_json::Value;

/// The message for a field that may not change.
pub(crate) const IMMUTABLE: &str = "field is immutable";

/// One `Invalid` per message.
pub(crate) fn invalid(path: &str, value: &Value, messages: Vec<String>) -> Vec<Cause> {
    messages
        .iter()
        .map(|message| Cause::invalid(path, value, message))
        .collect()
}

/// A field that must not change on update.
pub(crate) fn immutable(path: &str, new: &Value, old: &Value) -> Option<Cause> {
    (new != old).then(|| Cause::invalid(path, new, IMMUTABLE))
}

/// A number that must not be negative; absent is fine.
pub(crate) fn not_negative(path: &str, value: &Value) -> Option<Cause> {
    let negative = value.as_i64().is_some_and(|number| number < 0);
    negative.then(|| Cause::invalid(path, value, "must be greater than or equal to 0"))
}
