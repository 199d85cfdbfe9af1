//! Deleting a namespace: everything in it first, then itself.
//!
//! Pods go before anything else (KEP-5080): a Secret or a NetworkPolicy that
//! goes while pods still run would change what they do.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use portolan_model::workloads::{Condition, Namespace};
use serde_json::{Value, json};

use super::status::{condition_json, whole_second};

/// What was found of one kind in a namespace that is to go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// The kind's plural name and group, such as `deployments.apps`.
    pub kind: String,
    /// How many objects there are.
    pub objects: usize,
    /// How many objects are held by each finalizer.
    pub finalizers: BTreeMap<String, usize>,
}

/// How far the content of a namespace is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Emptying {
    /// What is left.
    pub left: Vec<Content>,
    /// Why the kinds to delete could not be found out.
    pub discovery: Option<String>,
    /// Why objects could not be told to go.
    pub failures: Vec<String>,
    /// How often the content was told to go before.
    pub asked: u32,
}

/// What is to be done next.
#[derive(Clone, Debug, PartialEq)]
pub enum NamespaceStep {
    /// Nothing: it is not being deleted, or not held by us.
    Nothing,
    /// Something is left: say so in the status and look again.
    Wait {
        /// The new conditions, where they differ from those that are there.
        conditions: Option<Value>,
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

/// Decides what to do about a namespace whose content is so far gone.
pub fn namespace(namespace: &Namespace, emptying: &Emptying, now: Timestamp) -> NamespaceStep {
    let ours = namespace.finalizers.iter().any(|f| f == KUBERNETES);
    if !namespace.meta.deleting || !ours {
        return NamespaceStep::Nothing;
    }
    let failed = emptying.discovery.is_some() || !emptying.failures.is_empty();
    if !failed && emptying.left.iter().all(|content| content.objects == 0) {
        let others = namespace.finalizers.iter().filter(|f| *f != KUBERNETES);
        return NamespaceStep::Finalize(others.cloned().collect());
    }
    let conditions = conditions(namespace, emptying, now);
    NamespaceStep::Wait {
        conditions: (conditions != namespace.conditions)
            .then(|| conditions.iter().map(condition_json).collect()),
        again: WAIT
            .0
            .saturating_mul(2u32.saturating_pow(emptying.asked.min(10)))
            .min(WAIT.1),
    }
}

/// Kubernetes' five conditions of a namespace that goes. The time of one
/// changes only with its status.
fn conditions(namespace: &Namespace, emptying: &Emptying, now: Timestamp) -> Vec<Condition> {
    [
        discovery(emptying),
        parsing(),
        deletion(emptying),
        remaining(emptying),
        finalizers(emptying),
    ]
    .into_iter()
    .map(|told| {
        let status = if told.holds { "True" } else { "False" };
        let was = namespace
            .conditions
            .iter()
            .find(|was| was.kind == told.kind);
        let since = was
            .filter(|was| was.status == status)
            .and_then(|was| was.changed);
        Condition {
            kind: told.kind.to_owned(),
            status: status.to_owned(),
            reason: told.reason.to_owned(),
            message: told.message,
            updated: None,
            changed: since.or_else(|| whole_second(now)),
        }
    })
    .collect()
}

/// One condition, without times.
struct Told {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

impl Told {
    fn well(kind: &'static str, reason: &'static str, message: &str) -> Self {
        Self {
            kind,
            holds: false,
            reason,
            message: message.to_owned(),
        }
    }

    fn trouble(kind: &'static str, reason: &'static str, message: String) -> Self {
        Self {
            kind,
            holds: true,
            reason,
            message,
        }
    }
}

fn discovery(emptying: &Emptying) -> Told {
    let kind = "NamespaceDeletionDiscoveryFailure";
    match &emptying.discovery {
        None => Told::well(
            kind,
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        Some(error) => Told::trouble(
            kind,
            "DiscoveryFailed",
            format!("Discovery failed for some groups, 1 failing: {error}"),
        ),
    }
}

fn parsing() -> Told {
    Told::well(
        "NamespaceDeletionGroupVersionParsingFailure",
        "ParsedGroupVersions",
        "All legacy kube types successfully parsed",
    )
}

fn deletion(emptying: &Emptying) -> Told {
    let kind = "NamespaceDeletionContentFailure";
    let count = emptying.failures.len();
    if count == 0 {
        return Told::well(
            kind,
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        );
    }
    let errors = match emptying.failures.as_slice() {
        [only] => only.clone(),
        many => format!("[{}]", many.join(", ")),
    };
    Told::trouble(
        kind,
        "ContentDeletionFailed",
        format!("Failed to delete all resource types, {count} remaining: {errors}"),
    )
}

fn remaining(emptying: &Emptying) -> Told {
    let kind = "NamespaceContentRemaining";
    let mut left: Vec<String> = emptying
        .left
        .iter()
        .filter(|content| content.objects > 0)
        .map(|content| {
            format!(
                "{} has {} resource instances",
                content.kind, content.objects
            )
        })
        .collect();
    if left.is_empty() {
        return Told::well(kind, "ContentRemoved", "All content successfully removed");
    }
    left.sort();
    Told::trouble(
        kind,
        "SomeResourcesRemain",
        format!("Some resources are remaining: {}", left.join(", ")),
    )
}

fn finalizers(emptying: &Emptying) -> Told {
    let kind = "NamespaceFinalizersRemaining";
    let mut held = BTreeMap::<&str, usize>::new();
    for (name, count) in emptying.left.iter().flat_map(|content| &content.finalizers) {
        *held.entry(name).or_default() += count;
    }
    if held.is_empty() {
        return Told::well(
            kind,
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        );
    }
    let held: Vec<String> = held
        .iter()
        .map(|(name, count)| format!("{name} in {count} resource instances"))
        .collect();
    Told::trouble(
        kind,
        "SomeFinalizersRemain",
        format!(
            "Some content in the namespace has finalizers remaining: {}",
            held.join(", ")
        ),
    )
}

/// A status that has these conditions.
pub fn namespace_status(conditions: &Value) -> Value {
    json!({"status": {"conditions": conditions}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_model::workloads::Object;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).expect("in range")
    }

    fn going(conditions: Value) -> Namespace {
        Namespace::read(&json!({
            "metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"finalizers": ["kubernetes", "mine"]},
            "status": {"conditions": conditions},
        }))
    }

    fn pods(objects: usize, finalizer: Option<&str>) -> Emptying {
        Emptying {
            left: vec![Content {
                kind: "pods.".to_owned(),
                objects,
                finalizers: finalizer.into_iter().map(|f| (f.to_owned(), 1)).collect(),
            }],
            asked: 1,
            ..Emptying::default()
        }
    }

    fn waits(step: &NamespaceStep) -> &Value {
        let NamespaceStep::Wait {
            conditions: Some(conditions),
            ..
        } = step
        else {
            panic!("{step:?}");
        };
        conditions
    }

    #[test]
    fn a_namespace_goes_when_nothing_is_left() {
        let live = Namespace::read(&json!({"spec": {"finalizers": ["kubernetes"]}}));
        let nothing = Emptying::default();
        assert_eq!(namespace(&live, &nothing, at(0)), NamespaceStep::Nothing);
        assert_eq!(
            namespace(&going(json!([])), &pods(0, None), at(0)),
            NamespaceStep::Finalize(vec!["mine".to_owned()])
        );
    }

    #[test]
    fn what_is_left_and_what_holds_it_is_told() {
        let step = namespace(&going(json!([])), &pods(2, Some("hold")), at(0));
        let told: Vec<(&str, &str, &str, &str)> = waits(&step)
            .as_array()
            .expect("a list")
            .iter()
            .map(|c| {
                let text = |field: &str| c[field].as_str().unwrap_or("");
                (
                    text("type"),
                    text("status"),
                    text("reason"),
                    text("message"),
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                (
                    "NamespaceDeletionDiscoveryFailure",
                    "False",
                    "ResourcesDiscovered",
                    "All resources successfully discovered"
                ),
                (
                    "NamespaceDeletionGroupVersionParsingFailure",
                    "False",
                    "ParsedGroupVersions",
                    "All legacy kube types successfully parsed"
                ),
                (
                    "NamespaceDeletionContentFailure",
                    "False",
                    "ContentDeleted",
                    "All content successfully deleted, may be waiting on finalization"
                ),
                (
                    "NamespaceContentRemaining",
                    "True",
                    "SomeResourcesRemain",
                    "Some resources are remaining: pods. has 2 resource instances"
                ),
                (
                    "NamespaceFinalizersRemaining",
                    "True",
                    "SomeFinalizersRemain",
                    "Some content in the namespace has finalizers remaining: \
                     hold in 1 resource instances"
                ),
            ]
        );
    }

    #[test]
    fn failures_keep_it_and_are_told() {
        let emptying = Emptying {
            discovery: Some("no answer".to_owned()),
            failures: vec!["cannot delete pods".to_owned()],
            ..Emptying::default()
        };
        let step = namespace(&going(json!([])), &emptying, at(0));
        let told = waits(&step);
        assert_eq!(
            told[0]["message"],
            "Discovery failed for some groups, 1 failing: no answer"
        );
        assert_eq!(
            told[2]["message"],
            "Failed to delete all resource types, 1 remaining: cannot delete pods"
        );
        assert_eq!(told[3]["reason"], "ContentRemoved");
    }

    #[test]
    fn nothing_new_is_not_written_and_times_change_with_the_status_only() {
        let first = namespace(&going(json!([])), &pods(2, None), at(0));
        let told = waits(&first).clone();
        let same = namespace(&going(told.clone()), &pods(2, None), at(9));
        assert!(matches!(
            same,
            NamespaceStep::Wait {
                conditions: None,
                ..
            }
        ));
        let fewer = namespace(&going(told.clone()), &pods(1, Some("hold")), at(9));
        let fewer = waits(&fewer);
        assert_eq!(
            fewer[3]["lastTransitionTime"],
            told[3]["lastTransitionTime"]
        );
        assert_ne!(
            fewer[4]["lastTransitionTime"],
            told[4]["lastTransitionTime"]
        );
    }
}
