//! Pools that come, change and go (L7).

use super::*;

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

#[test]
fn the_status_of_a_pool_says_what_is_used_free_and_wrong() {
    let mut bed = bed(&["192.0.2.0/28", "2001:db8::/64", "home"]);
    bed.put(dual("web", "RequireDualStack"));
    let lab = ObjectKey::new("", "lab");
    let now = testbed::NOW.parse().unwrap();
    let status = pool_status(&bed.balancer, &lab, now).unwrap();
    assert_eq!(status["ipv4"], json!({"used": 1, "free": 15}));
    assert_eq!(
        (&status["used"], &status["ipv6"]["used"]),
        (&json!(2), &json!(1))
    );
    assert_eq!(status["free"], json!(9007199254740991u64));
    assert_eq!(
        status["conditions"][0]["message"],
        "\"home\" is no IP address"
    );
    let mut written = pool("lab", &["192.0.2.0/28", "2001:db8::/64", "home"]);
    written["status"] = status;
    bed.pool(&written);
    assert_eq!(pool_status(&bed.balancer, &lab, now), None, "written once");
    bed.pool(&pool("other", &["192.0.2.8/29"]));
    let other = pool_status(&bed.balancer, &ObjectKey::new("", "other"), now).unwrap();
    assert_eq!(other["conditions"][0]["reason"], "Overlaps");
    let metal = json!({"metadata": {"name": "m", "namespace": "metallb-system"}, "spec": {"addresses": ["198.51.100.1"]}});
    bed.pool(&metal);
    assert_eq!(
        pool_status(&bed.balancer, &ObjectKey::new("metallb-system", "m"), now),
        None
    );
}
