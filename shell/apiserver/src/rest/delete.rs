//! DELETE of an object or of a collection.
//!
//! ```text
//! DELETE ─► preconditions ─► propagation finalizers ─► nothing to wait for? ─► gone
//!                                                  └► deletionTimestamp set, stored;
//!                                 gone with the last finalizer, or with the
//!                                 DELETE of grace 0 that the kubelet sends
//! ```

use std::sync::Arc;

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use portolan_api::value::{at, set, str_at, strings_at};
use portolan_api::{Cause, Kind, Status, meta};
use serde_json::{Map, Value};

use super::change::{Part, Replaced, Replacement, TRIES};
use super::owners::Owners;
use super::{Call, decode, list, read};
use crate::answer::{self, Answer, Failure};
use crate::negotiate;
use crate::store::{Key, Stored};

/// Namespaces without which nothing works.
const PROTECTED: &[&str] = &["default", "kube-system", "kube-public"];
const ORPHAN: &str = "orphan";
const FOREGROUND: &str = "foregroundDeletion";
const MAX_GRACE_SECONDS: i64 = 365 * 24 * 3600;

/// What the client says about a deletion.
#[derive(Debug, Default)]
struct Options {
    grace: Option<i64>,
    propagation: String,
    /// The old way to say `propagation`.
    orphan: Option<bool>,
    uid: String,
    resource_version: String,
    dry_run: bool,
}

/// How a deletion ended.
enum Outcome {
    /// The object is gone; this is how it was last.
    Gone(Arc<Stored>),
    /// It is marked and waits.
    Waiting(Arc<Stored>),
}

pub(super) async fn delete(call: &Call) -> Result<Answer, Failure> {
    let options = options(call)?;
    let outcome = delete_one(call, &call.key(), &options).await?;
    let kind = &call.asked.resource.kind;
    match outcome {
        Outcome::Gone(stored) if !kind.delete_returns_object => {
            let uid = meta::uid(&stored.value()).to_owned();
            let status = Status::deleted(kind, &call.asked.name, &uid);
            Ok(answer::json(StatusCode::OK, &status))
        }
        Outcome::Gone(stored) | Outcome::Waiting(stored) => {
            read::one(call, StatusCode::OK, &stored)
        }
    }
}

/// `pods/NAME/eviction`: a deletion that disruption budgets could refuse.
pub(super) async fn evict(call: &Call) -> Result<Answer, Failure> {
    let (body, _) = decode::EVICTION.read(call)?;
    decode::EVICTION.check_name(call, &body)?;
    let mut options = parse(at(&body, "deleteOptions"))?;
    options.dry_run |= call.dry_run()?;
    delete_one(call, &call.key(), &options).await?;
    let success = Status {
        code: 201,
        reason: "",
        message: String::new(),
        details: Default::default(),
    };
    Ok(answer::json(StatusCode::CREATED, &success.to_value()))
}

pub(super) async fn collection(call: &Call) -> Result<Answer, Failure> {
    let options = options(call)?;
    let mut deleted = Vec::new();
    for (name, _) in list::selected(call)? {
        let key = Key {
            kind: call.asked.resource.index,
            name,
        };
        match delete_one(call, &key, &options).await {
            Ok(Outcome::Gone(stored) | Outcome::Waiting(stored)) => deleted.push(stored),
            // Somebody else was faster.
            Err(failure) if failure.code == 404 => {}
            Err(failure) => return Err(failure),
        }
    }
    let mut metadata = Map::new();
    let revision = call.context.store.cache().revision();
    metadata.insert("resourceVersion".to_owned(), revision.to_string().into());
    let body = list::encode(&call.asked.resource, &metadata, &deleted);
    Ok(answer::bytes(StatusCode::OK, answer::JSON, body))
}

/// The options of the body, or of the query if there is no body.
fn options(call: &Call) -> Result<Options, Failure> {
    let query = call.query();
    let mut options = if call.body.is_empty() {
        Options::default()
    } else {
        let body = negotiate::body(&call.headers, &call.body)?;
        if !matches!(str_at(&body, "kind"), "" | "DeleteOptions") {
            return Err(Box::new(Status::bad_request(
                "decoded object cannot be converted to DeleteOptions",
            )));
        }
        parse(&body)?
    };
    if let Ok(Some(grace)) = query.number("gracePeriodSeconds")
        && options.grace.is_none()
    {
        options.grace = i64::try_from(grace).ok();
    }
    if options.propagation.is_empty() {
        options.propagation = query.text("propagationPolicy").to_owned();
    }
    if options.orphan.is_none() && query.has("orphanDependents") {
        options.orphan = Some(query.flag("orphanDependents"));
    }
    options.dry_run |= call.dry_run()?;
    propagation(call, &mut options)?;
    Ok(options)
}

/// `orphanDependents` is the old way to say one of two policies.
fn propagation(call: &Call, options: &mut Options) -> Result<(), Failure> {
    let said = options.propagation.as_str();
    let cause = match (said, options.orphan) {
        ("", Some(true)) => {
            options.propagation = "Orphan".to_owned();
            return Ok(());
        }
        ("", Some(false)) => {
            options.propagation = "Background".to_owned();
            return Ok(());
        }
        ("" | "Orphan" | "Background" | "Foreground", None) => return Ok(()),
        (_, Some(_)) => Cause::invalid(
            "propagationPolicy",
            &said.into(),
            "orphanDependents and deletionPropagation cannot be both set",
        ),
        (_, None) => Cause::not_supported(
            "propagationPolicy",
            &said.into(),
            &["Foreground", "Background", "Orphan", "nil"],
        ),
    };
    Err(call.bad_options(cause))
}

fn parse(body: &Value) -> Result<Options, Failure> {
    let grace = at(body, "gracePeriodSeconds");
    if !grace.is_null() && grace.as_i64().is_none() {
        return Err(Box::new(Status::bad_request(
            "gracePeriodSeconds must be a number",
        )));
    }
    Ok(Options {
        grace: grace.as_i64().map(|grace| match grace {
            // Kubernetes takes a negative period for one second.
            grace if grace < 0 => 1,
            grace => grace.min(MAX_GRACE_SECONDS),
        }),
        propagation: str_at(body, "propagationPolicy").to_owned(),
        orphan: at(body, "orphanDependents").as_bool(),
        uid: str_at(body, "preconditions.uid").to_owned(),
        resource_version: str_at(body, "preconditions.resourceVersion").to_owned(),
        dry_run: strings_at(body, "dryRun").contains(&"All"),
    })
}

async fn delete_one(call: &Call, key: &Key, options: &Options) -> Result<Outcome, Failure> {
    let kind = &call.asked.resource.kind;
    let name = &key.name.name;
    protect(call, name)?;
    for _ in 0..TRIES {
        let Some(stored) = call.context.store.get(key) else {
            return Err(Box::new(Status::not_found(kind, name)));
        };
        let old = stored.value();
        preconditions(kind, name, options, &old)?;
        let replacement = Replacement {
            context: &call.context,
            resource: call.asked.resource.clone(),
            key: key.clone(),
            stored: &stored,
            part: Part::Whole,
            dry_run: options.dry_run,
            owners: Owners::Given,
        };
        match step(&replacement, options, &old).await {
            Ok(outcome) => return Ok(outcome),
            Err(Replaced::Failed(failure)) => return Err(failure),
            Err(Replaced::Changed) => {}
        }
    }
    Err(Box::new(Status::conflict(kind, name)))
}

fn protect(call: &Call, name: &str) -> Result<(), Failure> {
    let resource = &call.asked.resource;
    if resource.is("", "Namespace") && PROTECTED.contains(&name) {
        let cause = "this namespace may not be deleted";
        return Err(Box::new(Status::forbidden(&resource.kind, name, cause)));
    }
    Ok(())
}

fn preconditions(kind: &Kind, name: &str, options: &Options, old: &Value) -> Result<(), Failure> {
    let checks = [
        ("UID", &options.uid, meta::uid(old)),
        (
            "ResourceVersion",
            &options.resource_version,
            meta::resource_version(old),
        ),
    ];
    for (field, wanted, found) in checks {
        if !wanted.is_empty() && wanted != found {
            let status = Status::precondition(kind, name, field, wanted, found);
            return Err(Box::new(status));
        }
    }
    Ok(())
}

async fn step(
    replacement: &Replacement<'_>,
    options: &Options,
    old: &Value,
) -> Result<Outcome, Replaced> {
    let kind = &replacement.resource.kind;
    let mut object = old.clone();
    set_propagation(&mut object, &options.propagation);
    kind.begin_deletion(&mut object, &super::now());
    let grace = match kind.grace_period {
        Some(default) => options.grace.unwrap_or_else(|| default(old)).max(0),
        None => 0,
    };
    let grace = if waits_for_nobody(old) { 0 } else { grace };
    let before = meta::deletion_grace_period(old);
    let deleting = meta::deletion_timestamp(old).is_some();
    let waits =
        !meta::finalizers(&object).is_empty() || !strings_at(&object, "spec.finalizers").is_empty();
    // A second request only ever shortens the wait.
    let shortens =
        deleting && options.grace.is_some() && before.is_none_or(|before| grace < before);
    let settled = deleting && !shortens && (waits || before.is_some_and(|before| before > 0));
    if !settled {
        if grace == 0 && !waits {
            return gone(replacement).await;
        }
        mark(&mut object, old, grace);
    }
    unchanged_or_stored(replacement, old, object).await
}

async fn gone(replacement: &Replacement<'_>) -> Result<Outcome, Replaced> {
    if replacement.dry_run {
        return Ok(Outcome::Gone(Arc::clone(replacement.stored)));
    }
    replacement.remove().await.map(Outcome::Gone)
}

async fn unchanged_or_stored(
    replacement: &Replacement<'_>,
    old: &Value,
    object: Value,
) -> Result<Outcome, Replaced> {
    if object == *old || replacement.dry_run {
        let stored = super::create::unstored(object);
        return Ok(Outcome::Waiting(Arc::new(stored)));
    }
    let written = replacement
        .context
        .store
        .replace(replacement.key.clone(), object, replacement.stored.revision)
        .await;
    replacement.map(written).map(Outcome::Waiting)
}

/// Set the time at which the object may be gone.
fn mark(object: &mut Value, old: &Value, grace: i64) {
    let now = Timestamp::now().as_second();
    // Counted from the first request, so that shortening does not start anew.
    let first = meta::deletion_timestamp(old)
        .and_then(|time| time.parse::<Timestamp>().ok())
        .zip(meta::deletion_grace_period(old))
        .map_or(now, |(end, grace)| end.as_second() - grace);
    let end = Timestamp::from_second(first)
        .ok()
        .and_then(|start| start.checked_add(SignedDuration::from_secs(grace)).ok())
        .unwrap_or_else(Timestamp::now);
    meta::set_deletion(object, &end.to_string(), grace);
    let generation = meta::generation(old);
    if generation > 0 {
        meta::set_generation(object, generation + 1);
    }
    if str_at(object, "kind") == "Namespace" {
        set(object, "status.phase", "Terminating");
    }
}

/// Pods that no kubelet runs, or that have run to their end, go at once.
fn waits_for_nobody(object: &Value) -> bool {
    str_at(object, "kind") == "Pod"
        && (str_at(object, "spec.nodeName").is_empty()
            || matches!(str_at(object, "status.phase"), "Succeeded" | "Failed"))
}

/// What becomes of dependents is done by the garbage collector, which reads it
/// from these finalizers.
fn set_propagation(object: &mut Value, propagation: &str) {
    let wanted = match propagation {
        "Orphan" => Some(ORPHAN),
        "Foreground" => Some(FOREGROUND),
        "Background" => None,
        // Nothing said: what an earlier request said stays.
        _ => return,
    };
    let mut finalizers: Vec<String> = meta::finalizers(object)
        .into_iter()
        .filter(|finalizer| *finalizer != ORPHAN && *finalizer != FOREGROUND)
        .map(str::to_owned)
        .collect();
    finalizers.extend(wanted.map(str::to_owned));
    let texts: Vec<&str> = finalizers.iter().map(String::as_str).collect();
    meta::set_finalizers(object, &texts);
}
