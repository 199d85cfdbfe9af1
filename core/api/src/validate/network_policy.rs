//! Rules for NetworkPolicies.

use super::{address, invalid, labels, names};
use crate::cause::Cause;
use crate::value::{at, has, list_at, str_at};
use ipnet::IpNet;
use serde_json::Value;

const DIRECTIONS: &[&str] = &["Ingress", "Egress"];

/// NetworkPolicy.
pub fn network_policy(object: &Value, _old: Option<&Value>) -> Vec<Cause> {
    let mut causes = labels::selector("spec.podSelector", at(object, "spec.podSelector"));
    for (direction, peers) in [("ingress", "from"), ("egress", "to")] {
        let path = format!("spec.{direction}");
        for (index, rule) in list_at(object, &path).iter().enumerate() {
            let path = format!("{path}[{index}]");
            for (index, one) in list_at(rule, "ports").iter().enumerate() {
                causes.extend(port(&format!("{path}.ports[{index}]"), one));
            }
            for (index, one) in list_at(rule, peers).iter().enumerate() {
                causes.extend(peer(&format!("{path}.{peers}[{index}]"), one));
            }
        }
    }
    causes.extend(policy_types(object));
    causes
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

fn peer(path: &str, peer: &Value) -> Vec<Cause> {
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
        causes.extend(ip_block(&format!("{path}.ipBlock"), at(peer, "ipBlock")));
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

fn ip_block(path: &str, block: &Value) -> Vec<Cause> {
    let range = str_at(block, "cidr");
    let range_path = format!("{path}.cidr");
    if range.is_empty() {
        return vec![Cause::required(range_path, "")];
    }
    let mut causes = address::cidr(&range_path, range);
    let whole = range.parse::<IpNet>().ok();
    for (index, value) in list_at(block, "except").iter().enumerate() {
        let path = format!("{path}.except[{index}]");
        let text = value.as_str().unwrap_or_default();
        let wrong = address::cidr(&path, text);
        let inside = whole.zip(text.parse::<IpNet>().ok());
        if wrong.is_empty()
            && inside.is_some_and(|(whole, part)| {
                !whole.contains(&part) || whole.prefix_len() >= part.prefix_len()
            })
        {
            let message = "must be a strict subset of `cidr`";
            causes.push(Cause::invalid(path, value, message));
        }
        causes.extend(wrong);
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::network_policy::KIND;
    use serde_json::json;

    fn made(spec: Value) -> Value {
        let mut object = json!({"metadata": {"name": "p", "namespace": "default"}, "spec": spec});
        (KIND.defaults)(&mut object);
        KIND.prepare_create(&mut object);
        object
    }

    fn lines(spec: Value) -> Vec<String> {
        let causes = KIND.validate_create(&made(spec));
        causes.iter().map(Cause::to_string).collect()
    }

    #[test]
    fn c13_types_and_protocols_are_filled_in() {
        let plain = made(json!({"podSelector": {}}));
        assert_eq!(plain["spec"]["policyTypes"], json!(["Ingress"]));
        let both = made(json!({"podSelector": {}, "egress": [{"ports": [{"port": 53}]}]}));
        assert_eq!(both["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
        assert_eq!(both["spec"]["egress"][0]["ports"][0]["protocol"], "TCP");
        let empty = made(json!({"podSelector": {}, "egress": []}));
        assert_eq!(empty["spec"]["policyTypes"], json!(["Ingress"]));
        let said = made(json!({"podSelector": {}, "policyTypes": ["Egress"]}));
        assert_eq!(said["spec"]["policyTypes"], json!(["Egress"]));
    }

    #[test]
    fn c13_a_whole_policy_is_fine() {
        let spec = json!({"podSelector": {"matchLabels": {"app": "api-server"}}, "policyTypes": ["Ingress", "Egress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "frontend"}}}], "ports": [{"protocol": "TCP", "port": 8080, "endPort": 8090}]}],
            "egress": [{"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}, "podSelector": {}}], "ports": [{"protocol": "UDP", "port": "dns"}]},
                {"to": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}]}]});
        assert_eq!(lines(spec), [""; 0]);
    }

    #[test]
    fn every_rule_has_its_text() {
        let rule = |rule: Value| json!({"podSelector": {}, "ingress": [rule]});
        let port = |port: Value| rule(json!({"ports": [port]}));
        let block = |cidr: &str, except: &[&str]| {
            rule(json!({"from": [{"ipBlock": {"cidr": cidr, "except": except}}]}))
        };
        let cases = [
            (
                port(json!({"port": 0})),
                "spec.ingress[0].ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ),
            (
                port(json!({"port": 90, "endPort": 80})),
                "spec.ingress[0].ports[0].endPort: Invalid value: 90: must be greater than or equal to `port`",
            ),
            (
                port(json!({"port": "http", "endPort": 80})),
                "spec.ingress[0].ports[0].endPort: Invalid value: 80: may not be specified when `port` is non-numeric",
            ),
            (
                port(json!({"endPort": 80})),
                "spec.ingress[0].ports[0].endPort: Invalid value: 80: may not be specified when `port` is not specified",
            ),
            (
                port(json!({"port": 80, "protocol": "ICMP"})),
                "spec.ingress[0].ports[0].protocol: Unsupported value: \"ICMP\": supported values: \"SCTP\", \"TCP\", \"UDP\"",
            ),
            (
                rule(json!({"from": [{}]})),
                "spec.ingress[0].from[0]: Required value: must specify a peer",
            ),
            (
                rule(json!({"from": [{"podSelector": {}, "ipBlock": {"cidr": "10.0.0.0/8"}}]})),
                "spec.ingress[0].from[0]: Forbidden: may not specify both ipBlock and another peer",
            ),
            (
                block("", &[]),
                "spec.ingress[0].from[0].ipBlock.cidr: Required value",
            ),
            (
                block("10.0.0.0/8", &["192.168.0.0/16"]),
                "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"192.168.0.0/16\": must be a strict subset of `cidr`",
            ),
            (
                block("10.0.0.0/8", &["10.0.0.0/8"]),
                "spec.ingress[0].from[0].ipBlock.except[0]: Invalid value: \"10.0.0.0/8\": must be a strict subset of `cidr`",
            ),
            (
                block("10.0.0.0", &[]),
                "spec.ingress[0].from[0].ipBlock.cidr: Invalid value: \"10.0.0.0\": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)",
            ),
            (
                json!({"podSelector": {}, "policyTypes": ["X"]}),
                "spec.policyTypes[0]: Unsupported value: \"X\": supported values: \"Egress\", \"Ingress\"",
            ),
        ];
        for (spec, text) in cases {
            assert_eq!(lines(spec), [text]);
        }
    }
}
