//! The addresses of Services of type LoadBalancer (L1–L7, L11, L12).
//!
//! With pools, an address of a pool; without any, the nodes' own. [`LoadBalancer`]
//! holds who has what: it is what the Services' statuses say, as far as they may,
//! and is made of them at start. [`LoadBalancer::converge`] decides about one
//! Service; nothing here walks all of them.
//!
//! Deliberately absent: announcing the addresses ([`crate::announce`]).

mod gaps;
#[cfg(test)]
mod laws;
mod nodes;
mod pools;
mod refusal;
mod service;
mod status;
#[cfg(test)]
mod testbed;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use jiff::Timestamp;
use portolan_model::workloads::{BalancedService, ObjectKey, Pool};

use crate::workloads::Step;

pub(crate) use nodes::able;
pub use nodes::{Places, fitness};
pub use refusal::{EXCLUDED, NotShared, Refusal, Unfit};
pub use service::CONDITION;
pub use status::pool;

use nodes::{HostPorts, Place};
use pools::{Assigned, Pools, Tenant};

/// The class of Services that are served as those without one (L1).
pub const CLASS: &str = "portolan.dev/load-balancer";
/// The class of Services that get the nodes' addresses although there are pools.
pub const NODES_CLASS: &str = "portolan.dev/node-addresses";
/// Keeps a Service until its addresses are given back (L2).
pub const FINALIZER: &str = "service.kubernetes.io/load-balancer-cleanup";

/// Who has which addresses.
#[derive(Clone, Debug, Default)]
pub struct LoadBalancer {
    pools: Pools,
    ports: HostPorts,
    /// Services that have not got all that they want.
    waiting: BTreeSet<ObjectKey>,
}

/// What an answer depends on beside the Service and the pools.
#[derive(Clone, Copy, Debug)]
pub struct Around<'a> {
    /// Nodes and endpoints.
    pub places: Places<'a>,
    /// The labels of the Service's namespace.
    pub namespace: &'a BTreeMap<String, String>,
    /// The time, for conditions.
    pub now: Timestamp,
}

/// What follows from a look at a Service.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Turn {
    /// What is to be written and told.
    pub step: Step,
    /// Services to look at now, since what they wait for may be free.
    pub woken: BTreeSet<ObjectKey>,
    /// Pools of which something was given or given back.
    pub pools: BTreeSet<ObjectKey>,
}

/// Whether a Service is ours to serve (L1).
pub fn is_ours(service: &BalancedService) -> bool {
    service.wanted
        && !service.meta.deleting
        && matches!(service.class.as_deref(), None | Some(CLASS | NODES_CLASS))
}

impl LoadBalancer {
    /// Whether Services without a say get the nodes' addresses.
    pub fn is_by_nodes(&self) -> bool {
        self.pools.is_empty()
    }

    /// Whether this Service gets the nodes' addresses.
    pub fn uses_nodes(&self, service: &BalancedService) -> bool {
        self.is_by_nodes() || service.class.as_deref() == Some(NODES_CLASS)
    }

    /// How many addresses a pool can give.
    pub fn size(&self, pool: &ObjectKey) -> u128 {
        let stock = self.pools.stock(pool);
        stock.map_or(0, pools::Stock::size)
    }

    /// A pool is as it is now. Answers with the Services to look at; if it is the
    /// first one, those are all.
    pub fn set_pool(&mut self, pool: Pool) -> BTreeSet<ObjectKey> {
        let mut touched = self.pools.set(pool);
        touched.extend(self.waiting.iter().cloned());
        touched
    }

    /// A pool is gone. Answers with the Services to look at; if it was the last one,
    /// those are all.
    pub fn remove_pool(&mut self, key: &ObjectKey) -> BTreeSet<ObjectKey> {
        self.pools.remove(key)
    }

    /// Services that have not got all that they want.
    pub fn waiting(&self) -> &BTreeSet<ObjectKey> {
        &self.waiting
    }

    /// The addresses that a Service has of pools.
    pub fn held(&self, key: &ObjectKey) -> &[IpAddr] {
        self.pools.held(key)
    }

    /// Lets a Service have what its status says, as far as it may (L7). At start, this
    /// is done for all Services, the oldest first, before anybody is given something.
    pub fn adopt(&mut self, service: &BalancedService, around: &Around<'_>) {
        if !is_ours(service) {
            return;
        }
        if self.uses_nodes(service) {
            self.ports.adopt(service, &around.places);
        } else {
            self.pools.adopt(service, around.namespace);
        }
    }

    /// Decides about a Service.
    pub fn converge(&mut self, service: &BalancedService, around: &Around<'_>) -> Turn {
        let key = &service.meta.key;
        if !is_ours(service) {
            let mut turn = self.forget(key);
            turn.step = service::let_go(service);
            return turn;
        }
        let before = self.places_of(key);
        let assigned = if self.uses_nodes(service) {
            self.pools.release(key);
            self.ports.assign(service, &around.places)
        } else {
            self.ports.release(key);
            self.pools.assign(service, around.namespace)
        };
        if assigned.missing.is_empty() {
            self.waiting.remove(key);
        } else {
            self.waiting.insert(key.clone());
        }
        let mut turn = self.changed(key, &before);
        turn.step = service::write(service, &assigned, around.now);
        turn
    }

    /// A Service is gone.
    pub fn forget(&mut self, key: &ObjectKey) -> Turn {
        let before = self.places_of(key);
        self.pools.release(key);
        self.ports.release(key);
        self.waiting.remove(key);
        self.changed(key, &before)
    }

    fn places_of(&self, key: &ObjectKey) -> Possessions {
        Possessions {
            addresses: self.pools.held(key).iter().copied().collect(),
            ports: self.ports.held(key),
            tenant: self.pools.tenant(key).cloned(),
        }
    }

    /// Who else is concerned by what a Service got and gave back.
    fn changed(&self, key: &ObjectKey, before: &Possessions) -> Turn {
        let after = self.places_of(key);
        let mut turn = Turn::default();
        if after.leaves_room(before) {
            turn.woken.clone_from(&self.waiting);
            turn.woken.remove(key);
        }
        for address in after.addresses.symmetric_difference(&before.addresses) {
            turn.pools.extend(self.pools.pools_of(*address).cloned());
        }
        turn
    }
}

/// What a Service has.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Possessions {
    /// Addresses of pools.
    addresses: BTreeSet<IpAddr>,
    /// Ports of nodes' addresses.
    ports: BTreeSet<Place>,
    /// How it uses its addresses.
    tenant: Option<Tenant>,
}

impl Possessions {
    /// Whether somebody else may have got a chance.
    fn leaves_room(&self, before: &Self) -> bool {
        let freed =
            !before.addresses.is_subset(&self.addresses) || !before.ports.is_subset(&self.ports);
        // Also by sharing an address that was not shared, or was otherwise (L5).
        let shares = self.tenant.as_ref().is_some_and(Tenant::may_share);
        let otherwise = self.tenant != before.tenant || self.addresses != before.addresses;
        freed || (shares && otherwise)
    }
}
