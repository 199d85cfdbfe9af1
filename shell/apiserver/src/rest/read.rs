//! GET of one object, and the forms in which one object is answered.

use bytes::Bytes;
use http::StatusCode;
use jiff::Timestamp;
use portolan_api::Status;
use portolan_api::table::{self, Include, Options};

use super::Call;
use crate::answer::{self, Answer, Failure};
use crate::negotiate::{self, Output};
use crate::store::Stored;

pub(super) fn get(call: &Call) -> Result<Answer, Failure> {
    wait_for_revision(call)?;
    let stored = call.current()?;
    one(call, StatusCode::OK, &stored)
}

/// Readers that ask for at least some version get an error if it does not
/// exist yet; ours is always the newest.
pub(super) fn wait_for_revision(call: &Call) -> Result<Option<u64>, Failure> {
    let wanted = call.query().number("resourceVersion").map_err(|text| {
        Box::new(Status::bad_request(format!(
            "resourceVersion: Invalid value: {text:?}: must be a number"
        )))
    })?;
    let current = call.context.store.cache().revision();
    match wanted {
        Some(wanted) if wanted > current => Err(Box::new(Status::too_large_resource_version(
            wanted, current,
        ))),
        other => Ok(other),
    }
}

/// One object in the form that the client wants.
pub(super) fn one(call: &Call, code: StatusCode, stored: &Stored) -> Result<Answer, Failure> {
    Ok(match negotiate::output(&call.headers)? {
        Output::Object => {
            let json = call.asked.resource.json(&stored.json);
            answer::bytes(code, answer::JSON, json)
        }
        Output::Table => {
            let value = call.asked.resource.value(stored);
            let kind = &call.asked.resource.kind;
            let options = table_options(call);
            let table = table::table(kind, [&value], table::metadata_of(&value), &options);
            answer::json(code, &table)
        }
        Output::Metadata => {
            let partial = table::partial_metadata(&call.asked.resource.value(stored));
            answer::bytes(code, answer::JSON, Bytes::from(partial.to_string()))
        }
    })
}

/// How the client wants tables.
pub(super) fn table_options(call: &Call) -> Options {
    Options {
        include: Include::parse(call.query().text("includeObject")),
        now: Timestamp::now(),
        headless: false,
    }
}
