//! Step 1: whom the selector selects.

use std::collections::BTreeMap;

use portolan_api::lean;
use serde_json::{Value, json};

use super::case::{Case, Kind, Maker, count, is_over, is_within, labels, listed, selects};
use super::finding::{Checked, Finding, Severity, Step};
use super::near::{distance, is_near};

/// Labels that controllers give to each pod or revision: nobody selects by them.
const MADE: [&str; 6] = [
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "batch.kubernetes.io/controller-uid",
];

pub(super) fn check(case: &Case<'_>, _before: &[Checked]) -> Checked {
    match case.kind() {
        Kind::ExternalName => {
            return Checked::skipped(Step::Selector, "an external name has no pods");
        }
        Kind::Written => {
            return Checked::skipped(
                Step::Selector,
                "the Service has none: somebody else writes its endpoints",
            );
        }
        Kind::OnNodes => {
            return Checked::skipped(Step::Selector, "each node answers itself: no pod is needed");
        }
        Kind::Selecting => {}
    }
    let selector = labels(&case.service.spec.selector);
    if case.selected.is_empty() {
        let nobody = format!("no pod has {selector}");
        return Checked::ok(Step::Selector, nobody).with(vec![nobody_selected(case, &selector)]);
    }
    let mut makers: Vec<String> = case.selected.iter().map(|p| Maker::of(p).object).collect();
    makers.sort();
    makers.dedup();
    let pods = count(case.selected.len(), "pod");
    let summary = format!("{selector} selects {pods} of {}", listed(&makers));
    Checked::ok(Step::Selector, summary)
}

/// Why nobody is selected, by the likeliest mistake.
fn nobody_selected(case: &Case<'_>, selector: &str) -> Finding {
    let own = |pod: &&lean::Pod| pod.metadata.namespace == case.namespace();
    let pods: Vec<&lean::Pod> = case.seen.pods.iter().filter(own).collect();
    let over = pods.iter().filter(|pod| selects(case.service, pod)).count();
    if over > 0 {
        let message = format!(
            "no running pod has {selector}; {} that {} came to the end",
            count(over, "pod"),
            if over == 1 { "has it" } else { "have it" }
        );
        let text = "start pods that stay, as those of a Deployment do";
        let finding = case.finding(Severity::Fault, "spec.selector", message);
        return finding.mended(text, None);
    }
    if let Some(finding) = unmade(case, selector) {
        return finding;
    }
    let living: Vec<&lean::Pod> = pods.into_iter().filter(|pod| !is_over(pod)).collect();
    if let Some(group) = nearest_group(&case.service.spec.selector, &living) {
        return mistyped(case, selector, &group);
    }
    if let Some(finding) = elsewhere(case, selector) {
        return finding;
    }
    let finding = |message| case.finding(Severity::Fault, "spec.selector", message);
    let namespace = case.namespace();
    if living.is_empty() {
        let message =
            format!("no pod has {selector}; there is no pod at all in namespace {namespace}");
        let text = format!("start pods with the labels {selector} in namespace {namespace}");
        return finding(message).mended(text, None);
    }
    let mut there: Vec<String> = groups(&living)
        .iter()
        .map(|(labels, pods)| format!("{} ({})", self::labels(labels), count(pods.len(), "pod")))
        .collect();
    there.sort();
    let message = format!(
        "no pod has {selector}; the pods of namespace {namespace} have {}",
        listed(&there)
    );
    finding(message).mended(
        "select labels that the pods have, or start pods with these labels",
        None,
    )
}

/// A Deployment whose pods would be selected, if there were any.
fn unmade(case: &Case<'_>, selector: &str) -> Option<Finding> {
    let deployment = case.seen.deployments.iter().find(|deployment| {
        let template = &deployment.spec.template["metadata"]["labels"];
        let wanted = &case.service.spec.selector;
        let has = |(key, value): (&String, &String)| template[key] == value.as_str();
        deployment.metadata.namespace == case.namespace() && wanted.iter().all(has)
    })?;
    let name = &deployment.metadata.name;
    let namespace = case.namespace();
    let wants = deployment.spec.replicas.unwrap_or(1);
    let finding = |field: &str, message| Finding {
        object: format!("deployment/{name}"),
        ..case.finding(Severity::Fault, field, message)
    };
    if wants == 0 {
        let message = format!("no pod has {selector}; deployment/{name} is scaled to 0");
        let command = format!("kubectl scale deployment {name} -n {namespace} --replicas=1");
        return Some(finding("spec.replicas", message).mended("scale it up", Some(command)));
    }
    let message =
        format!("no pod has {selector}; deployment/{name} wants {wants} and none is there");
    let command = format!("kubectl describe deployment {name} -n {namespace}");
    let finding = finding("status.conditions", message);
    Some(finding.mended(
        format!("see what keeps it from making pods: {command}"),
        None,
    ))
}

/// Pods with the very labels, in a namespace where the Service cannot select them.
fn elsewhere(case: &Case<'_>, selector: &str) -> Option<Finding> {
    let there = |pod: &&lean::Pod| !is_over(pod) && selects(case.service, pod);
    let first = case.seen.pods.iter().find(there)?;
    let other = &first.metadata.namespace;
    let pods = case.seen.pods.iter().filter(there);
    let number = pods.filter(|pod| pod.metadata.namespace == *other).count();
    let message = format!(
        "no pod of namespace {} has {selector}; {} of namespace {other} {}, and a Service selects only pods of its own namespace",
        case.namespace(),
        count(number, "pod"),
        if number == 1 { "has" } else { "have" }
    );
    let finding = case.finding(Severity::Fault, "metadata.namespace", message);
    Some(finding.mended(
        format!("make the Service in namespace {other}, or the pods in this one"),
        None,
    ))
}

type Labels = BTreeMap<String, String>;

/// Pods by the labels that people gave them.
fn groups<'p>(pods: &[&'p lean::Pod]) -> BTreeMap<Labels, Vec<&'p lean::Pod>> {
    let mut groups: BTreeMap<Labels, Vec<&lean::Pod>> = BTreeMap::new();
    for pod in pods {
        let given = pod.metadata.labels.iter();
        let given = given.filter(|(key, _)| !MADE.contains(&key.as_str()));
        let given = given.map(|(k, v)| (k.clone(), v.clone())).collect();
        groups.entry(given).or_default().push(pod);
    }
    groups
}

/// Pods whose labels are nearly those of a selector.
struct Group {
    pods: usize,
    /// For each requirement that fails: what it should be, if anything is near.
    changes: Vec<Change>,
}

/// One requirement of a selector that pods fail.
struct Change {
    key: String,
    value: String,
    /// The label that was meant; none where the pods have nothing like it.
    meant: Option<(String, String)>,
}

fn nearest_group(selector: &Labels, pods: &[&lean::Pod]) -> Option<Group> {
    let mut best: Option<((usize, usize), Group)> = None;
    for (labels, pods) in groups(pods) {
        if labels.is_empty() {
            continue;
        }
        let mut cost = 0;
        let mut changes = Vec::new();
        let mut hits = 0;
        for (key, value) in selector {
            match meant(&labels, key, value) {
                Some((_, _, 0)) => hits += 1,
                Some((k, v, apart)) => {
                    cost += apart;
                    hits += 1;
                    changes.push(Change {
                        key: key.clone(),
                        value: value.clone(),
                        meant: Some((k, v)),
                    });
                }
                None => {
                    cost += FAR;
                    changes.push(Change {
                        key: key.clone(),
                        value: value.clone(),
                        meant: None,
                    });
                }
            }
        }
        // Ties go to the more pods.
        let rank = (cost, usize::MAX - pods.len());
        let better = best.as_ref().is_none_or(|(least, _)| rank < *least);
        if hits > 0 && better && is_within(&meant_labels(selector, &changes), &labels) {
            let pods = pods.len();
            best = Some((rank, Group { pods, changes }));
        }
    }
    best.map(|(_, group)| group)
}

/// What a requirement costs that nothing is near to.
const FAR: usize = 100;

/// The label that was meant by a requirement, and how far it is off.
fn meant(labels: &Labels, key: &str, value: &str) -> Option<(String, String, usize)> {
    if let Some(have) = labels.get(key) {
        let near = have == value || is_near(value, have);
        return near.then(|| (key.to_owned(), have.clone(), distance(value, have)));
    }
    // The same value under a key of another name, or nearly so.
    let near = labels
        .iter()
        .filter(|(k, v)| *v == value || (is_near(key, k) && is_near(value, v)));
    let costs = near.map(|(k, v)| (k, v, 1 + distance(value, v) + distance(key, k)));
    let (k, v, cost) = costs.min_by_key(|(_, _, cost)| *cost)?;
    Some((k.clone(), v.clone(), cost))
}

/// The selector as it should be.
fn meant_labels(selector: &Labels, changes: &[Change]) -> Labels {
    let mut meant = selector.clone();
    for change in changes {
        meant.remove(&change.key);
        if let Some((key, value)) = &change.meant {
            meant.insert(key.clone(), value.clone());
        }
    }
    meant
}

fn mistyped(case: &Case<'_>, selector: &str, group: &Group) -> Finding {
    let meant = meant_labels(&case.service.spec.selector, &group.changes);
    let mut patch = serde_json::Map::new();
    for change in &group.changes {
        patch.insert(change.key.clone(), Value::Null);
    }
    for change in &group.changes {
        if let Some((key, value)) = &change.meant {
            patch.insert(key.clone(), value.as_str().into());
        }
    }
    let field = match group.changes.as_slice() {
        [one] => field_of(&one.key),
        _ => "spec.selector".to_owned(),
    };
    let missing: Vec<String> = group
        .changes
        .iter()
        .filter(|c| c.meant.is_none())
        .map(|c| format!("{}={}", c.key, c.value))
        .collect();
    let without = if missing.is_empty() {
        String::new()
    } else {
        format!(" but not {}", listed(&missing))
    };
    let message = format!(
        "no pod has {selector}; {} {} {}{without}",
        count(group.pods, "pod"),
        if group.pods == 1 { "has" } else { "have" },
        labels(&meant)
    );
    let command = case.merge(&json!({"spec": {"selector": patch}}));
    case.finding(Severity::Fault, field, message)
        .mended(format!("select {}", labels(&meant)), Some(command))
}

/// The path of one requirement.
fn field_of(key: &str) -> String {
    let plain = key
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    if plain {
        format!("spec.selector.{key}")
    } else {
        format!("spec.selector[{key:?}]")
    }
}
