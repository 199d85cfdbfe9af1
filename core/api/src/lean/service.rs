//! Service.

use super::{Condition, IntOrString, ObjectMeta, nullable};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A stable address and name in front of pods.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Service {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    #[serde(deserialize_with = "nullable")]
    pub spec: ServiceSpec,
    /// What a load balancer gave.
    #[serde(deserialize_with = "nullable")]
    pub status: ServiceStatus,
}

/// `spec` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceSpec {
    /// ClusterIP, NodePort, LoadBalancer or ExternalName.
    #[serde(rename = "type")]
    pub service_type: String,
    /// The first of `cluster_ips`; `None` for a headless Service.
    #[serde(rename = "clusterIP")]
    pub cluster_ip: String,
    /// Up to one address per family.
    #[serde(rename = "clusterIPs", deserialize_with = "nullable")]
    pub cluster_ips: Vec<String>,
    /// IPv4, IPv6.
    #[serde(deserialize_with = "nullable")]
    pub ip_families: Vec<String>,
    /// SingleStack, PreferDualStack, RequireDualStack.
    pub ip_family_policy: Option<String>,
    /// Ports.
    #[serde(deserialize_with = "nullable")]
    pub ports: Vec<ServicePort>,
    /// Labels of the pods; empty means that somebody else writes the endpoints.
    #[serde(deserialize_with = "nullable")]
    pub selector: BTreeMap<String, String>,
    /// Addresses that somebody else routes to the nodes.
    #[serde(rename = "externalIPs", deserialize_with = "nullable")]
    pub external_ips: Vec<String>,
    /// Target of an ExternalName Service.
    pub external_name: String,
    /// Cluster or Local, for traffic from outside.
    pub external_traffic_policy: Option<String>,
    /// Cluster or Local, for traffic to the cluster address.
    pub internal_traffic_policy: Option<String>,
    /// None or ClientIP.
    pub session_affinity: String,
    /// Its timeout.
    pub session_affinity_config: Option<SessionAffinityConfig>,
    /// Whether pods that are not ready are served too.
    pub publish_not_ready_addresses: bool,
    /// Who may use the load balancer addresses.
    #[serde(deserialize_with = "nullable")]
    pub load_balancer_source_ranges: Vec<String>,
    /// Which load balancer is to act.
    pub load_balancer_class: Option<String>,
    /// An address asked for.
    #[serde(rename = "loadBalancerIP")]
    pub load_balancer_ip: String,
    /// Whether a LoadBalancer gets node ports.
    pub allocate_load_balancer_node_ports: Option<bool>,
    /// The health check port of LoadBalancer with Local.
    pub health_check_node_port: Option<u16>,
    /// PreferClose, PreferSameZone, PreferSameNode.
    pub traffic_distribution: Option<String>,
}

/// One port of a Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServicePort {
    /// Name, "" for an only port.
    pub name: String,
    /// TCP, UDP or SCTP.
    pub protocol: String,
    /// The port on the Service's addresses.
    pub port: u16,
    /// The port of the pods, by number or name.
    pub target_port: Option<IntOrString>,
    /// The port on every node, if any.
    pub node_port: Option<u16>,
    /// What is spoken.
    pub app_protocol: Option<String>,
}

/// `spec.sessionAffinityConfig`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SessionAffinityConfig {
    /// Settings of ClientIP.
    #[serde(rename = "clientIP")]
    pub client_ip: Option<ClientIpConfig>,
}

/// Settings of ClientIP affinity.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClientIpConfig {
    /// Idle time after which a client is forgotten.
    pub timeout_seconds: Option<u32>,
}

/// `status` of a Service.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceStatus {
    /// What a load balancer gave.
    #[serde(deserialize_with = "nullable")]
    pub load_balancer: LoadBalancerStatus,
    /// What else is the matter with it.
    #[serde(deserialize_with = "nullable")]
    pub conditions: Vec<Condition>,
}

/// `status.loadBalancer`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerStatus {
    /// Where the Service is reached from outside.
    #[serde(deserialize_with = "nullable")]
    pub ingress: Vec<LoadBalancerIngress>,
}

/// One address of a load balancer.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadBalancerIngress {
    /// Address, or "".
    pub ip: String,
    /// Name, or "".
    pub hostname: String,
    /// VIP or Proxy.
    pub ip_mode: Option<String>,
}
