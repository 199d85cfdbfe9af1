//! Step 5: who may use which endpoints.
//!
//! Whether NetworkPolicies let clients through is the next step.

use std::collections::BTreeSet;

use portolan_plan::{NodePlan, Place, Policy, Reason, Verdict};
use serde_json::json;

use super::case::{Case, Kind, is_ill, listed};
use super::finding::{Checked, Finding, Severity, Step};

pub(super) fn check(case: &Case<'_>, before: &[Checked]) -> Checked {
    if case.kind() == Kind::ExternalName || case.is_headless() {
        return Checked::skipped(Step::Policy, "no packet of the Service is translated");
    }
    let spec = &case.service.spec;
    let is_local = |policy: &Option<String>| policy.as_deref() == Some("Local");
    let inner = is_local(&spec.internal_traffic_policy);
    let outer = spec.service_type != "ClusterIP" && is_local(&spec.external_traffic_policy);
    let mut said = Vec::new();
    if inner {
        said.push("internalTrafficPolicy Local");
    }
    if outer {
        said.push("externalTrafficPolicy Local");
    }
    if said.is_empty() {
        let every = "every node uses all endpoints";
        return Checked::ok(
            Step::Policy,
            match &spec.traffic_distribution {
                Some(distribution) => {
                    format!("trafficDistribution {distribution}: near endpoints first")
                }
                None => every.to_owned(),
            },
        );
    }
    let summary = said.join(", ");
    if is_ill(before) {
        return Checked::skipped(
            Step::Policy,
            format!("{summary}; there is no endpoint to use"),
        );
    }
    let mut findings = Vec::new();
    if inner {
        findings.extend(alone(case, Policy::Internal));
    }
    if outer {
        findings.extend(alone(case, Policy::External));
    }
    Checked::ok(Step::Policy, summary).with(findings)
}

/// Whether a node has no endpoint of its own for what a policy governs.
fn is_alone(case: &Case<'_>, plan: &NodePlan, policy: Policy) -> bool {
    let mut all = case.decisions(plan);
    all.any(|(frontend, decision)| {
        let cluster = matches!(frontend.place, Place::ClusterIp(_));
        let verdict = decision.for_client(policy == Policy::External);
        cluster == (policy == Policy::Internal)
            && matches!(verdict,
                Verdict::Drop(Reason::NoLocalEndpoints(of)) | Verdict::Reject(Reason::NoLocalEndpoints(of))
                if *of == policy)
    })
}

/// The nodes without an endpoint of their own.
fn alone(case: &Case<'_>, policy: Policy) -> Option<Finding> {
    let nodes = case
        .seen
        .plans
        .iter()
        .filter(|plan| is_alone(case, plan, policy));
    let nodes: Vec<&str> = nodes.map(|plan| &*plan.view.node).collect();
    if nodes.is_empty() {
        return None;
    }
    let endpoints = case.slices.iter().flat_map(|slice| &slice.endpoints);
    let ready = endpoints.filter(|endpoint| endpoint.conditions.ready.unwrap_or(true));
    let hold: BTreeSet<&str> = ready
        .filter_map(|endpoint| endpoint.node_name.as_deref())
        .collect();
    let hold: Vec<&str> = hold.into_iter().collect();
    let (have, theirs) = if nodes.len() == 1 {
        ("has", "its address does")
    } else {
        ("have", "their addresses do")
    };
    let what = match policy {
        Policy::Internal => "what is sent to the cluster address there gets no answer".to_owned(),
        Policy::External => format!("{theirs} not answer from outside"),
    };
    let message = format!(
        "{policy} is Local: {} {have} no ready endpoint, so {what}; endpoints are on {}",
        listed(&nodes),
        listed(&hold)
    );
    // A load balancer asks the health check port, and leaves such nodes out.
    let balanced = policy == Policy::External && case.service.spec.service_type == "LoadBalancer";
    let severity = if balanced && !hold.is_empty() {
        Severity::Warning
    } else {
        Severity::Fault
    };
    let field = policy.to_string();
    let command = case.merge(&json!({"spec": {field.as_str(): "Cluster"}}));
    let finding = case.finding(severity, format!("spec.{field}"), message);
    let text = match policy {
        Policy::Internal => "use all endpoints, or run a pod on every node, as a DaemonSet does",
        Policy::External => {
            "use all endpoints, or knock only at nodes with a pod; all endpoints means that pods see a node's address in place of the client's"
        }
    };
    Some(finding.mended(text, Some(command)))
}
