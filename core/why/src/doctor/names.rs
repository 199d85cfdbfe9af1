//! Step 7: by what names clients find the Service.

use portolan_api::lean;

use super::case::{Case, listed};
use super::finding::{Checked, Finding, Severity, Step};

pub(super) fn check(case: &Case<'_>, _before: &[Checked]) -> Checked {
    let (name, namespace, domain) = (case.name(), case.namespace(), case.seen.domain);
    let summary = format!(
        "{name} in namespace {namespace}, {name}.{namespace} elsewhere, {name}.{namespace}.svc.{domain} in full"
    );
    Checked::ok(Step::Names, summary)
        .with(no_server(case).into_iter().chain(namesakes(case)).collect())
}

/// A cluster in which nobody answers for names.
fn no_server(case: &Case<'_>) -> Option<Finding> {
    let is_dns = |service: &lean::Service| {
        let own = &service.metadata;
        let labelled = own
            .labels
            .get("k8s-app")
            .is_some_and(|app| app == "kube-dns");
        own.namespace == "kube-system" && (own.name == "kube-dns" || labelled)
    };
    if case.seen.services.iter().any(is_dns) {
        return None;
    }
    let finding = Finding {
        object: "service/kube-dns".to_owned(),
        namespace: "kube-system".to_owned(),
        ..case.finding(
            Severity::Warning,
            "metadata.name",
            "there is no Service kube-system/kube-dns: names may not resolve, addresses do",
        )
    };
    Some(finding.mended("run a DNS server behind that Service", None))
}

/// The short name means another Service in these namespaces.
fn namesakes(case: &Case<'_>) -> Option<Finding> {
    let named = |service: &&lean::Service| {
        service.metadata.name == case.name() && service.metadata.namespace != case.namespace()
    };
    let others = case.seen.services.iter().filter(named);
    let mut others: Vec<&str> = others.map(|s| s.metadata.namespace.as_str()).collect();
    others.sort_unstable();
    if others.is_empty() {
        return None;
    }
    let message = format!(
        "in namespace {} the name {} means the Service there, not this one",
        listed(&others),
        case.name()
    );
    Some(case.finding(Severity::Note, "metadata.namespace", message))
}
