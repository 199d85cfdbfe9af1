//! The nodes' own addresses (L4, L12).

use super::*;

#[test]
fn l4_which_nodes_stand_in() {
    let mut bed = three_nodes();
    bed.put(service("web"));
    assert_eq!(bed.has("web"), ["172.18.0.1", "172.18.0.2", "172.18.0.3"]);
    let mut two = bed.nodes["n2"].clone();
    two["status"]["conditions"][0]["status"] = "Unknown".into();
    bed.node(two);
    let mut three = bed.nodes["n3"].clone();
    three["status"]["conditions"] = json!([
        {"type": "Ready", "status": "True"}, {"type": "NetworkUnavailable", "status": "True"},
    ]);
    bed.node(three);
    assert_eq!(bed.has("web"), ["172.18.0.1"]);
    let mut one = bed.nodes["n1"].clone();
    one["metadata"]["labels"] = json!({EXCLUDED: ""});
    bed.node(one);
    assert_eq!(bed.has("web"), NONE);
    assert_eq!(
        bed.why("web"),
        format!(
            "False NoEligibleNode 0 of 3 nodes eligible: n2: not ready; n3: network unavailable; n1: label {EXCLUDED}"
        )
    );
    // A single node serves whatever its label says: nobody else can.
    bed.nodes.remove("n2");
    bed.nodes.remove("n3");
    bed.look([key("web")].into());
    assert_eq!(bed.has("web"), ["172.18.0.1"]);
}

#[test]
fn l4_local_needs_a_ready_endpoint_on_the_node() {
    let mut bed = three_nodes();
    let mut object = service("web");
    object["spec"]["externalTrafficPolicy"] = "Local".into();
    bed.put(object);
    assert_eq!(
        bed.why("web"),
        "False NoEligibleNode 0 of 3 nodes eligible: n1, n2, n3: no ready endpoint, with externalTrafficPolicy Local"
    );
    bed.ready_on.insert(key("web"), ["n2".to_owned()].into());
    bed.look([key("web")].into());
    assert_eq!(bed.has("web"), ["172.18.0.2"]);
}

#[test]
fn l12_a_port_that_is_taken_on_every_node_keeps_the_second_service_waiting() {
    let mut bed = three_nodes();
    bed.put(service("web"));
    bed.put(service("second"));
    assert_eq!(bed.has("second"), NONE);
    let why = "port 80/TCP on n1, n2, n3 taken by default/web";
    assert_eq!(bed.why("second"), format!("False PortTaken {why}"));
    assert_eq!(
        bed.condition("second", "LoadBalancerPortsError"),
        format!("True PortTaken {why}")
    );
    assert_eq!(
        bed.told.last().unwrap(),
        &format!("AllocationFailed Failed to allocate IP for \"default/second\": {why}")
    );
    // Other protocols and ports are others.
    let mut udp = service("udp");
    udp["spec"]["ports"][0]["protocol"] = "UDP".into();
    bed.put(udp);
    assert_eq!(bed.has("udp").len(), 3);
    // The first one moves away: the second one is next.
    bed.edit("web", |object| {
        object["spec"]["ports"][0]["port"] = 8080.into()
    });
    assert_eq!((bed.has("web").len(), bed.has("second").len()), (3, 3));
    assert_eq!(bed.condition("second", "LoadBalancerPortsError"), "");
    assert_eq!(bed.why("second"), "True Assigned ");
}

#[test]
fn l12_a_port_that_is_taken_on_one_node_leaves_the_others() {
    let mut bed = three_nodes();
    let mut local = service("local");
    local["spec"]["externalTrafficPolicy"] = "Local".into();
    bed.ready_on.insert(key("local"), ["n2".to_owned()].into());
    bed.put(local);
    bed.put(service("web"));
    assert_eq!(bed.has("web"), ["172.18.0.1", "172.18.0.3"]);
    assert_eq!(
        bed.why("web"),
        "True PortTaken port 80/TCP on n2 taken by default/local"
    );
    let restarted = bed.services.clone();
    bed.restart(&[]);
    assert_eq!(bed.services, restarted, "the same after a restart");
}

#[test]
fn l12_external_addresses_come_before_internal_ones() {
    let mut bed = Bed::default();
    bed.node(node(
        "n1",
        &[("InternalIP", "172.18.0.2"), ("ExternalIP", "203.0.113.2")],
    ));
    bed.node(node(
        "n2",
        &[("InternalIP", "172.18.0.3"), ("InternalIP", "fd00:18::3")],
    ));
    bed.put(dual("web", "PreferDualStack"));
    assert_eq!(bed.has("web"), ["203.0.113.2", "fd00:18::3"]);
}

#[test]
fn l12_ports_of_the_kubelet_and_the_api_server_are_theirs() {
    let mut bed = Bed::default();
    bed.node(node("n1", &[("InternalIP", "172.18.0.2")]));
    bed.api_servers
        .insert(("172.18.0.2".parse().unwrap(), 6443));
    for (port, protocol, why) in [
        (
            10250,
            "TCP",
            "False PortTaken port 10250/TCP on n1 taken by the kubelet",
        ),
        (
            6443,
            "TCP",
            "False PortTaken port 6443/TCP on n1 taken by the API server",
        ),
        (6443, "UDP", "True Assigned "),
    ] {
        let name = format!("s{port}-{}", protocol.to_lowercase());
        let mut object = service(&name);
        object["spec"]["ports"] = json!([{"port": port, "protocol": protocol}]);
        bed.put(object);
        assert_eq!(bed.why(&name), why);
    }
}

#[test]
fn pools_come_and_go_and_services_move_between_them_and_the_nodes() {
    let mut bed = three_nodes();
    bed.put(service("a"));
    bed.put(service("b"));
    assert_eq!((bed.has("a").len(), bed.has("b").len()), (3, 0));
    bed.pool(&pool("lab", &["192.0.2.0/28"]));
    assert_eq!(
        (bed.has("a").concat(), bed.has("b").concat()),
        ("192.0.2.0".to_owned(), "192.0.2.1".to_owned())
    );
    bed.drop_pool("lab");
    assert_eq!((bed.has("a").len(), bed.has("b").len()), (3, 0));
}
