//! Deployment and ReplicaSet, and what they share.

use super::{ObjectMeta, nullable};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// A number or a text: a port or its name, a count or a percentage.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(untagged)]
pub enum IntOrString {
    /// A number.
    Int(i32),
    /// A name or a percentage.
    String(String),
}

/// `matchLabels` and `matchExpressions`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LabelSelector {
    /// Labels that must be there with these values.
    #[serde(deserialize_with = "nullable")]
    pub match_labels: BTreeMap<String, String>,
    /// Further conditions.
    #[serde(deserialize_with = "nullable")]
    pub match_expressions: Vec<LabelSelectorRequirement>,
}

/// One condition of a [`LabelSelector`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct LabelSelectorRequirement {
    /// The label's key.
    pub key: String,
    /// In, NotIn, Exists, DoesNotExist.
    pub operator: String,
    /// Values of In and NotIn.
    #[serde(deserialize_with = "nullable")]
    pub values: Vec<String>,
}

/// A Deployment.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Deployment {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    #[serde(deserialize_with = "nullable")]
    pub spec: DeploymentSpec,
}

/// `spec` of a Deployment.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentSpec {
    /// How many pods.
    pub replicas: Option<i32>,
    /// Which pods are its.
    #[serde(deserialize_with = "nullable")]
    pub selector: LabelSelector,
    /// What pods look like, as it is.
    pub template: Value,
    /// How to replace pods.
    #[serde(deserialize_with = "nullable")]
    pub strategy: DeploymentStrategy,
    /// How long a pod must be ready to count as available.
    pub min_ready_seconds: i32,
    /// How many old ReplicaSets to keep.
    pub revision_history_limit: Option<i32>,
    /// Whether rollouts stand still.
    pub paused: bool,
    /// How long a rollout may stand still before it has failed.
    pub progress_deadline_seconds: Option<i32>,
}

/// `spec.strategy` of a Deployment.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct DeploymentStrategy {
    /// RollingUpdate or Recreate.
    #[serde(rename = "type")]
    pub strategy_type: String,
    /// Settings of RollingUpdate.
    pub rolling_update: Option<RollingUpdate>,
}

/// Settings of a rolling update.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RollingUpdate {
    /// How many pods may be missing.
    pub max_unavailable: Option<IntOrString>,
    /// How many pods there may be beyond the wanted number.
    pub max_surge: Option<IntOrString>,
}

/// A ReplicaSet.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicaSet {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    #[serde(deserialize_with = "nullable")]
    pub spec: ReplicaSetSpec,
}

/// `spec` of a ReplicaSet.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReplicaSetSpec {
    /// How many pods.
    pub replicas: Option<i32>,
    /// How long a pod must be ready to count as available.
    pub min_ready_seconds: i32,
    /// Which pods are its.
    #[serde(deserialize_with = "nullable")]
    pub selector: LabelSelector,
    /// What pods look like, as it is.
    pub template: Value,
}
