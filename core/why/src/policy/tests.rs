//! Checks of small clusters, in the words that people read.

use std::net::IpAddr;

use portolan_model::{Change, Cluster, Fact, Kind, Protocol, intake};
use portolan_plan::{LinkName, NodePlan, NodeView};
use serde_json::{Value, json};

use super::*;
use crate::trace::Packet;

/// Three pods on two nodes, a Service, and these policies in namespace `shop`.
fn town(policies: &[Value]) -> (Cluster, Vec<NodePlan>) {
    let mut cluster = Cluster::default();
    let object = |value: Value| serde_json::from_value(value);
    let pod = |name: &str, namespace: &str, node: &str, address: &str| {
        let value = json!({
            "metadata": {"name": name, "namespace": namespace, "labels": {"app": name}},
            "spec": {"nodeName": node, "containers": [{"ports": [{"name": "http", "containerPort": 80, "protocol": "TCP"}]}]},
            "status": {"phase": "Running", "podIP": address},
        });
        let (pod, _) = intake::pod(&serde_json::from_value(value).expect("a pod"));
        Fact::Pod(pod.into())
    };
    let pods = vec![
        pod("api", "shop", "node-1", "10.244.1.2"),
        pod("client", "shop", "node-2", "10.244.2.2"),
        pod("stranger", "else", "node-2", "10.244.2.3"),
    ];
    cluster.apply(Change::Replace(Kind::Pod, pods));
    let nodes = ["node-1", "node-2"].iter().zip(1..).map(|(name, index)| {
        let node = object(json!({"metadata": {"name": name},
            "status": {"addresses": [{"type": "InternalIP", "address": format!("172.18.0.{index}")}]}}));
        Fact::Node(intake::node(&node.expect("a node")).0.into())
    });
    cluster.apply(Change::Replace(Kind::Node, nodes.collect()));
    let namespaces = ["shop", "else"].map(|name| {
        let value = json!({"metadata": {"name": name, "labels": {"team": name}}});
        Fact::Namespace(intake::namespace(
            &serde_json::from_value(value).expect("a namespace"),
        ))
    });
    cluster.apply(Change::Replace(Kind::Namespace, namespaces.into()));
    let facts = policies.iter().zip(1..).map(|(spec, number)| {
        let value =
            json!({"metadata": {"name": format!("p{number}"), "namespace": "shop"}, "spec": spec});
        let (policy, problems) = intake::policy(&serde_json::from_value(value).expect("a policy"));
        assert_eq!(problems, []);
        Fact::Policy(policy.into())
    });
    cluster.apply(Change::Replace(Kind::Policy, facts.collect()));
    let service = json!({"metadata": {"name": "api", "namespace": "shop"},
        "spec": {"type": "NodePort", "clusterIP": "10.96.0.80", "clusterIPs": ["10.96.0.80"], "ipFamilies": ["IPv4"],
            "ports": [{"port": 8080, "targetPort": 80, "nodePort": 30080, "protocol": "TCP"}]}});
    let (service, _) = intake::service(&serde_json::from_value(service).expect("a Service"));
    cluster.apply(Change::Upsert(Fact::Service(service.into())));
    let slice = json!({"metadata": {"name": "api-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "api"}},
        "addressType": "IPv4", "ports": [{"name": "", "protocol": "TCP", "port": 80}],
        "endpoints": [{"addresses": ["10.244.1.2"], "nodeName": "node-1", "conditions": {"ready": true}}]});
    let (slice, _) = intake::slice(&serde_json::from_value(slice).expect("a slice"));
    cluster.apply(Change::Upsert(Fact::Slice(
        slice.expect("endpoints").into(),
    )));
    let plans = ["node-1", "node-2"].map(|node| {
        let view = NodeView {
            node: node.into(),
            cluster_pod_cidrs: vec!["10.244.0.0/16".parse().expect("a range")],
            ..NodeView::default()
        };
        portolan_plan::node(&cluster, &view.observed(&cluster))
    });
    (cluster, plans.into())
}

/// The check of a connection that leaves `node`, as people read it.
#[track_caller]
fn told(policies: &[Value], (node, from): (&str, &str), to: &str, port: u16) -> String {
    let (cluster, plans) = town(policies);
    let world = World::new(&cluster, &plans);
    let address = |text: &str| -> IpAddr { text.parse().expect("an address") };
    let packet = Packet {
        source: address(from),
        destination: address(to),
        protocol: Protocol::Tcp,
        port,
        from_node: from.starts_with("172.18.0."),
        link: LinkName::NONE,
    };
    let plan = world.plan(node).expect("a node");
    let check = check(&world, plan, packet);
    let denied = check.to_string().contains("denied");
    assert_eq!(check.allowed(), !denied, "{check}");
    assert_eq!(check.json()["allowed"], check.allowed());
    check.to_string()
}

const CLIENT: (&str, &str) = ("node-2", "10.244.2.2");
const STRANGER: (&str, &str) = ("node-2", "10.244.2.3");

fn api() -> Value {
    json!({"matchLabels": {"app": "api"}})
}

#[test]
fn n1_without_a_policy_everything_is_open() {
    assert_eq!(
        told(&[], CLIENT, "10.244.1.2", 80),
        "from       pod shop/client (10.244.2.2)\n\
         to         pod shop/api (10.244.1.2 on node-1), 80/TCP\n\
         egress     allowed: no policy is about pod shop/client for egress\n\
         ingress    allowed: no policy is about pod shop/api for ingress\n\
         verdict    allowed\n"
    );
}

#[test]
fn n3_the_rule_that_allows_is_named_after_translation() {
    let other = json!({"podSelector": api(), "ingress": [{"from": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]}]});
    let client = json!({"podSelector": api(), "ingress": [{"ports": [{"port": 443}]},
        {"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [{"port": "http"}]}]});
    assert_eq!(
        told(&[other, client], CLIENT, "10.96.0.80", 8080),
        "from       pod shop/client (10.244.2.2)\n\
         to         service shop/api (10.96.0.80), 8080/TCP\n\
         \x20          pod shop/api (10.244.1.2:80 on node-1)\n\
         egress     allowed: no policy is about pod shop/client for egress\n\
         ingress    allowed: NetworkPolicy shop/p2 spec.ingress[1]\n\
         verdict    allowed\n"
    );
}

/// Of several rules the one that misses least comes first.
#[test]
fn n6_n9_the_nearest_rule_and_what_misses() {
    let policy = json!({"podSelector": api(), "ingress": [
        {"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.244.2.0/24"]}}], "ports": [{"port": 443}]},
        {"from": [{"namespaceSelector": {"matchLabels": {"team": "shop"}}}], "ports": [{"port": 80}]},
        {"from": [{"podSelector": {"matchLabels": {"app": "client", "tier": "front"}}}]},
    ]});
    let text = told(&[policy], STRANGER, "10.244.1.2", 80);
    assert_eq!(
        text,
        "from       pod else/stranger (10.244.2.3)\n\
         to         pod shop/api (10.244.1.2 on node-1), 80/TCP\n\
         egress     allowed: no policy is about pod else/stranger for egress\n\
         ingress    denied: NetworkPolicy shop/p1 isolates pod shop/api, and no rule allows this\n\
         \x20 nearest  shop/p1 spec.ingress[1]\n\
         \x20            spec.ingress[1].from[0].namespaceSelector asks for namespaces with team=shop; namespace else has team=else\n\
         \x20          shop/p1 spec.ingress[0]\n\
         \x20            spec.ingress[0].from[0].ipBlock.except excepts 10.244.2.3 by 10.244.2.0/24\n\
         \x20            spec.ingress[0].ports allows 443/TCP; not 80/TCP\n\
         \x20          shop/p1 spec.ingress[2]\n\
         \x20            spec.ingress[2].from[0].podSelector is about pods of the policy's own namespace shop, as it has no namespaceSelector; the pod is in else\n\
         \x20            spec.ingress[2].from[0].podSelector asks for app=client; pod else/stranger has app=stranger\n\
         \x20            spec.ingress[2].from[0].podSelector asks for tier=front; pod else/stranger has no label tier\n\
         verdict    denied: ingress of pod shop/api, by NetworkPolicy shop/p1\n"
    );
}

#[test]
fn n4_n10_nothing_at_all_and_names_of_ports() {
    let closed = json!({"podSelector": {}, "policyTypes": ["Ingress", "Egress"]});
    let text = told(&[closed], CLIENT, "10.244.1.2", 80);
    assert!(text.contains("egress     denied: NetworkPolicy shop/p1 isolates pod shop/client and has no rule in spec.egress: nothing is allowed\n"), "{text}");
    assert!(text.contains("verdict    denied: egress of pod shop/client, by NetworkPolicy shop/p1; and ingress of pod shop/api, by NetworkPolicy shop/p1\n"), "{text}");
    let named = json!({"podSelector": api(), "ingress": [{"ports": [{"port": "https"}]}]});
    let text = told(&[named], CLIENT, "10.244.1.2", 80);
    assert!(text.contains("spec.ingress[0].ports allows https/TCP; not 80/TCP; the destination has no such port named \"https\""), "{text}");
}

/// A node that masquerades hides who calls, and is said to; a pod's own node always
/// comes in (N12), and policies never meet a Service's address (N17).
#[test]
fn n12_n17_what_hides_the_source() {
    let policy = json!({"podSelector": api(), "ingress": [{"from": [{"podSelector": {}}]}]});
    let text = told(
        std::slice::from_ref(&policy),
        ("node-2", "203.0.113.9"),
        "172.18.0.2",
        30080,
    );
    assert!(text.contains("source     the source is hidden: the destination sees the node's address, as for every client here: 172.18.0.2 of node-2\n"), "{text}");
    assert!(
        text.contains("selects pods; 172.18.0.2 is no pod's address"),
        "{text}"
    );
    let text = told(
        std::slice::from_ref(&policy),
        ("node-1", "172.18.0.1"),
        "10.244.1.2",
        80,
    );
    assert!(
        text.contains("ingress    allowed: a pod's own node always reaches it\n"),
        "{text}"
    );
    let text = told(&[], ("node-1", "172.18.0.1"), "203.0.113.9", 80);
    assert!(
        text.ends_with("verdict    allowed: neither end is a pod, so no policy has a say\n"),
        "{text}"
    );
    let egress = json!({"podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Egress"],
        "egress": [{"to": [{"ipBlock": {"cidr": "10.96.0.80/32"}}]}]});
    let text = told(&[egress], CLIENT, "10.96.0.80", 8080);
    assert!(
        text.contains("spec.egress[0].to[0].ipBlock.cidr does not contain 10.244.1.2"),
        "{text}"
    );
}

#[test]
fn a_service_that_refuses_is_no_matter_of_policies() {
    let (cluster, plans) = town(&[]);
    let world = World::new(&cluster, &plans);
    let packet = Packet {
        source: "10.244.2.2".parse().expect("an address"),
        destination: "10.96.0.80".parse().expect("an address"),
        protocol: Protocol::Tcp,
        port: 81,
        from_node: false,
        link: LinkName::NONE,
    };
    let check = check(&world, &plans[1], packet);
    assert!(!check.allowed());
    assert_eq!(
        check.verdict(),
        "no connection: reject: the Service has no such port; no policy has a say in that"
    );
}

/// Pods that are treated alike are one row, and ports are told where they differ.
#[test]
fn n1_n9_who_can_reach_whom() {
    let policy = json!({"podSelector": api(), "ingress": [
        {"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [{"port": 80}, {"port": 53, "protocol": "UDP"}]}]});
    let (cluster, plans) = town(&[policy]);
    let world = World::new(&cluster, &plans);
    let all = matrix(&world, None, None);
    assert_eq!(all.names(), ["else/stranger", "shop/api", "shop/client"]);
    let cells: Vec<Vec<String>> = (0..3)
        .map(|from| (0..3).map(|to| all.cell(from, to)).collect())
        .collect();
    assert_eq!(
        cells,
        [
            ["all", "-", "all"],
            ["all", "all", "all"],
            ["all", "80/TCP,53/UDP", "all"]
        ]
        .map(|row| row.map(str::to_owned).to_vec())
    );
    let one = matrix(
        &world,
        Some(&["shop".into()].into()),
        Some((Protocol::Tcp, 81)),
    );
    assert_eq!(one.names(), ["api", "client"]);
    assert_eq!(
        (one.cell(1, 0), one.cell(0, 1)),
        ("-".to_owned(), "all".to_owned())
    );
    assert_eq!(one.json()["reach"][2]["ports"], json!({"81/TCP": false}));
}

#[test]
fn n1_pods_that_are_alike_are_one_group() {
    let (mut cluster, _) = town(&[]);
    for index in 0..3 {
        let value = json!({
            "metadata": {"name": format!("web-5d9-{index}"), "namespace": "shop", "labels": {"app": "web"}},
            "spec": {"nodeName": "node-1"},
            "status": {"phase": "Running", "podIP": format!("10.244.1.1{index}")},
        });
        let (pod, _) = intake::pod(&serde_json::from_value(value).expect("a pod"));
        cluster.apply(Change::Upsert(Fact::Pod(pod.into())));
    }
    let policy = json!({"metadata": {"name": "p", "namespace": "shop"},
        "spec": {"podSelector": {"matchLabels": {"app": "web"}}}});
    let (policy, _) = intake::policy(&serde_json::from_value(policy).expect("a policy"));
    cluster.apply(Change::Upsert(Fact::Policy(policy.into())));
    let plans = ["node-1", "node-2"].map(|node| {
        let view = NodeView {
            node: node.into(),
            ..NodeView::default()
        };
        portolan_plan::node(&cluster, &view.observed(&cluster))
    });
    let world = World::new(&cluster, &plans);
    let found = matrix(&world, Some(&["shop".into()].into()), None);
    assert_eq!(found.names(), ["api,client", "web-5d9-* (3 pods)"]);
    assert_eq!(found.cell(0, 1), "-");
    // Not even each other.
    assert_eq!(found.cell(1, 1), "-");
    assert_eq!(found.cell(1, 0), "all");
}

#[test]
fn n6_n8_n10_n17_what_is_odd_about_policies() {
    let policies = [
        json!({"podSelector": {"matchLabels": {"app": "nobody"}}}),
        json!({"podSelector": api(), "policyTypes": ["Ingress", "Egress"],
        "ingress": [
            {"from": [{"podSelector": {"matchLabels": {"app": "clint"}}}]},
            {"from": [{"namespaceSelector": {"matchLabels": {"team": "none"}}}]},
            {"ports": [{"port": "htpp"}]},
            {"from": [{"podSelector": {}}]},
            {"from": [{"podSelector": {"matchLabels": {"app": "client"}}}], "ports": [{"port": 80}]},
        ],
        "egress": [
            {"to": [{"ipBlock": {"cidr": "10.96.0.80/32"}}]},
            {"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}], "ports": [{"port": "http"}]},
            {"to": [{"ipBlock": {"cidr": "10.244.0.0/16", "except": ["10.244.9.0/24"]}}]},
            {"to": [{"ipBlock": {"cidr": "10.244.2.0/24"}}], "ports": [{"port": 80, "endPort": 90}]},
        ]}),
    ];
    let (cluster, plans) = town(&policies);
    let world = World::new(&cluster, &plans);
    let found = lint(&world, &[], None);
    let told: Vec<String> = found
        .iter()
        .map(|one| format!("{} {}: {}", one.object, one.field, one.message))
        .collect();
    assert_eq!(
        told,
        [
            "networkpolicy/p1 spec.podSelector: no pod of namespace shop has app=nobody",
            "networkpolicy/p2 spec.ingress[0].from[0].podSelector: no pod in namespace shop has app=clint",
            "networkpolicy/p2 spec.ingress[0]: spec.ingress[3] allows all that this rule allows",
            "networkpolicy/p2 spec.ingress[1].from[0].namespaceSelector: no namespace has team=none",
            "networkpolicy/p2 spec.ingress[2].ports[0].port: no pod that the policy selects has a port named \"htpp\" for TCP",
            "networkpolicy/p2 spec.ingress[4]: spec.ingress[3] allows all that this rule allows",
            "networkpolicy/p2 spec.egress[0].to[0].ipBlock.cidr: 10.96.0.80/32 is the address of service shop/api: policies meet the pods behind a Service, never its address",
            "networkpolicy/p2 spec.egress[1].ports[0].port: addresses have no names of ports: this allows nothing",
            "networkpolicy/p2 spec.egress[3]: spec.egress[2] allows all that this rule allows",
        ]
    );
    let elsewhere = lint(&world, &[], Some(&["else".into()].into()));
    assert_eq!(elsewhere, []);
    let fine = json!({"podSelector": api(), "ingress": [{"from": [{"podSelector": {}}], "ports": [{"port": "http"}]},
        {"from": [{"namespaceSelector": {}}], "ports": [{"port": 443}]}]});
    let (cluster, plans) = town(&[fine]);
    assert_eq!(lint(&World::new(&cluster, &plans), &[], None), []);
}
