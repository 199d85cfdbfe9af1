//! From a specification to a running container: its streams go to the log and
//! to whoever is attached.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use k8s_openapi::api::core::v1::Container;
use nix::sys::signal::Signal;
use portolan_client::Severity;
use tokio::{
    io::{DuplexStream, duplex},
    process::{ChildStderr, ChildStdin, ChildStdout},
    sync::{Mutex, watch},
    task::JoinSet,
};

use super::{
    attached::{Attached, Source},
    inside,
    instance::{Instance, run_hook},
    termination::{self, Termination},
    worker::{Worker, one_line},
};
use crate::{
    container::{Console, ContainerSpec, Launched, Report, Reports, Signals},
    logs::LogKey,
    probe::Asker,
};

/// How long the keeper may take to start a command.
const START_WITHIN: Duration = Duration::from_secs(30);
/// How long a `postStart` hook may take.
const HOOK_WITHIN: Duration = Duration::from_secs(120);
/// Bytes on their way to the log.
const LOG_BUFFER: usize = 64 * 1024;

impl Worker {
    /// Runs the command; returns once it runs, or with the reason why it does not.
    pub(super) async fn launch(
        &mut self,
        container: &Container,
        spec: &ContainerSpec,
        id: &str,
        number: u32,
    ) -> Result<(Instance, i32), String> {
        let Some(net) = self.net.clone() else {
            return Err("the pod has no network".to_owned());
        };
        let launched = self.shared.launcher.launch(spec, &net.netns);
        let launched = launched.map_err(|e| one_line(&e))?;
        let key = LogKey {
            namespace: self.identity.namespace.clone(),
            pod: self.identity.name.clone(),
            uid: Some(self.identity.uid.clone()),
            container: container.name.clone(),
        };
        let logs = &self.shared.config.logs;
        let (log_out, stdout) = duplex(LOG_BUFFER);
        let (log_err, stderr) = duplex(LOG_BUFFER);
        let recording = logs.record(&key, number, stdout, stderr);
        drop(recording.map_err(|e| one_line(&e))?);
        let created = format!("Created container: {}", container.name);
        self.tell_user(Some(&container.name), Severity::Normal, "Created", &created);
        let Launched {
            stdin,
            stdout,
            stderr,
            console,
            mut reports,
            signals,
        } = launched;
        let pid = started(&mut reports).await?;
        let outlets = Outlets {
            stdin,
            stdout,
            stderr,
            console,
        };
        let attached = outlets.open(container, spec, (log_out, log_err)).await?;
        let running = inside::Container {
            launcher: self.shared.launcher.clone(),
            pid,
            env: spec.env.clone(),
            cwd: spec.cwd.clone(),
            user: spec.user.clone(),
            attached,
        };
        let inside = &self.shared.config.inside;
        inside.enter(&self.identity.uid, &container.name, running);
        let asker = Asker {
            netns: self.shared.config.node_netns.clone(),
            ip: (net.ips.first().copied()).unwrap_or(Ipv4Addr::LOCALHOST.into()),
            launcher: self.shared.launcher.clone(),
            pid,
            env: Arc::new(spec.env.clone()),
            user: spec.user.clone(),
        };
        let signals = Arc::new(Mutex::new(signals));
        self.post_start(container, &asker, &signals).await;
        let instance = Instance {
            id: id.to_owned(),
            signals,
            asker,
            started: watch::Sender::new(false),
            tasks: JoinSet::new(),
        };
        let last_words = self.last_words(container, key);
        let instance = instance.observed(container, reports, last_words, &self.tell);
        Ok((instance, pid))
    }

    /// Where to look for what the container says last.
    fn last_words(&self, container: &Container, key: LogKey) -> Termination {
        let config = &self.shared.config;
        let policy = container.termination_message_policy.as_deref();
        Termination {
            file: termination::file(config, &self.identity.uid, &container.name),
            fall_back: policy == Some("FallbackToLogsOnError"),
            logs: config.logs.clone(),
            key,
        }
    }

    /// The `postStart` hook: until it is done the container has not started,
    /// and its failure is the container's end.
    async fn post_start(&self, container: &Container, asker: &Asker, signals: &Mutex<Signals>) {
        let lifecycle = container.lifecycle.as_ref();
        let Some(hook) = lifecycle.and_then(|lifecycle| lifecycle.post_start.clone()) else {
            return;
        };
        if let Err(message) = run_hook(asker, container, &hook, HOOK_WITHIN).await {
            let message = format!("PostStartHook failed: {message}");
            let name = Some(container.name.as_str());
            self.tell_user(name, Severity::Warning, "FailedPostStartHook", &message);
            signals.lock().await.send(Signal::SIGKILL).await;
        }
    }
}

/// Where a container's streams come out.
struct Outlets {
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    stderr: ChildStderr,
    console: Option<Console>,
}

impl Outlets {
    /// Leads the streams to the log and to whoever attaches.
    async fn open(
        self,
        container: &Container,
        spec: &ContainerSpec,
        (log_out, log_err): (DuplexStream, DuplexStream),
    ) -> Result<Arc<Attached>, String> {
        let attached = Attached::new(container.stdin_once == Some(true));
        let Some(console) = self.console else {
            if let Some(stdin) = self.stdin {
                attached.takes_input(stdin);
            }
            attached.pump(self.stdout, log_out, Source::Stdout);
            attached.pump(self.stderr, log_err, Source::Stderr);
            return Ok(attached);
        };
        let terminal = console.terminal().await;
        let terminal = terminal.map_err(|e| format!("no terminal: {e}"))?;
        attached.has_terminal(terminal.clone());
        if spec.stdin {
            attached.takes_input(terminal.clone());
        }
        attached.pump(terminal, log_out, Source::Stdout);
        Ok(attached)
    }
}

/// The number of the container's first process, once it runs.
async fn started(reports: &mut Reports) -> Result<i32, String> {
    match tokio::time::timeout(START_WITHIN, reports.next()).await {
        Ok(Some(Report::Started { pid })) => Ok(pid),
        Ok(Some(Report::Failed { message })) => Err(message),
        Ok(Some(Report::Exited(_)) | None) => Err("the container's keeper died".to_owned()),
        Err(_late) => Err("context deadline exceeded".to_owned()),
    }
}
