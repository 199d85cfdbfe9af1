//! StatefulSets, and the revisions that they and DaemonSets keep.

use std::sync::Arc;

use portolan_api::value::{at, int_at, list_at, str_at};
use serde_json::Value;

use super::apps::conditions;
use super::meta::object;
use super::{Condition, Meta, Selector, Share};

/// When pods of an older revision go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatefulUpdate {
    /// When somebody deletes them.
    OnDelete,
    /// From the highest ordinal down.
    RollingUpdate {
        /// Ordinals, counted from the first, that keep the current revision.
        partition: i64,
        /// How many pods may be unavailable meanwhile; none: one.
        max_unavailable: Option<Share>,
    },
}

/// `status` of a StatefulSet, as it was last written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatefulSetStatus {
    /// The generation that the rest is about.
    pub observed_generation: i64,
    /// Its pods.
    pub replicas: i64,
    /// Those that are ready.
    pub ready: i64,
    /// Those that are ready for long enough.
    pub available: i64,
    /// Those of the current revision.
    pub current: i64,
    /// Those of the update revision.
    pub updated: i64,
    /// The revision of pods below the partition.
    pub current_revision: String,
    /// The revision that the template is.
    pub update_revision: String,
    /// How often a revision's name was taken; none: never written.
    pub collisions: Option<i64>,
    /// Conditions. Nobody sets any here.
    pub conditions: Vec<Condition>,
}

/// A StatefulSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatefulSet {
    /// What every object has.
    pub meta: Meta,
    /// How many pods are wanted.
    pub replicas: i64,
    /// The ordinal of the first one.
    pub start: i64,
    /// Which pods and revisions are its own.
    pub selector: Selector,
    /// What its pods look like.
    pub template: Arc<Value>,
    /// The headless Service that its pods' names stand under.
    pub service_name: String,
    /// Whether pods come and go without waiting for each other.
    pub parallel: bool,
    /// When pods of an older revision go.
    pub update: StatefulUpdate,
    /// How long a pod must be ready to count as available.
    pub min_ready_seconds: i64,
    /// How many old revisions are kept.
    pub revision_history_limit: i64,
    /// Names of the volume claim templates.
    pub claims: Vec<String>,
    /// What was last written.
    pub status: StatefulSetStatus,
}

impl StatefulSet {
    /// The ordinal of a pod of this name; none where it is not one of its names.
    pub fn ordinal(&self, pod: &str) -> Option<i64> {
        let digits = pod.strip_prefix(&self.meta.key.name)?.strip_prefix('-')?;
        let ordinal: i64 = digits.parse().ok()?;
        // `-007` and `-+7` are somebody else's names.
        (ordinal >= 0 && ordinal.to_string() == digits).then_some(ordinal)
    }

    /// The name of the pod with this ordinal.
    pub fn pod_name(&self, ordinal: i64) -> String {
        format!("{}-{ordinal}", self.meta.key.name)
    }
}

object!(StatefulSet, read_stateful_set);

/// Kubernetes' default of `spec.revisionHistoryLimit`.
pub(super) const HISTORY_LIMIT: i64 = 10;

fn read_stateful_set(object: &Value) -> StatefulSet {
    let status = |field: &str| int_at(at(object, "status"), field).unwrap_or(0);
    let rolling = at(object, "spec.updateStrategy.rollingUpdate");
    StatefulSet {
        meta: Meta::of(object),
        replicas: int_at(object, "spec.replicas").unwrap_or(1),
        start: int_at(object, "spec.ordinals.start").unwrap_or(0),
        selector: Selector::of(at(object, "spec.selector")),
        template: Arc::new(at(object, "spec.template").clone()),
        service_name: str_at(object, "spec.serviceName").to_owned(),
        parallel: str_at(object, "spec.podManagementPolicy") == "Parallel",
        update: match str_at(object, "spec.updateStrategy.type") {
            "OnDelete" => StatefulUpdate::OnDelete,
            _ => StatefulUpdate::RollingUpdate {
                partition: int_at(rolling, "partition").unwrap_or(0),
                max_unavailable: Share::of(at(rolling, "maxUnavailable")),
            },
        },
        min_ready_seconds: int_at(object, "spec.minReadySeconds").unwrap_or(0),
        revision_history_limit: int_at(object, "spec.revisionHistoryLimit")
            .unwrap_or(HISTORY_LIMIT),
        claims: list_at(object, "spec.volumeClaimTemplates")
            .iter()
            .map(|claim| str_at(claim, "metadata.name").to_owned())
            .collect(),
        status: StatefulSetStatus {
            observed_generation: status("observedGeneration"),
            replicas: status("replicas"),
            ready: status("readyReplicas"),
            available: status("availableReplicas"),
            current: status("currentReplicas"),
            updated: status("updatedReplicas"),
            current_revision: str_at(object, "status.currentRevision").to_owned(),
            update_revision: str_at(object, "status.updateRevision").to_owned(),
            collisions: int_at(object, "status.collisionCount"),
            conditions: conditions(object),
        },
    }
}

/// A former state of a StatefulSet or DaemonSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerRevision {
    /// What every object has.
    pub meta: Meta,
    /// Its place in the history.
    pub revision: i64,
    /// The patch that brings the state back.
    pub data: Arc<Value>,
}

object!(ControllerRevision, read_revision);

fn read_revision(object: &Value) -> ControllerRevision {
    ControllerRevision {
        meta: Meta::of(object),
        revision: int_at(object, "revision").unwrap_or(0),
        data: Arc::new(at(object, "data").clone()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workloads::Object;
    use serde_json::json;

    #[test]
    fn only_plain_ordinals_are_its_pods_names() {
        let set = StatefulSet::read(&json!({"metadata": {"name": "web"}}));
        let cases = [
            ("web-0", Some(0)),
            ("web-12", Some(12)),
            ("web-012", None),
            ("web-+1", None),
            ("web--1", None),
            ("web-", None),
            ("web-a", None),
            ("other-1", None),
            ("web-1-2", None),
            ("web-99999999999999999999", None),
        ];
        for (name, ordinal) in cases {
            assert_eq!(set.ordinal(name), ordinal, "{name}");
        }
        assert_eq!(set.pod_name(3), "web-3");
    }
}
