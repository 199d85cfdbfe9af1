//! Reading the object of a write, and what is odd about its fields.

use portolan_api::value::str_at;
use portolan_api::{Kind, Status, fields, kinds, meta};
use serde_json::Value;

use super::Call;
use crate::answer::Failure;
use crate::negotiate;

/// What to do about fields that the kind does not have (`fieldValidation`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FieldValidation {
    Ignore,
    Warn,
    Strict,
}

impl FieldValidation {
    pub(super) fn of(call: &Call) -> Result<Self, Failure> {
        match call.query().text("fieldValidation") {
            "Ignore" => Ok(Self::Ignore),
            "" | "Warn" => Ok(Self::Warn),
            "Strict" => Ok(Self::Strict),
            other => Err(Box::new(Status::bad_request(format!(
                "invalid fieldValidation {other:?}: must be one of \"Ignore\", \"Warn\", \"Strict\""
            )))),
        }
    }
}

/// The object of a create or update, and warnings about it.
pub(super) fn object(call: &Call) -> Result<(Value, Vec<String>), Failure> {
    let kind = call.asked.resource.kind;
    let mut object = negotiate::body(&call.headers, &call.body)?;
    check_type(kind, &object)?;
    let validation = FieldValidation::of(call)?;
    let mut odd = Vec::new();
    if validation != FieldValidation::Ignore {
        if matches!(
            negotiate::content_type(&call.headers),
            "" | "application/json"
        ) {
            odd.extend(fields::duplicate(&call.body));
        }
        odd.extend(fields::unknown(kind, &object));
    }
    if validation == FieldValidation::Strict && !odd.is_empty() {
        let message = format!("strict decoding error: {}", odd.join(", "));
        return Err(cannot_handle(kind, &message));
    }
    typed(kind, &mut object)?;
    place(call, &mut object)?;
    Ok((object, odd))
}

/// Refuse values of a wrong type; drop nulls, which for a typed decoder are
/// the same as absence.
pub(super) fn typed(kind: &Kind, object: &mut Value) -> Result<(), Failure> {
    if let Some(fault) = fields::mistyped(kind, object) {
        return Err(cannot_handle(kind, &fault));
    }
    fields::drop_nulls(kind, object);
    Ok(())
}

fn cannot_handle(kind: &Kind, why: &str) -> Failure {
    Box::new(Status::bad_request(format!(
        "{0} in version {1:?} cannot be handled as a {0}: {why}",
        kind.kind, kind.version
    )))
}

/// `apiVersion` and `kind` must be those of the path.
pub(super) fn check_type(kind: &Kind, object: &Value) -> Result<(), Failure> {
    let (api_version, name) = (str_at(object, "apiVersion"), str_at(object, "kind"));
    let refuse = |message: String| Err(Box::new(Status::bad_request(message)) as Failure);
    if name.is_empty() {
        return refuse("Object 'Kind' is missing in the body of the request".to_owned());
    }
    if api_version.is_empty() {
        return refuse("Object 'apiVersion' is missing in the body of the request".to_owned());
    }
    let (group, version) = kinds::split_api_version(api_version);
    if name != kind.kind || group != kind.group {
        return refuse(format!(
            "{name} in version {version:?} cannot be handled as a {}: the object is of another kind",
            kind.kind
        ));
    }
    if version != kind.version {
        return refuse(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({})",
            kind.api_version()
        ));
    }
    Ok(())
}

/// The namespace of the object is that of the path.
fn place(call: &Call, object: &mut Value) -> Result<(), Failure> {
    let namespace = if call.asked.resource.kind.namespaced {
        call.asked.namespace.as_str()
    } else {
        ""
    };
    let own = meta::namespace(object);
    if !own.is_empty() && !namespace.is_empty() && own != namespace {
        return Err(Box::new(Status::bad_request(format!(
            "the namespace of the provided object does not match the namespace sent on the request ({own} != {namespace})"
        ))));
    }
    meta::set_namespace(object, namespace);
    Ok(())
}
