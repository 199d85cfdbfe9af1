//! DaemonSets against a server in miniature.

use std::collections::{BTreeMap, BTreeSet};

use portolan_model::workloads::{ControllerRevision, DaemonSet, Node, ObjectKey, Pod};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::testbed::Server;
use super::super::{Action, Kind, Step};
use super::{daemon_set, of_revision};

fn key() -> ObjectKey {
    ObjectKey::new("a", "agent")
}

fn node(name: &str) -> ObjectKey {
    ObjectKey::new("", name)
}

struct Bed {
    server: Server,
}

impl Bed {
    fn new(nodes: usize, rolling: &Value) -> Self {
        let mut server = Server::default();
        server.put(
            Kind::DaemonSet,
            json!({
                "metadata": {"name": "agent", "namespace": "a", "uid": "set", "generation": 1,
                    "annotations": {"deprecated.daemonset.template.generation": "1"}},
                "spec": {
                    "selector": {"matchLabels": {"app": "agent"}},
                    "template": {
                        "metadata": {"labels": {"app": "agent"}},
                        "spec": {"containers": [{"name": "c", "image": "v1"}]},
                    },
                    "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": rolling},
                    "revisionHistoryLimit": 2,
                },
            }),
        );
        let mut bed = Self { server };
        (1..=nodes).for_each(|i| bed.add_node(&format!("n{i}"), &json!({})));
        bed
    }

    fn add_node(&mut self, name: &str, spec: &Value) {
        self.server.put(
            Kind::Node,
            json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
                "spec": spec}),
        );
    }

    fn patch(&mut self, patch: &Value) {
        self.server.change(Kind::DaemonSet, &key(), patch, false);
    }

    fn image(&mut self, image: &str) {
        self.patch(&json!({"spec": {"template":
            {"spec": {"containers": [{"name": "c", "image": image}]}}}}));
    }

    fn next(&self) -> Step {
        let revisions: Vec<ControllerRevision> = self.server.all(Kind::ControllerRevision);
        let revisions: Vec<&ControllerRevision> = revisions.iter().collect();
        let pods = self.server.pods();
        let pods: Vec<&Pod> = pods.iter().collect();
        let nodes: Vec<Node> = self.server.all(Kind::Node);
        let nodes: Vec<&Node> = nodes.iter().collect();
        daemon_set(&self.set(), &revisions, &pods, &nodes, self.server.now())
    }

    fn step(&mut self) {
        self.server.seconds += 1;
        let step = self.next();
        self.server
            .told
            .extend(step.tell.iter().map(|tell| tell.message.clone()));
        self.server.carry_out(&step);
    }

    fn everything_ready(&mut self) {
        for pod in self.server.active() {
            if !pod.ready {
                self.server.set_ready(&pod.meta.key, true);
            }
        }
        self.server.reap();
    }

    fn roll_out(&mut self) {
        for _ in 0..300 {
            let before = self.server.log.len();
            self.server.seconds += 10;
            self.step();
            self.everything_ready();
            if self.server.log.len() == before {
                return;
            }
        }
        panic!("it does not end: {:?}", self.set());
    }

    fn set(&self) -> DaemonSet {
        self.server.all(Kind::DaemonSet).remove(0)
    }

    fn object(&self, kind: Kind, key: &ObjectKey) -> &Value {
        &self.server.objects[&(kind, key.clone())]
    }

    /// Pods that are not being deleted, by node.
    fn by_node(&self) -> BTreeMap<String, usize> {
        let mut by_node = BTreeMap::new();
        for pod in self.server.active() {
            *by_node.entry(pod.target_node().to_owned()).or_default() += 1;
        }
        by_node
    }

    fn nodes_with_one(&self) -> Vec<String> {
        let by_node = self.by_node();
        assert!(by_node.values().all(|count| *count == 1), "{by_node:?}");
        by_node.into_keys().collect()
    }

    fn images(&self) -> BTreeSet<String> {
        self.server
            .objects
            .iter()
            .filter(|((kind, _), _)| *kind == Kind::Pod)
            .map(|(_, pod)| pod["spec"]["containers"][0]["image"].to_string())
            .collect()
    }
}

#[test]
fn every_node_gets_one_pod_bound_by_affinity() {
    let mut bed = Bed::new(3, &json!({"maxUnavailable": 1}));
    bed.roll_out();
    assert_eq!(bed.nodes_with_one(), ["n1", "n2", "n3"]);
    let name = bed.server.pods()[0].meta.key.clone();
    let pod = bed.object(Kind::Pod, &name);
    let term = &pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        ["nodeSelectorTerms"];
    assert_eq!(
        *term,
        json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n1"]}]}])
    );
    let tolerations = pod["spec"]["tolerations"].as_array().map_or(0, Vec::len);
    assert_eq!(tolerations, 6);
    let labels = &pod["metadata"]["labels"];
    assert_eq!(labels["pod-template-generation"], "1");
    let revision: ControllerRevision = bed.server.all(Kind::ControllerRevision).remove(0);
    let hash = &revision.meta.labels["controller-revision-hash"];
    assert_eq!(labels["controller-revision-hash"], hash.as_str());
    assert_eq!(revision.meta.key.name, format!("agent-{hash}"));
    let status = &bed.object(Kind::DaemonSet, &key())["status"];
    for field in [
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    ] {
        assert_eq!(status[field], 3, "{field}");
    }
    assert_eq!(status["numberMisscheduled"], 0);
    assert_eq!(status.get("numberUnavailable"), None);
    assert_eq!(bed.server.told[0], "Created pod: ");
}

#[test]
fn the_host_network_is_tolerated_without_a_network() {
    let mut bed = Bed::new(1, &json!({}));
    bed.patch(&json!({"spec": {"template": {"spec": {"hostNetwork": true}}}}));
    bed.step();
    let name = bed.server.pods()[0].meta.key.clone();
    let tolerations = bed.object(Kind::Pod, &name)["spec"]["tolerations"].clone();
    assert!(tolerations.as_array().is_some_and(|all| {
        all.iter()
            .any(|t| t["key"] == "node.kubernetes.io/network-unavailable")
    }));
}

#[test]
fn nodes_that_come_and_go_are_followed() {
    let mut bed = Bed::new(1, &json!({}));
    bed.roll_out();
    bed.add_node("n2", &json!({}));
    bed.step();
    assert_eq!(bed.nodes_with_one(), ["n1", "n2"]);
    // The pod for n2 was never bound, and n2 is gone.
    bed.server.remove(Kind::Node, &node("n2"));
    bed.step();
    assert_eq!(bed.nodes_with_one(), ["n1"]);
}

#[test]
fn selector_affinity_and_taints_choose_nodes() {
    let taint = |effect: &str| json!({"taints": [{"key": "k", "value": "v", "effect": effect}]});
    let mut bed = Bed::new(1, &json!({}));
    bed.add_node("tainted", &taint("NoSchedule"));
    bed.add_node(
        "cordoned",
        &json!({"unschedulable": true, "taints": [
        {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]}),
    );
    bed.roll_out();
    assert_eq!(
        bed.nodes_with_one(),
        ["cordoned", "n1"],
        "cordoned nodes are tolerated"
    );
    bed.patch(&json!({"spec": {"template": {"spec": {
        "tolerations": [{"key": "k", "operator": "Exists"}]}}}}));
    bed.roll_out();
    assert_eq!(bed.nodes_with_one(), ["cordoned", "n1", "tainted"]);
    bed.patch(&json!({"spec": {"template": {"spec": {
        "nodeSelector": {"kubernetes.io/hostname": "tainted"}}}}}));
    bed.roll_out();
    assert_eq!(bed.nodes_with_one(), ["tainted"]);
}

#[test]
fn no_schedule_lets_a_pod_stay_and_no_execute_does_not() {
    let taint = |effect: &str| json!({"spec": {"taints": [{"key": "k", "effect": effect}]}});
    let mut bed = Bed::new(2, &json!({}));
    bed.roll_out();
    bed.server
        .change(Kind::Node, &node("n1"), &taint("NoSchedule"), false);
    bed.roll_out();
    assert_eq!(bed.nodes_with_one(), ["n1", "n2"]);
    let status = bed.set().status;
    assert_eq!((status.desired, status.misscheduled), (1, 1));
    bed.server
        .change(Kind::Node, &node("n1"), &taint("NoExecute"), false);
    bed.roll_out();
    assert_eq!(bed.nodes_with_one(), ["n2"]);
}

#[test]
fn an_update_takes_as_many_as_max_unavailable_and_waits_until_they_are_gone() {
    let mut bed = Bed::new(4, &json!({"maxUnavailable": "50%"}));
    bed.roll_out();
    bed.image("v2");
    bed.step();
    assert_eq!(bed.server.active().len(), 2);
    bed.step();
    assert_eq!(
        bed.server.pods().len(),
        4,
        "the new ones wait for the old ones' end"
    );
    bed.server.reap();
    bed.step();
    assert_eq!(bed.server.active().len(), 4);
    bed.step();
    assert_eq!(
        bed.server.active().len(),
        4,
        "the new ones are not ready yet"
    );
    bed.roll_out();
    assert_eq!(bed.images(), BTreeSet::from(["\"v2\"".to_owned()]));
    assert_eq!(bed.set().status.updated, 4);
}

#[test]
fn a_surge_brings_the_new_pod_before_the_old_one_goes() {
    let mut bed = Bed::new(3, &json!({"maxSurge": 1, "maxUnavailable": 0}));
    bed.roll_out();
    bed.image("v2");
    bed.step();
    assert_eq!(bed.server.active().len(), 4);
    bed.step();
    assert_eq!(bed.server.active().len(), 4, "one at a time");
    let mut fewest = usize::MAX;
    for _ in 0..30 {
        bed.everything_ready();
        bed.step();
        let ready: BTreeSet<String> = bed
            .server
            .active()
            .iter()
            .filter(|pod| pod.ready)
            .map(|pod| pod.node.clone())
            .collect();
        fewest = fewest.min(ready.len());
    }
    assert_eq!(fewest, 3, "no node goes without");
    bed.roll_out();
    assert_eq!(bed.images(), BTreeSet::from(["\"v2\"".to_owned()]));
    assert_eq!(bed.nodes_with_one(), ["n1", "n2", "n3"]);
}

#[test]
fn on_delete_waits_for_somebody_to_delete() {
    let mut bed = Bed::new(2, &json!({}));
    bed.patch(&json!({"spec": {"updateStrategy": {"type": "OnDelete"}}}));
    bed.roll_out();
    bed.image("v2");
    bed.roll_out();
    assert_eq!(bed.images(), BTreeSet::from(["\"v1\"".to_owned()]));
    assert_eq!(bed.set().status.updated, 0);
    let one = bed.server.pods()[0].meta.key.clone();
    bed.server.kill(&one);
    bed.roll_out();
    assert_eq!(bed.images().len(), 2);
}

#[test]
fn ended_pods_are_replaced_and_an_event_says_so() {
    let mut bed = Bed::new(1, &json!({}));
    bed.roll_out();
    let name = bed.server.pods()[0].meta.key.clone();
    bed.server.fail(&name);
    bed.server.seconds += 60;
    bed.step();
    let told = format!(
        "Found failed daemon pod a/{} on node n1, will try to kill it",
        name.name
    );
    assert!(bed.server.told.contains(&told), "{:?}", bed.server.told);
    bed.roll_out();
    assert_eq!(bed.nodes_with_one(), ["n1"]);
}

#[test]
fn revisions_are_found_again_and_the_oldest_forgotten() {
    let mut bed = Bed::new(1, &json!({}));
    for image in ["v1", "v2", "v3", "v4", "v1", "v5"] {
        bed.image(image);
        bed.roll_out();
    }
    let revisions: Vec<ControllerRevision> = bed.server.all(Kind::ControllerRevision);
    let mut numbers: Vec<i64> = revisions.iter().map(|r| r.revision).collect();
    numbers.sort();
    assert_eq!(numbers, [4, 5, 6]);
}

#[test]
fn a_selector_that_says_nothing_is_refused() {
    let mut bed = Bed::new(1, &json!({}));
    bed.patch(&json!({"spec": {"selector": null}}));
    let step = bed.next();
    assert_eq!(step.tell[0].reason, "SelectingAll");
    assert!(step.writes.is_empty());
}

/// What happens between two steps.
#[derive(Clone, Debug)]
enum Happening {
    /// The controller acts, and dies after so many writes.
    Step(usize),
    /// The nth pod becomes ready, or unready.
    Ready(usize, bool),
    /// The nth pod is deleted by somebody.
    Kill(usize),
    /// The nth pod ends for good.
    Fail(usize),
    /// Deleted pods are gone.
    Reap,
    /// Another template.
    Image(u8),
    /// A node is tainted, or not.
    Taint(u8, bool),
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        8 => (0usize..6).prop_map(Happening::Step),
        6 => (0usize..6, prop::bool::weighted(0.8)).prop_map(|(n, r)| Happening::Ready(n, r)),
        1 => (0usize..6).prop_map(Happening::Kill),
        1 => (0usize..6).prop_map(Happening::Fail),
        4 => Just(Happening::Reap),
        1 => (1u8..4).prop_map(Happening::Image),
        1 => (1u8..4, any::<bool>()).prop_map(|(n, t)| Happening::Taint(n, t)),
    ]
}

/// Nodes that want a pod and have an available one.
fn served(bed: &Bed) -> BTreeSet<String> {
    let tainted: BTreeSet<String> = bed
        .server
        .all::<Node>(Kind::Node)
        .into_iter()
        .filter(|node| !node.taints.is_empty())
        .map(|node| node.meta.key.name)
        .collect();
    bed.server
        .active()
        .iter()
        .filter(|pod| pod.ready && !tainted.contains(pod.target_node()))
        .map(|pod| pod.target_node().to_owned())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Whatever happens and whenever the controller dies: without surge a node
    /// never has two pods and an update leaves no more than maxUnavailable
    /// nodes without an available one; with surge it takes none away. In the
    /// end every node has one pod of the newest template.
    #[test]
    fn it_keeps_its_bounds_and_ends(
        surge in any::<bool>(),
        happenings in prop::collection::vec(happening(), 0..80),
    ) {
        let rolling = if surge {
            json!({"maxSurge": 1, "maxUnavailable": 0})
        } else {
            json!({"maxUnavailable": 1})
        };
        let mut bed = Bed::new(4, &rolling);
        for happening in happenings {
            let pods = bed.server.pods();
            match happening {
                Happening::Step(count) => {
                    bed.server.seconds += 1;
                    let step = bed.next();
                    let before = served(&bed);
                    for write in step.writes.iter().take(count) {
                        bed.server.write(write);
                    }
                    let after = served(&bed);
                    let deleted = step.writes.iter().take(count)
                        .any(|write| matches!(write.action, Action::Delete { .. }));
                    if deleted && before != after {
                        prop_assert!(!surge, "{before:?} → {after:?}");
                        let wanting = bed.server.all::<Node>(Kind::Node).into_iter()
                            .filter(|node| node.taints.is_empty()).count();
                        prop_assert!(after.len() + 1 >= wanting, "{after:?} of {wanting}");
                    }
                }
                Happening::Ready(n, ready) => {
                    if let Some(pod) = pods.get(n).filter(|pod| pod.is_active()) {
                        bed.server.set_ready(&pod.meta.key, ready);
                    }
                }
                Happening::Kill(n) => {
                    if let Some(pod) = pods.get(n) {
                        bed.server.kill(&pod.meta.key);
                    }
                }
                Happening::Fail(n) => {
                    if let Some(pod) = pods.get(n) {
                        bed.server.fail(&pod.meta.key);
                    }
                }
                Happening::Reap => bed.server.reap(),
                Happening::Image(n) => bed.image(&format!("v{n}")),
                Happening::Taint(n, tainted) => {
                    let taints = if tainted {
                        json!([{"key": "k", "effect": "NoExecute"}])
                    } else {
                        json!([])
                    };
                    let patch = json!({"spec": {"taints": taints}});
                    bed.server.change(Kind::Node, &node(&format!("n{n}")), &patch, false);
                }
            }
            let most = if surge { 2 } else { 1 };
            prop_assert!(bed.by_node().values().all(|count| *count <= most), "{:?}", bed.by_node());
        }
        for n in 1..=4 {
            let patch = json!({"spec": {"taints": []}});
            bed.server.change(Kind::Node, &node(&format!("n{n}")), &patch, false);
        }
        bed.roll_out();
        prop_assert_eq!(bed.nodes_with_one(), ["n1", "n2", "n3", "n4"]);
        let revisions: Vec<ControllerRevision> = bed.server.all(Kind::ControllerRevision);
        let newest = revisions.iter().max_by_key(|r| r.revision).map(|r| {
            r.meta.labels["controller-revision-hash"].clone()
        });
        for pod in bed.server.pods() {
            prop_assert_eq!(Some(of_revision(&pod)), newest.as_deref());
        }
    }
}
