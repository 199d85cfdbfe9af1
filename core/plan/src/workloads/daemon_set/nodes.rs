//! Which nodes a DaemonSet wants, and how its pods ask for one of them.

use portolan_api::meta::set_label;
use portolan_api::value::{at, bool_at, list_at, set, str_at};
use portolan_model::workloads::{DaemonSet, Node, Placement, Toleration};
use serde_json::{Value, json};

use super::super::history::{REVISION_HASH, Revision};
use super::super::pods;
use super::super::step::Kind;

/// What pods of every DaemonSet put up with: trouble of their node is no
/// reason to be elsewhere.
const TOLERATIONS: [(&str, &str); 6] = [
    ("node.kubernetes.io/not-ready", "NoExecute"),
    ("node.kubernetes.io/unreachable", "NoExecute"),
    ("node.kubernetes.io/disk-pressure", "NoSchedule"),
    ("node.kubernetes.io/memory-pressure", "NoSchedule"),
    ("node.kubernetes.io/pid-pressure", "NoSchedule"),
    ("node.kubernetes.io/unschedulable", "NoSchedule"),
];
/// What pods in the node's own network put up with besides.
const HOST_TOLERATION: (&str, &str) = ("node.kubernetes.io/network-unavailable", "NoSchedule");
/// Where Kubernetes keeps the number of a DaemonSet's template, and the label
/// of its pods that repeats it.
const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";
const TEMPLATE_GENERATION_LABEL: &str = "pod-template-generation";

/// Whether a node gets a pod, and whether one that it has may stay.
pub(super) struct Wanted {
    pub(super) runs: bool,
    pub(super) stays: bool,
}

/// What the template says about nodes.
pub(super) struct Wishes {
    node: String,
    placement: Placement,
    tolerations: Vec<Value>,
}

impl Wishes {
    pub(super) fn of(set: &DaemonSet) -> Self {
        let spec = at(&set.template, "spec");
        let mut tolerations = list_at(spec, "tolerations").to_vec();
        let more = bool_at(spec, "hostNetwork").then_some(HOST_TOLERATION);
        for (key, effect) in TOLERATIONS.into_iter().chain(more) {
            let automatic = json!({"key": key, "operator": "Exists", "effect": effect});
            if !tolerations.contains(&automatic) {
                tolerations.push(automatic);
            }
        }
        let mut placement = Placement::of(spec);
        placement.tolerations = tolerations.iter().map(Toleration::of).collect();
        Self {
            node: str_at(spec, "nodeName").to_owned(),
            placement,
            tolerations,
        }
    }

    pub(super) fn of_node(&self, node: &Node) -> Wanted {
        let named = self.node.is_empty() || self.node == node.meta.key.name;
        let bears = |effects: &[&str]| {
            node.taints
                .iter()
                .filter(|taint| effects.contains(&taint.effect.as_str()))
                .all(|taint| self.placement.tolerates(taint))
        };
        let stays = named && self.placement.accepts(node) && bears(&["NoExecute"]);
        Wanted {
            runs: stays && bears(&["NoSchedule"]),
            stays,
        }
    }

    /// A pod that the scheduler can put on one node only.
    pub(super) fn pod(&self, set: &DaemonSet, revision: &Revision, node: &str) -> Value {
        let mut pod = pods::body(&set.template, Kind::DaemonSet, &set.meta);
        set_label(&mut pod, REVISION_HASH, &revision.hash);
        if let Some(generation) = set.meta.annotations.get(TEMPLATE_GENERATION) {
            set_label(&mut pod, TEMPLATE_GENERATION_LABEL, generation);
        }
        pod["spec"]["tolerations"] = self.tolerations.clone().into();
        place(&mut pod, node);
        pod
    }
}

/// Replaces the required node affinity by the name of a node. What the
/// template required was judged before the node was chosen.
fn place(pod: &mut Value, node: &str) {
    let term = json!({"matchFields": [
        {"key": "metadata.name", "operator": "In", "values": [node]}
    ]});
    set(
        pod,
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms",
        json!([term]),
    );
}
