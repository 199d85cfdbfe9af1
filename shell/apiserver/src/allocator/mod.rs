//! ClusterIPs, NodePorts and health check ports of the Services.
//!
//! A request reserves what it needs before its object is validated and stored
//! (as Kubernetes does: an unnamed Service fails on its address
//! first). The [`Reservation`] gives everything back unless the write is
//! committed, so a failure in any part rolls back all of it (A12), and a
//! dry run never consumes anything (A9).

mod addresses;
mod ports;

use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::IpNet;
use portolan_api::kinds::service_update::{init_families, keep_allocated, normalize};
use portolan_api::value::{int_at, list_at, str_at, strings_at};
use portolan_api::{Cause, Status, kinds};
use portolan_plan::allocate::{Addresses, Ports};
use serde_json::Value;

use crate::answer::Failure;

/// The pools of the cluster.
#[derive(Debug)]
pub(crate) struct Allocator {
    pools: Mutex<Pools>,
}

#[derive(Debug)]
struct Pools {
    /// In the order of the flag: the first one's family is the primary.
    addresses: Vec<Addresses>,
    ports: Ports,
}

/// What a request has taken so far, and what its commit gives back.
#[derive(Debug)]
pub(crate) struct Reservation<'a> {
    allocator: &'a Allocator,
    dry_run: bool,
    addresses: Vec<IpAddr>,
    ports: Vec<u16>,
}

impl Allocator {
    pub(crate) fn new(cidrs: &[IpNet], node_ports: RangeInclusive<u16>) -> Self {
        Self {
            pools: Mutex::new(Pools {
                addresses: cidrs.iter().copied().map(Addresses::new).collect(),
                ports: Ports::new(node_ports),
            }),
        }
    }

    fn pools(&self) -> MutexGuard<'_, Pools> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fill in what `service` lacks, reserving it. `old` is the stored Service
    /// of an update: what it has is kept (S30). To be called after the kind's
    /// defaults and before its prepare.
    pub(crate) fn assign(
        &self,
        service: &mut Value,
        old: Option<&Value>,
        dry_run: bool,
    ) -> Result<Reservation<'_>, Failure> {
        let mut reservation = Reservation {
            allocator: self,
            dry_run,
            addresses: Vec::new(),
            ports: Vec::new(),
        };
        if let Some(old) = old {
            keep_allocated(service, old);
        }
        normalize(service, old);
        let families: Vec<&str> = self.families().into_iter().map(Family::text).collect();
        init_families(service, old, &families).map_err(|causes| invalid(service, causes))?;
        reservation.take_addresses(service, old)?;
        reservation.take_ports(service, old)?;
        reservation.take_health_port(service, old)?;
        Ok(reservation)
    }

    /// Give back everything of a Service that is gone (A8).
    pub(crate) fn release(&self, service: &Value) {
        let mut pools = self.pools();
        for address in addresses_of(service) {
            pools.release(address);
        }
        for port in ports_of(service) {
            pools.ports.release(port);
        }
    }

    /// Take everything that a stored Service has. Says what could not be taken.
    pub(crate) fn adopt(&self, service: &Value) -> Vec<String> {
        let mut pools = self.pools();
        let mut problems = Vec::new();
        for address in addresses_of(service) {
            if let Err(refused) = pools.take(address) {
                problems.push(format!("clusterIP {address}: {refused:?}"));
            }
        }
        for port in ports_of(service) {
            if let Err(refused) = pools.ports.take(port) {
                problems.push(format!("node port {port}: {refused:?}"));
            }
        }
        problems
    }

    /// The families of the ranges, the primary first (A4).
    fn families(&self) -> Vec<Family> {
        let mut families = Vec::new();
        for pool in &self.pools().addresses {
            let family = Family::of(pool.net().addr());
            if !families.contains(&family) {
                families.push(family);
            }
        }
        families
    }
}

impl Pools {
    fn release(&mut self, address: IpAddr) {
        for pool in &mut self.addresses {
            pool.release(address);
        }
    }
}

impl Reservation<'_> {
    /// `service` has been stored in place of `old`: what it has is its own,
    /// what only the old one had is free (A8).
    pub(crate) fn commit(mut self, service: &Value, old: Option<&Value>) {
        if self.dry_run {
            return;
        }
        let (addresses, ports) = (addresses_of(service), ports_of(service));
        let mut before = old.map(addresses_of).unwrap_or_default();
        before.append(&mut self.addresses);
        let mut ports_before = old.map(ports_of).unwrap_or_default();
        ports_before.append(&mut self.ports);
        let mut pools = self.allocator.pools();
        for address in before {
            if !addresses.contains(&address) {
                pools.release(address);
            }
        }
        for port in ports_before {
            if !ports.contains(&port) {
                pools.ports.release(port);
            }
        }
    }
}

impl Drop for Reservation<'_> {
    fn drop(&mut self) {
        if self.addresses.is_empty() && self.ports.is_empty() {
            return;
        }
        let mut pools = self.allocator.pools();
        for address in self.addresses.drain(..) {
            pools.release(address);
        }
        for port in self.ports.drain(..) {
            pools.ports.release(port);
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
