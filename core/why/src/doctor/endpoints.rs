//! Step 3: whether those who should serve are endpoints.

use std::collections::BTreeSet;
use std::net::IpAddr;

use portolan_api::lean;
use portolan_model::Family;

use super::case::{Case, Kind, count, is_ill, listed};
use super::finding::{Checked, Finding, Severity, Step};

pub(super) fn check(case: &Case<'_>, before: &[Checked]) -> Checked {
    match case.kind() {
        Kind::ExternalName => {
            return Checked::skipped(Step::Endpoints, "an external name has none");
        }
        Kind::OnNodes => {
            return Checked::skipped(Step::Endpoints, "each node answers itself");
        }
        Kind::Selecting if is_ill(before) => {
            let why = format!("{}, as said above", said(case));
            return Checked::skipped(Step::Endpoints, why);
        }
        Kind::Selecting | Kind::Written => {}
    }
    let summary = said(case);
    let mut findings = unused(case);
    match case.kind() {
        Kind::Written => findings.extend(unwritten(case)),
        Kind::Selecting => {
            findings.extend(missing(case));
            findings.extend(stale(case));
            findings.extend(families(case));
        }
        Kind::ExternalName | Kind::OnNodes => {}
    }
    if case.service.spec.publish_not_ready_addresses && case.kind() == Kind::Selecting {
        let message = "pods that are not ready are endpoints too";
        findings.push(case.finding(Severity::Note, "spec.publishNotReadyAddresses", message));
    }
    Checked::ok(Step::Endpoints, summary).with(findings)
}

fn said(case: &Case<'_>) -> String {
    let all: Vec<&lean::Endpoint> = endpoints(case).collect();
    let ready = all.iter().filter(|endpoint| is_ready(endpoint)).count();
    let slices = count(case.slices.len(), "EndpointSlice");
    match all.len() {
        0 => format!("none in {slices}"),
        n => format!("{ready} of {} ready in {slices}", count(n, "endpoint")),
    }
}

fn endpoints<'c>(case: &'c Case<'_>) -> impl Iterator<Item = &'c lean::Endpoint> {
    case.slices.iter().flat_map(|slice| &slice.endpoints)
}

fn is_ready(endpoint: &lean::Endpoint) -> bool {
    endpoint.conditions.ready.unwrap_or(true)
}

fn addresses(case: &Case<'_>) -> BTreeSet<IpAddr> {
    let texts = endpoints(case).flat_map(|endpoint| &endpoint.addresses);
    texts.filter_map(|text| text.parse().ok()).collect()
}

/// A Service without a selector for which nobody wrote endpoints.
fn unwritten(case: &Case<'_>) -> Option<Finding> {
    if endpoints(case).any(is_ready) {
        return None;
    }
    let (name, namespace) = (case.name(), case.namespace());
    let message = if endpoints(case).next().is_some() {
        "the Service has no selector, and none of its endpoints is ready".to_owned()
    } else {
        "the Service has no selector, and nobody wrote an EndpointSlice for it".to_owned()
    };
    let text = format!(
        "give it a selector, or write an EndpointSlice with the label kubernetes.io/service-name: {name} in namespace {namespace}"
    );
    let finding = case.finding(Severity::Fault, "spec.selector", message);
    Some(finding.mended(text, None))
}

/// Ready pods that are no endpoints.
fn missing(case: &Case<'_>) -> Option<Finding> {
    let held = addresses(case);
    let families = families_of(case);
    let absent = |pod: &&lean::Pod| {
        let own = pod
            .status
            .pod_ips
            .iter()
            .filter_map(|ip| ip.ip.parse::<IpAddr>().ok());
        let mut wanted = own.filter(|ip| families.contains(&Family::of(*ip)));
        wanted.any(|ip| !held.contains(&ip))
    };
    let absent: Vec<String> = case
        .ready()
        .filter(absent)
        .map(|pod| format!("pod/{}", pod.metadata.name))
        .collect();
    if absent.is_empty() {
        return None;
    }
    let message = format!(
        "{} ready and no endpoint: the controller that writes EndpointSlices is behind or does not run",
        if absent.len() == 1 {
            format!("{} is", listed(&absent))
        } else {
            format!("{} are", listed(&absent))
        }
    );
    let (name, namespace) = (case.name(), case.namespace());
    let text = format!(
        "look again in a moment; if it stays, see to the controllers: kubectl get endpointslices -n {namespace} -l kubernetes.io/service-name={name}"
    );
    let severity = if endpoints(case).any(is_ready) {
        Severity::Warning
    } else {
        Severity::Fault
    };
    let finding = case.finding(severity, "endpoints", message);
    Some(finding.mended(text, None))
}

/// Ready endpoints that are no pod any more.
fn stale(case: &Case<'_>) -> Option<Finding> {
    let gone = |endpoint: &&lean::Endpoint| {
        is_ready(endpoint)
            && endpoint.target_ref.as_ref().is_some_and(|of| {
                let is_it = |pod: &lean::Pod| {
                    pod.metadata.namespace == of.namespace && pod.metadata.name == of.name
                };
                of.kind == "Pod" && !case.seen.pods.iter().any(is_it)
            })
    };
    let gone: Vec<&str> = endpoints(case)
        .filter(gone)
        .flat_map(|e| &e.addresses)
        .map(String::as_str)
        .collect();
    if gone.is_empty() {
        return None;
    }
    let message = format!(
        "{} {} of a pod that is gone",
        listed(&gone),
        if gone.len() == 1 {
            "is the address"
        } else {
            "are addresses"
        }
    );
    let text =
        "look again in a moment; if it stays, see to the controller that writes EndpointSlices";
    let finding = case.finding(Severity::Warning, "endpoints", message);
    Some(finding.mended(text, None))
}

fn families_of(case: &Case<'_>) -> Vec<Family> {
    let families = case.service.spec.ip_families.iter();
    let families = families.filter_map(|family| match family.as_str() {
        "IPv4" => Some(Family::V4),
        "IPv6" => Some(Family::V6),
        _ => None,
    });
    families.collect()
}

/// A family of the Service that no ready pod has an address of.
fn families(case: &Case<'_>) -> Vec<Finding> {
    let ready: Vec<&lean::Pod> = case.ready().collect();
    let has = |family: Family| {
        let mut ips = ready.iter().flat_map(|pod| &pod.status.pod_ips);
        ips.any(|ip| ip.ip.parse().is_ok_and(|ip| Family::of(ip) == family))
    };
    let wanted = families_of(case);
    let without = wanted
        .iter()
        .enumerate()
        .filter(|(_, family)| !ready.is_empty() && !has(**family));
    without
        .map(|(index, family)| {
            let message = format!("the Service has an {family} address, and no ready pod has one");
            let text = format!("make the Service single-stack without {family}, or run the pods where they get an {family} address");
            let severity = if wanted.len() == 1 { Severity::Fault } else { Severity::Warning };
            case.finding(severity, format!("spec.ipFamilies[{index}]"), message).mended(text, None)
        })
        .collect()
}

/// What intake could not use of the Service and its slices.
fn unused(case: &Case<'_>) -> Vec<Finding> {
    let own = format!("{}/{}", case.namespace(), case.name());
    let slices: Vec<String> = case
        .slices
        .iter()
        .map(|s| format!("{}/{}", s.metadata.namespace, s.metadata.name))
        .collect();
    let about = case
        .seen
        .problems
        .iter()
        .filter(|problem| match problem.kind {
            "Service" => problem.object == own,
            "EndpointSlice" => slices.contains(&problem.object),
            _ => false,
        });
    about
        .map(|problem| {
            let (_, name) = problem
                .object
                .split_once('/')
                .unwrap_or(("", &problem.object));
            let finding = case.finding(
                Severity::Warning,
                problem.field.clone(),
                problem.message.clone(),
            );
            let object = format!("{}/{name}", problem.kind.to_lowercase());
            Finding { object, ..finding }.mended("correct the value", None)
        })
        .collect()
}
