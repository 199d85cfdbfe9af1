//! Step 6: where clients knock, by the Service's type.

use std::net::IpAddr;

use portolan_api::lean;
use portolan_plan::Place;
use portolan_plan::load_balancer::CONDITION;
use serde_json::json;

use super::announced;
use super::case::{Case, listed};
use super::finding::{Checked, Finding, Severity, Step};

/// Who takes a Service with this label is no proxy of ours (P16).
const OTHER_PROXY: &str = "service.kubernetes.io/service-proxy-name";

/// `LoadBalancer 10.96.3.4, 80:30080/TCP`.
pub(super) fn title(service: &lean::Service) -> String {
    let spec = &service.spec;
    let kind = if spec.service_type.is_empty() {
        "ClusterIP"
    } else {
        &spec.service_type
    };
    if kind == "ExternalName" {
        return format!("{kind} {}", spec.external_name);
    }
    let kind = if spec.cluster_ip == "None" {
        "headless"
    } else {
        kind
    };
    let mut words = vec![kind.to_owned()];
    words.extend(spec.cluster_ips.iter().filter(|ip| *ip != "None").cloned());
    let ports = spec.ports.iter().map(|port| {
        let protocol = if port.protocol.is_empty() {
            "TCP"
        } else {
            &port.protocol
        };
        match port.node_port.filter(|number| *number > 0) {
            Some(number) => format!("{}:{number}/{protocol}", port.port),
            None => format!("{}/{protocol}", port.port),
        }
    });
    words.extend(ports);
    words.join(" ")
}

pub(super) fn check(case: &Case<'_>, before: &[Checked]) -> Checked {
    let spec = &case.service.spec;
    let (summary, mut findings) = match spec.service_type.as_str() {
        "ExternalName" => (
            format!("the name is an alias of {}", spec.external_name),
            external_name(case),
        ),
        _ if case.is_headless() => (
            "headless: the name leads to the endpoints themselves".to_owned(),
            headless(case),
        ),
        "NodePort" => (node_ports(case), Vec::new()),
        "LoadBalancer" => {
            let addresses = balancers(case);
            if addresses.is_empty() {
                (
                    "no address from a load balancer".to_owned(),
                    vec![pending(case)],
                )
            } else {
                let mut findings = announced::findings(case, before);
                findings.extend(partly(case));
                (format!("load balancer at {}", listed(&addresses)), findings)
            }
        }
        _ => (
            format!("cluster address {}", listed(&spec.cluster_ips)),
            Vec::new(),
        ),
    };
    let has_none = spec.cluster_ip.is_empty() && spec.cluster_ips.is_empty();
    if has_none && spec.service_type != "ExternalName" {
        let finding = case.finding(
            Severity::Fault,
            "spec.clusterIP",
            "the Service has no cluster address",
        );
        findings.push(finding.mended("make the Service anew: an API server gives it one", None));
    }
    if let Some(proxy) = case.service.metadata.labels.get(OTHER_PROXY) {
        let message = format!(
            "the label leaves the Service to the proxy {proxy:?}: this one does nothing for it"
        );
        let command = format!(
            "kubectl label service {} -n {} {OTHER_PROXY}-",
            case.name(),
            case.namespace()
        );
        let field = format!("metadata.labels[{OTHER_PROXY:?}]");
        let finding = case.finding(Severity::Warning, field, message);
        findings.push(finding.mended("take the label away, unless that proxy runs", Some(command)));
    }
    Checked::ok(Step::Address, summary).with(findings)
}

fn external_name(case: &Case<'_>) -> Vec<Finding> {
    let name = &case.service.spec.external_name;
    let field = "spec.externalName";
    if name.trim_end_matches('.').parse::<IpAddr>().is_ok() {
        let message = format!("{name} is an address, and an alias leads only to a name");
        let text = "make a Service without a selector, and an EndpointSlice with the address";
        return vec![
            case.finding(Severity::Fault, field, message)
                .mended(text, None),
        ];
    }
    let inner = name.trim_end_matches('.').strip_suffix(case.seen.domain);
    let inner = inner.and_then(|name| name.strip_suffix(".svc."));
    let Some((service, namespace)) = inner.and_then(|name| name.rsplit_once('.')) else {
        return Vec::new();
    };
    let service = service.rsplit('.').next().unwrap_or(service);
    let is_it = |other: &lean::Service| {
        other.metadata.namespace == namespace && other.metadata.name == service
    };
    if case.seen.services.iter().any(is_it) {
        return Vec::new();
    }
    let message =
        format!("{name} is a name of this cluster, and there is no Service {namespace}/{service}");
    let text = "name a Service that is there";
    vec![
        case.finding(Severity::Fault, field, message)
            .mended(text, None),
    ]
}

/// Ports are not translated: a client must know those of the pods.
fn headless(case: &Case<'_>) -> Vec<Finding> {
    let ports = case.service.spec.ports.iter().enumerate();
    let other = ports.filter_map(|(index, port)| {
        let Some(lean::IntOrString::Int(target)) = port.target_port else {
            return None;
        };
        let differs = target != 0 && target != i32::from(port.port);
        differs.then_some((index, port.port, target))
    });
    other
        .map(|(index, port, target)| {
            let message = format!(
                "a headless Service translates no port: clients must connect to {target}, not to {port}"
            );
            let command = case.replace(&format!("/spec/ports/{index}/port"), &json!(target));
            let field = format!("spec.ports[{index}].port");
            let finding = case.finding(Severity::Warning, field, message);
            finding.mended(format!("say {target} in both places"), Some(command))
        })
        .collect()
}

/// Where node ports are open.
fn node_ports(case: &Case<'_>) -> String {
    let mut open = Vec::new();
    for plan in case.seen.plans {
        for (frontend, _) in case.decisions(plan) {
            if let Place::NodePort(family) = frontend.place {
                let ranges = plan.view.node_port_ranges(family).into_iter();
                open.extend(ranges.map(|range| {
                    let (port, protocol) = (frontend.port, frontend.protocol);
                    if range.prefix_len() == range.max_prefix_len() {
                        let at = std::net::SocketAddr::new(range.addr(), port);
                        format!("{at}/{protocol}")
                    } else {
                        format!("{range} port {port}/{protocol}")
                    }
                }));
            }
        }
    }
    open.dedup();
    if open.is_empty() {
        return "node ports at every node".to_owned();
    }
    format!("node ports at {}", listed(&open))
}

fn balancers(case: &Case<'_>) -> Vec<String> {
    let ingress = &case.service.status.load_balancer.ingress;
    let names = ingress.iter().map(|at| {
        if at.ip.is_empty() {
            &at.hostname
        } else {
            &at.ip
        }
    });
    names.filter(|name| !name.is_empty()).cloned().collect()
}

/// What our own controller says about the address.
fn assigned<'a>(case: &Case<'a>) -> Option<&'a lean::Condition> {
    let mut conditions = case.service.status.conditions.iter();
    conditions.find(|one| one.condition_type == CONDITION)
}

/// An address that is missing beside others.
fn partly(case: &Case<'_>) -> Option<Finding> {
    let condition = assigned(case).filter(|one| !one.message.is_empty())?;
    let message = format!("not all addresses that it wants: {}", condition.message);
    let finding = case.finding(Severity::Warning, "status.loadBalancer", message);
    Some(finding.mended(advice(&condition.reason), None))
}

/// What mends it, by the reason in the condition.
fn advice(reason: &str) -> &'static str {
    match reason {
        "PoolExhausted" => {
            "give an AddressPool more addresses (spec.addresses), or delete Services that no longer need one"
        }
        "PortTaken" => {
            "choose another port, take it from whoever has it, or make an AddressPool: then each Service has an address of its own"
        }
        "AddressTaken" => {
            "ask for another address, or let both Services share it (annotation portolan.dev/allow-shared-ip)"
        }
        "AddressNotInPool" => "ask for an address of a pool: kubectl get addresspools",
        "PoolNotAllowed" => {
            "name the Service's namespace or labels in the AddressPool, or ask for another pool"
        }
        "NoPool" => "make an AddressPool from which the Service may have an address",
        "NoEligibleNode" => "mend the nodes, or where the Service's pods are: kubectl get nodes",
        _ => "correct what the Service asks for",
    }
}

/// A load balancer's address that nobody gave.
fn pending(case: &Case<'_>) -> Finding {
    let command = case.merge(&json!({"spec": {"type": "NodePort"}}));
    if let Some(condition) = assigned(case) {
        let message = format!("EXTERNAL-IP is <pending>: {}", condition.message);
        let mend = format!(
            "{}; or, to be reached at node ports, make it a NodePort",
            advice(&condition.reason)
        );
        let finding = case.finding(Severity::Fault, "status.loadBalancer", message);
        return finding.mended(mend, Some(command));
    }
    let about = case.seen.events.iter().filter(|event| {
        let object = &event.involved_object;
        object.kind == "Service"
            && object.namespace == case.namespace()
            && object.name == case.name()
            && event.event_type == "Warning"
    });
    let last = about.max_by_key(|event| event.last_timestamp.as_deref());
    let said = last.map(|event| format!(" ({}: {})", event.reason, event.message));
    let who = match &case.service.spec.load_balancer_class {
        Some(class) => format!("no controller of the class {class:?} gave it one"),
        None => {
            "no load balancer controller gave it one: none runs, or its pool is empty".to_owned()
        }
    };
    let message = format!(
        "EXTERNAL-IP is <pending>: {who}{}",
        said.unwrap_or_default()
    );
    case.finding(Severity::Fault, "status.loadBalancer", message).mended(
        "run a load balancer controller with addresses to give; or, to be reached at the nodes' own addresses, make it a NodePort",
        Some(command),
    )
}
