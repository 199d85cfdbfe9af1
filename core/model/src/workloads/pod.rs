//! Pods.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use portolan_api::meta::texts;
use portolan_api::value::{at, int_at, list_at, str_at};
use serde_json::Value;

use super::meta::{object, owned, time};
use super::{Meta, Neighbours, Node, Requirement, Resources, Taint, Toleration};
use crate::Protocol;

/// `status.phase`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Accepted, not all containers have run yet.
    #[default]
    Pending,
    /// The node does not answer.
    Unknown,
    /// At least one container runs.
    Running,
    /// All containers ended well.
    Succeeded,
    /// All containers ended, one badly.
    Failed,
}

/// A port that a container declares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerPort {
    /// Its name, or empty.
    pub name: String,
    /// The number.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
}

/// A port of its node that a pod takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// The number.
    pub port: u16,
    /// The protocol.
    pub protocol: Protocol,
    /// On which address; none: on all.
    pub address: Option<IpAddr>,
}

impl HostPort {
    /// Whether two pods cannot both have it.
    pub fn collides(&self, other: &Self) -> bool {
        let everywhere = |port: &Self| port.address.is_none_or(|ip| ip.is_unspecified());
        self.port == other.port
            && self.protocol == other.protocol
            && (everywhere(self) || everywhere(other) || self.address == other.address)
    }
}

/// One alternative of a required node affinity: all of it must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeTerm {
    /// Conditions on the node's labels.
    pub labels: Vec<Requirement>,
    /// Conditions on its fields; only `metadata.name` is one.
    pub fields: Vec<Requirement>,
}

/// The field by which pods of a DaemonSet ask for their node.
const NAME_FIELD: &str = "metadata.name";

impl NodeTerm {
    fn of(value: &Value) -> Self {
        let requirements =
            |field: &str| list_at(value, field).iter().map(Requirement::of).collect();
        Self {
            labels: requirements("matchExpressions"),
            fields: requirements("matchFields"),
        }
    }

    /// Whether a node meets it. A term that says nothing is met by no node.
    pub fn matches(&self, node: &str, labels: &BTreeMap<String, String>) -> bool {
        (!self.labels.is_empty() || !self.fields.is_empty())
            && self.labels.iter().all(|r| r.matches(labels))
            && self.names(node)
    }

    /// Whether its conditions on fields let a node of this name in.
    pub fn names(&self, node: &str) -> bool {
        let fields = BTreeMap::from([(NAME_FIELD.to_owned(), node.to_owned())]);
        self.fields.iter().all(|r| r.matches(&fields))
    }

    /// The only nodes that it can mean, where it names them.
    pub fn named(&self) -> Option<&[String]> {
        let of_name = |r: &&Requirement| r.key == NAME_FIELD && r.operator == "In";
        self.fields
            .iter()
            .find(of_name)
            .map(|r| r.values.as_slice())
    }

    /// The only node that it can mean, where it names one.
    fn only(&self) -> Option<&str> {
        match self.named()? {
            [node] => Some(node),
            [] | [..] => None,
        }
    }
}

/// The part of a pod's spec by which nodes are told apart: also what a
/// template says of pods that are not there yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// `spec.nodeSelector`
    pub node_selector: BTreeMap<String, String>,
    /// Required node affinity: one of these terms. No terms: no affinity.
    pub node_affinity: Vec<NodeTerm>,
    /// `spec.tolerations`
    pub tolerations: Vec<Toleration>,
}

impl Placement {
    /// Reads a pod's spec.
    pub fn of(spec: &Value) -> Self {
        Self {
            node_selector: owned(texts(at(spec, "nodeSelector"))),
            node_affinity: list_at(spec, NODE_AFFINITY)
                .iter()
                .map(NodeTerm::of)
                .collect(),
            tolerations: list_at(spec, "tolerations")
                .iter()
                .map(Toleration::of)
                .collect(),
        }
    }

    /// Whether its selector and its affinity let a node in.
    pub fn accepts(&self, node: &Node) -> bool {
        let (name, labels) = (&node.meta.key.name, &node.meta.labels);
        super::selector::includes(labels, &self.node_selector)
            && (self.node_affinity.is_empty()
                || self
                    .node_affinity
                    .iter()
                    .any(|term| term.matches(name, labels)))
    }

    /// Whether it puts up with a taint.
    pub fn tolerates(&self, taint: &Taint) -> bool {
        self.tolerations
            .iter()
            .any(|toleration| toleration.covers(taint))
    }
}

/// A pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pod {
    /// What every object has.
    pub meta: Meta,
    /// `status.phase`
    pub phase: Phase,
    /// `spec.nodeName`; empty before it is bound.
    pub node: String,
    /// Whether the condition Ready is True.
    pub ready: bool,
    /// When the condition Ready last changed.
    pub ready_changed: Option<Timestamp>,
    /// The message of the condition PodScheduled where that is False.
    pub unschedulable: Option<String>,
    /// `status.podIPs`
    pub addresses: Vec<IpAddr>,
    /// `spec.hostname`
    pub hostname: String,
    /// `spec.subdomain`
    pub subdomain: String,
    /// Ports of containers, then of restartable init containers (E9).
    pub ports: Vec<ContainerPort>,
    /// Which nodes it accepts.
    pub placement: Placement,
    /// What it requires of other pods.
    pub neighbours: Option<Box<Neighbours>>,
    /// What it asks for of its node's CPU and memory.
    pub requests: Resources,
    /// Ports of its node that it takes.
    pub host_ports: Vec<HostPort>,
    /// `spec.schedulerName`
    pub scheduler: String,
    /// Whether scheduling gates hold it back.
    pub gated: bool,
    /// The most restarts of any container.
    pub restarts: i64,
}

impl Pod {
    /// Neither ended nor being deleted.
    pub fn is_active(&self) -> bool {
        !self.is_finished() && !self.meta.deleting
    }

    /// All its containers ended for good.
    pub fn is_finished(&self) -> bool {
        matches!(self.phase, Phase::Succeeded | Phase::Failed)
    }

    /// The node that it is on, or the only one that it can go to; empty where
    /// there is no such.
    pub fn target_node(&self) -> &str {
        if !self.node.is_empty() {
            return &self.node;
        }
        let mut nodes = self.placement.node_affinity.iter().map(NodeTerm::only);
        nodes.next().flatten().unwrap_or("")
    }

    /// Ready for at least so long.
    pub fn is_available(&self, min_ready_seconds: i64, now: Timestamp) -> bool {
        self.ready
            && (min_ready_seconds == 0
                || self
                    .ready_changed
                    .is_some_and(|since| now.as_second() - since.as_second() >= min_ready_seconds))
    }
}

object!(Pod, read);

fn read(object: &Value) -> Pod {
    let conditions = list_at(object, "status.conditions");
    let condition = |kind: &str| conditions.iter().find(|c| str_at(c, "type") == kind);
    let ready = condition("Ready");
    Pod {
        meta: Meta::of(object),
        phase: match str_at(object, "status.phase") {
            "Running" => Phase::Running,
            "Succeeded" => Phase::Succeeded,
            "Failed" => Phase::Failed,
            "Unknown" => Phase::Unknown,
            _ => Phase::Pending,
        },
        node: str_at(object, "spec.nodeName").to_owned(),
        ready: ready.is_some_and(|c| str_at(c, "status") == "True"),
        ready_changed: ready.and_then(|c| time(str_at(c, "lastTransitionTime"))),
        unschedulable: condition("PodScheduled")
            .filter(|c| str_at(c, "status") == "False")
            .map(|c| str_at(c, "message").to_owned()),
        addresses: addresses(object),
        hostname: str_at(object, "spec.hostname").to_owned(),
        subdomain: str_at(object, "spec.subdomain").to_owned(),
        ports: ports(object),
        placement: Placement::of(at(object, "spec")),
        neighbours: Neighbours::of(at(object, "spec")),
        requests: Resources::of_pod(at(object, "spec")),
        host_ports: host_ports(object),
        scheduler: str_at(object, "spec.schedulerName").to_owned(),
        gated: !list_at(object, "spec.schedulingGates").is_empty(),
        restarts: list_at(object, "status.containerStatuses")
            .iter()
            .filter_map(|c| int_at(c, "restartCount"))
            .max()
            .unwrap_or(0),
    }
}

const NODE_AFFINITY: &str =
    "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";

fn addresses(object: &Value) -> Vec<IpAddr> {
    let many = list_at(object, "status.podIPs")
        .iter()
        .filter_map(|entry| str_at(entry, "ip").parse().ok())
        .collect::<Vec<_>>();
    if many.is_empty() {
        str_at(object, "status.podIP").parse().into_iter().collect()
    } else {
        many
    }
}

fn ports(object: &Value) -> Vec<ContainerPort> {
    let sidecars = list_at(object, "spec.initContainers")
        .iter()
        .filter(|c| str_at(c, "restartPolicy") == "Always");
    list_at(object, "spec.containers")
        .iter()
        .chain(sidecars)
        .flat_map(|container| list_at(container, "ports"))
        .filter_map(|port| {
            Some(ContainerPort {
                name: str_at(port, "name").to_owned(),
                port: u16::try_from(int_at(port, "containerPort")?).ok()?,
                protocol: protocol(str_at(port, "protocol")),
            })
        })
        .collect()
}

fn host_ports(object: &Value) -> Vec<HostPort> {
    list_at(object, "spec.containers")
        .iter()
        .flat_map(|container| list_at(container, "ports"))
        .filter_map(|port| {
            let number = int_at(port, "hostPort").and_then(|n| u16::try_from(n).ok())?;
            (number != 0).then(|| HostPort {
                port: number,
                protocol: protocol(str_at(port, "protocol")),
                address: str_at(port, "hostIP").parse().ok(),
            })
        })
        .collect()
}

/// The protocol; TCP where none is given.
pub(crate) fn protocol(text: &str) -> Protocol {
    match text {
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        _ => Protocol::Tcp,
    }
}
