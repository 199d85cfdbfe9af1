//! Reading the object of a write, and what is odd about its fields.

use portolan_api::managed;
use portolan_api::value::str_at;
use portolan_api::{Cause, Kind, Status, fields, kinds, meta};
use serde_json::Value;

use super::Call;
use crate::answer::{self, Failure};
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
            other => {
                let known = ["", "Ignore", "Strict", "Warn"];
                let cause = Cause::not_supported("fieldValidation", &other.into(), &known);
                Err(call.bad_options(cause))
            }
        }
    }
}

/// The object of a create or update, and warnings about it.
pub(super) fn object(call: &Call) -> Result<(Value, Vec<String>), Failure> {
    let kind = &call.asked.resource.kind;
    let mut object = negotiate::body(&call.headers, &call.body)?;
    fill_type(kind, &mut object);
    check_type(kind, &object)?;
    let validation = FieldValidation::of(call)?;
    let mut odd = Vec::new();
    if validation != FieldValidation::Ignore {
        odd.extend(duplicates(call));
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

/// A type of a body that no kind of the table has: those of subresources.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyType {
    pub(super) group: &'static str,
    /// The first is the one that the server speaks.
    pub(super) versions: &'static [&'static str],
    pub(super) kind: &'static str,
    definition: &'static str,
}

pub(super) const SCALE: BodyType = BodyType {
    group: "autoscaling",
    versions: &["v1"],
    kind: "Scale",
    definition: "io.k8s.api.autoscaling.v1.Scale",
};
pub(super) const BINDING: BodyType = BodyType {
    group: "",
    versions: &["v1"],
    kind: "Binding",
    definition: "io.k8s.api.core.v1.Binding",
};
pub(super) const EVICTION: BodyType = BodyType {
    group: "policy",
    versions: &["v1", "v1beta1"],
    kind: "Eviction",
    definition: "io.k8s.api.policy.v1.Eviction",
};
pub(super) const TOKEN_REQUEST: BodyType = BodyType {
    group: "authentication.k8s.io",
    versions: &["v1"],
    kind: "TokenRequest",
    definition: "io.k8s.api.authentication.v1.TokenRequest",
};

impl BodyType {
    pub(super) fn version(&self) -> &'static str {
        self.versions.first().copied().unwrap_or_default()
    }

    pub(super) fn api_version(&self) -> String {
        let version = self.version();
        match self.group {
            "" => version.to_owned(),
            group => format!("{group}/{version}"),
        }
    }

    /// What says no type is of this type; another type is refused.
    fn settle(&self, object: &mut Value) -> Result<(), Failure> {
        fill(object, &self.api_version(), self.kind);
        let (api_version, name) = (str_at(object, "apiVersion"), str_at(object, "kind"));
        let (group, version) = kinds::split_api_version(api_version);
        if name == self.kind && group == self.group && self.versions.contains(&version) {
            return Ok(());
        }
        Err(Box::new(Status::bad_request(format!(
            "{name} in version {version:?} cannot be handled as a {}: the object is of another kind",
            self.kind
        ))))
    }

    /// Warnings about a body of this type, or why it is refused.
    fn check(&self, call: &Call, object: &mut Value) -> Result<Vec<String>, Failure> {
        self.settle(object)?;
        let validation = FieldValidation::of(call)?;
        let refuse = |why: &str| Err(cannot_handle_as(self.kind, self.version(), why));
        let (mistyped, unknown) = self.faults(object);
        if let Some(fault) = mistyped {
            return refuse(&fault);
        }
        let mut odd = Vec::new();
        if validation != FieldValidation::Ignore {
            odd.extend(duplicates(call));
            odd.extend(unknown);
        }
        if validation == FieldValidation::Strict && !odd.is_empty() {
            return refuse(&format!("strict decoding error: {}", odd.join(", ")));
        }
        Ok(odd)
    }

    /// A body that is made into something else must say its name.
    pub(super) fn check_name(&self, call: &Call, object: &Value) -> Result<(), Failure> {
        if meta::name(object) == call.asked.name {
            return Ok(());
        }
        Err(Box::new(Status::bad_request(format!(
            "name in URL does not match name in {} object",
            self.kind
        ))))
    }

    /// The first mistyped field of a body of this type, and the unknown ones.
    pub(super) fn faults(&self, object: &Value) -> (Option<String>, Vec<String>) {
        let mistyped = fields::mistyped_of(self.definition, object);
        (mistyped, fields::unknown_of(self.definition, object))
    }

    /// Whether a body of this type can be applied.
    pub(super) fn check_applied(&self, object: &Value) -> Result<(), Failure> {
        managed::check_body(self.definition, object).map_err(|error| {
            answer::unknown_error(format!(
                "failed to create typed patch object ({}/{}; {}/{}, Kind={}): {error}",
                meta::namespace(object),
                meta::name(object),
                self.group,
                self.version(),
                self.kind
            ))
        })
    }

    /// The body of this type that the call has, and warnings about it.
    pub(super) fn read(&self, call: &Call) -> Result<(Value, Vec<String>), Failure> {
        let mut object = negotiate::body(&call.headers, &call.body)?;
        let odd = self.check(call, &mut object)?;
        let (own, namespace) = (meta::namespace(&object), &call.asked.namespace);
        if !own.is_empty() && own != namespace {
            return Err(wrong_namespace());
        }
        Ok((object, odd))
    }
}

/// Fields given twice, if the body is JSON: a parsed value has them once.
pub(super) fn duplicates(call: &Call) -> Vec<String> {
    match negotiate::content_type(&call.headers) {
        "" | "application/json" => fields::duplicate(&call.body),
        _ => Vec::new(),
    }
}

/// Refuse values of a wrong type; drop what a typed decoder does not keep.
pub(super) fn typed(kind: &Kind, object: &mut Value) -> Result<(), Failure> {
    if let Some(fault) = fields::mistyped(kind, object) {
        return Err(cannot_handle(kind, &fault));
    }
    fields::keep_typed(kind, object);
    Ok(())
}

fn cannot_handle(kind: &Kind, why: &str) -> Failure {
    cannot_handle_as(kind.kind, kind.version, why)
}

fn cannot_handle_as(kind: &str, version: &str, why: &str) -> Failure {
    Box::new(Status::bad_request(format!(
        "{kind} in version {version:?} cannot be handled as a {kind}: {why}"
    )))
}

/// A body without a type is of the type of its path, as the typed decoders of
/// Kubernetes take it; many clients leave it out. Custom resources have to say it.
fn fill_type(kind: &Kind, object: &mut Value) {
    if kind.custom.is_some() {
        return;
    }
    fill(object, &kind.api_version(), kind.kind);
}

fn fill(object: &mut Value, api_version: &str, kind: &str) {
    let Some(members) = object.as_object_mut() else {
        return;
    };
    for (field, value) in [("apiVersion", api_version), ("kind", kind)] {
        let missing = members
            .get(field)
            .is_none_or(|held| held.is_null() || held == "");
        if missing {
            members.insert(field.to_owned(), value.into());
        }
    }
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

/// A write that says another namespace than its path.
pub(super) fn wrong_namespace() -> Failure {
    Box::new(Status::bad_request(
        "the namespace of the provided object does not match the namespace sent on the request",
    ))
}

/// The object must say the name of the path.
pub(super) fn check_name(call: &Call, object: &Value) -> Result<(), Failure> {
    let wanted = &call.asked.name;
    let message = match meta::name(object) {
        own if own == wanted => return Ok(()),
        "" => format!(
            "the name of the object ({wanted} based on URL) was undeterminable: name must be provided"
        ),
        own => {
            format!("the name of the object ({own}) does not match the name on the URL ({wanted})")
        }
    };
    Err(Box::new(Status::bad_request(message)))
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
        return Err(wrong_namespace());
    }
    meta::set_namespace(object, namespace);
    Ok(())
}
