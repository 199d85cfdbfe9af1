//! One request: who asks, may they, what for, and the answer.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use portolan_api::Status;
use tokio_util::sync::CancellationToken;

use crate::answer::{self, Answer, Failure};
use crate::auth::{self, User};
use crate::context::Context;
use crate::request::{self, Target, Verb};
use crate::rest::{self, Call};
use crate::{documents, health, metrics};

/// Kubernetes' limit of a request body.
const MAX_BODY_BYTES: usize = 3 << 20;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// What all requests of a connection share.
pub(crate) struct Connection {
    pub(crate) context: Arc<Context>,
    /// The user of the client certificate, if we have signed it.
    pub(crate) certificate_user: Option<User>,
    /// Ends watches and followed logs.
    pub(crate) ending: CancellationToken,
}

/// Answer a request, whatever happens.
pub(crate) async fn dispatch(connection: Arc<Connection>, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let target = request::target(&parts.method, parts.uri.path(), parts.uri.query());
    let (verb, resource) = match &target {
        Target::Resource(asked) => (asked.verb.text(), asked.resource.kind.plural),
        Target::Health
        | Target::Version
        | Target::Metrics
        | Target::Paths
        | Target::Discovery(_)
        | Target::OpenApi(_)
        | Target::Unknown => ("get", ""),
    };
    let work = handle(&connection, target, parts, body);
    // No panic is known to be reachable; if one is, it costs one answer.
    let answer = match AssertUnwindSafe(work).catch_unwind().await {
        Ok(answer) => answer,
        Err(_) => {
            tracing::error!(verb, resource, "a request handler panicked");
            answer::status(&Status::internal("the request handler failed"))
        }
    };
    let code = answer.status().as_u16();
    tracing::debug!(verb, resource, code, "answered");
    connection.context.metrics.count(verb, resource, code);
    answer
}

async fn handle(
    connection: &Arc<Connection>,
    target: Target,
    parts: Parts,
    body: Incoming,
) -> Answer {
    if let Some(answer) = public(connection, &target, &parts) {
        return answer;
    }
    let context = &connection.context;
    let authorization = parts
        .headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let certificate = connection.certificate_user.as_ref();
    let Some(user) = auth::authenticate(context, authorization, certificate) else {
        return answer::status(&Status::unauthorized());
    };
    if let Err(status) = auth::authorize(&user, &target, parts.uri.path()) {
        return answer::status(&status);
    }
    let place = if lasts(&target) {
        context.limits.stay(&user.name, &parts.headers)
    } else {
        context.limits.enter(&user.name, &parts.headers).await
    };
    let place = match place {
        Ok(place) => Arc::new(place),
        Err(failure) => return answer::status(&failure),
    };
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    match target {
        Target::Resource(asked) => {
            let body = match read_body(body, reads).await {
                Ok(body) => body,
                Err(failure) => return answer::status(&failure),
            };
            rest::handle(Call {
                context: Arc::clone(context),
                ending: connection.ending.clone(),
                asked,
                user,
                place,
                headers: parts.headers,
                body,
            })
            .await
        }
        Target::Unknown => answer::status(&Status::no_such_path()),
        _ if !reads => answer::status(&Status::method_not_allowed()),
        Target::Discovery(path) => {
            let host = parts.headers.get(HOST).and_then(|host| host.to_str().ok());
            let host = host
                .or_else(|| parts.uri.authority().map(|authority| authority.as_str()))
                .unwrap_or_default();
            documents::discovery(&path, &parts.headers, host)
        }
        Target::OpenApi(path) => documents::openapi(&context.documents, &path, &parts.headers),
        Target::Metrics => answer::text(StatusCode::OK, metrics::page(context)),
        Target::Paths | Target::Health | Target::Version => documents::paths(),
    }
}

/// Watches, followed logs and streams end when somebody wants it, not soon.
fn lasts(target: &Target) -> bool {
    let Target::Resource(asked) = target else {
        return false;
    };
    match asked.subresource.as_str() {
        "log" => asked.query.flag("follow"),
        "exec" | "attach" | "portforward" | "proxy" => true,
        _ => asked.verb == Verb::Watch,
    }
}

/// What may be read without saying who one is.
fn public(connection: &Connection, target: &Target, parts: &Parts) -> Option<Answer> {
    match target {
        Target::Health => Some(health::answer(parts, connection.ending.is_cancelled())),
        Target::Version => Some(documents::version()),
        Target::Resource(_)
        | Target::Metrics
        | Target::Paths
        | Target::Discovery(_)
        | Target::OpenApi(_)
        | Target::Unknown => None,
    }
}

async fn read_body(body: Incoming, reads: bool) -> Result<Bytes, Failure> {
    if reads {
        return Ok(Bytes::new());
    }
    let collecting = Limited::new(body, MAX_BODY_BYTES).collect();
    match tokio::time::timeout(BODY_TIMEOUT, collecting).await {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => {
            let message = format!("limit is {MAX_BODY_BYTES}");
            Err(Box::new(Status::request_entity_too_large(message)))
        }
        Ok(Err(error)) => Err(Box::new(Status::bad_request(format!(
            "cannot read the body: {error}"
        )))),
        Err(_) => Err(Box::new(Status::timeout("the body took too long", 0))),
    }
}
