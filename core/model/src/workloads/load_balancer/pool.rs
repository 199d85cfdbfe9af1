//! Pools: where load balancers' addresses come from.

use std::collections::BTreeMap;
use std::net::IpAddr;

use portolan_api::value::{at, bool_at, has, int_at, list_at, str_at, strings_at};
use serde_json::Value;

use super::super::meta::object;
use super::super::{Meta, Selector};
use super::Span;
use super::scope::{selectors, selects};

/// An AddressPool, or an IPAddressPool of MetalLB. Ours are of the cluster,
/// MetalLB's live in a namespace: by that they are told apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    /// What every object has.
    pub meta: Meta,
    /// Its addresses.
    pub spans: Vec<Span>,
    /// What could not be understood in it.
    pub faults: Vec<String>,
    /// Whether Services get addresses of it that did not ask for them.
    pub auto_assign: bool,
    /// Whether IPv4 addresses that end in 0 or 255 are left out.
    pub avoid_buggy: bool,
    /// Lower comes first, none last.
    pub priority: Option<u32>,
    /// The namespaces that it is for, by name; with those of `namespace_selectors`.
    namespaces: Vec<String>,
    namespace_selectors: Vec<Selector>,
    service_selectors: Vec<Selector>,
    /// `status` as it was last written.
    pub status: Value,
}

object!(Pool, read);

fn read(object: &Value) -> Pool {
    let (mut spans, mut faults) = (Vec::new(), Vec::new());
    for text in strings_at(object, "spec.addresses") {
        match Span::parse(text) {
            Ok(span) => spans.push(span),
            Err(fault) => faults.push(fault),
        }
    }
    let meta = Meta::of(object);
    let own = meta.key.namespace.is_empty();
    let to = match own {
        true => at(object, "spec"),
        false => at(object, "spec.serviceAllocation"),
    };
    let priority = int_at(to, "priority").and_then(|number| u32::try_from(number).ok());
    Pool {
        spans,
        faults,
        auto_assign: !has(object, "spec.autoAssign") || bool_at(object, "spec.autoAssign"),
        avoid_buggy: bool_at(object, "spec.avoidBuggyIPs"),
        // To MetalLB, 0 is no priority.
        priority: priority.filter(|number| own || *number > 0),
        namespaces: strings_at(to, "namespaces")
            .into_iter()
            .map(str::to_owned)
            .collect(),
        namespace_selectors: selectors(to, "namespaceSelector"),
        service_selectors: selectors(to, "serviceSelector"),
        status: at(object, "status").clone(),
        meta,
    }
}

impl Pool {
    /// Whether it is of our own kind, which has our status.
    pub fn is_own(&self) -> bool {
        self.meta.key.namespace.is_empty()
    }

    /// Whether it is only for some Services.
    pub fn is_pinned(&self) -> bool {
        !self.namespaces.is_empty()
            || !self.namespace_selectors.is_empty()
            || !self.service_selectors.is_empty()
    }

    /// Whether Services of this namespace may have its addresses.
    pub fn takes_namespace(&self, name: &str, labels: &BTreeMap<String, String>) -> bool {
        let any = self.namespaces.is_empty() && self.namespace_selectors.is_empty();
        any || self.namespaces.iter().any(|one| one == name)
            || self
                .namespace_selectors
                .iter()
                .any(|one| selects(one, labels))
    }

    /// Whether Services with these labels may have its addresses.
    pub fn takes_service(&self, labels: &BTreeMap<String, String>) -> bool {
        self.service_selectors.is_empty()
            || self
                .service_selectors
                .iter()
                .any(|one| selects(one, labels))
    }

    /// Whether an address is one that it gives.
    pub fn covers(&self, address: IpAddr) -> bool {
        !(self.avoid_buggy && Span::is_buggy(address))
            && self.spans.iter().any(|span| span.contains(address))
    }

    /// How MetalLB's users know it, and ours.
    pub fn name(&self) -> &str {
        &self.meta.key.name
    }

    /// Whether nothing but the status changed.
    pub fn gives_as(&self, other: &Self) -> bool {
        let bare = |pool: &Self| {
            let mut pool = pool.clone();
            pool.status = Value::Null;
            pool.meta.version = 0;
            pool
        };
        bare(self) == bare(other)
    }

    /// The condition of its status with this type.
    pub fn condition(&self, kind: &str) -> Option<&Value> {
        list_at(&self.status, "conditions")
            .iter()
            .find(|one| str_at(one, "type") == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Object;
    use super::*;
    use serde_json::json;

    fn labels(key: &str, value: &str) -> BTreeMap<String, String> {
        [(key.to_owned(), value.to_owned())].into()
    }

    #[test]
    fn l7_pools_of_both_kinds_are_read() {
        let own = Pool::read(&json!({
            "metadata": {"name": "lab"},
            "spec": {
                "addresses": ["192.0.2.0/28", "x"], "priority": 0, "namespaces": ["shop"],
                "namespaceSelector": {"matchLabels": {"team": "a"}},
                "serviceSelector": {"matchExpressions": [{"key": "tier", "operator": "Exists"}]},
            },
        }));
        assert!(own.is_own() && own.auto_assign && own.is_pinned());
        assert_eq!((own.priority, own.spans.len()), (Some(0), 1));
        assert_eq!(own.faults, ["\"x\" is no IP address"]);
        assert!(own.takes_namespace("shop", &BTreeMap::new()));
        assert!(own.takes_namespace("other", &labels("team", "a")));
        assert!(!own.takes_namespace("other", &labels("team", "b")));
        assert!(own.takes_service(&labels("tier", "x")) && !own.takes_service(&BTreeMap::new()));
        let metal = Pool::read(&json!({
            "metadata": {"name": "first", "namespace": "metallb-system"},
            "spec": {
                "addresses": ["192.0.2.0-192.0.2.255"], "autoAssign": false, "avoidBuggyIPs": true,
                "serviceAllocation": {
                    "priority": 50, "namespaceSelectors": [{"matchLabels": {"team": "a"}}],
                    "serviceSelectors": [{"matchLabels": {"app": "x"}}, {"matchLabels": {"app": "y"}}],
                },
            },
        }));
        assert!(!metal.is_own() && !metal.auto_assign && metal.priority == Some(50));
        assert!(metal.takes_service(&labels("app", "y")));
        assert!(!metal.takes_namespace("shop", &labels("team", "b")));
        let covers = |text: &str| metal.covers(text.parse().unwrap());
        assert!(covers("192.0.2.1") && !covers("192.0.2.0") && !covers("192.0.2.255"));
    }
}
