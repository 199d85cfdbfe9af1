//! Which names exist in the cluster's domain, and what they stand for.
//!
//! The data plane's readiness rules do not apply here: an endpoint without
//! the ready condition has no name, one that is ready has one even while it
//! terminates (D8, D11), and a Service with a cluster address is known by name
//! whether it has endpoints or not (D3).

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use portolan_model::{Cluster, Protocol, Publication, ServiceKey, Text};

/// What the name of one Service stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Names {
    /// Its cluster addresses (D3).
    Addresses {
        /// At most one per family.
        addresses: Vec<IpAddr>,
        /// The Service's ports, for SRV (D7).
        ports: Vec<NamedPort>,
    },
    /// Its ready endpoints, each with a name of its own (D8–D10). Without any,
    /// the name does not exist.
    Endpoints {
        /// All of them.
        all: Vec<NamedEndpoint>,
        /// Those of each zone, as far as zones are known, by their places among all.
        /// Zones have names where [`NodeView::zonal_names`](crate::NodeView) says so.
        by_zone: BTreeMap<Text, Vec<u32>>,
    },
    /// Another name (D13).
    Alias(Text),
}

/// A port that SRV records can speak of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedPort {
    /// The port's name; empty when it has none.
    pub name: Text,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// The number behind the name.
    pub port: u16,
}

/// An endpoint of a headless Service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedEndpoint {
    /// Its label below the Service's name: its hostname, or else its address
    /// with dashes. Several endpoints may share one (D10).
    pub label: Text,
    /// Its address.
    pub address: IpAddr,
    /// The ports of its slice, shared with its neighbours.
    pub ports: Arc<[NamedPort]>,
}

/// What a Service's name stands for; none when there is no such Service.
pub fn names(cluster: &Cluster, key: &ServiceKey) -> Option<Names> {
    let service = cluster.service(key)?;
    Some(match &service.publication {
        Publication::ExternalName(target) => Names::Alias(target.clone()),
        Publication::Headless => endpoints(cluster, key),
        Publication::ClusterIp | Publication::NodePort | Publication::LoadBalancer => {
            Names::Addresses {
                addresses: service.cluster_ips.clone(),
                ports: service
                    .ports
                    .iter()
                    .map(|port| NamedPort {
                        name: port.name.clone(),
                        protocol: port.protocol,
                        port: port.port,
                    })
                    .collect(),
            }
        }
    })
}

fn endpoints(cluster: &Cluster, key: &ServiceKey) -> Names {
    // Each with the zones that its slices say it is in: mostly one.
    let mut found: BTreeMap<NamedEndpoint, BTreeSet<Text>> = BTreeMap::new();
    for slice in cluster.slices_of(key) {
        let ports: Arc<[NamedPort]> = slice
            .ports
            .iter()
            .filter_map(|port| {
                Some(NamedPort {
                    name: port.name.clone(),
                    protocol: port.protocol,
                    port: port.port?,
                })
            })
            .collect();
        for endpoint in slice
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.conditions.ready)
        {
            let label = match &endpoint.hostname {
                Some(hostname) => hostname.clone(),
                None => dashed(endpoint.address).into(),
            };
            let named = NamedEndpoint {
                label,
                address: endpoint.address,
                ports: Arc::clone(&ports),
            };
            let zones = found.entry(named).or_default();
            zones.extend(slice.zone_of(endpoint).cloned());
        }
    }
    let mut by_zone: BTreeMap<Text, Vec<u32>> = BTreeMap::new();
    for (place, zones) in (0..).zip(found.values_mut()) {
        for zone in std::mem::take(zones) {
            by_zone.entry(zone).or_default().push(place);
        }
    }
    Names::Endpoints {
        all: found.into_keys().collect(),
        by_zone,
    }
}

/// An address as one label: dashes for dots and colons. A label may not end in
/// a dash, so such an IPv6 address gets its last zero back.
pub fn dashed(address: IpAddr) -> String {
    let mut label = address.to_string().replace(['.', ':'], "-");
    if label.ends_with('-') {
        label.push('0');
    }
    label
}
