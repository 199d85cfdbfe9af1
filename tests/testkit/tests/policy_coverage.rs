//! What random policies are made of. A law over them says nothing of a field that they
//! never have, so every field of either kind is taken apart here, by name: who adds one
//! must say here what it may hold.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use portolan_model::{
    Action, Ask, Block, Change, Cluster, ClusterPolicy, ClusterRule, Direction, Family,
    LabelSelector, NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule, PortMatch, Protocol, Subject,
    Tier,
};
use portolan_plan::NodeView;
use portolan_plan::policy::{Isolation, Peers, Policies, PolicySet, Way};
use portolan_testkit::rig::Rig;
use portolan_testkit::strategy::{POLICY_PORTS, THIS_NODE, policy_change};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

/// How many clusters are looked at.
const CLUSTERS: u32 = 128;
/// In how many of them each feature is, at least.
const OFTEN: u32 = 5;

/// What a field may hold.
const FIELDS: &[&str] = &[
    "NetworkPolicy that selects all",
    "NetworkPolicy that selects some",
    "no ingress",
    "no egress",
    "no rules",
    "rules",
    "any peer",
    "nobody",
    "peers",
    "any port",
    "no port",
    "ports",
    "pods of its own namespace",
    "pods of namespaces",
    "pods of all namespaces",
    "a range",
    "a range less others",
    "an IPv4 range",
    "an IPv6 range",
    "TCP",
    "UDP",
    "SCTP",
    "all ports",
    "one port",
    "a range of ports",
    "a name of a port",
    "In",
    "NotIn",
    "Exists",
    "DoesNotExist",
    "tier Admin",
    "tier Baseline",
    "another priority",
    "the same priority",
    "subject of all namespaces",
    "subject of some namespaces",
    "subject of all pods",
    "subject of some pods",
    "a rule with a name",
    "a rule without a name",
    "Accept",
    "Deny",
    "Pass",
    "a pod with hostNetwork",
    "a pod without a label",
    "a pod with names of ports",
];

#[derive(Default)]
struct Seen(BTreeSet<&'static str>);

impl Seen {
    fn see(&mut self, feature: &'static str) {
        assert!(FIELDS.contains(&feature), "{feature} is not in the list");
        self.0.insert(feature);
    }

    fn either(&mut self, is: bool, feature: &'static str, otherwise: &'static str) {
        self.see(if is { feature } else { otherwise });
    }

    fn cluster(&mut self, cluster: &Cluster) {
        for policy in cluster.policies() {
            self.policy(policy);
        }
        let mut ranks = BTreeSet::new();
        for policy in Tier::ALL
            .into_iter()
            .flat_map(|tier| cluster.cluster_policies(tier))
        {
            let rank = (policy.tier, policy.priority);
            if ranks.iter().any(|(tier, _)| *tier == policy.tier) {
                self.either(
                    ranks.contains(&rank),
                    "the same priority",
                    "another priority",
                );
            }
            ranks.insert(rank);
            self.cluster_policy(policy);
        }
        for pod in cluster.pods() {
            if pod.host_network {
                self.see("a pod with hostNetwork");
            }
            if pod.labels.iter().next().is_none() {
                self.see("a pod without a label");
            }
            if !pod.ports.is_empty() {
                self.see("a pod with names of ports");
            }
        }
    }

    fn policy(&mut self, policy: &NetworkPolicy) {
        let NetworkPolicy {
            key: _,
            pods,
            ingress,
            egress,
        } = policy;
        self.either(
            *pods == LabelSelector::default(),
            "NetworkPolicy that selects all",
            "NetworkPolicy that selects some",
        );
        self.selector(pods);
        for (rules, absent) in [(ingress, "no ingress"), (egress, "no egress")] {
            match rules {
                None => self.see(absent),
                Some(rules) => self.rules(rules.iter()),
            }
        }
    }

    fn cluster_policy(&mut self, policy: &ClusterPolicy) {
        let ClusterPolicy {
            name: _,
            tier,
            priority: _,
            subject: Subject { namespaces, pods },
            ingress,
            egress,
        } = policy;
        self.either(*tier == Tier::Admin, "tier Admin", "tier Baseline");
        let all = LabelSelector::default();
        self.either(
            *namespaces == all,
            "subject of all namespaces",
            "subject of some namespaces",
        );
        self.either(*pods == all, "subject of all pods", "subject of some pods");
        for rules in [ingress, egress] {
            for ClusterRule { name, action, .. } in rules {
                self.either(
                    name.is_some(),
                    "a rule with a name",
                    "a rule without a name",
                );
                self.see(action.name());
            }
            self.rules(rules.iter().map(|ClusterRule { rule, .. }| rule));
        }
    }

    fn rules<'r>(&mut self, rules: impl ExactSizeIterator<Item = &'r PolicyRule>) {
        self.either(rules.len() == 0, "no rules", "rules");
        for PolicyRule { peers, ports } in rules {
            match peers.as_deref() {
                None => self.see("any peer"),
                Some([]) => self.see("nobody"),
                Some(peers) => {
                    self.see("peers");
                    peers.iter().for_each(|peer| self.peer(peer));
                }
            }
            match ports.as_deref() {
                None => self.see("any port"),
                Some([]) => self.see("no port"),
                Some(ports) => {
                    self.see("ports");
                    ports.iter().for_each(|port| self.port(port));
                }
            }
        }
    }

    fn peer(&mut self, peer: &PolicyPeer) {
        match peer {
            PolicyPeer::Pods { namespaces, pods } => {
                match namespaces {
                    None => self.see("pods of its own namespace"),
                    Some(all) if *all == LabelSelector::default() => {
                        self.see("pods of all namespaces");
                    }
                    Some(some) => {
                        self.see("pods of namespaces");
                        self.selector(some);
                    }
                }
                self.selector(pods);
            }
            PolicyPeer::Block(Block { range, except }) => {
                self.either(except.is_empty(), "a range", "a range less others");
                let is_v4 = range.addr().is_ipv4();
                self.either(is_v4, "an IPv4 range", "an IPv6 range");
            }
        }
    }

    fn port(&mut self, port: &PolicyPort) {
        let PolicyPort { protocol, port } = port;
        self.see(match protocol {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Sctp => "SCTP",
        });
        self.see(match port {
            PortMatch::All => "all ports",
            PortMatch::Range(first, last) if first == last => "one port",
            PortMatch::Range(..) => "a range of ports",
            PortMatch::Named(_) => "a name of a port",
        });
    }

    fn selector(&mut self, selector: &LabelSelector) {
        for (_, ask) in selector.requirements() {
            self.see(match ask {
                Ask::In(_) => "In",
                Ask::NotIn(_) => "NotIn",
                Ask::Exists => "Exists",
                Ask::DoesNotExist => "DoesNotExist",
            });
        }
    }
}

/// What the compiled plan has, beyond the fields that it comes from.
fn features(policies: &Policies) -> Vec<(&'static str, bool)> {
    let isolated = || policies.isolated.values();
    let sets = || policies.sets().map(|(_, set)| &**set);
    let has = |tier| sets().any(|set| set.tier == tier);
    let all = |set: &PolicySet, action| {
        let mut classes = set.classes.iter();
        classes.any(|class| class.ports.way == Way::All(action))
    };
    let door_by_peer = |set: &PolicySet| {
        let classes = set.classes.iter();
        let mut doors = classes.flat_map(|class| class.ports.doors.values());
        doors.any(|way| matches!(way, Way::By(_)))
    };
    let unknown = (0..8).map(|last| IpAddr::from([10, 244, 1, last]));
    let unknown = unknown.filter(|address| policies.is_unknown(*address));
    let of_plan = [
        ("both ways", isolated().any(|own| ways(own).len() == 2)),
        ("one way", isolated().any(|own| ways(own).len() == 1)),
        ("a set of tier Admin", has(Tier::Admin)),
        ("a set of NetworkPolicies", has(Tier::NetworkPolicy)),
        ("a set of tier Baseline", has(Tier::Baseline)),
        (
            "two tiers for one pod",
            isolated().any(|own| own.iter().count() > ways(own).len()),
        ),
        ("a port by name", policies.doors().next().is_some()),
        (
            "a port by name behind other rules",
            policies.doors().any(|(_, _, level)| level > 0),
        ),
        ("a port by name behind peers", sets().any(door_by_peer)),
        ("several policies", sets().any(|set| set.policies.len() > 1)),
        ("several classes", sets().any(|set| set.classes.len() > 2)),
        (
            "ports for everybody",
            sets().any(|set| all(set, Action::Accept)),
        ),
        ("ports for nobody", sets().any(|set| all(set, Action::Deny))),
        (
            "IPv6",
            policies
                .isolated
                .keys()
                .any(|own| Family::of(*own) == Family::V6),
        ),
        ("some ports only", partly(policies)),
        ("some addresses unknown", (1..8).contains(&unknown.count())),
    ];
    of_plan.into_iter().chain(of_peers(policies)).collect()
}

/// What peers have.
fn of_peers(policies: &Policies) -> [(&'static str, bool); 8] {
    let peers = || policies.peers().values();
    let dns = dns();
    let excepted = |action| peers().any(|own| own.frame.exceptions().any(|other| other == action));
    let kinds = |own: &Peers| {
        let actions = [Action::Accept, Action::Deny, Action::Pass].into_iter();
        let all = actions.filter(|action| {
            let mut families = Family::BOTH.into_iter();
            families.any(|family| !own.frame.ranges(family, *action).is_empty())
        });
        all.count()
    };
    let unlike_its_range = |own: &Peers| {
        let mut pods = own.pods();
        pods.any(|(at, step)| {
            let range = own.frame.action(at, None);
            range != own.frame.otherwise && own.frame.exception(at, Some(step)).is_some()
        })
    };
    [
        ("accepted peers", excepted(Action::Accept)),
        ("denied peers", excepted(Action::Deny)),
        ("passed peers", excepted(Action::Pass)),
        ("ranges of two kinds", peers().any(|own| kinds(own) > 1)),
        (
            "a range with holes",
            peers().any(|own| own.frame.ranges(Family::V4, Action::Accept).len() > 1),
        ),
        (
            "a pod that is not treated as its range",
            peers().any(unlike_its_range),
        ),
        (
            "a pod that a later step is about",
            peers().any(|own| own.pods().any(|(_, step)| step > 0)),
        ),
        (
            "names",
            peers().any(|own| dns.iter().any(|at| own.step(*at).is_some())),
        ),
    ]
}

/// The directions in which a pod is governed.
fn ways(isolation: &Isolation) -> BTreeSet<Direction> {
    isolation.iter().map(|(direction, ..)| direction).collect()
}

/// Whether of two pods one may reach the other at some ports only.
fn partly(policies: &Policies) -> bool {
    let addresses: Vec<IpAddr> = policies.isolated.keys().copied().collect();
    addresses.iter().any(|own| {
        addresses.iter().any(|peer| {
            let verdicts = POLICY_PORTS.iter().map(|port| {
                let to = Some((Protocol::Tcp, *port));
                policies.allows(Direction::Ingress, (*own, *peer), to)
            });
            own != peer && verdicts.collect::<BTreeSet<bool>>().len() == 2
        })
    })
}

fn dns() -> Vec<IpAddr> {
    let texts = ["10.96.0.10", "fd00:10:96::10"];
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}

/// In how many random clusters each of these is.
fn counted(look: impl Fn(&Rig) -> Vec<(&'static str, bool)>) -> BTreeMap<&'static str, u32> {
    let seen = RefCell::new(BTreeMap::<&str, u32>::new());
    let mut runner = TestRunner::new(ProptestConfig {
        cases: CLUSTERS,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x706f_7274),
        ..ProptestConfig::default()
    });
    let history = vec(policy_change(), 20..80);
    let result = runner.run(&history, |history: Vec<Change>| {
        let mut rig = Rig::new(NodeView {
            node: THIS_NODE.into(),
            dns_addresses: dns(),
            node_pod_cidrs: ["10.244.1.0/24".parse().expect("a range")].into(),
            close_unknown_pods: true,
            ..NodeView::default()
        });
        rig.apply(history).expect("deltas can be applied");
        for (what, is) in look(&rig) {
            *seen.borrow_mut().entry(what).or_default() += u32::from(is);
        }
        Ok(())
    });
    result.expect("histories can be applied");
    seen.into_inner()
}

fn rare(counts: &BTreeMap<&'static str, u32>) -> Vec<(&'static str, u32)> {
    let all = counts.iter().map(|(what, count)| (*what, *count));
    all.filter(|(_, count)| *count < OFTEN).collect()
}

/// The random clusters have every field of either kind, with all that it may hold.
#[test]
fn every_field_is_generated() {
    let counts = counted(|rig| {
        let mut seen = Seen::default();
        seen.cluster(&rig.cluster);
        let all = FIELDS.iter();
        all.map(|what| (*what, seen.0.contains(what))).collect()
    });
    assert_eq!(rare(&counts), [], "hardly ever generated");
}

/// And what is compiled from them has what the laws are about.
#[test]
fn every_feature_is_compiled() {
    let counts = counted(|rig| features(&rig.plan.policies));
    assert_eq!(rare(&counts), [], "hardly ever compiled");
}
