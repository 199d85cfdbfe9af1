//! Events: what a component tells the user about an object.
//!
//! Events are best effort. A recorder is a queue and a task, so that telling
//! never delays doing; a full queue drops. Repetitions within a while are
//! counted on the first event instead of creating more of them, as
//! Kubernetes' own recorders do.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use kube::Client;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::resource::EVENTS;
use crate::write::{PatchBody, Target, Writer};

/// Events waiting to be written.
const QUEUE_DEPTH: usize = 1024;
/// Events remembered for counting repetitions.
const REMEMBERED: usize = 1024;
/// A repetition after this long is a new event (as in client-go's correlator).
const REPEAT_WITHIN: Duration = Duration::from_secs(600);

/// Whether an event is good or bad news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// For the record.
    Normal,
    /// Somebody should look.
    Warning,
}

/// The object that an event is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Regarding {
    /// Such as `apps/v1`.
    pub api_version: String,
    /// Such as `Deployment`.
    pub kind: String,
    /// Empty for cluster-scoped objects.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
    /// A part of it, such as `spec.containers{web}`; mostly empty.
    pub field_path: String,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Told {
    regarding: Regarding,
    severity: Severity,
    reason: String,
    message: String,
}

/// Writes events. Cheap to clone; stops when the last clone is dropped.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Told>,
}

impl Recorder {
    /// A recorder whose events come from `component` (on `host`, or empty).
    pub fn new(client: Client, component: &'static str, host: &str) -> Self {
        let (queue, told) = mpsc::channel(QUEUE_DEPTH);
        let task = Task {
            writer: Writer::new(client, component),
            component,
            host: host.to_owned(),
            seen: BTreeMap::new(),
        };
        tokio::spawn(task.run(told));
        Self { queue }
    }

    /// Tells something about an object.
    pub fn tell(&self, regarding: &Regarding, severity: Severity, reason: &str, message: &str) {
        let told = Told {
            regarding: regarding.clone(),
            severity,
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        if self.queue.try_send(told).is_err() {
            tracing::debug!(reason, message, "event dropped: the queue is full");
        }
    }
}

/// An event that was written and may be counted up.
struct Seen {
    name: String,
    count: u64,
    last: Timestamp,
}

struct Task {
    writer: Writer,
    component: &'static str,
    host: String,
    seen: BTreeMap<Told, Seen>,
}

impl Task {
    async fn run(mut self, mut told: mpsc::Receiver<Told>) {
        while let Some(told) = told.recv().await {
            let now = Timestamp::now();
            if !self.count_up(&told, now).await {
                self.create(told, now).await;
            }
        }
    }

    /// Counts a repetition on the earlier event; false if there is none.
    async fn count_up(&mut self, told: &Told, now: Timestamp) -> bool {
        let Some(seen) = self.seen.get_mut(told) else {
            return false;
        };
        let age = now.duration_since(seen.last);
        if age > REPEAT_WITHIN.try_into().unwrap_or_default() {
            return false;
        }
        let patch = json!({"count": seen.count + 1, "lastTimestamp": seconds(now)});
        let target = Target::one(&EVENTS, Some(event_namespace(told)), &seen.name);
        match self.writer.patch(target, PatchBody::Merge(&patch)).await {
            Ok(_) => {
                seen.count += 1;
                seen.last = now;
                true
            }
            Err(_gone) => false,
        }
    }

    async fn create(&mut self, told: Told, now: Timestamp) {
        // Kubernetes' own scheme: object name, dot, time in hexadecimal.
        let name = format!("{}.{:x}", told.regarding.name, now.as_nanosecond());
        let body = body(&told, &name, self.component, &self.host, now);
        let target = Target::all(&EVENTS, Some(event_namespace(&told)));
        match self.writer.create(target, &body).await {
            Ok(_) => {
                if self.seen.len() >= REMEMBERED {
                    self.seen.clear();
                }
                let seen = Seen {
                    name,
                    count: 1,
                    last: now,
                };
                self.seen.insert(told, seen);
            }
            Err(error) => tracing::debug!(%error, reason = told.reason, "event not written"),
        }
    }
}

/// Events about cluster-scoped objects live in `default`.
fn event_namespace(told: &Told) -> &str {
    match told.regarding.namespace.as_str() {
        "" => "default",
        namespace => namespace,
    }
}

/// Kubernetes' `Time` has whole seconds.
fn seconds(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn body(told: &Told, name: &str, component: &str, host: &str, now: Timestamp) -> Value {
    let about = &told.regarding;
    let mut source = json!({ "component": component });
    if !host.is_empty() {
        source["host"] = host.into();
    }
    let mut involved = json!({
        "apiVersion": about.api_version,
        "kind": about.kind,
        "name": about.name,
        "uid": about.uid,
    });
    for (key, value) in [
        ("namespace", &about.namespace),
        ("fieldPath", &about.field_path),
    ] {
        if !value.is_empty() {
            involved[key] = value.as_str().into();
        }
    }
    json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": event_namespace(told)},
        "involvedObject": involved,
        "reason": told.reason,
        "message": told.message,
        "source": source,
        "firstTimestamp": seconds(now),
        "lastTimestamp": seconds(now),
        "count": 1,
        "type": match told.severity {
            Severity::Normal => "Normal",
            Severity::Warning => "Warning",
        },
        "eventTime": null,
        "reportingComponent": component,
        "reportingInstance": host,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_about_a_node_lives_in_default() {
        let told = Told {
            regarding: Regarding {
                api_version: "v1".into(),
                kind: "Node".into(),
                namespace: String::new(),
                name: "node-1".into(),
                uid: "u".into(),
                field_path: String::new(),
            },
            severity: Severity::Warning,
            reason: "NodeNotReady".into(),
            message: "gone".into(),
        };
        let event = body(&told, "node-1.1", "test", "", Timestamp::UNIX_EPOCH);
        assert_eq!(event["metadata"]["namespace"], "default");
        assert_eq!(event["involvedObject"].get("namespace"), None);
        assert_eq!(event["firstTimestamp"], "1970-01-01T00:00:00Z");
        assert_eq!(event["type"], "Warning");
    }
}
