//! Questions asked by POST (`kubectl auth whoami`, `kubectl auth can-i`): the
//! answer is the object with its status; nothing is stored.

use http::StatusCode;
use portolan_api::value::{at, set, str_at, strings_at};
use portolan_api::{Cause, Status, meta};
use serde_json::{Value, json};

use super::{Call, decode};
use crate::answer::{self, Answer, Failure};
use crate::auth::{self, Attributes, User};

pub(super) fn create(call: &Call) -> Result<Answer, Failure> {
    let kind = &call.asked.resource.kind;
    let (mut object, warnings) = decode::object(call)?;
    let causes: Vec<Cause> = kind.validate_content(&object, None);
    if !causes.is_empty() {
        return Err(Box::new(Status::invalid(
            kind,
            meta::name(&object),
            &causes,
        )));
    }
    // A dry run of a question is the question.
    call.dry_run()?;
    let status = match kind.kind {
        "SelfSubjectReview" => json!({"userInfo": user_info(&call.user)}),
        "SelfSubjectRulesReview" => auth::rules_status(&call.user),
        "SelfSubjectAccessReview" => access(&call.user, &object),
        "TokenReview" => token(call, &object),
        _ => access(&subject(&object), &object),
    };
    set(&mut object, "status", status);
    let mut answer = answer::json(StatusCode::CREATED, &object);
    answer::warn(&mut answer, &warnings);
    Ok(answer)
}

fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name, "groups": user.groups});
    if !user.uid.is_empty() {
        set(&mut info, "uid", user.uid.as_str());
    }
    if !user.extra.is_empty() {
        // The keys have dots in them, so they are no path.
        info["extra"] = json!(user.extra);
    }
    info
}

/// Whether the user may do what the spec says, as `status`.
fn access(user: &User, object: &Value) -> Value {
    let resource = at(object, "spec.resourceAttributes");
    let path = at(object, "spec.nonResourceAttributes");
    let attributes = Attributes {
        verb: match resource.is_null() {
            true => str_at(path, "verb"),
            false => str_at(resource, "verb"),
        },
        group: str_at(resource, "group"),
        resource: str_at(resource, "resource"),
        subresource: str_at(resource, "subresource"),
        namespace: str_at(resource, "namespace"),
        path: str_at(path, "path"),
    };
    match auth::allowed(user, &attributes) {
        true => json!({"allowed": true}),
        false => json!({"allowed": false, "reason": "no rule allows it"}),
    }
}

/// The user that a SubjectAccessReview asks about.
fn subject(object: &Value) -> User {
    let groups = strings_at(object, "spec.groups");
    User {
        name: str_at(object, "spec.user").to_owned(),
        uid: str_at(object, "spec.uid").to_owned(),
        groups: groups.into_iter().map(str::to_owned).collect(),
        ..User::default()
    }
}

/// Whose token it is, for the audiences that are asked for.
fn token(call: &Call, object: &Value) -> Value {
    let wanted = strings_at(object, "spec.audiences");
    match auth::service_account(&call.context, str_at(object, "spec.token"), &wanted) {
        Ok((user, audiences)) => {
            let common: Vec<&String> = audiences
                .iter()
                .filter(|audience| wanted.is_empty() || wanted.contains(&audience.as_str()))
                .collect();
            json!({"authenticated": true, "user": user_info(&user), "audiences": common})
        }
        Err(error) => json!({"authenticated": false, "error": error.to_string()}),
    }
}
