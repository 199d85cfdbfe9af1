//! Nodes and endpoints, as far as load balancers' addresses depend on them.

use std::collections::BTreeSet;
use std::net::IpAddr;

use portolan_api::value::{at, int_at, list_at, str_at, strings_at};
use serde_json::Value;

use super::super::Meta;
use super::super::meta::object;

/// A node whose addresses Services may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BalancerNode {
    /// What every object has, without annotations.
    pub meta: Meta,
    /// Whether the condition Ready is True.
    pub ready: bool,
    /// Whether the condition NetworkUnavailable is True.
    pub network_unavailable: bool,
    /// Its addresses of type ExternalIP.
    pub external: Vec<IpAddr>,
    /// Its addresses of type InternalIP.
    pub internal: Vec<IpAddr>,
    /// Where its kubelet listens.
    pub kubelet_port: Option<u16>,
}

object!(BalancerNode, read_node);

fn read_node(object: &Value) -> BalancerNode {
    let addresses = |kind: &str| {
        list_at(object, "status.addresses")
            .iter()
            .filter(|one| str_at(one, "type") == kind)
            .filter_map(|one| str_at(one, "address").parse().ok())
            .collect()
    };
    let is_true = |kind: &str| {
        list_at(object, "status.conditions")
            .iter()
            .any(|one| str_at(one, "type") == kind && str_at(one, "status") == "True")
    };
    let mut meta = Meta::of(object);
    meta.annotations.clear();
    BalancerNode {
        meta,
        ready: is_true("Ready"),
        network_unavailable: is_true("NetworkUnavailable"),
        external: addresses("ExternalIP"),
        internal: addresses("InternalIP"),
        kubelet_port: int_at(object, "status.daemonEndpoints.kubeletEndpoint.Port")
            .and_then(|port| u16::try_from(port).ok())
            .filter(|port| *port > 0),
    }
}

/// The nodes of a slice's ready endpoints.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadyNodes {
    /// What every object has, without annotations.
    pub meta: Meta,
    /// The nodes.
    pub nodes: BTreeSet<String>,
    /// Where the API server listens, in the slice of default/kubernetes; nothing in
    /// others.
    pub api_servers: BTreeSet<(IpAddr, u16)>,
}

object!(ReadyNodes, read_slice);

/// The label that names a slice's Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

fn read_slice(object: &Value) -> ReadyNodes {
    let mut meta = Meta::of(object);
    meta.annotations.clear();
    // It moves on with every endpoint, also on nodes that are known already.
    meta.generation = 0;
    let mut ready = ReadyNodes::default();
    let is_api = meta.key.namespace == "default"
        && meta
            .labels
            .get(SERVICE_NAME)
            .is_some_and(|name| name == "kubernetes");
    let ports: Vec<u16> = list_at(object, "ports")
        .iter()
        .filter_map(|port| int_at(port, "port").and_then(|n| u16::try_from(n).ok()))
        .collect();
    for endpoint in list_at(object, "endpoints") {
        if !at(endpoint, "conditions.ready").as_bool().unwrap_or(true) {
            continue;
        }
        let node = str_at(endpoint, "nodeName");
        if !node.is_empty() {
            ready.nodes.insert(node.to_owned());
        }
        if is_api {
            for address in strings_at(endpoint, "addresses") {
                let parsed = address.parse::<IpAddr>().ok();
                let places = parsed.iter().flat_map(|ip| ports.iter().map(|p| (*ip, *p)));
                ready.api_servers.extend(places);
            }
        }
    }
    ReadyNodes { meta, ..ready }
}
