//! Addresses and pools that are asked for (L6).

use super::*;

fn ask(name: &str, annotation: &str, value: &str) -> Value {
    let mut object = service(name);
    object["metadata"]["annotations"] = json!({annotation: value});
    object
}

/// A pool for all, one for those that ask, and one for another namespace.
fn three_pools() -> Bed {
    let mut bed = bed(&["192.0.2.0/28"]);
    let mut kept = pool("kept", &["198.51.100.0/28"]);
    kept["spec"]["autoAssign"] = false.into();
    bed.pool(&kept);
    let mut team = pool("team", &["203.0.113.0/28"]);
    team["spec"]["namespaces"] = json!(["team"]);
    bed.pool(&team);
    bed.put(ask("holder", IPS, "192.0.2.5"));
    assert_eq!(bed.has("holder"), ["192.0.2.5"]);
    bed
}

const IPS: &str = "metallb.io/loadBalancerIPs";
const POOL: &str = "metallb.io/address-pool";

#[test]
fn l6_requests_are_met() {
    let mut bed = three_pools();
    let mut field = service("field");
    field["spec"]["loadBalancerIP"] = "198.51.100.3".into();
    bed.put(field);
    assert_eq!(
        bed.has("field"),
        ["198.51.100.3"],
        "autoAssign does not matter"
    );
    for (annotation, value, has) in [
        (POOL, "kept", "198.51.100.0"),
        ("portolan.dev/address-pool", "kept", "198.51.100.1"),
        (
            "metallb.universe.tf/loadBalancerIPs",
            "192.0.2.6",
            "192.0.2.6",
        ),
        ("portolan.dev/load-balancer-ips", "192.0.2.7", "192.0.2.7"),
    ] {
        let name = format!("at-{}", has.replace('.', "-"));
        bed.told.clear();
        bed.put(ask(&name, annotation, value));
        assert_eq!(
            (bed.has(&name).concat(), bed.why(&name).as_str()),
            (has.to_owned(), "True Assigned ")
        );
        assert_eq!(bed.told, [format!("IPAllocated Assigned IP [\"{has}\"]")]);
    }
}

#[test]
fn l6_what_cannot_be_met_waits_with_a_reason() {
    let mut bed = three_pools();
    for (name, annotation, value, why) in [
        (
            "away",
            IPS,
            "192.0.2.77",
            "AddressNotInPool 192.0.2.77 is in no pool",
        ),
        (
            "taken",
            IPS,
            "192.0.2.5",
            "AddressTaken 192.0.2.5 is taken by default/holder",
        ),
        (
            "six",
            IPS,
            "2001:db8::1",
            "InvalidRequest 2001:db8::1 is asked for, but the Service has no IPv6",
        ),
        (
            "unknown",
            POOL,
            "nowhere",
            "NoPool there is no pool nowhere",
        ),
        (
            "closed",
            POOL,
            "team",
            "PoolNotAllowed pool team is not for namespace default",
        ),
        (
            "closed-ip",
            IPS,
            "203.0.113.3",
            "PoolNotAllowed pool team is not for namespace default",
        ),
        (
            "wrong",
            IPS,
            "home",
            "InvalidRequest metallb.io/loadBalancerIPs: \"home\" is no IP address",
        ),
    ] {
        bed.told.clear();
        bed.put(ask(name, annotation, value));
        assert_eq!(bed.has(name), NONE);
        assert_eq!(bed.why(name), format!("False {why}"));
        let (_, why) = why.split_once(' ').unwrap();
        let event = format!("AllocationFailed Failed to allocate IP for \"default/{name}\": {why}");
        assert_eq!(bed.told, [event]);
    }
    let mut both = ask("both", IPS, "192.0.2.7");
    both["metadata"]["annotations"][POOL] = "kept".into();
    bed.put(both);
    assert_eq!(
        bed.why("both"),
        "False AddressNotInPool 192.0.2.7 is not in pool kept"
    );
    // Nobody is told twice.
    bed.told.clear();
    bed.look(bed.services.keys().cloned().collect());
    assert_eq!(bed.told, NONE);
}

#[test]
fn l6_a_request_that_changes_moves_the_service_and_one_that_goes_does_not() {
    let mut bed = three_pools();
    bed.put(ask("next", IPS, "192.0.2.5"));
    bed.edit("holder", |object| {
        object["metadata"]["annotations"] = json!({IPS: "192.0.2.9"})
    });
    assert_eq!(bed.has("holder"), ["192.0.2.9"]);
    assert_eq!(bed.has("next"), ["192.0.2.5"], "who waited for it has it");
    bed.edit("holder", |object| {
        object["metadata"]["annotations"] = json!({})
    });
    assert_eq!(bed.has("holder"), ["192.0.2.9"]);
    // One that cannot be met is worse than none: the address goes.
    bed.edit("holder", |object| {
        object["metadata"]["annotations"] = json!({IPS: "192.0.2.5"})
    });
    assert_eq!(bed.has("holder"), NONE);
    let told = &bed.told[bed.told.len() - 2..];
    assert!(
        told[0].starts_with("ClearAssignment") && told[1].starts_with("AllocationFailed"),
        "{told:?}"
    );
}
