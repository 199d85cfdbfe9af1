//! The `scale` subresource: replicas as autoscaling/v1 Scale.

use http::StatusCode;
use portolan_api::patch::{self, PatchError};
use portolan_api::{Status, meta, scale};
use serde_json::Value;

use super::change::Part;
use super::patch::read_patch;
use super::{Call, update};
use crate::answer::{self, Answer, Failure};
use crate::negotiate;

pub(super) fn get(call: &Call) -> Result<Answer, Failure> {
    let stored = call.current()?;
    Ok(answer::json(StatusCode::OK, &scale::of(&stored.value())))
}

pub(super) async fn update(call: &Call) -> Result<Answer, Failure> {
    let wanted = negotiate::body(&call.headers, &call.body)?;
    write(call, |_| Ok(wanted.clone())).await
}

pub(super) async fn patch(call: &Call) -> Result<Answer, Failure> {
    let (patch_type, change) = read_patch(call)?;
    let kind = call.asked.resource.kind;
    write(call, |current| {
        patch::apply(kind, patch_type, current, &change).map_err(|error| match error {
            PatchError::Malformed(message) => Box::new(Status::bad_request(message)),
            PatchError::DoesNotApply(message) => {
                let mut status = Status::invalid(kind, &call.asked.name, &[]);
                status.message = message;
                Box::new(status)
            }
        })
    })
    .await
}

async fn write(
    call: &Call,
    make: impl Fn(&Value) -> Result<Value, Failure>,
) -> Result<Answer, Failure> {
    let kind = call.asked.resource.kind;
    let name = &call.asked.name;
    let stored = update::edit(call, Part::Whole, |object| {
        let wanted = make(&scale::of(object))?;
        let version = meta::resource_version(&wanted);
        if !version.is_empty() && version != meta::resource_version(object) {
            return Err(Box::new(Status::conflict(kind, name)));
        }
        scale::apply(object, &wanted)
            .map_err(|causes| Box::new(Status::invalid_kind("autoscaling", "Scale", name, &causes)))
    })
    .await?;
    Ok(answer::json(StatusCode::OK, &scale::of(&stored.value())))
}
