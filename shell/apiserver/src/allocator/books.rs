//! What is in use, kept up with the store.
//!
//! The store is the truth. The books follow its events: before each look they
//! read on from where they stand, so whatever has been acknowledged is in
//! them, and what nobody told them (an IPAddress that a user made, one that
//! was deleted by hand) is, too. On top come the numbers that requests hold
//! until the store has their objects.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use portolan_plan::allocate::cidrs::{self, ServiceCidr};
use portolan_plan::allocate::{AddressRange, Used, number};

use super::holdings::{Holdings, address_of, service_cidr};
use crate::store::{Cache, Event, KindIndex, Next, Stored};

/// Where the store has what matters here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places {
    pub(crate) services: KindIndex,
    pub(crate) addresses: KindIndex,
    pub(crate) cidrs: KindIndex,
}

/// How far the books have read.
#[derive(Debug, Default, Clone, Copy)]
struct Position {
    services: u64,
    addresses: u64,
    cidrs: u64,
}

/// Numbers in use, and the ranges that give them.
#[derive(Debug, Default)]
pub(super) struct Books {
    four: Used,
    six: Used,
    pub(super) ports: Used,
    /// Addresses of requests on their way to the store.
    pending: BTreeMap<IpAddr, u32>,
    pending_ports: BTreeMap<u16, u32>,
    pub(super) cidrs: BTreeMap<String, ServiceCidr>,
    pub(super) ranges: Vec<AddressRange>,
    /// `None` until the first look.
    read: Option<Position>,
}

impl Books {
    /// Read on to the present.
    pub(super) fn follow(&mut self, cache: &Cache, places: Places) {
        let Some(mut position) = self.read else {
            self.begin(cache, places);
            return;
        };
        let read = read_on(cache, places.services, &mut position.services, |event| {
            self.services(event);
        }) && read_on(cache, places.addresses, &mut position.addresses, |event| {
            self.addresses(event);
        }) && {
            let before = position.cidrs;
            let mut changed = false;
            let read = read_on(cache, places.cidrs, &mut position.cidrs, |event| {
                changed = true;
                self.cidr(&event.name.name, event.current.as_ref());
            });
            if changed && position.cidrs != before {
                self.set_ranges();
            }
            read
        };
        if read {
            self.read = Some(position);
        } else {
            // More has happened than the window holds.
            self.begin(cache, places);
        }
    }

    /// Read everything.
    fn begin(&mut self, cache: &Cache, places: Places) {
        *self = Self {
            pending: std::mem::take(&mut self.pending),
            pending_ports: std::mem::take(&mut self.pending_ports),
            ..Self::default()
        };
        for (address, holders) in self.pending.clone() {
            (0..holders).for_each(|_| self.used_mut(address).add(number(address)));
        }
        for (port, holders) in self.pending_ports.clone() {
            (0..holders).for_each(|_| self.ports.add(port.into()));
        }
        let services = cache.snapshot(places.services);
        for stored in services.objects.values() {
            self.gain(&Holdings::of(&stored.json));
        }
        let addresses = cache.snapshot(places.addresses);
        for address in addresses.objects.keys().filter_map(address_of) {
            self.used_mut(address).add(number(address));
        }
        let cidrs = cache.snapshot(places.cidrs);
        for (name, stored) in &cidrs.objects {
            self.cidr(&name.name, Some(stored));
        }
        self.set_ranges();
        self.read = Some(Position {
            services: services.revision,
            addresses: addresses.revision,
            cidrs: cidrs.revision,
        });
    }

    fn services(&mut self, event: &Event) {
        if let Some(current) = &event.current {
            self.gain(&Holdings::of(&current.json));
        }
        if let Some(previous) = &event.previous {
            self.lose(&Holdings::of(&previous.json));
        }
    }

    fn addresses(&mut self, event: &Event) {
        let Some(address) = address_of(&event.name) else {
            return;
        };
        match (&event.previous, &event.current) {
            (None, Some(_)) => self.used_mut(address).add(number(address)),
            (Some(_), None) => self.used_mut(address).remove(number(address)),
            (Some(_), Some(_)) | (None, None) => {}
        }
    }

    fn cidr(&mut self, name: &str, current: Option<&Arc<Stored>>) {
        match current {
            Some(stored) => {
                let cidr = service_cidr(name, stored);
                self.cidrs.insert(name.to_owned(), cidr);
            }
            None => {
                self.cidrs.remove(name);
            }
        }
    }

    fn set_ranges(&mut self) {
        let all: Vec<ServiceCidr> = self.cidrs.values().cloned().collect();
        self.ranges = cidrs::giving(&all);
    }

    fn gain(&mut self, holdings: &Holdings) {
        for address in &holdings.addresses {
            self.used_mut(*address).add(number(*address));
        }
        for port in &holdings.ports {
            self.ports.add((*port).into());
        }
    }

    fn lose(&mut self, holdings: &Holdings) {
        for address in &holdings.addresses {
            self.used_mut(*address).remove(number(*address));
        }
        for port in &holdings.ports {
            self.ports.remove((*port).into());
        }
    }

    /// Hold an address until [`Books::let_go`].
    pub(super) fn hold(&mut self, address: IpAddr) {
        self.used_mut(address).add(number(address));
        *self.pending.entry(address).or_default() += 1;
    }

    pub(super) fn let_go(&mut self, address: IpAddr) {
        if less(&mut self.pending, &address) {
            self.used_mut(address).remove(number(address));
        }
    }

    /// Hold a port until [`Books::let_go_port`].
    pub(super) fn hold_port(&mut self, port: u16) {
        self.ports.add(port.into());
        *self.pending_ports.entry(port).or_default() += 1;
    }

    pub(super) fn let_go_port(&mut self, port: u16) {
        if less(&mut self.pending_ports, &port) {
            self.ports.remove(port.into());
        }
    }

    /// Addresses that requests hold at this moment.
    pub(super) fn pending(&self) -> impl Iterator<Item = IpAddr> {
        self.pending.keys().copied()
    }

    pub(super) fn used(&self, address: IpAddr) -> &Used {
        match address {
            IpAddr::V4(_) => &self.four,
            IpAddr::V6(_) => &self.six,
        }
    }

    fn used_mut(&mut self, address: IpAddr) -> &mut Used {
        match address {
            IpAddr::V4(_) => &mut self.four,
            IpAddr::V6(_) => &mut self.six,
        }
    }
}

fn less<K: Ord>(pending: &mut BTreeMap<K, u32>, key: &K) -> bool {
    let Some(holders) = pending.get_mut(key) else {
        return false;
    };
    *holders -= 1;
    if *holders == 0 {
        pending.remove(key);
    }
    true
}

/// Feed all events after `position`; `false` if some are no longer known.
fn read_on(
    cache: &Cache,
    kind: KindIndex,
    position: &mut u64,
    mut feed: impl FnMut(&Event),
) -> bool {
    loop {
        match cache.after(kind, *position) {
            Next::Expired { .. } => return false,
            Next::Events { events, revision } => {
                *position = revision;
                if events.is_empty() {
                    return true;
                }
                events.iter().for_each(|event| feed(event));
            }
        }
    }
}
