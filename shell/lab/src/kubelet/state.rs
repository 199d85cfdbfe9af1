//! What the pod manager knows of one pod's life on this node: plain values.

use std::{collections::BTreeMap, net::IpAddr};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, ContainerStatus, Pod, PodSpec};

use super::backoff::Backoff;

/// One pod.
#[derive(Clone, Debug, Default)]
pub(super) struct PodState {
    /// When this node first saw it.
    pub(super) start_time: Option<Timestamp>,
    /// The pod's addresses, once it has a network.
    pub(super) ips: Option<Vec<IpAddr>>,
    /// The addresses it had last: they stay on record when it is over.
    pub(super) last_ips: Vec<IpAddr>,
    /// Why the pod cannot start now, and when to try again.
    pub(super) blocked: Option<Blocked>,
    /// Containers of all kinds by name.
    pub(super) containers: BTreeMap<String, ContainerState>,
    /// When the wish to end it was first seen.
    pub(super) ending_since: Option<Timestamp>,
    /// The object is gone from the API server.
    pub(super) gone: bool,
    /// The last status was sent with everything ended.
    pub(super) final_status_sent: bool,
}

/// A step that failed and will be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Blocked {
    pub(super) until: Timestamp,
    pub(super) tries: u32,
}

/// One container.
#[derive(Clone, Debug, Default)]
pub(super) struct ContainerState {
    pub(super) life: Life,
    pub(super) last: Option<Ended>,
    pub(super) restarts: u32,
    pub(super) crashes: Backoff,
    pub(super) pulls: Backoff,
    pub(super) started: bool,
    pub(super) ready: bool,
    /// Somebody asked it to stop.
    pub(super) stopping: Option<Stopping>,
    /// A probe says that it must not go on.
    pub(super) condemned: Option<Condemned>,
}

/// Where a container is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Life {
    /// Not started, or not again.
    Waiting {
        reason: &'static str,
        message: String,
    },
    /// Its image cannot be had.
    NoImage {
        reason: &'static str,
        message: String,
        since: Timestamp,
        until: Timestamp,
    },
    Running {
        id: String,
        since: Timestamp,
    },
    Ended(Ended),
}

impl Default for Life {
    fn default() -> Self {
        Self::Waiting {
            reason: "ContainerCreating",
            message: String::new(),
        }
    }
}

/// How an instance ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) id: String,
    pub(super) code: i32,
    pub(super) signal: Option<i32>,
    pub(super) reason: &'static str,
    pub(super) message: String,
    pub(super) started: Option<Timestamp>,
    pub(super) finished: Timestamp,
}

/// A container on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stopping {
    pub(super) deadline: Timestamp,
    pub(super) killed: bool,
}

/// Which probe condemned a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condemned {
    pub(super) title: &'static str,
    pub(super) grace_seconds: Option<i64>,
}

impl PodState {
    pub(super) fn container(&self, name: &str) -> ContainerState {
        self.containers.get(name).cloned().unwrap_or_default()
    }

    /// When `spec.activeDeadlineSeconds` end.
    pub(super) fn deadline(&self, spec: &PodSpec) -> Option<Timestamp> {
        let limit = SignedDuration::from_secs(spec.active_deadline_seconds?);
        self.start_time?.saturating_add(limit).ok()
    }

    /// Whether the pod was active for longer than it may be.
    pub(super) fn overdue(&self, spec: &PodSpec, now: Timestamp) -> bool {
        self.deadline(spec).is_some_and(|deadline| now >= deadline)
    }

    pub(super) fn any_running(&self) -> bool {
        self.containers.values().any(ContainerState::running)
    }

    /// What an earlier lab left in the object: containers that ran then do not
    /// run now, as after a node's reboot.
    pub(super) fn recalled(pod: &Pod, now: Timestamp) -> Self {
        let Some(status) = &pod.status else {
            return Self::default();
        };
        let lists = [&status.container_statuses, &status.init_container_statuses];
        let containers = lists
            .into_iter()
            .flatten()
            .flatten()
            .map(|status| (status.name.clone(), ContainerState::recalled(status, now)))
            .collect();
        Self {
            start_time: status.start_time.as_ref().map(|time| time.0),
            containers,
            ..Self::default()
        }
    }
}

impl ContainerState {
    pub(super) fn running(&self) -> bool {
        matches!(self.life, Life::Running { .. })
    }

    fn recalled(status: &ContainerStatus, now: Timestamp) -> Self {
        let ended = |state: &Option<k8s_openapi::api::core::v1::ContainerState>| {
            let ended = state.as_ref()?.terminated.as_ref()?;
            Some(Ended {
                id: ended.container_id.clone().unwrap_or_default(),
                code: ended.exit_code,
                signal: ended.signal,
                reason: known_reason(ended.reason.as_deref()),
                message: ended.message.clone().unwrap_or_default(),
                started: ended.started_at.as_ref().map(|time| time.0),
                finished: ended.finished_at.as_ref().map_or(now, |time| time.0),
            })
        };
        let running = status
            .state
            .as_ref()
            .and_then(|state| state.running.as_ref());
        let life = match (running, ended(&status.state)) {
            (Some(running), _) => Life::Ended(Ended {
                id: status.container_id.clone().unwrap_or_default(),
                code: 255,
                signal: None,
                reason: "Unknown",
                message: String::new(),
                started: running.started_at.as_ref().map(|time| time.0),
                finished: now,
            }),
            (None, Some(ended)) => Life::Ended(ended),
            (None, None) => match ended(&status.last_state) {
                // It was waiting to be started again.
                Some(last) => Life::Ended(last),
                None => Life::default(),
            },
        };
        Self {
            life,
            last: ended(&status.last_state),
            restarts: u32::try_from(status.restart_count).unwrap_or_default(),
            ..Self::default()
        }
    }
}

/// The reasons that this pod manager itself gives.
fn known_reason(reason: Option<&str>) -> &'static str {
    const KNOWN: [&str; 4] = ["Completed", "StartError", "Unknown", "ContainerCannotRun"];
    let known = KNOWN.into_iter().find(|known| reason == Some(known));
    known.unwrap_or("Error")
}

/// `spec.restartPolicy`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RestartPolicy {
    Always,
    OnFailure,
    Never,
}

impl RestartPolicy {
    pub(super) fn of(spec: &PodSpec) -> Self {
        match spec.restart_policy.as_deref() {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            Some(_) | None => Self::Always,
        }
    }

    pub(super) fn again(self, code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => code != 0,
            Self::Never => false,
        }
    }
}

/// An init container that goes on running beside the others (KEP-753).
pub(super) fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}
