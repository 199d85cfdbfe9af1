//! Step 2: whether the selected pods run and are ready.

use std::collections::BTreeMap;

use portolan_api::lean;

use super::case::{Case, Kind, Maker, count};
use super::finding::{Checked, Finding, Mend, Severity, Step};
use super::probe;

/// Why one pod takes no traffic.
pub(super) struct Trouble {
    pub(super) object: String,
    pub(super) field: String,
    /// What is wrong, said of one pod: `… in pod/web-1`.
    pub(super) message: String,
    pub(super) mend: Mend,
}

pub(super) fn check(case: &Case<'_>, _before: &[Checked]) -> Checked {
    if case.kind() != Kind::Selecting {
        return Checked::skipped(Step::Pods, "the Service selects none");
    }
    let staying: Vec<&lean::Pod> = case
        .selected
        .iter()
        .copied()
        .filter(|pod| !pod.metadata.is_deleting())
        .collect();
    if staying.is_empty() {
        let why = match case.selected.len() {
            0 => "no pod is selected".to_owned(),
            n => format!(
                "{} being deleted",
                if n == 1 { "the one is" } else { "all are" }
            ),
        };
        return Checked::skipped(Step::Pods, why);
    }
    let ready = case.ready().count();
    let severity = if ready == 0 && !case.service.spec.publish_not_ready_addresses {
        Severity::Fault
    } else {
        Severity::Warning
    };
    // The pods of one maker that suffer the same are one finding.
    let mut alike: BTreeMap<(String, String), (Trouble, Vec<&lean::Pod>)> = BTreeMap::new();
    for pod in staying.iter().copied().filter(|pod| !pod.is_ready()) {
        let trouble = trouble(case, pod);
        let key = (Maker::of(pod).object, trouble.field.clone());
        alike
            .entry(key)
            .or_insert_with(|| (trouble, Vec::new()))
            .1
            .push(pod);
    }
    let findings = alike.into_values().map(|(trouble, pods)| Finding {
        severity,
        object: trouble.object,
        namespace: case.namespace().to_owned(),
        field: trouble.field,
        message: match pods.len() {
            1 => trouble.message,
            n => format!(
                "{}, and so it is in {} more",
                trouble.message,
                count(n - 1, "pod")
            ),
        },
        mend: Some(trouble.mend),
    });
    let summary = format!("{ready} of {} ready", count(staying.len(), "pod"));
    Checked::ok(Step::Pods, summary).with(findings.collect())
}

/// What keeps a pod from being ready.
fn trouble(case: &Case<'_>, pod: &lean::Pod) -> Trouble {
    unscheduled(pod)
        .or_else(|| waiting(case, pod))
        .or_else(|| probe::failing(case, pod))
        .or_else(|| gated(pod))
        .unwrap_or_else(|| unexplained(pod))
}

fn describe(pod: &lean::Pod) -> String {
    let own = &pod.metadata;
    format!("kubectl describe pod {} -n {}", own.name, own.namespace)
}

fn condition<'p>(pod: &'p lean::Pod, wanted: &str) -> Option<&'p lean::Condition> {
    let mut conditions = pod.status.conditions.iter();
    conditions.find(|condition| condition.condition_type == wanted)
}

fn unscheduled(pod: &lean::Pod) -> Option<Trouble> {
    if !pod.spec.node_name.is_empty() {
        return None;
    }
    let name = &pod.metadata.name;
    let why = condition(pod, "PodScheduled").map(|c| c.message.as_str());
    let why = why
        .filter(|text| !text.is_empty())
        .unwrap_or("no scheduler took it yet");
    let maker = Maker::of(pod);
    Some(Trouble {
        field: maker.field("nodeName"),
        object: maker.object,
        message: format!("pod/{name} is on no node: {why}"),
        mend: Mend {
            text: format!("give it a node that it may be on; see {}", describe(pod)),
            command: None,
        },
    })
}

/// A container that does not run.
fn waiting(case: &Case<'_>, pod: &lean::Pod) -> Option<Trouble> {
    let lists = [
        (
            "initContainers",
            &pod.status.init_container_statuses,
            &pod.spec.init_containers,
        ),
        (
            "containers",
            &pod.status.container_statuses,
            &pod.spec.containers,
        ),
    ];
    for (list, statuses, containers) in lists {
        for (index, container) in containers.iter().enumerate() {
            let named = |status: &&lean::ContainerStatus| status.name == container.name;
            let Some(status) = statuses.iter().find(named) else {
                continue;
            };
            let place = format!("{list}[{index}]");
            if let Some(trouble) = not_running(case, pod, (container, status), &place) {
                return Some(trouble);
            }
        }
    }
    None
}

fn not_running(
    case: &Case<'_>,
    pod: &lean::Pod,
    (container, status): (&lean::Container, &lean::ContainerStatus),
    place: &str,
) -> Option<Trouble> {
    let (pod_name, name) = (&pod.metadata.name, &container.name);
    let namespace = case.namespace();
    let maker = Maker::of(pod);
    if let Some(waiting) = &status.state.waiting {
        let reason = waiting.reason.as_str();
        let said = if waiting.message.is_empty() {
            reason.to_owned()
        } else {
            format!("{reason}: {}", waiting.message)
        };
        let (field, message, text) = match reason {
            "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => (
                format!("{place}.image"),
                format!(
                    "the image {:?} of container {name} in pod/{pod_name} cannot be had: {said}",
                    container.image
                ),
                format!(
                    "name an image that is there: kubectl set image {} {name}=IMAGE -n {namespace}",
                    maker.object
                ),
            ),
            "CrashLoopBackOff" => (
                place.to_owned(),
                format!(
                    "container {name} in pod/{pod_name} ends again and again ({} restarts)",
                    status.restart_count
                ),
                format!(
                    "see what it says: kubectl logs {pod_name} -c {name} -n {namespace} --previous"
                ),
            ),
            _ => (
                place.to_owned(),
                format!("container {name} in pod/{pod_name} does not run yet: {said}"),
                format!("see what it waits for: {}", describe(pod)),
            ),
        };
        let (field, object) = (maker.field(&field), maker.object);
        return Some(Trouble {
            object,
            field,
            message,
            mend: Mend {
                text,
                command: None,
            },
        });
    }
    let ended = status.state.terminated.as_ref()?;
    if place.starts_with("init") && ended.exit_code == 0 {
        return None;
    }
    let text = format!("see what it says: kubectl logs {pod_name} -c {name} -n {namespace}");
    Some(Trouble {
        field: maker.field(place),
        object: maker.object,
        message: format!(
            "container {name} in pod/{pod_name} ended with code {}",
            ended.exit_code
        ),
        mend: Mend {
            text,
            command: None,
        },
    })
}

/// A readiness gate that is not true.
fn gated(pod: &lean::Pod) -> Option<Trouble> {
    let shut = |gate: &&lean::ReadinessGate| {
        condition(pod, &gate.condition_type).is_none_or(|c| c.status != "True")
    };
    let gate = pod.spec.readiness_gates.iter().find(shut)?;
    let wanted = &gate.condition_type;
    let name = &pod.metadata.name;
    Some(Trouble {
        object: format!("pod/{name}"),
        field: format!("status.conditions[{wanted:?}]"),
        message: format!("the readiness gate {wanted} of pod/{name} is not true"),
        mend: Mend {
            text: format!("see to the controller that sets the condition {wanted}"),
            command: None,
        },
    })
}

fn unexplained(pod: &lean::Pod) -> Trouble {
    let ready = condition(pod, "Ready");
    let said = ready.map(|c| {
        if c.message.is_empty() {
            &c.reason
        } else {
            &c.message
        }
    });
    let said = said
        .filter(|text| !text.is_empty())
        .unwrap_or(&pod.status.phase);
    let name = &pod.metadata.name;
    let node = &pod.spec.node_name;
    Trouble {
        object: format!("pod/{name}"),
        field: "status.conditions[\"Ready\"]".to_owned(),
        message: format!("pod/{name} on {node} is not ready: {said}"),
        mend: Mend {
            text: format!("see {}", describe(pod)),
            command: None,
        },
    }
}
