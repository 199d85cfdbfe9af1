//! Which endpoints a Service port may use on this node.
//!
//! Kubernetes answers this in four places (readiness, termination, traffic
//! policy, topology hints); this file is the only one that does so here.
//! Every endpoint that is left out carries its [`Reason`].

use std::collections::BTreeSet;
use std::net::SocketAddr;

use portolan_model::{Cluster, Conditions, Endpoint, Family, Service, ServicePort, Slice};

use crate::frontend::{Selection, Target};
use crate::reason::Reason;
use crate::view::NodeView;

/// The endpoints of one port, split the way traffic policies need them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usable {
    /// What the Cluster policy uses (P1, P2).
    pub cluster: Chosen,
    /// What the Local policy uses (P3).
    pub local: Chosen,
}

/// Endpoints that were chosen, by what rule, and those that were not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    /// Sorted, without duplicates.
    pub targets: Vec<Target>,
    /// The weight of each; none where all have 1.
    pub weights: Vec<u16>,
    /// The rule that chose them.
    pub selection: Selection,
    /// The others.
    pub excluded: Vec<(Target, Reason)>,
}

/// One endpoint's view of one port.
#[derive(Debug, Clone, Copy)]
struct Candidate<'c> {
    target: Target,
    endpoint: &'c Endpoint,
    weight: u16,
}

/// Splits the endpoints of a port in one family.
pub fn usable(
    cluster: &Cluster,
    view: &NodeView,
    service: &Service,
    port: &ServicePort,
    family: Family,
) -> Usable {
    let candidates = candidates(cluster, view, service, port, family);
    Usable {
        cluster: choose_cluster(&candidates, view),
        local: choose_local(&candidates, view),
    }
}

/// Everybody who still serves a port in one family, wherever they are: policies
/// and hints choose among them for new connections, and leave open ones alone.
pub(crate) fn serving(
    cluster: &Cluster,
    view: &NodeView,
    service: &Service,
    port: &ServicePort,
    family: Family,
) -> BTreeSet<SocketAddr> {
    candidates(cluster, view, service, port, family)
        .iter()
        .filter(|candidate| {
            let Conditions { ready, serving, .. } = candidate.endpoint.conditions;
            (ready || serving) && !view.is_service_address(candidate.target.address)
        })
        .map(|candidate| SocketAddr::new(candidate.target.address, candidate.target.port))
        .collect()
}

/// All endpoints of a port, each address and port once. While an endpoint
/// moves between slices it can be in two of them: the better report counts.
fn candidates<'c>(
    cluster: &'c Cluster,
    view: &NodeView,
    service: &Service,
    port: &ServicePort,
    family: Family,
) -> Vec<Candidate<'c>> {
    let mut found = Vec::new();
    // Slices with the headless label are none of the data plane's business (P16).
    for slice in cluster
        .slices_of(&service.key)
        .filter(|slice| slice.family == family && !slice.headless)
    {
        let mut numbers = slice
            .ports
            .iter()
            .filter(|candidate| candidate.name == port.name && candidate.protocol == port.protocol)
            .filter_map(|candidate| candidate.port);
        let Some(number) = numbers.next() else {
            continue;
        };
        found.extend(slice.endpoints.iter().map(|endpoint| Candidate {
            target: Target {
                address: endpoint.address,
                port: number,
                local: endpoint.node.as_deref() == Some(&*view.node),
            },
            endpoint,
            weight: weight(service, slice, endpoint),
        }));
    }
    found.sort_by_key(|candidate| {
        let Target {
            address,
            port,
            local,
        } = candidate.target;
        (address, port, rank(candidate.endpoint.conditions), !local)
    });
    found.dedup_by_key(|candidate| (candidate.target.address, candidate.target.port));
    found
}

/// What a Service says of its pods by name counts more than what a slice says of
/// all its endpoints.
fn weight(service: &Service, slice: &Slice, endpoint: &Endpoint) -> u16 {
    let named = service.spread.as_ref().zip(endpoint.pod.as_deref());
    let named = named.and_then(|(spread, pod)| spread.weight(pod));
    named.unwrap_or(slice.weight)
}

fn rank(conditions: Conditions) -> u8 {
    match conditions {
        Conditions { ready: true, .. } => 0,
        Conditions {
            serving: true,
            terminating: true,
            ..
        } => 1,
        Conditions { serving: true, .. } => 2,
        Conditions { .. } => 3,
    }
}

fn choose_cluster(candidates: &[Candidate<'_>], view: &NodeView) -> Chosen {
    let any_ready = candidates.iter().any(|candidate| is_ready(candidate, view));
    let selection = if any_ready {
        by_topology(candidates, view)
    } else {
        Selection::ServingTerminating
    };
    split(candidates, selection, view)
}

fn choose_local(candidates: &[Candidate<'_>], view: &NodeView) -> Chosen {
    let ready_here = candidates
        .iter()
        .any(|candidate| candidate.target.local && is_ready(candidate, view));
    let selection = if ready_here {
        Selection::LocalReady
    } else {
        Selection::LocalServingTerminating
    };
    split(candidates, selection, view)
}

fn split(candidates: &[Candidate<'_>], selection: Selection, view: &NodeView) -> Chosen {
    let mut chosen = Chosen {
        targets: Vec::new(),
        weights: Vec::new(),
        selection,
        excluded: Vec::new(),
    };
    for candidate in candidates {
        match exclude(candidate, selection, view) {
            None => {
                chosen.targets.push(candidate.target);
                chosen.weights.push(candidate.weight);
            }
            Some(reason) => chosen.excluded.push((candidate.target, reason)),
        }
    }
    if chosen.weights.iter().all(|weight| *weight == 1) {
        chosen.weights = Vec::new();
    }
    // Plans stay for long.
    chosen.targets.shrink_to_fit();
    chosen.excluded.shrink_to_fit();
    chosen
}

/// Why a selection leaves an endpoint out, if it does.
fn exclude(candidate: &Candidate<'_>, selection: Selection, view: &NodeView) -> Option<Reason> {
    let Candidate {
        target, endpoint, ..
    } = candidate;
    // Translation happens once: a packet sent to another cluster address would be lost.
    if view.is_service_address(target.address) {
        return Some(Reason::EndpointIsServiceAddress);
    }
    let conditions = endpoint.conditions;
    let unready = if conditions.is_serving_terminating() {
        Reason::Terminating
    } else {
        Reason::NotReady
    };
    match selection {
        Selection::Ready | Selection::SameNode | Selection::SameZone if !conditions.ready => {
            Some(unready)
        }
        Selection::Ready => None,
        Selection::SameNode => (!hints_node(endpoint, view)).then_some(Reason::HintedElsewhere),
        Selection::SameZone => (!hints_zone(endpoint, view)).then_some(Reason::HintedElsewhere),
        Selection::ServingTerminating => {
            (!conditions.is_serving_terminating()).then_some(Reason::NotReady)
        }
        Selection::LocalReady | Selection::LocalServingTerminating if !target.local => {
            Some(Reason::NotOnThisNode)
        }
        Selection::LocalReady => (!conditions.ready).then_some(unready),
        Selection::LocalServingTerminating => {
            (!conditions.is_serving_terminating()).then_some(Reason::NotReady)
        }
    }
}

/// Whether hints narrow the choice (P2).
/// They count only when every ready endpoint has them and some name us: then
/// the controller has thought of this node, and nobody is left without one.
fn by_topology(candidates: &[Candidate<'_>], view: &NodeView) -> Selection {
    let ready = || {
        candidates
            .iter()
            .filter(|candidate| is_ready(candidate, view))
            .map(|candidate| candidate.endpoint)
    };
    let all_nodes = ready().all(|endpoint| {
        endpoint
            .hints
            .as_ref()
            .is_some_and(|hints| !hints.nodes.is_empty())
    });
    let all_zones = ready().all(|endpoint| {
        endpoint
            .hints
            .as_ref()
            .is_some_and(|hints| !hints.zones.is_empty())
    });
    if all_nodes && ready().any(|endpoint| hints_node(endpoint, view)) {
        Selection::SameNode
    } else if all_zones && ready().any(|endpoint| hints_zone(endpoint, view)) {
        Selection::SameZone
    } else {
        Selection::Ready
    }
}

fn is_ready(candidate: &Candidate<'_>, view: &NodeView) -> bool {
    candidate.endpoint.conditions.ready && !view.is_service_address(candidate.target.address)
}

fn hints_node(endpoint: &Endpoint, view: &NodeView) -> bool {
    endpoint
        .hints
        .as_ref()
        .is_some_and(|hints| hints.nodes.contains(&view.node))
}

fn hints_zone(endpoint: &Endpoint, view: &NodeView) -> bool {
    let Some(zone) = &view.zone else { return false };
    endpoint
        .hints
        .as_ref()
        .is_some_and(|hints| hints.zones.contains(zone))
}
