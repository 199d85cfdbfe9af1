//! Rules for Service (S3–S20, S27–S29).

use super::{IMMUTABLE, address, invalid, labels, names, service_ips};
use crate::cause::{Cause, CauseReason};
use crate::kinds::service::{externally_accessible, is_headless};
use crate::kinds::service_update::needs_health_check_node_port;
use crate::meta;
use crate::value::{at, has, int_at, list_at, str_at, strings_at};
use serde_json::Value;
use std::collections::BTreeSet;

const TYPES: &[&str] = &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"];
const PROTOCOLS: &[&str] = &["SCTP", "TCP", "UDP"];
const POLICIES: &[&str] = &["Cluster", "Local"];
const AFFINITIES: &[&str] = &["ClientIP", "None"];
const DISTRIBUTIONS: &[&str] = &["PreferClose", "PreferSameNode", "PreferSameZone"];
/// A day: the longest ClientIP affinity.
const MAX_AFFINITY_SECONDS: i64 = 86_400;

pub(super) const TOPOLOGY_MODE: &str = "service.kubernetes.io/topology-mode";
pub(super) const TOPOLOGY_HINTS: &str = "service.kubernetes.io/topology-aware-hints";
const SOURCE_RANGES: &str = "service.beta.kubernetes.io/load-balancer-source-ranges";

/// Service.
pub fn service(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    if let Some(old) = old {
        causes.extend(service_ips::update(object, old));
        causes.extend(class_update(object, old));
        causes.extend(class(object));
        causes.extend(health_check_update(object, old));
    }
    causes.extend(topology(object));
    causes.extend(by_type(object));
    causes.extend(ports(object));
    causes.extend(labels::labels("spec.selector", at(object, "spec.selector")));
    causes.extend(affinity(object));
    causes.extend(service_ips::cluster_ips(object));
    for (index, ip) in strings_at(object, "spec.externalIPs").iter().enumerate() {
        let path = format!("spec.externalIPs[{index}]");
        let faults = address::ip(&path, ip);
        match faults.is_empty() {
            true => causes.extend(address::not_special(&path, ip)),
            false => causes.extend(faults),
        }
    }
    causes.extend(known("spec.type", at(object, "spec.type"), TYPES));
    causes.extend(port_pairs(object));
    causes.extend(source_ranges(object));
    causes.extend(node_port_allocation(object));
    causes.extend(class(object));
    causes.extend(traffic_policies(object));
    causes
}

/// A status update (S27).
pub fn status(object: &Value, _old: &Value) -> Vec<Cause> {
    let path = "status.loadBalancer.ingress";
    let ingress = list_at(object, path);
    if str_at(object, "spec.type") != "LoadBalancer" && !ingress.is_empty() {
        let message = "may only be used when `spec.type` is 'LoadBalancer'";
        return vec![Cause::forbidden(path, message)];
    }
    let mut causes = Vec::new();
    for (index, ingress) in ingress.iter().enumerate() {
        causes.extend(ingress_entry(&format!("{path}[{index}]"), ingress));
    }
    causes
}

fn ingress_entry(path: &str, ingress: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let ip = str_at(ingress, "ip");
    if !ip.is_empty() {
        causes.extend(address::ip(&format!("{path}.ip"), ip));
    }
    let mode_path = format!("{path}.ipMode");
    match (at(ingress, "ipMode"), ip.is_empty()) {
        (Value::Null, true) => {}
        (Value::Null, false) => causes.push(Cause::required(
            mode_path,
            "must be specified when `ip` is set",
        )),
        (_, true) => causes.push(Cause::forbidden(
            mode_path,
            "may not be specified when `ip` is not set",
        )),
        (mode, false) => causes.extend(known(&mode_path, mode, &["Proxy", "VIP"])),
    }
    let hostname = str_at(ingress, "hostname");
    if !hostname.is_empty() {
        let hostname_path = format!("{path}.hostname");
        causes.extend(invalid(
            &hostname_path,
            &hostname.into(),
            names::dns1123_subdomain(hostname),
        ));
        if address::family(hostname).is_some() {
            causes.push(Cause::invalid(
                hostname_path,
                &hostname.into(),
                "must be a DNS name, not an IP address",
            ));
        }
    }
    causes
}

/// A text that must be one of a list; empty is missing.
fn known(path: &str, value: &Value, supported: &[&str]) -> Option<Cause> {
    match value.as_str().unwrap_or("") {
        "" => Some(Cause::required(path, "")),
        text if supported.contains(&text) => None,
        _ => Some(Cause::not_supported(path, value, supported)),
    }
}

/// S28.
fn topology(object: &Value) -> Option<Cause> {
    let mode = meta::annotation(object, TOPOLOGY_MODE)?;
    let hints = meta::annotation(object, TOPOLOGY_HINTS)?;
    (mode != hints).then(|| {
        let path = format!("metadata.annotations[{TOPOLOGY_MODE}]");
        let message = format!("must match annotations[{TOPOLOGY_HINTS}] when both are specified");
        Cause::invalid(path, &mode.into(), &message)
    })
}

/// S3, S4, S5.
fn by_type(object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let service_type = str_at(object, "spec.type");
    let headless = is_headless(object);
    if list_at(object, "spec.ports").is_empty() && !headless && service_type != "ExternalName" {
        causes.push(Cause::required("spec.ports", ""));
    }
    match service_type {
        "LoadBalancer" | "NodePort" if headless => {
            let message = format!("may not be set to 'None' for {service_type} services");
            causes.push(Cause::invalid(
                "spec.clusterIPs[0]",
                &"None".into(),
                &message,
            ));
        }
        "ExternalName" => {
            let message = "may not be set for ExternalName services";
            for path in ["spec.clusterIPs", "spec.ipFamilies"] {
                if !list_at(object, path).is_empty() {
                    causes.push(Cause::forbidden(path, message));
                }
            }
            if has(object, "spec.ipFamilyPolicy") {
                causes.push(Cause::forbidden("spec.ipFamilyPolicy", message));
            }
            let name = str_at(object, "spec.externalName");
            match name.strip_suffix('.').unwrap_or(name) {
                "" => causes.push(Cause::required("spec.externalName", "")),
                name => causes.extend(invalid(
                    "spec.externalName",
                    &name.into(),
                    names::dns1123_subdomain(name),
                )),
            }
        }
        _ => {}
    }
    causes
}

/// S6, S7 and the second half of S9.
fn ports(object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let ports = list_at(object, "spec.ports");
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{index}]");
        match str_at(port, "name") {
            "" if ports.len() > 1 => causes.push(Cause::required(format!("{path}.name"), "")),
            "" => {}
            name => {
                causes.extend(invalid(
                    &format!("{path}.name"),
                    &name.into(),
                    names::dns1123_label(name),
                ));
                if !seen.insert(name) {
                    causes.push(Cause::duplicate(format!("{path}.name"), &name.into()));
                }
            }
        }
        let number = int_at(port, "port").unwrap_or(0);
        causes.extend(invalid(
            &format!("{path}.port"),
            &number.into(),
            names::port_number(number),
        ));
        causes.extend(known(
            &format!("{path}.protocol"),
            at(port, "protocol"),
            PROTOCOLS,
        ));
        causes.extend(target_port(
            &format!("{path}.targetPort"),
            at(port, "targetPort"),
        ));
        if has(port, "appProtocol") {
            let text = str_at(port, "appProtocol");
            causes.extend(invalid(
                &format!("{path}.appProtocol"),
                &text.into(),
                names::qualified_name(text),
            ));
        }
    }
    causes
}

/// A port by number or name.
pub(crate) fn target_port(path: &str, value: &Value) -> Vec<Cause> {
    match value {
        Value::String(name) => invalid(path, value, names::port_name(name)),
        Value::Number(number) => invalid(
            path,
            value,
            names::port_number(number.as_i64().unwrap_or(0)),
        ),
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => {
            invalid(path, &Value::from(0), names::port_number(0))
        }
    }
}

/// S8 and the first half of S9.
fn port_pairs(object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let ports = list_at(object, "spec.ports");
    let node_port = |port: &Value| int_at(port, "nodePort").unwrap_or(0);
    if str_at(object, "spec.type") == "ClusterIP" {
        for (index, port) in ports.iter().enumerate() {
            if node_port(port) != 0 {
                let message = "may not be used when `type` is 'ClusterIP'";
                causes.push(Cause::forbidden(
                    format!("spec.ports[{index}].nodePort"),
                    message,
                ));
            }
        }
    }
    let mut seen = BTreeSet::new();
    for (index, port) in ports
        .iter()
        .enumerate()
        .filter(|(_, port)| node_port(port) != 0)
    {
        if !seen.insert((str_at(port, "protocol"), node_port(port))) {
            let path = format!("spec.ports[{index}].nodePort");
            causes.push(Cause::duplicate(path, &node_port(port).into()));
        }
    }
    let mut seen = BTreeSet::new();
    for (index, port) in ports.iter().enumerate() {
        let (protocol, number) = (str_at(port, "protocol"), int_at(port, "port").unwrap_or(0));
        if !seen.insert((protocol, number)) {
            // The fields of Kubernetes' internal type, in its order.
            let message = format!(
                "Duplicate value: {{\"Name\":\"\",\"Protocol\":\"{protocol}\",\"AppProtocol\":null,\"Port\":{number},\"TargetPort\":0,\"NodePort\":0}}"
            );
            causes.push(Cause {
                reason: CauseReason::Duplicate,
                field: format!("spec.ports[{index}]"),
                message,
            });
        }
    }
    causes
}

/// S10.
fn affinity(object: &Value) -> Vec<Cause> {
    let mut causes: Vec<Cause> = known(
        "spec.sessionAffinity",
        at(object, "spec.sessionAffinity"),
        AFFINITIES,
    )
    .into_iter()
    .collect();
    let path = "spec.sessionAffinityConfig";
    match str_at(object, "spec.sessionAffinity") {
        "ClientIP" => {
            let client = format!("{path}.clientIP");
            let timeout = format!("{client}.timeoutSeconds");
            match (
                has(object, path),
                has(object, &client),
                int_at(object, &timeout),
            ) {
                (false, _, _) => causes.push(Cause::required(
                    path,
                    "when session affinity type is ClientIP",
                )),
                (_, false, _) => causes.push(Cause::required(
                    client,
                    "when session affinity type is ClientIP",
                )),
                (_, _, None) => causes.push(Cause::required(
                    timeout,
                    "when session affinity type is ClientIP",
                )),
                (_, _, Some(1..=MAX_AFFINITY_SECONDS)) => {}
                (_, _, Some(seconds)) => {
                    let message = format!(
                        "must be greater than 0 and less than or equal to {MAX_AFFINITY_SECONDS}"
                    );
                    causes.push(Cause::invalid(timeout, &seconds.into(), &message));
                }
            }
        }
        "None" if has(object, path) => {
            let message = "must not be set when session affinity is None";
            causes.push(Cause::forbidden(path, message));
        }
        _ => {}
    }
    causes
}

/// S12.
fn source_ranges(object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let message = "may only be used when `type` is 'LoadBalancer'";
    let balanced = str_at(object, "spec.type") == "LoadBalancer";
    let ranges = strings_at(object, "spec.loadBalancerSourceRanges");
    if !ranges.is_empty() {
        // With a capital L in Kubernetes.
        let path = "spec.LoadBalancerSourceRanges";
        if !balanced {
            causes.push(Cause::forbidden(path, message));
        }
        for (index, range) in ranges.iter().enumerate() {
            causes.extend(address::cidr(&format!("{path}[{index}]"), range.trim()));
        }
    } else if let Some(ranges) = meta::annotation(object, SOURCE_RANGES) {
        let path = format!("metadata.annotations[{SOURCE_RANGES}]");
        if !balanced {
            causes.push(Cause::forbidden(&path, message));
        }
        for range in ranges
            .trim()
            .split(',')
            .filter(|_| !ranges.trim().is_empty())
        {
            causes.extend(address::cidr(&path, range.trim()));
        }
    }
    causes
}

/// S13.
fn node_port_allocation(object: &Value) -> Option<Cause> {
    let path = "spec.allocateLoadBalancerNodePorts";
    match (
        str_at(object, "spec.type") == "LoadBalancer",
        has(object, path),
    ) {
        (false, true) => Some(Cause::forbidden(
            path,
            "may only be used when `type` is 'LoadBalancer'",
        )),
        (true, false) => Some(Cause::required("allocateLoadBalancerNodePorts", "")),
        (true, true) | (false, false) => None,
    }
}

/// S14.
fn class(object: &Value) -> Vec<Cause> {
    let path = "spec.loadBalancerClass";
    if !has(object, path) {
        return Vec::new();
    }
    if str_at(object, "spec.type") != "LoadBalancer" {
        let message = "may only be used when `type` is 'LoadBalancer'";
        return vec![Cause::forbidden(path, message)];
    }
    let text = str_at(object, path);
    invalid(path, &text.into(), names::qualified_name(text))
}

fn class_update(object: &Value, old: &Value) -> Option<Cause> {
    let path = "spec.loadBalancerClass";
    let balanced = |object: &Value| str_at(object, "spec.type") == "LoadBalancer";
    let changed = balanced(object) && balanced(old) && at(object, path) != at(old, path);
    changed.then(|| Cause::invalid(path, at(object, path), "may not change once set"))
}

/// S15, S16, S17, S18.
fn traffic_policies(object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let path = "spec.externalTrafficPolicy";
    match externally_accessible(object) {
        true => causes.extend(known(path, at(object, path), POLICIES)),
        false if !str_at(object, path).is_empty() => {
            let message = "may only be set for externally-accessible services";
            causes.push(Cause::invalid(path, at(object, path), message));
        }
        false => {}
    }
    causes.extend(health_check(object));
    let path = "spec.internalTrafficPolicy";
    let needed = matches!(
        str_at(object, "spec.type"),
        "ClusterIP" | "NodePort" | "LoadBalancer"
    );
    if needed || has(object, path) {
        causes.extend(known(path, at(object, path), POLICIES));
    }
    let path = "spec.trafficDistribution";
    if has(object, path) && !DISTRIBUTIONS.contains(&str_at(object, path)) {
        causes.push(Cause::not_supported(path, at(object, path), DISTRIBUTIONS));
    }
    causes
}

fn health_check(object: &Value) -> Vec<Cause> {
    let path = "spec.healthCheckNodePort";
    let number = int_at(object, path).unwrap_or(0);
    match (needs_health_check_node_port(object), number) {
        (true, 0) => vec![Cause::required(path, "")],
        (true, _) => invalid(path, &number.into(), names::port_number(number)),
        (false, 0) => Vec::new(),
        (false, _) => {
            let message = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'";
            vec![Cause::invalid(path, &number.into(), message)]
        }
    }
}

fn health_check_update(object: &Value, old: &Value) -> Option<Cause> {
    let path = "spec.healthCheckNodePort";
    let needed = needs_health_check_node_port(object) && needs_health_check_node_port(old);
    (needed && at(object, path) != at(old, path)).then(|| Cause::forbidden(path, IMMUTABLE))
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
