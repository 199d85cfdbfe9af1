//! ClusterIPs, NodePorts and health check ports of the Services.
//!
//! A request reserves what it needs before its object is validated and stored
//! (as Kubernetes does: an unnamed Service fails on its address first). The
//! [`Reservation`] goes to the store with the write and is let go when that is
//! done or refused, so a failure in any part rolls back all of it (A12), a dry
//! run never consumes anything (A9), and a client that hangs up changes
//! nothing.
//!
//! A Service and the IPAddress objects of its ClusterIPs are written in one
//! transaction (A5), so no crash comes between them.

mod addresses;
mod books;
mod companions;
mod holdings;
mod ports;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use portolan_api::kinds::service_update::{init_families, keep_allocated, normalize};
use portolan_api::value::{int_at, list_at, str_at, strings_at};
use portolan_api::{Cause, Status, kinds};
use portolan_plan::allocate::PortRange;
use portolan_plan::allocate::cidrs::{ServiceCidr, may_go};
use serde_json::Value;

use crate::answer::Failure;
use crate::store::{Cache, Store};
use books::Books;

pub(crate) use books::Places;
pub(crate) use companions::{LABEL_FAMILY, LABEL_MANAGED_BY, MANAGED_BY, ip_address};
pub(crate) use holdings::{Holdings, LeanAddress, address_of};

/// Names of the collections in the store.
const SERVICES: &str = "services";
const ADDRESSES: &str = "ipaddresses.networking.k8s.io";
const CIDRS: &str = "servicecidrs.networking.k8s.io";

/// Gives addresses and ports to Services.
#[derive(Debug)]
pub(crate) struct Allocator {
    /// The families that the cluster was configured with, the primary first (A4).
    families: Vec<Family>,
    ports: PortRange,
    cache: Arc<Cache>,
    places: Places,
    books: Mutex<Books>,
}

/// What a request has taken so far; let go when dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    allocator: Arc<Allocator>,
    dry_run: bool,
    addresses: Vec<IpAddr>,
    ports: Vec<u16>,
}

impl Allocator {
    /// `None` when the store has no place for the collections that this needs.
    pub(crate) fn new(
        cidrs: &[IpNet],
        node_ports: RangeInclusive<u16>,
        store: &Store,
    ) -> Option<Arc<Self>> {
        let mut families = Vec::new();
        for net in cidrs {
            let family = Family::of(net.addr());
            if !families.contains(&family) {
                families.push(family);
            }
        }
        Some(Arc::new(Self {
            families,
            ports: PortRange::new(node_ports),
            cache: store.shared_cache(),
            places: Places {
                services: store.collection(SERVICES)?,
                addresses: store.collection(ADDRESSES)?,
                cidrs: store.collection(CIDRS)?,
            },
            books: Mutex::default(),
        }))
    }

    /// The books as of now.
    fn books(&self) -> MutexGuard<'_, Books> {
        let mut books = self.books.lock().unwrap_or_else(PoisonError::into_inner);
        books.follow(&self.cache, self.places);
        books
    }

    /// Fill in what `service` lacks, reserving it. `old` is the stored Service
    /// of an update: what it has is kept (S30). To be called after the kind's
    /// defaults and before its prepare.
    pub(crate) fn assign(
        self: &Arc<Self>,
        service: &mut Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> Result<Reservation, Failure> {
        let mut reservation = Reservation {
            allocator: Arc::clone(self),
            dry_run,
            addresses: Vec::new(),
            ports: Vec::new(),
        };
        if let Some(old) = old {
            keep_allocated(service, old);
        }
        normalize(service, old);
        let families: Vec<&str> = self.families.iter().map(|family| family.text()).collect();
        init_families(service, old, &families).map_err(|causes| invalid(service, causes))?;
        reservation.take_addresses(service, old)?;
        reservation.take_ports(service, old)?;
        reservation.take_health_port(service, old)?;
        Ok(reservation)
    }

    /// Where the collections are.
    pub(crate) fn places(&self) -> Places {
        self.places
    }

    /// All ServiceCIDRs.
    pub(crate) fn cidrs(&self) -> Vec<ServiceCidr> {
        self.books().cidrs.values().cloned().collect()
    }

    /// Whether a ServiceCIDR that is being deleted may end: nothing that is
    /// stored or on its way there needs it (A6). From its deletion on it gives
    /// nothing, so what is true here stays true.
    pub(crate) fn may_end(&self, name: &str) -> bool {
        let books = self.books();
        let Some(cidr) = books.cidrs.get(name) else {
            return true;
        };
        let all: Vec<ServiceCidr> = books.cidrs.values().cloned().collect();
        let pending: Vec<IpAddr> = books.pending().collect();
        let cidr = cidr.clone();
        drop(books);
        let stored = self.cache.snapshot(self.places.addresses).objects;
        let managed = stored
            .iter()
            .filter(|(_, stored)| stored.label(LABEL_MANAGED_BY) == Some(MANAGED_BY))
            .filter_map(|(name, _)| address_of(name));
        may_go(&cidr, &all, pending.into_iter().chain(managed))
    }

    /// How many ports and addresses are in use, for the metrics page: by range.
    pub(crate) fn figures(&self) -> Figures {
        let books = self.books();
        let ranges = books.ranges.iter();
        Figures {
            ranges: ranges
                .map(|range| (range.net(), range.in_use(books.used(range.net().addr()))))
                .collect(),
            ports: books.ports.len(),
        }
    }
}

/// How much is in use.
#[derive(Debug)]
pub(crate) struct Figures {
    pub(crate) ranges: Vec<(IpNet, usize)>,
    pub(crate) ports: usize,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.dry_run || (self.addresses.is_empty() && self.ports.is_empty()) {
            return;
        }
        let books = &self.allocator.books;
        // As they are: whoever looks next reads on first, and then finds what
        // the store has in place of what is let go here.
        let mut books = books.lock().unwrap_or_else(PoisonError::into_inner);
        for address in self.addresses.drain(..) {
            books.let_go(address);
        }
        for port in self.ports.drain(..) {
            books.let_go_port(port);
        }
    }
}

/// An address family, by the name that Services use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Family {
    V4,
    V6,
}

impl Family {
    fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "IPv4" => Some(Self::V4),
            "IPv6" => Some(Self::V6),
            _ => None,
        }
    }

    fn text(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// The ClusterIPs of a Service; none for headless and ExternalName.
fn addresses_of(service: &Value) -> Vec<IpAddr> {
    let mut addresses: Vec<IpAddr> = strings_at(service, "spec.clusterIPs")
        .into_iter()
        .filter_map(|text| text.parse().ok())
        .collect();
    if let Ok(primary) = str_at(service, "spec.clusterIP").parse()
        && !addresses.contains(&primary)
    {
        addresses.push(primary);
    }
    addresses
}

/// The NodePorts and the health check port of a Service, each once.
fn ports_of(service: &Value) -> Vec<u16> {
    let node_ports = list_at(service, "spec.ports")
        .iter()
        .map(|port| int_at(port, "nodePort"));
    let mut ports = Vec::new();
    for port in node_ports.chain([int_at(service, "spec.healthCheckNodePort")]) {
        if let Some(port) = port.and_then(|port| u16::try_from(port).ok())
            && port != 0
            && !ports.contains(&port)
        {
            ports.push(port);
        }
    }
    ports
}

fn invalid(service: &Value, causes: Vec<Cause>) -> Failure {
    let name = portolan_api::meta::name(service);
    Box::new(Status::invalid(&kinds::service::KIND, name, &causes))
}

#[cfg(test)]
mod tests;
