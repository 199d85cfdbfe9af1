//! Conflicts of an apply, in kubectl's words.

use super::entries::Identity;
use super::set::{FieldSet, shown};

/// A field that somebody else owns with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// The field, `.spec.replicas`.
    pub field: String,
    /// Whose it is, `"kubectl" using apps/v1`.
    pub manager: String,
}

/// One conflict per field of the set.
pub(super) fn conflict(identity: &Identity, fields: &FieldSet) -> Vec<Conflict> {
    let manager = manager(identity);
    fields
        .paths()
        .iter()
        .map(|path| Conflict {
            field: shown(path),
            manager: manager.clone(),
        })
        .collect()
}

fn manager(identity: &Identity) -> String {
    let mut text = format!("{:?}", identity.name);
    if !identity.subresource.is_empty() {
        text.push_str(&format!(" with subresource {:?}", identity.subresource));
    }
    if !identity.applies {
        text.push_str(&format!(" using {}", identity.api_version));
    }
    text
}

/// All conflicts as one message.
pub(super) fn message(conflicts: &[Conflict]) -> String {
    if let [only] = conflicts {
        return format!(
            "Apply failed with 1 conflict: conflict with {}: {}",
            only.manager, only.field
        );
    }
    let mut lines = Vec::new();
    let mut managers: Vec<&str> = conflicts
        .iter()
        .map(|conflict| conflict.manager.as_str())
        .collect();
    managers.sort_unstable();
    managers.dedup();
    for manager in managers {
        lines.push(format!("conflicts with {manager}:"));
        let own = conflicts
            .iter()
            .filter(|conflict| conflict.manager == manager);
        lines.extend(own.map(|conflict| format!("- {}", conflict.field)));
    }
    format!(
        "Apply failed with {} conflicts: {}",
        conflicts.len(),
        lines.join("\n")
    )
}
