//! What the steps share: the Service, whom it selects, and how to say things.

use std::collections::BTreeMap;

use portolan_api::lean;
use portolan_model::ServiceKey;
use portolan_plan::{Decision, Frontend, NodePlan, Verdict, claims};

use super::finding::{Checked, Finding, Mend, Severity};
use super::{Attempt, Seen};

/// One Service and what belongs to it.
pub(super) struct Case<'a> {
    pub(super) seen: Seen<'a>,
    pub(super) service: &'a lean::Service,
    pub(super) attempts: &'a [Attempt],
    /// The pods that the selector selects and that are not over.
    pub(super) selected: Vec<&'a lean::Pod>,
    /// The Service's EndpointSlices.
    pub(super) slices: Vec<&'a lean::EndpointSlice>,
}

/// What of a Service makes endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A name for another name: it has none.
    ExternalName,
    /// The pods of its selector.
    Selecting,
    /// What somebody writes.
    Written,
    /// Each node itself, as for names.
    OnNodes,
}

impl<'a> Case<'a> {
    pub(super) fn new(
        seen: &Seen<'a>,
        service: &'a lean::Service,
        attempts: &'a [Attempt],
    ) -> Self {
        let own = &service.metadata;
        let of_service = |slice: &&lean::EndpointSlice| {
            let label = slice.metadata.labels.get("kubernetes.io/service-name");
            slice.metadata.namespace == own.namespace && label == Some(&own.name)
        };
        let selected = |pod: &&lean::Pod| {
            pod.metadata.namespace == own.namespace && !is_over(pod) && selects(service, pod)
        };
        Self {
            seen: *seen,
            service,
            attempts,
            selected: seen.pods.iter().filter(selected).collect(),
            slices: seen.slices.iter().filter(of_service).collect(),
        }
    }

    pub(super) fn kind(&self) -> Kind {
        if self.service.spec.service_type == "ExternalName" {
            Kind::ExternalName
        } else if self.is_served_by_nodes() {
            Kind::OnNodes
        } else if self.service.spec.selector.is_empty() {
            Kind::Written
        } else {
            Kind::Selecting
        }
    }

    pub(super) fn is_headless(&self) -> bool {
        self.service.spec.cluster_ip == "None"
    }

    /// The selected pods that are ready and stay.
    pub(super) fn ready(&self) -> impl Iterator<Item = &'a lean::Pod> {
        let stays = |pod: &&lean::Pod| pod.is_ready() && !pod.metadata.is_deleting();
        self.selected.iter().copied().filter(stays)
    }

    /// What a node's plan decides at the Service's addresses and ports.
    pub(super) fn decisions<'p>(
        &self,
        plan: &'p NodePlan,
    ) -> impl Iterator<Item = (Frontend, &'p Decision)> {
        let key = ServiceKey::new(self.namespace(), self.name());
        let claimed = self
            .seen
            .cluster
            .service(&key)
            .map(|service| claims(service));
        let decided = claimed.into_iter().flatten().filter_map(|frontend| {
            let decision = plan.frontends.get(&frontend)?;
            Some((frontend, &**decision))
        });
        decided.filter(move |(_, decision)| decision.service == key)
    }

    /// Whether each node answers for the Service itself, as for names.
    pub(super) fn is_served_by_nodes(&self) -> bool {
        let here = |plan: &NodePlan| {
            let mut all = self.decisions(plan);
            all.any(|(_, decision)| matches!(decision.verdict, Verdict::Here(_)))
        };
        self.seen.plans.iter().any(here)
    }

    pub(super) fn namespace(&self) -> &'a str {
        &self.service.metadata.namespace
    }

    pub(super) fn name(&self) -> &'a str {
        &self.service.metadata.name
    }

    /// A finding about a field of the Service.
    pub(super) fn finding(
        &self,
        severity: Severity,
        field: impl Into<String>,
        message: impl Into<String>,
    ) -> Finding {
        Finding {
            severity,
            object: format!("service/{}", self.name()),
            namespace: self.namespace().to_owned(),
            field: field.into(),
            message: message.into(),
            mend: None,
        }
    }

    /// The command that merges a patch into the Service.
    pub(super) fn merge(&self, patch: &serde_json::Value) -> String {
        let patch = quoted(&patch.to_string());
        format!(
            "kubectl patch service {} -n {} --type=merge -p {patch}",
            self.name(),
            self.namespace()
        )
    }

    /// The command that replaces one field of the Service, by its JSON pointer.
    pub(super) fn replace(&self, pointer: &str, value: &serde_json::Value) -> String {
        let object = format!("service {}", self.name());
        replace(&object, self.namespace(), pointer, value)
    }
}

impl Finding {
    /// The same with what mends it.
    pub(super) fn mended(mut self, text: impl Into<String>, command: Option<String>) -> Self {
        let text = text.into();
        self.mend = Some(Mend { text, command });
        self
    }
}

/// The command that replaces one field of an object, by its JSON pointer.
pub(super) fn replace(
    object: &str,
    namespace: &str,
    pointer: &str,
    value: &serde_json::Value,
) -> String {
    let patch = serde_json::json!([{"op": "replace", "path": pointer, "value": value}]);
    let patch = quoted(&patch.to_string());
    format!("kubectl patch {object} -n {namespace} --type=json -p {patch}")
}

/// A word as a shell takes it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

/// Whether a pod has come to its end.
pub(super) fn is_over(pod: &lean::Pod) -> bool {
    matches!(pod.status.phase.as_str(), "Succeeded" | "Failed")
}

/// Whether a Service's selector selects a pod's labels, whatever its namespace.
pub(super) fn selects(service: &lean::Service, pod: &lean::Pod) -> bool {
    let selector = &service.spec.selector;
    !selector.is_empty() && is_within(selector, &pod.metadata.labels)
}

/// Whether all of `wanted` are among `labels`.
pub(super) fn is_within(
    wanted: &BTreeMap<String, String>,
    labels: &BTreeMap<String, String>,
) -> bool {
    wanted
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

/// `app=web,tier=front`.
pub(super) fn labels(labels: &BTreeMap<String, String>) -> String {
    if labels.is_empty() {
        return "no labels".to_owned();
    }
    let pairs: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    pairs.join(",")
}

/// `1 pod`, `3 pods`.
pub(super) fn count(number: usize, noun: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{ending}")
}

/// `a`, `a and b`, `a, b and c`; of many, the first few and how many more.
pub(super) fn listed<S: AsRef<str>>(words: &[S]) -> String {
    /// More than these are only counted.
    const SHOWN: usize = 4;
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    match words.as_slice() {
        [] => "none".to_owned(),
        [one] => (*one).to_owned(),
        [first @ .., last] if words.len() <= SHOWN => format!("{} and {last}", first.join(", ")),
        many => {
            let shown: Vec<&str> = many.iter().take(SHOWN).copied().collect();
            format!("{} and {} more", shown.join(", "), many.len() - SHOWN)
        }
    }
}

/// What made a pod, and so where its fields are to be changed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Maker {
    /// `deployment/web`, or `pod/web` for one that nobody made.
    pub(super) object: String,
    /// Before `spec` of the pod: `spec.template.`, or nothing.
    pub(super) prefix: &'static str,
}

impl Maker {
    /// Who made a pod. A ReplicaSet that carries the pods' hash in its name is
    /// a Deployment's.
    pub(super) fn of(pod: &lean::Pod) -> Self {
        let template = "spec.template.";
        let Some(owner) = pod.metadata.controller() else {
            let object = format!("pod/{}", pod.metadata.name);
            return Self { object, prefix: "" };
        };
        let hash = pod.metadata.labels.get("pod-template-hash");
        let deployment = hash.and_then(|hash| owner.name.strip_suffix(&format!("-{hash}")));
        let object = match deployment {
            Some(name) if owner.kind == "ReplicaSet" => format!("deployment/{name}"),
            Some(_) | None => format!("{}/{}", owner.kind.to_lowercase(), owner.name),
        };
        Self {
            object,
            prefix: template,
        }
    }

    /// Whether it is the pod itself, most of whose fields cannot be changed.
    pub(super) fn is_pod(&self) -> bool {
        self.prefix.is_empty()
    }

    /// `deployment web`, as a command has it.
    pub(super) fn words(&self) -> String {
        self.object.replacen('/', " ", 1)
    }

    /// The path of a field of the pod's spec.
    pub(super) fn field(&self, path: &str) -> String {
        format!("{}spec.{path}", self.prefix)
    }
}

/// Whether an earlier step found that clients get no answer.
pub(super) fn is_ill(before: &[Checked]) -> bool {
    let fault = |finding: &Finding| finding.severity == Severity::Fault;
    before.iter().flat_map(|step| &step.findings).any(fault)
}
