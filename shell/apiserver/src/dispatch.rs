//! One request: who asks, may they, what for, and the answer.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::FutureExt as _;
use http::header::{AUTHORIZATION, HOST};
use http::request::Parts;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Incoming;
use portolan_api::Status;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::answer::{self, Answer, Failure};
use crate::auth::{self, User};
use crate::context::Context;
use crate::limits::Place;
use crate::metrics::Label;
use crate::registry::Served;
use crate::request::{self, Target, Verb};
use crate::rest::{self, Call};
use crate::{documents, health, metrics, streams};

/// Kubernetes' limit of a request body.
const MAX_BODY_BYTES: usize = 3 << 20;
/// How long a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// What all requests of a connection share.
pub(crate) struct Connection {
    pub(crate) context: Arc<Context>,
    /// The user of the client certificate, if we have signed it.
    pub(crate) certificate_user: Option<User>,
    /// Ends watches, followed logs and sessions.
    pub(crate) ending: CancellationToken,
    /// Sessions that outlive their request, for which the server waits.
    pub(crate) sessions: TaskTracker,
    /// The connection's place among those of the server.
    pub(crate) seat: Arc<OwnedSemaphorePermit>,
    /// Who is on the other side.
    pub(crate) peer: Option<IpAddr>,
}

impl Connection {
    /// What a session holds of its connection and of its request.
    fn session(&self, place: Arc<Place>) -> streams::Session {
        streams::Session {
            tasks: self.sessions.clone(),
            place,
            seat: Arc::clone(&self.seat),
            peer: self.peer,
        }
    }
}

/// Answer a request, whatever happens.
pub(crate) async fn dispatch(connection: Arc<Connection>, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let served = connection.context.registry.served();
    let (path, query) = (parts.uri.path(), parts.uri.query());
    let target = request::target(&served, &parts.method, path, query);
    let (label, begin) = (Label::of(&target), Instant::now());
    let work = handle(&connection, &served, target, (parts, body));
    // No panic is known to be reachable; if one is, it costs one answer.
    let answer = match AssertUnwindSafe(work).catch_unwind().await {
        Ok(answer) => answer,
        Err(_) => {
            tracing::error!(%label, "a request handler panicked");
            answer::status(&Status::internal("the request handler failed"))
        }
    };
    let code = answer.status().as_u16();
    tracing::debug!(%label, code, "answered");
    connection.context.metrics.count(label, code, begin);
    answer
}

async fn handle(
    connection: &Arc<Connection>,
    served: &Served,
    target: Target,
    (parts, body): (Parts, Incoming),
) -> Answer {
    if let Some(answer) = public(connection, &target, &parts) {
        return answer;
    }
    let context = &connection.context;
    let user = match who(connection, &target, &parts) {
        Ok(user) => user,
        Err(status) => return answer::status(&status),
    };
    let place = if lasts(&target) {
        let lasting = context.metrics.lasting(Label::of(&target));
        let place = context.limits.stay(&user.name, &parts.headers);
        place.map(|place| place.counted(lasting))
    } else {
        context.limits.enter(&user.name, &parts.headers).await
    };
    let place = match place {
        Ok(place) => Arc::new(place),
        Err(failure) => return answer::status(&failure),
    };
    let reads = matches!(parts.method, Method::GET | Method::HEAD);
    match target {
        Target::Resource(asked) if streams::takes(&asked) => {
            streams::handle(streams::Request {
                context: Arc::clone(context),
                ending: connection.ending.clone(),
                asked,
                parts,
                body: Some(body),
                session: connection.session(place),
            })
            .await
        }
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
            documents::discovery(&served.documents, &path, &parts.headers, host)
        }
        Target::OpenApi(path) => documents::openapi(&served.documents, &path, &parts.headers),
        Target::Metrics => answer::text(StatusCode::OK, metrics::page(context)),
        Target::Paths | Target::Health | Target::Version => documents::paths(&served.documents),
    }
}

/// The user as whom the request is made, if that user may make it.
fn who(connection: &Connection, target: &Target, parts: &Parts) -> Result<User, Failure> {
    let authorization = parts
        .headers
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let certificate = connection.certificate_user.as_ref();
    let user = auth::authenticate(&connection.context, authorization, certificate)
        .ok_or_else(|| Box::new(Status::unauthorized()))?;
    let user = auth::impersonate(user, &parts.headers)?;
    auth::authorize(&user, target, parts.uri.path())?;
    Ok(user)
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
