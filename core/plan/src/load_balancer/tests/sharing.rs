//! Who shares an address (L5).

use super::*;

/// A Service at a port, with a sharing key, a policy, and pods.
fn sharing(name: &str, key: &str, port: (u16, &str), (policy, app): (&str, &str)) -> Value {
    let mut object = service(name);
    object["metadata"]["annotations"] = json!({"metallb.io/allow-shared-ip": key});
    object["spec"]["ports"] = json!([{"port": port.0, "protocol": port.1}]);
    object["spec"]["selector"] = json!({ "app": app });
    object["spec"]["externalTrafficPolicy"] = policy.into();
    object
}

#[test]
fn l5_who_shares_an_address() {
    let (udp, tcp, other) = ((80, "UDP"), (80, "TCP"), (81, "TCP"));
    for (what, policy, (key, port, to), shares) in [
        (
            "other protocol",
            "Cluster",
            ("k", udp, ("Cluster", "b")),
            true,
        ),
        (
            "other port",
            "Cluster",
            ("k", other, ("Cluster", "b")),
            true,
        ),
        ("same port", "Cluster", ("k", tcp, ("Cluster", "b")), false),
        ("other key", "Cluster", ("l", udp, ("Cluster", "b")), false),
        ("no key", "Cluster", ("", udp, ("Cluster", "b")), false),
        (
            "both Local, same pods",
            "Local",
            ("k", udp, ("Local", "a")),
            true,
        ),
        (
            "both Local, other pods",
            "Local",
            ("k", udp, ("Local", "b")),
            false,
        ),
        ("one Local", "Local", ("k", udp, ("Cluster", "a")), false),
    ] {
        let mut bed = bed(&["192.0.2.1"]);
        bed.put(sharing("first", "k", tcp, (policy, "a")));
        bed.put(sharing("second", key, port, to));
        assert_eq!(bed.has("second") == ["192.0.2.1"], shares, "{what}");
        let exhausted = "False PoolExhausted pool lab exhausted: 1 of 1 used";
        assert_eq!(bed.why("second") == exhausted, !shares, "{what}");
    }
}

#[test]
fn l5_the_reason_why_an_address_is_not_shared() {
    let mut bed = bed(&["192.0.2.1"]);
    let ask = |mut object: Value| {
        object["metadata"]["annotations"]["metallb.io/loadBalancerIPs"] = "192.0.2.1".into();
        object
    };
    bed.put(sharing("first", "k", (80, "TCP"), ("Cluster", "a")));
    bed.put(ask(sharing("second", "k", (80, "TCP"), ("Cluster", "a"))));
    assert_eq!(
        bed.why("second"),
        "False AddressTaken port 80/TCP of 192.0.2.1 is taken by default/first"
    );
    bed.put(ask(sharing("third", "k", (81, "TCP"), ("Local", "a"))));
    assert!(
        bed.why("third")
            .contains("only Services with the same pods share an address")
    );
    bed.put(ask(sharing("fourth", "l", (81, "TCP"), ("Cluster", "a"))));
    assert_eq!(
        bed.why("fourth"),
        "False AddressTaken 192.0.2.1 is taken by default/first"
    );
}

#[test]
fn l5_sharing_is_judged_anew_when_the_policy_changes() {
    let mut bed = bed(&["192.0.2.1-192.0.2.2"]);
    for (name, protocol) in [("dns-tcp", "TCP"), ("dns-udp", "UDP")] {
        let mut object = service(name);
        object["metadata"]["annotations"] = json!({"portolan.dev/allow-shared-ip": "dns"});
        object["spec"]["ports"] = json!([{"port": 53, "protocol": protocol}]);
        bed.put(object);
    }
    assert_eq!(
        (bed.has("dns-tcp"), bed.has("dns-udp")),
        (bed.has("dns-udp"), vec!["192.0.2.1".to_owned()])
    );
    bed.edit("dns-udp", |object| {
        object["spec"]["externalTrafficPolicy"] = "Local".into()
    });
    assert_eq!(
        bed.has("dns-tcp"),
        ["192.0.2.1"],
        "who did not change stays"
    );
    assert_eq!(bed.has("dns-udp"), ["192.0.2.2"]);
    bed.edit("dns-udp", |object| {
        object["spec"]["externalTrafficPolicy"] = "Cluster".into()
    });
    assert_eq!(
        bed.has("dns-udp"),
        ["192.0.2.2"],
        "and nobody moves without need"
    );
}
