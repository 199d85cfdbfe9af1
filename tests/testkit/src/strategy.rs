//! Random clusters in a universe small enough that things meet: a handful of
//! addresses, ports and names, so that two Services claim one address, an
//! endpoint sits in two slices, a slice changes its owner.

use std::net::IpAddr;

use portolan_model::{
    Affinity, Algorithm, Change, Conditions, Endpoint, Fact, Family, Hints, Key, Kind, Labels,
    Namespace, Node, NodeAddress, Outer, Pod, PodKey, Protocol, Publication, Service, ServiceCidr,
    ServiceKey, ServicePort, Slice, SliceKey, SlicePort, Spread, Text, TrafficPolicy,
};
use portolan_plan::{
    Deny, Detector, LinkName, NodePortAddresses, NodePorts, NodeView, OpenNodePorts, PodNames,
};
use portolan_why::Packet;
use proptest::prelude::*;
use proptest::sample::select;

use crate::way_back::replies;

mod knocks;
mod policies;

pub use knocks::{knocks, self_knocks};
pub use policies::{POLICY_PORTS, anybody, policy_change};

const NAMESPACES: [&str; 2] = ["default", "shop"];
const NODES: [&str; 3] = ["node-1", "node-2", "node-3"];
const ZONES: [&str; 2] = ["a", "b"];
const PORTS: [u16; 4] = [53, 80, 443, 8080];
const NODE_PORTS: [u16; 2] = [30080, 30081];

/// The node whose plan is made.
pub const THIS_NODE: &str = "node-1";

fn text(all: &'static [&'static str]) -> impl Strategy<Value = Text> {
    select(all).prop_map(Text::from)
}

fn address(family: Family, v4: &str, v6: &str) -> IpAddr {
    let text = match family {
        Family::V4 => v4,
        Family::V6 => v6,
    };
    text.parse()
        .unwrap_or(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED))
}

/// The cluster addresses; the DNS address is one of them.
fn cluster_ip(family: Family, index: u8) -> IpAddr {
    address(
        family,
        &format!("10.96.0.{}", 10 + index),
        &format!("fd00:10:96::{}", 10 + index),
    )
}

fn pod(family: Family, node: u8, index: u8) -> IpAddr {
    address(
        family,
        &format!("10.244.{node}.{index}"),
        &format!("fd00:10:244:{node}::{index}"),
    )
}

fn host(family: Family, node: u8) -> IpAddr {
    address(
        family,
        &format!("172.18.0.{}", node + 1),
        &format!("fd00:172:18::{}", node + 1),
    )
}

fn outsider(family: Family, index: u8) -> IpAddr {
    address(
        family,
        &format!("203.0.113.{index}"),
        &format!("2001:db8::{index}"),
    )
}

/// Where names are answered, to policies.
fn policy_dns(family: Family) -> IpAddr {
    cluster_ip(family, 0)
}

fn family() -> impl Strategy<Value = Family> {
    select(Family::BOTH.as_slice())
}

fn protocol() -> impl Strategy<Value = Protocol> {
    prop_oneof![6 => Just(Protocol::Tcp), 2 => Just(Protocol::Udp), 1 => Just(Protocol::Sctp)]
}

fn port_name() -> impl Strategy<Value = Text> {
    prop_oneof![6 => Just("http"), 1 => Just("metrics"), 1 => Just("")].prop_map(Text::from)
}

fn policy() -> impl Strategy<Value = TrafficPolicy> {
    prop_oneof![2 => Just(TrafficPolicy::Cluster), 1 => Just(TrafficPolicy::Local)]
}

fn service_key() -> impl Strategy<Value = ServiceKey> {
    (text(&NAMESPACES), text(&["web", "api", "db"]))
        .prop_map(|(namespace, name)| ServiceKey { namespace, name })
}

fn slice_key() -> impl Strategy<Value = SliceKey> {
    (text(&NAMESPACES), text(&["s1", "s2", "s3", "s4"]))
        .prop_map(|(namespace, name)| SliceKey { namespace, name })
}

fn service_port() -> impl Strategy<Value = ServicePort> {
    let node_port = proptest::option::of(select(NODE_PORTS.as_slice()));
    (port_name(), protocol(), select(PORTS.as_slice()), node_port).prop_map(
        |(name, protocol, port, node_port)| ServicePort {
            name,
            protocol,
            port,
            node_port,
        },
    )
}

fn publication() -> impl Strategy<Value = Publication> {
    prop_oneof![
        3 => Just(Publication::ClusterIp),
        4 => Just(Publication::NodePort),
        1 => Just(Publication::LoadBalancer),
        1 => Just(Publication::Headless),
        1 => Just(Publication::ExternalName("db.example.com".into())),
    ]
}

/// Addresses of load balancers and the like; a node's own is one of them.
fn outer_ip(family: Family, index: u8) -> IpAddr {
    match index {
        0 => host(family, 1),
        _ => address(
            family,
            &format!("198.51.100.{index}"),
            &format!("2001:db8:51::{index}"),
        ),
    }
}

fn outer() -> impl Strategy<Value = Option<Box<Outer>>> {
    let ip = || (family(), 0_u8..4).prop_map(|(family, index)| outer_ip(family, index));
    let ips = || proptest::collection::vec(ip(), 0..3);
    let ranges = [
        "203.0.113.0/30",
        "203.0.113.2/32",
        "10.244.0.0/16",
        "172.18.0.0/24",
        "2001:db8::/126",
        "fd00:172:18::/64",
        "0.0.0.0/0",
    ];
    let range = (0..ranges.len()).prop_map(move |index| range(ranges[index]));
    let health = proptest::option::weighted(0.3, select([31_000_u16, 31_001].as_slice()));
    let ranges = proptest::collection::vec(range, 0..3);
    let outer = (ips(), ips(), ranges, health).prop_map(
        |(external_ips, load_balancer_ips, source_ranges, health_check_port)| {
            Some(Box::new(Outer {
                external_ips,
                load_balancer_ips,
                source_ranges,
                health_check_port,
            }))
        },
    );
    prop_oneof![1 => Just(None), 1 => outer]
}

fn affinity() -> impl Strategy<Value = Affinity> {
    let seconds = select([30, 10_800].as_slice());
    prop_oneof![
        2 => Just(Affinity::None),
        1 => seconds.prop_map(|seconds| Affinity::ClientIp { seconds }),
    ]
}

/// How connections are spread; the names are the pods' below.
fn spread() -> impl Strategy<Value = Option<Box<Spread>>> {
    let algorithm = prop_oneof![
        1 => Just(None),
        2 => select(Algorithm::ALL.as_slice()).prop_map(Some),
    ];
    let weight = select([0_u16, 2, 5].as_slice());
    let names = ["web", "web-blue", "web-blue", "web-green"];
    let name = (0..names.len()).prop_map(move |index| Text::from(names[index]));
    let weights = proptest::collection::vec((name, weight), 1..3);
    let weights = prop_oneof![1 => Just(Vec::new()), 2 => weights];
    let spread = (algorithm, weights)
        .prop_map(|(algorithm, weights)| Some(Box::new(Spread { algorithm, weights })));
    prop_oneof![1 => Just(None), 2 => spread]
}

fn service() -> impl Strategy<Value = Service> {
    let ports = proptest::collection::vec(service_port(), 0..4);
    let ips = (0_u8..4, 0_u8..3);
    let other_proxy = prop_oneof![7 => Just(None), 1 => Just(Some(Text::from("mesh")))];
    (
        service_key(),
        publication(),
        ips,
        ports,
        (policy(), policy()),
        (other_proxy, outer(), affinity(), spread()),
    )
        .prop_map(
            |(
                key,
                publication,
                (index, families),
                ports,
                (internal_policy, external_policy),
                (other_proxy, outer, affinity, spread),
            )| {
                let addressed = !matches!(
                    publication,
                    Publication::Headless | Publication::ExternalName(_)
                );
                let all = [
                    vec![Family::V4],
                    vec![Family::V6],
                    vec![Family::V4, Family::V6],
                ];
                let families = all.into_iter().nth(families.into()).unwrap_or_default();
                let ips = families.into_iter().map(|family| cluster_ip(family, index));
                Service {
                    key,
                    publication,
                    cluster_ips: ips.filter(|_| addressed).collect(),
                    ports,
                    internal_policy,
                    external_policy,
                    affinity,
                    other_proxy,
                    outer,
                    spread,
                }
            },
        )
}

fn conditions() -> impl Strategy<Value = Conditions> {
    let of = |ready, serving, terminating| Conditions {
        ready,
        serving,
        terminating,
    };
    prop_oneof![
        7 => Just(Conditions::READY),
        2 => Just(of(false, true, true)),
        1 => Just(of(false, false, true)),
        1 => Just(of(false, false, false)),
        1 => Just(of(true, true, true)),
    ]
}

fn hints() -> impl Strategy<Value = Option<Box<Hints>>> {
    let zones = proptest::collection::vec(text(&ZONES), 0..2);
    let nodes = proptest::collection::vec(text(&NODES), 0..2);
    prop_oneof![
        1 => Just(None),
        1 => (zones, nodes).prop_map(|(zones, nodes)| Some(Box::new(Hints { zones, nodes }))),
    ]
}

/// Hints count only where every endpoint has them: all of a slice's, for zones or
/// for nodes, or as each has them by itself. The zones that they are in go round, and
/// some are in none.
fn hinted(mut endpoints: Vec<Endpoint>, kind: u8) -> Vec<Endpoint> {
    for (index, endpoint) in endpoints.iter_mut().enumerate() {
        endpoint.zone = (index % (ZONES.len() + 1)) as u16;
        let mut hints = endpoint.hints.take().unwrap_or_default();
        match kind {
            0 => hints.zones = vec![ZONES[index % ZONES.len()].into()],
            1 => hints.nodes = vec![NODES[index % NODES.len()].into()],
            _ => {}
        }
        endpoint.hints = (*hints != Hints::default()).then_some(hints);
    }
    endpoints
}

/// A pod, a process on a node's own address, or (rarely) a cluster address.
fn endpoint_address(family: Family) -> impl Strategy<Value = (IpAddr, Option<Text>)> {
    (0_u8..12, 1_u8..4, 1_u8..4).prop_map(move |(kind, node, index)| {
        let name = NODES
            .get(usize::from(node) - 1)
            .map(|name| Text::from(*name));
        match kind {
            0 => (cluster_ip(family, index), None),
            1 => (pod(family, node, index), None),
            2 => (host(family, node), name),
            _ => (pod(family, node, index), name),
        }
    })
}

fn endpoint(family: Family) -> impl Strategy<Value = Endpoint> {
    let hostname = proptest::option::of(text(&["web-0", "web-1"]));
    let pod = proptest::option::weighted(0.8, text(&["web-blue-5c9-", "web-green-77d-"]));
    let texts = (hostname, pod);
    (endpoint_address(family), conditions(), hints(), texts).prop_map(
        |((address, node), conditions, hints, (hostname, pod))| Endpoint {
            address,
            conditions,
            zone: 0,
            node,
            hostname,
            pod,
            hints,
        },
    )
}

fn slice_port() -> impl Strategy<Value = SlicePort> {
    let number =
        prop_oneof![6 => select([80, 8080, 30080].as_slice()).prop_map(Some), 1 => Just(None)];
    (port_name(), protocol(), number).prop_map(|(name, protocol, port)| SlicePort {
        name,
        protocol,
        port,
    })
}

fn slice() -> impl Strategy<Value = Slice> {
    family().prop_flat_map(|family| {
        let usual = SlicePort {
            name: "http".into(),
            protocol: Protocol::Tcp,
            port: Some(8080),
        };
        let ports = proptest::collection::vec(slice_port(), 0..3).prop_map(move |mut ports| {
            ports.push(usual.clone());
            ports
        });
        let endpoints = (proptest::collection::vec(endpoint(family), 0..6), 0_u8..4)
            .prop_map(|(endpoints, kind)| hinted(endpoints, kind));
        let kinds = (
            0..6,
            prop_oneof![3 => Just(1_u16), 1 => select([0_u16, 3].as_slice())],
        );
        (slice_key(), service_key(), ports, endpoints, kinds).prop_map(
            move |(key, service, ports, endpoints, (kind, weight))| Slice {
                service: ServiceKey {
                    namespace: key.namespace.clone(),
                    name: service.name,
                },
                key,
                family,
                headless: kind == 0,
                weight,
                ports,
                endpoints,
                zones: ZONES.map(Text::from).into(),
            },
        )
    })
}

fn node() -> impl Strategy<Value = Node> {
    (1_u8..4, proptest::option::of(text(&ZONES))).prop_map(|(index, zone)| Node {
        name: NODES
            .get(usize::from(index) - 1)
            .copied()
            .unwrap_or_default()
            .into(),
        addresses: Family::BOTH
            .map(|family| NodeAddress {
                address: host(family, index),
                internal: true,
            })
            .into(),
        pod_cidrs: vec![range(&format!("10.244.{index}.0/24"))],
        zone,
        leaving: false,
    })
}

/// Ranges beside the usual ones, and within them.
fn service_cidr() -> impl Strategy<Value = ServiceCidr> {
    let ranges = ["10.97.0.0/16", "10.96.0.0/24", "fd00:10:97::/112"].map(range);
    let ranges = proptest::sample::subsequence(ranges.to_vec(), 1..=3);
    (select(&["kubernetes", "more"][..]), ranges).prop_map(|(name, ranges)| ServiceCidr {
        name: name.into(),
        ranges,
    })
}

fn pod_key() -> impl Strategy<Value = PodKey> {
    (text(&NAMESPACES), text(&["p1", "p2", "p3"]))
        .prop_map(|(namespace, name)| PodKey { namespace, name })
}

/// A pod at one of few addresses, which several may have; or without one yet.
fn pod_fact() -> impl Strategy<Value = Pod> {
    let address =
        (family(), 1_u8..3, 0_u8..3).prop_map(|(family, node, index)| pod(family, node, index));
    (pod_key(), proptest::option::weighted(0.8, address))
        .prop_map(|(key, address)| Pod::at(key, address))
}

fn fact() -> impl Strategy<Value = Fact> {
    prop_oneof![
        4 => service().prop_map(|service| Fact::Service(service.into())),
        8 => slice().prop_map(|slice| Fact::Slice(slice.into())),
        1 => node().prop_map(|node| Fact::Node(node.into())),
        1 => text(&NAMESPACES).prop_map(|name| Fact::Namespace(Namespace { name, labels: Labels::default() })),
        1 => service_cidr().prop_map(|cidr| Fact::ServiceCidr(cidr.into())),
    ]
}

fn change() -> impl Strategy<Value = Change> {
    let kind = select(Kind::ALL_AND_PODS.as_slice());
    let list = proptest::collection::vec(fact(), 0..8);
    prop_oneof![
        12 => fact().prop_map(Change::Upsert),
        2 => pod_fact().prop_map(|pod| Change::Upsert(Fact::Pod(pod.into()))),
        1 => service_key().prop_map(|key| Change::Delete(Key::Service(key))),
        2 => slice_key().prop_map(|key| Change::Delete(Key::Slice(key))),
        1 => (0_usize..3).prop_map(|index| Change::Delete(Key::Node(NODES[index].into()))),
        1 => text(&NAMESPACES).prop_map(|name| Change::Delete(Key::Namespace(name))),
        1 => Just(Change::Delete(Key::ServiceCidr("more".into()))),
        1 => pod_key().prop_map(|key| Change::Delete(Key::Pod(key))),
        1 => (kind, list).prop_map(|(kind, list)| Change::Replace(kind, list)),
    ]
}

/// A history of changes.
pub fn changes(most: usize) -> impl Strategy<Value = Vec<Change>> {
    proptest::collection::vec(change(), 0..most)
}

/// Facts, at most one of each name, so that their order cannot matter.
pub fn facts(most: usize) -> impl Strategy<Value = Vec<Fact>> {
    let pods = proptest::collection::vec(pod_fact().prop_map(|pod| Fact::Pod(pod.into())), 0..5);
    (proptest::collection::vec(fact(), 0..most), pods).prop_map(|(facts, pods)| {
        let all = facts.into_iter().chain(pods);
        let by_key: std::collections::BTreeMap<_, _> = all.map(|fact| (fact.key(), fact)).collect();
        by_key.into_values().collect()
    })
}

/// A view of [`THIS_NODE`].
pub fn view() -> impl Strategy<Value = NodeView> {
    let addresses = || {
        let within = |primary| NodePortAddresses::Within {
            ranges: vec![range("172.18.0.0/24"), range("127.0.0.0/8")],
            primary,
        };
        prop_oneof![
            6 => Just(NodePortAddresses::Primary),
            2 => Just(NodePortAddresses::AnyLocal),
            1 => Just(within(false)),
            1 => Just(within(true)),
        ]
    };
    let node_ports = (addresses(), addresses(), any::<bool>()).prop_map(|(v4, v6, localhost)| {
        let [v4, v6] = [v4, v6].map(|addresses| OpenNodePorts {
            addresses,
            localhost,
        });
        NodePorts { v4, v6 }
    });
    let algorithm = prop_oneof![
        2 => Just(Algorithm::Random),
        1 => select(Algorithm::ALL.as_slice()),
    ];
    let flags = (any::<bool>(), any::<bool>(), 0..4);
    let modes = [PodNames::Disabled, PodNames::Insecure, PodNames::Verified];
    let names = (select(modes.to_vec()), select(vec![0_u32, 5, 30]));
    let given = (node_ports, algorithm, names);
    (given, 0..6, flags).prop_map(
        |((node_ports, algorithm, (pod_names, dns_ttl)), detector, (dns, bit, external))| {
            let families = Family::BOTH.into_iter();
            NodeView {
                node: THIS_NODE.into(),
                // Known even before the Node object is: the rig observes over it.
                node_addresses: families.clone().map(|family| host(family, 1)).collect(),
                cluster_pod_cidrs: match detector {
                    0 => Vec::new(),
                    1 => vec![range("10.244.0.0/16")],
                    _ => vec![range("10.244.0.0/16"), range("fd00:10:244::/48")],
                },
                detector: match (detector, bit) {
                    (3, true) => Detector::NodeCidr,
                    (4, true) => Detector::Bridge(pod_link()),
                    (5, true) => Detector::Prefix(LinkName::new("cn").unwrap_or_default()),
                    _ => Detector::ClusterCidr,
                },
                service_cidrs: vec![range("10.96.0.0/16"), range("fd00:10:96::/112")],
                dns_addresses: if dns {
                    families.map(|family| cluster_ip(family, 0)).collect()
                } else {
                    Vec::new()
                },
                node_ports,
                algorithm,
                external_ips: external > 0,
                masquerade_all: detector == 2,
                policy_log: bit.then_some(10_256),
                policy_deny: if dns { Deny::Reject } else { Deny::Drop },
                masquerade_bit: if bit { 0x4000 } else { 0x10 },
                replies: (external > 0).then(|| replies(external).into()),
                pod_names,
                zonal_names: external % 2 == 0,
                dns_ttl,
                ..NodeView::default()
            }
        },
    )
}

fn range(text: &str) -> ipnet::IpNet {
    text.parse().unwrap_or_default()
}

/// A packet that may well be for something in the universe.
pub fn packet() -> impl Strategy<Value = Packet> {
    let port = prop_oneof![select(PORTS.as_slice()), select(NODE_PORTS.as_slice())];
    (family(), client(), (0..10, 0_u8..5), protocol(), port).prop_map(
        |(family, client, (to, number), protocol, port)| Packet {
            source: client.address(family),
            destination: match to {
                0..4 => cluster_ip(family, number),
                4 => pod(family, 1, number),
                5 => host(family, 2),
                6 | 7 => outer_ip(family, number.min(3)),
                _ => host(family, 1),
            },
            protocol,
            port,
            from_node: client == Client::Node,
            link: client.link(),
        },
    )
}

/// Who sends a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// The node itself.
    Node,
    /// A pod, by node and number.
    Pod(u8, u8),
    /// Somebody outside.
    Outside(u8),
}

impl Client {
    fn address(self, family: Family) -> IpAddr {
        match self {
            Self::Node => host(family, 1),
            Self::Pod(node, index) => pod(family, node, index),
            Self::Outside(index) => outsider(family, index),
        }
    }

    /// The link that its packets arrive on.
    fn link(self) -> LinkName {
        match self {
            Self::Node => LinkName::NONE,
            Self::Pod(1, _) => pod_link(),
            Self::Pod(..) | Self::Outside(_) => LinkName::new("eth0").unwrap_or_default(),
        }
    }
}

/// The link of this node's pods.
fn pod_link() -> LinkName {
    LinkName::new("cni0").unwrap_or_default()
}

/// A client; a pod may be an endpoint too.
pub fn client() -> impl Strategy<Value = Client> {
    prop_oneof![
        2 => Just(Client::Node),
        3 => (1_u8..4, 1_u8..4).prop_map(|(node, index)| Client::Pod(node, index)),
        2 => (1_u8..4).prop_map(Client::Outside),
    ]
}
