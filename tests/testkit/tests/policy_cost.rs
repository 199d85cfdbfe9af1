//! A changed label costs what it concerns, whatever the number of policies and pods: a
//! test of its own, since it counts the allocations of the process.

use std::alloc::System;
use std::net::IpAddr;

use portolan_model::{Change, Cluster, Fact, Labels, NamedPort, Pod, PodKey, Text, Uid, intake};
use portolan_plan::{NodePlan, NodeView, node, renode};
use portolan_render::nft;
use serde_json::json;
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Pods of one application, and one of so many pods is on the node.
const ALIKE: usize = 10;

/// How a cluster is made.
#[derive(Clone, Copy)]
struct Shape {
    namespaces: usize,
    /// In each namespace; each has a policy of its own, which is about its pods and
    /// lets those of the next one in.
    applications: usize,
}

fn view() -> NodeView {
    NodeView {
        node: "here".into(),
        ..NodeView::default()
    }
}

fn pod(shape: Shape, number: usize, application: usize) -> Pod {
    let place = number / ALIKE;
    let namespace = place / shape.applications;
    let host = u32::try_from(number).expect("few pods");
    let node: Text = if number.is_multiple_of(ALIKE) && place < 20 {
        "here".into()
    } else {
        "there".into()
    };
    Pod {
        key: PodKey::new(&format!("n{namespace}"), &format!("p{number}")),
        addresses: vec![IpAddr::from((0x0a40_0000 + host).to_be_bytes())],
        labels: Labels::from_iter([("app", format!("a{application}").as_str())]),
        node: Some(node),
        host_network: false,
        over: false,
        uid: Uid::UNKNOWN,
        ports: Vec::<NamedPort>::new(),
    }
}

fn cluster(shape: Shape) -> Cluster {
    let mut cluster = Cluster::default();
    let mut put = |fact| {
        cluster.apply(Change::Upsert(fact));
    };
    for namespace in 0..shape.namespaces {
        for application in 0..shape.applications {
            let next = (application + 1) % shape.applications;
            let policy = json!({
                "metadata": {"namespace": format!("n{namespace}"), "name": format!("a{application}")},
                "spec": {
                    "podSelector": {"matchLabels": {"app": format!("a{application}")}},
                    "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": format!("a{next}")}}}],
                                 "ports": [{"port": 8080}]}],
                },
            });
            let policy = serde_json::from_value(policy).expect("a policy");
            put(Fact::Policy(intake::policy(&policy).0.into()));
        }
    }
    for number in 0..shape.namespaces * shape.applications * ALIKE {
        let application = number / ALIKE % shape.applications;
        put(Fact::Pod(pod(shape, number, application).into()));
    }
    cluster
}

/// Allocations for a pod of the node that gets the label of another application and
/// its own back, and for one elsewhere.
fn cost(shape: Shape) -> usize {
    let mut cluster = cluster(shape);
    let view = view();
    let mut plan: NodePlan = node(&cluster, &view);
    let mut change = |number: usize, application: usize| {
        let pod = pod(shape, number, application);
        let dirty = cluster.apply(Change::Upsert(Fact::Pod(pod.into())));
        let touched = renode(&mut plan, &cluster, &view, &dirty);
        let batch = nft::delta(&plan, &touched);
        assert!(!batch.is_empty(), "nothing changed");
    };
    let region = Region::new(COUNTED);
    for number in [0, 1, 50, 51] {
        let own = number / ALIKE % shape.applications;
        change(number, (own + 2) % shape.applications);
        change(number, own);
    }
    region.change().allocations
}

#[test]
fn n15_a_changed_label_costs_what_it_concerns() {
    let small = Shape {
        namespaces: 5,
        applications: 10,
    };
    let usual = cost(small);
    let many_namespaces = cost(Shape {
        namespaces: 100,
        ..small
    });
    let one_large = cost(Shape {
        namespaces: 5,
        applications: 200,
    });
    // Trees grow deeper, no more: what is twenty times as large costs not even twice.
    for (what, cost) in [("namespaces", many_namespaces), ("applications", one_large)] {
        assert!(
            cost < 2 * usual,
            "{cost} allocations with twenty times the {what}, {usual} without"
        );
    }
}
