//! NetworkPolicies as they are compiled, held to an evaluator that has no index.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use portolan_model::{Change, Cluster, Direction, Dirty, Family, Protocol};
use portolan_plan::policy::{Allowed, Policies, PolicySet, TouchedPolicies};
use portolan_plan::{NodePlan, NodeView, node, renode};
use portolan_testkit::reference::{To, allowed};
use portolan_testkit::strategy::{POLICY_PORTS, THIS_NODE, anybody, policy_change};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x706f_7274),
        ..ProptestConfig::default()
    }
}

fn view() -> NodeView {
    NodeView {
        node: THIS_NODE.into(),
        dns_addresses: ["10.96.0.10", "fd00:10:96::10"]
            .iter()
            .filter_map(|text| text.parse().ok())
            .collect(),
        ..NodeView::default()
    }
}

fn destinations() -> Vec<To> {
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let ports = protocols.into_iter().flat_map(|protocol| {
        POLICY_PORTS
            .into_iter()
            .map(move |port| Some((protocol, port)))
    });
    ports.chain([None]).collect()
}

/// What a history leaves, built up change by change.
struct Rig {
    cluster: Cluster,
    plan: NodePlan,
    /// What is told piece by piece to who renders.
    told: Told,
}

/// An image kept up by what rounds say they touched.
#[derive(Debug, PartialEq, Default)]
struct Told {
    isolated: BTreeSet<IpAddr>,
    sets: BTreeSet<String>,
    peers: BTreeSet<String>,
    pods: BTreeSet<(String, IpAddr)>,
    doors: BTreeSet<String>,
}

impl Told {
    fn whole(policies: &Policies) -> Self {
        let pods = policies.peers().iter().flat_map(|(id, peers)| {
            let id = id.to_string();
            peers.pods.keys().map(move |address| (id.clone(), *address))
        });
        Self {
            isolated: policies.isolated.keys().copied().collect(),
            sets: policies.sets().map(|(id, _)| id.to_string()).collect(),
            peers: policies.peers().keys().map(ToString::to_string).collect(),
            pods: pods.collect(),
            doors: policies.doors().map(|door| format!("{door:?}")).collect(),
        }
    }

    /// Takes a report in; each entry must be a difference.
    fn take(&mut self, touched: &TouchedPolicies, policies: &Policies) {
        let now = Self::whole(policies);
        let TouchedPolicies {
            isolated,
            sets,
            peers,
        } = touched;
        for (address, before) in isolated {
            assert_ne!(policies.isolated.get(address), before.as_ref());
            turn(&mut self.isolated, *address, now.isolated.contains(address));
        }
        for id in sets.keys().map(ToString::to_string) {
            let there = now.sets.contains(&id);
            assert!(turn(&mut self.sets, id, there));
        }
        for id in peers.peers.keys().map(ToString::to_string) {
            let there = now.peers.contains(&id);
            assert!(turn(&mut self.peers, id, there));
        }
        for (id, address) in peers.pods.keys() {
            let pod = (id.to_string(), *address);
            let there = now.pods.contains(&pod);
            assert!(turn(&mut self.pods, pod, there));
        }
        for door in peers.doors.keys().map(|door| format!("{door:?}")) {
            let there = now.doors.contains(&door);
            assert!(turn(&mut self.doors, door, there));
        }
        assert_eq!(*self, now, "what was touched is not all that changed");
    }
}

/// Puts a thing in or takes it out; says whether that made a difference.
fn turn<K: Ord>(all: &mut BTreeSet<K>, key: K, there: bool) -> bool {
    if there {
        all.insert(key)
    } else {
        all.remove(&key)
    }
}

impl Rig {
    fn new() -> Self {
        let cluster = Cluster::default();
        let plan = node(&cluster, &view());
        let told = Told::whole(&plan.policies);
        Self {
            cluster,
            plan,
            told,
        }
    }

    fn apply(&mut self, changes: impl IntoIterator<Item = Change>) {
        let mut dirty = Dirty::default();
        for change in changes {
            dirty.merge(self.cluster.apply(change));
        }
        let touched = renode(&mut self.plan, &self.cluster, &view(), &dirty);
        self.told.take(&touched.policies, &self.plan.policies);
    }
}

proptest! {
    #![proptest_config(config(128))]

    /// After every change the compiled form is what it would be from scratch, and
    /// what rounds say that they touched adds up to it.
    #[test]
    fn n15_changes_lead_where_a_fresh_start_leads(
        history in vec(vec(policy_change(), 1..4), 1..24),
    ) {
        let mut rig = Rig::new();
        for changes in history {
            rig.apply(changes);
            let fresh = node(&rig.cluster, &view());
            prop_assert_eq!(&rig.plan.policies, &fresh.policies);
        }
    }

    /// For every pod that is isolated, every pod and others as its peer, and every
    /// protocol and port.
    #[test]
    fn n1_n3_n4_n5_n6_n8_n9_n10_n12_n13_n14_n21_the_plan_agrees_with_plain_words(
        history in vec(policy_change(), 20..80),
        others in vec(anybody(), 4),
    ) {
        let mut rig = Rig::new();
        rig.apply(history);
        let (view, policies) = (view(), &rig.plan.policies);
        let pods = rig.cluster.pods().flat_map(|pod| pod.addresses.clone());
        let anybody: BTreeSet<IpAddr> = pods.chain(others).collect();
        let open = anybody.iter().find(|address| !policies.isolated.contains_key(*address));
        for own in policies.isolated.keys().chain(open) {
            for ((direction, to), peer) in questions().flat_map(|question| {
                anybody.iter().map(move |peer| (question, *peer))
            }) {
                let compiled = policies.allows(direction, (*own, peer), to);
                let plain = allowed(&rig.cluster, &view, direction, (*own, peer), to);
                prop_assert_eq!(compiled, plain, "{} {} {} {:?}", direction.name(), own, peer, to);
            }
        }
    }
}

fn questions() -> impl Iterator<Item = (Direction, To)> {
    let all = Direction::BOTH.into_iter();
    all.flat_map(|direction| destinations().into_iter().map(move |to| (direction, to)))
}

/// Which features a cluster has.
fn features(policies: &Policies) -> [(&'static str, bool); 11] {
    let isolated = || policies.isolated.values();
    let sets = || policies.sets().map(|(_, set)| set);
    let peers = || policies.peers().values();
    let dns = view().dns_addresses;
    let addresses: Vec<IpAddr> = policies.isolated.keys().copied().collect();
    // Of two isolated pods one may reach the other at some ports only.
    let partly = addresses.iter().any(|own| {
        addresses.iter().any(|peer| {
            let verdicts =
                questions().map(|(direction, to)| policies.allows(direction, (*own, *peer), to));
            own != peer && verdicts.collect::<BTreeSet<bool>>().len() == 2
        })
    });
    let everybody = |set: &PolicySet| {
        let mut classes = set.classes.iter();
        classes.any(|class| class.allowed == Allowed::Everybody)
    };
    [
        (
            "both ways",
            isolated().any(|own| own.ingress.is_some() && own.egress.is_some()),
        ),
        (
            "one way",
            isolated().any(|own| own.ingress.is_some() != own.egress.is_some()),
        ),
        ("a port by name", policies.doors().next().is_some()),
        ("several policies", sets().any(|set| set.policies.len() > 1)),
        ("several classes", sets().any(|set| set.classes.len() > 2)),
        ("ports for everybody", sets().any(|set| everybody(set))),
        (
            "a range with holes",
            peers().any(|own| own.ranges.iter().any(|all| all.len() > 1)),
        ),
        (
            "a pod meant twice",
            peers().any(|own| own.pods.values().any(|count| *count > 1)),
        ),
        (
            "names",
            peers().any(|own| dns.iter().any(|at| own.pods.contains_key(at))),
        ),
        (
            "IPv6",
            policies
                .isolated
                .keys()
                .any(|own| Family::of(*own) == Family::V6),
        ),
        ("some ports only", partly),
    ]
}

/// The random clusters contain what the laws are about.
#[test]
fn every_feature_is_generated() {
    let seen = RefCell::new(BTreeMap::<&str, u32>::new());
    let mut runner = TestRunner::new(config(64));
    let result = runner.run(&vec(policy_change(), 20..80), |history| {
        let mut rig = Rig::new();
        rig.apply(history);
        for (what, is) in features(&rig.plan.policies) {
            *seen.borrow_mut().entry(what).or_default() += u32::from(is);
        }
        Ok(())
    });
    result.expect("histories can be applied");
    let seen = seen.into_inner();
    assert!(
        seen.values().all(|count| *count > 5),
        "hardly ever generated: {seen:?}"
    );
}
