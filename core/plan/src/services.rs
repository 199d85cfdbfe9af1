//! What happens to packets at each address and port of a Service.
//!
//! Two per-key functions: [`claims`] says which frontends a Service asks for,
//! [`decide`] what happens at a frontend. Both read the cluster and nothing
//! else, so planning from scratch and planning again after a change cannot
//! differ.

use std::collections::BTreeSet;
use std::net::IpAddr;

use portolan_model::{
    Affinity, Cluster, Family, Protocol, Publication, Service, ServiceKey, ServicePort, Text,
    TrafficPolicy,
};

use crate::balance::balance;
use crate::frontend::{Decision, Forward, Frontend, Masquerade, Place, Verdict};
use crate::masquerade;
use crate::outer;
use crate::reason::{Policy, Reason};
use crate::usable::{Chosen, usable};
use crate::view::{DNS_PORT, NodeView};

/// Whose a cluster address is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    /// A Service of ours: its other ports are refused (P6).
    Ours(ServiceKey),
    /// A Service of another proxy: left alone (P16).
    OtherProxy(ServiceKey, Text),
}

/// The frontends that a Service asks for, sorted.
pub fn claims(service: &Service) -> Vec<Frontend> {
    let mut frontends = BTreeSet::new();
    if service.other_proxy.is_some() || !has_data_plane(service) {
        return Vec::new();
    }
    for port in &service.ports {
        for address in outer::addresses(service) {
            let place = Place::External(address);
            frontends.insert(Frontend {
                place,
                protocol: port.protocol,
                port: port.port,
            });
        }
        for address in &service.cluster_ips {
            let place = Place::ClusterIp(*address);
            frontends.insert(Frontend {
                place,
                protocol: port.protocol,
                port: port.port,
            });
            if let Some(number) = node_port(service, port) {
                let place = Place::NodePort(Family::of(*address));
                frontends.insert(Frontend {
                    place,
                    protocol: port.protocol,
                    port: number,
                });
            }
        }
    }
    frontends.into_iter().collect()
}

/// What happens at a frontend; none when nobody claims it. Where two Services
/// claim one frontend, which the API server forbids but which can be seen for
/// a moment while changes of both arrive, the first by name has it.
pub fn decide(cluster: &Cluster, view: &NodeView, frontend: Frontend) -> Option<Decision> {
    match frontend.place {
        Place::ClusterIp(address) => cluster
            .services_at(address)
            .find_map(|service| port_at(service, frontend).map(|port| (service, port)))
            .map(|(service, port)| at_cluster_ip(cluster, view, (service, port), address)),
        Place::External(address) => cluster
            .services_at_outer(address)
            .filter(|service| outer::is_served(view, service, address))
            .find_map(|service| port_at(service, frontend).map(|port| (service, port)))
            .map(|(service, port)| Decision {
                sources: outer::sources(view, service, address),
                ..from_everywhere(cluster, view, (service, port), Family::of(address))
            }),
        Place::NodePort(family) => cluster
            .services_at_node_port(frontend.port)
            .find_map(|service| port_at(service, frontend).map(|port| (service, port)))
            .map(|(service, port)| from_everywhere(cluster, view, (service, port), family)),
    }
}

/// Whose a cluster address is; none when no Service has it.
pub fn owner(cluster: &Cluster, address: IpAddr) -> Option<Owner> {
    let claimants = || {
        cluster
            .services_at(address)
            .filter(|service| has_data_plane(service))
    };
    let ours = claimants().find(|service| service.other_proxy.is_none());
    if let Some(service) = ours {
        return Some(Owner::Ours(service.key.clone()));
    }
    claimants().find_map(|service| {
        let proxy = service.other_proxy.clone()?;
        Some(Owner::OtherProxy(service.key.clone(), proxy))
    })
}

fn has_data_plane(service: &Service) -> bool {
    match service.publication {
        Publication::ClusterIp | Publication::NodePort | Publication::LoadBalancer => true,
        Publication::Headless | Publication::ExternalName(_) => false,
    }
}

/// The node port of a Service port, for the types that have one.
fn node_port(service: &Service, port: &ServicePort) -> Option<u16> {
    match service.publication {
        Publication::NodePort | Publication::LoadBalancer => port.node_port,
        Publication::ClusterIp | Publication::Headless | Publication::ExternalName(_) => None,
    }
}

/// The port by which a Service claims a frontend, if it does.
fn port_at(service: &Service, frontend: Frontend) -> Option<&ServicePort> {
    if service.other_proxy.is_some() || !has_data_plane(service) {
        return None;
    }
    let mut ports = service
        .ports
        .iter()
        .filter(|port| port.protocol == frontend.protocol);
    match frontend.place {
        Place::ClusterIp(address) => {
            ports.find(|port| port.port == frontend.port && service.cluster_ips.contains(&address))
        }
        Place::External(address) => ports.find(|port| {
            port.port == frontend.port && outer::addresses(service).any(|own| own == address)
        }),
        Place::NodePort(family) => ports.find(|port| {
            node_port(service, port) == Some(frontend.port)
                && service
                    .cluster_ips
                    .iter()
                    .any(|address| Family::of(*address) == family)
        }),
    }
}

fn at_cluster_ip(
    cluster: &Cluster,
    view: &NodeView,
    (service, port): (&Service, &ServicePort),
    address: IpAddr,
) -> Decision {
    let answered_here = view.dns_addresses.contains(&address)
        && port.port == DNS_PORT
        && matches!(port.protocol, Protocol::Tcp | Protocol::Udp);
    if answered_here {
        return Decision {
            service: service.key.clone(),
            port_name: port.name.clone(),
            verdict: Verdict::Here(Reason::AnsweredHere),
            outside: None,
            sources: None,
            excluded: Vec::new(),
        };
    }
    let family = Family::of(address);
    let endpoints = usable(cluster, view, service, port, family);
    let masquerade = masquerade::to_cluster_ip(view, family);
    let (verdict, excluded) = match service.internal_policy {
        TrafficPolicy::Cluster => forward(
            (view, service),
            endpoints.cluster,
            masquerade,
            Reason::NoEndpoints,
        ),
        TrafficPolicy::Local => {
            let elsewhere = exists_anywhere(&endpoints.cluster);
            local(
                (view, service),
                endpoints.local,
                masquerade,
                elsewhere.then_some(Policy::Internal),
            )
        }
    };
    Decision {
        service: service.key.clone(),
        port_name: port.name.clone(),
        verdict,
        outside: None,
        sources: None,
        excluded,
    }
}

/// At the places that clients outside are meant to use: `externalTrafficPolicy`
/// governs them (P4).
fn from_everywhere(
    cluster: &Cluster,
    view: &NodeView,
    (service, port): (&Service, &ServicePort),
    family: Family,
) -> Decision {
    let endpoints = usable(cluster, view, service, port, family);
    let elsewhere = exists_anywhere(&endpoints.cluster);
    let policy = service.external_policy;
    let (verdict, excluded) = forward(
        (view, service),
        endpoints.cluster,
        masquerade::to_external(policy),
        Reason::NoEndpoints,
    );
    let outside = match policy {
        // Without any endpoint everybody is refused alike (P5).
        TrafficPolicy::Local if elsewhere => {
            let keep = masquerade::from_outside_to_local();
            let (verdict, _) = local(
                (view, service),
                endpoints.local,
                keep,
                Some(Policy::External),
            );
            Some(verdict)
        }
        TrafficPolicy::Local => None,
        TrafficPolicy::Cluster => masquerade::from_outside_to_cluster(view, family)
            .and_then(|masquerade| masqueraded(&verdict, masquerade)),
    };
    Decision {
        service: service.key.clone(),
        port_name: port.name.clone(),
        verdict,
        outside,
        sources: None,
        excluded,
    }
}

/// The same endpoints, with another rule for sources.
fn masqueraded(verdict: &Verdict, masquerade: Masquerade) -> Option<Verdict> {
    let Verdict::Forward(forward) = verdict else {
        return None;
    };
    Some(Verdict::Forward(Forward {
        masquerade,
        ..forward.clone()
    }))
}

fn exists_anywhere(chosen: &Chosen) -> bool {
    !chosen.targets.is_empty()
}

type Excluded = Vec<(crate::frontend::Target, Reason)>;

/// To the chosen endpoints, or refused when there are none.
fn forward(
    (view, service): (&NodeView, &Service),
    chosen: Chosen,
    masquerade: Masquerade,
    none: Reason,
) -> (Verdict, Excluded) {
    let Chosen {
        targets,
        weights,
        selection,
        excluded,
    } = chosen;
    if targets.is_empty() {
        return (Verdict::Reject(none), excluded);
    }
    let asked = service.spread.as_ref().and_then(|spread| spread.algorithm);
    let algorithm = asked.unwrap_or(view.algorithm);
    (
        Verdict::Forward(Forward {
            balance: balance(algorithm, &targets, weights),
            targets,
            selection,
            masquerade,
            affinity: match service.affinity {
                Affinity::None => None,
                Affinity::ClientIp { seconds } => Some(seconds),
            },
        }),
        excluded,
    )
}

/// The same for a Local policy: when there are endpoints, but only on other
/// nodes, the packet is dropped, so that a load balancer in front of the nodes
/// tries another one (P5).
fn local(
    place: (&NodeView, &Service),
    chosen: Chosen,
    masquerade: Masquerade,
    elsewhere: Option<Policy>,
) -> (Verdict, Excluded) {
    match elsewhere {
        Some(policy) if chosen.targets.is_empty() => (
            Verdict::Drop(Reason::NoLocalEndpoints(policy)),
            chosen.excluded,
        ),
        Some(_) | None => forward(place, chosen, masquerade, Reason::NoEndpoints),
    }
}
