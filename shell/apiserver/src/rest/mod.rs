//! The verbs of the API, one file each.
//!
//! Every write goes: decode → unknown fields → defaults → prepare → allocate →
//! validate → store, and the store checks the version again, so two writers
//! never overwrite each other unseen.

mod admit;
mod apply;
mod binding;
mod change;
mod create;
mod decode;
mod delete;
mod list;
mod logs;
mod owners;
mod patch;
mod read;
mod reviews;
mod scale;
mod token;
mod update;
mod watch;

use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use portolan_api::{Cause, Status};
use serde_json::json;
use tokio_util::sync::CancellationToken;

pub(crate) use admit::default_objects;
pub(crate) use create::{create_object, now};

use crate::answer::{self, Answer, Failure};
use crate::auth::User;
use crate::context::Context;
use crate::limits::Place;
use crate::request::{Asked, Query, Verb};
use crate::store::{Key, Stored, WriteError};

/// A resource request with everything that came with it.
pub(crate) struct Call {
    pub(crate) context: Arc<Context>,
    /// Ends watches and followed logs.
    pub(crate) ending: CancellationToken,
    pub(crate) asked: Asked,
    pub(crate) user: User,
    /// Held as long as the request lasts: streams take a copy with them.
    pub(crate) place: Arc<Place>,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Call {
    fn query(&self) -> &Query {
        &self.asked.query
    }

    fn key(&self) -> Key {
        self.asked
            .resource
            .key(&self.asked.namespace, &self.asked.name)
    }

    /// The object that the path names.
    fn current(&self) -> Result<Arc<Stored>, Failure> {
        self.context
            .store
            .get(&self.key())
            .ok_or_else(|| self.not_found())
    }

    fn not_found(&self) -> Failure {
        Box::new(Status::not_found(
            &self.asked.resource.kind,
            &self.asked.name,
        ))
    }

    /// `dryRun=All`; anything else is refused.
    fn dry_run(&self) -> Result<bool, Failure> {
        match self.query().text("dryRun") {
            "" => Ok(false),
            "All" => Ok(true),
            other => {
                Err(self.bad_options(Cause::not_supported("dryRun", &json!([other]), &["All"])))
            }
        }
    }

    /// A refused parameter, as Kubernetes words it: about the options of the verb.
    fn bad_options(&self, cause: Cause) -> Failure {
        let kind = match self.asked.verb {
            Verb::Create => "CreateOptions",
            Verb::Update => "UpdateOptions",
            Verb::Patch => "PatchOptions",
            Verb::Delete | Verb::DeleteCollection => "DeleteOptions",
            Verb::List | Verb::Watch => "ListOptions",
            Verb::Get | Verb::Unknown => "GetOptions",
        };
        Box::new(Status::invalid_kind("meta.k8s.io", kind, "", &[cause]))
    }
}

/// Answer a resource request.
pub(crate) async fn handle(call: Call) -> Answer {
    let kind = call.asked.resource.kind.clone();
    let answered = match call.asked.subresource.as_str() {
        "" => object(call).await,
        _ => subresource(call).await,
    };
    let mut answer = answered.unwrap_or_else(|failure| answer::status(&failure));
    if let Some(warning) = kind.deprecation() {
        answer::warn(&mut answer, &[warning.to_owned()]);
    }
    answer
}

async fn object(call: Call) -> Result<Answer, Failure> {
    let verbs = call.asked.resource.kind.verbs;
    if !verbs.contains(&call.asked.verb.text()) {
        return Err(Box::new(Status::method_not_allowed()));
    }
    match call.asked.verb {
        Verb::Get => read::get(&call),
        Verb::List => list::list(&call),
        Verb::Watch => watch::watch(&call),
        Verb::Create if call.asked.resource.ending => {
            let mut refused = Status::method_not_allowed();
            refused.message =
                "create not allowed while custom resource definition is terminating".to_owned();
            Err(Box::new(refused))
        }
        Verb::Create if call.asked.resource.kind.is_review() => reviews::create(&call),
        Verb::Create if call.asked.name.is_empty() => create::create(&call).await,
        Verb::Update if !call.asked.name.is_empty() => update::update(&call).await,
        Verb::Patch if !call.asked.name.is_empty() => patch::patch(&call).await,
        Verb::Delete => delete::delete(&call).await,
        Verb::DeleteCollection => delete::collection(&call).await,
        Verb::Create | Verb::Update | Verb::Patch | Verb::Unknown => {
            Err(Box::new(Status::method_not_allowed()))
        }
    }
}

async fn subresource(call: Call) -> Result<Answer, Failure> {
    let kind = &call.asked.resource.kind;
    let Some(subresource) = kind.subresource(&call.asked.subresource) else {
        return Err(Box::new(Status::no_such_path()));
    };
    if !subresource.verbs.contains(&call.asked.verb.text()) {
        return Err(Box::new(Status::method_not_allowed()));
    }
    match (subresource.name, call.asked.verb) {
        ("status" | "finalize", Verb::Get) => read::get(&call),
        ("status" | "finalize", Verb::Update) => update::update(&call).await,
        ("status", Verb::Patch) => patch::patch(&call).await,
        ("scale", Verb::Get) => scale::get(&call),
        ("scale", Verb::Update) => scale::update(&call).await,
        ("scale", Verb::Patch) => scale::patch(&call).await,
        ("binding", Verb::Create) => binding::bind(&call).await,
        ("eviction", Verb::Create) => delete::evict(&call).await,
        ("log", Verb::Get) => logs::logs(&call).await,
        ("token", Verb::Create) => token::create(&call),
        _ => Err(Box::new(Status::method_not_allowed())),
    }
}

/// A refused write in the words of the API.
fn refused(call: &Call, error: WriteError) -> Failure {
    let Asked {
        resource,
        namespace,
        name,
        ..
    } = &call.asked;
    Box::new(write_error(
        &call.context,
        &resource.kind,
        (namespace, name),
        error,
    ))
}

/// A refused write of an object of this kind.
fn write_error(
    context: &Context,
    kind: &portolan_api::Kind,
    (namespace, name): (&str, &str),
    error: WriteError,
) -> Status {
    match error {
        WriteError::Exists => Status::already_exists(kind, name),
        WriteError::Missing => Status::not_found(kind, name),
        WriteError::Conflict | WriteError::Companion => Status::conflict(kind, name),
        WriteError::NoNamespace => admit::no_namespace(context, namespace),
        WriteError::Terminating => admit::terminating(kind, namespace, name),
        WriteError::File(error) => Status::internal(error),
        WriteError::Closed => Status::service_unavailable("the server is shutting down"),
    }
}
