//! Objects of load balancers.

use anyhow::Result;
use http::Method;
use portolan_benches::api::Api;
use portolan_benches::cluster;
use portolan_model::Family;
use serde_json::{Value, json};

use crate::town::CLIENT;

/// The AS numbers of the nodes and of the router.
pub(crate) const NODES_AS: u32 = 64_512;
/// The AS number of the router.
pub(crate) const ROUTER_AS: u32 = 64_513;
/// A class that nobody serves.
pub(crate) const NOBODYS: &str = "example.com/nobody";

const GROUP: &str = "/apis/portolan.dev/v1alpha1";

/// Service `number`, of type LoadBalancer. Node ports would run out.
pub(crate) fn balanced(number: usize) -> Value {
    let mut service = cluster::service(Family::V4, number);
    service["spec"]["type"] = "LoadBalancer".into();
    service["spec"]["allocateLoadBalancerNodePorts"] = false.into();
    service
}

/// The same, of a class that nobody serves.
pub(crate) fn unserved(number: usize) -> Value {
    let mut service = balanced(number);
    service["spec"]["loadBalancerClass"] = NOBODYS.into();
    service
}

async fn create(api: &Api, plural: &str, kind: &str, name: &str, spec: Value) -> Result<()> {
    let object = json!({
        "apiVersion": "portolan.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name}, "spec": spec,
    });
    let path = format!("{GROUP}/{plural}");
    api.send(0, Method::POST, &path, &object).await
}

/// A pool with these ranges.
///
/// # Errors
/// If the server refuses it.
pub(crate) async fn pool(api: &Api, range: &str) -> Result<()> {
    let spec = json!({"addresses": [range]});
    create(api, "addresspools", "AddressPool", "all", spec).await
}

/// The client as a router of all nodes, who tell it of the pool. Agents that die leave
/// no routes behind: whole nodes die here.
///
/// # Errors
/// If the server refuses them.
pub(crate) async fn router(api: &Api, hold: u16, bfd: bool) -> Result<()> {
    let mut peer = json!({
        "localASN": NODES_AS, "peerASN": ROUTER_AS, "peerAddress": CLIENT.to_string(),
        "holdTimeSeconds": hold, "connectRetrySeconds": 1,
    });
    if bfd {
        peer["bfd"] = json!({
            "transmitIntervalMilliseconds": 100, "receiveIntervalMilliseconds": 100,
            "detectMultiplier": 3,
        });
    }
    create(api, "bgppeers", "BGPPeer", "router", peer).await?;
    let spec = json!({"pools": ["all"]});
    create(api, "bgpannouncements", "BGPAnnouncement", "all", spec).await
}

/// The pool is announced on all links, though none has a subnet for it.
///
/// # Errors
/// If the server refuses it.
pub(crate) async fn everywhere(api: &Api) -> Result<()> {
    let spec = json!({"pools": ["all"]});
    create(api, "l2announcements", "L2Announcement", "all", spec).await
}
