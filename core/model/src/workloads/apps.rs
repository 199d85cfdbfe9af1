//! Deployments and ReplicaSets.

use std::sync::Arc;

use jiff::Timestamp;
use portolan_api::value::{at, bool_at, int_at, list_at, str_at};
use serde_json::Value;

use super::meta::{object, time};
use super::{Meta, Selector};

/// One of `status.conditions`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Such as `Available`.
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// Why, for machines.
    pub reason: String,
    /// Why, for people.
    pub message: String,
    /// When it was last written.
    pub updated: Option<Timestamp>,
    /// When `status` last changed.
    pub changed: Option<Timestamp>,
}

impl Condition {
    pub(super) fn of(value: &Value) -> Self {
        Self {
            kind: str_at(value, "type").to_owned(),
            status: str_at(value, "status").to_owned(),
            reason: str_at(value, "reason").to_owned(),
            message: str_at(value, "message").to_owned(),
            updated: time(str_at(value, "lastUpdateTime")),
            changed: time(str_at(value, "lastTransitionTime")),
        }
    }
}

/// A number of pods, or a percentage of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// So many.
    Count(i64),
    /// So many in a hundred.
    Percent(i64),
}

impl Share {
    /// Reads `3` or `"25%"`.
    pub fn of(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => number.as_i64().map(Self::Count),
            Value::String(text) => text
                .strip_suffix('%')
                .and_then(|percent| percent.parse().ok())
                .map(Self::Percent),
            Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// The number it means for `total`, rounded up.
    pub fn rounded_up(self, total: i64) -> i64 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => (percent.saturating_mul(total) + 99).div_euclid(100),
        }
    }

    /// The number it means for `total`, rounded down.
    pub fn rounded_down(self, total: i64) -> i64 {
        match self {
            Self::Count(count) => count,
            Self::Percent(percent) => percent.saturating_mul(total).div_euclid(100),
        }
    }
}

/// How a Deployment replaces its pods.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Old pods go before new ones come.
    Recreate,
    /// Step by step.
    RollingUpdate {
        /// How many pods more than wanted there may be.
        max_surge: Share,
        /// How many fewer than wanted may be available.
        max_unavailable: Share,
    },
}

/// `status` of a Deployment, as it was last written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeploymentStatus {
    /// The generation that the rest is about.
    pub observed_generation: i64,
    /// Pods of all its ReplicaSets.
    pub replicas: i64,
    /// Pods of the newest one.
    pub updated: i64,
    /// Ready pods.
    pub ready: i64,
    /// Available pods.
    pub available: i64,
    /// Pods still missing.
    pub unavailable: i64,
    /// Pods that are being deleted; none: not known yet.
    pub terminating: Option<i64>,
    /// How often a ReplicaSet's name was taken by somebody else.
    pub collisions: i64,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

/// A Deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// What every object has.
    pub meta: Meta,
    /// How many pods are wanted.
    pub replicas: i64,
    /// Which ReplicaSets and pods are its own.
    pub selector: Selector,
    /// The selector as it came.
    pub selector_json: Arc<Value>,
    /// What its pods look like.
    pub template: Arc<Value>,
    /// How pods are replaced.
    pub strategy: Strategy,
    /// How long a pod must be ready to count as available.
    pub min_ready_seconds: i64,
    /// How many old ReplicaSets are kept; none: all.
    pub revision_history_limit: Option<i64>,
    /// Whether rollouts wait.
    pub paused: bool,
    /// After how long without progress a rollout counts as failed; none: never.
    pub progress_deadline: Option<i64>,
    /// What was last written.
    pub status: DeploymentStatus,
}

/// `math.MaxInt32` stands for "no deadline".
const NO_DEADLINE: i64 = i32::MAX as i64;

object!(Deployment, read_deployment);

fn read_deployment(object: &Value) -> Deployment {
    let status = |field: &str| int_at(at(object, "status"), field).unwrap_or(0);
    let rolling = at(object, "spec.strategy.rollingUpdate");
    // An object from the server has its defaults; these are for others.
    let share = |field: &str| Share::of(at(rolling, field)).unwrap_or(Share::Percent(25));
    Deployment {
        meta: Meta::of(object),
        replicas: int_at(object, "spec.replicas").unwrap_or(1),
        selector: Selector::of(at(object, "spec.selector")),
        selector_json: Arc::new(at(object, "spec.selector").clone()),
        template: Arc::new(at(object, "spec.template").clone()),
        strategy: match str_at(object, "spec.strategy.type") {
            "Recreate" => Strategy::Recreate,
            _ => Strategy::RollingUpdate {
                max_surge: share("maxSurge"),
                max_unavailable: share("maxUnavailable"),
            },
        },
        min_ready_seconds: int_at(object, "spec.minReadySeconds").unwrap_or(0),
        revision_history_limit: int_at(object, "spec.revisionHistoryLimit"),
        paused: bool_at(object, "spec.paused"),
        progress_deadline: int_at(object, "spec.progressDeadlineSeconds")
            .filter(|seconds| *seconds != NO_DEADLINE),
        status: DeploymentStatus {
            observed_generation: status("observedGeneration"),
            replicas: status("replicas"),
            updated: status("updatedReplicas"),
            ready: status("readyReplicas"),
            available: status("availableReplicas"),
            unavailable: status("unavailableReplicas"),
            terminating: int_at(object, "status.terminatingReplicas"),
            collisions: status("collisionCount"),
            conditions: conditions(object),
        },
    }
}

pub(super) fn conditions(object: &Value) -> Vec<Condition> {
    list_at(object, "status.conditions")
        .iter()
        .map(Condition::of)
        .collect()
}

/// `status` of a ReplicaSet, as it was last written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaSetStatus {
    /// The generation that the rest is about.
    pub observed_generation: i64,
    /// Its pods.
    pub replicas: i64,
    /// Those with all labels of the template.
    pub fully_labeled: i64,
    /// Those that are ready.
    pub ready: i64,
    /// Those that are ready for long enough.
    pub available: i64,
    /// Those that are being deleted, which count nowhere else; none: not known yet.
    pub terminating: Option<i64>,
    /// Conditions.
    pub conditions: Vec<Condition>,
}

/// A ReplicaSet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaSet {
    /// What every object has.
    pub meta: Meta,
    /// How many pods are wanted.
    pub replicas: i64,
    /// Which pods are its own.
    pub selector: Selector,
    /// What its pods look like.
    pub template: Arc<Value>,
    /// How long a pod must be ready to count as available.
    pub min_ready_seconds: i64,
    /// What was last written.
    pub status: ReplicaSetStatus,
}

object!(ReplicaSet, read_replica_set);

fn read_replica_set(object: &Value) -> ReplicaSet {
    let status = |field: &str| int_at(at(object, "status"), field).unwrap_or(0);
    ReplicaSet {
        meta: Meta::of(object),
        replicas: int_at(object, "spec.replicas").unwrap_or(1),
        selector: Selector::of(at(object, "spec.selector")),
        template: Arc::new(at(object, "spec.template").clone()),
        min_ready_seconds: int_at(object, "spec.minReadySeconds").unwrap_or(0),
        status: ReplicaSetStatus {
            observed_generation: status("observedGeneration"),
            replicas: status("replicas"),
            fully_labeled: status("fullyLabeledReplicas"),
            ready: status("readyReplicas"),
            available: status("availableReplicas"),
            terminating: int_at(object, "status.terminatingReplicas"),
            conditions: conditions(object),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn shares_round_as_kubernetes_does() {
        let share = Share::of(&json!("25%")).unwrap();
        assert_eq!((share.rounded_up(3), share.rounded_down(3)), (1, 0));
        assert_eq!((share.rounded_up(4), share.rounded_down(4)), (1, 1));
        assert_eq!((share.rounded_up(10), share.rounded_down(10)), (3, 2));
        assert_eq!(Share::of(&json!(2)).unwrap().rounded_down(10), 2);
        assert_eq!(Share::of(&json!("many")), None);
    }
}
