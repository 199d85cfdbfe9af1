//! Pod.

use super::{IntOrString, ObjectMeta, nullable};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Pod {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    #[serde(deserialize_with = "nullable")]
    pub spec: PodSpec,
    /// What is.
    #[serde(deserialize_with = "nullable")]
    pub status: PodStatus,
}

/// A pod, as far as names and policies need it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct PodFacts {
    /// Metadata.
    pub metadata: ObjectMeta,
    /// What is wanted.
    #[serde(deserialize_with = "nullable")]
    pub spec: PodHost,
    /// What is.
    #[serde(deserialize_with = "nullable")]
    pub status: PodPlace,
}

/// `spec` of a Pod, as far as policies need it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodHost {
    /// The node it is bound to, or "".
    pub node_name: String,
    /// Whether it shares the node's network.
    pub host_network: bool,
    /// Containers, for their ports.
    #[serde(deserialize_with = "nullable")]
    pub containers: Vec<PortsOnly>,
    /// Containers that run before, or all the time beside the others.
    #[serde(deserialize_with = "nullable")]
    pub init_containers: Vec<PortsOnly>,
}

/// A container, as far as policies need it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PortsOnly {
    /// Ports.
    #[serde(deserialize_with = "nullable")]
    pub ports: Vec<ContainerPort>,
    /// `Always` makes an init container a sidecar.
    pub restart_policy: Option<String>,
}

/// `status` of a Pod, as far as names and policies need it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PodPlace {
    /// Pending, Running, Succeeded, Failed, Unknown.
    pub phase: String,
    /// Its first address.
    #[serde(rename = "podIP")]
    pub pod_ip: String,
    /// Its addresses, the first of which is `podIP`.
    #[serde(rename = "podIPs", deserialize_with = "nullable")]
    pub pod_ips: Vec<PodIp>,
}

impl Pod {
    /// Whether the condition `Ready` is true.
    pub fn is_ready(&self) -> bool {
        self.status
            .conditions
            .iter()
            .any(|condition| condition.condition_type == "Ready" && condition.status == "True")
    }
}

/// `spec` of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodSpec {
    /// The node it is bound to, or "".
    pub node_name: String,
    /// Labels that its node must have.
    #[serde(deserialize_with = "nullable")]
    pub node_selector: BTreeMap<String, String>,
    /// Whether it shares the node's network.
    pub host_network: bool,
    /// Its host name, if given.
    pub hostname: String,
    /// The headless Service under which the host name resolves.
    pub subdomain: String,
    /// Always, OnFailure, Never.
    pub restart_policy: String,
    /// Which scheduler binds it.
    pub scheduler_name: String,
    /// Seconds between TERM and KILL.
    pub termination_grace_period_seconds: Option<i64>,
    /// Containers.
    #[serde(deserialize_with = "nullable")]
    pub containers: Vec<Container>,
    /// Containers that run before.
    #[serde(deserialize_with = "nullable")]
    pub init_containers: Vec<Container>,
    /// Taints that it tolerates.
    #[serde(deserialize_with = "nullable")]
    pub tolerations: Vec<Toleration>,
    /// Conditions that must be true beside the containers' readiness.
    #[serde(deserialize_with = "nullable")]
    pub readiness_gates: Vec<ReadinessGate>,
}

/// A condition of the pod that its readiness waits for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ReadinessGate {
    /// The condition's type.
    pub condition_type: String,
}

/// One container, as far as Services care.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Container {
    /// Name.
    pub name: String,
    /// Ports.
    #[serde(deserialize_with = "nullable")]
    pub ports: Vec<ContainerPort>,
    /// `Always` makes an init container a sidecar.
    pub restart_policy: Option<String>,
    /// What it runs.
    pub image: String,
    /// When it takes traffic.
    pub readiness_probe: Option<Probe>,
    /// When it has started; until then nothing else is probed.
    pub startup_probe: Option<Probe>,
}

/// A probe; exactly one of these is set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Probe {
    /// An HTTP request.
    pub http_get: Option<ProbePort>,
    /// A connection.
    pub tcp_socket: Option<ProbePort>,
    /// A call of the gRPC health service.
    pub grpc: Option<ProbePort>,
    /// A command in the container.
    pub exec: Option<ProbeCommand>,
}

/// Where a probe asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ProbePort {
    /// The port, by number or name.
    pub port: Option<IntOrString>,
    /// The path of an HTTP request.
    pub path: String,
}

/// What a probe runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct ProbeCommand {
    /// Program and arguments.
    #[serde(deserialize_with = "nullable")]
    pub command: Vec<String>,
}

/// One port of a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerPort {
    /// Name, or "".
    pub name: String,
    /// Number.
    pub container_port: u16,
    /// TCP, UDP or SCTP.
    pub protocol: String,
    /// The node's port, if asked for.
    pub host_port: Option<u16>,
}

/// A taint that a pod tolerates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Toleration {
    /// Key; "" with Exists is every key.
    pub key: String,
    /// Exists or Equal.
    pub operator: String,
    /// Value.
    pub value: String,
    /// Effect; "" is every effect.
    pub effect: String,
    /// How long, for NoExecute.
    pub toleration_seconds: Option<i64>,
}

/// `status` of a Pod.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PodStatus {
    /// Pending, Running, Succeeded, Failed, Unknown.
    pub phase: String,
    /// Why, if something special.
    pub reason: String,
    /// The first of `pod_ips`.
    #[serde(rename = "podIP")]
    pub pod_ip: String,
    /// Addresses, one per family.
    #[serde(rename = "podIPs", deserialize_with = "nullable")]
    pub pod_ips: Vec<PodIp>,
    /// The node's address.
    #[serde(rename = "hostIP")]
    pub host_ip: String,
    /// The node's addresses.
    #[serde(rename = "hostIPs", deserialize_with = "nullable")]
    pub host_ips: Vec<HostIp>,
    /// Conditions.
    #[serde(deserialize_with = "nullable")]
    pub conditions: Vec<Condition>,
    /// Containers.
    #[serde(deserialize_with = "nullable")]
    pub container_statuses: Vec<ContainerStatus>,
    /// Containers that run before.
    #[serde(deserialize_with = "nullable")]
    pub init_container_statuses: Vec<ContainerStatus>,
    /// Why, for people.
    pub message: String,
}

/// One address of a pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct PodIp {
    /// Address.
    pub ip: String,
}

/// One address of a pod's node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HostIp {
    /// Address.
    pub ip: String,
}

/// One condition of any kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Condition {
    /// `Ready`, …
    #[serde(rename = "type")]
    pub condition_type: String,
    /// True, False, Unknown.
    pub status: String,
    /// Machine readable.
    pub reason: String,
    /// For people.
    pub message: String,
    /// When it last changed (RFC 3339).
    pub last_transition_time: Option<String>,
}

/// What became of one container.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ContainerStatus {
    /// Name.
    pub name: String,
    /// Whether it passes its readiness probe.
    pub ready: bool,
    /// How often it was started again.
    pub restart_count: i32,
    /// What it does now.
    #[serde(deserialize_with = "nullable")]
    pub state: ContainerState,
}

/// Exactly one of these is set.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ContainerState {
    /// Not started.
    pub waiting: Option<StateWaiting>,
    /// Running.
    pub running: Option<StateRunning>,
    /// Ended.
    pub terminated: Option<StateTerminated>,
}

/// Why a container is not started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct StateWaiting {
    /// Machine readable.
    pub reason: String,
    /// For people.
    pub message: String,
}

/// Since when a container runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StateRunning {
    /// RFC 3339.
    pub started_at: Option<String>,
}

/// How a container ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StateTerminated {
    /// Exit code.
    pub exit_code: i32,
    /// Signal, or 0.
    pub signal: i32,
    /// Machine readable.
    pub reason: String,
}
