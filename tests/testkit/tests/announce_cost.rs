//! One load balancer more costs what it concerns, whatever the number of others: a test
//! of its own, since it counts the allocations of the process.

use std::alloc::System;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

use portolan_model::workloads::{
    BalancedService, BalancerNode, BgpAnnouncement, Object, Peer, Pool, Speaker,
};
use portolan_plan::announce::{Announcing, Facts, Ground, Touched};
use portolan_plan::load_balancer::{Around, LoadBalancer, Places};
use serde_json::{Value, json};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const FEW: usize = 100;
const MANY: usize = 5_000;

fn object<T: Object>(name: &str, spec: Value) -> T {
    T::read(&json!({
        "metadata": {"name": name, "annotations": {
            "portolan.dev/links": r#"[{"name": "eth0", "addresses": ["192.0.2.1/24"]}]"#,
        }},
        "spec": spec,
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    }))
}

fn pool() -> Pool {
    object("all", json!({"addresses": ["10.64.0.0/16"]}))
}

fn address(number: usize) -> IpAddr {
    let offset = u32::try_from(number).expect("few Services");
    Ipv4Addr::from_bits(Ipv4Addr::new(10, 64, 0, 0).to_bits() + offset).into()
}

fn service(number: usize, ingress: Option<IpAddr>) -> BalancedService {
    let ingress: Vec<Value> = ingress.iter().map(|ip| json!({"ip": ip})).collect();
    BalancedService::read(&json!({
        "metadata": {"name": format!("s{number}"), "namespace": "default"},
        "spec": {"type": "LoadBalancer", "ipFamilies": ["IPv4"], "ports": [{"port": 80}]},
        "status": {"loadBalancer": {"ingress": ingress}},
    }))
}

/// Allocations for a Service more, and its end.
fn cost_of_an_address(services: usize) -> usize {
    let mut balancer = LoadBalancer::default();
    balancer.set_pool(pool());
    let (labels, none, servers) = (BTreeMap::new(), BTreeSet::new(), BTreeSet::new());
    let around = Around {
        places: Places {
            nodes: &[],
            ready_on: &none,
            api_servers: &servers,
        },
        namespace: &labels,
        now: "2026-01-02T03:04:05Z".parse().expect("a time"),
    };
    for number in 0..services {
        balancer.converge(&service(number, None), &around);
    }
    let one_more = service(services, None);
    let region = Region::new(COUNTED);
    let turn = balancer.converge(&one_more, &around);
    assert_eq!(turn.step.writes.len(), 2, "a finalizer and a status");
    assert_eq!(
        balancer.held(&one_more.meta.key),
        [address(services)],
        "the first one that is free"
    );
    balancer.forget(&one_more.meta.key);
    region.change().allocations
}

/// What a node announces of so many Services, with prefixes of this length.
fn announcing(services: usize, length: u8) -> Announcing {
    let nodes: Vec<BalancerNode> = ["n1", "n2", "n3"].map(|n| object(n, json!({}))).into();
    let speakers = ["n1", "n2", "n3"].map(|n| object(n, json!({"holderIdentity": n})));
    let speakers: Vec<Speaker> = speakers.into();
    let (pool, peer): (Pool, Peer) = (
        pool(),
        object(
            "tor",
            json!({"localASN": 1, "peerASN": 2, "peerAddress": "192.0.2.254"}),
        ),
    );
    let bgp: BgpAnnouncement = object("all", json!({"aggregationLength": length}));
    let mut announcing = Announcing::new("n1");
    announcing.set_ground(Ground::of(&Facts {
        nodes: nodes.iter().collect(),
        speakers: speakers.iter().collect(),
        pools: vec![&pool],
        bgp: vec![&bgp],
        peers: vec![&peer],
        ..Facts::default()
    }));
    for number in 0..services {
        let service = service(number, Some(address(number)));
        announcing.converge(&service, &BTreeSet::new());
    }
    announcing
}

/// Allocations for a Service more, for what is told of it, and for its end.
fn cost_of_a_route(services: usize, length: u8) -> usize {
    let mut announcing = announcing(services, length);
    let one_more = service(services, Some(address(services)));
    let region = Region::new(COUNTED);
    let touched: Touched = announcing.converge(&one_more, &BTreeSet::new());
    assert_eq!(touched.routes.len(), 1);
    for route in &touched.routes {
        assert!(announcing.route(route).is_some(), "it is told");
    }
    announcing.forget(&one_more.meta.key);
    region.change().allocations
}

/// Bytes that are held for each Service.
fn bytes_for_each(services: usize, length: u8) -> usize {
    let region = Region::new(COUNTED);
    let announcing = announcing(services, length);
    let held = region.change();
    assert_eq!(announcing.addresses().count(), services);
    (held.bytes_allocated - held.bytes_deallocated) / services
}

#[test]
fn l7_l8_one_service_more_costs_what_it_concerns() {
    let aggregated = |services| cost_of_a_route(services, 16);
    let whole = |services| cost_of_a_route(services, 32);
    for (what, cost) in [
        ("an address", &cost_of_an_address as &dyn Fn(usize) -> usize),
        ("a route to it", &whole),
        ("a route to all", &aggregated),
    ] {
        // Trees grow deeper, no more.
        let (few, many) = (cost(FEW), cost(MANY));
        assert!(
            many < 2 * few,
            "{what}: {many} allocations with {MANY} Services, {few} with {FEW}"
        );
    }
    // Every agent holds this of the whole cluster.
    let held = bytes_for_each(MANY, 32);
    assert!(held < 1_500, "{held} bytes for each Service");
}
