//! What pods write: kept in files, one per container instance, in the format of
//! the container runtime interface, and read back for `kubectl logs`.
//!
//! ```text
//! DIR/NAMESPACE_POD_UID/CONTAINER/RESTART.log     as kubelet's /var/log/pods
//! ```
//!
//! The instance before the current one is kept for `--previous`, older ones go.
//! A file that reaches its limit is set aside once and started anew.

mod line;
mod read;
mod write;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

pub use line::{Line, Source};
pub use read::LogStream;

/// A log file is set aside when it has this size, as kubelet's default.
const MAX_SIZE: u64 = 10 * 1024 * 1024;

/// What of a log is wanted: the parameters of the API's `log` subresource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// Go on while the container runs.
    pub follow: bool,
    /// The instance before the current one.
    pub previous: bool,
    /// Put the time before each line.
    pub timestamps: bool,
    /// Only so many lines from the end.
    pub tail_lines: Option<u64>,
    /// Only lines at most so old.
    pub since: Option<Duration>,
    /// Only lines from this time on.
    pub since_time: Option<jiff::Timestamp>,
    /// Stop after so many bytes.
    pub limit_bytes: Option<u64>,
}

/// Which container's output.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogKey {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod's name.
    pub pod: String,
    /// The pod's uid; without one, the newest pod of that name.
    pub uid: Option<String>,
    /// The container's name.
    pub container: String,
}

/// Why there is no log, in kubelet's words.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Nothing was written yet because nothing ran.
    #[error("container {container:?} in pod {pod:?} is waiting to start: ContainerCreating")]
    NotStarted {
        /// The container.
        container: String,
        /// The pod.
        pod: String,
    },
    /// There was no earlier instance, or it is forgotten.
    #[error("previous terminated container {container:?} in pod {pod:?} not found")]
    NoPrevious {
        /// The container.
        container: String,
        /// The pod.
        pod: String,
    },
    /// A file could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        #[source]
        cause: io::Error,
    },
}

/// The logs of all pods of a lab.
#[derive(Debug)]
pub struct Logs {
    dir: PathBuf,
    /// Files that are being written; the number changes with each write, and
    /// the sender is dropped at the end.
    live: Mutex<BTreeMap<PathBuf, watch::Receiver<u64>>>,
}

impl Logs {
    /// Keeps logs under `dir`, which is made when first needed.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            live: Mutex::default(),
        }
    }

    /// Reads a container's log.
    pub fn read(&self, key: &LogKey, options: LogOptions) -> Result<LogStream, LogError> {
        let not_started = || LogError::NotStarted {
            container: key.container.clone(),
            pod: key.pod.clone(),
        };
        let folder = self.folder(key).ok_or_else(not_started)?;
        let mut numbers = instances(&folder);
        let last = numbers.pop().ok_or_else(not_started)?;
        let number = if options.previous {
            numbers.pop().ok_or_else(|| LogError::NoPrevious {
                container: key.container.clone(),
                pod: key.pod.clone(),
            })?
        } else {
            last
        };
        let path = file_of(&folder, number);
        let live = self.live().get(&path).cloned();
        read::open(path, live, options)
    }

    /// Forgets everything that a pod wrote.
    pub fn remove(&self, namespace: &str, pod: &str, uid: &str) {
        let folder = self.dir.join(format!("{namespace}_{pod}_{uid}"));
        if let Err(cause) = fs::remove_dir_all(&folder)
            && cause.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(folder = %folder.display(), %cause, "logs not removed");
        }
    }

    fn live(&self) -> std::sync::MutexGuard<'_, BTreeMap<PathBuf, watch::Receiver<u64>>> {
        // The map is whole between any two calls on it.
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The folder of a container that has one.
    fn folder(&self, key: &LogKey) -> Option<PathBuf> {
        let prefix = format!("{}_{}_", key.namespace, key.pod);
        let pod = match &key.uid {
            Some(uid) => self.dir.join(format!("{prefix}{uid}")),
            None => fs::read_dir(&self.dir)
                .ok()?
                .filter_map(Result::ok)
                .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
                .max_by_key(|entry| entry.metadata().and_then(|about| about.modified()).ok())?
                .path(),
        };
        Some(pod.join(&key.container)).filter(|folder| folder.is_dir())
    }
}

fn file_of(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("{number}.log"))
}

/// The numbers of the instances that have a log, oldest first.
fn instances(folder: &Path) -> Vec<u32> {
    let mut numbers: Vec<u32> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let name = entry.ok()?.file_name();
            name.to_str()?.strip_suffix(".log")?.parse().ok()
        })
        .collect();
    numbers.sort_unstable();
    numbers
}
