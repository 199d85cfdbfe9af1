//! Whole agents on one bridge: which nodes and links may answer, and addresses that
//! follow endpoints.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use portolan_announce::l2::Mac;
use portolan_client::{ENDPOINT_SLICES, L2_ANNOUNCEMENTS, NODES, SERVICES, Target};
use portolan_kernel::sysctl;
use portolan_peers::asker::{Asker, ask_for_all};
use portolan_peers::bed::{Bed, NS, group_of, inside, name, say};
use portolan_peers::flow::{Flow, Try, Web};
use portolan_peers::segment::mac;
use portolan_peers::until;
use serde_json::{Value, json};

const ADDRESS: &str = "192.0.2.130";
const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

fn label(bed: &Bed, node: u8, key: &str, value: &Value) {
    let body = json!({"metadata": {"labels": {key: value}}});
    bed.patch(Target::one(&NODES, None, &name(node)), &body)
        .expect("a label");
}

/// Waits until this node alone answers.
fn alone(asker: &Asker, node: u8) {
    let since = asker.now();
    until(&format!("answers of n{node} alone"), || {
        (asker.alone(since) == Some(node)).then_some(())
    });
}

fn nobody(asker: &Asker) {
    let since = asker.now();
    until("nobody's answer", || asker.nobody(since).then_some(()));
}

#[test]
fn l4_excluded_nodes_do_not_answer_unless_alone() {
    if !inside("l4_excluded_nodes_do_not_answer_unless_alone") {
        return;
    }
    let address: IpAddr = ADDRESS.parse().unwrap();
    let bed = Bed::new("l4_excluded_nodes_do_not_answer_unless_alone", 2).unwrap();
    bed.service("web", &[address]).unwrap();
    let agents = bed.agents().unwrap();
    let asker = Asker::start(&bed.segment, address).unwrap();
    let first = bed.leader(address, &[]);
    alone(&asker, first);
    label(&bed, first, EXCLUDED, &json!(""));
    alone(&asker, bed.leader(address, &[first]));
    label(&bed, bed.leader(address, &[first]), EXCLUDED, &json!(""));
    nobody(&asker);
    label(&bed, first, EXCLUDED, &Value::Null);
    alone(&asker, first);
    drop((asker, agents, bed));

    let bed = Bed::new("l4_excluded_nodes_do_not_answer_unless_alone", 1).unwrap();
    bed.service("web", &[address]).unwrap();
    label(&bed, 1, EXCLUDED, &json!(""));
    let _agents = bed.agents().unwrap();
    let asker = Asker::start(&bed.segment, address).unwrap();
    alone(&asker, 1);
}

#[test]
fn l8_only_nodes_and_links_that_are_selected_answer() {
    if !inside("l8_only_nodes_and_links_that_are_selected_answer") {
        return;
    }
    let address: IpAddr = ADDRESS.parse().unwrap();
    let bed = Bed::new("l8_only_nodes_and_links_that_are_selected_answer", 2).unwrap();
    bed.service("web", &[address]).unwrap();
    let first = bed.leader(address, &[]);
    let other = bed.leader(address, &[first]);
    label(&bed, other, "place", &json!("rack"));
    let _agents = bed.agents().unwrap();
    let asker = Asker::start(&bed.segment, address).unwrap();
    alone(&asker, first);
    let announcement = |spec: Value| {
        json!({
            "apiVersion": "portolan.dev/v1alpha1", "kind": "L2Announcement",
            "metadata": {"name": "lan"}, "spec": spec,
        })
    };
    let spec = json!({
        "pools": ["home"], "interfaces": ["link"],
        "nodeSelector": {"matchLabels": {"place": "rack"}},
    });
    let created = bed.create(&L2_ANNOUNCEMENTS, None, &announcement(spec));
    created.unwrap();
    alone(&asker, other);
    let change = |spec: Value| {
        let target = Target::one(&L2_ANNOUNCEMENTS, None, "lan");
        bed.patch(target, &json!({"spec": spec})).unwrap();
    };
    change(json!({"interfaces": ["another"]}));
    nobody(&asker);
    change(json!({"interfaces": ["link"], "nodeSelector": null}));
    alone(&asker, first);
}

fn slice(endpoints: &Value) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "web", "labels": {"kubernetes.io/service-name": "web"}},
        "endpoints": endpoints,
        "ports": [{"port": 80, "protocol": "TCP"}],
    })
}

fn endpoint(node: u8, ending: bool) -> Value {
    json!({
        "addresses": [format!("10.244.{node}.1")], "nodeName": name(node),
        "conditions": {"ready": !ending, "serving": true, "terminating": ending},
    })
}

/// With `externalTrafficPolicy: Local`, the address goes to a node with a ready endpoint
/// while the last one, which ends, still serves: no connection is refused.
#[test]
fn l4_an_address_moves_before_its_last_endpoint_ends() {
    if !inside("l4_an_address_moves_before_its_last_endpoint_ends") {
        return;
    }
    let bed = Bed::new("l4_an_address_moves_before_its_last_endpoint_ends", 3).unwrap();
    let address: IpAddr = ADDRESS.parse().unwrap();
    bed.service("web", &[address]).unwrap();
    let local = json!({"spec": {"externalTrafficPolicy": "Local"}});
    bed.patch(Target::one(&SERVICES, NS, "web"), &local)
        .unwrap();
    // Not from the node that would lead if any could.
    let leads = bed.leader(address, &[]);
    let (from, to) = (bed.leader(address, &[leads]), leads);
    let ready = slice(&json!([endpoint(from, false)]));
    bed.create(&ENDPOINT_SLICES, NS, &ready).unwrap();
    let old = Web::start(&bed.segment, from, address).unwrap();
    let _new = Web::start(&bed.segment, to, address).unwrap();
    let _agents = bed.agents().unwrap();
    let asker = Asker::start(&bed.segment, address).unwrap();
    alone(&asker, from);
    // What it is asked, the client's kernel hears as well: it must learn by itself.
    drop(asker);
    let patience = Duration::from_secs(30);
    let flow = Flow::start(&bed.segment, address, patience).unwrap();
    until("connections to the first", || {
        (flow.served(Duration::ZERO, 50) == Some(from)).then_some(())
    });
    let endpoints = json!({"endpoints": [endpoint(from, true), endpoint(to, false)]});
    let target = Target::one(&ENDPOINT_SLICES, NS, "web");
    bed.patch(target, &endpoints).unwrap();
    until("the client's kernel to follow", || {
        let known = bed.segment.known(address).unwrap()?;
        (known == Mac(mac(to)).to_string()).then_some(())
    });
    // Those that were begun before have ended by then, as within a pod's grace.
    let since = flow.now();
    until("connections to the other", || {
        (flow.served(since, 50) == Some(to)).then_some(())
    });
    drop(old);
    let since = flow.now();
    until("connections to the other", || {
        (flow.served(since, 50) == Some(to)).then_some(())
    });
    // One connection may be under way whenever the client's kernel learns another node,
    // which knows nothing of it. None met a node that does not serve.
    let failures = flow.failures(Duration::ZERO);
    let refused = |one: &Try| {
        one.served
            .as_ref()
            .is_err_and(|why| why.contains("refused"))
    };
    assert!(failures.len() <= 3, "{failures:?}");
    assert!(!failures.iter().any(refused), "{failures:?}");
    let count = flow.tries(Duration::ZERO).len();
    let gap = flow.gap(Duration::ZERO);
    say(&format!(
        "{count} connections, {} cut by the move, {gap:?} between two at most",
        failures.len()
    ));
}

/// More groups than a socket takes (net.core.optmem_max): all are joined, and left.
#[test]
fn l8_a_thousand_ipv6_addresses_are_answered_for() {
    if !inside("l8_a_thousand_ipv6_addresses_are_answered_for") {
        return;
    }
    let bed = Bed::new("l8_a_thousand_ipv6_addresses_are_answered_for", 1).unwrap();
    let (ns, _) = bed.segment.place(1).unwrap();
    // Older kernels have one for the whole machine, and a smaller one.
    let lowered = sysctl::set(ns, "net.core.optmem_max", "4096").is_ok();
    say(&format!("net.core.optmem_max lowered: {lowered}"));
    let first: Ipv6Addr = "2001:db8::1:1000".parse().unwrap();
    let addresses = (0..1000).map(|n| IpAddr::from(Ipv6Addr::from_bits(first.to_bits() + n)));
    let addresses: Vec<IpAddr> = addresses.collect();
    for (n, some) in addresses.chunks(100).enumerate() {
        bed.service(&format!("web-{n}"), some).unwrap();
    }
    let mut agents = bed.agents().unwrap();
    let joined = || {
        let groups = bed.proc_net(1, "igmp6").unwrap();
        let groups: BTreeSet<&str> = groups.split_whitespace().collect();
        let wanted = addresses.iter().filter_map(|address| group_of(*address));
        wanted
            .filter(|group| groups.contains(group.as_str()))
            .count()
    };
    until("all groups", || (joined() == 1000).then_some(()));
    let mut unanswered: BTreeSet<IpAddr> = addresses.iter().copied().collect();
    until("all answers", || {
        ask_for_all(&bed.segment, &mut unanswered).unwrap();
        unanswered.is_empty().then_some(())
    });
    agents.remove(0).end().unwrap();
    bed.nothing_stays(1, addresses[999]);
    assert_eq!(joined(), 0);
}
