//! Nodes that fall silent, and what was on them.
//!
//! A node renews its lease every few seconds. When it stops, its condition
//! Ready becomes Unknown and its pods not ready, so that no Service sends
//! anybody there. Pods go when they have borne that for long enough; pods of
//! a node that is no more go at once.

use std::time::Duration;

use jiff::Timestamp;
use portolan_model::workloads::{Node, Pod};
use serde_json::json;

use super::step::{About, Action, Kind, Step, Tell, Write};

/// How long silence is borne.
#[derive(Clone, Copy, Debug)]
pub struct NodeTimes {
    /// Until the node counts as lost.
    pub grace: Duration,
    /// Until its pods go, for pods that do not say.
    pub eviction: Duration,
}

impl Default for NodeTimes {
    fn default() -> Self {
        Self {
            // `--node-monitor-grace-period` was 40 s for most of Kubernetes' life.
            grace: Duration::from_secs(40),
            // `tolerationSeconds` that every pod gets by default.
            eviction: Duration::from_secs(300),
        }
    }
}

/// Judges a node that was last heard of `silent_for` ago.
///
/// `pods` are the pods bound to it.
pub fn node<'a>(
    node: &Node,
    pods: impl Iterator<Item = &'a Pod>,
    silent_for: Duration,
    times: &NodeTimes,
    now: Timestamp,
) -> Step {
    let mut step = Step::default();
    if silent_for < times.grace {
        step.look_again(times.grace - silent_for);
        return step;
    }
    if node.ready != "Unknown" {
        step.writes.push(lost(node, now));
    }
    let limit = times.grace + times.eviction;
    for pod in pods.filter(|pod| pod.is_active()) {
        if pod.ready {
            step.write(Kind::Pod, &pod.meta, not_ready(pod, now));
        }
        if silent_for >= limit {
            step.writes.push(evict(pod, false));
        }
    }
    if silent_for < limit {
        step.look_again(limit - silent_for);
    }
    step
}

/// Pods that are bound to nodes that do not exist.
pub fn lost_pods<'a>(pods: impl Iterator<Item = &'a Pod>) -> Step {
    let mut step = Step::default();
    step.writes.extend(pods.map(|pod| evict(pod, true)));
    step
}

fn lost(node: &Node, now: Timestamp) -> Write {
    let text = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = json!({
        "type": "Ready",
        "status": "Unknown",
        "reason": "NodeStatusUnknown",
        "message": "Kubelet stopped posting node status.",
        "lastTransitionTime": text,
    });
    Write {
        success: Some(Tell {
            about: About::new(Kind::Node, &node.meta),
            warning: false,
            reason: "NodeNotReady",
            message: format!("Node {} status is now: NodeNotReady", node.meta.key.name),
        }),
        ..Write::quiet(
            Kind::Node,
            node.meta.key.clone(),
            Action::StrategicStatus(json!({"status": {"conditions": [condition]}})),
        )
    }
}

fn not_ready(pod: &Pod, now: Timestamp) -> Action {
    let text = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let condition = json!({"type": "Ready", "status": "False", "lastTransitionTime": text});
    Action::StrategicStatus(json!({
        "metadata": {"uid": pod.meta.uid},
        "status": {"conditions": [condition]},
    }))
}

fn evict(pod: &Pod, force: bool) -> Write {
    let (namespace, name) = (&pod.meta.key.namespace, &pod.meta.key.name);
    Write {
        success: Some(Tell {
            about: About::new(Kind::Pod, &pod.meta),
            warning: false,
            reason: "TaintManagerEviction",
            message: format!("Marking for deletion Pod {namespace}/{name}"),
        }),
        ..Write::quiet(
            Kind::Pod,
            pod.meta.key.clone(),
            Action::Delete {
                uid: pod.meta.uid.clone(),
                force,
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use portolan_model::workloads::Object;

    #[test]
    fn a_silent_node_is_lost_then_its_pods_go() {
        let silent = Node::read(&json!({"metadata": {"name": "n"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}}));
        let pods = [Pod::read(
            &json!({"metadata": {"name": "p", "namespace": "a", "uid": "1"},
            "spec": {"nodeName": "n"},
            "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}}),
        )];
        let times = NodeTimes::default();
        let after = |seconds| {
            let silence = Duration::from_secs(seconds);
            node(&silent, pods.iter(), silence, &times, Timestamp::UNIX_EPOCH)
        };
        assert!(after(10).is_done());
        assert_eq!(after(10).again, Some(Duration::from_secs(30)));
        assert_eq!(after(41).writes.len(), 2, "node lost, pod not ready");
        assert_eq!(after(341).writes.len(), 3, "and the pod goes");
    }
}
