//! NetworkPolicies.

use serde::Deserialize;

use super::workload::{IntOrString, LabelSelector};
use super::{ObjectMeta, nullable};

/// A NetworkPolicy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct NetworkPolicy {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    #[serde(deserialize_with = "nullable")]
    pub spec: NetworkPolicySpec,
}

/// `spec` of a NetworkPolicy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct NetworkPolicySpec {
    /// The pods that it isolates.
    #[serde(deserialize_with = "nullable")]
    pub pod_selector: LabelSelector,
    /// Ingress, Egress.
    #[serde(deserialize_with = "nullable")]
    pub policy_types: Vec<String>,
    /// What may come in.
    #[serde(deserialize_with = "nullable")]
    pub ingress: Vec<IngressRule>,
    /// What may go out; whether it is there at all counts where `policyTypes` is not.
    pub egress: Option<Vec<EgressRule>>,
}

/// One element of `spec.ingress`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct IngressRule {
    /// Who may come in.
    #[serde(deserialize_with = "nullable")]
    pub from: Vec<PolicyPeer>,
    /// To which ports.
    #[serde(deserialize_with = "nullable")]
    pub ports: Vec<PolicyPort>,
}

/// One element of `spec.egress`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct EgressRule {
    /// Where to.
    #[serde(deserialize_with = "nullable")]
    pub to: Vec<PolicyPeer>,
    /// To which ports.
    #[serde(deserialize_with = "nullable")]
    pub ports: Vec<PolicyPort>,
}

/// Who a rule is about.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyPeer {
    /// Pods.
    pub pod_selector: Option<LabelSelector>,
    /// Namespaces of pods.
    pub namespace_selector: Option<LabelSelector>,
    /// A range of addresses.
    pub ip_block: Option<IpBlock>,
}

/// A range of addresses less others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct IpBlock {
    /// The range.
    pub cidr: String,
    /// What is not of it.
    #[serde(deserialize_with = "nullable")]
    pub except: Vec<String>,
}

/// Ports of a rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PolicyPort {
    /// TCP, UDP, SCTP.
    pub protocol: Option<String>,
    /// A number or a name; none for all.
    pub port: Option<IntOrString>,
    /// The last port of a range.
    pub end_port: Option<i32>,
}
