//! What keeps a pod from a node, in Kubernetes' words.

use std::collections::BTreeMap;

use portolan_model::workloads::{HostPort, Node, NodeTerm, Pod, Taint};

use super::{Taken, Usage};

const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";

/// Why a node will not have a pod.
pub(super) enum Obstacle {
    /// Whatever else runs there.
    Always(&'static str),
    /// Because of what runs there.
    Crowded(Vec<&'static str>),
}

/// Kubernetes' filters in Kubernetes' order: the first that objects is told.
pub(super) fn obstacle(pod: &Pod, node: &Node, usage: &Usage<'_>) -> Option<Obstacle> {
    let name = node.meta.key.name.as_str();
    let terms = &pod.placement.node_affinity;
    // Affinity to nodes by name is judged before all else.
    let names: Option<Vec<&[String]>> = terms.iter().map(NodeTerm::named).collect();
    let named = |names: Vec<&[String]>| names.iter().any(|n| n.iter().any(|n| n == name));
    if !terms.is_empty() && !names.is_none_or(named) {
        return Some(Obstacle::Always(
            "node(s) didn't satisfy plugin(s) [NodeAffinity]",
        ));
    }
    let cordoned = taint("node.kubernetes.io/unschedulable");
    if node.unschedulable && !pod.placement.tolerates(&cordoned) {
        return Some(Obstacle::Always("node(s) were unschedulable"));
    }
    // The taint that Kubernetes' node controller would have set.
    let not_ready = taint("node.kubernetes.io/not-ready");
    let counts = |taint: &&Taint| taint.effect == NO_SCHEDULE || taint.effect == NO_EXECUTE;
    let mut taints = node
        .taints
        .iter()
        .filter(counts)
        .chain((!node.is_ready()).then_some(&not_ready));
    if taints.any(|taint| !pod.placement.tolerates(taint)) {
        return Some(Obstacle::Always("node(s) had untolerated taint(s)"));
    }
    if !pod.placement.accepts(node) {
        return Some(Obstacle::Always(
            "node(s) didn't match Pod's node affinity/selector",
        ));
    }
    crowded(pod, node, usage.by_node.get(name))
}

/// Whether there is room for a pod beside what a node has.
fn crowded(pod: &Pod, node: &Node, taken: Option<&Taken<'_>>) -> Option<Obstacle> {
    let nothing = Taken::default();
    let taken = taken.unwrap_or(&nothing);
    let port_taken = |port: &HostPort| taken.ports.iter().any(|other| other.collides(port));
    if pod.host_ports.iter().any(port_taken) {
        return Some(Obstacle::Crowded(vec![
            "node(s) didn't have free ports for the requested pod ports",
        ]));
    }
    let mut lacking = Vec::new();
    if node
        .capacity
        .is_some_and(|capacity| taken.pods.len() >= capacity)
    {
        lacking.push("Too many pods");
    }
    if let Some(allocatable) = node.allocatable {
        let wanted = taken.requests.plus(pod.requests);
        if pod.requests.cpu > 0 && wanted.cpu > allocatable.cpu {
            lacking.push("Insufficient cpu");
        }
        if pod.requests.memory > 0 && wanted.memory > allocatable.memory {
            lacking.push("Insufficient memory");
        }
    }
    (!lacking.is_empty()).then_some(Obstacle::Crowded(lacking))
}

/// How many nodes refuse a pod, and for what.
#[derive(Default)]
pub(super) struct Refusals {
    nodes: usize,
    crowded: usize,
    reasons: BTreeMap<&'static str, usize>,
}

impl Refusals {
    pub(super) fn add(&mut self, obstacle: &Obstacle) {
        self.nodes += 1;
        match obstacle {
            Obstacle::Always(reason) => *self.reasons.entry(reason).or_default() += 1,
            Obstacle::Crowded(lacking) => {
                self.crowded += 1;
                for reason in lacking {
                    *self.reasons.entry(reason).or_default() += 1;
                }
            }
        }
    }

    /// Kubernetes' sentence. Nothing is ever preempted here, nor claimed.
    pub(super) fn message(&self) -> String {
        let nodes = self.nodes;
        if nodes == 0 {
            return "no nodes available to schedule pods".to_owned();
        }
        let list = |counts: &mut dyn Iterator<Item = (&str, usize)>| {
            let mut texts: Vec<String> = counts
                .filter(|(_, count)| *count > 0)
                .map(|(reason, count)| format!("{count} {reason}"))
                .collect();
            texts.sort();
            texts.join(", ")
        };
        let reasons = list(&mut self.reasons.iter().map(|(reason, count)| (*reason, *count)));
        let preemption = list(
            &mut [
                (
                    "Preemption is not helpful for scheduling",
                    nodes - self.crowded,
                ),
                ("No preemption victims found for incoming pod", self.crowded),
            ]
            .into_iter(),
        );
        format!(
            "0/{nodes} nodes are available: {reasons}. no new claims to deallocate, \
             preemption: 0/{nodes} nodes are available: {preemption}."
        )
    }
}

fn taint(key: &str) -> Taint {
    Taint {
        key: key.to_owned(),
        value: String::new(),
        effect: NO_SCHEDULE.to_owned(),
    }
}
