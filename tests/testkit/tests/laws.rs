//! The laws that hold the stages to each other, for random clusters.

use portolan_model::{Change, Fact};
use portolan_plan::node;
use portolan_render::nft;
use portolan_testkit::packets;
use portolan_testkit::rig::Rig;
use portolan_testkit::strategy::{
    Client, changes, client, facts, knocks, packet, self_knocks, view,
};
use portolan_why::{Packet, trace};
use proptest::prelude::*;
use proptest::strategy::ValueTree;

/// The same sequence for every machine: a failure is one for everybody.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(0x706f_7274),
        ..ProptestConfig::default()
    }
}

fn all_packets(rig: &Rig, strays: Vec<Packet>, clients: Vec<Client>) -> Vec<Packet> {
    let aimed = clients
        .into_iter()
        .flat_map(|client| knocks(&rig.plan, client));
    strays
        .into_iter()
        .chain(aimed)
        .chain(self_knocks(&rig.plan))
        .collect()
}

proptest! {
    #![proptest_config(config(192))]

    /// After every change, what was built up equals what is made from scratch.
    #[test]
    fn p20_renode_equals_node_and_deltas_equal_images(
        (first, later) in (view(), view()),
        history in changes(40),
        at in 0_usize..40,
    ) {
        let mut rig = Rig::new(first);
        for (step, change) in history.into_iter().enumerate() {
            rig.apply([change]).unwrap();
            if step == at {
                rig.look(later.clone()).unwrap();
            }
            rig.check().unwrap();
        }
    }

    /// The end does not depend on the way there.
    #[test]
    fn arrival_order_does_not_matter(
        view in view(),
        (one, other) in facts(30).prop_flat_map(|facts| (Just(facts.clone()), Just(facts).prop_shuffle())),
        batch in 1_usize..6,
    ) {
        let upserts = |facts: Vec<Fact>| facts.into_iter().map(Change::Upsert).collect::<Vec<_>>();
        let mut rigs = [Rig::new(view.clone()), Rig::new(view)];
        for changes in upserts(one).chunks(batch) {
            rigs[0].apply(changes.to_vec()).unwrap();
        }
        rigs[1].apply(upserts(other)).unwrap();
        rigs[0].check().unwrap();
        rigs[1].check().unwrap();
        prop_assert!(rigs[0].plan == rigs[1].plan);
        prop_assert_eq!(&rigs[0].ruleset, &rigs[1].ruleset);
        prop_assert_eq!(&rigs[0].zones, &rigs[1].zones);
    }

    /// The same cluster and view give the same bytes.
    #[test]
    fn images_are_deterministic(view in view(), facts in facts(30)) {
        let mut rig = Rig::new(view);
        rig.apply(facts.into_iter().map(Change::Upsert)).unwrap();
        let again = node(&rig.cluster.clone(), &rig.plan.view);
        prop_assert_eq!(nft::image(&again).text(), nft::image(&rig.plan).text());
    }

    /// Rules do to a packet what the trace says, whichever slot is drawn.
    #[test]
    fn p1_p4_p5_p6_p7_p8_p11_p12_trace_equals_rules(
        view in view(),
        facts in facts(40),
        strays in proptest::collection::vec(packet(), 20),
        clients in proptest::collection::vec(client(), 5),
    ) {
        let mut rig = Rig::new(view);
        rig.apply(facts.into_iter().map(Change::Upsert)).unwrap();
        for packet in all_packets(&rig, strays, clients) {
            let trace = trace(&rig.cluster, &rig.plan, &rig.plan.view, packet);
            packets::check(&rig.ruleset, &rig.plan.view, &trace).unwrap();
        }
    }
}

/// A law over packets proves nothing if all of them pass by: the generator
/// must reach every verdict.
#[test]
fn random_packets_reach_every_verdict() {
    use portolan_why::{Outcome, Source};
    use std::collections::BTreeMap;
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut runner = proptest::test_runner::TestRunner::new(config(1));
    let packets = (
        proptest::collection::vec(packet(), 20),
        proptest::collection::vec(client(), 5),
    );
    let strategy = (view(), facts(40), packets);
    for _ in 0..500 {
        let (view, facts, (strays, clients)) = strategy.new_tree(&mut runner).unwrap().current();
        let mut rig = Rig::new(view);
        rig.apply(facts.into_iter().map(Change::Upsert)).unwrap();
        for packet in all_packets(&rig, strays, clients) {
            let trace = trace(&rig.cluster, &rig.plan, &rig.plan.view, packet);
            let outcome = match trace.outcome {
                Outcome::Forward(_) => "forward",
                Outcome::Reject(_) => "reject",
                Outcome::Drop(_) => "drop",
                Outcome::Here(_) => "here",
                Outcome::Pass(_) => "pass",
            };
            *seen.entry(outcome).or_default() += 1;
            for source in trace
                .endpoints
                .iter()
                .filter_map(|candidate| candidate.source.as_ref().ok())
            {
                let source = match source {
                    Source::Kept => "kept",
                    Source::NotAPod => "not a pod",
                    Source::FromNode => "from node",
                    Source::Always => "always",
                    Source::Hairpin => "hairpin",
                    Source::Returned => "returned",
                    Source::NotReturned => "not returned",
                };
                *seen.entry(source).or_default() += 1;
            }
        }
    }
    let all = [
        "forward",
        "reject",
        "drop",
        "here",
        "pass",
        "kept",
        "not a pod",
        "from node",
        "always",
        "hairpin",
        "returned",
        "not returned",
    ];
    let rare: Vec<_> = all
        .iter()
        .filter(|name| seen.get(**name).is_none_or(|times| *times < 20))
        .collect();
    assert!(rare.is_empty(), "hardly ever seen: {rare:?} in {seen:?}");
}
