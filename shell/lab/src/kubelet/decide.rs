//! What to do next for one pod: `desired − observed → actions`, and when to
//! look again. Pure: the worker does what this says and asks again.
//!
//! ```text
//!  attach ─► init containers, one after the other ─► containers ─► … ─► ended
//!                        (sidecars stay)                              │
//!  deletion: stop (SIGTERM) ─► kill at the deadline ─► detach ─► release
//! ```

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use super::state::{Life, PodState, RestartPolicy, is_sidecar};

/// A pod whose object vanished gets no more time than this to end.
const GONE_GRACE: i64 = 1;
/// `ErrImagePull` becomes `ImagePullBackOff` when kubelet looks again.
const PULL_AGAIN_SOON: SignedDuration = SignedDuration::from_secs(2);

/// One thing to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Give the pod its network and folders.
    Attach,
    /// Start a container, for the first time or again.
    Start(String),
    /// The image's container waits in `ImagePullBackOff` from now on.
    BackOffPull(String),
    /// A container waits in `CrashLoopBackOff` from now on.
    BackOffCrash(String),
    /// Ask a container to end.
    Stop {
        name: String,
        grace: i64,
        why: String,
    },
    /// End a container whose time is up.
    Kill(String),
    /// Take the network away.
    Detach,
    /// Everything has ended: let the API server delete the object.
    Release,
    /// Nothing is left to do for this pod, ever.
    Forget,
}

/// What to do now, and when to look again if nothing happens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    pub(super) actions: Vec<Action>,
    pub(super) wake: Option<Timestamp>,
}

impl Decision {
    fn wake_at(&mut self, at: Timestamp) {
        self.wake = Some(self.wake.map_or(at, |wake| wake.min(at)));
    }
}

/// The whole decision.
pub(super) fn decide(pod: &Pod, state: &PodState, now: Timestamp) -> Decision {
    let mut out = Decision::default();
    let Some(spec) = &pod.spec else {
        return out;
    };
    if let Some(deadline) = state.deadline(spec)
        && now < deadline
        && !finished(pod)
    {
        out.wake_at(deadline);
    }
    if state.gone || pod.metadata.deletion_timestamp.is_some() {
        end(pod, spec, state, now, &mut out);
        return out;
    }
    let overdue = state.overdue(spec, now);
    if finished(pod) || ((overdue || over(spec, state)) && !state.any_running()) {
        if state.ips.is_some() && !state.any_running() {
            out.actions.push(Action::Detach);
        }
        return out;
    }
    if overdue {
        stop_all(spec, state, now, &mut out);
        return out;
    }
    if let Some(blocked) = &state.blocked
        && now < blocked.until
    {
        out.wake_at(blocked.until);
        return out;
    }
    if state.ips.is_none() {
        out.actions.push(Action::Attach);
        return out;
    }
    if over(spec, state) {
        stop_all(spec, state, now, &mut out);
        return out;
    }
    condemned(spec, state, now, &mut out);
    start(spec, state, now, &mut out);
    out
}

/// Whether the pod is over for good, by what the API server knows.
pub(super) fn finished(pod: &Pod) -> bool {
    let phase = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    matches!(phase, Some("Succeeded" | "Failed"))
}

/// Graceful deletion, step by step.
fn end(pod: &Pod, spec: &PodSpec, state: &PodState, now: Timestamp, out: &mut Decision) {
    let grace = if state.gone {
        GONE_GRACE
    } else {
        let asked = pod.metadata.deletion_grace_period_seconds;
        asked
            .or(spec.termination_grace_period_seconds)
            .unwrap_or(30)
    };
    let since = state.ending_since.unwrap_or(now);
    let deadline = since.saturating_add(SignedDuration::from_secs(grace.max(1)));
    let deadline = deadline.unwrap_or(now);
    for (name, container) in &state.containers {
        if !container.running() {
            continue;
        }
        match container.stopping {
            None => out.actions.push(Action::Stop {
                name: name.clone(),
                grace: grace.max(1),
                why: format!("Stopping container {name}"),
            }),
            Some(stopping) if stopping.killed => {}
            Some(stopping) => kill_at(name, stopping.deadline.min(deadline), now, out),
        }
    }
    if state.any_running() {
        return;
    }
    if state.ips.is_some() {
        out.actions.push(Action::Detach);
    } else if state.gone {
        out.actions.push(Action::Forget);
    } else if state.final_status_sent {
        out.actions.push(Action::Release);
    }
}

fn kill_at(name: &str, deadline: Timestamp, now: Timestamp, out: &mut Decision) {
    if now >= deadline {
        out.actions.push(Action::Kill(name.to_owned()));
    } else {
        out.wake_at(deadline);
    }
}

/// Containers that a probe wants restarted.
fn condemned(spec: &PodSpec, state: &PodState, now: Timestamp, out: &mut Decision) {
    for (name, container) in &state.containers {
        if !container.running() {
            continue;
        }
        match (&container.condemned, container.stopping) {
            (Some(by), None) => {
                let grace = by.grace_seconds.or(spec.termination_grace_period_seconds);
                let title = by.title.to_lowercase();
                out.actions.push(Action::Stop {
                    name: name.clone(),
                    grace: grace.unwrap_or(30).max(1),
                    why: format!("Container {name} failed {title} probe, will be restarted"),
                });
            }
            (_, Some(stopping)) if !stopping.killed => kill_at(name, stopping.deadline, now, out),
            (Some(_) | None, Some(_)) | (None, None) => {}
        }
    }
}

/// Containers that should run and do not.
fn start(spec: &PodSpec, state: &PodState, now: Timestamp, out: &mut Decision) {
    let policy = RestartPolicy::of(spec);
    for container in spec.init_containers.iter().flatten() {
        let known = state.container(&container.name);
        if is_sidecar(container) {
            one(container, RestartPolicy::Always, state, now, out);
            if known.running() && known.started {
                continue;
            }
            return;
        }
        if matches!(&known.life, Life::Ended(ended) if ended.code == 0) {
            continue;
        }
        // An init container that failed runs again unless the pod never restarts.
        let policy = match policy {
            RestartPolicy::Never => RestartPolicy::Never,
            RestartPolicy::Always | RestartPolicy::OnFailure => RestartPolicy::OnFailure,
        };
        one(container, policy, state, now, out);
        return;
    }
    for container in &spec.containers {
        one(container, policy, state, now, out);
    }
}

/// Whether no container of the pod will run again but sidecars.
fn over(spec: &PodSpec, state: &PodState) -> bool {
    let policy = RestartPolicy::of(spec);
    let done = |container: &Container| {
        let known = state.container(&container.name);
        matches!(&known.life, Life::Ended(ended) if !policy.again(ended.code))
    };
    let failed = |container: &Container| {
        let known = state.container(&container.name);
        policy == RestartPolicy::Never
            && !is_sidecar(container)
            && matches!(&known.life, Life::Ended(ended) if ended.code != 0)
    };
    spec.containers.iter().all(done) || spec.init_containers.iter().flatten().any(failed)
}

/// Sidecars end when everything else has, and everything when the pod's time is up.
fn stop_all(spec: &PodSpec, state: &PodState, now: Timestamp, out: &mut Decision) {
    let grace = spec.termination_grace_period_seconds.unwrap_or(30).max(1);
    for (name, container) in &state.containers {
        match container.stopping {
            _ if !container.running() => {}
            None => out.actions.push(Action::Stop {
                name: name.clone(),
                grace,
                why: format!("Stopping container {name}"),
            }),
            Some(stopping) if stopping.killed => {}
            Some(stopping) => kill_at(name, stopping.deadline, now, out),
        }
    }
}

/// One container that should run.
fn one(
    container: &Container,
    policy: RestartPolicy,
    state: &PodState,
    now: Timestamp,
    out: &mut Decision,
) {
    let name = &container.name;
    let known = state.container(name);
    match &known.life {
        Life::Running { .. } => {}
        Life::Waiting {
            reason: "CrashLoopBackOff",
            ..
        } => {
            let until = known
                .last
                .as_ref()
                .map(|last| known.crashes.until(last.finished));
            match until {
                Some(until) if now < until => out.wake_at(until),
                Some(_) | None => out.actions.push(Action::Start(name.clone())),
            }
        }
        Life::Waiting { .. } => out.actions.push(Action::Start(name.clone())),
        Life::NoImage {
            reason,
            since,
            until,
            ..
        } => {
            let soon = since.saturating_add(PULL_AGAIN_SOON).unwrap_or(*since);
            if *reason == "ErrImagePull" && now < soon {
                out.wake_at(soon);
            } else if *reason == "ErrImagePull" {
                out.actions.push(Action::BackOffPull(name.clone()));
            } else if now < *until {
                out.wake_at(*until);
            } else {
                out.actions.push(Action::Start(name.clone()));
            }
        }
        Life::Ended(ended) if !policy.again(ended.code) => {}
        Life::Ended(ended) if now < known.crashes.until(ended.finished) => {
            out.actions.push(Action::BackOffCrash(name.clone()));
        }
        Life::Ended(_) => out.actions.push(Action::Start(name.clone())),
    }
}
