//! ClusterNetworkPolicies.
//!
//! Each part says what it has beyond what is read, since a rule of which not
//! everything is understood must not be taken for a wider one (N19).

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::workload::LabelSelector;
use super::{ObjectMeta, nullable};

/// Fields that are not read, by name.
pub type Others = BTreeMap<String, IgnoredAny>;

/// A ClusterNetworkPolicy of `policy.networking.k8s.io/v1alpha2`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ClusterNetworkPolicy {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    #[serde(deserialize_with = "nullable")]
    pub spec: ClusterNetworkPolicySpec,
}

/// `spec` of a ClusterNetworkPolicy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ClusterNetworkPolicySpec {
    /// Admin, Baseline.
    #[serde(deserialize_with = "nullable")]
    pub tier: String,
    /// From 0 to 1000; lower ones are asked first.
    pub priority: Option<i64>,
    /// The pods that it is about.
    #[serde(deserialize_with = "nullable")]
    pub subject: ClusterPolicyPods,
    /// About what comes in.
    #[serde(deserialize_with = "nullable")]
    pub ingress: Vec<ClusterIngressRule>,
    /// About what goes out.
    #[serde(deserialize_with = "nullable")]
    pub egress: Vec<ClusterEgressRule>,
    /// What else it has.
    #[serde(flatten)]
    pub others: Others,
}

/// Pods: exactly one of the fields.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ClusterPolicyPods {
    /// All pods of these namespaces.
    pub namespaces: Option<LabelSelector>,
    /// Some pods of some namespaces.
    pub pods: Option<NamespacedPods>,
    /// What else it has.
    #[serde(flatten)]
    pub others: Others,
}

/// Some pods of some namespaces.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NamespacedPods {
    /// Of which namespaces; all of them if it asks nothing.
    #[serde(deserialize_with = "nullable")]
    pub namespace_selector: LabelSelector,
    /// Which pods there.
    #[serde(deserialize_with = "nullable")]
    pub pod_selector: LabelSelector,
    /// What else it has.
    #[serde(flatten)]
    pub others: Others,
}

/// One element of `spec.ingress`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ClusterIngressRule {
    /// What it is called.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// Accept, Deny, Pass.
    #[serde(deserialize_with = "nullable")]
    pub action: String,
    /// About whom.
    #[serde(deserialize_with = "nullable")]
    pub from: Vec<ClusterPolicyPeer>,
    /// At which ports; none for all, and for protocols without ports.
    pub protocols: Option<Vec<ClusterPolicyProtocol>>,
    /// What else it has.
    #[serde(flatten)]
    pub others: Others,
}

/// One element of `spec.egress`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ClusterEgressRule {
    /// What it is called.
    #[serde(deserialize_with = "nullable")]
    pub name: String,
    /// Accept, Deny, Pass.
    #[serde(deserialize_with = "nullable")]
    pub action: String,
    /// About whom.
    #[serde(deserialize_with = "nullable")]
    pub to: Vec<ClusterPolicyPeer>,
    /// At which ports; none for all, and for protocols without ports.
    pub protocols: Option<Vec<ClusterPolicyProtocol>>,
    /// What else it has.
    #[serde(flatten)]
    pub others: Others,
}

/// Who a rule is about: exactly one of the fields.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ClusterPolicyPeer {
    /// All pods of these namespaces.
    pub namespaces: Option<LabelSelector>,
    /// Some pods of some namespaces.
    pub pods: Option<NamespacedPods>,
    /// Ranges of addresses, on the way out only.
    pub networks: Option<Vec<String>>,
    /// What else it has.
    #[serde(flatten)]
    pub others: Others,
}

/// Ports that a rule is about: exactly one of the fields.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterPolicyProtocol {
    /// Ports of TCP.
    pub tcp: Option<ClusterPolicyPorts>,
    /// Ports of UDP.
    pub udp: Option<ClusterPolicyPorts>,
    /// Ports of SCTP.
    pub sctp: Option<ClusterPolicyPorts>,
    /// Ports that the destination calls so, of whichever protocol.
    pub destination_named_port: Option<String>,
    /// What else it has.
    #[serde(flatten)]
    pub others: Others,
}

/// What of one protocol.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterPolicyPorts {
    /// The destination's port.
    pub destination_port: Option<ClusterPolicyPort>,
    /// What else it has.
    #[serde(flatten)]
    pub others: Others,
}

/// A port or a range: exactly one of the fields.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ClusterPolicyPort {
    /// One port.
    pub number: Option<i64>,
    /// Ports from the first to the last.
    pub range: Option<ClusterPolicyRange>,
    /// What else it has.
    #[serde(flatten)]
    pub others: Others,
}

/// Ports from the first to the last.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ClusterPolicyRange {
    /// The first.
    pub start: i64,
    /// The last.
    pub end: i64,
    /// What else it has.
    #[serde(flatten)]
    pub others: Others,
}
