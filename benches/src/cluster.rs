//! Clusters of any size: as facts, and as API objects.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use portolan_api::lean;
use portolan_model::{Change, Cluster, Fact, Kind, intake};
use portolan_plan::NodeView;
use serde_json::{Value, json};

/// How many endpoints each Service has.
pub const ENDPOINTS: usize = 5;
/// The node whose agent is measured.
pub const NODE: &str = "node-1";

/// The cluster address of Service `number`: in 10.96.0.0/16, past what is reserved.
pub fn service_ip(number: usize) -> Ipv4Addr {
    let offset = u32::try_from(number + 0x200).unwrap_or(u32::MAX);
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 96, 0, 0)) + offset)
}

/// The address of endpoint `slot` of Service `number` in its generation `turn`.
pub fn endpoint_ip(number: usize, slot: usize, turn: usize) -> Ipv4Addr {
    let offset =
        u32::try_from((number * ENDPOINTS + slot) % 0x8_0000 + (turn % 2) * 0x8_0000).unwrap_or(0);
    Ipv4Addr::from(u32::from(Ipv4Addr::new(10, 240, 0, 0)) + offset)
}

/// Service `number` as an API object.
pub fn service(number: usize) -> Value {
    let ip = service_ip(number).to_string();
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": format!("svc-{number}"), "namespace": "default"},
        "spec": {
            "type": "ClusterIP", "clusterIP": ip, "clusterIPs": [ip], "ipFamilies": ["IPv4"],
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 8080}],
        },
    })
}

/// The EndpointSlice of Service `number`; another `turn` moves its first endpoint.
pub fn slice(number: usize, turn: usize) -> Value {
    let endpoints: Vec<Value> = (0..ENDPOINTS)
        .map(|slot| {
            let turn = if slot == 0 { turn } else { 0 };
            json!({
                "addresses": [endpoint_ip(number, slot, turn).to_string()],
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "nodeName": format!("node-{}", slot % 3 + 1),
                "targetRef": {"kind": "Pod", "namespace": "default", "name": format!("svc-{number}-{slot}-{turn}")},
            })
        })
        .collect();
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("svc-{number}-slice"), "namespace": "default",
            "labels": {"kubernetes.io/service-name": format!("svc-{number}")},
        },
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints,
    })
}

/// The node that is measured.
pub fn node() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": NODE},
        "spec": {"podCIDR": "10.240.1.0/24", "podCIDRs": ["10.240.1.0/24"]},
        "status": {"addresses": [{"type": "InternalIP", "address": "172.18.0.2"}]},
    })
}

fn fact_of_slice(object: Value) -> Option<Fact> {
    let lean: lean::EndpointSlice = serde_json::from_value(object).ok()?;
    intake::slice(&lean)
        .0
        .map(|slice| Fact::Slice(Arc::new(slice)))
}

/// The change that an event for the slice of Service `number` is.
pub fn endpoint_change(number: usize, turn: usize) -> Option<Change> {
    fact_of_slice(slice(number, turn)).map(Change::Upsert)
}

/// A cluster of so many Services, as facts.
pub fn facts(services: usize) -> Cluster {
    let mut cluster = Cluster::default();
    let read = |object: Value| serde_json::from_value::<lean::Service>(object).ok();
    let list = (0..services).filter_map(|n| read(service(n)));
    let facts = list
        .map(|lean| Fact::Service(Arc::new(intake::service(&lean).0)))
        .collect();
    cluster.apply(Change::Replace(Kind::Service, facts));
    let facts = (0..services)
        .filter_map(|n| fact_of_slice(slice(n, 0)))
        .collect();
    cluster.apply(Change::Replace(Kind::Slice, facts));
    let lean: Option<lean::Node> = serde_json::from_value(node()).ok();
    let facts = lean
        .map(|lean| Fact::Node(Arc::new(intake::node(&lean).0)))
        .into_iter()
        .collect();
    cluster.apply(Change::Replace(Kind::Node, facts));
    cluster
}

/// The measured node's view.
pub fn view(cluster: &Cluster) -> NodeView {
    NodeView {
        node: NODE.into(),
        cluster_pod_cidrs: ["10.240.0.0/12"]
            .iter()
            .filter_map(|r| r.parse().ok())
            .collect(),
        service_cidrs: ["10.96.0.0/16"]
            .iter()
            .filter_map(|r| r.parse().ok())
            .collect(),
        dns_addresses: vec![IpAddr::V4(Ipv4Addr::new(10, 96, 0, 10))],
        ..NodeView::default()
    }
    .observed(cluster)
}
