//! Which routes a node tells, and to whom (L4, L10).

use portolan_model::workloads::{Community, ObjectKey};
use serde_json::{Value, json};

use super::super::testbed::{Bed, local, object, service};

const WEB: &str = "192.0.2.130";

fn peer(name: &str, more: Value) -> Value {
    let mut spec = json!({
        "localASN": 64512, "peerASN": 64513, "peerAddress": "192.0.2.254",
        "families": ["IPv4", "IPv6"],
    });
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    object(name, spec)
}

fn bed() -> Bed {
    let mut bed = Bed::new();
    bed.peer(peer("tor", json!({})));
    bed.service(service("web", &[WEB, "2001:db8::101"]));
    bed
}

#[test]
fn l10_an_address_is_a_route_of_its_own_from_every_fit_node() {
    let mut bed = bed();
    assert_eq!(bed.tells("n1"), [""; 0]);
    bed.bgp(object("all", json!({})));
    let wanted = ["tor 192.0.2.130/32", "tor 2001:db8::101/128"];
    assert_eq!(bed.tells("n1"), wanted);
    assert_eq!(bed.tells("n3"), wanted);
    // What is told to routers is not answered for on links besides.
    assert_eq!(bed.answers(WEB), "");
    bed.node("n3", false, json!({}));
    assert_eq!(bed.tells("n3"), [""; 0]);
    assert_eq!(bed.mutes("web"), ["n3: not ready"]);
}

#[test]
fn l10_a_peer_is_told_of_its_families_only() {
    let mut bed = bed();
    bed.bgp(object("all", json!({})));
    // Without any, that of its own address.
    bed.peer(peer("tor", json!({"families": []})));
    assert_eq!(bed.tells("n1"), ["tor 192.0.2.130/32"]);
    bed.peer(peer("tor", json!({"families": ["IPv6"]})));
    assert_eq!(bed.tells("n1"), ["tor 2001:db8::101/128"]);
    let why = "its peers are not told of this family (families)";
    assert_eq!(bed.mutes("web")[0], format!("n1: {why}"));
}

#[test]
fn l10_local_is_withdrawn_with_the_last_ready_endpoint() {
    let mut bed = bed();
    bed.bgp(object("all", json!({})));
    bed.service(local("web", &[WEB]));
    bed.ready_on("web", &["n2"]);
    assert_eq!(bed.tells("n1"), [""; 0]);
    assert_eq!(bed.tells("n2"), ["tor 192.0.2.130/32"]);
    bed.ready_on("web", &[]);
    assert_eq!(bed.tells("n2"), [""; 0]);
}

#[test]
fn l10_nodes_peers_pools_and_services_are_selected() {
    let mut bed = bed();
    bed.peer(peer(
        "edge",
        json!({"nodeSelector": {"matchLabels": {"rack": "r2"}}}),
    ));
    bed.peer(peer("broken", json!({"peerAddress": "x"})));
    bed.bgp(object("all", json!({"pools": ["home"]})));
    assert_eq!(bed.tells("n1").len(), 2);
    assert_eq!(bed.tells("n2").len(), 4);
    let peers = |node: &str| -> Vec<String> {
        let ground = bed.ground();
        let peers = ground.peers_of(node);
        peers.map(|peer| peer.meta.key.to_string()).collect()
    };
    assert_eq!(peers("n1"), ["tor"]);
    assert_eq!(peers("n2"), ["edge", "tor"]);
    let ground = bed.ground();
    let nodes: Vec<&str> = ground.nodes_of(&ObjectKey::new("", "edge")).collect();
    assert_eq!(nodes, ["n2"]);
    bed.bgp(object(
        "all",
        json!({
            "peers": ["edge"],
            "nodeSelector": {"matchLabels": {"rack": "r1"}},
        }),
    ));
    assert_eq!(bed.tells("n1"), [""; 0]);
    assert_eq!(
        bed.mutes("web"),
        [
            "n1: no peer of the announcement is for this node",
            "n2: not selected by the announcement",
            "n3: not selected by the announcement",
        ]
    );
    bed.bgp(object(
        "all",
        json!({"serviceSelector": {"matchLabels": {"app": "db"}}}),
    ));
    assert_eq!(bed.tells("n2"), [""; 0]);
    assert!(bed.account("web").unsaid.is_some());
}

#[test]
fn l10_addresses_share_a_prefix_as_long_as_one_of_them_is_there() {
    let mut bed = bed();
    bed.service(local("db", &["192.0.2.131"]));
    bed.ready_on("db", &["n1"]);
    bed.bgp(object(
        "all",
        json!({"aggregationLength": 24, "aggregationLengthV6": 64}),
    ));
    let both = ["tor 192.0.2.0/24", "tor 2001:db8::/64"];
    assert_eq!(bed.tells("n1"), both);
    let mut on = bed.on("n1");
    let web = super::super::testbed::key("web");
    on.forget(&web);
    let key = (
        ObjectKey::new("", "tor").into(),
        "192.0.2.0/24".parse().unwrap(),
    );
    assert!(on.route(&key).is_some());
    assert_eq!(on.routes().count(), 1);
    on.forget(&super::super::testbed::key("db"));
    assert_eq!(on.route(&key), None);
}

#[test]
fn l10_what_several_say_of_a_prefix_adds_up() {
    let mut bed = bed();
    bed.bgp(object(
        "a",
        json!({"localPref": 50, "communities": ["64512:1", "no-export"]}),
    ));
    bed.bgp(object(
        "b",
        json!({"localPref": 200, "communities": ["large:64512:1:2"]}),
    ));
    let on = bed.on("n1");
    let key = (
        ObjectKey::new("", "tor").into(),
        "192.0.2.130/32".parse().unwrap(),
    );
    let route = on.route(&key).unwrap();
    assert_eq!(route.local_pref, Some(200));
    let wanted = ["64512:1", "no-export", "large:64512:1:2"].map(Community::parse);
    assert_eq!(route.communities, wanted.into());
}
