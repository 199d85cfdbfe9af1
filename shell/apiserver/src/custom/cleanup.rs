//! The end of a definition: first its objects, then itself.

use std::sync::Arc;

use jiff::Timestamp;
use portolan_api::custom::{CLEANUP_FINALIZER, names};
use portolan_api::meta;
use portolan_api::value::str_at;
use serde_json::Value;

use crate::context::{Context, Resource};
use crate::rest::now;
use crate::store::{Key, KindIndex, Stored, WriteError};

/// What the conditions of an ending definition say.
const IN_PROGRESS: (&str, &str) = (
    "InstanceDeletionInProgress",
    "CustomResource deletion is in progress",
);

/// Delete the objects of a definition that is being deleted, and let it go when
/// none is left. Whether nothing is left to do.
pub(super) async fn finish(
    context: &Arc<Context>,
    definitions: &Resource,
    definition: &Value,
) -> bool {
    if !meta::finalizers(definition).contains(&CLEANUP_FINALIZER) {
        return true;
    }
    let name = format!(
        "{}.{}",
        str_at(definition, "spec.names.plural"),
        str_at(definition, "spec.group")
    );
    let Some(index) = context.store.collection(&name) else {
        return true;
    };
    note(context, definitions, definition, IN_PROGRESS).await;
    let left = delete_objects(context, index).await;
    if left > 0 || context.store.cache().count(index) > 0 {
        return false;
    }
    release(context, definitions, definition).await
}

/// Delete every object of the collection; how many are left because somebody's
/// finalizer holds them.
async fn delete_objects(context: &Context, index: KindIndex) -> usize {
    let snapshot = context.store.cache().snapshot(index);
    let mut left = 0;
    for (name, stored) in &snapshot.objects {
        let key = Key {
            kind: index,
            name: name.clone(),
        };
        let mut value = stored.value();
        let held = !meta::finalizers(&value).is_empty();
        let result = if !held {
            context.store.remove(key, stored.revision).await.map(drop)
        } else if !stored.deleting {
            meta::set_deletion(&mut value, &Timestamp::now().to_string(), 0);
            let written = context.store.replace(key, value, stored.revision).await;
            written.map(drop)
        } else {
            Ok(())
        };
        match result {
            Ok(()) | Err(WriteError::Missing) => left += usize::from(held),
            Err(error) => {
                tracing::debug!(%error, "an object of an ending definition is left");
                left += 1;
            }
        }
    }
    left
}

fn current(context: &Context, definitions: &Resource, name: &str) -> Option<Arc<Stored>> {
    context.store.get(&definitions.key("", name))
}

/// Write the condition Terminating, if it does not say this yet.
async fn note(
    context: &Context,
    definitions: &Resource,
    definition: &Value,
    (reason, message): (&str, &str),
) {
    let name = meta::name(definition);
    let Some(stored) = current(context, definitions, name) else {
        return;
    };
    let mut value = stored.value();
    let condition = names::Condition {
        name: "Terminating",
        status: "True",
        reason,
        message,
    };
    names::set_condition(&mut value, condition, &now());
    if value == stored.value() {
        return;
    }
    let key = definitions.key("", name);
    if let Err(error) = context.store.replace(key, value, stored.revision).await {
        tracing::debug!(%error, name, "the condition is noted another time");
    }
}

/// Take our finalizer; with the last one the definition goes. Whether it did.
async fn release(context: &Context, definitions: &Resource, definition: &Value) -> bool {
    let name = meta::name(definition);
    let Some(stored) = current(context, definitions, name) else {
        return true;
    };
    let mut value = stored.value();
    let finalizers: Vec<String> = meta::finalizers(&value)
        .into_iter()
        .filter(|finalizer| *finalizer != CLEANUP_FINALIZER)
        .map(str::to_owned)
        .collect();
    let key = definitions.key("", name);
    let result = if finalizers.is_empty() {
        context.store.remove(key, stored.revision).await
    } else {
        let texts: Vec<&str> = finalizers.iter().map(String::as_str).collect();
        meta::set_finalizers(&mut value, &texts);
        context.store.replace(key, value, stored.revision).await
    };
    result.is_ok()
}
