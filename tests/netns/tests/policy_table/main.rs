//! The truth table: who reaches whom, at which port of which protocol, policy by policy.
//!
//! Three namespaces of three pods each, on three nodes. For every step all pods and nodes
//! begin to talk to all pods at two ports of three protocols and of both families, by
//! real packets; what arrives must be what the evaluator in plain words says.

mod steps;
mod table;
mod tiers;

use anyhow::Result;
use portolan_netns::namespace::inside;
use portolan_netns::world::block_on;

use steps::{People, Step};
use table::Table;

/// Goes step by step and compares the whole table after each.
fn run(test: &str, steps: impl FnOnce(&People) -> Vec<Step>) {
    if !inside(test) {
        return;
    }
    block_on(async {
        let mut table = Table::make().await?;
        let steps = steps(&table.people);
        for step in steps {
            table.step(&step).await?;
        }
        Result::Ok(())
    });
}

#[test]
fn n1_n2_n3_n4_n5_n6_n8_n12_n13_who_may_come_in() {
    run(
        "n1_n2_n3_n4_n5_n6_n8_n12_n13_who_may_come_in",
        steps::ingress,
    );
}

#[test]
fn n2_n3_n4_n5_n6_n8_n21_where_one_may_go() {
    run("n2_n3_n4_n5_n6_n8_n21_where_one_may_go", steps::egress);
}

#[test]
fn n5_n9_n10_n14_at_which_ports() {
    run("n5_n9_n10_n14_at_which_ports", steps::ports);
}

#[test]
fn n11_n15_n16_n18_what_changes() {
    run("n11_n15_n16_n18_what_changes", steps::changes);
}

#[test]
fn n19_tiers() {
    run("n19_tiers", tiers::tiers);
}

/// The table is about as many policies as Kubernetes' own, and about all rules but
/// those of validation (N7, N20) and of Services (N17), which have tests of their own.
#[test]
fn the_table_is_large() {
    let people = People::anywhere();
    let all = [
        steps::ingress,
        steps::egress,
        steps::ports,
        steps::changes,
        tiers::tiers,
    ];
    let steps: Vec<Step> = all.iter().flat_map(|steps| steps(&people)).collect();
    let policies: usize = steps.iter().map(Step::policies).sum();
    assert!(policies >= 60, "{policies} policies");
    for rule in (1..=21).filter(|number| ![7, 17, 20].contains(number)) {
        let name = format!("N{rule}");
        let about = |step: &Step| step.rules.split(' ').any(|own| own == name);
        assert!(steps.iter().any(about), "{name} has no step");
    }
}
