//! One pod's loop: ask [`decide`], do it, report, wait.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, Preconditions},
};
use portolan_client::{Recorder, Regarding, Severity};
use serde_json::{Value, json};
use tokio::sync::{mpsc, watch};

use super::{
    KubeletConfig,
    decide::{Action, decide},
    env::Facts,
    instance::{Happened, Instance},
    network::{NETWORK, OUTSIDE, PodIdentity, PodNet},
    prepare::{self, Filled},
    state::{Blocked, PodState},
    status,
};
use crate::container::Launcher;

/// First pause after a deletion that the API server refused; it doubles.
const RELEASE_AGAIN: Duration = Duration::from_millis(500);
/// How many rounds of actions may follow each other without a pause; a pod
/// whose actions never settle must not keep a processor busy.
const MAX_ROUNDS: usize = 32;
/// Pause after a status that could not be sent.
const REPORT_AGAIN: SignedDuration = SignedDuration::from_secs(1);
/// Pause after volumes that could not be filled again.
const FILL_AGAIN: SignedDuration = SignedDuration::from_secs(60);
/// Pauses after a pod could not be set up: 1 s, doubling to 32 s.
const MAX_DOUBLINGS: u32 = 5;
/// Things that happened and wait for the worker.
const QUEUE_DEPTH: usize = 64;

/// What all workers of a node share.
pub(super) struct Shared {
    pub(super) config: KubeletConfig,
    pub(super) recorder: Recorder,
    pub(super) launcher: Launcher,
}

/// The newest that is known of a pod's object.
#[derive(Clone, Debug)]
pub(super) struct Seen {
    pub(super) pod: Arc<Pod>,
    pub(super) gone: bool,
}

/// The loop's own things.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) identity: PodIdentity,
    pub(super) pod: Arc<Pod>,
    pub(super) state: PodState,
    pub(super) net: Option<PodNet>,
    pub(super) instances: BTreeMap<String, Instance>,
    pub(super) tell: mpsc::Sender<Happened>,
    report_again: Option<Timestamp>,
    /// What is in the pod's volumes.
    filled: Filled,
    /// How often the API server would not delete the object.
    releases: u32,
    over: bool,
}

/// Runs a pod until it is forgotten or the task is dropped, which kills it.
pub(super) async fn run(shared: Arc<Shared>, mut seen: watch::Receiver<Seen>) {
    let pod = seen.borrow_and_update().pod.clone();
    let (tell, mut happened) = mpsc::channel(QUEUE_DEPTH);
    let mut worker = Worker::new(shared, pod, tell);
    // Closed once the object is gone; the rest of the way needs no news.
    let mut open = true;
    loop {
        let newest = seen.borrow_and_update().clone();
        worker.learn(newest);
        let wake = worker.act().await;
        if worker.over {
            return;
        }
        if worker.report().await {
            continue;
        }
        worker.follow_volumes().await;
        let wake = [wake, worker.report_again, worker.filled.again];
        let wake = wake.into_iter().flatten().min();
        tokio::select! {
            changed = seen.changed(), if open => open = changed.is_ok(),
            event = happened.recv() => if let Some(event) = event { worker.happened(event) },
            () = until(wake) => {}
        }
        while let Ok(event) = happened.try_recv() {
            worker.happened(event);
        }
    }
}

/// Sleeps until the wall clock says `at`; forever without one.
async fn until(at: Option<Timestamp>) {
    match at {
        Some(at) => {
            let left = Duration::try_from(at.duration_since(Timestamp::now()));
            // A moment more, so that the deadline has passed for certain.
            tokio::time::sleep(left.unwrap_or_default() + Duration::from_millis(1)).await;
        }
        None => std::future::pending().await,
    }
}

impl Worker {
    fn new(shared: Arc<Shared>, pod: Arc<Pod>, tell: mpsc::Sender<Happened>) -> Self {
        let now = Timestamp::now();
        let meta = &pod.metadata;
        let mut state = PodState::recalled(&pod, now);
        state.start_time.get_or_insert(now);
        Self {
            shared,
            identity: PodIdentity {
                namespace: meta.namespace.clone().unwrap_or_default(),
                name: meta.name.clone().unwrap_or_default(),
                uid: meta.uid.clone().unwrap_or_default(),
            },
            pod,
            state,
            net: None,
            instances: BTreeMap::new(),
            tell,
            report_again: None,
            filled: Filled::default(),
            releases: 0,
            over: false,
        }
    }

    /// Takes a newer object; the watch may be behind our own writes.
    fn learn(&mut self, seen: Seen) {
        let version = |pod: &Pod| {
            let text = pod.metadata.resource_version.as_deref();
            text.and_then(|text| text.parse::<u64>().ok())
        };
        if version(&seen.pod) >= version(&self.pod) {
            self.pod = seen.pod;
        }
        self.state.gone |= seen.gone;
        if self.state.gone || self.pod.metadata.deletion_timestamp.is_some() {
            self.state.ending_since.get_or_insert_with(Timestamp::now);
        }
    }

    /// Does what is to be done; returns when to look again.
    async fn act(&mut self) -> Option<Timestamp> {
        for _ in 0..MAX_ROUNDS {
            let decision = decide(&self.pod, &self.state, Timestamp::now());
            if decision.actions.is_empty() {
                return decision.wake;
            }
            for action in decision.actions {
                self.perform(action).await;
                if self.over {
                    return None;
                }
            }
        }
        tracing::warn!(pod = ?self.identity, "pod does not settle");
        Timestamp::now().checked_add(REPORT_AGAIN).ok()
    }

    async fn perform(&mut self, action: Action) {
        match action {
            Action::Attach => self.attach().await,
            Action::Start(name) => self.start(&name).await,
            Action::BackOffPull(name) => self.back_off_pull(&name),
            Action::BackOffCrash(name) => self.back_off_crash(&name),
            Action::Stop { name, grace, why } => self.stop(&name, grace, &why),
            Action::Kill(name) => self.kill(&name).await,
            Action::Detach => self.detach().await,
            Action::Release => self.release().await,
            Action::Forget => self.forget(),
        }
    }

    /// Folders and network.
    async fn attach(&mut self) {
        let mut facts = self.facts();
        let config = &self.shared.config;
        if facts.hostname.len() > prepare::LONGEST_HOSTNAME {
            let (name, length) = (&facts.hostname, facts.hostname.len());
            let message = format!(
                "Failed to create pod sandbox: failed to construct FQDN from pod hostname and cluster domain, FQDN {name} is too long ({} characters is the max, {length} characters requested)",
                prepare::LONGEST_HOSTNAME
            );
            return self.block("FailedCreatePodSandBox", &message);
        }
        let net = if self.on_host() {
            Ok(self.host_net())
        } else {
            config.network.attach(&self.identity).await
        };
        let net = match net {
            Ok(net) => net,
            Err(error) => {
                let message = format!("Failed to create pod sandbox: {}", one_line(error.as_ref()));
                return self.block("FailedCreatePodSandBox", &message);
            }
        };
        facts.pod_ips.clone_from(&net.ips);
        let dir = prepare::volume_dir(config, &self.identity.uid);
        match prepare::fill_volumes(config, &self.pod, &facts, &dir, &self.filled).await {
            Ok(filled) => self.filled = filled,
            Err(error) => {
                let message = one_line(&error);
                self.net = Some(net);
                self.detach().await;
                return self.block("FailedMount", &message);
            }
        }
        self.state.last_ips.clone_from(&net.ips);
        self.state.ips = Some(net.ips.clone());
        self.state.blocked = None;
        let (pod, node) = (net.netns.clone(), self.shared.config.node_netns.clone());
        let inside = &self.shared.config.inside;
        inside.connected(&self.identity.uid, pod, node);
        self.net = Some(net);
    }

    /// Writes a new token in time, and what ConfigMaps and Secrets have
    /// become; a failure is tried again in a minute.
    async fn follow_volumes(&mut self) {
        let now = Timestamp::now();
        if self.filled.again.is_none_or(|again| now < again) || self.state.ips.is_none() {
            return;
        }
        let config = &self.shared.config;
        let dir = prepare::volume_dir(config, &self.identity.uid);
        let facts = self.facts();
        match prepare::fill_volumes(config, &self.pod, &facts, &dir, &self.filled).await {
            Ok(filled) => self.filled = filled,
            Err(error) => {
                tracing::warn!(pod = ?self.identity, error = one_line(&error), "volumes not up to date yet");
                self.filled.again = now.checked_add(FILL_AGAIN).ok();
            }
        }
    }

    /// Something keeps the whole pod from starting: say so and try again later.
    pub(super) fn block(&mut self, reason: &str, message: &str) {
        let tries = self
            .state
            .blocked
            .as_ref()
            .map_or(0, |blocked| blocked.tries);
        let pause = SignedDuration::from_secs(1 << tries.min(MAX_DOUBLINGS));
        let now = Timestamp::now();
        self.state.blocked = Some(Blocked {
            until: now.checked_add(pause).unwrap_or(now),
            tries: tries + 1,
        });
        self.tell_user(None, Severity::Warning, reason, message);
    }

    async fn detach(&mut self) {
        let on_host = self.on_host();
        self.shared.config.inside.disconnected(&self.identity.uid);
        self.net = None;
        self.filled = Filled::default();
        self.state.ips = None;
        if on_host {
            return;
        }
        if let Err(error) = self.shared.config.network.detach(&self.identity).await {
            // The namespace is closed, so the kernel takes its end of the link anyway.
            tracing::warn!(pod = ?self.identity, error = one_line(error.as_ref()), "network not detached");
        }
    }

    /// Everything ended and was reported: the object may go.
    async fn release(&mut self) {
        let pods: Api<Pod> =
            Api::namespaced(self.shared.config.client.clone(), &self.identity.namespace);
        let only_this = Preconditions {
            uid: Some(self.identity.uid.clone()),
            ..Preconditions::default()
        };
        let params = DeleteParams {
            grace_period_seconds: Some(0),
            preconditions: Some(only_this),
            ..DeleteParams::default()
        };
        match pods.delete(&self.identity.name, &params).await {
            Ok(_) => self.forget(),
            // Gone already, or another pod has the name by now.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => self.forget(),
            Err(error) => {
                tracing::warn!(pod = ?self.identity, %error, "pod not deleted yet");
                let pause = RELEASE_AGAIN * 2_u32.pow(self.releases.min(MAX_DOUBLINGS));
                self.releases += 1;
                tokio::time::sleep(pause).await;
            }
        }
    }

    fn forget(&mut self) {
        let dir = prepare::pod_dir(&self.shared.config, &self.identity.uid);
        if let Err(cause) = std::fs::remove_dir_all(&dir)
            && cause.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(dir = %dir.display(), %cause, "pod's folder not removed");
        }
        let PodIdentity {
            namespace,
            name,
            uid,
        } = &self.identity;
        self.shared.config.logs.remove(namespace, name, uid);
        self.over = true;
    }

    /// Sends the status if it changed; true if the next decision depends on that.
    async fn report(&mut self) -> bool {
        let now = Timestamp::now();
        self.report_again = None;
        if self.state.gone {
            return false;
        }
        let ending = self.pod.metadata.deletion_timestamp.is_some();
        let last = ending && !self.state.any_running() && self.state.ips.is_none();
        let desired = status::status(&self.pod, &self.state, &self.shared.config.node_ips, now);
        let reason = |status: Option<&PodStatus>| status.and_then(|status| status.reason.clone());
        let late = reason(Some(&desired)).filter(|reason| reason == status::DEADLINE.0);
        if late.is_some() && reason(self.pod.status.as_ref()) != late {
            let (reason, message) = status::DEADLINE;
            self.tell_user(None, Severity::Normal, reason, message);
        }
        if self.pod.status.as_ref() != Some(&desired) {
            let mut patch = serde_json::to_value(&desired).unwrap_or_default();
            for key in ["podIP", "podIPs", "initContainerStatuses"] {
                if patch.get(key).is_none() {
                    patch[key] = Value::Null;
                }
            }
            let patch = json!({ "metadata": { "uid": self.identity.uid }, "status": patch });
            let pods: Api<Pod> =
                Api::namespaced(self.shared.config.client.clone(), &self.identity.namespace);
            let params = PatchParams::default();
            match pods
                .patch_status(&self.identity.name, &params, &Patch::Merge(patch))
                .await
            {
                Ok(pod) => {
                    self.pod = Arc::new(pod);
                }
                Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => {
                    // The watch will tell; another pod of this name is not ours.
                    tracing::debug!(pod = ?self.identity, "status of a pod that is gone");
                }
                Err(error) => {
                    tracing::warn!(pod = ?self.identity, %error, "status not sent yet");
                    self.report_again = now.checked_add(REPORT_AGAIN).ok();
                    return false;
                }
            }
        }
        let newly = last && !self.state.final_status_sent;
        self.state.final_status_sent |= last;
        newly || (status_over(&self.pod) && self.state.ips.is_some() && !self.state.any_running())
    }

    /// Whether the pod has the node's network instead of its own.
    fn on_host(&self) -> bool {
        let spec = self.pod.spec.as_ref();
        spec.is_some_and(|spec| spec.host_network == Some(true))
    }

    /// Whether it has the network of the machine beside the nodes.
    fn is_outside(&self) -> bool {
        let annotations = self.pod.metadata.annotations.as_ref();
        let network = annotations.and_then(|all| all.get(NETWORK));
        self.on_host() && network.is_some_and(|network| network == OUTSIDE)
    }

    /// The network of a pod that has none of its own.
    fn host_net(&self) -> PodNet {
        let config = &self.shared.config;
        match self.is_outside() {
            true => config.outside.clone(),
            false => PodNet {
                netns: config.node_netns.clone(),
                ips: config.node_ips.clone(),
            },
        }
    }

    /// What the node knows of the pod.
    pub(super) fn facts(&self) -> Facts {
        Facts {
            hostname: if self.is_outside() {
                OUTSIDE.to_owned()
            } else if self.on_host() {
                self.shared.config.node_name.clone()
            } else {
                prepare::full_hostname(&self.pod, &self.shared.config.cluster_domain)
            },
            node_name: self.shared.config.node_name.clone(),
            pod_ips: self.state.ips.clone().unwrap_or_default(),
            host_ips: self.shared.config.node_ips.clone(),
        }
    }

    /// A container of the pod's spec, and the field in which it stands.
    pub(super) fn find(&self, name: &str) -> Option<(Container, &'static str)> {
        let spec = self.pod.spec.as_ref()?;
        let main = spec.containers.iter().map(|c| (c, "containers"));
        let init = spec
            .init_containers
            .iter()
            .flatten()
            .map(|c| (c, "initContainers"));
        let mut all = main.chain(init);
        let (container, field) = all.find(|(container, _)| container.name == name)?;
        Some((container.clone(), field))
    }

    /// An event on the pod, or on one of its containers.
    pub(super) fn tell_user(
        &self,
        container: Option<&str>,
        severity: Severity,
        reason: &str,
        message: &str,
    ) {
        let part = container.and_then(|name| {
            let (_, field) = self.find(name)?;
            Some(format!("spec.{field}{{{name}}}"))
        });
        let about = Regarding {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            namespace: self.identity.namespace.clone(),
            name: self.identity.name.clone(),
            uid: self.identity.uid.clone(),
            field_path: part.unwrap_or_default(),
        };
        self.shared.recorder.tell(&about, severity, reason, message);
    }
}

fn status_over(pod: &Pod) -> bool {
    super::decide::finished(pod)
}

/// An error and its causes in one line.
pub(super) fn one_line(error: &(dyn std::error::Error + 'static)) -> String {
    crate::container::in_one_line(error)
}
