//! PATCH of an object or its status.

use std::sync::Arc;

use http::StatusCode;
use portolan_api::patch::{self, MEDIA_TYPES, PatchError, PatchType};
use portolan_api::{Cause, Status, fields, meta};
use serde_json::Value;

use super::change::{Part, Replaced, Replacement, TRIES};
use super::decode::{self, FieldValidation};
use super::{Call, read};
use crate::answer::{self, Answer, Failure};
use crate::negotiate;
use crate::store::Stored;

pub(super) async fn patch(call: &Call) -> Result<Answer, Failure> {
    let (patch_type, patch) = read_patch(call)?;
    let part = Part::of(&call.asked.subresource);
    let kind = call.asked.resource.kind;
    let validation = FieldValidation::of(call)?;
    let dry_run = call.dry_run()?;
    for _ in 0..TRIES {
        let stored = call.current()?;
        let old = stored.value();
        let mut object = apply(call, patch_type, &old, &patch)?;
        let mut warnings = odd_fields(call, validation, &object)?;
        decode::typed(kind, &mut object)?;
        check_identity(call, &object, &old, &stored)?;
        let replacement = Replacement {
            context: &call.context,
            resource: call.asked.resource,
            key: call.key(),
            stored: &stored,
            part,
            dry_run,
        };
        match replacement.store(&old, object).await {
            Ok(new) => {
                warnings.extend((kind.warnings)(&new.value(), Some(&old)));
                return answered(call, &new, &warnings);
            }
            Err(Replaced::Failed(failure)) => return Err(failure),
            Err(Replaced::Changed) => {}
        }
    }
    Err(Box::new(Status::conflict(kind, &call.asked.name)))
}

fn answered(call: &Call, stored: &Arc<Stored>, warnings: &[String]) -> Result<Answer, Failure> {
    let mut answer = read::one(call, StatusCode::OK, stored)?;
    answer::warn(&mut answer, warnings);
    Ok(answer)
}

/// The format and the patch of the body.
pub(super) fn read_patch(call: &Call) -> Result<(PatchType, Value), Failure> {
    // Server-side apply (application/apply-patch+yaml) would be told apart here.
    let content_type = negotiate::content_type(&call.headers);
    let Some(patch_type) = PatchType::parse(content_type) else {
        return Err(Box::new(Status::unsupported_media_type(MEDIA_TYPES)));
    };
    let patch = serde_json::from_slice(&call.body).map_err(|error| {
        Box::new(Status::bad_request(format!(
            "error decoding patch: {error}"
        )))
    })?;
    Ok((patch_type, patch))
}

fn apply(call: &Call, patch_type: PatchType, old: &Value, patch: &Value) -> Result<Value, Failure> {
    let kind = call.asked.resource.kind;
    patch::apply(kind, patch_type, old, patch).map_err(|error| match error {
        PatchError::Malformed(message) => Box::new(Status::bad_request(message)),
        PatchError::DoesNotApply(message) => {
            let mut status = Status::invalid(kind, &call.asked.name, &[]);
            status.message = message;
            Box::new(status)
        }
    })
}

/// Fields that the kind does not have: a warning, or 422 when strict.
fn odd_fields(
    call: &Call,
    validation: FieldValidation,
    object: &Value,
) -> Result<Vec<String>, Failure> {
    let kind = call.asked.resource.kind;
    let odd = match validation {
        FieldValidation::Ignore => Vec::new(),
        FieldValidation::Warn | FieldValidation::Strict => fields::unknown(kind, object),
    };
    if validation == FieldValidation::Strict && !odd.is_empty() {
        let detail = format!("strict decoding error: {}", odd.join(", "));
        let patch = String::from_utf8_lossy(&call.body).into_owned();
        let cause = Cause::invalid("patch", &patch.into(), &detail);
        return Err(Box::new(Status::invalid_kind("", "", "", &[cause])));
    }
    Ok(odd)
}

/// A patch may name the version that it is for, and may not rename.
fn check_identity(
    call: &Call,
    object: &Value,
    old: &Value,
    stored: &Stored,
) -> Result<(), Failure> {
    let kind = call.asked.resource.kind;
    let name = &call.asked.name;
    decode::check_type(kind, object)?;
    let version = meta::resource_version(object);
    if !version.is_empty() && version != stored.revision.to_string() {
        return Err(Box::new(Status::conflict(kind, name)));
    }
    if meta::name(object) != name {
        return Err(Box::new(Status::bad_request(format!(
            "the name of the object ({}) does not match the name on the URL ({name})",
            meta::name(object)
        ))));
    }
    if meta::namespace(object) != meta::namespace(old) {
        return Err(Box::new(Status::bad_request(
            "the namespace of the object does not match the namespace on the URL",
        )));
    }
    let (wanted, found) = (meta::uid(object), meta::uid(old));
    if !wanted.is_empty() && wanted != found {
        let status = Status::precondition(kind, name, "UID", wanted, found);
        return Err(Box::new(status));
    }
    Ok(())
}
