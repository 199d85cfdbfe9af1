//! Deleting a namespace: everything in it first, then itself.

use std::time::Duration;

use portolan_model::workloads::Namespace;

/// What was found of one kind in a namespace that is to go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The kind's plural name and group, such as `deployments.apps`.
    pub kind: String,
    /// How many objects there are.
    pub objects: usize,
    /// How many objects are held by each finalizer.
    pub finalizers: std::collections::BTreeMap<String, usize>,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamespaceStep {
    /// Nothing: it is not being deleted, or not held by us.
    Nothing,
    /// Something is left: say so in the status and look again.
    Wait {
        /// Text of the condition NamespaceContentRemaining.
        remaining: String,
        /// Text of the condition NamespaceFinalizersRemaining; empty: none.
        held: String,
        /// Look again after this long.
        again: Duration,
    },
    /// Nothing is left: take our finalizer off. These stay.
    Finalize(Vec<String>),
}

/// The finalizer by which namespaces wait for their content.
const KUBERNETES: &str = "kubernetes";
/// The first and the longest wait for content to go.
const WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Decides what to do about a namespace whose content was told to go `asked`
/// times and of which this is left.
pub fn namespace(namespace: &Namespace, left: &[Content], asked: u32) -> NamespaceStep {
    let ours = namespace.finalizers.iter().any(|f| f == KUBERNETES);
    if !namespace.meta.deleting || !ours {
        return NamespaceStep::Nothing;
    }
    let left: Vec<&Content> = left.iter().filter(|content| content.objects > 0).collect();
    if left.is_empty() {
        let others = namespace.finalizers.iter().filter(|f| *f != KUBERNETES);
        return NamespaceStep::Finalize(others.cloned().collect());
    }
    let remaining: Vec<String> = left
        .iter()
        .map(|content| {
            format!(
                "{} has {} resource instances",
                content.kind, content.objects
            )
        })
        .collect();
    let mut finalizers = std::collections::BTreeMap::<&str, usize>::new();
    for (name, count) in left.iter().flat_map(|content| &content.finalizers) {
        *finalizers.entry(name).or_default() += count;
    }
    let held: Vec<String> = finalizers
        .iter()
        .map(|(name, count)| format!("{name} in {count} resource instances"))
        .collect();
    NamespaceStep::Wait {
        remaining: format!("Some resources are remaining: {}", remaining.join(", ")),
        held: if held.is_empty() {
            String::new()
        } else {
            format!(
                "Some content in the namespace has finalizers remaining: {}",
                held.join(", ")
            )
        },
        again: WAIT
            .0
            .saturating_mul(2u32.saturating_pow(asked.min(10)))
            .min(WAIT.1),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_model::workloads::Object;
    use serde_json::json;

    #[test]
    fn a_namespace_goes_when_nothing_is_left() {
        let live = Namespace::read(&json!({"spec": {"finalizers": ["kubernetes"]}}));
        assert_eq!(namespace(&live, &[], 0), NamespaceStep::Nothing);
        let going = Namespace::read(&json!({
            "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"finalizers": ["kubernetes", "mine"]},
        }));
        assert_eq!(
            namespace(&going, &[Content::default()], 3),
            NamespaceStep::Finalize(vec!["mine".to_owned()])
        );
        let left = [Content {
            kind: "pods.".to_owned(),
            objects: 2,
            finalizers: [("hold".to_owned(), 1)].into(),
        }];
        assert_eq!(
            namespace(&going, &left, 1),
            NamespaceStep::Wait {
                remaining: "Some resources are remaining: pods. has 2 resource instances".into(),
                held: "Some content in the namespace has finalizers remaining: \
                       hold in 1 resource instances"
                    .into(),
                again: Duration::from_millis(200),
            }
        );
    }
}
