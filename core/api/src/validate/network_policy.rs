//! Rules for NetworkPolicies.

use super::{address, invalid, labels, names};
use crate::cause::Cause;
use crate::value::{at, has, list_at, str_at};
use ipnet::IpNet;
use serde_json::Value;
use std::collections::BTreeSet;

const DIRECTIONS: &[&str] = &["Ingress", "Egress"];

/// NetworkPolicy. Ranges that the policy had before are not judged again, wherever they
/// are now.
pub fn network_policy(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let known = old.map(ranges).unwrap_or_default();
    let mut causes = labels::selector("spec.podSelector", at(object, "spec.podSelector"));
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        let path = format!("spec.{direction}");
        for (index, rule) in list_at(object, &path).iter().enumerate() {
            let path = format!("{path}[{index}]");
            for (index, one) in list_at(rule, "ports").iter().enumerate() {
                causes.extend(port(&format!("{path}.ports[{index}]"), one));
            }
            for (index, one) in list_at(rule, peers).iter().enumerate() {
                causes.extend(peer(&format!("{path}.{peers}[{index}]"), one, &known));
            }
        }
    }
    causes.extend(policy_types(object));
    causes
}

/// All ranges of a policy, as they are written.
fn ranges(object: &Value) -> BTreeSet<&str> {
    let mut found = BTreeSet::new();
    for (direction, peers) in [("spec.ingress", "from"), ("spec.egress", "to")] {
        let rules = list_at(object, direction).iter();
        for peer in rules.flat_map(|rule| list_at(rule, peers)) {
            found.insert(str_at(peer, "ipBlock.cidr"));
            let except = list_at(peer, "ipBlock.except").iter();
            found.extend(except.filter_map(Value::as_str));
        }
    }
    found
}

fn policy_types(object: &Value) -> Vec<Cause> {
    let path = "spec.policyTypes";
    let types = list_at(object, path);
    if types.len() > DIRECTIONS.len() {
        let message = "may not specify more than two policyTypes";
        return vec![Cause::invalid(path, at(object, path), message)];
    }
    types
        .iter()
        .enumerate()
        .filter(|(_, one)| !DIRECTIONS.contains(&one.as_str().unwrap_or_default()))
        .map(|(index, one)| {
            Cause::not_supported(format!("{path}[{index}]"), one, &["Egress", "Ingress"])
        })
        .collect()
}

fn port(path: &str, port: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let protocol = str_at(port, "protocol");
    if !matches!(protocol, "" | "TCP" | "UDP" | "SCTP") {
        causes.push(Cause::not_supported(
            format!("{path}.protocol"),
            &protocol.into(),
            &["SCTP", "TCP", "UDP"],
        ));
    }
    let (first, end) = (at(port, "port"), at(port, "endPort"));
    let (first_path, end_path) = (format!("{path}.port"), format!("{path}.endPort"));
    match (first, end.as_i64()) {
        (Value::Number(_), end_number) => {
            let number = first.as_i64().unwrap_or_default();
            causes.extend(invalid(&first_path, first, names::port_number(number)));
            if let Some(end_number) = end_number {
                if end_number < number {
                    let message = "must be greater than or equal to `port`";
                    causes.push(Cause::invalid(end_path.as_str(), first, message));
                }
                causes.extend(invalid(&end_path, end, names::port_number(end_number)));
            }
        }
        (Value::String(name), end_number) => {
            if end_number.is_some() {
                let message = "may not be specified when `port` is non-numeric";
                causes.push(Cause::invalid(end_path, end, message));
            }
            causes.extend(invalid(&first_path, first, names::port_name(name)));
        }
        (_, Some(_)) => {
            let message = "may not be specified when `port` is not specified";
            causes.push(Cause::invalid(end_path, end, message));
        }
        (_, None) => {}
    }
    causes
}

fn peer(path: &str, peer: &Value, known: &BTreeSet<&str>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut selectors = false;
    for field in ["podSelector", "namespaceSelector"] {
        if has(peer, field) {
            selectors = true;
            causes.extend(labels::selector(
                &format!("{path}.{field}"),
                at(peer, field),
            ));
        }
    }
    let block = has(peer, "ipBlock");
    if block {
        let path = format!("{path}.ipBlock");
        causes.extend(ip_block(&path, at(peer, "ipBlock"), known));
    }
    match (selectors, block) {
        (false, false) => causes.push(Cause::required(path, "must specify a peer")),
        (true, true) => {
            let message = "may not specify both ipBlock and another peer";
            causes.push(Cause::forbidden(path, message));
        }
        (true, false) | (false, true) => {}
    }
    causes
}

fn ip_block(path: &str, block: &Value, known: &BTreeSet<&str>) -> Vec<Cause> {
    let judged = |path: &str, text: &str| match known.contains(text) {
        true => Vec::new(),
        false => address::cidr(path, text),
    };
    let range = str_at(block, "cidr");
    let range_path = format!("{path}.cidr");
    if range.is_empty() {
        return vec![Cause::required(range_path, "")];
    }
    let mut causes = judged(&range_path, range);
    let whole = range.parse::<IpNet>().ok();
    for (index, value) in list_at(block, "except").iter().enumerate() {
        let path = format!("{path}.except[{index}]");
        let text = value.as_str().unwrap_or_default();
        causes.extend(judged(&path, text));
        let inside = whole.zip(text.parse::<IpNet>().ok());
        let is_strict = |(whole, part): (IpNet, IpNet)| {
            whole.contains(&part.addr()) && whole.prefix_len() < part.prefix_len()
        };
        if inside.is_some_and(|both| !is_strict(both)) {
            let message = "must be a strict subset of `cidr`";
            causes.push(Cause::invalid(path, value, message));
        }
    }
    causes
}

#[cfg(test)]
mod tests;
