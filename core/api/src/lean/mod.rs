//! Typed views of objects with only the fields that a decision needs.
//!
//! Read-only on purpose: writing one back would lose what it does not name.
//! A null, which Go clients write for an empty list, reads as the default.

mod cluster_policy;
mod endpoints;
mod event;
mod node;
mod pod;
mod policy;
mod service;
mod workload;

pub use cluster_policy::{
    ClusterEgressRule, ClusterIngressRule, ClusterNetworkPolicy, ClusterNetworkPolicySpec,
    ClusterPolicyPeer, ClusterPolicyPods, ClusterPolicyPort, ClusterPolicyPorts,
    ClusterPolicyProtocol, ClusterPolicyRange, NamespacedPods, Others,
};
pub use endpoints::{
    Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode, ForZone,
};
pub use event::Event;
pub use node::{
    Namespace, NamespaceSpec, NamespaceStatus, Node, NodeAddress, NodeSpec, NodeStatus,
    ServiceCidr, ServiceCidrSpec, Taint,
};
pub use pod::{
    Condition, Container, ContainerPort, ContainerState, ContainerStatus, HostIp, Pod, PodFacts,
    PodHost, PodIp, PodPlace, PodSpec, PodStatus, PortsOnly, Probe, ProbeCommand, ProbePort,
    ReadinessGate, StateRunning, StateTerminated, StateWaiting, Toleration,
};
pub use policy::{
    EgressRule, IngressRule, IpBlock, NetworkPolicy, NetworkPolicySpec, PolicyPeer, PolicyPort,
};
pub use service::{
    ClientIpConfig, LoadBalancerIngress, LoadBalancerStatus, Service, ServicePort, ServiceSpec,
    ServiceStatus, SessionAffinityConfig,
};
pub use workload::{
    Deployment, DeploymentSpec, DeploymentStrategy, IntOrString, LabelSelector,
    LabelSelectorRequirement, ReplicaSet, ReplicaSetSpec, RollingUpdate,
};

use serde::{Deserialize, Deserializer};
use serde_json::Value;
use std::collections::BTreeMap;

/// `metadata`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectMeta {
    /// Name.
    pub name: String,
    /// Prefix of a generated name.
    pub generate_name: String,
    /// Namespace, "" for kinds without one.
    pub namespace: String,
    /// Identity over time.
    pub uid: String,
    /// Version in the store.
    pub resource_version: String,
    /// Version of the desired state.
    pub generation: i64,
    /// Labels.
    #[serde(deserialize_with = "nullable")]
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    #[serde(deserialize_with = "nullable")]
    pub annotations: BTreeMap<String, String>,
    /// Owners.
    #[serde(deserialize_with = "nullable")]
    pub owner_references: Vec<OwnerReference>,
    /// What must be done before the object goes.
    #[serde(deserialize_with = "nullable")]
    pub finalizers: Vec<String>,
    /// When it was made (RFC 3339).
    pub creation_timestamp: Option<String>,
    /// When its deletion is due (RFC 3339); set means it is being deleted.
    pub deletion_timestamp: Option<String>,
    /// Seconds from the request for deletion to that time.
    pub deletion_grace_period_seconds: Option<i64>,
}

impl ObjectMeta {
    /// The owner that controls the object.
    pub fn controller(&self) -> Option<&OwnerReference> {
        self.owner_references.iter().find(|owner| owner.controller)
    }

    /// Whether it is being deleted.
    pub fn is_deleting(&self) -> bool {
        self.deletion_timestamp.is_some()
    }
}

/// One entry of `metadata.ownerReferences`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct OwnerReference {
    /// `apps/v1`.
    pub api_version: String,
    /// `ReplicaSet`.
    pub kind: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
    /// Whether this owner controls the object.
    pub controller: bool,
    /// Whether foreground deletion of the owner waits for the object.
    pub block_owner_deletion: bool,
}

/// A reference to an object (`targetRef`).
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectReference {
    /// `Pod`.
    pub kind: String,
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
}

/// A typed view of an object.
pub fn view<T: for<'de> Deserialize<'de>>(object: &Value) -> Result<T, serde_json::Error> {
    T::deserialize(object)
}

/// Null reads as the default.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Ok(Option::<T>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nulls_and_unknown_fields_are_no_hindrance() {
        let slice: EndpointSlice = view(&json!({
            "metadata": {"name": "a", "labels": null},
            "addressType": "IPv4", "endpoints": null, "ports": null, "later": {"x": 1},
        }))
        .unwrap();
        assert_eq!(slice.metadata.name, "a");
        assert!(slice.endpoints.is_empty() && slice.ports.is_empty());
    }

    #[test]
    fn target_ports_are_numbers_or_names() {
        let service: Service = view(&json!({
            "spec": {"ports": [{"port": 80, "targetPort": 8080}, {"port": 81, "targetPort": "http"}]},
        }))
        .unwrap();
        assert_eq!(
            service.spec.ports[0].target_port,
            Some(IntOrString::Int(8080))
        );
        assert_eq!(
            service.spec.ports[1].target_port,
            Some(IntOrString::String("http".into()))
        );
    }
}
