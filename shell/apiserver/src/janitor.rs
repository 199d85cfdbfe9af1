//! Events are forgotten after a while.

use std::sync::{Arc, Weak};
use std::time::Duration;

use jiff::Timestamp;
use portolan_api::value::str_at;
use serde_json::Value;

use crate::context::Context;
use crate::store::{Key, WriteError};

const INTERVAL: Duration = Duration::from_secs(60);

/// Look for old Events each minute while the server lives.
pub(crate) fn start(context: &Arc<Context>) {
    let context = Arc::downgrade(context);
    drop(tokio::spawn(run(context)));
}

async fn run(context: Weak<Context>) {
    loop {
        tokio::time::sleep(INTERVAL).await;
        let Some(context) = context.upgrade() else {
            return;
        };
        sweep(&context, Timestamp::now()).await;
    }
}

/// Remove the Events that are older than their time to live at `now`.
pub(crate) async fn sweep(context: &Context, now: Timestamp) {
    let Some(events) = context.core("Event") else {
        return;
    };
    let lifetime = i64::try_from(context.config.event_ttl.as_secs()).unwrap_or(i64::MAX);
    let oldest = now.as_second().saturating_sub(lifetime);
    let snapshot = context.store.cache().snapshot(events.index);
    for (name, stored) in &snapshot.objects {
        if last_seen(&stored.value()).is_none_or(|seen| seen.as_second() > oldest) {
            continue;
        }
        let key = Key {
            kind: events.index,
            name: name.clone(),
        };
        match context.store.remove(key, stored.revision).await {
            // Seen again meanwhile, or gone: fine.
            Ok(_) | Err(WriteError::Conflict | WriteError::Missing) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot remove an old Event");
                return;
            }
        }
    }
}

fn last_seen(event: &Value) -> Option<Timestamp> {
    [
        "series.lastObservedTime",
        "lastTimestamp",
        "eventTime",
        "metadata.creationTimestamp",
    ]
    .into_iter()
    .filter_map(|path| str_at(event, path).parse().ok())
    .max()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rest::create_object;
    use crate::{Config, Server};
    use jiff::SignedDuration;
    use serde_json::json;

    #[tokio::test]
    async fn events_are_kept_for_an_hour() {
        let dir = tempfile::tempdir().unwrap();
        let config = Config {
            data_dir: dir.path().to_owned(),
            ..Config::default()
        };
        let server = Server::open(config).await.unwrap();
        let context = &server.context;
        let events = context.core("Event").unwrap();
        let now = Timestamp::now();
        let seen = |minutes: i64| (now - SignedDuration::from_mins(minutes)).to_string();
        for (name, minutes) in [("old", 61), ("new", 59)] {
            let object = json!({
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": name, "namespace": "default"},
                "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"},
                "lastTimestamp": seen(minutes),
            });
            create_object(context, &events, object, false)
                .await
                .unwrap();
        }
        let left = || {
            let snapshot = context.store.cache().snapshot(events.index);
            let names = snapshot.objects.keys().map(|name| name.name.clone());
            names.collect::<Vec<_>>()
        };
        // Both were created just now: that counts, too.
        sweep(context, now).await;
        assert_eq!(left(), ["new", "old"]);
        sweep(context, now + SignedDuration::from_mins(61)).await;
        assert!(left().is_empty());
    }
}
