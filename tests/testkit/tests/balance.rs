//! What a change costs under each algorithm: no chain, and only the slots that moved.

use anyhow::Result;
use portolan_model::Change;
use portolan_nft::{Key, Op};
use portolan_plan::{NodeView, Verdict, renode};
use portolan_render::nft;
use portolan_testkit::build;
use portolan_testkit::rig::Rig;
use serde_json::json;

fn service(algorithm: &str) -> Result<Change> {
    let object = json!({
        "metadata": {"name": "web", "namespace": "default",
            "annotations": {"portolan.dev/lb-algorithm": algorithm}},
        "spec": {"clusterIP": "10.96.0.20", "ports": [{"name": "http", "port": 80, "protocol": "TCP"}]},
    });
    Ok(Change::Upsert(build::good(build::service(&object)?)?))
}

/// Endpoints 10.244.1.N.
fn endpoints(numbers: impl IntoIterator<Item = u8>) -> Result<Change> {
    let one = |number| json!({"addresses": [format!("10.244.1.{number}")], "conditions": {}});
    let endpoints: Vec<_> = numbers.into_iter().map(one).collect();
    let object = json!({
        "metadata": {"name": "web-1", "namespace": "default",
            "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    });
    let (fact, problems) = build::slice(&object)?;
    assert_eq!(problems, []);
    Ok(Change::Upsert(fact.expect("a slice of a Service")))
}

/// What a change does: operations on chains, elements that go, elements that come.
fn cost(rig: &mut Rig, change: Change) -> (usize, Vec<Key>, usize) {
    let dirty = rig.cluster.apply(change);
    let view = rig.given_view.observed(&rig.cluster);
    let touched = renode(&mut rig.plan, &rig.cluster, &view, &dirty);
    let batch = nft::delta(&rig.plan, &touched);
    rig.ruleset.apply(&batch).expect("the kernel takes it");
    let (mut chains, mut gone, mut came) = (0, Vec::new(), 0);
    for step in batch.steps {
        if let Op::AddElements { elements, .. } = step.op {
            came += elements.len();
        } else if let Op::DeleteElements { keys, .. } = step.op {
            gone.extend(keys);
        } else {
            chains += 1;
        }
    }
    (chains, gone, came)
}

fn rig(algorithm: &str, count: u8) -> Result<Rig> {
    let mut rig = Rig::new(NodeView {
        cluster_pod_cidrs: vec!["10.244.0.0/16".parse()?],
        ..NodeView::default()
    });
    rig.apply([service(algorithm)?, endpoints(1..=count)?])?;
    Ok(rig)
}

#[test]
fn turns_go_on_in_the_same_chain_when_an_endpoint_is_replaced() -> Result<()> {
    let mut rig = rig("round-robin", 5)?;
    let (chains, gone, came) = cost(&mut rig, endpoints([1, 2, 3, 4, 9])?);
    assert_eq!((chains, gone.len(), came), (0, 1, 1));
    let (chains, ..) = cost(&mut rig, endpoints([1, 2, 3, 4])?);
    assert!(chains > 0, "another width is another chain");
    rig.check()
}

#[test]
fn a_replaced_endpoint_of_many_moves_few_others() -> Result<()> {
    for algorithm in ["random", "round-robin"] {
        let mut rig = rig(algorithm, 100)?;
        let rest = (1..=100).filter(|number| *number != 17);
        let (chains, gone, came) = cost(&mut rig, endpoints(rest.chain([120]))?);
        assert_eq!((chains, gone.len()), (0, came));
        assert!((1..20).contains(&came), "{algorithm}: {came} of 100");
        rig.check()?;
    }
    Ok(())
}

#[test]
fn only_slots_that_moved_are_written() -> Result<()> {
    let mut rig = rig("maglev", 40)?;
    let slots = |rig: &Rig| -> Vec<String> {
        let decision = rig.plan.frontends.values().next().expect("a frontend");
        let Verdict::Forward(forward) = &decision.verdict else {
            panic!("no endpoints");
        };
        forward.slots().map(ToString::to_string).collect()
    };
    let before = slots(&rig);
    assert_eq!(before.len(), 1021);
    let (chains, gone, came) = cost(&mut rig, endpoints((1..=40).filter(|n| *n != 17))?);
    let after = slots(&rig);
    let moved = before.iter().zip(&after).filter(|(old, new)| old != new);
    let moved = moved.count();
    assert_eq!((chains, gone.len(), came), (0, moved, moved));
    // A fortieth had to: 25 or 26.
    assert!((25..90).contains(&moved), "{moved} of 1021");
    rig.check()
}
