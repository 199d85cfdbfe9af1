//! Services of type LoadBalancer.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use portolan_api::meta::texts;
use portolan_api::value::{at, has, int_at, list_at, str_at, strings_at};
use serde_json::Value;

use super::super::meta::{object, owned};
use super::super::pod::protocol;
use super::super::{Condition, Meta};
use crate::{Family, Protocol};

/// How many families a Service wants (`ipFamilyPolicy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DualStack {
    /// One.
    #[default]
    Single,
    /// Both, if they can be had.
    Preferred,
    /// Both.
    Required,
}

/// A port where clients come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BalancedPort {
    /// What is spoken.
    pub protocol: Protocol,
    /// The number.
    pub port: u16,
}

impl fmt::Display for BalancedPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = self.protocol.name().to_uppercase();
        write!(f, "{}/{protocol}", self.port)
    }
}

/// What a Service asks for beside an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked {
    /// These addresses.
    pub addresses: Vec<IpAddr>,
    /// An address of the pool with this name.
    pub pool: Option<String>,
    /// It shares its addresses with Services that have the same key.
    pub sharing: Option<String>,
    /// What could not be understood.
    pub fault: Option<String>,
}

/// A Service, as an allocator of load balancers' addresses sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BalancedService {
    /// What every object has.
    pub meta: Meta,
    /// `metadata.finalizers`
    pub finalizers: Vec<String>,
    /// Whether its type is LoadBalancer.
    pub wanted: bool,
    /// `spec.loadBalancerClass`
    pub class: Option<String>,
    /// Its families, the primary one first.
    pub families: Vec<Family>,
    /// How many families it wants.
    pub dual: DualStack,
    /// Its ports.
    pub ports: BTreeSet<BalancedPort>,
    /// Whether `externalTrafficPolicy` is Local.
    pub local: bool,
    /// `spec.selector`
    pub selector: BTreeMap<String, String>,
    /// What it asks for.
    pub asked: Asked,
    /// The addresses of `status.loadBalancer.ingress`.
    pub ingress: Vec<IpAddr>,
    /// Whether the status has something else there: a name, or an address in
    /// Proxy mode.
    pub foreign_ingress: bool,
    /// `status.conditions`
    pub conditions: Vec<Condition>,
}

object!(BalancedService, read);

/// Our own annotations, and those of MetalLB that mean the same, old and new.
const ADDRESSES: [&str; 3] = [
    "portolan.dev/load-balancer-ips",
    "metallb.io/loadBalancerIPs",
    "metallb.universe.tf/loadBalancerIPs",
];
const POOL: [&str; 3] = [
    "portolan.dev/address-pool",
    "metallb.io/address-pool",
    "metallb.universe.tf/address-pool",
];
const SHARING: [&str; 3] = [
    "portolan.dev/allow-shared-ip",
    "metallb.io/allow-shared-ip",
    "metallb.universe.tf/allow-shared-ip",
];

fn read(object: &Value) -> BalancedService {
    let mut meta = Meta::of(object);
    let wanted = str_at(object, "spec.type") == "LoadBalancer";
    let asked = asked(&meta, str_at(object, "spec.loadBalancerIP"));
    let interesting = |key: &String| {
        let known = [ADDRESSES, POOL, SHARING];
        known.iter().flatten().any(|one| one == key)
    };
    meta.annotations.retain(|key, _| interesting(key));
    let entries = list_at(object, "status.loadBalancer.ingress");
    let is_ours = |one: &&Value| !str_at(one, "ip").is_empty() && str_at(one, "ipMode") != "Proxy";
    let ingress: Vec<IpAddr> = entries
        .iter()
        .filter(is_ours)
        .filter_map(|one| str_at(one, "ip").parse().ok())
        .collect();
    BalancedService {
        finalizers: strings_at(object, "metadata.finalizers")
            .into_iter()
            .map(str::to_owned)
            .collect(),
        wanted,
        class: has(object, "spec.loadBalancerClass")
            .then(|| str_at(object, "spec.loadBalancerClass").to_owned()),
        families: super::super::service::families(object),
        dual: match str_at(object, "spec.ipFamilyPolicy") {
            "RequireDualStack" => DualStack::Required,
            "PreferDualStack" => DualStack::Preferred,
            _ => DualStack::Single,
        },
        ports: list_at(object, "spec.ports")
            .iter()
            .filter_map(port)
            .collect(),
        local: str_at(object, "spec.externalTrafficPolicy") == "Local",
        selector: owned(texts(at(object, "spec.selector"))),
        asked,
        foreign_ingress: ingress.len() != entries.len(),
        ingress,
        conditions: super::super::apps::conditions(object),
        meta,
    }
}

fn port(value: &Value) -> Option<BalancedPort> {
    let port = int_at(value, "port").and_then(|n| u16::try_from(n).ok())?;
    Some(BalancedPort {
        protocol: protocol(str_at(value, "protocol")),
        port,
    })
}

/// The first of these annotations that is there, and its value.
fn annotation<'a>(meta: &'a Meta, names: [&'static str; 3]) -> Option<(&'static str, &'a str)> {
    let found = |name: &'static str| meta.annotations.get(name).map(|v| (name, v.trim()));
    names.into_iter().find_map(found)
}

fn asked(meta: &Meta, field: &str) -> Asked {
    let text = |names| {
        annotation(meta, names)
            .map(|(_, value)| value.to_owned())
            .filter(|value| !value.is_empty())
    };
    let mut asked = Asked {
        pool: text(POOL),
        sharing: text(SHARING),
        ..Asked::default()
    };
    let list = annotation(meta, ADDRESSES).filter(|(_, list)| !list.is_empty());
    let (name, list) = match (list, field) {
        (None, "") => return asked,
        (None, field) => ("spec.loadBalancerIP", field),
        (Some((name, list)), "") => (name, list),
        (Some((name, _)), _) => {
            asked.fault = Some(format!(
                "the Service has both {name} and spec.loadBalancerIP: one of them must go"
            ));
            return asked;
        }
    };
    for text in list.split(',').map(str::trim) {
        match text.parse::<IpAddr>() {
            Ok(address) => asked.addresses.push(address),
            Err(_error) => {
                asked.fault = Some(format!("{name}: {text:?} is no IP address"));
            }
        }
    }
    let families: BTreeSet<Family> = asked.addresses.iter().copied().map(Family::of).collect();
    if families.len() < asked.addresses.len() && asked.fault.is_none() {
        asked.fault = Some(format!(
            "{name}: at most one address of each family can be asked for"
        ));
    }
    asked
}

impl BalancedService {
    /// The families in which it wants addresses.
    pub fn wanted_families(&self) -> &[Family] {
        match self.dual {
            DualStack::Single => self.families.get(..1).unwrap_or_default(),
            DualStack::Preferred | DualStack::Required => &self.families,
        }
    }

    /// The condition with this type.
    pub fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|one| one.kind == kind)
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Object;
    use super::*;
    use serde_json::json;

    fn service(annotations: Value, spec: Value) -> BalancedService {
        BalancedService::read(&json!({
            "metadata": {"name": "web", "namespace": "default", "annotations": annotations},
            "spec": spec,
        }))
    }

    #[test]
    fn l6_requests_are_read_in_every_spelling() {
        for prefix in [
            "portolan.dev/load-balancer-ips",
            "metallb.io/loadBalancerIPs",
            "metallb.universe.tf/loadBalancerIPs",
        ] {
            let asked = service(json!({prefix: "192.0.2.1, 2001:db8::1"}), json!({})).asked;
            assert_eq!(asked.addresses.len(), 2, "{prefix}");
            assert_eq!(asked.fault, None);
        }
        let asked = service(json!({}), json!({"loadBalancerIP": "192.0.2.1"})).asked;
        assert_eq!(asked.addresses, ["192.0.2.1".parse::<IpAddr>().unwrap()]);
        let both = service(
            json!({"metallb.io/loadBalancerIPs": "192.0.2.1"}),
            json!({"loadBalancerIP": "192.0.2.2"}),
        );
        assert!(
            both.asked
                .fault
                .unwrap()
                .contains("both metallb.io/loadBalancerIPs and spec.loadBalancerIP")
        );
        let twice = service(
            json!({"portolan.dev/load-balancer-ips": "192.0.2.1,192.0.2.2"}),
            json!({}),
        );
        assert!(
            twice
                .asked
                .fault
                .unwrap()
                .contains("at most one address of each family")
        );
        let no = service(json!({"portolan.dev/load-balancer-ips": "home"}), json!({}));
        assert_eq!(
            no.asked.fault.unwrap(),
            "portolan.dev/load-balancer-ips: \"home\" is no IP address"
        );
    }

    #[test]
    fn our_own_annotation_comes_before_those_of_metallb() {
        let asked = service(
            json!({
                "metallb.universe.tf/address-pool": "old", "metallb.io/address-pool": "new",
                "metallb.io/allow-shared-ip": "theirs", "portolan.dev/allow-shared-ip": "ours",
            }),
            json!({}),
        )
        .asked;
        assert_eq!(
            (asked.pool.as_deref(), asked.sharing.as_deref()),
            (Some("new"), Some("ours"))
        );
    }
}
