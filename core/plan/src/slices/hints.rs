//! For whom an endpoint is meant (E16).
//!
//! A Service asks for short ways by `trafficDistribution` (KEP-4444, KEP-3015):
//! each ready endpoint then names its own zone, and its node where even that is
//! wanted. An endpoint that is not ready takes no traffic and names nobody.

use portolan_model::Family;
use portolan_model::workloads::{Hints, Service, Slice, SliceEndpoint};
use serde_json::{Value, json};

use crate::workloads::{About, Kind, Step, Tell};

/// The annotation for allocation in proportion to the zones' CPUs, and its
/// name in earlier versions.
const TOPOLOGY_MODE: [&str; 2] = [
    "service.kubernetes.io/topology-mode",
    "service.kubernetes.io/topology-aware-hints",
];

/// The hints of an endpoint.
pub(super) fn of(service: &Service, endpoint: &SliceEndpoint) -> Hints {
    // The annotation goes before the field.
    if by_cpu(service) || !endpoint.ready {
        return Hints::default();
    }
    let own = |name: &String| Some(name).filter(|n| !n.is_empty()).cloned();
    let zones = own(&endpoint.zone).into_iter().collect();
    match service.traffic_distribution.as_str() {
        "PreferClose" | "PreferSameZone" => Hints {
            zones,
            nodes: Vec::new(),
        },
        "PreferSameNode" => Hints {
            zones,
            nodes: own(&endpoint.node).into_iter().collect(),
        },
        _ => Hints::default(),
    }
}

/// Whether the annotation asks for allocation by CPU.
pub fn by_cpu(service: &Service) -> bool {
    let notes = &service.meta.annotations;
    TOPOLOGY_MODE
        .iter()
        .filter_map(|name| notes.get(*name))
        .any(|mode| mode == "Auto" || mode == "auto")
}

/// Says what became of the wish for allocation by CPU.
pub(super) fn tell(
    service: &Service,
    family: Family,
    verdict: Result<(), String>,
    existing: &[&Slice],
    step: &mut Step,
) {
    let had = existing
        .iter()
        .flat_map(|slice| &slice.endpoints)
        .any(|endpoint| endpoint.hints != Hints::default());
    let (warning, reason, message) = match verdict {
        Err(why) => (true, "TopologyAwareHintsDisabled", why),
        Ok(()) if !had => (
            false,
            "TopologyAwareHintsEnabled",
            "Topology Aware Hints has been enabled".to_owned(),
        ),
        Ok(()) => return,
    };
    step.tell.push(Tell {
        about: About::new(Kind::Service, &service.meta),
        warning,
        reason,
        message: format!("{message}, addressType: {family}"),
    });
}

/// Hints as the API writes them.
pub(super) fn json(hints: &Hints) -> Value {
    let mut body = json!({});
    for (field, names) in [("forZones", &hints.zones), ("forNodes", &hints.nodes)] {
        if !names.is_empty() {
            body[field] = names.iter().map(|name| json!({"name": name})).collect();
        }
    }
    body
}
