//! NetworkPolicies and ClusterNetworkPolicies as they are compiled, held to an evaluator
//! that has no index.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use portolan_model::{Action, Change, Direction, Family, Protocol, Tier};
use portolan_nft::interp::{Env, Outcome, Packet, run};
use portolan_nft::{FibType, Hook, Name};
use portolan_plan::{Deny, NodeView};
use portolan_testkit::reference::{To, judged};
use portolan_testkit::rig::Rig;
use portolan_testkit::strategy::{POLICY_PORTS, THIS_NODE, anybody, policy_change};
use portolan_why::policy::{Cause, World, judge};
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

/// The bit of connections that are cut.
const CUT: u32 = 0x2000_0000;

/// The same, and nobody may use an address of the node that no pod is known to have.
fn closed_view() -> NodeView {
    NodeView {
        node_pod_cidrs: ["10.244.1.0/24", "10.244.1.0/30", "fd00:10:244:1::/64"]
            .iter()
            .filter_map(|text| text.parse().ok())
            .collect(),
        close_unknown_pods: true,
        cut_bit: Some(CUT),
        ..view()
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

fn rig(history: Vec<Change>) -> Rig {
    rig_of(view(), history)
}

fn rig_of(view: NodeView, history: Vec<Change>) -> Rig {
    let mut rig = Rig::new(view);
    rig.apply(history).expect("deltas can be applied");
    rig
}

/// Everybody who can be at an end of a connection: pods, and these others.
fn ends(rig: &Rig, others: Vec<IpAddr>) -> BTreeSet<IpAddr> {
    let pods = rig.cluster.pods().flat_map(|pod| pod.addresses.clone());
    pods.chain(others).collect()
}

/// The rules draw no numbers here, and ask for no routes.
struct Nowhere;

impl Env for Nowhere {
    fn numgen(&mut self, _chain: &Name, _modulus: u32) -> u32 {
        0
    }

    fn fib(&self, _address: IpAddr) -> FibType {
        FibType::Unicast
    }
}

/// ICMP: a protocol without ports.
const PORTLESS: u8 = 1;

/// Whether the rules let a new connection through at a hook.
fn passes(rig: &Rig, hook: Hook, (from, to): (IpAddr, IpAddr), at: To) -> bool {
    let packet = Packet {
        proto: at.map_or(PORTLESS, |(protocol, _)| protocol.number()),
        ..Packet::tcp(from, to, at.map_or(0, |(_, port)| port))
    };
    let outcome = run(&rig.ruleset, &packet, &[hook], &mut Nowhere);
    matches!(outcome, Outcome::Accept(_))
}

proptest! {
    #![proptest_config(config(128))]

    /// After every change the plan and its image are what they would be from
    /// scratch, and the kernel would take each step.
    #[test]
    fn n15_changes_lead_where_a_fresh_start_leads(
        history in vec((vec(policy_change(), 1..4), prop::bool::weighted(0.2)), 1..24),
    ) {
        let mut rig = Rig::new(view());
        let mut views = [closed_view(), view()].into_iter().cycle();
        for (changes, look) in history {
            rig.apply(changes).unwrap();
            rig.check().unwrap();
            if look && let Some(view) = views.next() {
                rig.look(view).unwrap();
                rig.check().unwrap();
            }
        }
    }

    /// For every pod that is isolated, every pod and others as its peer, and every
    /// protocol and port.
    #[test]
    fn n1_n3_n4_n5_n6_n8_n9_n10_n12_n13_n14_n19_n21_the_plan_agrees_with_plain_words(
        history in vec(policy_change(), 20..80),
        others in vec(anybody(), 4),
    ) {
        let rig = rig(history);
        let (view, policies) = (view(), &rig.plan.policies);
        let anybody = ends(&rig, others);
        let open = anybody.iter().find(|address| !policies.isolated.contains_key(*address));
        for own in policies.isolated.keys().chain(open) {
            for ((direction, to), peer) in questions().flat_map(|question| {
                anybody.iter().map(move |peer| (question, *peer))
            }) {
                let compiled = policies.judge(direction, (*own, peer), to);
                let plain = judged(&rig.cluster, &view, direction, (*own, peer), to);
                prop_assert_eq!(compiled, plain, "{} {} {} {:?}", direction.name(), own, peer, to);
            }
        }
    }

    /// What explains a verdict agrees with it: rules that allow are named exactly
    /// where it is allowed, and each rule that does not allow lacks something.
    #[test]
    fn n1_n3_n6_n8_n9_n10_n12_n19_n21_the_explanation_agrees_with_the_plan(
        history in vec(policy_change(), 20..60),
        others in vec(anybody(), 3),
    ) {
        let rig = rig(history);
        let plans = std::slice::from_ref(&rig.plan);
        let world = World::new(&rig.cluster, plans);
        let policies = &rig.plan.policies;
        let anybody = ends(&rig, others);
        let open = anybody.iter().find(|address| !policies.isolated.contains_key(*address));
        for own in policies.isolated.keys().chain(open) {
            for ((direction, to), peer) in questions().flat_map(|question| {
                anybody.iter().map(move |peer| (question, *peer))
            }) {
                let judged = judge(&world, &rig.plan, direction, (*own, peer), to);
                let said = policies.judge(direction, (*own, peer), to);
                let decided = said.map(|(tier, _)| tier) == judged.tier;
                let fits = match &judged.cause {
                    // Behind the last tier everything is let through.
                    Cause::Open => said.is_none_or(|said| said == (Tier::Baseline, Action::Accept)),
                    Cause::Itself => judged.allowed && *own == peer,
                    Cause::OwnNode => false,
                    Cause::Rules(rules) => judged.allowed && decided && !rules.is_empty(),
                    Cause::Denied(_) => {
                        !judged.allowed && decided && judged.tier != Some(Tier::NetworkPolicy)
                    }
                    Cause::Nothing(near) => {
                        let lacks = near.iter().all(|near| !near.misses.is_empty());
                        !judged.allowed && said == Some((Tier::NetworkPolicy, Action::Deny)) && lacks
                    }
                };
                prop_assert!(fits, "{} {} {} {:?}: {:?}", direction.name(), own, peer, to, judged);
            }
        }
    }

    /// The rules do to packets what the plan says: at forward both ends have a say,
    /// and at input who sends.
    #[test]
    fn n3_n16_n17_n18_n19_n21_the_rules_agree_with_the_plan(
        history in vec(policy_change(), 20..80),
        others in vec(anybody(), 3),
        closed in any::<bool>(),
    ) {
        let rig = rig_of(if closed { closed_view() } else { view() }, history);
        let policies = &rig.plan.policies;
        let anybody = ends(&rig, others);
        let pairs = anybody.iter().flat_map(|from| anybody.iter().map(move |to| (*from, *to)));
        for (from, to) in pairs.filter(|(from, to)| Family::of(*from) == Family::of(*to)) {
            for at in destinations() {
                let out = policies.allows(Direction::Egress, (from, to), at);
                let into = policies.allows(Direction::Ingress, (to, from), at);
                let forward = passes(&rig, Hook::Forward, (from, to), at);
                let [no_from, no_to] = [from, to].map(|end| policies.is_unknown(end));
                let wanted = out && into && !no_from && !no_to;
                prop_assert_eq!(forward, wanted, "{} {} {:?}", from, to, at);
                if from != to {
                    let input = passes(&rig, Hook::Input, (from, to), at);
                    prop_assert_eq!(input, out && !no_from, "{} here at {} {:?}", from, to, at);
                }
            }
        }
    }
}

/// What is denied is refused where that is asked for, TCP by a reset.
#[test]
fn n18_what_is_denied_is_dropped_or_refused() {
    let mut runner = TestRunner::new(config(1));
    let history = vec(policy_change(), 60..80);
    let result = runner.run(&history, |history| {
        let mut rig = rig(history);
        let mut ways = BTreeMap::<String, u32>::new();
        for deny in [Deny::Drop, Deny::Reject] {
            let view = NodeView {
                policy_deny: deny,
                policy_log: Some(7),
                ..view()
            };
            rig.look(view).unwrap();
            rig.check().unwrap();
            let anybody = ends(&rig, Vec::new());
            let pairs = anybody
                .iter()
                .flat_map(|from| anybody.iter().map(move |to| (*from, *to)));
            for (from, to) in pairs.filter(|(from, to)| Family::of(*from) == Family::of(*to)) {
                for proto in [PORTLESS, 6, 17] {
                    let packet = Packet {
                        proto,
                        ..Packet::tcp(from, to, 80)
                    };
                    let outcome = run(&rig.ruleset, &packet, &[Hook::Forward], &mut Nowhere);
                    let way = match outcome {
                        Outcome::Accept(_) => continue,
                        Outcome::Drop(_) => format!("{deny:?} {proto}"),
                        Outcome::Reject(_, kind) => format!("{deny:?} {proto} {kind:?}"),
                    };
                    *ways.entry(way).or_default() += 1;
                }
            }
        }
        let found: Vec<&str> = ways.keys().map(String::as_str).collect();
        let wanted = [
            "Drop 1",
            "Drop 17",
            "Drop 6",
            "Reject 1 AdminProhibited",
            "Reject 17 AdminProhibited",
            "Reject 6 TcpReset",
        ];
        prop_assert_eq!(found, wanted);
        Ok(())
    });
    result.expect("both ways");
}

fn questions() -> impl Iterator<Item = (Direction, To)> {
    let all = Direction::BOTH.into_iter();
    all.flat_map(|direction| destinations().into_iter().map(move |to| (direction, to)))
}
