//! PATCH with `application/apply-patch+yaml`: server-side apply (KEP-555).
//!
//! The body is all that its manager wants of the object. It makes the object
//! if there is none; conflicts with other managers are 409, unless forced.

use std::sync::Arc;

use http::StatusCode;
use portolan_api::managed::{self, ApplyError};
use portolan_api::value::{has, set, str_at};
use portolan_api::{Cause, Status, kinds, meta};
use serde_json::{Value, json};

use super::change::{Part, change};
use super::create::{create_as, now};
use super::decode::{self, FieldValidation};
use super::owners::{Manager, Owners};
use super::patch::check_uid;
use super::{Call, read};
use crate::answer::{self, Answer, Failure};
use crate::negotiate;
use crate::store::Stored;

/// The content type of an apply.
pub(super) const MEDIA_TYPE: &str = "application/apply-patch+yaml";

/// How often an object that comes and goes meanwhile is looked at again.
const TRIES: usize = 4;

/// Who applies; the options are checked before the body is.
pub(super) fn options(call: &Call) -> Result<Manager, Failure> {
    if call.query().text("fieldManager").is_empty() {
        let cause = Cause::required("fieldManager", "is required for apply patch");
        return Err(call.bad_options(cause));
    }
    FieldValidation::of(call)?;
    Manager::of(call)
}

pub(super) async fn apply(call: &Call) -> Result<Answer, Failure> {
    let manager = options(call)?;
    let kind = &call.asked.resource.kind;
    let config = read_config(call, (kind.group, kind.version, kind.kind))?;
    let part = Part::of(&call.asked.subresource);
    for _ in 0..TRIES {
        if call.context.store.get(&call.key()).is_some() {
            match to_existing(call, part, &config, &manager).await {
                Err(failure) if failure.code == 404 => {}
                other => return other,
            }
        } else if part != Part::Whole {
            return Err(call.not_found());
        } else {
            match to_nothing(call, &config, &manager).await {
                Err(failure) if failure.reason == "AlreadyExists" => {}
                other => return other,
            }
        }
    }
    Err(Box::new(Status::conflict(kind, &call.asked.name)))
}

async fn to_existing(
    call: &Call,
    part: Part,
    config: &Value,
    manager: &Manager,
) -> Result<Answer, Failure> {
    let kind = &call.asked.resource.kind;
    let force = call.query().flag("force");
    let (old, stored) = change(call, part, Owners::Given, |old, stored| {
        precondition(call, config, old, stored)?;
        let now = now();
        let writer = manager.writer(&now);
        let mut object = managed::apply(kind, Some(old), config, writer, force)
            .map_err(|error| refused(call, &error))?;
        decode::typed(kind, &mut object)?;
        Ok(object)
    })
    .await?;
    let warnings = kind.warn(&call.asked.resource.value(&stored), Some(&old));
    answered(call, StatusCode::OK, &stored, &warnings)
}

async fn to_nothing(call: &Call, config: &Value, manager: &Manager) -> Result<Answer, Failure> {
    let kind = &call.asked.resource.kind;
    let name = &call.asked.name;
    if !meta::uid(config).is_empty() {
        let cause = format!(
            "uid mismatch: the provided object specified uid {}, and no existing object was found",
            meta::uid(config)
        );
        return Err(Box::new(Status::conflict_because(kind, name, &cause)));
    }
    decode::check_name(call, config)?;
    if !meta::resource_version(config).is_empty() {
        return Err(Box::new(Status::conflict(kind, name)));
    }
    let now = now();
    let writer = manager.writer(&now);
    let mut object =
        managed::apply(kind, None, config, writer, false).map_err(|error| refused(call, &error))?;
    decode::typed(kind, &mut object)?;
    let resource = &call.asked.resource;
    let dry_run = call.dry_run()?;
    let stored = create_as(&call.context, resource, object, dry_run, Owners::Given).await?;
    let warnings = kind.warn(&resource.value(&stored), None);
    answered(call, StatusCode::CREATED, &stored, &warnings)
}

fn answered(
    call: &Call,
    code: StatusCode,
    stored: &Arc<Stored>,
    warnings: &[String],
) -> Result<Answer, Failure> {
    let mut answer = read::one(call, code, stored)?;
    answer::warn(&mut answer, warnings);
    Ok(answer)
}

/// The applied configuration, whose type, name and place are those of the path.
pub(super) fn read_config(
    call: &Call,
    (group, version, kind): (&str, &str, &str),
) -> Result<Value, Failure> {
    let bad = |message: String| Err(Box::new(Status::bad_request(message)) as Failure);
    let mut config = match negotiate::yaml(&call.body) {
        Ok(config @ Value::Object(_)) => config,
        Ok(_) => return bad("error decoding YAML: the body is not an object".to_owned()),
        Err(error) => return bad(format!("error decoding YAML: {error}")),
    };
    let (api_version, name) = (str_at(&config, "apiVersion"), str_at(&config, "kind"));
    let (own_group, own_version) = kinds::split_api_version(api_version);
    if (own_group, own_version, name) != (group, version, kind) {
        return bad(format!(
            "invalid object type: {own_group}/{own_version}, Kind={name}"
        ));
    }
    if has(&config, "metadata.managedFields") {
        return bad("metadata.managedFields must be nil".to_owned());
    }
    place(call, &mut config)?;
    Ok(config)
}

fn place(call: &Call, config: &mut Value) -> Result<(), Failure> {
    if !config.get("metadata").is_some_and(Value::is_object) {
        set(config, "metadata", json!({}));
    }
    let namespace = &call.asked.namespace;
    if !meta::name(config).is_empty() {
        decode::check_name(call, config)?;
    }
    let own = meta::namespace(config);
    if !own.is_empty() && !namespace.is_empty() && own != namespace {
        return Err(decode::wrong_namespace());
    }
    if call.asked.resource.kind.namespaced {
        meta::set_namespace(config, namespace);
    }
    Ok(())
}

/// An apply may name the version and the uid that it is for.
fn precondition(call: &Call, config: &Value, old: &Value, stored: &Stored) -> Result<(), Failure> {
    let kind = &call.asked.resource.kind;
    let version = meta::resource_version(config);
    if !version.is_empty() && version != stored.revision.to_string() {
        return Err(Box::new(Status::conflict(kind, &call.asked.name)));
    }
    check_uid(call, meta::uid(config), old)
}

/// Conflicts are 409 with a cause each; what does not fit the schema is 500,
/// as in Kubernetes.
pub(super) fn refused(call: &Call, error: &ApplyError) -> Failure {
    let ApplyError::Conflicts(conflicts) = error else {
        return answer::unknown_error(error.to_string());
    };
    let mut status = Status::conflict(&call.asked.resource.kind, &call.asked.name);
    status.message = error.to_string();
    status.details = Default::default();
    status.details.causes = conflicts
        .iter()
        .map(|conflict| {
            json!({
                "reason": "FieldManagerConflict",
                "message": format!("conflict with {}", conflict.manager),
                "field": conflict.field,
            })
        })
        .collect();
    Box::new(status)
}
