//! A checkup as programs read it.

use serde_json::{Value, json};

use super::finding::{Checked, Checkup, Finding, Severity};

impl Checkup {
    /// The checkup as one JSON object; absent values are null.
    pub fn json(&self) -> Value {
        json!({
            "service": {"namespace": self.namespace, "name": self.name},
            "healthy": !self.has_faults(),
            "faults": self.count(Severity::Fault),
            "warnings": self.count(Severity::Warning),
            "steps": self.steps.iter().map(step).collect::<Vec<_>>(),
        })
    }
}

fn step(step: &Checked) -> Value {
    json!({
        "step": step.step.name(),
        "result": step.mark().name(),
        "summary": step.summary,
        "findings": step.findings.iter().map(finding).collect::<Vec<_>>(),
    })
}

fn finding(finding: &Finding) -> Value {
    let namespace = Some(&finding.namespace).filter(|namespace| !namespace.is_empty());
    json!({
        "severity": finding.severity.name(),
        "object": finding.object,
        "namespace": namespace,
        "field": finding.field,
        "message": finding.message,
        "mend": finding.mend.as_ref().map(|mend| mend.text.as_str()),
        "command": finding.mend.as_ref().and_then(|mend| mend.command.as_deref()),
    })
}
