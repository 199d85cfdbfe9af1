//! Pods → nodes.
//!
//! A pod goes to the node with the fewest pods among those that will have it,
//! and before that to one without pods of the same owner. What keeps a pod
//! from a node is counted per reason and told in Kubernetes' words.

use std::collections::BTreeMap;

use portolan_model::workloads::{Node, Pod, Taint};
use serde_json::json;

use super::step::{About, Action, Kind, Step, Tell, Write};

/// Pods per node: of everybody, and of each owner.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    pods: BTreeMap<String, usize>,
    owned: BTreeMap<(String, String), usize>,
}

impl Usage {
    /// Counts the pods that are on a node and have not ended.
    pub fn of<'a>(pods: impl Iterator<Item = &'a Pod>) -> Self {
        let mut usage = Self::default();
        for pod in pods.filter(|pod| !pod.node.is_empty() && !pod.is_finished()) {
            usage.add(pod, &pod.node);
        }
        usage
    }

    fn add(&mut self, pod: &Pod, node: &str) {
        *self.pods.entry(node.to_owned()).or_default() += 1;
        if let Some(owner) = &pod.meta.controller {
            let key = (owner.uid.clone(), node.to_owned());
            *self.owned.entry(key).or_default() += 1;
        }
    }

    fn of_node(&self, node: &str) -> usize {
        self.pods.get(node).copied().unwrap_or(0)
    }

    fn of_owner(&self, pod: &Pod, node: &str) -> usize {
        pod.meta.controller.as_ref().map_or(0, |owner| {
            let key = (owner.uid.clone(), node.to_owned());
            self.owned.get(&key).copied().unwrap_or(0)
        })
    }
}

/// The scheduler that pods ask for unless they name another.
const SCHEDULER: &str = "default-scheduler";
const NO_SCHEDULE: &str = "NoSchedule";
const NO_EXECUTE: &str = "NoExecute";

/// Binds a pod to a node, or tells why there is none for it.
pub fn schedule<'a>(pod: &Pod, nodes: impl Iterator<Item = &'a Node>, usage: &Usage) -> Step {
    let mut step = Step::default();
    let waits = pod.node.is_empty()
        && pod.is_active()
        && !pod.gated
        && (pod.scheduler == SCHEDULER || pod.scheduler.is_empty());
    if !waits {
        return step;
    }
    let mut obstacles: BTreeMap<String, usize> = BTreeMap::new();
    let mut best: Option<((usize, usize, &str), &Node)> = None;
    let mut total = 0usize;
    for node in nodes.filter(|node| !node.meta.deleting) {
        total += 1;
        let name = node.meta.key.name.as_str();
        match obstacle(pod, node, usage.of_node(name)) {
            Some(reason) => *obstacles.entry(reason).or_default() += 1,
            None => {
                let rank = (usage.of_owner(pod, name), usage.of_node(name), name);
                if best.as_ref().is_none_or(|(least, _)| rank < *least) {
                    best = Some((rank, node));
                }
            }
        }
    }
    match best {
        Some((_, node)) => bind(pod, node, &mut step),
        None => refuse(pod, total, &obstacles, &mut step),
    }
    step
}

/// Why a node will not have a pod.
fn obstacle(pod: &Pod, node: &Node, pods: usize) -> Option<String> {
    let labels = &node.meta.labels;
    let selected = pod
        .node_selector
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value));
    let affine = pod.node_affinity.is_empty()
        || pod
            .node_affinity
            .iter()
            .any(|term| term.iter().all(|requirement| requirement.matches(labels)));
    if !selected || !affine {
        return Some("node(s) didn't match Pod's node affinity/selector".to_owned());
    }
    if node.unschedulable && !tolerates(pod, &taint("node.kubernetes.io/unschedulable")) {
        return Some("node(s) were unschedulable".to_owned());
    }
    let not_ready = taint("node.kubernetes.io/not-ready");
    let mut taints: Vec<&Taint> = node
        .taints
        .iter()
        .filter(|taint| taint.effect == NO_SCHEDULE || taint.effect == NO_EXECUTE)
        .collect();
    if !node.is_ready() {
        // The taint that Kubernetes' node controller would have set.
        taints.push(&not_ready);
    }
    if let Some(taint) = taints.into_iter().find(|taint| !tolerates(pod, taint)) {
        return Some(format!(
            "node(s) had untolerated taint {{{}: {}}}",
            taint.key, taint.value
        ));
    }
    node.capacity
        .is_some_and(|capacity| pods >= capacity)
        .then(|| "Too many pods".to_owned())
}

fn tolerates(pod: &Pod, taint: &Taint) -> bool {
    pod.tolerations
        .iter()
        .any(|toleration| toleration.covers(taint))
}

fn taint(key: &str) -> Taint {
    Taint {
        key: key.to_owned(),
        value: String::new(),
        effect: NO_SCHEDULE.to_owned(),
    }
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
fn refuse(pod: &Pod, total: usize, obstacles: &BTreeMap<String, usize>, step: &mut Step) {
    let message = if total == 0 {
        "no nodes available to schedule pods".to_owned()
    } else {
        let mut reasons: Vec<String> = obstacles
            .iter()
            .map(|(reason, count)| format!("{count} {reason}"))
            .collect();
        reasons.sort();
        format!(
            "0/{total} nodes are available: {}. preemption: 0/{total} nodes are available: \
             {total} Preemption is not helpful for scheduling.",
            reasons.join(", ")
        )
    };
    if pod.unschedulable.as_deref() == Some(message.as_str()) {
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
        message,
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_model::workloads::Object;
    use serde_json::Value;

    fn node(name: &str, extra: Value) -> Node {
        let mut object = json!({
            "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        merge(&mut object, extra);
        Node::read(&object)
    }

    fn pod(name: &str, owner: &str, extra: Value) -> Pod {
        let mut object = json!({"metadata": {
            "name": name, "namespace": "a", "uid": name,
            "ownerReferences": [{"uid": owner, "controller": true}],
        }});
        merge(&mut object, extra);
        Pod::read(&object)
    }

    fn merge(into: &mut Value, from: Value) {
        match (into, from) {
            (Value::Object(a), Value::Object(b)) => {
                for (key, value) in b {
                    merge(a.entry(key).or_insert(Value::Null), value);
                }
            }
            (place, value) => *place = value,
        }
    }

    fn chosen(step: &Step) -> &str {
        let Action::Bind { node, .. } = &step.writes[0].action else {
            panic!("not bound: {step:?}");
        };
        node
    }

    #[test]
    fn pods_of_one_owner_spread_over_nodes() {
        let nodes = ["n1", "n2", "n3"].map(|n| node(n, json!({})));
        let mut placed: Vec<Pod> = vec![pod("other", "x", json!({"spec": {"nodeName": "n1"}}))];
        for i in 0..6 {
            let next = pod(&format!("p{i}"), "web", json!({}));
            let usage = Usage::of(placed.iter());
            let step = schedule(&next, nodes.iter(), &usage);
            placed.push(pod(
                &format!("p{i}"),
                "web",
                json!({"spec": {"nodeName": chosen(&step)}}),
            ));
        }
        for name in ["n1", "n2", "n3"] {
            let count = placed.iter().skip(1).filter(|p| p.node == name).count();
            assert_eq!(count, 2, "{name}");
        }
    }

    #[test]
    fn obstacles_are_counted_in_kubernetes_words() {
        let nodes = [
            node("n1", json!({"spec": {"unschedulable": true}})),
            node(
                "n2",
                json!({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}),
            ),
            node(
                "n3",
                json!({"spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}}),
            ),
        ];
        let step = schedule(&pod("p", "o", json!({})), nodes.iter(), &Usage::default());
        assert_eq!(
            step.tell[0].message,
            "0/3 nodes are available: 1 node(s) had untolerated taint {k: v}, \
             1 node(s) had untolerated taint {node.kubernetes.io/not-ready: }, \
             1 node(s) were unschedulable. preemption: 0/3 nodes are available: \
             3 Preemption is not helpful for scheduling."
        );
        let selective = pod("p", "o", json!({"spec": {"nodeSelector": {"disk": "ssd"}}}));
        let step = schedule(&selective, nodes[..1].iter(), &Usage::default());
        assert!(
            step.tell[0]
                .message
                .contains("1 node(s) didn't match Pod's node affinity/selector")
        );
        let step = schedule(&selective, [].iter(), &Usage::default());
        assert_eq!(step.tell[0].message, "no nodes available to schedule pods");
    }

    #[test]
    fn tolerations_selectors_and_other_schedulers_count() {
        let nodes = [
            node("n1", json!({})),
            node(
                "n2",
                json!({"metadata": {"labels": {"disk": "ssd"}},
                "spec": {"taints": [{"key": "k", "value": "v", "effect": "NoSchedule"}]}}),
            ),
        ];
        let tolerant = pod(
            "p",
            "o",
            json!({"spec": {
                "nodeSelector": {"disk": "ssd"},
                "tolerations": [{"key": "k", "operator": "Equal", "value": "v"}],
            }}),
        );
        assert_eq!(
            chosen(&schedule(&tolerant, nodes.iter(), &Usage::default())),
            "n2"
        );
        let other = pod("p", "o", json!({"spec": {"schedulerName": "mine"}}));
        assert!(schedule(&other, nodes.iter(), &Usage::default()).is_done());
    }
}
