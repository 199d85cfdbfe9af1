//! Pods → nodes.
//!
//! A pod goes to the node with the fewest pods among those that will have it,
//! and before that to one without pods of the same owner. What keeps a pod
//! from a node is counted per reason and told in Kubernetes' words.

mod obstacles;
#[cfg(test)]
mod tests;
mod vicinity;

use std::collections::BTreeMap;

use portolan_model::workloads::{HostPort, Node, Pod, Resources};
use serde_json::json;

use super::step::{About, Action, Kind, Step, Tell, Write};
use obstacles::{Refusals, obstacle};
use vicinity::Vicinity;

/// What is taken of one node.
#[derive(Clone, Debug, Default)]
struct Taken<'a> {
    pods: Vec<&'a Pod>,
    requests: Resources,
    ports: Vec<HostPort>,
}

/// The pods that are on nodes, and what they take.
#[derive(Clone, Debug, Default)]
pub struct Usage<'a> {
    by_node: BTreeMap<&'a str, Taken<'a>>,
    owned: BTreeMap<(&'a str, &'a str), usize>,
    /// Whether any of them keeps others away.
    keeps_apart: bool,
}

impl<'a> Usage<'a> {
    /// Counts the pods that are on a node and have not ended.
    pub fn of(pods: impl Iterator<Item = &'a Pod>) -> Self {
        let mut usage = Self::default();
        for pod in pods.filter(|pod| !pod.node.is_empty() && !pod.is_finished()) {
            usage.add(pod);
        }
        usage
    }

    fn add(&mut self, pod: &'a Pod) {
        let taken = self.by_node.entry(&pod.node).or_default();
        taken.pods.push(pod);
        taken.requests = taken.requests.plus(pod.requests);
        taken.ports.extend_from_slice(&pod.host_ports);
        self.keeps_apart |= pod.neighbours.as_ref().is_some_and(|n| !n.apart.is_empty());
        if let Some(owner) = &pod.meta.controller {
            *self.owned.entry((&owner.uid, &pod.node)).or_default() += 1;
        }
    }

    fn pods_of(&self, node: &str) -> &[&'a Pod] {
        self.by_node.get(node).map_or(&[], |taken| &taken.pods)
    }

    fn of_owner(&self, pod: &Pod, node: &str) -> usize {
        let owner = pod.meta.controller.as_ref();
        owner.map_or(0, |owner| {
            let key = (owner.uid.as_str(), node);
            self.owned.get(&key).copied().unwrap_or(0)
        })
    }
}

/// The scheduler that pods ask for unless they name another.
const SCHEDULER: &str = "default-scheduler";
/// Binds a pod to a node, or tells why there is none for it.
pub fn schedule<'a>(pod: &Pod, nodes: impl Iterator<Item = &'a Node>, usage: &Usage<'_>) -> Step {
    let mut step = Step::default();
    let waits = pod.node.is_empty()
        && pod.is_active()
        && !pod.gated
        && (pod.scheduler == SCHEDULER || pod.scheduler.is_empty());
    if !waits {
        return step;
    }
    let mut refusals = Refusals::default();
    let mut best: Option<((usize, usize, &str), &Node)> = None;
    let nodes: Vec<&Node> = nodes.filter(|node| !node.meta.deleting).collect();
    let vicinity = Vicinity::of(pod, &nodes, usage);
    for node in &nodes {
        let name = node.meta.key.name.as_str();
        match obstacle(pod, node, usage).or_else(|| vicinity.obstacle(node)) {
            Some(obstacle) => refusals.add(&obstacle),
            None => {
                let rank = (usage.of_owner(pod, name), usage.pods_of(name).len(), name);
                if best.as_ref().is_none_or(|(least, _)| rank < *least) {
                    best = Some((rank, node));
                }
            }
        }
    }
    match best {
        Some((_, node)) => bind(pod, node, &mut step),
        None => refuse(pod, &refusals.message(), &mut step),
    }
    step
}

fn bind(pod: &Pod, node: &Node, step: &mut Step) {
    let key = &pod.meta.key;
    let target = &node.meta.key.name;
    step.writes.push(Write {
        success: Some(Tell {
            about: About::new(Kind::Pod, &pod.meta),
            warning: false,
            reason: "Scheduled",
            message: format!(
                "Successfully assigned {}/{} to {target}",
                key.namespace, key.name
            ),
        }),
        ..Write::quiet(
            Kind::Pod,
            key.clone(),
            Action::Bind {
                uid: pod.meta.uid.clone(),
                node: target.clone(),
            },
        )
    });
}

/// Says on the pod and in an event why no node will have it.
fn refuse(pod: &Pod, message: &str, step: &mut Step) {
    if pod.unschedulable.as_deref() == Some(message) {
        return;
    }
    let condition = json!({
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
    });
    let status = json!({"metadata": {"uid": pod.meta.uid}, "status": {"conditions": [condition]}});
    step.write(Kind::Pod, &pod.meta, Action::StrategicStatus(status));
    step.tell.push(Tell {
        about: About::new(Kind::Pod, &pod.meta),
        warning: true,
        reason: "FailedScheduling",
        message: message.to_owned(),
    });
}
