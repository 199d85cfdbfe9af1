//! Warnings about a Service that is valid and not quite what its writer wants.

use super::address;
use super::service::TOPOLOGY_HINTS;
use super::service::TOPOLOGY_MODE;
use crate::kinds::service::is_headless;
use crate::meta;
use crate::value::{list_at, str_at, strings_at};
use serde_json::Value;

/// Warnings that go with a successful write (S11).
pub fn service(object: &Value, _old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    if meta::annotation(object, TOPOLOGY_HINTS).is_some() {
        warnings.push(format!(
            "annotation {TOPOLOGY_HINTS} is deprecated, please use {TOPOLOGY_MODE} instead"
        ));
    }
    let headless = is_headless(object);
    if !headless {
        warnings.extend(addresses(object, "spec.clusterIPs"));
    }
    let outside = !list_at(object, "spec.externalIPs").is_empty();
    if headless {
        if !str_at(object, "spec.loadBalancerIP").is_empty() {
            warnings.push("spec.loadBalancerIP is ignored for headless services".to_owned());
        }
        if outside {
            warnings.push("spec.externalIPs is ignored for headless services".to_owned());
        }
        if str_at(object, "spec.sessionAffinity") != "None" {
            warnings.push("spec.SessionAffinity is ignored for headless services".to_owned());
        }
    }
    warnings.extend(addresses(object, "spec.externalIPs"));
    let named = str_at(object, "spec.type") == "ExternalName";
    if outside && !headless && !named {
        warnings.push("spec.externalIPs is deprecated".to_owned());
    }
    let path = "spec.loadBalancerIP";
    warnings.extend(address::ip_warning(path, str_at(object, path)));
    let ranges = strings_at(object, "spec.loadBalancerSourceRanges");
    for (index, range) in ranges.into_iter().enumerate() {
        let path = format!("spec.loadBalancerSourceRanges[{index}]");
        warnings.extend(address::cidr_warning(&path, range));
    }
    if named && outside {
        warnings.push("spec.externalIPs is ignored when spec.type is \"ExternalName\"".to_owned());
    }
    if !named && !str_at(object, "spec.externalName").is_empty() {
        let text = "spec.externalName is ignored when spec.type is not \"ExternalName\"";
        warnings.push(text.to_owned());
    }
    if str_at(object, "spec.trafficDistribution") == "PreferClose" {
        let text =
            "spec.trafficDistribution: \"PreferClose\" is deprecated; use \"PreferSameZone\"";
        warnings.push(text.to_owned());
    }
    warnings
}

fn addresses(object: &Value, path: &str) -> Vec<String> {
    let texts = strings_at(object, path).into_iter().enumerate();
    texts
        .filter_map(|(index, text)| address::ip_warning(&format!("{path}[{index}]"), text))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(spec: Value) -> Vec<String> {
        service(&json!({"spec": spec}), None)
    }

    #[test]
    fn s11_external_ips_are_deprecated_or_ignored() {
        let ips = json!(["192.0.2.1"]);
        assert_eq!(
            of(json!({"type": "ClusterIP", "clusterIPs": ["10.0.0.1"], "externalIPs": ips})),
            ["spec.externalIPs is deprecated"]
        );
        assert_eq!(
            of(json!({"type": "ExternalName", "externalName": "a.b", "externalIPs": ips})),
            ["spec.externalIPs is ignored when spec.type is \"ExternalName\""]
        );
        assert_eq!(
            of(
                json!({"type": "ClusterIP", "clusterIPs": ["None"], "externalIPs": ips,
                "sessionAffinity": "ClientIP", "loadBalancerIP": "192.0.2.2"})
            ),
            [
                "spec.loadBalancerIP is ignored for headless services",
                "spec.externalIPs is ignored for headless services",
                "spec.SessionAffinity is ignored for headless services",
            ]
        );
    }

    #[test]
    fn s29_ipv6_addresses_have_one_spelling() {
        assert_eq!(
            of(json!({"type": "LoadBalancer", "clusterIPs": ["FD00::1"],
                "loadBalancerIP": "2001:db8:0::1", "loadBalancerSourceRanges": ["2001:DB8::/32"]})),
            [
                "spec.clusterIPs[0]: IPv6 address \"FD00::1\" should be in RFC 5952 canonical format (\"fd00::1\")",
                "spec.loadBalancerIP: IPv6 address \"2001:db8:0::1\" should be in RFC 5952 canonical format (\"2001:db8::1\")",
                "spec.loadBalancerSourceRanges[0]: IPv6 CIDR value \"2001:DB8::/32\" should be in RFC 5952 canonical format (\"2001:db8::/32\")",
            ]
        );
    }
}
