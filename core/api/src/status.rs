//! Status objects: what the API answers when it does not answer an object.
//!
//! Texts and codes are those of Kubernetes' `apimachinery/pkg/api/errors`,
//! because clients (and people) match on them.

use crate::cause::Cause;
use crate::kinds::Kind;
use serde_json::{Map, Value, json};

/// A failure (or, rarely, a success) in the form that goes to the client.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Status {
    /// The HTTP status code.
    pub code: u16,
    /// The machine readable reason, e.g. `NotFound`; "" when unknown.
    pub reason: &'static str,
    /// The text for people.
    pub message: String,
    /// What it is about.
    pub details: Details,
}

/// `details` of a [`Status`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Details {
    /// The object's name.
    pub name: String,
    /// The API group.
    pub group: String,
    /// The plural (most reasons) or the kind (Invalid).
    pub kind: String,
    /// The object's uid.
    pub uid: String,
    /// Field errors.
    pub causes: Vec<Value>,
    /// When to try again; 0 when not said.
    pub retry_after_seconds: i64,
}

impl Status {
    fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: Details::default(),
        }
    }

    fn about(mut self, group: &str, kind: &str, name: &str) -> Self {
        self.details.group = group.to_owned();
        self.details.kind = kind.to_owned();
        self.details.name = name.to_owned();
        self
    }

    /// 404, `services "web" not found`.
    pub fn not_found(kind: &Kind, name: &str) -> Self {
        let message = format!("{} {name:?} not found", kind.resource());
        Self::new(404, "NotFound", message).about(kind.group, kind.plural, name)
    }

    /// 404 for a path that is no API of this server.
    pub fn no_such_path() -> Self {
        Self::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        )
    }

    /// 409, `services "web" already exists`.
    pub fn already_exists(kind: &Kind, name: &str) -> Self {
        let message = format!("{} {name:?} already exists", kind.resource());
        Self::new(409, "AlreadyExists", message).about(kind.group, kind.plural, name)
    }

    /// 409 because the object changed meanwhile.
    pub fn conflict(kind: &Kind, name: &str) -> Self {
        let cause = "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict_because(kind, name, cause)
    }

    /// 409, `Operation cannot be fulfilled on services "web": cause`.
    pub fn conflict_because(kind: &Kind, name: &str, cause: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} {name:?}: {cause}",
            kind.resource()
        );
        Self::new(409, "Conflict", message).about(kind.group, kind.plural, name)
    }

    /// 409 because a precondition on uid or resourceVersion does not hold.
    pub fn precondition(kind: &Kind, name: &str, field: &str, wanted: &str, found: &str) -> Self {
        let cause = format!(
            "Precondition failed: {field} in precondition: {wanted}, {field} in object meta: {found}"
        );
        Self::conflict_because(kind, name, &cause)
    }

    /// 422 with its causes, `Service "web" is invalid: …`.
    pub fn invalid(kind: &Kind, name: &str, causes: &[Cause]) -> Self {
        Self::invalid_kind(kind.group, kind.kind, name, causes)
    }

    /// 422 for a kind that is not in the table.
    pub fn invalid_kind(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Self {
        let qualified = match group {
            "" => kind.to_owned(),
            _ => format!("{kind}.{group}"),
        };
        let message = format!("{qualified} {name:?} is invalid: {}", aggregate(causes));
        let mut status = Self::new(422, "Invalid", message).about(group, kind, name);
        status.details.causes = causes.iter().map(Cause::to_value).collect();
        status
    }

    /// 400.
    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// 401.
    pub fn unauthorized() -> Self {
        Self::new(401, "Unauthorized", "Unauthorized")
    }

    /// 403, `services "web" is forbidden: cause`.
    pub fn forbidden(kind: &Kind, name: &str, cause: &str) -> Self {
        let message = match name {
            "" => format!("{} is forbidden: {cause}", kind.resource()),
            _ => format!("{} {name:?} is forbidden: {cause}", kind.resource()),
        };
        Self::new(403, "Forbidden", message).about(kind.group, kind.plural, name)
    }

    /// 403 for a path or verb that is not about one kind.
    pub fn forbidden_path(message: impl Into<String>) -> Self {
        Self::new(403, "Forbidden", message)
    }

    /// 405, `the server does not allow this method on the requested resource`.
    pub fn method_not_allowed() -> Self {
        let message = "the server does not allow this method on the requested resource";
        Self::new(405, "MethodNotAllowed", message)
    }

    /// 405, `patch is not supported on resources of kind "bindings"`.
    pub fn method_not_supported(kind: &Kind, action: &str) -> Self {
        let message = format!(
            "{action} is not supported on resources of kind {:?}",
            kind.resource()
        );
        Self::new(405, "MethodNotAllowed", message).about(kind.group, kind.plural, "")
    }

    /// 410 Expired: the resource version or continue token is too old.
    pub fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    /// 410 Expired of a watch or list: `too old resource version: 5 (17)`.
    pub fn too_old(wanted: u64, oldest: u64) -> Self {
        Self::expired(format!("too old resource version: {wanted} ({oldest})"))
    }

    /// 504 because the server has not reached this version yet.
    pub fn too_large_resource_version(wanted: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {wanted}, current: {current}");
        let mut status = Self::timeout(message, 1);
        status.details.causes = vec![
            json!({"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}),
        ];
        status
    }

    /// 410 Gone.
    pub fn gone(message: impl Into<String>) -> Self {
        Self::new(410, "Gone", message)
    }

    /// 413.
    pub fn request_entity_too_large(message: impl Into<String>) -> Self {
        let message = format!("Request entity is too large: {}", message.into());
        Self::new(413, "RequestEntityTooLarge", message)
    }

    /// 415 with the media types that would do.
    pub fn unsupported_media_type(accepted: &[&str]) -> Self {
        let message = format!(
            "the body of the request was in an unknown format - accepted media types include: {}",
            accepted.join(", ")
        );
        Self::new(415, "UnsupportedMediaType", message)
    }

    /// 406 with the media types that would do.
    pub fn not_acceptable(accepted: &[&str]) -> Self {
        let message = format!(
            "only the following media types are accepted: {}",
            accepted.join(", ")
        );
        Self::new(406, "NotAcceptable", message)
    }

    /// 429.
    pub fn too_many_requests(message: impl Into<String>, retry_after_seconds: i64) -> Self {
        let mut status = Self::new(429, "TooManyRequests", message);
        status.details.retry_after_seconds = retry_after_seconds;
        status
    }

    /// 500, `Internal error occurred: message`.
    pub fn internal(message: impl std::fmt::Display) -> Self {
        let mut status = Self::new(
            500,
            "InternalError",
            format!("Internal error occurred: {message}"),
        );
        status.details.causes = vec![json!({"message": message.to_string()})];
        status
    }

    /// 503.
    pub fn service_unavailable(message: impl Into<String>) -> Self {
        Self::new(503, "ServiceUnavailable", message)
    }

    /// 504.
    pub fn timeout(message: impl Into<String>, retry_after_seconds: i64) -> Self {
        let message = format!("Timeout: {}", message.into());
        let mut status = Self::new(504, "Timeout", message);
        status.details.retry_after_seconds = retry_after_seconds;
        status
    }

    /// The Status object for the client.
    pub fn to_value(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": if self.code < 400 { "Success" } else { "Failure" },
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        });
        let details = self.details.to_map();
        if let Some(map) = status.as_object_mut() {
            map.retain(|key, value| key == "metadata" || value.as_str() != Some(""));
            if !details.is_empty() {
                map.insert("details".to_owned(), Value::Object(details));
            }
        }
        status
    }

    /// The Status object of a successful deletion.
    pub fn deleted(kind: &Kind, name: &str, uid: &str) -> Value {
        let details = Details {
            name: name.to_owned(),
            group: kind.group.to_owned(),
            kind: kind.plural.to_owned(),
            uid: uid.to_owned(),
            ..Details::default()
        };
        json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Success",
            "details": details.to_map(),
        })
    }

    /// The ERROR event of a watch that carries this status.
    pub fn watch_error(&self) -> Value {
        json!({"type": "ERROR", "object": self.to_value()})
    }
}

impl Details {
    fn to_map(&self) -> Map<String, Value> {
        let mut map = Map::new();
        let texts = [
            ("name", &self.name),
            ("group", &self.group),
            ("kind", &self.kind),
            ("uid", &self.uid),
        ];
        for (key, text) in texts {
            if !text.is_empty() {
                map.insert(key.to_owned(), text.as_str().into());
            }
        }
        if !self.causes.is_empty() {
            map.insert("causes".to_owned(), self.causes.clone().into());
        }
        if self.retry_after_seconds > 0 {
            map.insert(
                "retryAfterSeconds".to_owned(),
                self.retry_after_seconds.into(),
            );
        }
        map
    }
}

/// The texts of causes as Go's aggregate prints them: each text once, in
/// brackets when there is more than one.
fn aggregate(causes: &[Cause]) -> String {
    let mut texts: Vec<String> = Vec::new();
    for cause in causes {
        let text = cause.to_string();
        if !texts.contains(&text) {
            texts.push(text);
        }
    }
    match texts.as_slice() {
        [one] => one.clone(),
        _ => format!("[{}]", texts.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;

    fn kind(plural: &str) -> &'static Kind {
        kinds::all().find(|kind| kind.plural == plural).unwrap()
    }

    #[test]
    fn texts_are_those_of_kubernetes() {
        let services = kind("services");
        let deployments = kind("deployments");
        let port = Cause::invalid(
            "spec.ports[0].port",
            &json!(0),
            "must be between 1 and 65535, inclusive",
        );
        let cases = [
            (
                Status::not_found(services, "web"),
                404,
                "services \"web\" not found",
            ),
            (
                Status::not_found(deployments, "web"),
                404,
                "deployments.apps \"web\" not found",
            ),
            (
                Status::already_exists(services, "web"),
                409,
                "services \"web\" already exists",
            ),
            (
                Status::conflict(deployments, "web"),
                409,
                "Operation cannot be fulfilled on deployments.apps \"web\": the object has been modified; please apply your changes to the latest version and try again",
            ),
            (
                Status::invalid(services, "web", std::slice::from_ref(&port)),
                422,
                "Service \"web\" is invalid: spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive",
            ),
            (
                Status::invalid(
                    deployments,
                    "web",
                    &[port.clone(), Cause::required("spec.selector", ""), port],
                ),
                422,
                "Deployment.apps \"web\" is invalid: [spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive, spec.selector: Required value]",
            ),
        ];
        for (status, code, text) in cases {
            assert_eq!((status.code, status.message.as_str()), (code, text));
        }
    }

    #[test]
    fn causes_keep_repeats() {
        let cause = Cause::required("a", "");
        let status = Status::invalid(kind("services"), "x", &[cause.clone(), cause]);
        assert_eq!(
            status.to_value()["details"]["causes"]
                .as_array()
                .unwrap()
                .len(),
            2
        );
        assert_eq!(status.to_value()["details"]["kind"], "Service");
    }
}
