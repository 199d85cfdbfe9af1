//! A few endpoints of a headless Service with many: only their records change, and the
//! Service's own are copied.
//!
//! A Service's name has the addresses of all its endpoints, and SRV records that name
//! them all; to make these anew takes tens of milliseconds when they are thousands.
//! Comparing two lists of endpoints, and copying octets, takes one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use portolan_dns::{Data, Name, Record, Zones};
use portolan_model::{Protocol, ServiceKey};
use portolan_plan::{NamedEndpoint, NamedPort};

use super::{Layout, Pointer, ignore, repoint, weight};

/// Changes of more endpoints than these are made by making all records anew.
const MOST: usize = 64;

/// Under which name a port is offered: its own, or the Service's.
type Offered<'e> = Option<(&'e str, Protocol)>;

/// What one Service's endpoints were and are.
struct Change<'e> {
    service: Name,
    /// The labels of endpoints that came or went.
    labels: BTreeSet<&'e str>,
    new: &'e [NamedEndpoint],
}

/// The records that some labels stand for.
#[derive(Default)]
struct Share<'e> {
    addresses: BTreeSet<IpAddr>,
    pointers: BTreeSet<Pointer>,
    /// Addresses by the endpoint's own name.
    own: BTreeMap<Name, BTreeSet<IpAddr>>,
    offers: BTreeMap<Offered<'e>, BTreeSet<(u16, Name)>>,
    /// How many offers there are, equal ones included.
    counts: BTreeMap<Offered<'e>, usize>,
}

/// Brings the records of a headless Service from one list of endpoints to another, both
/// in order. Says whether it could: otherwise nothing has changed, and all records must
/// be made anew.
pub(super) fn amend(
    layout: &Layout,
    zones: &mut Zones,
    key: &ServiceKey,
    (old, new): (&[NamedEndpoint], &[NamedEndpoint]),
) -> bool {
    let Some(change) = Change::between(layout, key, (old, new)) else {
        return false;
    };
    let (Some(before), Some(after)) = (change.share(old), change.share(new)) else {
        return false;
    };
    let Some(weights) = change.weights(&before, &after) else {
        return false;
    };
    change.amend_service(zones, (&before, &after), &weights);
    for name in before.own.keys().chain(after.own.keys()) {
        let addresses = after.own.get(name).into_iter().flatten();
        let records: Vec<Record> = addresses.map(|address| Record::from(*address)).collect();
        if let Some(zone) = zones.zone_of_mut(name) {
            ignore(if records.is_empty() {
                zone.remove(name)
            } else {
                zone.set(name, &records)
            });
        }
    }
    repoint(layout, zones, &before.pointers, &after.pointers);
    true
}

impl<'e> Change<'e> {
    /// What changed, if that is little.
    fn between(
        layout: &Layout,
        key: &ServiceKey,
        (old, new): (&'e [NamedEndpoint], &'e [NamedEndpoint]),
    ) -> Option<Self> {
        let service = layout.namespace(&key.namespace).ok()?;
        let service = service.child(key.name.as_bytes()).ok()?;
        // Without any the name goes.
        if old.is_empty() || new.is_empty() {
            return None;
        }
        // Names do not tell letters apart that differ in case; labels do.
        let mixed = |one: &NamedEndpoint| one.label.bytes().any(|byte| byte.is_ascii_uppercase());
        if old.iter().chain(new).any(mixed) {
            return None;
        }
        let mut labels = BTreeSet::new();
        let (mut gone, mut came) = (old.iter().peekable(), new.iter().peekable());
        while let Some(order) = match (gone.peek(), came.peek()) {
            (Some(one), Some(other)) => Some(one.cmp(other)),
            (Some(_), None) => Some(std::cmp::Ordering::Less),
            (None, Some(_)) => Some(std::cmp::Ordering::Greater),
            (None, None) => None,
        } {
            if order.is_le() {
                labels.extend(gone.next().filter(|_| order.is_lt()).map(|one| &*one.label));
            }
            if order.is_ge() {
                labels.extend(came.next().filter(|_| order.is_gt()).map(|one| &*one.label));
            }
            if labels.len() > MOST {
                return None;
            }
        }
        Some(Self {
            service,
            labels,
            new,
        })
    }

    /// What the changed labels stand for in one of the lists; none if one of them cannot
    /// be a name.
    fn share(&self, all: &'e [NamedEndpoint]) -> Option<Share<'e>> {
        let mut share = Share::default();
        for label in &self.labels {
            let from = all.partition_point(|one| &*one.label < *label);
            let name = self.service.child(label.as_bytes()).ok()?;
            let of_label = all.get(from..).unwrap_or_default().iter();
            for one in of_label.take_while(|one| &*one.label == *label) {
                share.addresses.insert(one.address);
                share.pointers.insert((one.address, name.clone()));
                let own = share.own.entry(name.clone()).or_default();
                own.insert(one.address);
                for port in one.ports.iter() {
                    for offered in offered(port) {
                        *share.counts.entry(offered).or_default() += 1;
                        let offers = share.offers.entry(offered).or_default();
                        offers.insert((port.port, name.clone()));
                    }
                }
            }
        }
        Some(share)
    }

    /// The weights of all offers, if the change does not alter any.
    fn weights(&self, before: &Share<'e>, after: &Share<'e>) -> Option<BTreeMap<Offered<'e>, u16>> {
        let mut all = counts(self.new);
        let touched: BTreeSet<&Offered<'e>> =
            before.counts.keys().chain(after.counts.keys()).collect();
        let mut weights = BTreeMap::new();
        for offered in touched {
            let of = |share: &Share<'e>| share.counts.get(offered).copied().unwrap_or_default();
            let now = all.remove(offered).unwrap_or_default();
            let was = (now + of(before)).checked_sub(of(after))?;
            // With the first or the last one a name comes or goes, and others with it.
            if was == 0 || now == 0 || weight(was) != weight(now) {
                return None;
            }
            weights.insert(*offered, weight(now));
        }
        Some(weights)
    }

    /// The records of the Service's own name, and of those of its ports.
    fn amend_service(
        &self,
        zones: &mut Zones,
        (before, after): (&Share<'e>, &Share<'e>),
        weights: &BTreeMap<Offered<'e>, u16>,
    ) {
        let mut gone = before.addresses.clone();
        for one in self.new {
            if gone.is_empty() {
                break;
            }
            gone.remove(&one.address);
        }
        for (offered, weight) in weights.iter().chain([(&None, &0)]) {
            let bare = offered.is_none();
            if bare && *weight == 0 && weights.contains_key(&None) {
                continue;
            }
            let Some(owner) = self.owner(*offered) else {
                continue;
            };
            let records = |share: &Share<'e>, addresses: &BTreeSet<IpAddr>| {
                let offers = share.offers.get(offered).into_iter().flatten();
                let srv = offers.map(|(port, target)| Record::from(srv(*weight, *port, target)));
                let addresses = addresses.iter().filter(|_| bare);
                srv.chain(addresses.map(|address| Record::from(*address)))
                    .collect::<Vec<_>>()
            };
            let (taken, given) = (records(before, &gone), records(after, &after.addresses));
            if let Some(zone) = zones.zone_of_mut(&owner) {
                ignore(zone.amend(&owner, &taken, &given));
            }
        }
    }

    fn owner(&self, offered: Offered<'e>) -> Option<Name> {
        let Some((name, protocol)) = offered else {
            return Some(self.service.clone());
        };
        let protocol = self.service.child(format!("_{protocol}")).ok()?;
        protocol.child(format!("_{name}")).ok()
    }
}

fn srv(weight: u16, port: u16, target: &Name) -> Data {
    Data::Srv {
        priority: 0,
        weight,
        port,
        target: target.clone(),
    }
}

/// The names under which a port is offered.
fn offered(port: &NamedPort) -> impl Iterator<Item = Offered<'_>> {
    let own = (!port.name.is_empty()).then_some((&*port.name, port.protocol));
    [own.map(Some), Some(None)].into_iter().flatten()
}

/// How many offers there are of each kind.
fn counts(all: &[NamedEndpoint]) -> BTreeMap<Offered<'_>, usize> {
    // Endpoints of a slice share their ports.
    let mut by_ports: BTreeMap<*const NamedPort, (usize, &[NamedPort])> = BTreeMap::new();
    for one in all {
        let shared = by_ports.entry(Arc::as_ptr(&one.ports).cast());
        shared.or_insert((0, &one.ports)).0 += 1;
    }
    let mut counts = BTreeMap::new();
    for (count, ports) in by_ports.values() {
        for offered in ports.iter().flat_map(offered) {
            *counts.entry(offered).or_default() += count;
        }
    }
    counts
}
