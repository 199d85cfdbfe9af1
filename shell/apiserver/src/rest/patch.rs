//! PATCH of an object or its status.

use std::sync::Arc;

use http::StatusCode;
use portolan_api::patch::{self, MEDIA_TYPES, PatchError, PatchType};
use portolan_api::{Cause, Status, fields, meta};
use serde_json::Value;

use super::change::{Part, change};
use super::decode::{self, FieldValidation};
use super::owners::{Manager, Owners};
use super::{Call, read};
use crate::answer::{self, Answer, Failure};
use crate::negotiate;
use crate::store::Stored;

/// What is said of a JSON patch that does not fit its object.
const REJECTED: &str = "the server rejected our request due to an error in our request";

pub(super) async fn patch(call: &Call) -> Result<Answer, Failure> {
    if negotiate::content_type(&call.headers) == super::apply::MEDIA_TYPE {
        return super::apply::apply(call).await;
    }
    let (patch_type, patch) = read_patch(call)?;
    let part = Part::of(&call.asked.subresource);
    let kind = &call.asked.resource.kind;
    let validation = FieldValidation::of(call)?;
    let manager = Manager::of(call)?;
    let judge = Judge {
        call,
        validation,
        patch_type,
        patch: &patch,
    };
    let mut warnings = Vec::new();
    let (old, stored) = change(call, part, Owners::Record(&manager), |old, stored| {
        let mut object = patched(call, patch_type, old, &patch)?;
        let unknown = fields::unknown(kind, &object);
        warnings = judge.judge(&object, fields::mistyped(kind, &object), unknown)?;
        fields::keep_typed(kind, &mut object);
        check_identity(call, &object, old, stored)?;
        Ok(object)
    })
    .await?;
    warnings.extend(kind.warn(&call.asked.resource.value(&stored), Some(&old)));
    answered(call, &stored, &warnings)
}

fn answered(call: &Call, stored: &Arc<Stored>, warnings: &[String]) -> Result<Answer, Failure> {
    let mut answer = read::one(call, StatusCode::OK, stored)?;
    answer::warn(&mut answer, warnings);
    Ok(answer)
}

/// The format and the patch of the body.
pub(super) fn read_patch(call: &Call) -> Result<(PatchType, Value), Failure> {
    if call.query().has("force") {
        let cause = Cause::forbidden("force", "may not be specified for non-apply patch");
        return Err(call.bad_options(cause));
    }
    let content_type = negotiate::content_type(&call.headers);
    let Some(patch_type) = PatchType::parse(content_type) else {
        return Err(Box::new(Status::unsupported_media_type(MEDIA_TYPES)));
    };
    // Custom resources have no merge keys.
    if patch_type == PatchType::Strategic && call.asked.resource.kind.custom.is_some() {
        let others: Vec<&str> = MEDIA_TYPES
            .iter()
            .copied()
            .filter(|media| PatchType::parse(media) != Some(PatchType::Strategic))
            .collect();
        return Err(Box::new(Status::unsupported_media_type(&others)));
    }
    let patch = serde_json::from_slice(&call.body).map_err(|error| {
        let before = match patch_type {
            PatchType::Json | PatchType::Merge => "error decoding patch: ",
            PatchType::Strategic => "",
        };
        Box::new(Status::bad_request(format!("{before}{error}")))
    })?;
    Ok((patch_type, patch))
}

/// The object after the patch.
pub(super) fn patched(
    call: &Call,
    patch_type: PatchType,
    old: &Value,
    patch: &Value,
) -> Result<Value, Failure> {
    let kind = &call.asked.resource.kind;
    patch::apply(kind, patch_type, old, patch).map_err(|error| match error {
        PatchError::Malformed(message) => Box::new(Status::bad_request(message)),
        PatchError::TooLarge(message) => Box::new(Status::request_entity_too_large(message)),
        PatchError::Odd(message) => answer::unknown_error(message),
        // Kubernetes keeps to itself what did not fit.
        PatchError::DoesNotApply(message) => {
            tracing::debug!(message, "the patch does not apply");
            Box::new(Status {
                code: 422,
                reason: "Invalid",
                message: REJECTED.to_owned(),
                details: Default::default(),
            })
        }
    })
}

/// A patch, and how strictly its result is judged.
#[derive(Clone, Copy)]
pub(super) struct Judge<'a> {
    pub(super) call: &'a Call,
    pub(super) validation: FieldValidation,
    pub(super) patch_type: PatchType,
    pub(super) patch: &'a Value,
}

impl Judge<'_> {
    /// What a patch has made must be of the right types; fields that are not
    /// known are warnings, or 422 when strict.
    pub(super) fn judge(
        &self,
        object: &Value,
        mistyped: Option<String>,
        unknown: Vec<String>,
    ) -> Result<Vec<String>, Failure> {
        if let Some(fault) = mistyped {
            return Err(self.refused(object, &fault));
        }
        if self.validation == FieldValidation::Ignore {
            return Ok(Vec::new());
        }
        let mut odd = match self.patch_type {
            PatchType::Json => patch::unknown_members(self.patch),
            PatchType::Merge | PatchType::Strategic => fields::duplicate(&self.call.body),
        };
        odd.extend(unknown);
        if self.validation == FieldValidation::Strict && !odd.is_empty() {
            let why = format!("strict decoding error: {}", odd.join(", "));
            return Err(self.refused(object, &why));
        }
        Ok(odd)
    }

    fn refused(&self, object: &Value, why: &str) -> Failure {
        let shown = match self.patch_type {
            PatchType::Json | PatchType::Merge => object.to_string(),
            PatchType::Strategic => patch::go_value(self.patch),
        };
        let cause = Cause::invalid("patch", &shown.into(), why);
        Box::new(Status::invalid_kind("", "", "", &[cause]))
    }
}

/// A patch may name the version that it is for, and may not rename.
fn check_identity(
    call: &Call,
    object: &Value,
    old: &Value,
    stored: &Stored,
) -> Result<(), Failure> {
    let kind = &call.asked.resource.kind;
    let name = &call.asked.name;
    decode::check_type(kind, object)?;
    let version = meta::resource_version(object);
    if !version.is_empty() && version != stored.revision.to_string() {
        return Err(Box::new(Status::conflict(kind, name)));
    }
    if meta::namespace(object) != meta::namespace(old) {
        return Err(decode::wrong_namespace());
    }
    decode::check_name(call, object)?;
    check_uid(call, meta::uid(object), old)
}

/// An object keeps its uid; a patch is no precondition, so another is a field
/// that cannot change.
pub(super) fn check_uid(call: &Call, wanted: &str, old: &Value) -> Result<(), Failure> {
    if wanted.is_empty() || wanted == meta::uid(old) {
        return Ok(());
    }
    let kind = &call.asked.resource.kind;
    let cause = Cause::invalid("metadata.uid", &wanted.into(), "field is immutable");
    Err(Box::new(Status::invalid(kind, &call.asked.name, &[cause])))
}
