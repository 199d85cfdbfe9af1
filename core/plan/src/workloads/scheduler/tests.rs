//! Where pods go, and why not elsewhere.

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
        "0/3 nodes are available: 1 node(s) were unschedulable, \
         2 node(s) had untolerated taint(s). no new claims to deallocate, \
         preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    );
    let selective = pod("p", "o", json!({"spec": {"nodeSelector": {"disk": "ssd"}}}));
    let plain = [node("n1", json!({}))];
    let step = schedule(&selective, plain.iter(), &Usage::default());
    assert!(
        step.tell[0]
            .message
            .contains("1 node(s) didn't match Pod's node affinity/selector")
    );
    let step = schedule(&selective, [].iter(), &Usage::default());
    assert_eq!(step.tell[0].message, "no nodes available to schedule pods");
}

#[test]
fn what_a_node_lacks_is_told_and_what_it_has_is_used() {
    let capacity =
        |cpu: &str| json!({"status": {"allocatable": {"cpu": cpu, "memory": "1Gi", "pods": "3"}}});
    let nodes = [node("n1", capacity("1")), node("n2", capacity("4"))];
    let asking = |name: &str, cpu: &str, memory: &str| {
        pod(
            name,
            "o",
            json!({"spec": {"containers": [
            {"resources": {"requests": {"cpu": cpu, "memory": memory}}}]}}),
        )
    };
    let placed = Usage::default();
    let step = schedule(&asking("p", "2", "100Mi"), nodes.iter(), &placed);
    assert_eq!(chosen(&step), "n2");
    let step = schedule(&asking("p", "2", "2Gi"), nodes.iter(), &placed);
    assert_eq!(
        step.tell[0].message,
        "0/2 nodes are available: 1 Insufficient cpu, 2 Insufficient memory. \
         no new claims to deallocate, preemption: 0/2 nodes are available: \
         2 No preemption victims found for incoming pod."
    );
    let mut there = asking("q", "3", "1Mi");
    there.node = "n2".to_owned();
    let placed = Usage::of([&there].into_iter());
    let step = schedule(&asking("p", "2", "1Mi"), nodes.iter(), &placed);
    assert!(
        step.tell[0].message.contains("2 Insufficient cpu"),
        "{step:?}"
    );
}

#[test]
fn a_port_of_the_node_is_given_once() {
    let nodes = [node("n1", json!({}))];
    let port = |protocol: &str, ip: &str| {
        pod(
            "p",
            "o",
            json!({"spec": {"containers": [{"ports": [
            {"containerPort": 80, "hostPort": 80, "protocol": protocol, "hostIP": ip}]}]}}),
        )
    };
    let mut there = port("TCP", "");
    there.node = "n1".to_owned();
    let placed = Usage::of([&there].into_iter());
    let step = schedule(&port("TCP", "10.0.0.1"), nodes.iter(), &placed);
    assert_eq!(
        step.tell[0].message,
        "0/1 nodes are available: 1 node(s) didn't have free ports for the requested pod \
         ports. no new claims to deallocate, preemption: 0/1 nodes are available: \
         1 No preemption victims found for incoming pod."
    );
    assert_eq!(
        chosen(&schedule(&port("UDP", ""), nodes.iter(), &placed)),
        "n1"
    );
}

#[test]
fn a_pod_of_a_daemon_set_goes_to_its_node_or_nowhere() {
    let mut nodes = ["n1", "n2", "n3"].map(|name| node(name, json!({})));
    let bound = pod(
        "p",
        "o",
        json!({"spec": {"affinity": {"nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n2"]}]}
        ]}}}}}),
    );
    let usage = Usage::default();
    assert_eq!(chosen(&schedule(&bound, nodes.iter(), &usage)), "n2");
    nodes[1].unschedulable = true;
    let step = schedule(&bound, nodes.iter(), &usage);
    assert_eq!(
        step.tell[0].message,
        "0/3 nodes are available: 1 node(s) were unschedulable, \
         2 node(s) didn't satisfy plugin(s) [NodeAffinity]. no new claims to deallocate, \
         preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling."
    );
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

fn labelled(name: &str, spec: Value) -> Pod {
    let labels = json!({"metadata": {"labels": {"app": "web"}}, "spec": spec});
    pod(name, "web", labels)
}

/// Schedules so many pods one after the other; answers with their nodes.
fn place(count: usize, nodes: &[Node], spec: &Value) -> (Vec<String>, Step) {
    let mut placed: Vec<Pod> = Vec::new();
    let mut last = Step::default();
    for i in 0..count {
        let mut next = labelled(&format!("p{i}"), spec.clone());
        let step = schedule(&next, nodes.iter(), &Usage::of(placed.iter()));
        if let Some(Action::Bind { node, .. }) = step.writes.first().map(|write| &write.action) {
            next.node.clone_from(node);
            placed.push(next);
        }
        last = step;
    }
    (placed.into_iter().map(|pod| pod.node).collect(), last)
}

fn three_nodes() -> [Node; 3] {
    [("n1", "east"), ("n2", "east"), ("n3", "west")]
        .map(|(name, zone)| node(name, json!({"metadata": {"labels": {"zone": zone}}})))
}

#[test]
fn pods_that_stay_apart_have_a_node_each() {
    let apart = json!({"affinity": {"podAntiAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {"matchLabels": {"app": "web"}},
                "topologyKey": "kubernetes.io/hostname"}]}}});
    let (placed, last) = place(4, &three_nodes(), &apart);
    assert_eq!(placed, ["n1", "n2", "n3"]);
    assert_eq!(
        last.tell[0].message,
        "0/3 nodes are available: 3 node(s) didn't match pod anti-affinity rules. \
         no new claims to deallocate, preemption: 0/3 nodes are available: \
         3 No preemption victims found for incoming pod."
    );
    let mut there = labelled("there", apart);
    there.node = "n1".to_owned();
    let guest = labelled("guest", json!({}));
    let step = schedule(
        &guest,
        three_nodes()[..1].iter(),
        &Usage::of([&there].into_iter()),
    );
    assert!(
        step.tell[0]
            .message
            .contains("1 node(s) didn't satisfy existing pods anti-affinity rules"),
        "{step:?}"
    );
}

#[test]
fn pods_that_stay_together_share_a_zone() {
    let together = json!({"affinity": {"podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {"matchLabels": {"app": "web"}}, "topologyKey": "zone"}]}}});
    let (placed, _) = place(4, &three_nodes(), &together);
    assert_eq!(placed, ["n1", "n2", "n1", "n2"], "never in the west");
    let alone = json!({"affinity": {"podAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": [
            {"labelSelector": {"matchLabels": {"app": "db"}}, "topologyKey": "zone"}]}}});
    let (placed, last) = place(1, &three_nodes(), &alone);
    assert!(placed.is_empty());
    assert!(
        last.tell[0]
            .message
            .contains("3 node(s) didn't match pod affinity rules"),
        "{last:?}"
    );
}

#[test]
fn a_spread_constraint_keeps_zones_even() {
    let spread = |skew: i64, key: &str| {
        json!({"topologySpreadConstraints": [{"maxSkew": skew, "topologyKey": key,
            "whenUnsatisfiable": "DoNotSchedule",
            "labelSelector": {"matchLabels": {"app": "web"}}}]})
    };
    let (placed, _) = place(4, &three_nodes(), &spread(1, "zone"));
    let west = placed.iter().filter(|node| *node == "n3").count();
    assert_eq!((placed.len(), west), (4, 2), "{placed:?}");
    let (placed, last) = place(1, &three_nodes(), &spread(1, "rack"));
    assert!(placed.is_empty());
    assert!(
        last.tell[0].message.contains(
            "3 node(s) didn't match pod topology spread constraints (missing required label)"
        ),
        "{last:?}"
    );
    let mut west_full = three_nodes();
    west_full[2].unschedulable = true;
    let (placed, last) = place(3, &west_full, &spread(1, "zone"));
    assert_eq!(
        placed.len(),
        1,
        "a node that is closed counts as an empty zone"
    );
    assert!(
        last.tell[0]
            .message
            .contains("2 node(s) didn't match pod topology spread constraints."),
        "{last:?}"
    );
}
