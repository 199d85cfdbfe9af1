//! `status` of a pod from what this node knows of it: pure.
//!
//! Phases, conditions, reasons and messages are kubelet's
//! (`pkg/kubelet/kubelet_pods.go`, `pkg/kubelet/status/generate.go`).

use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        Container, ContainerState as ApiState, ContainerStateRunning, ContainerStateTerminated,
        ContainerStateWaiting, ContainerStatus, HostIP, Pod, PodCondition, PodIP, PodSpec,
        PodStatus,
    },
    apimachinery::pkg::apis::meta::v1::Time,
};

use super::state::{ContainerState, Ended, Life, PodState, RestartPolicy, is_sidecar};

/// Conditions that belong to the pod manager; others are left as they are.
pub(super) const CONDITIONS: [&str; 4] = [
    "PodReadyToStartContainers",
    "Initialized",
    "Ready",
    "ContainersReady",
];

/// Reason and message of a pod whose `activeDeadlineSeconds` are over.
pub(super) const DEADLINE: (&str, &str) = (
    "DeadlineExceeded",
    "Pod was active on the node longer than the specified deadline",
);

/// Kubernetes' `Time` has whole seconds.
pub(super) fn seconds(at: Timestamp) -> Time {
    Time(Timestamp::from_second(at.as_second()).unwrap_or(at))
}

/// The status that the API server should have.
pub(super) fn status(
    pod: &Pod,
    state: &PodState,
    host_ips: &[IpAddr],
    now: Timestamp,
) -> PodStatus {
    let old = pod.status.clone().unwrap_or_default();
    let Some(spec) = &pod.spec else {
        return old;
    };
    let over = |phase: &&str| matches!(*phase, "Succeeded" | "Failed");
    let known = old.phase.as_deref().filter(over);
    let overdue =
        known.is_none() && !ending(pod, state) && !state.any_running() && state.overdue(spec, now);
    let phase = match known {
        Some(over) => over,
        None if overdue => "Failed",
        None => phase(pod, spec, state),
    };
    let init = spec.init_containers.iter().flatten();
    let init: Vec<_> = init.map(|c| container_status(c, spec, state)).collect();
    let mut containers: Vec<_> = spec
        .containers
        .iter()
        .map(|c| container_status(c, spec, state))
        .collect();
    containers.sort_by(|a, b| a.name.cmp(&b.name));
    let text = |ip: &IpAddr| ip.to_string();
    let ips = state.ips.iter().flatten();
    let mut pod_ips: Vec<PodIP> = ips.map(|ip| PodIP { ip: text(ip) }).collect();
    if pod_ips.is_empty() && (matches!(phase, "Succeeded" | "Failed") || ending(pod, state)) {
        // What was its address stays on record; nobody uses it any more.
        pod_ips = state
            .last_ips
            .iter()
            .map(|ip| PodIP { ip: text(ip) })
            .collect();
        if pod_ips.is_empty() {
            pod_ips = old.pod_ips.clone().unwrap_or_default();
        }
    }
    let conditions = conditions(pod, spec, state, phase, now);
    let (reason, message) = match overdue {
        true => (Some(DEADLINE.0.to_owned()), Some(DEADLINE.1.to_owned())),
        false => (old.reason.clone(), old.message.clone()),
    };
    PodStatus {
        reason,
        message,
        phase: Some(phase.to_owned()),
        conditions: Some(conditions),
        host_ip: host_ips.first().map(text),
        host_ips: Some(host_ips.iter().map(|ip| HostIP { ip: text(ip) }).collect()),
        pod_ip: pod_ips.first().map(|ip| ip.ip.clone()),
        pod_ips: Some(pod_ips).filter(|ips| !ips.is_empty()),
        start_time: state.start_time.map(seconds),
        container_statuses: Some(containers),
        init_container_statuses: Some(init).filter(|init| !init.is_empty()),
        ..old
    }
}

fn ending(pod: &Pod, state: &PodState) -> bool {
    state.gone || pod.metadata.deletion_timestamp.is_some()
}

/// kubelet's `getPhase`.
fn phase(pod: &Pod, spec: &PodSpec, state: &PodState) -> &'static str {
    let policy = RestartPolicy::of(spec);
    let (mut waiting, mut running, mut failed, mut succeeded) = (0, 0, 0, 0);
    let mut count = |known: &ContainerState| match (&known.life, &known.last) {
        (Life::Running { .. }, _) => running += 1,
        (Life::Ended(ended), _) | (Life::Waiting { .. } | Life::NoImage { .. }, Some(ended)) => {
            match ended.code {
                0 => succeeded += 1,
                _ => failed += 1,
            }
        }
        (Life::Waiting { .. } | Life::NoImage { .. }, None) => waiting += 1,
    };
    for container in &spec.containers {
        count(&state.container(&container.name));
    }
    let over = failed + succeeded;
    if ending(pod, state) && running == 0 && over > 0 {
        return if failed + waiting == 0 {
            "Succeeded"
        } else {
            "Failed"
        };
    }
    match initialised(spec, state) {
        Initialised::Done => {}
        Initialised::Pending => return "Pending",
        Initialised::Failed => return "Failed",
    }
    match (waiting, running, over, policy) {
        (1.., _, _, _) => "Pending",
        (_, 1.., _, _) => "Running",
        (_, _, 0, _) => "Pending",
        (_, _, _, RestartPolicy::Always) => "Running",
        _ if failed == 0 => "Succeeded",
        (_, _, _, RestartPolicy::Never) => "Failed",
        (_, _, _, RestartPolicy::OnFailure) => "Running",
    }
}

enum Initialised {
    Done,
    Pending,
    Failed,
}

fn initialised(spec: &PodSpec, state: &PodState) -> Initialised {
    let never = RestartPolicy::of(spec) == RestartPolicy::Never;
    for container in spec.init_containers.iter().flatten() {
        let known = state.container(&container.name);
        let done = match &known.life {
            Life::Running { .. } => is_sidecar(container) && known.started,
            Life::Ended(ended) if is_sidecar(container) => ended.code == 0,
            Life::Ended(ended) if ended.code == 0 => true,
            Life::Ended(_) if never => return Initialised::Failed,
            Life::Ended(_) | Life::Waiting { .. } | Life::NoImage { .. } => false,
        };
        if !done {
            return Initialised::Pending;
        }
    }
    Initialised::Done
}

/// The pod manager's conditions, and everybody else's as they are.
fn conditions(
    pod: &Pod,
    spec: &PodSpec,
    state: &PodState,
    phase: &str,
    now: Timestamp,
) -> Vec<PodCondition> {
    let old = pod
        .status
        .as_ref()
        .and_then(|status| status.conditions.clone());
    let old = old.unwrap_or_default();
    let over = match phase {
        "Succeeded" => Some(("PodCompleted", String::new())),
        "Failed" => Some(("PodFailed", String::new())),
        _ => None,
    };
    let unready: Vec<&str> = spec
        .containers
        .iter()
        .filter(|container| !state.container(&container.name).ready)
        .map(|container| container.name.as_str())
        .collect();
    let containers_ready = match (&over, unready.as_slice()) {
        (Some((reason, _)), _) => Err((*reason, String::new())),
        (None, []) => Ok(()),
        (None, names) => Err((
            "ContainersNotReady",
            format!("containers with unready status: [{}]", names.join(" ")),
        )),
    };
    let initialised = match (&over, initialised(spec, state)) {
        (Some(("PodCompleted", _)), _) => Ok(()),
        (_, Initialised::Done) => Ok(()),
        (_, Initialised::Pending | Initialised::Failed) => {
            let unfinished = spec.init_containers.iter().flatten().filter(|container| {
                !matches!(&state.container(&container.name).life, Life::Ended(ended) if ended.code == 0)
            });
            let names: Vec<&str> = unfinished
                .map(|container| container.name.as_str())
                .collect();
            Err((
                "ContainersNotInitialized",
                format!("containers with incomplete status: [{}]", names.join(" ")),
            ))
        }
    };
    let network = state.ips.as_ref().map(drop).ok_or(("", String::new()));
    let ready = containers_ready.clone().and_then(|()| gates(spec, &old));
    let verdicts = [network, initialised, ready, containers_ready];
    let mut all: Vec<PodCondition> = CONDITIONS
        .into_iter()
        .zip(verdicts)
        .map(|(kind, verdict)| condition(kind, verdict, &old, now))
        .collect();
    all.extend(
        old.into_iter()
            .filter(|c| !CONDITIONS.contains(&c.type_.as_str())),
    );
    all
}

/// `spec.readinessGates`: conditions that others must set.
fn gates(spec: &PodSpec, old: &[PodCondition]) -> Result<(), (&'static str, String)> {
    let unmet: Vec<String> = spec
        .readiness_gates
        .iter()
        .flatten()
        .map(|gate| gate.condition_type.as_str())
        .filter(|gate| !old.iter().any(|c| c.type_ == *gate && c.status == "True"))
        .map(|gate| {
            format!("corresponding condition of pod readiness gate {gate:?} does not exist.")
        })
        .collect();
    if unmet.is_empty() {
        Ok(())
    } else {
        Err(("ReadinessGatesNotReady", unmet.join(", ")))
    }
}

/// One condition; its transition time moves only with its status.
fn condition(
    kind: &str,
    verdict: Result<(), (&'static str, String)>,
    old: &[PodCondition],
    now: Timestamp,
) -> PodCondition {
    let (status, reason, message) = match verdict {
        Ok(()) => ("True", "", String::new()),
        Err((reason, message)) => ("False", reason, message),
    };
    let before = old.iter().find(|c| c.type_ == kind && c.status == status);
    let since = before.and_then(|c| c.last_transition_time.clone());
    PodCondition {
        type_: kind.to_owned(),
        status: status.to_owned(),
        reason: Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
        message: Some(message).filter(|message| !message.is_empty()),
        last_transition_time: Some(since.unwrap_or_else(|| seconds(now))),
        last_probe_time: None,
        ..PodCondition::default()
    }
}

fn container_status(container: &Container, spec: &PodSpec, state: &PodState) -> ContainerStatus {
    let known = state.container(&container.name);
    let waiting = |reason: &str, message: &str| ApiState {
        waiting: Some(ContainerStateWaiting {
            reason: Some(reason.to_owned()),
            message: Some(message.to_owned()).filter(|message| !message.is_empty()),
        }),
        ..ApiState::default()
    };
    let has_init = spec
        .init_containers
        .as_ref()
        .is_some_and(|init| !init.is_empty());
    let (now, id) = match &known.life {
        Life::Waiting {
            reason: "ContainerCreating",
            ..
        } if has_init => (waiting("PodInitializing", ""), ""),
        Life::Waiting { reason, message } => (waiting(reason, message), ""),
        Life::NoImage {
            reason, message, ..
        } => (waiting(reason, message), ""),
        Life::Running { id, since } => {
            let running = ContainerStateRunning {
                started_at: Some(seconds(*since)),
            };
            let running = ApiState {
                running: Some(running),
                ..ApiState::default()
            };
            (running, id.as_str())
        }
        Life::Ended(ended) => (terminated(ended), ended.id.as_str()),
    };
    let last = known.last.as_ref();
    let id = match (id, last) {
        ("", Some(last)) => last.id.as_str(),
        (id, _) => id,
    };
    let image = container.image.clone().unwrap_or_default();
    let ran = !id.is_empty();
    ContainerStatus {
        name: container.name.clone(),
        state: Some(now),
        last_state: Some(last.map(terminated).unwrap_or_default()),
        ready: known.ready,
        restart_count: i32::try_from(known.restarts).unwrap_or(i32::MAX),
        image_id: if ran {
            format!("portolan://{image}")
        } else {
            String::new()
        },
        image,
        container_id: runtime_id(id),
        started: Some(known.started),
        ..ContainerStatus::default()
    }
}

fn terminated(ended: &Ended) -> ApiState {
    let terminated = ContainerStateTerminated {
        container_id: runtime_id(&ended.id),
        exit_code: ended.code,
        signal: ended.signal,
        reason: Some(ended.reason.to_owned()),
        message: Some(ended.message.clone()).filter(|message| !message.is_empty()),
        started_at: ended.started.map(seconds),
        finished_at: Some(seconds(ended.finished)),
    };
    ApiState {
        terminated: Some(terminated),
        ..ApiState::default()
    }
}

/// An id with the runtime's name before it; ids that were read back have it already.
fn runtime_id(id: &str) -> Option<String> {
    match id {
        "" => None,
        known if known.contains("://") => Some(known.to_owned()),
        new => Some(format!("portolan://{new}")),
    }
}
