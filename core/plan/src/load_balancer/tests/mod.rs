//! The L rules, one table each.

mod nodes;
mod pools;
mod requests;
mod sharing;

use serde_json::{Value, json};

use super::testbed::{Bed, dual, key, node, pool, service};
use super::*;

const NONE: [&str; 0] = [];

fn bed(ranges: &[&str]) -> Bed {
    let mut bed = Bed::default();
    bed.pool(&pool("lab", ranges));
    bed
}

/// Three nodes with one address of each family.
fn three_nodes() -> Bed {
    let mut bed = Bed::default();
    for n in 1..=3 {
        let (v4, v6) = (format!("172.18.0.{n}"), format!("fd00:18::{n}"));
        bed.node(node(
            &format!("n{n}"),
            &[("InternalIP", &v4), ("InternalIP", &v6)],
        ));
    }
    bed
}

#[test]
fn l1_only_services_without_a_class_or_of_ours_are_served() {
    let mut bed = bed(&["192.0.2.0/28"]);
    for (name, class, served) in [
        ("none", None, true),
        ("ours", Some(CLASS), true),
        ("theirs", Some("example.com/lb"), false),
    ] {
        let mut object = service(name);
        if let Some(class) = class {
            object["spec"]["loadBalancerClass"] = class.into();
        }
        bed.put(object);
        assert_eq!(!bed.has(name).is_empty(), served, "{name}");
    }
    let theirs = bed.read(&key("theirs"));
    assert!(theirs.finalizers.is_empty() && theirs.conditions.is_empty());
    let mut object = service("inside");
    object["spec"]["type"] = "NodePort".into();
    bed.put(object);
    assert_eq!(bed.has("inside"), NONE);
    // What somebody else's class gave is theirs.
    bed.edit("theirs", |object| {
        object["status"]["loadBalancer"] = json!({"ingress": [{"ip": "198.51.100.1"}]});
    });
    assert_eq!(bed.has("theirs"), ["198.51.100.1"]);
}

#[test]
fn l1_a_class_of_ours_asks_for_the_nodes_although_there_are_pools() {
    let mut bed = three_nodes();
    bed.pool(&pool("lab", &["192.0.2.0/28"]));
    let mut object = service("web");
    object["spec"]["loadBalancerClass"] = NODES_CLASS.into();
    bed.put(object);
    bed.put(service("pooled"));
    assert_eq!(bed.has("web"), ["172.18.0.1", "172.18.0.2", "172.18.0.3"]);
    assert_eq!(bed.has("pooled"), ["192.0.2.0"]);
}

#[test]
fn l2_the_finalizer_comes_first_and_goes_last() {
    let mut bed = bed(&["192.0.2.0/31"]);
    bed.put(service("web"));
    assert_eq!(bed.read(&key("web")).finalizers, [FINALIZER]);
    // Others' finalizers stay.
    bed.edit("web", |object| {
        object["metadata"]["finalizers"] = json!(["example.com/mine", FINALIZER]);
        object["metadata"]["deletionTimestamp"] = testbed::NOW.into();
    });
    assert_eq!(bed.read(&key("web")).finalizers, ["example.com/mine"]);
    bed.put(service("other"));
    assert_eq!(bed.has("other"), ["192.0.2.0"], "the address is free again");
}

#[test]
fn l2_the_finalizer_goes_when_the_type_changes() {
    let mut bed = bed(&["192.0.2.0/32"]);
    bed.put(service("web"));
    bed.put(service("other"));
    assert_eq!(bed.has("other"), NONE);
    bed.edit("web", |object| object["spec"]["type"] = "NodePort".into());
    let web = bed.read(&key("web"));
    assert!(
        web.finalizers.is_empty() && web.conditions.is_empty(),
        "{web:?}"
    );
    assert_eq!(bed.has("web"), NONE, "L3: the status is cleared");
    assert_eq!(bed.has("other"), ["192.0.2.0"], "who waited gets it");
}

#[test]
fn l3_ingress_follows_the_order_of_families() {
    let mut bed = bed(&["192.0.2.0/28", "2001:db8::/120"]);
    bed.put(dual("web", "RequireDualStack"));
    assert_eq!(bed.has("web"), ["192.0.2.0", "2001:db8::"]);
    let mut object = dual("six", "PreferDualStack");
    object["spec"]["ipFamilies"] = json!(["IPv6", "IPv4"]);
    bed.put(object);
    assert_eq!(bed.has("six"), ["2001:db8::1", "192.0.2.1"]);
    let ingress = &bed.services[&key("six")]["status"]["loadBalancer"]["ingress"];
    assert!(
        ingress
            .as_array()
            .unwrap()
            .iter()
            .all(|one| one["ipMode"] == "VIP")
    );
    // A family that is given up is given back.
    bed.edit("web", |object| {
        object["spec"]["ipFamilies"] = json!(["IPv4"]);
        object["spec"]["ipFamilyPolicy"] = "SingleStack".into();
    });
    assert_eq!(bed.has("web"), ["192.0.2.0"]);
    bed.put(dual("next", "RequireDualStack"));
    assert_eq!(bed.has("next"), ["192.0.2.2", "2001:db8::"]);
}

#[test]
fn l3_both_families_as_far_as_they_are_wanted() {
    let mut bed = bed(&["192.0.2.0/28"]);
    bed.put(dual("must", "RequireDualStack"));
    assert_eq!(bed.has("must"), NONE);
    assert_eq!(
        bed.why("must"),
        "False NoPool pool lab has no IPv6 addresses"
    );
    bed.put(dual("may", "PreferDualStack"));
    assert_eq!(bed.has("may"), ["192.0.2.0"]);
    assert_eq!(bed.why("may"), "True NoPool pool lab has no IPv6 addresses");
    let mut one = service("one");
    one["spec"]["ipFamilyPolicy"] = "RequireDualStack".into();
    bed.put(one);
    assert!(
        bed.why("one")
            .ends_with("has a cluster address of one only")
    );
    // Another pool may give the other family; what one has stays.
    bed.pool(&pool("six", &["2001:db8::/120"]));
    assert_eq!(bed.has("may"), ["192.0.2.0", "2001:db8::"]);
    assert_eq!(bed.has("must"), ["192.0.2.1", "2001:db8::1"]);
    assert_eq!(bed.why("may"), "True Assigned ");
}

#[test]
fn l11_one_address_for_tcp_and_udp() {
    let ports = json!([{"name": "t", "port": 53, "protocol": "TCP"}, {"name": "u", "port": 53, "protocol": "UDP"}]);
    let mut pooled = bed(&["192.0.2.0/28"]);
    let mut object = service("dns");
    object["spec"]["ports"] = ports;
    pooled.put(object.clone());
    assert_eq!(pooled.has("dns"), ["192.0.2.0"]);
    let mut bare = three_nodes();
    bare.put(object);
    assert_eq!(bare.has("dns").len(), 3);
}

#[test]
fn a_look_at_one_service_is_a_look_at_one() {
    let mut bed = bed(&["192.0.2.0/24"]);
    for n in 0..200 {
        bed.put(service(&format!("s{n}")));
    }
    bed.looks = 0;
    bed.put(service("one-more"));
    assert_eq!(
        bed.looks, 2,
        "once to write and once to see that nothing is left"
    );
    bed.looks = 0;
    bed.delete("s7");
    assert_eq!(bed.looks, 0, "nobody waits");
}
