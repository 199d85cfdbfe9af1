//! What announcements, peers and pools select by.

use std::collections::BTreeMap;

use portolan_api::value::{at, list_at, strings_at};
use serde_json::Value;

use super::super::Selector;
use super::Pool;

/// One selector, or MetalLB's list of them.
pub(super) fn selectors(to: &Value, field: &str) -> Vec<Selector> {
    let one = at(to, field);
    let one = one.is_object().then_some(one);
    let list = list_at(to, &format!("{field}s")).iter();
    list.chain(one).map(Selector::of).collect()
}

/// An empty selector selects everything.
pub(super) fn selects(selector: &Selector, labels: &BTreeMap<String, String>) -> bool {
    selector.is_empty() || selector.matches(labels)
}

/// Whether one of these selectors selects; all is selected where there are none.
pub(super) fn any_selects(selectors: &[Selector], labels: &BTreeMap<String, String>) -> bool {
    selectors.is_empty() || selectors.iter().any(|one| selects(one, labels))
}

/// The texts of a list.
pub(super) fn texts(object: &Value, field: &str) -> Vec<String> {
    let texts = strings_at(object, field).into_iter();
    texts.map(str::to_owned).collect()
}

/// Which addresses an announcement is about, and from which nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The namespace of MetalLB's objects; empty for ours, which are of the cluster.
    namespace: String,
    pools: Vec<String>,
    pool_selectors: Vec<Selector>,
    node_selectors: Vec<Selector>,
    service_selectors: Vec<Selector>,
}

impl Scope {
    /// Reads the `spec` of an announcement of ours, or of MetalLB's.
    pub(super) fn of(namespace: &str, spec: &Value) -> Self {
        let (pools, selector) = match namespace {
            "" => ("pools", "poolSelector"),
            _ => ("ipAddressPools", "ipAddressPoolSelector"),
        };
        Self {
            namespace: namespace.to_owned(),
            pools: texts(spec, pools),
            pool_selectors: selectors(spec, selector),
            node_selectors: selectors(spec, "nodeSelector"),
            service_selectors: selectors(spec, "serviceSelector"),
        }
    }

    /// Whether it is about addresses of a pool. Ours may be about pools of both kinds,
    /// MetalLB's are about MetalLB's pools beside them.
    pub fn takes_pool(&self, pool: &Pool) -> bool {
        let all = self.pools.is_empty() && self.pool_selectors.is_empty();
        let named = self.pools.iter().any(|name| name == pool.name());
        self.is_beside(pool) && (all || named || self.selects_pool(pool))
    }

    /// The pools that it names.
    pub fn pools(&self) -> &[String] {
        &self.pools
    }

    /// Whether it may be about a pool at all: MetalLB's are about pools beside them.
    pub fn is_beside(&self, pool: &Pool) -> bool {
        self.namespace.is_empty() || self.namespace == pool.meta.key.namespace
    }

    /// Whether it selects pools by their labels.
    pub fn selects_pools(&self) -> bool {
        !self.pool_selectors.is_empty()
    }

    /// Whether it selects a pool by its labels.
    pub fn selects_pool(&self, pool: &Pool) -> bool {
        let mut selectors = self.pool_selectors.iter();
        selectors.any(|one| selects(one, &pool.meta.labels))
    }

    /// Whether a node with these labels announces.
    pub fn takes_node(&self, labels: &BTreeMap<String, String>) -> bool {
        any_selects(&self.node_selectors, labels)
    }

    /// Whether addresses of a Service with these labels are announced.
    pub fn takes_service(&self, labels: &BTreeMap<String, String>) -> bool {
        any_selects(&self.service_selectors, labels)
    }
}
