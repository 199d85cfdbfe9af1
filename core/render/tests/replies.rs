//! A connection from outside that keeps its client's address, on both nodes that it
//! meets: where it comes in, and where its endpoint is.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::IpAddr;
use std::sync::Arc;

use portolan_model::{
    Affinity, Change, Cluster, Conditions, Endpoint, Fact, Family, Outer, Protocol, Publication,
    Service, ServiceKey, ServicePort, Slice, SliceKey, SlicePort, TrafficPolicy,
};
use portolan_nft::interp::{Env, Outcome, Packet, Passed, run_incoming};
use portolan_nft::{CtState, FibType, Name, Ruleset, diff};
use portolan_plan::{Neighbour, NodePlan, NodeView, REPLY_MASK, Replies, node, renode};
use portolan_render::nft::{delta, image};

const CLIENT: [&str; 2] = ["203.0.113.9", "2001:db8:9::9"];
const BALANCER: [&str; 2] = ["198.51.100.1", "2001:db8:1::1"];
const HERE: [&str; 2] = ["10.244.1.5", "fd00:10:244:1::5"];
const THERE: [&str; 2] = ["10.244.2.5", "fd00:10:244:2::5"];
const NODES: [[&str; 2]; 2] = [
    ["192.0.2.1", "2001:db8:2::1"],
    ["192.0.2.2", "2001:db8:2::2"],
];
const ETHER: [u8; 6] = [2, 0x42, 0, 0, 0, 1];
/// What stands in a mark for the neighbour with number 3.
const THREE: u32 = 0x0003_0000;

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// One of two nodes, with one neighbour, to whose pods these ranges belong.
fn view(number: u8, kept: bool) -> NodeView {
    let range = |text: String| text.parse().unwrap();
    let pods = |node: u8| {
        vec![
            range(format!("10.244.{node}.0/24")),
            range(format!("fd00:10:244:{node}::/64")),
        ]
    };
    NodeView {
        node: format!("node-{number}").as_str().into(),
        node_addresses: NODES[usize::from(number) - 1].map(ip).into(),
        node_pod_cidrs: pods(number),
        cluster_pod_cidrs: vec![
            range("10.244.0.0/16".into()),
            range("fd00:10:244::/48".into()),
        ],
        service_cidrs: vec![range("10.96.0.0/16".into())],
        replies: Some(Arc::new(Replies {
            mask: REPLY_MASK,
            nodes: NODES.as_flattened().iter().map(|text| ip(text)).collect(),
            kept: if kept { pods(3 - number) } else { Vec::new() },
            neighbours: vec![Neighbour {
                number: 3,
                ethers: vec![ETHER],
            }],
        })),
        ..NodeView::default()
    }
}

/// A load balancer with one endpoint of each family.
fn cluster(endpoint: [&str; 2]) -> Cluster {
    let service = Service {
        key: ServiceKey::new("default", "web"),
        publication: Publication::LoadBalancer,
        cluster_ips: vec![ip("10.96.0.1"), ip("fd00:10:96::1")],
        ports: vec![ServicePort {
            name: "".into(),
            protocol: Protocol::Tcp,
            port: 80,
            node_port: Some(30_080),
        }],
        internal_policy: TrafficPolicy::Cluster,
        external_policy: TrafficPolicy::Cluster,
        affinity: Affinity::None,
        other_proxy: None,
        outer: Some(Box::new(Outer {
            load_balancer_ips: BALANCER.map(ip).into(),
            ..Outer::default()
        })),
        spread: None,
    };
    let mut cluster = Cluster::default();
    cluster.apply(Change::Upsert(Fact::Service(service.into())));
    for (family, address) in Family::BOTH.into_iter().zip(endpoint) {
        let slice = Slice {
            key: SliceKey::new("default", &format!("web-{family}")),
            service: ServiceKey::new("default", "web"),
            family,
            headless: false,
            weight: 1,
            ports: vec![SlicePort {
                name: "".into(),
                protocol: Protocol::Tcp,
                port: Some(8080),
            }],
            endpoints: vec![Endpoint {
                address: ip(address),
                conditions: Conditions::READY,
                zone: 0,
                node: None,
                hostname: None,
                pod: None,
                hints: None,
            }],
            zones: Box::default(),
        };
        cluster.apply(Change::Upsert(Fact::Slice(slice.into())));
    }
    cluster
}

/// A node that has these addresses.
struct World([IpAddr; 2]);

impl Env for World {
    fn numgen(&mut self, _: &Name, _: u32) -> u32 {
        0
    }

    fn fib(&self, address: IpAddr) -> FibType {
        if self.0.contains(&address) {
            FibType::Local
        } else {
            FibType::Unicast
        }
    }
}

fn passed(ruleset: &Ruleset, number: usize, packet: &Packet) -> Passed {
    match run_incoming(ruleset, packet, &mut World(NODES[number - 1].map(ip))) {
        Outcome::Accept(passed) => passed,
        other @ (Outcome::Drop(_) | Outcome::Reject(..)) => panic!("{other:?}"),
    }
}

fn planned(number: u8, kept: bool, endpoint: [&str; 2]) -> NodePlan {
    node(&cluster(endpoint), &view(number, kept))
}

#[test]
fn p7_where_it_comes_in_the_source_is_kept_if_answers_come_back() {
    let rows = [
        // Who sends, whether the other node sends answers back, where the endpoint is,
        // and whether the source is replaced.
        (CLIENT, true, THERE, false),
        (CLIENT, false, THERE, true),
        (CLIENT, false, HERE, false),
        // Another node, and a pod.
        (NODES[1], true, THERE, true),
        (["10.244.2.9", "fd00:10:244:2::9"], true, THERE, true),
    ];
    for (client, kept, endpoint, masqueraded) in rows {
        let ruleset = image(&planned(1, kept, endpoint));
        for family in [0, 1] {
            let places = [(BALANCER[family], 80), (NODES[0][family], 30_080)];
            for (place, port) in places {
                let packet = Packet::tcp(ip(client[family]), ip(place), port);
                let passed = passed(&ruleset, 1, &packet);
                let case = format!("{} to {place} kept {kept}", packet.saddr);
                assert_eq!(passed.packet.daddr, ip(endpoint[family]), "{case}");
                assert_eq!(passed.masquerade.is_some(), masqueraded, "{case}");
                assert_eq!(passed.packet.mark, 0, "{case}");
            }
        }
    }
}

#[test]
fn p7_the_way_back_is_where_a_connection_came_in() {
    let ruleset = image(&planned(2, true, THERE));
    for family in [0, 1] {
        let (client, pod) = (ip(CLIENT[family]), ip(THERE[family]));
        let first = |ether, saddr| Packet {
            ether,
            ..Packet::tcp(saddr, pod, 8080)
        };
        let rows = [
            (Some(ETHER), client, THREE),
            (Some([2; 6]), client, 0),
            (None, client, 0),
            // Connections of nodes and pods find back by themselves.
            (Some(ETHER), ip(NODES[0][family]), 0),
            (
                Some(ETHER),
                ip(["10.244.1.9", "fd00:10:244:1::9"][family]),
                0,
            ),
        ];
        for (ether, saddr, number) in rows {
            let came = passed(&ruleset, 2, &first(ether, saddr));
            assert_eq!(came.packet.ct_mark, number, "from {saddr} by {ether:?}");
            assert_eq!((came.packet.mark, came.masquerade), (0, None));
            let answer = Packet {
                ct_mark: came.packet.ct_mark | 0x2000_0000,
                ct_state: CtState::ESTABLISHED,
                mark: 0x8000,
                ..Packet::tcp(pod, saddr, 40_000)
            };
            let answered = passed(&ruleset, 2, &answer);
            assert_eq!(answered.packet.mark, 0x8000 | number, "to {saddr}");
            assert_eq!(answered.packet.ct_mark, answer.ct_mark);
        }
    }
}

#[test]
fn p7_a_node_that_joins_or_leaves_changes_no_frontend() {
    let cluster = cluster(THERE);
    let mut plan = node(&cluster, &view(1, false));
    for (kept, masqueraded) in [(true, false), (false, true)] {
        let before = image(&plan);
        let touched = renode(&mut plan, &cluster, &view(1, kept), &Default::default());
        assert!(touched.frontends.is_empty() && touched.shapes.is_empty());
        let batch = delta(&plan, &touched);
        assert_eq!(batch, diff(&before, &image(&plan)));
        assert!(!batch.is_empty());
        let packet = Packet::tcp(ip(CLIENT[0]), ip(BALANCER[0]), 80);
        let passed = passed(&image(&plan), 1, &packet);
        assert_eq!(passed.masquerade.is_some(), masqueraded);
    }
}
