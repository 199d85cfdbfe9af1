//! Rules for Endpoints and EndpointSlice.

use super::{address, immutable, invalid, names};
use crate::cause::Cause;
use crate::value::{at, has, int_at, list_at, str_at, strings_at};
use serde_json::Value;
use std::collections::BTreeSet;

const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const ADDRESS_TYPES: &[&str] = &["FQDN", "IPv4", "IPv6"];
/// Limits of discovery.k8s.io/v1.
const MAX_ENDPOINTS: usize = 1000;
const MAX_ADDRESSES: usize = 100;
const MAX_PORTS: usize = 20_000;

/// Endpoints.
pub fn endpoints(object: &Value, _old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (index, subset) in list_at(object, "subsets").iter().enumerate() {
        let path = format!("subsets[{index}]");
        let (ready, not_ready) = (
            list_at(subset, "addresses"),
            list_at(subset, "notReadyAddresses"),
        );
        if ready.is_empty() && not_ready.is_empty() {
            causes.push(Cause::required(
                &path,
                "must specify `addresses` or `notReadyAddresses`",
            ));
        }
        for (field, addresses) in [("addresses", ready), ("notReadyAddresses", not_ready)] {
            for (index, address) in addresses.iter().enumerate() {
                causes.extend(endpoint_address(
                    &format!("{path}.{field}[{index}]"),
                    address,
                ));
            }
        }
        let ports = list_at(subset, "ports");
        for (index, port) in ports.iter().enumerate() {
            causes.extend(endpoint_port(
                &format!("{path}.ports[{index}]"),
                port,
                ports.len() > 1,
            ));
        }
    }
    causes
}

/// The label of Endpoints that a controller writes.
const MANAGED_BY: &str = "endpoints.kubernetes.io/managed-by";

/// Warns of unusual spellings of addresses, unless a controller wrote them.
pub fn warnings(object: &Value, _old: Option<&Value>) -> Vec<String> {
    if crate::meta::label(object, MANAGED_BY).is_some() {
        return Vec::new();
    }
    let mut warnings = Vec::new();
    for (index, subset) in list_at(object, "subsets").iter().enumerate() {
        for field in ["addresses", "notReadyAddresses"] {
            for (number, entry) in list_at(subset, field).iter().enumerate() {
                let path = format!("subsets[{index}].{field}[{number}].ip");
                warnings.extend(address::ip_warning(&path, str_at(entry, "ip")));
            }
        }
    }
    warnings
}

fn endpoint_address(path: &str, object: &Value) -> Vec<Cause> {
    let ip = str_at(object, "ip");
    let mut causes = address::ip(&format!("{path}.ip"), ip);
    let hostname = str_at(object, "hostname");
    if !hostname.is_empty() {
        let messages = names::dns1123_label(hostname);
        causes.extend(invalid(
            &format!("{path}.hostname"),
            &hostname.into(),
            messages,
        ));
    }
    // Kubernetes reports a bad address by both rules.
    causes.extend(address::not_special(&format!("{path}.ip"), ip));
    causes
}

fn endpoint_port(path: &str, port: &Value, named: bool) -> Vec<Cause> {
    let mut causes = Vec::new();
    match str_at(port, "name") {
        "" if named => causes.push(Cause::required(format!("{path}.name"), "")),
        "" => {}
        name => causes.extend(invalid(
            &format!("{path}.name"),
            &name.into(),
            names::dns1123_label(name),
        )),
    }
    let number = int_at(port, "port").unwrap_or(0);
    causes.extend(invalid(
        &format!("{path}.port"),
        &number.into(),
        names::port_number(number),
    ));
    causes.extend(protocol(&format!("{path}.protocol"), at(port, "protocol")));
    causes.extend(app_protocol(path, port));
    causes
}

/// EndpointSlice.
pub fn endpoint_slice(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let address_type = str_at(object, "addressType");
    match address_type {
        "" => causes.push(Cause::required("addressType", "")),
        other if !ADDRESS_TYPES.contains(&other) => {
            causes.push(Cause::not_supported(
                "addressType",
                &other.into(),
                ADDRESS_TYPES,
            ));
        }
        _ => {}
    }
    let endpoints = list_at(object, "endpoints");
    if endpoints.len() > MAX_ENDPOINTS {
        causes.push(Cause::too_many("endpoints", endpoints.len(), MAX_ENDPOINTS));
    }
    for (index, endpoint) in endpoints.iter().enumerate().take(MAX_ENDPOINTS) {
        causes.extend(slice_endpoint(
            &format!("endpoints[{index}]"),
            endpoint,
            address_type,
        ));
    }
    causes.extend(slice_ports(object));
    if let Some(old) = old {
        causes.extend(immutable(
            "addressType",
            at(object, "addressType"),
            at(old, "addressType"),
        ));
    }
    causes
}

fn slice_endpoint(path: &str, endpoint: &Value, address_type: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    let addresses = strings_at(endpoint, "addresses");
    let field = format!("{path}.addresses");
    match addresses.len() {
        0 => causes.push(Cause::required(&field, "must contain at least 1 address")),
        count if count > MAX_ADDRESSES => {
            causes.push(Cause::too_many(&field, count, MAX_ADDRESSES))
        }
        _ => {}
    }
    for (index, text) in addresses.iter().enumerate() {
        let indexed = format!("{field}[{index}]");
        match address_type {
            "IPv4" | "IPv6" => {
                let faults = address::ip(&indexed, text);
                // Kubernetes reports the family at the list, without an index.
                match faults.is_empty() && address::family(text) != Some(address_type) {
                    true => {
                        let message = format!("must be an {address_type} address");
                        causes.push(Cause::invalid(&field, &(*text).into(), &message));
                    }
                    false => causes.extend(faults),
                }
                causes.extend(
                    address::not_special(&indexed, text)
                        .into_iter()
                        .filter(|_| address::family(text).is_some()),
                );
            }
            "FQDN" => {
                let name = text.strip_suffix('.').unwrap_or(text);
                let mut messages = names::dns1123_subdomain(name);
                if messages.is_empty() && !name.contains('.') {
                    messages.push(
                        "should be a domain with at least two segments separated by dots"
                            .to_owned(),
                    );
                }
                causes.extend(invalid(&indexed, &(*text).into(), messages));
            }
            _ => {}
        }
    }
    for (name, rule) in [
        (
            "nodeName",
            names::dns1123_subdomain as fn(&str) -> Vec<String>,
        ),
        ("hostname", names::dns1123_label),
    ] {
        if let Some(text) = at(endpoint, name).as_str() {
            causes.extend(invalid(&format!("{path}.{name}"), &text.into(), rule(text)));
        }
    }
    causes
}

fn slice_ports(object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let ports = list_at(object, "ports");
    if ports.len() > MAX_PORTS {
        causes.push(Cause::too_many("ports", ports.len(), MAX_PORTS));
    }
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate().take(MAX_PORTS) {
        let path = format!("ports[{index}]");
        let name = str_at(port, "name");
        if !name.is_empty() {
            causes.extend(invalid(
                &format!("{path}.name"),
                &name.into(),
                names::dns1123_label(name),
            ));
        }
        if !seen.insert(name) {
            causes.push(Cause::duplicate(format!("{path}.name"), &name.into()));
        }
        causes.extend(protocol(&format!("{path}.protocol"), at(port, "protocol")));
        causes.extend(app_protocol(&path, port));
    }
    causes
}

fn protocol(path: &str, value: &Value) -> Option<Cause> {
    match value.as_str().unwrap_or("") {
        "" => Some(Cause::required(path, "")),
        text if PROTOCOLS.contains(&text) => None,
        _ => Some(Cause::not_supported(path, value, PROTOCOLS)),
    }
}

fn app_protocol(path: &str, port: &Value) -> Vec<Cause> {
    if !has(port, "appProtocol") {
        return Vec::new();
    }
    let text = str_at(port, "appProtocol");
    invalid(
        &format!("{path}.appProtocol"),
        &text.into(),
        names::qualified_name(text),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn fields(causes: &[Cause]) -> Vec<&str> {
        causes.iter().map(|cause| cause.field.as_str()).collect()
    }

    #[test]
    fn e4_address_type_is_immutable_and_decides_the_family() {
        let slice = |kind: &str, address: &str| json!({"addressType": kind, "endpoints": [{"addresses": [address]}], "ports": [{"name": "", "protocol": "TCP", "port": 80}]});
        assert!(endpoint_slice(&slice("IPv4", "10.0.0.1"), None).is_empty());
        assert_eq!(
            fields(&endpoint_slice(&slice("IPv6", "10.0.0.1"), None)),
            ["endpoints[0].addresses"]
        );
        assert_eq!(
            fields(&endpoint_slice(&slice("IPv4", "x"), None)),
            ["endpoints[0].addresses[0]"]
        );
        assert_eq!(
            fields(&endpoint_slice(&slice("Unix", "x"), None)),
            ["addressType"]
        );
        let causes = endpoint_slice(&slice("IPv6", "fd00::1"), Some(&slice("IPv4", "10.0.0.1")));
        assert_eq!(fields(&causes), ["addressType"]);
    }

    #[test]
    fn e10_ports_may_lack_and_repeat_no_name() {
        let slice = |ports: Value| json!({"addressType": "IPv4", "endpoints": [], "ports": ports});
        assert!(endpoint_slice(&slice(json!([])), None).is_empty());
        assert!(
            endpoint_slice(
                &slice(json!([{"name": "a", "protocol": "TCP", "port": 0}])),
                None
            )
            .is_empty()
        );
        let twice = json!([{"name": "a", "protocol": "TCP"}, {"name": "a", "protocol": "UDP"}]);
        assert_eq!(
            fields(&endpoint_slice(&slice(twice), None)),
            ["ports[1].name"]
        );
    }

    #[test]
    fn a_bad_endpoints_address_gives_two_causes() {
        let object = json!({"subsets": [{"addresses": [{"ip": "x"}], "ports": [{"port": 80, "protocol": "TCP"}]}]});
        assert_eq!(
            fields(&endpoints(&object, None)),
            ["subsets[0].addresses[0].ip", "subsets[0].addresses[0].ip"]
        );
    }
}
