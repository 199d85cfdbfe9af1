//! Tables that a rule spells out, each row a packet whose trace the rules of
//! the image are held to.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use anyhow::Result;
use portolan_model::{Change, Protocol, TrafficPolicy};
use portolan_plan::{Detector, LinkName, NodeView};
use portolan_testkit::build::{good, node, service, slice};
use portolan_testkit::packets;
use portolan_testkit::rig::Rig;
use portolan_why::{Outcome, Packet, Trace, trace};
use serde_json::json;

/// Who sends, in the words of P7.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sender {
    Pod,
    Node,
    External,
}

/// To what, in the words of P7.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    ClusterIp,
    NodePort,
}

/// Which policy is Local, if any.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Local {
    Neither,
    External,
    Internal,
}

/// Which endpoints a row expects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reached {
    All,
    LocalOnly,
}

use Reached::{All, LocalOnly};
use Sender::{External, Node, Pod};
use To::{ClusterIp, NodePort};

type Row = (Sender, To, Local, Reached, bool);

/// kube-proxy's TestInternalExternalMasquerade, as far as there are cluster
/// addresses and node ports.
const BASE: [Row; 18] = [
    (Pod, ClusterIp, Local::Neither, All, false),
    (Pod, NodePort, Local::Neither, All, true),
    (Node, ClusterIp, Local::Neither, All, true),
    (Node, NodePort, Local::Neither, All, true),
    (External, ClusterIp, Local::Neither, All, true),
    (External, NodePort, Local::Neither, All, true),
    (Pod, ClusterIp, Local::External, All, false),
    (Pod, NodePort, Local::External, All, false),
    (Node, ClusterIp, Local::External, All, true),
    (Node, NodePort, Local::External, All, true),
    (External, ClusterIp, Local::External, All, true),
    (External, NodePort, Local::External, LocalOnly, false),
    (Pod, ClusterIp, Local::Internal, LocalOnly, false),
    (Node, ClusterIp, Local::Internal, LocalOnly, true),
    (External, ClusterIp, Local::Internal, LocalOnly, true),
    (Pod, NodePort, Local::Internal, All, true),
    (Node, NodePort, Local::Internal, All, true),
    (External, NodePort, Local::Internal, All, true),
];

fn view() -> NodeView {
    NodeView {
        node: "node-1".into(),
        cluster_pod_cidrs: ["10.244.0.0/16", "fd00:10:244::/48"]
            .map(|text| text.parse().unwrap())
            .into(),
        service_cidrs: ["10.96.0.0/16", "fd00:10:96::/112"]
            .map(|text| text.parse().unwrap())
            .into(),
        ..NodeView::default()
    }
}

/// A NodePort Service of both families with an endpoint on each of two nodes.
fn rig(view: NodeView, local: Local) -> Result<Rig> {
    let policy = |is_local| if is_local { "Local" } else { "Cluster" };
    let port = json!([{"port": 80, "nodePort": 30080, "protocol": "TCP"}]);
    let endpoints = |one: &str, other: &str| {
        json!([
            {"addresses": [one], "nodeName": "node-1"},
            {"addresses": [other], "nodeName": "node-2"},
        ])
    };
    let slice_of = |name: &str, kind: &str, endpoints| {
        json!({
            "metadata": {"name": name, "namespace": "ns", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": kind,
            "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
            "endpoints": endpoints,
        })
    };
    let facts = [
        good(node(&json!({
            "metadata": {"name": "node-1"},
            "spec": {"podCIDRs": ["10.244.1.0/24", "fd00:10:244:1::/64"]},
            "status": {"addresses": [
                {"type": "InternalIP", "address": "172.18.0.2"},
                {"type": "InternalIP", "address": "fd00:172:18::2"},
                {"type": "Hostname", "address": "node-1"},
            ]},
        }))?)?,
        good(service(&json!({
            "metadata": {"name": "web", "namespace": "ns"},
            "spec": {
                "type": "NodePort",
                "clusterIPs": ["10.96.0.20", "fd00:10:96::20"],
                "ports": port,
                "internalTrafficPolicy": policy(local == Local::Internal),
                "externalTrafficPolicy": policy(local == Local::External),
            },
        }))?)?,
        slice(&slice_of(
            "v4",
            "IPv4",
            endpoints("10.244.1.7", "10.244.2.7"),
        ))?
        .0
        .unwrap(),
        slice(&slice_of(
            "v6",
            "IPv6",
            endpoints("fd00:10:244:1::7", "fd00:10:244:2::7"),
        ))?
        .0
        .unwrap(),
    ];
    let mut rig = Rig::new(view);
    rig.apply(facts.into_iter().map(Change::Upsert))?;
    rig.check()?;
    Ok(rig)
}

fn packet(from: Sender, to: To, v6: bool) -> Packet {
    let address = |v4: &str, v6_text: &str| if v6 { v6_text } else { v4 }.parse().unwrap();
    Packet {
        source: match from {
            Pod => address("10.244.1.9", "fd00:10:244:1::9"),
            Node => address("172.18.0.2", "fd00:172:18::2"),
            External => address("203.0.113.5", "2001:db8::5"),
        },
        destination: match to {
            ClusterIp => address("10.96.0.20", "fd00:10:96::20"),
            NodePort => address("172.18.0.2", "fd00:172:18::2"),
        },
        protocol: Protocol::Tcp,
        port: match to {
            ClusterIp => 80,
            NodePort => 30080,
        },
        from_node: from == Node,
        link: match from {
            Pod => LinkName::new("cni0").unwrap(),
            Node => LinkName::NONE,
            External => LinkName::new("eth0").unwrap(),
        },
    }
}

/// The trace of a packet, to which the rules were held.
fn traced(rig: &Rig, packet: Packet) -> Result<Trace> {
    let trace = trace(&rig.cluster, &rig.plan, &rig.plan.view, packet);
    packets::check(&rig.ruleset, &rig.plan.view, &trace)?;
    Ok(trace)
}

fn check_rows(view: &NodeView, rows: &[Row]) {
    for (from, to, local, reached, masqueraded) in rows {
        let rig = rig(view.clone(), *local).unwrap();
        for v6 in [false, true] {
            let trace = traced(&rig, packet(*from, *to, v6)).unwrap();
            let row = format!("{from:?} to {to:?}, {local:?} policy Local, IPv6 {v6}\n{trace}");
            assert!(matches!(trace.outcome, Outcome::Forward(_)), "{row}");
            let used: Vec<_> = trace
                .endpoints
                .iter()
                .filter_map(|one| one.source.as_ref().ok())
                .collect();
            let expected = match reached {
                All => 2,
                LocalOnly => 1,
            };
            assert_eq!(used.len(), expected, "{row}");
            assert!(
                used.iter()
                    .all(|source| source.is_masqueraded() == *masqueraded),
                "{row}"
            );
        }
    }
}

#[test]
fn p7_27_row_table() {
    check_rows(&view(), &BASE);
}

#[test]
fn p7_27_row_table_by_every_detector() {
    let link = |name| LinkName::new(name).unwrap();
    for detector in [
        Detector::NodeCidr,
        Detector::Bridge(link("cni0")),
        Detector::Prefix(link("cn")),
        Detector::Prefix(link("cni0")),
    ] {
        for ranges in [view().cluster_pod_cidrs, Vec::new()] {
            let by = NodeView {
                detector,
                cluster_pod_cidrs: ranges,
                ..view()
            };
            check_rows(&by, &BASE);
        }
    }
}

/// Another node's pods are pods by the ranges of all pods only; another link is
/// no pods' link.
#[test]
fn p7_detectors_know_no_more_than_they_are_told() {
    let link = |name| LinkName::new(name).unwrap();
    let remote = Packet {
        source: "10.244.2.9".parse().unwrap(),
        ..packet(External, ClusterIp, false)
    };
    for (detector, known) in [
        (Detector::ClusterCidr, true),
        (Detector::NodeCidr, false),
        (Detector::Bridge(link("cni")), false),
        (Detector::Prefix(link("cni0.7")), false),
        (Detector::Prefix(link("eth")), true),
        (Detector::Bridge(link("eth0")), true),
    ] {
        let by = NodeView { detector, ..view() };
        let trace = traced(&rig(by, Local::Neither).unwrap(), remote).unwrap();
        let client = if known {
            portolan_why::Client::Pod
        } else {
            portolan_why::Client::Outside
        };
        assert_eq!(trace.client, client, "{detector:?}");
    }
}

#[test]
fn p7_27_row_table_without_detector() {
    let without = NodeView {
        cluster_pod_cidrs: Vec::new(),
        ..view()
    };
    let rows = BASE.map(
        |(from, to, local, reached, masqueraded)| match (from, to, local) {
            (_, ClusterIp, _) => (from, to, local, reached, false),
            (Pod, NodePort, Local::External) => (from, to, local, LocalOnly, false),
            (_, NodePort, _) => (from, to, local, reached, masqueraded),
        },
    );
    check_rows(&without, &rows);
}

#[test]
fn p7_27_row_table_with_masquerade_all() {
    let all = NodeView {
        masquerade_all: true,
        ..view()
    };
    let rows = BASE.map(|(from, to, local, reached, masqueraded)| {
        (from, to, local, reached, masqueraded || to == ClusterIp)
    });
    check_rows(&all, &rows);
}

#[test]
fn p4_each_policy_governs_its_own_addresses() {
    let rig = rig(view(), Local::Internal).unwrap();
    let cluster_ip = traced(&rig, packet(External, ClusterIp, false)).unwrap();
    let node_port = traced(&rig, packet(External, NodePort, false)).unwrap();
    let usable = |trace: &Trace| {
        trace
            .endpoints
            .iter()
            .filter(|one| one.source.is_ok())
            .count()
    };
    assert_eq!((usable(&cluster_ip), usable(&node_port)), (1, 2));
    let policies = rig
        .cluster
        .services()
        .map(|service| (service.internal_policy, service.external_policy));
    assert_eq!(
        policies.collect::<Vec<_>>(),
        [(TrafficPolicy::Local, TrafficPolicy::Cluster)]
    );
}

#[test]
fn p11_node_ports_are_open_where_the_view_says() {
    use portolan_plan::NodePortAddresses::{AnyLocal, Primary, Within};
    use portolan_plan::NodePorts;
    let within = |range: &str, primary| Within {
        ranges: vec![range.parse().unwrap()],
        primary,
    };
    let to = |text: &str| Packet {
        destination: text.parse().unwrap(),
        ..packet(External, NodePort, false)
    };
    let second = "172.19.0.2";
    let cases = [
        (Primary, "172.18.0.2", true),
        (Primary, second, false),
        (AnyLocal, second, true),
        (AnyLocal, "127.0.0.1", false),
        (within("172.19.0.0/24", false), second, true),
        (within("172.19.0.0/24", false), "172.18.0.2", false),
        (within("172.19.0.0/24", true), "172.18.0.2", true),
        (within("127.0.0.0/8", false), "127.0.0.1", false),
    ];
    for (node_ports, address, open) in cases {
        let mut rig = rig(
            NodeView {
                node_ports: NodePorts::both(node_ports.clone()),
                ..view()
            },
            Local::Neither,
        )
        .unwrap();
        let two = json!({
            "metadata": {"name": "node-1"},
            "status": {"addresses": [
                {"type": "InternalIP", "address": "172.18.0.2"},
                {"type": "InternalIP", "address": second},
            ]},
        });
        rig.apply([Change::Upsert(good(node(&two).unwrap()).unwrap())])
            .unwrap();
        rig.check().unwrap();
        let trace = traced(&rig, to(address)).unwrap();
        assert_eq!(
            matches!(trace.outcome, Outcome::Forward(_)),
            open,
            "{node_ports:?} {trace}"
        );
    }
}

#[test]
fn p12_protocols_are_independent() {
    let rig = rig(view(), Local::Neither).unwrap();
    for protocol in [Protocol::Udp, Protocol::Sctp] {
        let node_port = Packet {
            protocol,
            ..packet(External, NodePort, false)
        };
        assert!(matches!(
            traced(&rig, node_port).unwrap().outcome,
            Outcome::Pass(None)
        ));
        let cluster_ip = Packet {
            protocol,
            ..packet(Pod, ClusterIp, true)
        };
        assert!(matches!(
            traced(&rig, cluster_ip).unwrap().outcome,
            Outcome::Reject(_)
        ));
    }
}

/// The number of rules is that of the shapes, whatever the number of Services.
#[test]
fn rules_do_not_grow_with_services() {
    let rules = |services: u8| {
        let mut rig = Rig::new(view());
        for index in 0..services {
            let name = format!("svc-{index}");
            let object = json!({
                "metadata": {"name": name, "namespace": "ns"},
                "spec": {"clusterIPs": [format!("10.96.1.{index}")], "ports": [{"port": 80}]},
            });
            let endpoints =
                [1, 2, 3].map(|host| json!({"addresses": [format!("10.244.{host}.{index}")]}));
            let slice_object = json!({
                "metadata": {"name": name, "namespace": "ns", "labels": {"kubernetes.io/service-name": name}},
                "addressType": "IPv4",
                "ports": [{"port": 8080}],
                "endpoints": endpoints,
            });
            let facts = [
                good(service(&object).unwrap()).unwrap(),
                slice(&slice_object).unwrap().0.unwrap(),
            ];
            rig.apply(facts.map(Change::Upsert)).unwrap();
        }
        let chains = rig
            .ruleset
            .tables
            .values()
            .flat_map(|table| table.chains.values());
        chains.map(|chain| chain.rules.len()).sum::<usize>()
    };
    assert_eq!(rules(1), rules(40));
}

/// One endpoint that becomes unready is a handful of elements, whatever else
/// there is.
#[test]
fn p20_one_endpoint_change_costs_a_few_elements() {
    use portolan_model::Dirty;
    use portolan_plan::renode;
    let mut rig = rig(view(), Local::Neither).unwrap();
    let one = json!({
        "metadata": {"name": "v4", "namespace": "ns", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.244.1.7"], "nodeName": "node-1"}],
    });
    let mut dirty = Dirty::default();
    dirty.merge(
        rig.cluster
            .apply(Change::Upsert(slice(&one).unwrap().0.unwrap())),
    );
    let view = rig.plan.view.clone();
    let touched = renode(&mut rig.plan, &rig.cluster, &view, &dirty);
    assert_eq!(
        touched.frontends.len(),
        2,
        "the cluster address and the node port of one family"
    );
    let batch = portolan_render::nft::delta(&rig.plan, &touched);
    assert!(batch.steps.len() <= 20, "{batch:#?}");
    rig.ruleset.apply(&batch).unwrap();
    rig.check().unwrap();
}

/// What programs read of a trace is what people read.
#[test]
fn a_trace_as_json_has_its_reasons() {
    let rig = rig(view(), Local::Internal).unwrap();
    let json = traced(&rig, packet(Pod, ClusterIp, false)).unwrap().json();
    assert_eq!(json["verdict"], "forward");
    assert_eq!(json["service"]["frontend"], "10.96.0.20:80/tcp");
    let endpoints = json["endpoints"].as_array().unwrap();
    let row = |index: usize| [&endpoints[index]["address"], &endpoints[index]["reason"]];
    assert_eq!(
        row(0),
        [&json!("10.244.1.7"), &json!("sees the client's address")]
    );
    assert_eq!(row(1), [&json!("10.244.2.7"), &json!("not on this node")]);
}
