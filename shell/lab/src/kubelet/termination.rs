//! What a container says last: `terminationMessagePath` and its policy.

use std::{
    fs, io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Container;

use super::{KubeletConfig, prepare::pod_dir};
use crate::{
    container::Bind,
    logs::{LogKey, LogOptions, Logs},
};

/// Where a container writes it that says nothing else.
const USUAL_PATH: &str = "/dev/termination-log";
/// Kubelet's limits: of the file, and of the log instead of it.
const MAX_FILE: usize = 4096;
const MAX_LOG: usize = 2048;
const MAX_LOG_LINES: u64 = 80;
/// How long the end of the log may take to arrive.
const LOG_WITHIN: Duration = Duration::from_secs(2);

/// Where to look when a container has ended.
pub(super) struct Termination {
    pub(super) file: PathBuf,
    pub(super) fall_back: bool,
    pub(super) logs: Arc<Logs>,
    pub(super) key: LogKey,
}

/// The lab's file that the container sees at its `terminationMessagePath`.
pub(super) fn file(config: &KubeletConfig, uid: &str, container: &str) -> PathBuf {
    pod_dir(config, uid).join("termination").join(container)
}

/// An empty file for a new instance, and where the container sees it.
pub(super) fn bind(file: &Path, container: &Container) -> io::Result<Bind> {
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(file, "")?;
    fs::set_permissions(file, fs::Permissions::from_mode(0o666))?;
    let own = container.termination_message_path.as_deref();
    let own = own.filter(|path| !path.is_empty());
    Ok(Bind {
        source: file.to_owned(),
        target: own.unwrap_or(USUAL_PATH).into(),
        read_only: false,
    })
}

impl Termination {
    /// The message of a container that ended with `code`.
    pub(super) async fn message(&self, code: i32) -> String {
        let bytes = fs::read(&self.file).unwrap_or_default();
        if bytes.is_empty() && self.fall_back && code != 0 {
            return self.log().await;
        }
        end_of(&bytes, MAX_FILE)
    }

    async fn log(&self) -> String {
        let options = LogOptions {
            // Ends when everything that the container wrote has arrived.
            follow: true,
            tail_lines: Some(MAX_LOG_LINES),
            ..LogOptions::default()
        };
        let Ok(mut stream) = self.logs.read(&self.key, options) else {
            return String::new();
        };
        let mut all = Vec::new();
        let read = async {
            while let Some(Ok(piece)) = stream.next().await {
                all.extend_from_slice(&piece);
            }
        };
        if tokio::time::timeout(LOG_WITHIN, read).await.is_err() {
            tracing::debug!("the end of a log is late");
        }
        end_of(&all, MAX_LOG)
    }
}

fn end_of(bytes: &[u8], limit: usize) -> String {
    let from = bytes.len().saturating_sub(limit);
    String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned()
}
