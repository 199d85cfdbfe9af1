//! Objects as some API server may send them: whatever JSON comes, it is a fact with
//! its problems, a plan and a ruleset, and planning again after a change ends where
//! planning from scratch does.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use portolan_api::lean;
use portolan_model::{Change, Cluster, Dirty, Fact, intake};
use portolan_plan::{NodePlan, NodeView, node, renode};
use portolan_render::{nft, zone};
use serde_json::Value;

fuzz_target!(|bytes: &[u8]| {
    let mut cluster = Cluster::default();
    let mut view = NodeView {
        node: "node-1".into(),
        ..NodeView::default()
    };
    let mut plan = NodePlan::empty(view.clone());
    let mut image = nft::image(&plan);
    let mut facts = Vec::new();
    // Objects one after another, each on its own line or not.
    let stream = serde_json::Deserializer::from_slice(bytes).into_iter::<Value>();
    for object in stream.map_while(Result::ok).take(16) {
        let Some(fact) = fact(object) else {
            continue;
        };
        facts.push(fact.key());
        let dirty = cluster.apply(Change::Upsert(fact));
        step(&mut plan, &cluster, &mut view, &dirty, &mut image);
    }
    for key in facts {
        let dirty = cluster.apply(Change::Delete(key));
        step(&mut plan, &cluster, &mut view, &dirty, &mut image);
    }
});

fn fact(object: Value) -> Option<Fact> {
    let kind = object.get("kind").and_then(Value::as_str).unwrap_or("");
    match kind {
        "EndpointSlice" => {
            let lean: lean::EndpointSlice = serde_json::from_value(object).ok()?;
            intake::slice(&lean)
                .0
                .map(|slice| Fact::Slice(Arc::new(slice)))
        }
        "Node" => {
            let lean: lean::Node = serde_json::from_value(object).ok()?;
            Some(Fact::Node(Arc::new(intake::node(&lean).0)))
        }
        "ServiceCIDR" => {
            let lean: lean::ServiceCidr = serde_json::from_value(object).ok()?;
            Some(Fact::ServiceCidr(Arc::new(intake::service_cidr(&lean).0)))
        }
        "Pod" => {
            let lean: lean::PodFacts = serde_json::from_value(object).ok()?;
            Some(Fact::Pod(Arc::new(intake::pod(&lean).0)))
        }
        "NetworkPolicy" => {
            let lean: lean::NetworkPolicy = serde_json::from_value(object).ok()?;
            Some(Fact::Policy(Arc::new(intake::policy(&lean).0)))
        }
        "ClusterNetworkPolicy" => {
            let lean: lean::ClusterNetworkPolicy = serde_json::from_value(object).ok()?;
            let fact = intake::cluster_policy(&lean).0;
            Some(Fact::ClusterPolicy(Arc::new(fact)))
        }
        "Namespace" => {
            let lean: lean::Namespace = serde_json::from_value(object).ok()?;
            Some(Fact::Namespace(intake::namespace(&lean)))
        }
        _ => {
            let lean: lean::Service = serde_json::from_value(object).ok()?;
            Some(Fact::Service(Arc::new(intake::service(&lean).0)))
        }
    }
}

/// Plans what is dirty, and holds it to the plan from scratch.
fn step(
    plan: &mut NodePlan,
    cluster: &Cluster,
    view: &mut NodeView,
    dirty: &Dirty,
    image: &mut portolan_nft::Ruleset,
) {
    *view = view.observed(cluster);
    let touched = renode(plan, cluster, view, dirty);
    let delta = nft::delta(plan, &touched);
    image.apply(&delta).expect("a delta that fits");
    assert!(*plan == node(cluster, view), "renode differs from node");
    assert!(*image == nft::image(plan), "deltas differ from the image");
    drop(zone::image(plan, 1));
}
