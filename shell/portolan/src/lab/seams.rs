//! Where two rooms meet that do not know each other: pods' logs, which the lab
//! keeps, for the API server.

use std::sync::Arc;

use futures::future::BoxFuture;
use portolan_apiserver::{LogError, LogRequest, LogStream, PodBackend};
use portolan_lab::logs::{self, LogKey, Logs};

/// The lab's log files, as the API server wants them.
pub(crate) struct PodLogs(pub(crate) Arc<Logs>);

impl PodBackend for PodLogs {
    fn logs(&self, request: LogRequest) -> BoxFuture<'_, Result<LogStream, LogError>> {
        let key = LogKey {
            namespace: request.namespace,
            pod: request.pod,
            uid: Some(request.uid),
            container: request.container,
        };
        let asked = request.options;
        let options = logs::LogOptions {
            follow: asked.follow,
            previous: asked.previous,
            timestamps: asked.timestamps,
            tail_lines: asked.tail_lines,
            since: None,
            since_time: asked.since,
            limit_bytes: asked.limit_bytes,
        };
        let found = self.0.read(&key, options).map_err(|error| match error {
            logs::LogError::NotStarted { .. } | logs::LogError::NoPrevious { .. } => {
                LogError::BadRequest(error.to_string())
            }
            logs::LogError::File { .. } => LogError::Internal(error.to_string()),
        });
        Box::pin(async move { found })
    }
}
