//! CustomResourceDefinitions at work.
//!
//! ```text
//! a definition changes ─► names decided ─► registry: kinds served anew
//!                                              │ only then
//!                                              ▼
//!                                      conditions written (Established)
//! a definition is deleted ─► its objects deleted ─► all gone ─► finalizer
//!                            removed ─► the definition goes ─► kinds go
//! ```
//!
//! One task does all of it, so that two definitions never get the same name.

mod cleanup;
mod expression;

use std::sync::{Arc, Weak};
use std::time::Duration;

use portolan_api::custom::{Version, names};
use portolan_api::kinds::{self, KindRef};
use portolan_api::{Cause, meta};
use serde_json::Value;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::context::{Context, Resource};
use crate::rest::now;
use crate::store::{Stored, WriteError};
use expression::Expressions;

/// How long to wait before what could not be done is tried again.
const RETRY: Duration = Duration::from_secs(1);

/// Serve what is defined, and go on with it while the server lives.
pub(crate) async fn start(context: &Arc<Context>) {
    let Some(definitions) = definitions(context) else {
        return;
    };
    let Some(changed) = context.store.cache().subscribe(definitions.index) else {
        return;
    };
    // Before the first request: custom resources are there after a restart.
    reconcile(context, &definitions).await;
    drop(tokio::spawn(run(
        Arc::downgrade(context),
        definitions,
        changed,
    )));
}

/// What is wrong with the rules of a definition; nothing with other objects.
pub(crate) fn rule_faults(resource: &Resource, object: &Value) -> Vec<Cause> {
    match resource.is("apiextensions.k8s.io", "CustomResourceDefinition") {
        true => portolan_api::custom::rule_faults(object, &Expressions),
        false => Vec::new(),
    }
}

fn definitions(context: &Context) -> Option<Resource> {
    context.resource("apiextensions.k8s.io", "v1", "customresourcedefinitions")
}

async fn run(context: Weak<Context>, definitions: Resource, mut changed: watch::Receiver<u64>) {
    let mut settled = true;
    loop {
        if settled {
            // The sender is part of the store, which is part of the context.
            if changed.changed().await.is_err() {
                return;
            }
        } else {
            tokio::select! {
                changed = changed.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(RETRY) => {}
            }
        }
        let Some(context) = context.upgrade() else {
            return;
        };
        changed.borrow_and_update();
        settled = reconcile(&context, &definitions).await;
    }
}

/// A definition as it is stored.
struct Found {
    stored: Arc<Stored>,
    value: Value,
}

/// Bring the registry and all conditions to what is defined. Whether all is
/// done; if not, something is waited for.
async fn reconcile(context: &Arc<Context>, definitions: &Resource) -> bool {
    let mut found = read(context, definitions);
    let mut decided: Vec<Value> = Vec::with_capacity(found.len());
    for index in 0..found.len() {
        let Some(one) = found.get(index) else {
            continue;
        };
        // Those before with what they just got, those after with what they have.
        let others: Vec<&Value> = decided
            .iter()
            .chain(found.iter().skip(index + 1).map(|other| &other.value))
            .collect();
        let value = match meta::deletion_timestamp(&one.value) {
            Some(_) => one.value.clone(),
            None => names::decide(&one.value, &others, &now()),
        };
        decided.push(value);
    }
    serve(context, &decided);
    let mut settled = true;
    for (one, decided) in found.iter_mut().zip(decided) {
        if one.value != decided {
            settled &= write(context, definitions, one, &decided).await;
            one.value = decided;
        }
    }
    for one in &found {
        if meta::deletion_timestamp(&one.value).is_some() {
            settled &= cleanup::finish(context, definitions, &one.value).await;
        }
    }
    settled
}

/// All definitions, the oldest first: whoever came first keeps the names.
fn read(context: &Context, definitions: &Resource) -> Vec<Found> {
    let snapshot = context.store.cache().snapshot(definitions.index);
    let mut found: Vec<Found> = snapshot
        .objects
        .values()
        .map(|stored| Found {
            stored: Arc::clone(stored),
            value: stored.value(),
        })
        .collect();
    found.sort_by_key(|one| !names::is_true(&one.value, "Established"));
    found
}

/// Serve the established definitions. Kinds that have not changed keep their
/// handle, and so their watches.
fn serve(context: &Context, definitions: &[Value]) {
    let served = context.registry.served();
    let mut custom = Vec::new();
    for definition in definitions {
        if !names::is_true(definition, "Established") {
            continue;
        }
        let ending = meta::deletion_timestamp(definition).is_some();
        for version in portolan_api::custom::versions(definition) {
            let source = version.source();
            let kept = served.resources.iter().find(|old| {
                let made = old.kind.custom.as_ref();
                made.is_some_and(|made| *made.source() == source)
            });
            custom.extend(match kept {
                Some(kept) => Some(Resource {
                    ending,
                    ..kept.clone()
                }),
                None => fresh(context, &version, ending),
            });
        }
    }
    custom.sort_by_key(|resource| {
        let kind = &resource.kind;
        (kind.group, portolan_api::custom::priority(kind.version))
    });
    context.registry.set_custom(custom);
}

/// A definition does not hide a kind of the table.
fn overlaps_table(kind: &portolan_api::Kind) -> bool {
    kinds::all().any(|own| own.group == kind.group && own.plural == kind.plural)
}

/// The resource of a version that is served for the first time in this form.
fn fresh(context: &Context, version: &Version<'_>, ending: bool) -> Option<Resource> {
    let kind = version.kind(&Expressions)?;
    if overlaps_table(&kind) {
        return None;
    }
    let Some(index) = context.store.collection(&kind.collection()) else {
        tracing::error!(kind = kind.kind, "too many kinds: this one is not served");
        return None;
    };
    Some(Resource {
        kind: KindRef::from(Arc::new(kind)),
        index,
        gone: Some(CancellationToken::new()),
        ending,
    })
}

/// Write a definition whose status has changed; whether it could be done.
async fn write(context: &Context, definitions: &Resource, one: &Found, value: &Value) -> bool {
    let key = definitions.key("", meta::name(value));
    let written = context
        .store
        .replace(key, value.clone(), one.stored.revision)
        .await;
    match written {
        Ok(_) => true,
        // The change that came first wakes the task again.
        Err(WriteError::Conflict | WriteError::Missing) => true,
        Err(error) => {
            tracing::warn!(%error, definition = meta::name(value), "cannot write conditions");
            false
        }
    }
}
