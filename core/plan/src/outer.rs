//! Load balancer and external addresses: which are served, and for whom.

use std::net::IpAddr;

use ipnet::IpNet;
use portolan_model::{Family, Service};

use crate::view::{NodeView, of_family};

/// The outer addresses of a Service. A family in which it has no cluster address
/// has no endpoints either, so its addresses are left alone.
pub(crate) fn addresses(service: &Service) -> impl Iterator<Item = IpAddr> {
    service.outer_ips().filter(|address| {
        let family = Family::of(*address);
        service
            .cluster_ips
            .iter()
            .any(|own| Family::of(*own) == family)
    })
}

/// Whether this node serves an outer address of a Service: external addresses
/// can be switched off (P19), since who may set them can take over any address.
pub(crate) fn is_served(view: &NodeView, service: &Service, address: IpAddr) -> bool {
    view.external_ips || is_load_balancer(service, address)
}

fn is_load_balancer(service: &Service, address: IpAddr) -> bool {
    service
        .outer
        .as_ref()
        .is_some_and(|outer| outer.load_balancer_ips.contains(&address))
}

/// Who may use a load balancer's address; none for everybody (P9). A node whose
/// own address may also uses the load balancer's addresses as source, if it has
/// them.
pub(crate) fn sources(view: &NodeView, service: &Service, address: IpAddr) -> Option<Vec<IpNet>> {
    let outer = service.outer.as_ref()?;
    let family = Family::of(address);
    let mut ranges: Vec<IpNet> = of_family(&outer.source_ranges, family).copied().collect();
    if ranges.is_empty() || !outer.load_balancer_ips.contains(&address) {
        return None;
    }
    let node_may = view
        .node_addresses
        .iter()
        .any(|own| ranges.iter().any(|range| range.contains(own)));
    if node_may {
        let own = outer.load_balancer_ips.iter();
        let own = own.filter(|address| Family::of(**address) == family);
        ranges.extend(own.map(|address| IpNet::from(*address)));
    }
    Some(IpNet::aggregate(&ranges))
}
