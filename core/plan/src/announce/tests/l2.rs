//! Who may answer for an address (L4, L8).

use serde_json::json;

use super::super::testbed::{Bed, local, object, service};
use super::super::{Announcing, Unsaid};

const WEB: &str = "192.0.2.130";

#[test]
fn l8_a_pool_without_an_announcement_is_answered_where_its_subnet_is() {
    let mut bed = Bed::new();
    bed.service(service("web", &[WEB, "2001:db8::101"]));
    bed.service(service("far", &["198.51.100.130"]));
    bed.service(service("none", &["203.0.113.9"]));
    assert_eq!(bed.answers(WEB), "n1 on eth0, n2 on eth0, n3 on eth0");
    assert_eq!(bed.answers("2001:db8::101"), bed.answers(WEB));
    assert_eq!(bed.answers("198.51.100.130"), "n3 on eth1");
    let why = "no link has a subnet with this address";
    assert_eq!(
        bed.mutes("far"),
        [format!("n1: {why}"), format!("n2: {why}")]
    );
    assert_eq!(bed.answers("203.0.113.9"), "");
    assert_eq!(bed.account("none").unsaid, Some(Unsaid::NotInPool));
}

#[test]
fn l4_a_node_must_be_fit_to_answer() {
    let mut bed = Bed::new();
    bed.service(service("web", &[WEB]));
    bed.node("n1", false, json!({}));
    let exclude = "node.kubernetes.io/exclude-from-external-load-balancers";
    bed.node("n2", true, json!({ exclude: "" }));
    assert_eq!(bed.answers(WEB), "n3 on eth0");
    assert_eq!(
        bed.mutes("web"),
        ["n1: not ready".to_owned(), format!("n2: label {exclude}")]
    );
    bed.speakers.remove("n3");
    assert_eq!(bed.answers(WEB), "");
    assert_eq!(bed.mutes("web")[2], "n3: no agent announces there");
    // Nobody else can do it for a single node.
    bed.nodes.remove("n1");
    bed.nodes.remove("n3");
    assert_eq!(bed.answers(WEB), "n2 on eth0");
}

#[test]
fn l4_local_is_answered_where_a_ready_endpoint_is() {
    let mut bed = Bed::new();
    bed.service(local("web", &[WEB]));
    assert_eq!(bed.answers(WEB), "");
    bed.ready_on("web", &["n2", "n3"]);
    assert_eq!(bed.answers(WEB), "n2 on eth0, n3 on eth0");
    let why = "no ready endpoint, with externalTrafficPolicy Local";
    assert_eq!(bed.mutes("web"), [format!("n1: {why}")]);
    bed.ready_on("web", &["n3"]);
    assert_eq!(bed.answers(WEB), "n3 on eth0");
}

#[test]
fn l8_an_announcement_selects_nodes_interfaces_pools_and_services() {
    let mut bed = Bed::new();
    bed.service(service("web", &[WEB]));
    bed.service(service("db", &["192.0.2.131"]));
    bed.service(service("far", &["198.51.100.130"]));
    bed.l2(object(
        "lan",
        json!({
            "pools": ["home"], "interfaces": ["eth0", "eth9"],
            "nodeSelector": {"matchExpressions": [
                {"key": "rack", "operator": "In", "values": ["r1", "r3"]},
            ]},
            "serviceSelector": {"matchLabels": {"app": "web"}},
        }),
    ));
    assert_eq!(bed.answers(WEB), "n1 on eth0, n3 on eth0");
    assert_eq!(bed.mutes("web"), ["n2: not selected by the announcement"]);
    assert_eq!(bed.answers("192.0.2.131"), "");
    let by = portolan_model::workloads::ObjectKey::new("", "lan");
    assert_eq!(
        bed.account("db").unsaid,
        Some(Unsaid::OtherServices(vec![by]))
    );
    // The other pool has no announcement still.
    assert_eq!(bed.answers("198.51.100.130"), "n3 on eth1");
    // Without interfaces, all but those of containers, whatever their subnets.
    bed.l2(object("all", json!({})));
    assert_eq!(
        bed.answers("198.51.100.130"),
        "n1 on eth0, n2 on eth0, n3 on eth0+eth1"
    );
    bed.l2(object("all", json!({"interfaces": ["docker0"]})));
    assert_eq!(bed.answers("198.51.100.130"), "n3 on docker0");
    assert_eq!(
        bed.mutes("far")[0],
        "n1: none of the announcement's interfaces"
    );
    // What several announcements say adds up.
    assert_eq!(bed.answers(WEB), "n1 on eth0, n3 on docker0+eth0");
}

#[test]
fn l8_services_with_one_address_have_one_answerer() {
    let mut bed = Bed::new();
    bed.service(service("tcp", &[WEB]));
    bed.service(local("udp", &[WEB]));
    bed.ready_on("udp", &["n2"]);
    assert_eq!(bed.answers(WEB), "n2 on eth0");
    // Who has nothing to say does not count.
    bed.ready_on("udp", &[]);
    assert_eq!(bed.answers(WEB), "n1 on eth0, n2 on eth0, n3 on eth0");
    // Where nobody can answer for all, somebody answers for some.
    bed.service(local("tcp", &[WEB]));
    bed.ready_on("tcp", &["n1"]);
    bed.ready_on("udp", &["n3"]);
    assert_eq!(bed.answers(WEB), "n1 on eth0, n3 on eth0");
    let announcing = bed.on("n2");
    let services = announcing.services(WEB.parse().unwrap());
    assert_eq!(services.count(), 2);
}

#[test]
fn l1_only_services_of_ours_are_announced() {
    let mut bed = Bed::new();
    for (name, class) in [
        ("a", "portolan.dev/load-balancer"),
        ("b", "portolan.dev/node-addresses"),
        ("c", "example.com/other"),
    ] {
        let mut object = service(name, &[WEB]);
        object["spec"]["loadBalancerClass"] = class.into();
        bed.service(object);
        let answers = bed.answers(WEB);
        assert_eq!(answers.is_empty(), name != "a", "{class}: {answers}");
        bed.services.clear();
    }
    let mut plain = service("web", &[WEB]);
    plain["spec"]["type"] = "NodePort".into();
    bed.service(plain);
    assert_eq!(bed.answers(WEB), "");
    // Without pools, addresses are those of nodes.
    bed.service(service("web", &["192.0.2.1"]));
    bed.pools.clear();
    assert_eq!(bed.answers("192.0.2.1"), "");
    assert_eq!(bed.account("web").unsaid, Some(Unsaid::OfNodes));
}

#[test]
fn what_is_touched_is_what_changed() {
    let mut bed = Bed::new();
    bed.service(service("web", &[WEB]));
    bed.service(local("db", &["192.0.2.131"]));
    let mut on = Announcing::new("n1");
    assert!(on.set_ground(bed.ground()));
    assert!(!on.set_ground(bed.ground()));
    // Another status of a pool is nothing that Services are looked at for.
    let home = portolan_model::workloads::ObjectKey::new("", "home");
    bed.pools.get_mut(&home).unwrap()["status"] = json!({"used": 1});
    bed.pools.get_mut(&home).unwrap()["metadata"]["resourceVersion"] = "7".into();
    assert!(!on.set_ground(bed.ground()));
    let web = super::super::testbed::key("web");
    let db = super::super::testbed::key("db");
    let touched = bed.converge(&mut on, &web);
    assert_eq!(touched.addresses, [WEB.parse().unwrap()].into());
    assert_eq!(bed.converge(&mut on, &web).addresses.len(), 0);
    assert_eq!(bed.converge(&mut on, &db).addresses.len(), 0);
    bed.ready_on("db", &["n2"]);
    let touched = bed.converge(&mut on, &db);
    assert_eq!(touched.addresses, ["192.0.2.131".parse().unwrap()].into());
    assert_eq!(on.forget(&web).addresses, [WEB.parse().unwrap()].into());
    assert_eq!(on.addresses().count(), 1);
}
