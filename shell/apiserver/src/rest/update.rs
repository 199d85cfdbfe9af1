//! PUT of an object or its status.

use std::sync::Arc;

use http::StatusCode;
use portolan_api::value::set;
use portolan_api::{Cause, Status, meta};
use serde_json::{Value, json};

use super::change::{Part, change};
use super::create::create_as;
use super::owners::{Manager, Owners};
use super::{Call, decode, read};
use crate::answer::{self, Answer, Failure};
use crate::store::Stored;

pub(super) async fn update(call: &Call) -> Result<Answer, Failure> {
    let (object, mut warnings) = decode::object(call)?;
    decode::check_name(call, &object)?;
    let kind = &call.asked.resource.kind;
    let part = Part::of(&call.asked.subresource);
    let (code, old, stored) = match call.context.store.get(&call.key()) {
        None if kind.create_on_update && part == Part::Whole => (
            StatusCode::CREATED,
            None,
            create_missing(call, object).await?,
        ),
        None => return Err(call.not_found()),
        Some(_) => {
            let (old, stored) = replace(call, part, object).await?;
            (StatusCode::OK, Some(old), stored)
        }
    };
    warnings.extend(kind.warn(&call.asked.resource.value(&stored), old.as_ref()));
    let mut answer = read::one(call, code, &stored)?;
    answer::warn(&mut answer, &warnings);
    Ok(answer)
}

/// PUT makes a Service or Endpoints that is not there, whatever version the
/// client believes in; a uid names an object that is gone.
async fn create_missing(call: &Call, mut object: Value) -> Result<Arc<Stored>, Failure> {
    let kind = &call.asked.resource.kind;
    let uid = meta::uid(&object);
    if !uid.is_empty() {
        let status = Status::precondition(kind, &call.asked.name, "UID", uid, "");
        return Err(Box::new(status));
    }
    meta::set_resource_version(&mut object, "");
    let dry_run = call.dry_run()?;
    let manager = Manager::of(call)?;
    let owners = Owners::Record(&manager);
    create_as(&call.context, &call.asked.resource, object, dry_run, owners).await
}

async fn replace(call: &Call, part: Part, object: Value) -> Result<(Value, Arc<Stored>), Failure> {
    let wanted = wanted_revision(call, &object)?;
    let manager = Manager::of(call)?;
    change(call, part, Owners::Record(&manager), |old, stored| {
        check_uid(call, &object, old)?;
        if wanted.is_some_and(|wanted| wanted != stored.revision) {
            let status = Status::conflict(&call.asked.resource.kind, &call.asked.name);
            return Err(Box::new(status));
        }
        Ok(object.clone())
    })
    .await
}

/// The version that the client has seen; `None` if it does not care.
fn wanted_revision(call: &Call, object: &Value) -> Result<Option<u64>, Failure> {
    let kind = &call.asked.resource.kind;
    match meta::resource_version(object) {
        "" | "0" if kind.unconditional_update => Ok(None),
        "" | "0" => {
            let detail = "must be specified for an update";
            let cause = Cause::invalid("metadata.resourceVersion", &json!(0), detail);
            Err(Box::new(Status::invalid(kind, &call.asked.name, &[cause])))
        }
        text => match text.parse() {
            Ok(revision) => Ok(Some(revision)),
            Err(_) => Err(answer::unknown_error(format!(
                "strconv.ParseUint: parsing {text:?}: invalid syntax"
            ))),
        },
    }
}

fn check_uid(call: &Call, object: &Value, old: &Value) -> Result<(), Failure> {
    let (wanted, found) = (meta::uid(object), meta::uid(old));
    if wanted.is_empty() || wanted == found {
        return Ok(());
    }
    Err(Box::new(Status::precondition(
        &call.asked.resource.kind,
        &call.asked.name,
        "UID",
        wanted,
        found,
    )))
}

/// Change an object by `edit` until no other write comes between.
pub(super) async fn edit(
    call: &Call,
    part: Part,
    mut edit: impl FnMut(&mut Value) -> Result<(), Failure>,
) -> Result<Arc<Stored>, Failure> {
    let manager = Manager::of(call)?;
    let (_, new) = change(call, part, Owners::Record(&manager), |old, stored| {
        let mut object = old.clone();
        edit(&mut object)?;
        // Whatever the edit did: it is an edit of the version it has read.
        set(
            &mut object,
            "metadata.resourceVersion",
            stored.revision.to_string(),
        );
        Ok(object)
    })
    .await?;
    Ok(new)
}
