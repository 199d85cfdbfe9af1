//! The `scale` subresource: replicas as autoscaling/v1 Scale.

use std::sync::Arc;

use http::StatusCode;
use portolan_api::managed::{self, ApplyError, Conflict};
use portolan_api::{Status, meta, scale};
use serde_json::Value;

use super::apply::{self, MEDIA_TYPE};
use super::change::{Part, change};
use super::create::now;
use super::decode::{self, FieldValidation, SCALE};
use super::owners::{Manager, Owners};
use super::patch::{Judge, patched, read_patch};
use super::{Call, update};
use crate::answer::{self, Answer, Failure};
use crate::negotiate;
use crate::store::Stored;

/// Where the replicas are in every Scale.
const REPLICAS: &str = ".spec.replicas";

pub(super) fn get(call: &Call) -> Result<Answer, Failure> {
    let stored = call.current()?;
    Ok(answer::json(StatusCode::OK, &seen(call, &stored)))
}

/// The Scale of a stored object.
fn seen(call: &Call, stored: &Stored) -> Value {
    let resource = &call.asked.resource;
    scale::of(&resource.kind, &resource.value(stored))
}

fn answered(call: &Call, stored: &Stored, warnings: &[String]) -> Answer {
    let mut answer = answer::json(StatusCode::OK, &seen(call, stored));
    answer::warn(&mut answer, warnings);
    answer
}

pub(super) async fn update(call: &Call) -> Result<Answer, Failure> {
    let (wanted, warnings) = SCALE.read(call)?;
    decode::check_name(call, &wanted)?;
    let stored = write(call, |_| Ok(wanted.clone())).await?;
    Ok(answered(call, &stored, &warnings))
}

pub(super) async fn patch(call: &Call) -> Result<Answer, Failure> {
    if negotiate::content_type(&call.headers) == MEDIA_TYPE {
        return apply(call).await;
    }
    let (patch_type, change) = read_patch(call)?;
    let judge = Judge {
        call,
        validation: FieldValidation::of(call)?,
        patch_type,
        patch: &change,
    };
    let mut warnings = Vec::new();
    let stored = write(call, |current| {
        let object = patched(call, patch_type, current, &change)?;
        let (mistyped, unknown) = SCALE.faults(&object);
        warnings = judge.judge(&object, mistyped, unknown)?;
        if meta::namespace(&object) != meta::namespace(current) {
            return Err(decode::wrong_namespace());
        }
        decode::check_name(call, &object)?;
        Ok(object)
    })
    .await?;
    Ok(answered(call, &stored, &warnings))
}

async fn write(
    call: &Call,
    mut make: impl FnMut(&Value) -> Result<Value, Failure>,
) -> Result<Arc<Stored>, Failure> {
    let kind = &call.asked.resource.kind;
    update::edit(call, Part::Whole, |object| {
        let wanted = make(&scale::of(kind, object))?;
        precondition(call, &wanted, object)?;
        set_replicas(call, object, &wanted)
    })
    .await
}

/// A Scale may name the version and the uid that it is for.
fn precondition(call: &Call, scale: &Value, object: &Value) -> Result<(), Failure> {
    let (kind, name) = (&call.asked.resource.kind, &call.asked.name);
    let (wanted, found) = (meta::uid(scale), meta::uid(object));
    if !wanted.is_empty() && wanted != found {
        let status = Status::precondition(kind, name, "UID", wanted, found);
        return Err(Box::new(status));
    }
    let version = meta::resource_version(scale);
    if !version.is_empty() && version != meta::resource_version(object) {
        return Err(Box::new(Status::conflict(kind, name)));
    }
    Ok(())
}

fn set_replicas(call: &Call, object: &mut Value, wanted: &Value) -> Result<(), Failure> {
    let (kind, name) = (&call.asked.resource.kind, &call.asked.name);
    scale::apply(kind, object, wanted)
        .map_err(|causes| Box::new(Status::invalid_kind("autoscaling", "Scale", name, &causes)))
}

/// Server-side apply of a Scale: the replicas of the object, through this door.
async fn apply(call: &Call) -> Result<Answer, Failure> {
    let manager: Manager = apply::options(call)?;
    let kind = &call.asked.resource.kind;
    let (group, version) = (SCALE.group, SCALE.version());
    let wanted = apply::read_config(call, (group, version, SCALE.kind))?;
    SCALE.check_applied(&wanted)?;
    let config = scale::config(kind, &wanted);
    let force = call.query().flag("force");
    let (_, stored) = change(call, Part::Whole, Owners::Given, |old, _| {
        precondition(call, &wanted, old)?;
        let now = now();
        let mut object = managed::apply(kind, Some(old), &config, manager.writer(&now), force)
            .map_err(|error| apply::refused(call, &of_scale(call, error)))?;
        let replicas = scale::wanted(kind, &object);
        set_replicas(call, &mut object, &replicas)?;
        Ok(object)
    })
    .await?;
    Ok(answered(call, &stored, &[]))
}

/// Conflicts as whoever sees Scales only sees them.
fn of_scale(call: &Call, error: ApplyError) -> ApplyError {
    let ApplyError::Conflicts(conflicts) = error else {
        return error;
    };
    let own = format!(" using {}", call.asked.resource.kind.api_version());
    let conflicts = conflicts.into_iter().map(|conflict| Conflict {
        field: REPLICAS.to_owned(),
        manager: match conflict.manager.strip_suffix(&own) {
            Some(manager) => format!("{manager} using {}", SCALE.api_version()),
            None => conflict.manager,
        },
    });
    ApplyError::Conflicts(conflicts.collect())
}
