//! PUT of an object or its status.

use std::sync::Arc;

use http::StatusCode;
use portolan_api::value::set;
use portolan_api::{Cause, Status, meta};
use serde_json::{Value, json};

use super::change::{Part, Replaced, Replacement, TRIES};
use super::create::create_object;
use super::{Call, decode, read};
use crate::answer::{self, Answer, Failure};
use crate::store::Stored;

pub(super) async fn update(call: &Call) -> Result<Answer, Failure> {
    let (mut object, mut warnings) = decode::object(call)?;
    check_name(call, &mut object)?;
    let kind = call.asked.resource.kind;
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
    warnings.extend((kind.warnings)(&stored.value(), old.as_ref()));
    let mut answer = read::one(call, code, &stored)?;
    answer::warn(&mut answer, &warnings);
    Ok(answer)
}

fn check_name(call: &Call, object: &mut Value) -> Result<(), Failure> {
    let wanted = &call.asked.name;
    let own = meta::name(object);
    if own.is_empty() {
        meta::set_name(object, wanted);
    } else if own != wanted {
        return Err(Box::new(Status::bad_request(format!(
            "the name of the object ({own}) does not match the name on the URL ({wanted})"
        ))));
    }
    Ok(())
}

/// PUT makes a Service or Endpoints that is not there, whatever version the
/// client believes in; a uid names an object that is gone.
async fn create_missing(call: &Call, mut object: Value) -> Result<Arc<Stored>, Failure> {
    let kind = call.asked.resource.kind;
    let uid = meta::uid(&object);
    if !uid.is_empty() {
        let status = Status::precondition(kind, &call.asked.name, "UID", uid, "");
        return Err(Box::new(status));
    }
    meta::set_resource_version(&mut object, "");
    create_object(&call.context, call.asked.resource, object, call.dry_run()?).await
}

async fn replace(call: &Call, part: Part, object: Value) -> Result<(Value, Arc<Stored>), Failure> {
    let kind = call.asked.resource.kind;
    let wanted = wanted_revision(call, &object)?;
    let dry_run = call.dry_run()?;
    for _ in 0..TRIES {
        let stored = call.current()?;
        let old = stored.value();
        check_uid(call, &object, &old)?;
        if wanted.is_some_and(|wanted| wanted != stored.revision) {
            break;
        }
        let replacement = Replacement {
            context: &call.context,
            resource: call.asked.resource,
            key: call.key(),
            stored: &stored,
            part,
            dry_run,
        };
        match replacement.store(&old, object.clone()).await {
            Ok(new) => return Ok((old, new)),
            Err(Replaced::Failed(failure)) => return Err(failure),
            Err(Replaced::Changed) => {}
        }
    }
    Err(Box::new(Status::conflict(kind, &call.asked.name)))
}

/// The version that the client has seen; `None` if it does not care.
fn wanted_revision(call: &Call, object: &Value) -> Result<Option<u64>, Failure> {
    let kind = call.asked.resource.kind;
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
        call.asked.resource.kind,
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
    edit: impl Fn(&mut Value) -> Result<(), Failure>,
) -> Result<Arc<Stored>, Failure> {
    let dry_run = call.dry_run()?;
    for _ in 0..TRIES {
        let stored = call.current()?;
        let old = stored.value();
        let mut object = old.clone();
        edit(&mut object)?;
        // Whatever the edit did: it is an edit of the version it has read.
        set(
            &mut object,
            "metadata.resourceVersion",
            stored.revision.to_string(),
        );
        let replacement = Replacement {
            context: &call.context,
            resource: call.asked.resource,
            key: call.key(),
            stored: &stored,
            part,
            dry_run,
        };
        match replacement.store(&old, object).await {
            Ok(new) => return Ok(new),
            Err(Replaced::Failed(failure)) => return Err(failure),
            Err(Replaced::Changed) => {}
        }
    }
    Err(Box::new(Status::conflict(
        call.asked.resource.kind,
        &call.asked.name,
    )))
}
