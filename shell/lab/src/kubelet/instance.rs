//! A container's running instance: started, probed, stopped.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Lifecycle, LifecycleHandler};
use nix::sys::signal::Signal;
use portolan_client::Severity;
use tokio::{
    sync::{Mutex, mpsc, watch},
    task::JoinSet,
};

use super::{
    backoff::go_duration,
    prepare::{self, PrepareError},
    state::{Condemned, Ended, Life, Stopping},
    termination::Termination,
    worker::{Worker, one_line},
};
use crate::{
    container::{Exit, Report, Reports, Signals},
    image::{Found, Image},
    probe::{self, Answer, Asker, Handler, Kind, Machine, Spec},
};

/// Pause before a container whose configuration is wrong is tried again.
const CONFIG_AGAIN: u32 = 3;

/// What happens to a container while the worker waits.
#[derive(Debug)]
pub(super) enum Happened {
    Exited {
        name: String,
        id: String,
        exit: Exit,
        /// Its last words.
        message: String,
    },
    Probed {
        name: String,
        id: String,
        kind: Kind,
        succeeding: bool,
        /// A run of failures that condemns the container, for startup and liveness.
        condemns: Option<Condemned>,
        /// What an event says.
        failure: Option<String>,
    },
}

/// A running container. Dropped, it is killed and no longer probed.
pub(super) struct Instance {
    pub(super) id: String,
    pub(super) signals: Arc<Mutex<Signals>>,
    pub(super) asker: Asker,
    pub(super) started: watch::Sender<bool>,
    pub(super) tasks: JoinSet<()>,
}

impl Worker {
    /// Starts a container, for the first time or again.
    pub(super) async fn start(&mut self, name: &str) {
        let Some((container, _)) = self.find(name) else {
            return;
        };
        let Some(image) = self.image(&container) else {
            return;
        };
        let facts = self.facts();
        let config = &self.shared.config;
        let spec = prepare::container_spec(config, &self.pod, &container, &image, &facts).await;
        let spec = match spec {
            Ok(spec) => spec,
            Err(error) => return self.misconfigured(name, &error),
        };
        let now = Timestamp::now();
        let state = self.state.containers.entry(name.to_owned()).or_default();
        let before = match &state.life {
            Life::Ended(ended) => Some(ended.clone()),
            Life::Waiting { .. } | Life::NoImage { .. } | Life::Running { .. } => {
                state.last.clone()
            }
        };
        if let Some(before) = before {
            state.crashes.next(before.finished, now);
            state.last = Some(before);
            state.restarts += 1;
        }
        let number = state.restarts;
        let id = new_id();
        match self.launch(&container, &spec, &id, number).await {
            Ok((instance, pid)) => self.up(&container, instance, pid),
            Err(message) => self.not_up(name, id, message),
        }
    }

    /// The image behind the container's name for it, with kubelet's events.
    fn image(&mut self, container: &Container) -> Option<Image> {
        let name = &container.name;
        let image = container.image.clone().unwrap_or_default();
        let (found, mapped) = match self.shared.config.images.find(&image) {
            Found::BuiltIn(row) => (row.clone(), false),
            Found::Mapped(row) => (row.clone(), true),
            Found::Invalid { message } => {
                self.tell_user(Some(name), Severity::Warning, "InspectFailed", &message);
                self.no_image(name, "InvalidImageName", message);
                return None;
            }
            Found::Unknown { message } => {
                if container.image_pull_policy.as_deref() == Some("Never") {
                    let message = format!(
                        "Container image {image:?} is not present with pull policy of Never"
                    );
                    self.tell_user(Some(name), Severity::Warning, "ErrImageNeverPull", &message);
                    self.no_image(name, "ErrImageNeverPull", message);
                    return None;
                }
                self.tell_user(
                    Some(name),
                    Severity::Normal,
                    "Pulling",
                    &format!("Pulling image {image:?}"),
                );
                let failed = format!("Failed to pull image {image:?}: {message}");
                self.tell_user(Some(name), Severity::Warning, "Failed", &failed);
                self.no_image(name, "ErrImagePull", message);
                return None;
            }
        };
        if mapped {
            let message = found.mapped_message(&image);
            self.tell_user(Some(name), Severity::Normal, "ImageMapped", &message);
        }
        let message = format!("Container image {image:?} already present on machine");
        self.tell_user(Some(name), Severity::Normal, "Pulled", &message);
        Some(found)
    }

    fn no_image(&mut self, name: &str, reason: &'static str, message: String) {
        self.tell_user(
            Some(name),
            Severity::Warning,
            "Failed",
            &format!("Error: {reason}"),
        );
        let now = Timestamp::now();
        let state = self.state.containers.entry(name.to_owned()).or_default();
        state.pulls.next(now, now);
        state.life = Life::NoImage {
            reason,
            message,
            since: now,
            until: state.pulls.until(now),
        };
    }

    /// kubelet's second look at an image that cannot be had.
    pub(super) fn back_off_pull(&mut self, name: &str) {
        let image = self.find(name).and_then(|(container, _)| container.image);
        let image = image.unwrap_or_default();
        let state = self.state.containers.entry(name.to_owned()).or_default();
        if let Life::NoImage {
            reason, message, ..
        } = &mut state.life
        {
            *reason = "ImagePullBackOff";
            *message = format!("Back-off pulling image {image:?}: ErrImagePull: {message}");
        }
        let message = format!("Back-off pulling image {image:?}");
        self.tell_user(Some(name), Severity::Normal, "BackOff", &message);
        self.tell_user(
            Some(name),
            Severity::Warning,
            "Failed",
            "Error: ImagePullBackOff",
        );
    }

    pub(super) fn back_off_crash(&mut self, name: &str) {
        let pod = &self.identity;
        let whole = format!("{}_{}({})", pod.name, pod.namespace, pod.uid);
        let state = self.state.containers.entry(name.to_owned()).or_default();
        if let Life::Ended(ended) = &state.life {
            let delay = go_duration(state.crashes.delay());
            state.last = Some(ended.clone());
            state.life = Life::Waiting {
                reason: "CrashLoopBackOff",
                message: format!("back-off {delay} restarting failed container={name} pod={whole}"),
            };
        }
        let message = format!("Back-off restarting failed container {name} in pod {whole}");
        self.tell_user(Some(name), Severity::Warning, "BackOff", &message);
    }

    /// The objects do not say what to run: `CreateContainerConfigError`.
    fn misconfigured(&mut self, name: &str, error: &PrepareError) {
        let message = one_line(error);
        let state = self.state.containers.entry(name.to_owned()).or_default();
        state.life = Life::Waiting {
            reason: "CreateContainerConfigError",
            message: message.clone(),
        };
        if let Some(blocked) = &mut self.state.blocked {
            blocked.tries = blocked.tries.max(CONFIG_AGAIN);
        }
        self.block("Failed", &format!("Error: {message}"));
    }

    /// The command runs.
    fn up(&mut self, container: &Container, instance: Instance, pid: i32) {
        let name = &container.name;
        tracing::debug!(pod = self.identity.name, container = name, pid, "started");
        let started = container.startup_probe.is_none();
        instance.started.send_replace(started);
        let state = self.state.containers.entry(name.clone()).or_default();
        state.life = Life::Running {
            id: instance.id.clone(),
            since: Timestamp::now(),
        };
        state.started = started;
        state.ready = started && container.readiness_probe.is_none();
        state.stopping = None;
        state.condemned = None;
        self.state.blocked = None;
        self.instances.insert(name.clone(), instance);
        let message = format!("Started container {name}");
        self.tell_user(Some(name), Severity::Normal, "Started", &message);
    }

    /// The command could not be executed.
    fn not_up(&mut self, name: &str, id: String, message: String) {
        let told = format!("Error: failed to start container {name:?}: {message}");
        self.tell_user(Some(name), Severity::Warning, "Failed", &told);
        let state = self.state.containers.entry(name.to_owned()).or_default();
        state.life = Life::Ended(Ended {
            id,
            code: 128,
            signal: None,
            reason: "StartError",
            message,
            started: None,
            finished: Timestamp::now(),
        });
        (state.started, state.ready) = (false, false);
    }

    /// Asks a container to end: its `preStop` hook, then SIGTERM.
    pub(super) fn stop(&mut self, name: &str, grace: i64, why: &str) {
        let now = Timestamp::now();
        let deadline = now
            .checked_add(SignedDuration::from_secs(grace))
            .unwrap_or(now);
        let state = self.state.containers.entry(name.to_owned()).or_default();
        state.stopping = Some(Stopping {
            deadline,
            killed: false,
        });
        let hook = self.find(name).and_then(|(container, _)| {
            let hook = container
                .lifecycle
                .clone()
                .and_then(|Lifecycle { pre_stop, .. }| pre_stop)?;
            Some((hook, container))
        });
        if let Some(instance) = self.instances.get_mut(name) {
            let signals = instance.signals.clone();
            let asker = instance.asker.clone();
            let limit = Duration::from_secs(u64::try_from(grace).unwrap_or_default());
            instance.tasks.spawn(async move {
                if let Some((hook, container)) = hook {
                    // Whatever the hook does, the container ends afterwards.
                    if let Err(message) = run_hook(&asker, &container, &hook, limit).await {
                        tracing::debug!(container = container.name, message, "preStop hook failed");
                    }
                }
                signals.lock().await.send(Signal::SIGTERM).await;
            });
        }
        self.tell_user(Some(name), Severity::Normal, "Killing", why);
    }

    pub(super) async fn kill(&mut self, name: &str) {
        let state = self.state.containers.entry(name.to_owned()).or_default();
        if let Some(stopping) = &mut state.stopping {
            stopping.killed = true;
        }
        if let Some(instance) = self.instances.get(name) {
            instance.signals.lock().await.send(Signal::SIGKILL).await;
        }
    }

    /// Takes note of what happened, if it concerns the present instance.
    pub(super) fn happened(&mut self, event: Happened) {
        match event {
            Happened::Exited {
                name,
                id,
                exit,
                message,
            } => {
                if self
                    .instances
                    .get(&name)
                    .is_some_and(|instance| instance.id == id)
                {
                    if let Some(instance) = self.instances.remove(&name) {
                        let inside = &self.shared.config.inside;
                        let pid = instance.asker.pid;
                        inside.leave(&self.identity.uid, &name, pid, exit.code);
                    }
                    self.exited(&name, id, exit, message);
                }
            }
            Happened::Probed {
                name,
                id,
                kind,
                succeeding,
                condemns,
                failure,
            } => {
                if self
                    .instances
                    .get(&name)
                    .is_some_and(|instance| instance.id == id)
                {
                    self.probed(&name, kind, succeeding, condemns, failure);
                }
            }
        }
    }

    fn exited(&mut self, name: &str, id: String, exit: Exit, message: String) {
        let state = self.state.containers.entry(name.to_owned()).or_default();
        let started = match &state.life {
            Life::Running { since, .. } => Some(*since),
            Life::Waiting { .. } | Life::NoImage { .. } | Life::Ended(_) => None,
        };
        state.life = Life::Ended(Ended {
            id,
            code: exit.code,
            signal: None,
            reason: if exit.code == 0 { "Completed" } else { "Error" },
            message,
            started,
            finished: Timestamp::now(),
        });
        (state.started, state.ready) = (false, false);
        (state.stopping, state.condemned) = (None, None);
    }

    fn probed(
        &mut self,
        name: &str,
        kind: Kind,
        succeeding: bool,
        condemns: Option<Condemned>,
        failure: Option<String>,
    ) {
        let has_readiness = self
            .find(name)
            .is_some_and(|(container, _)| container.readiness_probe.is_some());
        let ending = self.state.ending_since.is_some();
        if let Some(failure) = failure {
            let message = format!("{} probe failed: {failure}", kind.title());
            self.tell_user(Some(name), Severity::Warning, "Unhealthy", &message);
        }
        let state = self.state.containers.entry(name.to_owned()).or_default();
        match kind {
            Kind::Readiness => state.ready = succeeding && state.started,
            Kind::Startup if succeeding && !state.started => {
                state.started = true;
                state.ready = !has_readiness;
                if let Some(instance) = self.instances.get(name) {
                    instance.started.send_replace(true);
                }
            }
            Kind::Startup | Kind::Liveness => {}
        }
        // A pod on its way out is not restarted.
        if condemns.is_some() && !ending {
            state.condemned = condemns;
        }
    }
}

impl Instance {
    /// Starts the tasks that tell the worker of its end and of its probes.
    pub(super) fn observed(
        mut self,
        container: &Container,
        reports: Reports,
        last_words: Termination,
        tell: &mpsc::Sender<Happened>,
    ) -> Self {
        let (name, id) = (&container.name, &self.id);
        let end = wait(
            reports,
            last_words,
            tell.clone(),
            (name.clone(), id.clone()),
        );
        self.tasks.spawn(end);
        for kind in [Kind::Startup, Kind::Readiness, Kind::Liveness] {
            let Some(spec) = Spec::of(container, kind) else {
                continue;
            };
            let probing = Probing {
                asker: self.asker.clone(),
                kind,
                spec,
                name: name.clone(),
                id: id.clone(),
                tell: tell.clone(),
            };
            self.tasks.spawn(probing.run(self.started.subscribe()));
        }
        self
    }
}

/// Waits for the end of a container.
async fn wait(
    mut reports: Reports,
    last_words: Termination,
    tell: mpsc::Sender<Happened>,
    (name, id): (String, String),
) {
    let exit = loop {
        match reports.next().await {
            Some(Report::Exited(exit)) => break exit,
            Some(Report::Started { .. } | Report::Failed { .. }) => {}
            // Somebody killed the keeper, and with it the container.
            None => {
                break Exit {
                    code: 137,
                    signal: Some(9),
                };
            }
        }
    };
    let message = last_words.message(exit.code).await;
    let event = Happened::Exited {
        name,
        id,
        exit,
        message,
    };
    if tell.send(event).await.is_err() {
        tracing::debug!("nobody waits for the container any more");
    }
}

/// Runs a lifecycle hook; `Err` is what it failed with.
pub(super) async fn run_hook(
    asker: &Asker,
    container: &Container,
    hook: &LifecycleHandler,
    limit: Duration,
) -> Result<(), String> {
    if let Some(sleep) = &hook.sleep {
        let pause = Duration::from_secs(u64::try_from(sleep.seconds).unwrap_or_default());
        tokio::time::sleep(pause.min(limit)).await;
        return Ok(());
    }
    let handler = match (&hook.exec, &hook.http_get) {
        (Some(exec), _) => Handler::Exec {
            command: exec.command.clone().unwrap_or_default(),
        },
        (None, Some(get)) => Handler::http(container, get),
        (None, None) => return Ok(()),
    };
    match probe::check(asker, &handler, limit).await {
        Answer::Success => Ok(()),
        Answer::Failure(message) => Err(message),
    }
}

/// One probe's loop.
struct Probing {
    asker: Asker,
    kind: Kind,
    spec: Spec,
    name: String,
    id: String,
    tell: mpsc::Sender<Happened>,
}

impl Probing {
    async fn run(self, mut started: watch::Receiver<bool>) {
        let begin = tokio::time::Instant::now();
        if self.kind != Kind::Startup && started.wait_for(|started| *started).await.is_err() {
            return;
        }
        let mut machine = Machine::new(self.kind);
        tokio::time::sleep_until(begin + machine.first(&self.spec)).await;
        loop {
            let answer = probe::check(&self.asker, &self.spec.handler, self.spec.timeout).await;
            let tells = machine.tells(&self.spec, begin.elapsed());
            let success = answer == Answer::Success;
            let settled = machine.take(&self.spec, success);
            let lethal = settled && !success && self.kind != Kind::Readiness;
            let event = Happened::Probed {
                name: self.name.clone(),
                id: self.id.clone(),
                kind: self.kind,
                succeeding: machine.succeeding(),
                condemns: lethal.then(|| Condemned {
                    title: self.kind.title(),
                    grace_seconds: self
                        .spec
                        .grace
                        .and_then(|g| i64::try_from(g.as_secs()).ok()),
                }),
                failure: match answer {
                    Answer::Failure(message) if tells => Some(message),
                    Answer::Failure(_) | Answer::Success => None,
                },
            };
            if self.tell.send(event).await.is_err() {
                return;
            }
            if self.kind == Kind::Startup && machine.succeeding() {
                return;
            }
            tokio::time::sleep(machine.pause(&self.spec, begin.elapsed())).await;
        }
    }
}

/// A container's id: 64 hexadecimal digits, as every runtime gives them.
fn new_id() -> String {
    use std::hash::{BuildHasher, Hasher, RandomState};
    (0..4)
        .map(|_| format!("{:016x}", RandomState::new().build_hasher().finish()))
        .collect()
}
