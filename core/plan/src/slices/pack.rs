//! Packing endpoints into slices, with as few changed slices as can be.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use portolan_model::workloads::{Slice, SliceEndpoint, SlicePort};

use super::MAX_ENDPOINTS;

/// What tells one endpoint from another while its conditions change.
pub(super) type Identity = (String, String);

/// The identity of an endpoint.
pub(super) fn identity(endpoint: &SliceEndpoint) -> Identity {
    let uid = endpoint.target.as_ref().map_or("", |target| &target.uid);
    (uid.to_owned(), endpoint.address.clone())
}

/// What to do with a slice.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change<'a> {
    /// Its content stays.
    Keep(&'a Slice),
    /// It gets new content.
    Update {
        slice: &'a Slice,
        ports: Vec<SlicePort>,
        endpoints: Vec<SliceEndpoint>,
    },
    /// There is to be one more.
    Create {
        ports: Vec<SlicePort>,
        endpoints: Vec<SliceEndpoint>,
    },
    /// It goes.
    Delete(&'a Slice),
}

/// Packs all groups of one address family.
pub(super) fn family<'a>(
    mut desired: BTreeMap<Vec<SlicePort>, BTreeMap<Identity, SliceEndpoint>>,
    existing: &[&'a Slice],
) -> Vec<Change<'a>> {
    let mut by_ports: BTreeMap<&[SlicePort], Vec<&'a Slice>> = BTreeMap::new();
    for slice in existing.iter().copied() {
        by_ports.entry(&slice.ports).or_default().push(slice);
    }
    let mut changes = Vec::new();
    for (ports, slices) in by_ports {
        let wanted = desired.remove(ports).unwrap_or_default();
        group(ports.to_vec(), wanted, slices, &mut changes);
    }
    for (ports, wanted) in desired {
        group(ports, wanted, Vec::new(), &mut changes);
    }
    reuse(&mut changes);
    keep_one(&mut changes);
    changes
}

/// Packs the endpoints of one group of ports.
fn group<'a>(
    ports: Vec<SlicePort>,
    mut wanted: BTreeMap<Identity, SliceEndpoint>,
    slices: Vec<&'a Slice>,
    changes: &mut Vec<Change<'a>>,
) {
    let mut kept: Vec<(&Slice, Vec<SliceEndpoint>)> = slices
        .into_iter()
        .map(|slice| {
            let stay = slice.endpoints.iter();
            (
                slice,
                stay.filter_map(|e| wanted.remove(&identity(e))).collect(),
            )
        })
        .collect();
    // Fullest first: the sparse ones may empty over time.
    kept.sort_by_key(|(slice, endpoints)| (Reverse(endpoints.len()), &slice.meta.key.name));
    let mut rest = wanted.into_values().collect::<Vec<_>>();
    rest.reverse();
    for (slice, endpoints) in &mut kept {
        if slice.endpoints != *endpoints && !endpoints.is_empty() {
            fill(endpoints, &mut rest);
        }
    }
    // One more slice is changed only if it takes all that is left.
    if !rest.is_empty()
        && let Some((_, endpoints)) = kept
            .iter_mut()
            .find(|(_, endpoints)| endpoints.len() + rest.len() <= MAX_ENDPOINTS)
    {
        fill(endpoints, &mut rest);
    }
    for (slice, endpoints) in kept {
        changes.push(if endpoints.is_empty() {
            Change::Delete(slice)
        } else if slice.endpoints == endpoints {
            Change::Keep(slice)
        } else {
            let ports = ports.clone();
            Change::Update {
                slice,
                ports,
                endpoints,
            }
        });
    }
    while !rest.is_empty() {
        let mut endpoints = Vec::new();
        fill(&mut endpoints, &mut rest);
        let ports = ports.clone();
        changes.push(Change::Create { ports, endpoints });
    }
}

/// Moves endpoints from the end of `rest` until the slice is full.
fn fill(endpoints: &mut Vec<SliceEndpoint>, rest: &mut Vec<SliceEndpoint>) {
    while endpoints.len() < MAX_ENDPOINTS
        && let Some(endpoint) = rest.pop()
    {
        endpoints.push(endpoint);
    }
}

/// A slice that would go takes the place of one that would come: one write
/// instead of two, and no moment without endpoints.
fn reuse(changes: &mut Vec<Change<'_>>) {
    let mut spare: Vec<&Slice> = Vec::new();
    changes.retain(|change| match change {
        Change::Delete(slice) => {
            spare.push(slice);
            false
        }
        Change::Keep(_) | Change::Update { .. } | Change::Create { .. } => true,
    });
    spare.reverse();
    for change in changes.iter_mut() {
        let Change::Create { ports, endpoints } = change else {
            continue;
        };
        let Some(slice) = spare.pop() else {
            break;
        };
        *change = Change::Update {
            slice,
            ports: std::mem::take(ports),
            endpoints: std::mem::take(endpoints),
        };
    }
    spare.reverse();
    changes.extend(spare.into_iter().map(Change::Delete));
}

/// A Service without endpoints has one empty slice per family (E12), so that
/// "no endpoints" is told from "not yet looked at".
fn keep_one(changes: &mut Vec<Change<'_>>) {
    if changes
        .iter()
        .any(|change| !matches!(change, Change::Delete(_)))
    {
        return;
    }
    let placeholder = match changes.first() {
        Some(Change::Delete(slice)) if slice.endpoints.is_empty() && slice.ports.is_empty() => {
            Change::Keep(slice)
        }
        Some(Change::Delete(slice)) => Change::Update {
            slice,
            ports: Vec::new(),
            endpoints: Vec::new(),
        },
        _ => Change::Create {
            ports: Vec::new(),
            endpoints: Vec::new(),
        },
    };
    match changes.first_mut() {
        Some(first) => *first = placeholder,
        None => changes.push(placeholder),
    }
}
