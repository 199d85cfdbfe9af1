//! Services, what is behind them, and who may reach it.

use portolan_api::GROUP;
use portolan_model::Algorithm;
use serde_json::Value;

use super::Related;
use super::page::{Page, list, or_none, plain, selector, sorted, text, time};

/// How many endpoints a line shows before it says how many more there are.
const SHOWN_ENDPOINTS: usize = 3;

/// A Service: its addresses, and per port where it leads.
pub(super) fn service(page: &mut Page, service: &Value, related: &Related) {
    let spec = &service["spec"];
    page.metadata(service);
    page.field(0, "Selector", selector(&spec["selector"]));
    page.field(0, "Type", text(&spec["type"]));
    page.field_if(0, "IP Family Policy", text(&spec["ipFamilyPolicy"]));
    page.field(0, "IP Families", or_none(joined(&spec["ipFamilies"])));
    page.field(0, "IP", text(&spec["clusterIP"]));
    page.field(0, "IPs", or_none(joined(&spec["clusterIPs"])));
    page.field_if(0, "External IPs", &joined(&spec["externalIPs"]));
    page.field_if(0, "Desired LoadBalancer IP", text(&spec["loadBalancerIP"]));
    page.field_if(0, "External Name", text(&spec["externalName"]));
    page.field_if(0, "LoadBalancer Ingress", &ingress(service));
    for port in list(&spec["ports"]) {
        service_port(page, port, related);
    }
    page.field(0, "Session Affinity", text(&spec["sessionAffinity"]));
    balance(page, &service["metadata"]["annotations"]);
    for (label, field) in [
        ("External Traffic Policy", "externalTrafficPolicy"),
        ("Internal Traffic Policy", "internalTrafficPolicy"),
    ] {
        page.field_if(0, label, text(&spec[field]));
    }
    if let Some(port) = spec["healthCheckNodePort"].as_i64().filter(|p| *p != 0) {
        page.field(0, "HealthCheck NodePort", port);
    }
    let ranges = joined(&spec["loadBalancerSourceRanges"]);
    page.field_if(0, "LoadBalancer Source Ranges", &ranges);
    page.field_if(
        0,
        "Traffic Distribution",
        text(&spec["trafficDistribution"]),
    );
    page.events(related);
}

/// What our annotations ask for; nothing where there are none.
fn balance(page: &mut Page, annotations: &Value) {
    let asked = |name: &str| text(&annotations[format!("{GROUP}/{name}")]);
    let algorithm = match asked("lb-algorithm") {
        "" => String::new(),
        name => Algorithm::parse(name).map_or_else(
            |error| format!("the node's default, as {error}"),
            |algorithm| algorithm.to_string(),
        ),
    };
    page.field_if(0, "LB Algorithm", &algorithm);
    page.field_if(0, "LB Weights", asked("weights"));
}

fn service_port(page: &mut Page, port: &Value, related: &Related) {
    let protocol = text(&port["protocol"]);
    let name = or_unset(text(&port["name"]));
    page.field(
        0,
        "Port",
        format_args!("{name}\t{}/{protocol}", plain(&port["port"])),
    );
    let target = plain(&port["targetPort"]);
    page.field(0, "TargetPort", format_args!("{target}/{protocol}"));
    page.field_if(0, "AppProtocol", text(&port["appProtocol"]));
    if let Some(number) = port["nodePort"].as_i64().filter(|p| *p != 0) {
        page.field(0, "NodePort", format_args!("{name}\t{number}/{protocol}"));
    }
    let behind = endpoints(&related.slices, text(&port["name"]));
    page.field(0, "Endpoints", behind);
}

/// `10.244.1.2:80,10.244.2.3:80 + 4 more...`: the ready endpoints of one port.
fn endpoints(slices: &[Value], port_name: &str) -> String {
    let mut shown = Vec::new();
    let mut more = 0_usize;
    for slice in slices {
        for port in list(&slice["ports"]) {
            if text(&port["name"]) != port_name {
                continue;
            }
            for endpoint in list(&slice["endpoints"]) {
                if endpoint["conditions"]["ready"] == false {
                    continue;
                }
                for address in list(&endpoint["addresses"]) {
                    if shown.len() == SHOWN_ENDPOINTS {
                        more += 1;
                    } else {
                        shown.push(host_port(text(address), &plain(&port["port"])));
                    }
                }
            }
        }
    }
    let text = shown.join(",");
    match more {
        0 => text,
        _ => format!("{text} + {more} more..."),
    }
}

fn host_port(address: &str, port: &str) -> String {
    if address.contains(':') {
        format!("[{address}]:{port}")
    } else {
        format!("{address}:{port}")
    }
}

fn ingress(service: &Value) -> String {
    let points = list(&service["status"]["loadBalancer"]["ingress"]);
    let shown: Vec<String> = points
        .iter()
        .map(|p| match (text(&p["ip"]), text(&p["ipMode"])) {
            ("", _) => text(&p["hostname"]).to_owned(),
            (ip, "") => ip.to_owned(),
            (ip, mode) => format!("{ip} ({mode})"),
        })
        .collect();
    shown.join(", ")
}

/// A hand-written or mirrored Endpoints object.
pub(super) fn endpoints_object(page: &mut Page, endpoints: &Value, related: &Related) {
    page.metadata(endpoints);
    page.line(0, "Subsets:");
    for subset in list(&endpoints["subsets"]) {
        for (label, field) in [
            ("Addresses", "addresses"),
            ("NotReadyAddresses", "notReadyAddresses"),
        ] {
            let ips: Vec<&str> = list(&subset[field])
                .iter()
                .map(|a| text(&a["ip"]))
                .collect();
            page.field(1, label, or_none(ips.join(",")));
        }
        let ports = list(&subset["ports"]);
        if !ports.is_empty() {
            page.line(1, "Ports:");
            ports_table(page, 2, ports);
        }
        page.line(0, "");
    }
    page.events(related);
}

/// An EndpointSlice, endpoint by endpoint.
pub(super) fn endpoint_slice(page: &mut Page, slice: &Value, related: &Related) {
    page.metadata(slice);
    page.field(0, "AddressType", text(&slice["addressType"]));
    let ports = list(&slice["ports"]);
    if ports.is_empty() {
        page.line(0, "Ports: <unset>");
    } else {
        page.line(0, "Ports:");
        ports_table(page, 1, ports);
    }
    let endpoints = list(&slice["endpoints"]);
    if endpoints.is_empty() {
        page.line(0, "Endpoints: <none>");
    } else {
        page.line(0, "Endpoints:");
    }
    for endpoint in endpoints {
        slice_endpoint(page, endpoint);
    }
    page.events(related);
}

fn slice_endpoint(page: &mut Page, endpoint: &Value) {
    let addresses: Vec<&str> = list(&endpoint["addresses"]).iter().map(text).collect();
    page.field(1, "- Addresses", or_none(addresses.join(", ")));
    page.line(2, "Conditions:");
    let conditions = &endpoint["conditions"];
    let ready = &conditions["ready"];
    page.field(
        3,
        "Ready",
        if ready.is_null() {
            "<unset>".to_owned()
        } else {
            ready.to_string()
        },
    );
    // Why an endpoint that is not ready may still get traffic.
    if conditions["terminating"] == true {
        page.field(3, "Serving", &conditions["serving"]);
        page.field(3, "Terminating", true);
    }
    page.field(2, "Hostname", or_unset(text(&endpoint["hostname"])));
    let target = &endpoint["targetRef"];
    if target.is_object() {
        let (kind, name) = (text(&target["kind"]), text(&target["name"]));
        page.field(2, "TargetRef", format_args!("{kind}/{name}"));
    }
    page.field(2, "NodeName", or_unset(text(&endpoint["nodeName"])));
    page.field(2, "Zone", or_unset(text(&endpoint["zone"])));
}

fn ports_table(page: &mut Page, level: usize, ports: &[Value]) {
    page.line(level, "Name\tPort\tProtocol");
    page.line(level, "----\t----\t--------");
    for port in ports {
        let number = port["port"].as_u64();
        let number = number.map_or("<unset>".to_owned(), |n| n.to_string());
        let name = or_unset(text(&port["name"]));
        let protocol = text(&port["protocol"]);
        page.line(level, format_args!("{name}\t{number}\t{protocol}"));
    }
}

/// A NetworkPolicy, rule by rule.
pub(super) fn network_policy(page: &mut Page, policy: &Value) {
    let metadata = &policy["metadata"];
    let spec = &policy["spec"];
    page.field(0, "Name", text(&metadata["name"]));
    page.field(0, "Namespace", text(&metadata["namespace"]));
    page.field(0, "Created on", created_on(&metadata["creationTimestamp"]));
    page.labels(0, "Labels", &metadata["labels"]);
    page.annotations(&metadata["annotations"]);
    page.line(0, "Spec:");
    let pods = match selector(&spec["podSelector"]) {
        none if none == "<none>" => {
            "<none> (Allowing the specific traffic to all pods in this namespace)".to_owned()
        }
        some => some,
    };
    page.line(1, format_args!("PodSelector:     {pods}"));
    let types: Vec<&str> = list(&spec["policyTypes"]).iter().map(text).collect();
    for (kind, direction, peers, restricted) in [
        ("Ingress", "ingress", "from", "source"),
        ("Egress", "egress", "to", "destination"),
    ] {
        if !types.contains(&kind) {
            page.line(1, format_args!("Not affecting {direction} traffic"));
            continue;
        }
        page.line(1, format_args!("Allowing {direction} traffic:"));
        let rules = list(&spec[direction]);
        if rules.is_empty() {
            let none = format!("<none> (Selected pods are isolated for {direction} connectivity)");
            page.line(2, none);
        }
        for (i, rule) in rules.iter().enumerate() {
            policy_rule(page, rule, peers, restricted);
            if i + 1 < rules.len() {
                page.line(2, "----------");
            }
        }
    }
    page.line(
        1,
        format_args!("Policy Types: {}", or_none(types.join(", "))),
    );
}

fn policy_rule(page: &mut Page, rule: &Value, peers: &str, restricted: &str) {
    let ports = list(&rule["ports"]);
    if ports.is_empty() {
        page.line(2, "To Port: <any> (traffic allowed to all ports)");
    }
    for port in ports {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let number = plain(&port["port"]);
        match port["endPort"].as_i64() {
            None => page.line(2, format_args!("To Port: {number}/{protocol}")),
            Some(end) => page.line(2, format_args!("To Port Range: {number}-{end}/{protocol}")),
        }
    }
    let label = if peers == "from" { "From" } else { "To" };
    let others = list(&rule[peers]);
    if others.is_empty() {
        let any = format!("{label}: <any> (traffic not restricted by {restricted})");
        page.line(2, any);
    }
    for peer in others {
        page.line(2, format_args!("{label}:"));
        for (title, field) in [
            ("NamespaceSelector", "namespaceSelector"),
            ("PodSelector", "podSelector"),
        ] {
            if peer[field].is_object() {
                page.line(3, format_args!("{title}: {}", selector(&peer[field])));
            }
        }
        if peer["ipBlock"].is_object() {
            let block = &peer["ipBlock"];
            page.line(3, "IPBlock:");
            page.line(4, format_args!("CIDR: {}", text(&block["cidr"])));
            let except: Vec<&str> = list(&block["except"]).iter().map(text).collect();
            page.line(4, format_args!("Except: {}", except.join(", ")));
        }
    }
}

/// `2026-11-21 03:29:43 +0000 UTC`: the one place where kubectl shows a time in Go's own form.
fn created_on(stamp: &Value) -> String {
    match text(stamp).parse::<jiff::Timestamp>() {
        Ok(at) => {
            let local = at.to_zoned(jiff::tz::TimeZone::system());
            local.strftime("%Y-%m-%d %H:%M:%S %z %Z").to_string()
        }
        Err(_unset) => time(stamp),
    }
}

/// A ServiceCIDR or an IPAddress: whose the addresses of Services are.
pub(super) fn addresses(page: &mut Page, object: &Value, related: &Related) {
    page.metadata(object);
    let spec = &object["spec"];
    if spec["cidrs"].is_array() {
        let cidrs: Vec<&str> = list(&spec["cidrs"]).iter().map(text).collect();
        page.field(0, "CIDRs", cidrs.join(", "));
    }
    let conditions = list(&object["status"]["conditions"]);
    if !conditions.is_empty() {
        page.line(0, "Status:");
    }
    page.conditions(conditions);
    if spec["parentRef"].is_object() {
        page.line(0, "Parent Reference:");
        for (label, field) in [
            ("Group", "group"),
            ("Resource", "resource"),
            ("Namespace", "namespace"),
            ("Name", "name"),
        ] {
            page.field(1, label, text(&spec["parentRef"][field]));
        }
    }
    page.events(related);
}

/// An IngressClass: who serves Ingresses of that class.
pub(super) fn ingress_class(page: &mut Page, class: &Value, related: &Related) {
    page.metadata(class);
    page.field(0, "Controller", text(&class["spec"]["controller"]));
    let parameters = sorted(&class["spec"]["parameters"]);
    if !parameters.is_empty() {
        page.line(0, "Parameters:");
    }
    for (label, field) in [("APIGroup", "apiGroup"), ("Kind", "kind"), ("Name", "name")] {
        page.field_if(1, label, text(&class["spec"]["parameters"][field]));
    }
    page.events(related);
}

fn joined(values: &Value) -> String {
    let parts: Vec<&str> = list(values).iter().map(text).collect();
    parts.join(",")
}

fn or_unset(text: &str) -> &str {
    if text.is_empty() { "<unset>" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_our_annotations_ask_for_is_told() {
        let shown = |annotations: Value| {
            let mut page = Page::default();
            balance(&mut page, &annotations);
            page.render()
        };
        assert_eq!(shown(Value::Null), "");
        assert_eq!(
            shown(json!({"portolan.dev/lb-algorithm": "wrr", "portolan.dev/weights": "a=9,b=1"})),
            "LB Algorithm:  round-robin\nLB Weights:    a=9,b=1\n"
        );
        let refused = shown(json!({"portolan.dev/lb-algorithm": "lc"}));
        let told = "the node's default, as \"lc\" counts open connections";
        assert!(refused.contains(told), "{refused}");
    }

    #[test]
    fn endpoints_are_those_that_are_ready_and_no_more_than_fit() {
        let slice = |ips: &[&str], ready: bool| {
            let endpoints: Vec<Value> = ips
                .iter()
                .map(|ip| json!({"addresses": [ip], "conditions": {"ready": ready}}))
                .collect();
            json!({"ports": [{"name": "http", "port": 80}, {"name": "x", "port": 9}], "endpoints": endpoints})
        };
        let slices = [
            slice(&["10.0.0.1", "10.0.0.2"], true),
            slice(&["10.0.0.9"], false),
            slice(&["fd00::1", "10.0.0.4", "10.0.0.5"], true),
        ];
        assert_eq!(
            endpoints(&slices, "http"),
            "10.0.0.1:80,10.0.0.2:80,[fd00::1]:80 + 2 more..."
        );
        assert_eq!(endpoints(&slices, "other"), "");
    }
}
