//! DaemonSets.

use std::sync::Arc;

use portolan_api::value::{at, int_at, str_at};
use serde_json::Value;

use super::meta::object;
use super::stateful::HISTORY_LIMIT;
use super::{Meta, Selector, Share};

/// When pods of an older revision go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DaemonUpdate {
    /// When somebody deletes them.
    OnDelete,
    /// Node by node.
    RollingUpdate {
        /// On how many nodes the new pod may come before the old one goes.
        max_surge: Share,
        /// On how many nodes no pod may be available.
        max_unavailable: Share,
    },
}

/// `status` of a DaemonSet, as it was last written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DaemonSetStatus {
    /// The generation that the rest is about.
    pub observed_generation: i64,
    /// Nodes that should have a pod.
    pub desired: i64,
    /// Those of them that have one.
    pub current: i64,
    /// Nodes that have one and should not.
    pub misscheduled: i64,
    /// Nodes that should have one and have a ready one.
    pub ready: i64,
    /// Those whose pod is of the newest revision.
    pub updated: i64,
    /// Those whose pod is ready for long enough.
    pub available: i64,
    /// Those without such a pod.
    pub unavailable: i64,
    /// How often a revision's name was taken.
    pub collisions: i64,
}

/// A DaemonSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DaemonSet {
    /// What every object has.
    pub meta: Meta,
    /// Which pods and revisions are its own.
    pub selector: Selector,
    /// What its pods look like.
    pub template: Arc<Value>,
    /// When pods of an older revision go.
    pub update: DaemonUpdate,
    /// How long a pod must be ready to count as available.
    pub min_ready_seconds: i64,
    /// How many old revisions are kept.
    pub revision_history_limit: i64,
    /// What was last written.
    pub status: DaemonSetStatus,
}

object!(DaemonSet, read_daemon_set);

fn read_daemon_set(object: &Value) -> DaemonSet {
    let status = |field: &str| int_at(at(object, "status"), field).unwrap_or(0);
    let rolling = at(object, "spec.updateStrategy.rollingUpdate");
    let share = |field: &str, default| Share::of(at(rolling, field)).unwrap_or(default);
    DaemonSet {
        meta: Meta::of(object),
        selector: Selector::of(at(object, "spec.selector")),
        template: Arc::new(at(object, "spec.template").clone()),
        update: match str_at(object, "spec.updateStrategy.type") {
            "OnDelete" => DaemonUpdate::OnDelete,
            _ => DaemonUpdate::RollingUpdate {
                max_surge: share("maxSurge", Share::Count(0)),
                max_unavailable: share("maxUnavailable", Share::Count(1)),
            },
        },
        min_ready_seconds: int_at(object, "spec.minReadySeconds").unwrap_or(0),
        revision_history_limit: int_at(object, "spec.revisionHistoryLimit")
            .unwrap_or(HISTORY_LIMIT),
        status: DaemonSetStatus {
            observed_generation: status("observedGeneration"),
            desired: status("desiredNumberScheduled"),
            current: status("currentNumberScheduled"),
            misscheduled: status("numberMisscheduled"),
            ready: status("numberReady"),
            updated: status("updatedNumberScheduled"),
            available: status("numberAvailable"),
            unavailable: status("numberUnavailable"),
            collisions: status("collisionCount"),
        },
    }
}
