//! Kinds that are known only at run time: CustomResourceDefinitions.
//!
//! ```text
//! CustomResourceDefinition ─► crd: validated, defaulted
//!            │                names: accepted or in conflict ─► conditions
//!            ▼
//!    definition::versions ─► one Kind per served version
//!                             ├ prune, check: objects against their schema
//!                             ├ printer, scale, selectable fields
//!                             └ published: what discovery's OpenAPI tells
//! ```
//!
//! [`crate::Kind`] dispatches to its [`Definition`], so that the rest of the
//! server does not know the difference. Versions differ in `apiVersion` only
//! (conversion strategy None): webhooks are not called.

mod check;
pub(crate) mod crd;
mod definition;
mod format;
pub mod intern;
pub mod jsonpath;
pub mod names;
mod printer;
mod prune;
pub(crate) mod published;
pub mod rules;
mod schema;

pub use crd::rule_faults;
pub use definition::{Definition, Version, versions};

/// The finalizer that keeps a definition until its objects are gone.
pub const CLEANUP_FINALIZER: &str = "customresourcecleanup.apiextensions.k8s.io";

/// Orders versions as Kubernetes does: `v2`, `v1`, `v1beta2`, `v1beta1`,
/// `v1alpha1`, and then all others by their text.
pub fn priority(version: &str) -> (u8, i64, i64, String) {
    let parsed = version.strip_prefix('v').and_then(|rest| {
        let major_end = rest
            .find(|char: char| !char.is_ascii_digit())
            .unwrap_or(rest.len());
        let (major, rest) = rest.split_at(major_end);
        let major: i64 = major.parse().ok()?;
        let (stability, minor) = if rest.is_empty() {
            (0, 0)
        } else if let Some(minor) = rest.strip_prefix("beta") {
            (1, minor.parse().ok()?)
        } else {
            (2, rest.strip_prefix("alpha")?.parse().ok()?)
        };
        Some((stability, -major, -minor, String::new()))
    });
    parsed.unwrap_or_else(|| (3, 0, 0, version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_and_new_versions_come_first() {
        let mut versions = [
            "foo1", "v1alpha1", "v10", "v1beta1", "v1", "v11beta2", "v1beta2", "v2",
        ];
        versions.sort_by_key(|version| priority(version));
        assert_eq!(
            versions,
            [
                "v10", "v2", "v1", "v11beta2", "v1beta2", "v1beta1", "v1alpha1", "foo1"
            ]
        );
    }
}
