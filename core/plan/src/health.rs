//! What a load balancer is told that asks this node for a Service (P14).

use std::collections::BTreeSet;
use std::net::IpAddr;

use portolan_model::{Cluster, Service, ServiceKey};

use crate::view::NodeView;

/// The answer of one health check port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// The port, on each of the node's addresses.
    pub port: u16,
    /// The Service that it is for.
    pub service: ServiceKey,
    /// How many endpoints on this node are ready and not on their way out.
    pub local_endpoints: usize,
}

/// What a Service's health check port answers, if it has one.
pub fn health(cluster: &Cluster, view: &NodeView, service: &Service) -> Option<Health> {
    let port = service.outer.as_ref()?.health_check_port?;
    if service.other_proxy.is_some() {
        return None;
    }
    let slices = cluster.slices_of(&service.key);
    let endpoints = slices
        .filter(|slice| !slice.headless)
        .flat_map(|slice| &slice.endpoints);
    // A pod of two families is one endpoint in each: it counts by the first.
    let here = endpoints.filter(|endpoint| {
        let conditions = endpoint.conditions;
        endpoint.node.as_deref() == Some(&*view.node) && conditions.ready && !conditions.terminating
    });
    let addresses: BTreeSet<IpAddr> = here.map(|endpoint| endpoint.address).collect();
    let count = |v6: bool| {
        let family = addresses.iter().filter(|address| address.is_ipv6() == v6);
        family.count()
    };
    Some(Health {
        port,
        service: service.key.clone(),
        local_endpoints: count(false).max(count(true)),
    })
}
