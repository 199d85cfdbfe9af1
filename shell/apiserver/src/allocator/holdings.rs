//! What a stored object has, read from its JSON without reading all of it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use portolan_api::value::{list_at, str_at, strings_at};
use portolan_plan::allocate::cidrs::ServiceCidr;
use portolan_plan::allocate::repair::Parent;
use serde::Deserialize;
use serde_json::Value;

use crate::store::{ObjectName, Stored};

/// Addresses and ports of one Service, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Holdings {
    pub(crate) addresses: Vec<IpAddr>,
    pub(crate) ports: Vec<u16>,
}

#[derive(Deserialize)]
struct Service {
    #[serde(default)]
    spec: ServiceSpec,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ServiceSpec {
    #[serde(rename = "clusterIP")]
    cluster_ip: String,
    #[serde(rename = "clusterIPs")]
    cluster_ips: Vec<String>,
    health_check_node_port: i64,
    ports: Vec<Port>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    #[serde(default)]
    node_port: i64,
}

impl Holdings {
    /// What the Service with this JSON has.
    pub(crate) fn of(json: &[u8]) -> Self {
        match serde_json::from_slice::<Service>(json) {
            Ok(service) => Self::of_spec(&service.spec),
            Err(error) => {
                tracing::error!(%error, "a stored Service cannot be read");
                Self::default()
            }
        }
    }

    fn of_spec(spec: &ServiceSpec) -> Self {
        let mut holdings = Self::default();
        let texts = spec.cluster_ips.iter().chain([&spec.cluster_ip]);
        for address in texts.filter_map(|text| text.parse().ok()) {
            if !holdings.addresses.contains(&address) {
                holdings.addresses.push(address);
            }
        }
        let node_ports = spec.ports.iter().map(|port| port.node_port);
        for port in node_ports.chain([spec.health_check_node_port]) {
            if let Ok(port) = u16::try_from(port)
                && port != 0
                && !holdings.ports.contains(&port)
            {
                holdings.ports.push(port);
            }
        }
        holdings
    }
}

/// The address that an IPAddress object stands for: its name.
pub(crate) fn address_of(name: &ObjectName) -> Option<IpAddr> {
    name.name.parse().ok()
}

/// What matters of a stored ServiceCIDR.
pub(super) fn service_cidr(name: &str, stored: &Stored) -> ServiceCidr {
    let value = stored.value();
    let nets = strings_at(&value, "spec.cidrs")
        .into_iter()
        .filter_map(|text| text.parse::<IpNet>().ok())
        .collect();
    let unready = list_at(&value, "status.conditions")
        .iter()
        .any(|condition| {
            str_at(condition, "type") == "Ready" && str_at(condition, "status") == "False"
        });
    ServiceCidr {
        name: name.to_owned(),
        nets,
        ready: !unready,
        deleting: stored.deleting,
    }
}

/// What matters of a stored IPAddress.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct LeanAddress {
    pub(crate) metadata: LeanMetadata,
    spec: AddressSpec,
}

/// Of its metadata.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub(crate) struct LeanMetadata {
    pub(crate) creation_timestamp: String,
    pub(crate) labels: BTreeMap<String, Value>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct AddressSpec {
    parent_ref: ParentRef,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ParentRef {
    group: String,
    resource: String,
    namespace: String,
    name: String,
}

impl LeanAddress {
    /// The IPAddress with this JSON; what is unreadable about it is empty.
    pub(crate) fn of(json: &[u8]) -> Self {
        serde_json::from_slice(json).unwrap_or_default()
    }

    /// `spec.parentRef`.
    pub(crate) fn parent(self) -> Parent {
        let ParentRef {
            group,
            resource,
            namespace,
            name,
        } = self.spec.parent_ref;
        Parent {
            group,
            resource,
            namespace,
            name,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a5_a_service_holds_each_number_once() {
        let service = json!({
            "metadata": {"name": "web", "labels": {"a\"b": "\u{e9}"}},
            "spec": {
                "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::7"],
                "healthCheckNodePort": 30_001,
                "ports": [{"port": 80, "nodePort": 30_000}, {"port": 80, "nodePort": 30_000}, {"port": 1}],
            },
        });
        let holdings = Holdings::of(service.to_string().as_bytes());
        assert_eq!(holdings.ports, [30_000, 30_001]);
        assert_eq!(holdings.addresses.len(), 2);
        let headless = json!({"spec": {"clusterIP": "None", "clusterIPs": ["None"]}});
        let holdings = Holdings::of(headless.to_string().as_bytes());
        assert_eq!(holdings, Holdings::default());
    }
}
