//! Pools that come, change and go (L7).

use std::collections::BTreeMap;
use std::net::IpAddr;

use portolan_model::workloads::{BalancedService, Object};

use super::*;
use crate::workloads::Action;

#[test]
fn l7_a_restart_changes_nothing() {
    let pools = [pool("lab", &["192.0.2.0/30"])];
    let mut bed = bed(&["192.0.2.0/30"]);
    for name in ["a", "b", "c", "d", "e"] {
        bed.put(service(name));
    }
    bed.delete("b");
    assert_eq!(bed.has("e"), ["192.0.2.1"], "who waited got what b had");
    // One that has nothing yet, and comes first by its name.
    bed.services.insert(key("0"), service("0"));
    let before = bed.services.clone();
    bed.told.clear();
    bed.restart(&pools);
    for (key, object) in before {
        if key.name != "0" {
            assert_eq!(bed.services[&key], object, "{key}");
        }
    }
    assert_eq!(
        bed.why("0"),
        "False PoolExhausted pool lab exhausted: 4 of 4 used"
    );
    assert_eq!(bed.told.len(), 1, "{:?}", bed.told);
}

#[test]
fn l7_a_pool_that_goes_gives_way_to_another() {
    let mut bed = bed(&["192.0.2.0/28"]);
    bed.put(service("web"));
    bed.pool(&pool("other", &["198.51.100.0/28"]));
    assert_eq!(bed.has("web"), ["192.0.2.0"], "another pool moves nobody");
    bed.told.clear();
    bed.drop_pool("lab");
    assert_eq!(bed.has("web"), ["198.51.100.0"]);
    assert_eq!(
        bed.told,
        [
            "UpdatedLoadBalancer Updated LoadBalancer with new IPs: [\"192.0.2.0\"] -> [\"198.51.100.0\"]"
        ]
    );
    // A range that shrinks is the same.
    bed.pool(&pool("other", &["198.51.100.8/29"]));
    assert_eq!(bed.has("web"), ["198.51.100.8"]);
    // So is a pool that is no longer for the Service.
    let mut closed = pool("other", &["198.51.100.8/29"]);
    closed["spec"]["serviceSelector"] = json!({"matchLabels": {"tier": "x"}});
    bed.pool(&closed);
    assert_eq!(bed.has("web"), NONE);
    assert_eq!(
        bed.why("web"),
        "False PoolNotAllowed pool other is not for Services with these labels"
    );
    assert!(bed.told.last().unwrap().starts_with("AllocationFailed"));
    bed.edit("web", |object| {
        object["metadata"]["labels"] = json!({"tier": "x"})
    });
    assert_eq!(bed.has("web"), ["198.51.100.8"]);
}

#[test]
fn l7_pools_are_used_by_priority_and_those_for_some_before_those_for_all() {
    let mut bed = Bed::default();
    bed.namespaces.insert(
        "default".to_owned(),
        [("team".to_owned(), "a".to_owned())].into(),
    );
    let mut with = |name: &str, range: &str, spec: Value| {
        let mut object = pool(name, &[range]);
        for (field, value) in spec.as_object().unwrap() {
            object["spec"][field] = value.clone();
        }
        bed.pool(&object);
    };
    with("a-for-all", "192.0.2.1", json!({}));
    with(
        "b-for-team",
        "192.0.2.2",
        json!({"namespaceSelector": {"matchLabels": {"team": "a"}}}),
    );
    with("c-first", "192.0.2.3", json!({"priority": 10}));
    with("d-second", "192.0.2.4", json!({"priority": 20}));
    with(
        "e-other-team",
        "192.0.2.5",
        json!({"priority": 1, "namespaceSelector": {"matchLabels": {"team": "b"}}}),
    );
    with(
        "f-closed",
        "192.0.2.6",
        json!({"priority": 1, "autoAssign": false}),
    );
    let mut found = Vec::new();
    for name in ["1", "2", "3", "4", "5"] {
        bed.put(service(name));
        found.extend(bed.has(name));
    }
    assert_eq!(found, ["192.0.2.3", "192.0.2.4", "192.0.2.2", "192.0.2.1"]);
    assert!(
        bed.why("5")
            .contains("pool c-first exhausted: 1 of 1 used; pool d-second exhausted")
    );
}

#[test]
fn l7_buggy_addresses_are_avoided_also_by_those_that_have_one() {
    let mut bed = bed(&["192.0.2.255-192.0.3.1"]);
    bed.put(service("a"));
    bed.put(service("b"));
    assert_eq!(
        (bed.has("a"), bed.has("b")),
        (vec!["192.0.2.255".to_owned()], vec!["192.0.3.0".to_owned()])
    );
    let mut careful = pool("lab", &["192.0.2.255-192.0.3.1"]);
    careful["spec"]["avoidBuggyIPs"] = true.into();
    bed.pool(&careful);
    assert_eq!(bed.has("a"), ["192.0.3.1"]);
    assert_eq!(
        bed.why("b"),
        "False PoolExhausted pool lab exhausted: 1 of 1 used"
    );
}

/// What is written to a pool, and told about it.
fn written(bed: &Bed, key: &ObjectKey) -> (Option<Value>, Vec<String>) {
    let step = super::super::pool(&bed.balancer, key, true, testbed::NOW.parse().unwrap());
    let status = step.writes.first().map(|write| {
        let Action::MergeStatus(body) = &write.action else {
            panic!("{write:?}");
        };
        body["status"].clone()
    });
    let told = step.tell.into_iter();
    let told = told.map(|tell| format!("{} {}", tell.reason, tell.message));
    (status, told.collect())
}

#[test]
fn the_status_of_a_pool_says_what_is_used_free_and_wrong() {
    let ranges = ["192.0.2.0/28", "2001:db8::/64", "home"];
    let mut bed = bed(&ranges);
    bed.put(dual("web", "RequireDualStack"));
    let lab = ObjectKey::new("", "lab");
    let status = written(&bed, &lab).0.unwrap();
    assert_eq!(status["ipv4"], json!({"used": 1, "free": 15}));
    assert_eq!(
        (&status["used"], &status["ipv6"]["used"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(status["free"], json!(9_007_199_254_740_991_u64));
    assert_eq!(
        status["conditions"][0]["message"],
        "\"home\" is no IP address"
    );
    let mut known = pool("lab", &ranges);
    known["status"] = status;
    bed.pool(&known);
    assert_eq!(written(&bed, &lab), (None, vec![]), "written once");
    bed.pool(&pool("other", &["192.0.2.8/29"]));
    let other = written(&bed, &ObjectKey::new("", "other")).0.unwrap();
    assert_eq!(other["conditions"][0]["reason"], "Overlaps");
}

#[test]
fn what_is_wrong_with_a_pool_of_metallb_is_told() {
    let mut bed = bed(&["192.0.2.0/28"]);
    for (name, range, told) in [
        ("good", "198.51.100.1", None),
        (
            "bad",
            "home",
            Some("InvalidRange \"home\" is no IP address"),
        ),
        (
            "twice",
            "192.0.2.1",
            Some("Overlaps addresses are in pool lab too: each is given once, by either of them"),
        ),
    ] {
        let spec = json!({"addresses": [range]});
        bed.pool(&json!({"metadata": {"name": name, "namespace": "metallb-system"}, "spec": spec}));
        let found = written(&bed, &ObjectKey::new("metallb-system", name));
        assert_eq!(found, (None, told.map(str::to_owned).into_iter().collect()));
    }
    bed.put(service("web"));
    assert_eq!(bed.has("web"), ["192.0.2.0"]);
}

#[test]
fn l7_ten_thousand_services_have_ten_thousand_addresses() {
    let mut bed = bed(&["10.8.0.0/18", "fd00:8::/64"]);
    let mut seen = std::collections::BTreeSet::new();
    for n in 0..10_000 {
        let object = BalancedService::read(&dual(&format!("s{n}"), "RequireDualStack"));
        let labels = BTreeMap::new();
        let assigned = bed.balancer.pools.assign(&object, &labels);
        assert_eq!(assigned.addresses.len(), 2, "{:?}", assigned.missing);
        seen.extend(assigned.addresses);
    }
    assert_eq!(seen.len(), 20_000);
    // From the middle: what is given back is given again.
    for n in 4_000..4_100 {
        bed.balancer.pools.release(&key(&format!("s{n}")));
    }
    let again = BalancedService::read(&service("again"));
    let assigned = bed.balancer.pools.assign(&again, &BTreeMap::new());
    assert_eq!(
        assigned.addresses,
        ["10.8.15.160".parse::<IpAddr>().unwrap()]
    );
}
