//! EndpointSlice.

use super::{ObjectMeta, ObjectReference, nullable};
use serde::Deserialize;

/// Some of the endpoints of a Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointSlice {
    /// Metadata; the label `kubernetes.io/service-name` names the Service.
    pub metadata: ObjectMeta,
    /// IPv4, IPv6 or FQDN.
    pub address_type: String,
    /// Endpoints.
    #[serde(deserialize_with = "nullable")]
    pub endpoints: Vec<Endpoint>,
    /// The ports that every endpoint of the slice has.
    #[serde(deserialize_with = "nullable")]
    pub ports: Vec<EndpointPort>,
}

/// One endpoint.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Endpoint {
    /// Addresses; only the first is used.
    #[serde(deserialize_with = "nullable")]
    pub addresses: Vec<String>,
    /// Readiness.
    #[serde(deserialize_with = "nullable")]
    pub conditions: EndpointConditions,
    /// Its own name below the Service's.
    pub hostname: Option<String>,
    /// The node it is on.
    pub node_name: Option<String>,
    /// The zone it is in.
    pub zone: Option<String>,
    /// The pod it is.
    pub target_ref: Option<ObjectReference>,
    /// For which clients it is meant.
    pub hints: Option<EndpointHints>,
}

/// Readiness of an endpoint; absent means unknown, which counts as ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointConditions {
    /// Takes new connections.
    pub ready: Option<bool>,
    /// Would take connections, terminating or not.
    pub serving: Option<bool>,
    /// Is being deleted.
    pub terminating: Option<bool>,
}

/// Topology hints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointHints {
    /// Zones that should use it.
    #[serde(deserialize_with = "nullable")]
    pub for_zones: Vec<ForZone>,
    /// Nodes that should use it.
    #[serde(deserialize_with = "nullable")]
    pub for_nodes: Vec<ForNode>,
}

/// One zone of a hint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ForZone {
    /// Zone.
    pub name: String,
}

/// One node of a hint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ForNode {
    /// Node.
    pub name: String,
}

/// One port of a slice.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct EndpointPort {
    /// The Service port's name.
    pub name: Option<String>,
    /// TCP, UDP or SCTP; absent means TCP.
    pub protocol: Option<String>,
    /// Number; the API admits what is no port, so it is wide here.
    pub port: Option<i32>,
    /// What is spoken.
    pub app_protocol: Option<String>,
}
