//! Step 8: whether clients stay with one endpoint.

use portolan_model::{Affinity, ServiceKey};

use super::case::{Case, Kind};
use super::finding::{Checked, Finding, Severity, Step};

pub(super) fn check(case: &Case<'_>, _before: &[Checked]) -> Checked {
    if case.kind() == Kind::ExternalName || case.is_headless() {
        return Checked::skipped(Step::Affinity, "clients choose for themselves");
    }
    let key = ServiceKey::new(case.namespace(), case.name());
    let affinity = case
        .seen
        .cluster
        .service(&key)
        .map(|service| service.affinity);
    match affinity.unwrap_or(Affinity::None) {
        Affinity::None => Checked::ok(Step::Affinity, "none: each connection chooses anew"),
        Affinity::ClientIp { seconds } => {
            let summary = format!(
                "ClientIP: a client stays with its pod until {seconds} s without a new connection"
            );
            Checked::ok(Step::Affinity, summary).with(shared(case).into_iter().collect())
        }
    }
}

/// Clients that come by way of one address are one client.
fn shared(case: &Case<'_>) -> Option<Finding> {
    let outer = case.service.spec.service_type != "ClusterIP";
    let message =
        "clients behind one address, as of a proxy or a gateway, are one client and share a pod";
    outer.then(|| case.finding(Severity::Note, "spec.sessionAffinity", message))
}
