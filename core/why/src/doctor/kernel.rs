//! Step 9: whether nodes do as planned.
//!
//! First the plan itself: whatever no earlier step explains and still gets no
//! answer at some node is told here, so that a Service without a fault is one
//! that every node forwards. Then what the nodes say of their kernels.

use std::collections::BTreeMap;

use portolan_plan::{NodePlan, Reason, Verdict};

use super::case::{Case, Kind, count, is_ill, listed};
use super::finding::{Checked, Finding, Severity, Step};
use super::{Kernel, KernelState};

pub(super) fn check(case: &Case<'_>, before: &[Checked]) -> Checked {
    if case.kind() == Kind::ExternalName || case.is_headless() {
        return Checked::skipped(Step::Kernel, "nothing of the Service is programmed");
    }
    let mut findings = Vec::new();
    if !is_ill(before) {
        findings.extend(unexplained(case));
    }
    findings.extend(
        case.seen
            .kernels
            .iter()
            .filter_map(|kernel| trouble(case, kernel)),
    );
    let (said, looked) = said(case.seen.kernels);
    let checked = Checked::ok(Step::Kernel, said).with(findings);
    Checked { looked, ..checked }
}

/// What nodes refuse although nothing explains it. Where nodes answer for the
/// Service themselves, nobody else need be behind its other ports.
fn unexplained(case: &Case<'_>) -> Vec<Finding> {
    let mut refused: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for plan in case.seen.plans {
        for (what, reason) in refusals(case, plan) {
            refused
                .entry(format!("{what}: {reason}"))
                .or_default()
                .push(&plan.view.node);
        }
    }
    let findings = refused.into_iter().map(|(what, nodes)| {
        let message = format!("{} would not forward {what}", listed(&nodes));
        if case.kind() == Kind::OnNodes {
            return case.finding(Severity::Note, "spec.ports", message);
        }
        let text = "see where a packet goes with portolan trace";
        case.finding(Severity::Fault, "spec", message)
            .mended(text, None)
    });
    findings.collect()
}

fn refusals<'p>(case: &Case<'_>, plan: &'p NodePlan) -> Vec<(String, &'p Reason)> {
    let mut found = Vec::new();
    for (frontend, decision) in case.decisions(plan) {
        for verdict in std::iter::once(&decision.verdict).chain(&decision.outside) {
            let (Verdict::Reject(reason) | Verdict::Drop(reason)) = verdict else {
                continue;
            };
            // The policy's step tells of these.
            if !matches!(reason, Reason::NoLocalEndpoints(_)) {
                found.push((frontend.to_string(), reason));
            }
        }
    }
    found
}

/// What the nodes say, and whether any could be asked.
fn said(kernels: &[Kernel]) -> (String, bool) {
    let holds = |kernel: &&Kernel| matches!(kernel.state, KernelState::Holds(_));
    let asked = |kernel: &&Kernel| !matches!(kernel.state, KernelState::NotAsked(_));
    let number = kernels.iter().filter(asked).count();
    if number == 0 {
        let why = kernels.iter().find_map(|kernel| match &kernel.state {
            KernelState::NotAsked(why) => Some(why.as_str()),
            KernelState::Holds(_) | KernelState::Fails(_) | KernelState::Silent(_) => None,
        });
        let why = why.unwrap_or("there is no node");
        return (format!("not looked at: {why}"), false);
    }
    let well = kernels.iter().filter(holds).count();
    let nodes = count(number, "node");
    (
        format!("{well} of {nodes} say that their kernel holds the plan"),
        true,
    )
}

fn trouble(case: &Case<'_>, kernel: &Kernel) -> Option<Finding> {
    let node = &kernel.node;
    let (severity, message, text) = match &kernel.state {
        KernelState::Holds(_) | KernelState::NotAsked(_) => return None,
        KernelState::Fails(said) => (
            Severity::Fault,
            format!("the agent of {node} cannot bring its kernel to the plan: {said}"),
            "see what the agent says in its log",
        ),
        KernelState::Silent(said) => (
            Severity::Warning,
            format!(
                "no service proxy answers at the health port of {node}, so its kernel may hold an older plan: {said}"
            ),
            "see whether portolan agent runs on that node, and says how it is (--healthz-bind-address)",
        ),
    };
    let finding = Finding {
        object: format!("node/{node}"),
        namespace: String::new(),
        ..case.finding(severity, "status", message)
    };
    Some(finding.mended(text, None))
}
