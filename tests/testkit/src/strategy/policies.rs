//! Random pods, namespaces and NetworkPolicies, few enough that they meet.

use std::net::IpAddr;

use ipnet::IpNet;
use portolan_model::{
    Action, Ask, Attachment, Block, Change, ClusterPolicy, ClusterRule, Fact, Family, Key, Kind,
    LabelSelector, Labels, NamedPort, Namespace, NetworkPolicy, Pod, PodKey, PolicyKey, PolicyPeer,
    PolicyPort, PolicyRule, PortMatch, Protocol, Subject, Text, Tier, Uid,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{select, subsequence};

use super::{NODES, family, outsider, pod, text};

const PLACES: [&str; 3] = ["default", "shop", "kube-system"];
const NAMES: [&str; 5] = ["p1", "p2", "p3", "p4", "p5"];
const KEYS: [&str; 3] = ["app", "tier", "k8s-app"];
const VALUES: [&str; 3] = ["a", "b", "kube-dns"];
const PORT_NAMES: [&str; 3] = ["web", "dns", "metrics"];

/// Ports that rules name, and their neighbours.
pub const POLICY_PORTS: [u16; 8] = [1, 53, 79, 80, 81, 8080, 9000, u16::MAX];

fn labels() -> impl Strategy<Value = Labels> {
    let pairs = KEYS
        .into_iter()
        .flat_map(|key| VALUES.map(|value| (key, value)));
    subsequence(pairs.collect::<Vec<_>>(), 0..4).prop_map(|pairs| pairs.into_iter().collect())
}

fn selector() -> impl Strategy<Value = LabelSelector> {
    let values = || subsequence(VALUES.map(Text::from).to_vec(), 1..3);
    let ask = prop_oneof![
        4 => values().prop_map(Ask::In),
        1 => values().prop_map(Ask::NotIn),
        1 => Just(Ask::Exists),
        1 => Just(Ask::DoesNotExist),
    ];
    prop_oneof![
        1 => Just(LabelSelector::default()),
        2 => vec((text(&KEYS), ask), 1..3).prop_map(LabelSelector::new),
    ]
}

fn mostly_all() -> impl Strategy<Value = LabelSelector> {
    prop_oneof![2 => Just(LabelSelector::default()), 1 => selector()]
}

fn protocol() -> impl Strategy<Value = Protocol> {
    select(&[Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Sctp][..])
}

fn named_port() -> impl Strategy<Value = NamedPort> {
    (text(&PORT_NAMES), protocol(), select(&POLICY_PORTS[..])).prop_map(|(name, protocol, port)| {
        NamedPort {
            name,
            protocol,
            port,
        }
    })
}

/// An address at which a pod may be.
fn pod_address() -> impl Strategy<Value = IpAddr> {
    (family(), 1_u8..4, 0_u8..4).prop_map(|(family, node, index)| pod(family, node, index))
}

fn pod_key() -> impl Strategy<Value = PodKey> {
    (text(&PLACES), text(&NAMES)).prop_map(|(namespace, name)| PodKey { namespace, name })
}

fn a_pod() -> impl Strategy<Value = Pod> {
    (
        pod_key(),
        vec(pod_address(), 0..4),
        labels(),
        prop_oneof![2 => Just(Text::from(NODES[0])), 1 => text(&NODES)],
        prop::bool::weighted(0.1),
        vec(named_port(), 0..5),
    )
        .prop_map(|(key, mut addresses, labels, node, host_network, ports)| {
            addresses.sort_unstable();
            addresses.dedup();
            Pod {
                addresses,
                labels,
                node: Some(node),
                host_network,
                ports,
                ..Pod::at(key, None)
            }
        })
}

fn range(text: &str) -> IpNet {
    text.parse()
        .unwrap_or_else(|_| IpNet::from(IpAddr::from([0, 0, 0, 0])))
}

fn block() -> impl Strategy<Value = Block> {
    let v4 = (
        select(
            &[
                "0.0.0.0/0",
                "10.244.0.0/16",
                "10.244.1.0/30",
                "203.0.113.0/24",
            ][..],
        ),
        subsequence(
            vec!["10.244.1.2/31", "10.244.2.0/24", "203.0.113.1/32"],
            0..3,
        ),
    );
    let v6 = (
        select(&["::/0", "fd00:10:244::/48", "2001:db8::/64"][..]),
        subsequence(vec!["fd00:10:244:1::2/127", "2001:db8::1/128"], 0..3),
    );
    prop_oneof![v4, v6].prop_map(|(whole, except)| Block {
        range: range(whole),
        except: except.into_iter().map(range).collect(),
    })
}

fn peer() -> impl Strategy<Value = PolicyPeer> {
    prop_oneof![
        3 => (option::of(selector()), selector())
            .prop_map(|(namespaces, pods)| PolicyPeer::Pods { namespaces, pods }),
        1 => block().prop_map(PolicyPeer::Block),
    ]
}

fn port() -> impl Strategy<Value = PolicyPort> {
    let range = (select(&POLICY_PORTS[..]), select(&POLICY_PORTS[..]));
    let port = prop_oneof![
        1 => Just(PortMatch::All),
        3 => select(&POLICY_PORTS[..]).prop_map(|port| PortMatch::Range(port, port)),
        2 => range.prop_map(|(one, other)| PortMatch::Range(one.min(other), one.max(other))),
        4 => text(&PORT_NAMES).prop_map(PortMatch::Named),
    ];
    (protocol(), port).prop_map(|(protocol, port)| PolicyPort { protocol, port })
}

fn rule() -> impl Strategy<Value = PolicyRule> {
    let (peers, ports) = (option::weighted(0.8, vec(peer(), 0..4)), vec(port(), 0..4));
    (peers, option::weighted(0.85, ports)).prop_map(|(peers, ports)| PolicyRule { peers, ports })
}

fn policy_key() -> impl Strategy<Value = PolicyKey> {
    let names = text(&["n1", "n2", "n3"]);
    (text(&PLACES), names).prop_map(|(namespace, name)| PolicyKey { namespace, name })
}

fn policy() -> impl Strategy<Value = NetworkPolicy> {
    let rules = || option::weighted(0.7, vec(rule(), 0..4));
    (policy_key(), selector(), rules(), rules()).prop_map(|(key, pods, ingress, egress)| {
        NetworkPolicy {
            key,
            pods,
            ingress,
            egress,
        }
    })
}

fn cluster_rule() -> impl Strategy<Value = ClusterRule> {
    // Namespaces are always told.
    let peer = prop_oneof![
        2 => (mostly_all(), selector()).prop_map(|(namespaces, pods)| PolicyPeer::Pods {
            namespaces: Some(namespaces),
            pods,
        }),
        1 => block().prop_map(PolicyPeer::Block),
    ];
    let peers = option::weighted(0.85, vec(peer, 0..4));
    let ports = option::weighted(0.4, vec(port(), 1..3));
    let action = select(&[Action::Accept, Action::Deny, Action::Pass][..]);
    let name = option::of(text(&["first", "second"]));
    (name, action, peers, ports).prop_map(|(name, action, peers, ports)| ClusterRule {
        name,
        action,
        rule: PolicyRule { peers, ports },
    })
}

fn cluster_policy_name() -> impl Strategy<Value = Text> {
    text(&["c1", "c2", "c3", "c4"])
}

fn cluster_policy() -> impl Strategy<Value = ClusterPolicy> {
    let rules = || vec(cluster_rule(), 0..7);
    let tier = select(&[Tier::Admin, Tier::Admin, Tier::Baseline][..]);
    let rank = (cluster_policy_name(), tier, 0_u16..3);
    let subject = (mostly_all(), mostly_all());
    let subject = subject.prop_map(|(namespaces, pods)| Subject { namespaces, pods });
    (rank, subject, rules(), rules()).prop_map(
        |((name, tier, priority), subject, ingress, egress)| ClusterPolicy {
            name,
            tier,
            priority,
            subject,
            ingress,
            egress,
        },
    )
}

fn fact() -> impl Strategy<Value = Fact> {
    let namespace = (text(&PLACES), labels());
    prop_oneof![
        5 => a_pod().prop_map(|pod| Fact::Pod(pod.into())),
        3 => policy().prop_map(|policy| Fact::Policy(policy.into())),
        2 => cluster_policy().prop_map(|policy| Fact::ClusterPolicy(policy.into())),
        1 => namespace.prop_map(|(name, labels)| Fact::Namespace(Namespace { name, labels })),
    ]
}

/// A change of what policies are about.
pub fn policy_change() -> impl Strategy<Value = Change> {
    let kinds = [
        Kind::Pod,
        Kind::Policy,
        Kind::ClusterPolicy,
        Kind::Namespace,
    ];
    let kind = select(kinds.to_vec());
    prop_oneof![
        40 => fact().prop_map(Change::Upsert),
        1 => pod_key().prop_map(|key| Change::Delete(Key::Pod(key))),
        1 => policy_key().prop_map(|key| Change::Delete(Key::Policy(key))),
        1 => cluster_policy_name().prop_map(|name| Change::Delete(Key::ClusterPolicy(name))),
        1 => text(&PLACES).prop_map(|name| Change::Delete(Key::Namespace(name))),
        1 => (kind, vec(fact(), 0..8)).prop_map(|(kind, facts)| Change::Replace(kind, facts)),
        3 => (pod_key(), vec(pod_address(), 1..3)).prop_map(|(pod, addresses)| {
            let uid = Uid::UNKNOWN;
            Change::Attach(Attachment { pod, uid, addresses })
        }),
        1 => pod_key().prop_map(|key| Change::Detach(key, Uid::UNKNOWN)),
    ]
}

/// Somebody to ask about: mostly a pod.
pub fn anybody() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        8 => pod_address(),
        1 => (family(), 0_u8..3).prop_map(|(family, index)| outsider(family, index)),
        2 => select(Family::BOTH.as_slice()).prop_map(super::policy_dns),
    ]
}
