//! The pod manager of one node, as kubelet is, against the Kubernetes API.
//!
//! It registers the node, renews its Lease, watches the pods that are bound to
//! it, and has one task per pod. That task is level-triggered: it asks the pure
//! function [`decide::decide`] what to do, does it, sends the pod's status if
//! that changed, and waits for a newer object, for something to happen to a
//! container, or for the time that the decision named.
//!
//! ```text
//!   watch ──► worker per pod:  decide ─► act ─► report ─► wait ─┐
//!                                ▲──────────────────────────────┘
//! ```
//!
//! When the manager ends, its pods are killed and their objects stay: the next
//! start finds them, and brings them up again with new addresses.
//!
//! Absent on purpose: the kubelet's own HTTP server (logs are read through
//! [`crate::logs::Logs`], the ways into pods are in [`Inside`]), static pods, eviction, image garbage collection.

mod atomic;
mod attached;
mod backoff;
mod config;
mod decide;
mod env;
mod inside;
mod instance;
mod launching;
mod network;
mod node;
mod prepare;
mod resources;
mod security;
mod state;
mod status;
mod termination;
mod volumes;
mod worker;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use portolan_client::{Event, PODS, Params, Recorder, Versioned};
use serde::Deserialize;
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;

use crate::container::Launcher;
use worker::{Seen, Shared};

pub use config::KubeletConfig;
pub use inside::{Input, Inside, InsideError, Output, Process, Streams};
pub use network::{NETWORK, NetworkError, OUTSIDE, PodIdentity, PodNet, PodNetwork};

/// Why a pod manager could not start.
#[derive(Debug, thiserror::Error)]
pub enum KubeletError {
    /// A folder of the lab could not be made.
    #[error("cannot make the folder {}", path.display())]
    Folder {
        /// Which.
        path: std::path::PathBuf,
        /// What the system said.
        #[source]
        cause: std::io::Error,
    },
}

/// Registers the node and runs its pods until `shutdown`; then kills them,
/// leaving their objects as they are, so that the next start brings them up.
pub async fn run(
    mut config: KubeletConfig,
    shutdown: CancellationToken,
) -> Result<(), KubeletError> {
    // Containers change their working folder and root.
    config.data_dir = std::path::absolute(&config.data_dir).unwrap_or(config.data_dir);
    let path = config.data_dir.join("pods");
    if let Err(cause) = std::fs::create_dir_all(&path) {
        return Err(KubeletError::Folder { path, cause });
    }
    let shared = Arc::new(Shared {
        recorder: Recorder::new(config.client.clone(), "kubelet", &config.node_name),
        launcher: Launcher::new(config.program.clone()),
        config: config.clone(),
    });
    let work = async {
        tokio::join!(node::keep(config), Manager::new(shared).run());
    };
    shutdown.run_until_cancelled(work).await;
    Ok(())
}

/// A pod as the watch delivers it.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
struct Watched(Pod);

impl Versioned for Watched {
    fn resource_version(&self) -> Option<&str> {
        self.0.metadata.resource_version.as_deref()
    }
}

/// Hands objects to workers, one per uid.
struct Manager {
    shared: Arc<Shared>,
    by_uid: BTreeMap<String, watch::Sender<Seen>>,
    workers: JoinSet<()>,
    /// The list that is being read.
    listed: BTreeSet<String>,
}

impl Manager {
    fn new(shared: Arc<Shared>) -> Self {
        Self {
            shared,
            by_uid: BTreeMap::new(),
            workers: JoinSet::new(),
            listed: BTreeSet::new(),
        }
    }

    /// Ends only by being dropped, and then all pods are killed.
    async fn run(mut self) {
        let config = &self.shared.config;
        let params = Params {
            fields: Some(format!("spec.nodeName={}", config.node_name)),
            ..Params::default()
        };
        let mut events =
            portolan_client::watch::<Watched>(config.client.clone(), PODS.clone(), params);
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(event) => self.take(event),
                    None => return std::future::pending().await,
                },
                Some(ended) = self.workers.join_next() => {
                    if let Err(error) = ended {
                        tracing::error!(%error, "a pod's worker failed");
                    }
                }
            }
        }
    }

    fn take(&mut self, event: Event<Watched>) {
        match event {
            Event::Init => self.listed.clear(),
            Event::InitItem(Watched(pod)) => {
                self.listed.extend(pod.metadata.uid.clone());
                self.seen(pod, false);
            }
            Event::InitDone { .. } => {
                for (uid, worker) in &self.by_uid {
                    if !self.listed.contains(uid) {
                        worker.send_modify(|seen| seen.gone = true);
                    }
                }
                let listed = std::mem::take(&mut self.listed);
                self.by_uid.retain(|uid, _| listed.contains(uid));
            }
            Event::Upsert(Watched(pod)) => self.seen(pod, false),
            Event::Delete(Watched(pod)) => self.seen(pod, true),
        }
    }

    fn seen(&mut self, pod: Pod, gone: bool) {
        let uid = pod.metadata.uid.clone().unwrap_or_default();
        let seen = Seen {
            pod: Arc::new(pod),
            gone,
        };
        match self.by_uid.get(&uid) {
            Some(worker) => drop(worker.send_replace(seen)),
            None if gone => {}
            None => {
                let (worker, newest) = watch::channel(seen);
                self.by_uid.insert(uid.clone(), worker);
                self.workers.spawn(worker::run(self.shared.clone(), newest));
            }
        }
        if gone {
            self.by_uid.remove(&uid);
        }
    }
}
