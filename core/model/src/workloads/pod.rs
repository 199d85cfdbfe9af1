//! Pods.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use portolan_api::meta::texts;
use portolan_api::value::{at, int_at, list_at, str_at};
use serde_json::Value;

use super::meta::{object, owned, time};
use super::{Meta, Requirement, Toleration};
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
    /// `spec.nodeSelector`
    pub node_selector: BTreeMap<String, String>,
    /// Required node affinity: one of these terms, each with all its
    /// requirements. No terms: no affinity.
    pub node_affinity: Vec<Vec<Requirement>>,
    /// `spec.tolerations`
    pub tolerations: Vec<Toleration>,
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
        node_selector: owned(texts(at(object, "spec.nodeSelector"))),
        node_affinity: list_at(object, NODE_AFFINITY)
            .iter()
            .map(|term| {
                list_at(term, "matchExpressions")
                    .iter()
                    .map(Requirement::of)
                    .collect()
            })
            .collect(),
        tolerations: list_at(object, "spec.tolerations")
            .iter()
            .map(Toleration::of)
            .collect(),
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
    "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";

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

/// The protocol; TCP where none is given.
pub(crate) fn protocol(text: &str) -> Protocol {
    match text {
        "UDP" => Protocol::Udp,
        "SCTP" => Protocol::Sctp,
        _ => Protocol::Tcp,
    }
}
