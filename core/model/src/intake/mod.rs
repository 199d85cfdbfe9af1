//! From the API's language to facts.
//!
//! Each function answers `(fact, problems)`: what could be understood, and
//! what could not. A bad address, port or range costs that address, port or
//! range; an object that cannot be named or placed at all gives no fact.

mod cluster_policy;
mod node;
mod policy;
mod service;
mod slice;
mod spread;

use std::net::IpAddr;

use ipnet::IpNet;
use portolan_api::lean::ObjectMeta;

use crate::attached::Uid;
use crate::fact::{NamedPort, Namespace, Pod, ServiceCidr};
use crate::key::{PodKey, Protocol};
use crate::labels::Labels;
use crate::problem::Problem;

pub use cluster_policy::cluster_policy;
pub use node::node;
pub use policy::policy;
pub use service::service;
pub use slice::slice;

/// A Namespace object as a fact.
pub fn namespace(object: &portolan_api::lean::Namespace) -> Namespace {
    Namespace {
        name: object.metadata.name.as_str().into(),
        labels: labels(&object.metadata),
    }
}

/// The labels of an object.
fn labels(metadata: &ObjectMeta) -> Labels {
    let pairs = metadata.labels.iter();
    pairs
        .map(|(key, value)| (key.as_str(), value.as_str()))
        .collect()
}

/// A ServiceCIDR object as a fact.
pub fn service_cidr(object: &portolan_api::lean::ServiceCidr) -> (ServiceCidr, Vec<Problem>) {
    let mut problems = Problems::of("ServiceCIDR", &object.metadata);
    let texts = object.spec.cidrs.iter().map(String::as_str);
    let cidr = ServiceCidr {
        name: object.metadata.name.as_str().into(),
        ranges: problems.ranges("spec.cidrs", texts),
    };
    (cidr, problems.found)
}

/// A list without room to spare: facts stay for long, and a list that grew has room
/// for four items or for twice as many as it has.
fn exact<T>(items: impl Iterator<Item = T>) -> Vec<T> {
    let mut list: Vec<T> = items.collect();
    list.shrink_to_fit();
    list
}

/// A Pod object as a fact: its addresses, until it has run to its end.
pub fn pod(object: &portolan_api::lean::PodFacts) -> (Pod, Vec<Problem>) {
    let mut problems = Problems::of("Pod", &object.metadata);
    let (spec, status) = (&object.spec, &object.status);
    let over = matches!(status.phase.as_str(), "Succeeded" | "Failed");
    let mut addresses = Vec::new();
    if !over && !status.pod_ip.is_empty() {
        let first = std::iter::once(status.pod_ip.as_str());
        let all = status.pod_ips.iter().map(|one| one.ip.as_str());
        let others = all.filter(|text| *text != status.pod_ip && !text.is_empty());
        addresses = problems.addresses("status.podIPs", first.chain(others));
    }
    let sidecars = spec.init_containers.iter();
    let sidecars = sidecars.filter(|own| own.restart_policy.as_deref() == Some("Always"));
    let ports = spec
        .containers
        .iter()
        .chain(sidecars)
        .flat_map(|own| &own.ports);
    let ports = ports.filter_map(|port| {
        Some(NamedPort {
            name: Some(port.name.as_str())
                .filter(|name| !name.is_empty())?
                .into(),
            protocol: Protocol::parse(&port.protocol)?,
            port: Some(port.container_port).filter(|number| *number > 0)?,
        })
    });
    let pod = Pod {
        key: PodKey::new(&object.metadata.namespace, &object.metadata.name),
        addresses,
        labels: labels(&object.metadata),
        uid: Uid::of(&object.metadata.uid),
        node: Some(spec.node_name.as_str())
            .filter(|node| !node.is_empty())
            .map(Into::into),
        over,
        host_network: spec.host_network,
        ports: exact(ports),
    };
    (pod, problems.found)
}

/// Collects the problems of one object.
struct Problems {
    kind: &'static str,
    object: String,
    found: Vec<Problem>,
}

impl Problems {
    fn of(kind: &'static str, metadata: &ObjectMeta) -> Self {
        let ObjectMeta {
            namespace, name, ..
        } = metadata;
        let object = if namespace.is_empty() {
            name.clone()
        } else {
            format!("{namespace}/{name}")
        };
        Self {
            kind,
            object,
            found: Vec::new(),
        }
    }

    fn add(&mut self, field: &str, message: String) {
        let Self { kind, object, .. } = self;
        self.found.push(Problem {
            kind,
            object: object.clone(),
            field: field.into(),
            message,
        });
    }

    /// The addresses of a list that are addresses.
    fn addresses<'t>(&mut self, field: &str, texts: impl Iterator<Item = &'t str>) -> Vec<IpAddr> {
        exact(texts.filter_map(|text| self.address(field, text)))
    }

    fn address(&mut self, field: &str, text: &str) -> Option<IpAddr> {
        let parsed = text.parse().ok();
        if parsed.is_none() {
            self.add(field, format!("{text:?} is not an IP address"));
        }
        parsed
    }

    /// The ranges of a list that are ranges, without host bits.
    fn ranges<'t>(&mut self, field: &str, texts: impl Iterator<Item = &'t str>) -> Vec<IpNet> {
        let mut ranges = Vec::new();
        for text in texts {
            match text.trim().parse::<IpNet>() {
                Ok(range) => ranges.push(range.trunc()),
                Err(_) => self.add(field, format!("{text:?} is not a CIDR range")),
            }
        }
        ranges
    }
}
