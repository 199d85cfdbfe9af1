//! Events about Services and IPAddresses, one object for each complaint that
//! comes again and again.

use portolan_api::value::{int_at, set, str_at};
use portolan_plan::allocate::repair::Complaint;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::context::Context;
use crate::rest::{create_object, now};
use crate::store::Stored;

/// Who tells.
const REPORTER: &str = "ipallocator-repair-controller";

/// The object that an event is about.
pub(super) struct About {
    reference: Value,
    namespace: String,
    name: String,
}

impl About {
    pub(super) fn of(stored: &Stored) -> Self {
        let value = stored.value();
        let text = |path: &str| str_at(&value, path).to_owned();
        let namespace = text("metadata.namespace");
        let mut reference = json!({
            "apiVersion": text("apiVersion"),
            "kind": text("kind"),
            "name": text("metadata.name"),
            "uid": text("metadata.uid"),
            "resourceVersion": text("metadata.resourceVersion"),
        });
        if !namespace.is_empty() {
            set(&mut reference, "namespace", namespace.as_str());
        }
        Self {
            reference,
            // Events about what has no namespace are in default.
            namespace: match namespace.as_str() {
                "" => "default".to_owned(),
                own => own.to_owned(),
            },
            name: text("metadata.name"),
        }
    }
}

/// Write a Warning, or count it up if it has been told before.
pub(super) async fn tell(context: &Context, about: &About, complaint: &Complaint) {
    let Some(events) = context.core("Event") else {
        return;
    };
    let uid = str_at(&about.reference, "uid");
    let digest = Sha256::digest(format!(
        "{uid}\n{}\n{}",
        complaint.reason, complaint.message
    ));
    let (mark, _) = digest.split_at(8);
    let mark: String = mark.iter().map(|byte| format!("{byte:02x}")).collect();
    // An IPv6 address is no object name.
    let name = format!("{}.{mark}", about.name.replace(':', "-"));
    let key = events.key(&about.namespace, &name);
    let now = now();
    if let Some(stored) = context.store.get(&key) {
        let mut event = stored.value();
        let count = int_at(&event, "count").unwrap_or(1) + 1;
        set(&mut event, "count", count);
        set(&mut event, "lastTimestamp", now);
        if let Err(error) = context.store.replace(key, event, stored.revision).await {
            tracing::debug!(%error, "cannot count an Event up");
        }
        return;
    }
    let event = json!({
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": name, "namespace": about.namespace},
        "involvedObject": about.reference,
        "type": "Warning",
        "reason": complaint.reason,
        "action": complaint.action,
        "message": complaint.message,
        "source": {"component": REPORTER},
        "reportingComponent": REPORTER,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    });
    if let Err(failure) = create_object(context, &events, event, false).await {
        tracing::debug!(%failure, "cannot write an Event");
    }
}
