//! What `kubectl get pods` says about a pod, in one word and three numbers.
//!
//! The word is the phase unless something more telling is known, in this
//! order: the pod's own reason, a scheduling gate, an init container that is
//! not done (`Init:…`), the reason of a waiting or ended container (of several
//! the first container's), and above all that it is being deleted.

use crate::meta;
use crate::value::{at, bool_at, has, int_at, list_at, str_at};
use serde_json::Value;

/// The columns READY, STATUS and RESTARTS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodSummary {
    /// Containers that are ready.
    pub ready: usize,
    /// Containers that count.
    pub total: usize,
    /// The STATUS column.
    pub status: String,
    /// How often containers were started again.
    pub restarts: i64,
    /// When a container last ended before a restart (RFC 3339).
    pub last_restart: Option<String>,
}

impl PodSummary {
    /// Sums up a pod.
    pub fn of(pod: &Value) -> Self {
        let phase = str_at(pod, "status.phase");
        let mut summary = Self {
            ready: 0,
            total: list_at(pod, "spec.containers").len(),
            status: match str_at(pod, "status.reason") {
                "" => phase.to_owned(),
                reason => reason.to_owned(),
            },
            restarts: 0,
            last_restart: None,
        };
        if condition(pod, "PodScheduled")
            .is_some_and(|found| str_at(found, "reason") == "SchedulingGated")
        {
            summary.status = "SchedulingGated".to_owned();
        }
        let initialized = summary.init_containers(pod);
        if initialized {
            summary.containers(pod);
        }
        if meta::deletion_timestamp(pod).is_some() {
            if str_at(pod, "status.reason") == "NodeLost" {
                summary.status = "Unknown".to_owned();
            } else if !matches!(phase, "Succeeded" | "Failed") {
                summary.status = "Terminating".to_owned();
            }
        }
        summary
    }

    /// Reads the init containers; whether the others are to be looked at.
    fn init_containers(&mut self, pod: &Value) -> bool {
        let specs = list_at(pod, "spec.initContainers");
        let sidecar = |name: &str| {
            specs.iter().any(|spec| {
                str_at(spec, "name") == name && str_at(spec, "restartPolicy") == "Always"
            })
        };
        self.total += specs
            .iter()
            .filter(|spec| sidecar(str_at(spec, "name")))
            .count();
        let mut sidecars = Self {
            restarts: 0,
            last_restart: None,
            ..self.clone()
        };
        let mut initializing = false;
        for (index, status) in list_at(pod, "status.initContainerStatuses")
            .iter()
            .enumerate()
        {
            let is_sidecar = sidecar(str_at(status, "name"));
            self.count_restarts(status);
            if is_sidecar {
                sidecars.count_restarts(status);
            }
            if has(status, "state.terminated")
                && int_at(status, "state.terminated.exitCode").unwrap_or(0) == 0
            {
                continue;
            }
            if is_sidecar && bool_at(status, "started") {
                self.ready += usize::from(bool_at(status, "ready"));
                continue;
            }
            self.status = init_status(status, index, specs.len());
            initializing = true;
            break;
        }
        let initialized =
            condition(pod, "Initialized").is_some_and(|found| str_at(found, "status") == "True");
        let done = !initializing || initialized;
        if done {
            self.restarts = sidecars.restarts;
            self.last_restart = sidecars.last_restart;
        }
        done
    }

    fn containers(&mut self, pod: &Value) {
        let mut running = false;
        for status in list_at(pod, "status.containerStatuses").iter().rev() {
            self.count_restarts(status);
            let waiting = str_at(status, "state.waiting.reason");
            if !waiting.is_empty() {
                self.status = waiting.to_owned();
            } else if has(status, "state.terminated") {
                self.status = ended(status);
            } else if bool_at(status, "ready") && has(status, "state.running") {
                running = true;
                self.ready += 1;
            }
        }
        if self.status == "Completed" && running {
            let ready =
                condition(pod, "Ready").is_some_and(|found| str_at(found, "status") == "True");
            self.status = if ready { "Running" } else { "NotReady" }.to_owned();
        }
    }

    fn count_restarts(&mut self, status: &Value) {
        self.restarts += int_at(status, "restartCount").unwrap_or(0);
        if let Some(time) = at(status, "lastState.terminated.finishedAt").as_str()
            && self.last_restart.as_deref().is_none_or(|last| last < time)
        {
            self.last_restart = Some(time.to_owned());
        }
    }
}

fn condition<'a>(pod: &'a Value, name: &str) -> Option<&'a Value> {
    list_at(pod, "status.conditions")
        .iter()
        .find(|condition| str_at(condition, "type") == name)
}

fn init_status(status: &Value, index: usize, total: usize) -> String {
    if has(status, "state.terminated") {
        return format!("Init:{}", ended(status));
    }
    match str_at(status, "state.waiting.reason") {
        "" | "PodInitializing" => format!("Init:{index}/{total}"),
        reason => format!("Init:{reason}"),
    }
}

/// Why a container ended: its reason, signal or exit code.
fn ended(status: &Value) -> String {
    let state = at(status, "state.terminated");
    match (
        str_at(state, "reason"),
        int_at(state, "signal").unwrap_or(0),
    ) {
        ("", 0) => format!("ExitCode:{}", int_at(state, "exitCode").unwrap_or(0)),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn summary(pod: Value) -> String {
        let summary = PodSummary::of(&pod);
        format!(
            "{}/{} {} {}",
            summary.ready, summary.total, summary.status, summary.restarts
        )
    }

    fn pod(phase: &str, containers: &[Value]) -> Value {
        let names: Vec<Value> = (0..containers.len())
            .map(|index| json!({"name": index.to_string()}))
            .collect();
        json!({"metadata": {}, "spec": {"containers": names}, "status": {"phase": phase, "containerStatuses": containers}})
    }

    #[test]
    fn status_column() {
        let running = json!({"ready": true, "state": {"running": {}}});
        let waiting = |reason: &str, restarts: i64| json!({"state": {"waiting": {"reason": reason}}, "restartCount": restarts});
        let ended = |reason: &str, code: i64| json!({"state": {"terminated": {"reason": reason, "exitCode": code}}});
        let cases = [
            (
                json!({"spec": {"containers": [{}]}, "status": {"phase": "Pending"}}),
                "0/1 Pending 0",
            ),
            (
                pod("Pending", &[waiting("ContainerCreating", 0)]),
                "0/1 ContainerCreating 0",
            ),
            (
                pod("Pending", &[waiting("ImagePullBackOff", 0)]),
                "0/1 ImagePullBackOff 0",
            ),
            (
                pod("Running", std::slice::from_ref(&running)),
                "1/1 Running 0",
            ),
            (
                pod(
                    "Running",
                    &[json!({"ready": false, "state": {"running": {}}})],
                ),
                "0/1 Running 0",
            ),
            (
                pod("Running", &[waiting("CrashLoopBackOff", 4)]),
                "0/1 CrashLoopBackOff 4",
            ),
            (
                pod("Running", &[running.clone(), ended("Error", 1)]),
                "1/2 Error 0",
            ),
            (
                pod("Succeeded", &[ended("Completed", 0)]),
                "0/1 Completed 0",
            ),
            (pod("Failed", &[ended("Error", 1)]), "0/1 Error 0"),
            (pod("Failed", &[ended("", 3)]), "0/1 ExitCode:3 0"),
            (
                pod(
                    "Failed",
                    &[json!({"state": {"terminated": {"signal": 9, "exitCode": 137}}})],
                ),
                "0/1 Signal:9 0",
            ),
            (
                pod("Running", &[running, ended("Completed", 0)]),
                "1/2 NotReady 0",
            ),
        ];
        for (object, text) in cases {
            assert_eq!(summary(object), text);
        }
    }

    #[test]
    fn deletion_and_reasons() {
        let mut object = pod(
            "Running",
            &[json!({"ready": true, "state": {"running": {}}})],
        );
        object["metadata"]["deletionTimestamp"] = json!("2024-05-01T10:00:00Z");
        assert_eq!(summary(object.clone()), "1/1 Terminating 0");
        object["status"]["reason"] = json!("NodeLost");
        assert_eq!(summary(object), "1/1 Unknown 0");
        let evicted = json!({"spec": {"containers": [{}]}, "status": {"phase": "Failed", "reason": "Evicted"}});
        assert_eq!(summary(evicted), "0/1 Evicted 0");
    }

    #[test]
    fn init_containers() {
        let object = |states: &[Value], sidecar: bool| {
            let specs: Vec<Value> = (0..states.len())
                .map(|index| match sidecar && index == 0 {
                    true => json!({"name": index.to_string(), "restartPolicy": "Always"}),
                    false => json!({"name": index.to_string()}),
                })
                .collect();
            let statuses: Vec<Value> = states
                .iter()
                .enumerate()
                .map(|(index, state)| {
                    let mut status = state.clone();
                    status["name"] = json!(index.to_string());
                    status
                })
                .collect();
            json!({"spec": {"containers": [{}], "initContainers": specs},
                "status": {"phase": "Pending", "initContainerStatuses": statuses}})
        };
        let done = json!({"state": {"terminated": {"exitCode": 0}}});
        let running = json!({"state": {"running": {}}});
        let failed =
            json!({"state": {"terminated": {"exitCode": 1, "reason": "Error"}}, "restartCount": 2});
        let crash =
            json!({"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "restartCount": 3});
        let sidecar = json!({"started": true, "ready": true, "state": {"running": {}}});
        assert_eq!(
            summary(object(&[done.clone(), running.clone()], false)),
            "0/1 Init:1/2 0"
        );
        assert_eq!(summary(object(&[failed], false)), "0/1 Init:Error 2");
        assert_eq!(
            summary(object(&[crash], false)),
            "0/1 Init:CrashLoopBackOff 3"
        );
        assert_eq!(summary(object(&[sidecar, running], true)), "1/2 Init:1/2 0");
        assert_eq!(summary(object(&[done], false)), "0/1 Pending 0");
    }
}
