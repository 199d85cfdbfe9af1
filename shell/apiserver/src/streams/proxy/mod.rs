//! `pods/NAME/proxy/…`, `services/NAME/proxy/…`, `nodes/NAME/proxy/…`: HTTP to
//! what runs there.
//!
//! The request goes on as it came, but for what belongs to this server alone:
//! the credentials, the headers of the connection, the path before what is
//! proxied. Bodies are passed on piece by piece in both directions, and so is
//! whatever follows an upgrade.
//!
//! Deliberately absent: rewriting the links in HTML pages; only `Location` is.

mod headers;
mod target;
mod tls;

use std::io;

use http::header::{HOST, HeaderValue, LOCATION};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use portolan_api::Status;

use super::idle::Watched;
use super::refused::Refused;
use super::{IDLE_TIMEOUT, Request, upgrade};
use crate::answer::Answer;
use crate::pods::{ConnectHost, ConnectNodeRequest, ConnectRequest, Connection, StreamError};
use target::Target;

/// The methods that Kubernetes passes on.
const METHODS: [Method; 7] = [
    Method::GET,
    Method::POST,
    Method::PUT,
    Method::PATCH,
    Method::DELETE,
    Method::HEAD,
    Method::OPTIONS,
];
/// Segments of a path before what is proxied: api, v1, namespaces, the
/// namespace, the resource, the name, proxy.
const SEGMENTS: usize = 7;
/// The same without a namespace.
const CLUSTER_SEGMENTS: usize = 5;

pub(super) async fn handle(mut request: Request) -> Result<Answer, Refused> {
    if !METHODS.contains(&request.parts.method) {
        return Err(Status::method_not_allowed().into());
    }
    let target = target::resolve(&request.context, &request.asked)?;
    let path = request.parts.uri.path();
    let segments = if request.asked.resource.kind.namespaced {
        SEGMENTS
    } else {
        CLUSTER_SEGMENTS
    };
    let (prefix, below) = split(path, segments);
    let (prefix, below) = (prefix.to_owned(), below.to_owned());
    let upgrades = upgrade::is_upgrade(&request.parts.headers)
        && request.parts.extensions.get::<OnUpgrade>().is_some();
    let reads = matches!(request.parts.method, Method::GET | Method::HEAD);
    if below.is_empty() && reads && !upgrades {
        return Ok(to_folder(&request.parts));
    }
    let io = connect(&request, &target).await?;
    let onward = onward(&request, &target, &below, upgrades)?;
    let host = onward.headers.get(HOST).cloned();
    let body = request.body.take();
    let mut response = send(&request, io, onward, body).await?;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return switch(&mut request, response);
    }
    if upgrades && response.status().as_u16() < 400 {
        let message = format!(
            "invalid upgrade response: status code {}",
            response.status().as_u16()
        );
        return Err(Status::internal(message).into());
    }
    headers::strip_response(response.headers_mut());
    if let Some(location) = response.headers().get(LOCATION) {
        let own = [target.authority(), text(host.as_ref()).to_owned()];
        let rewritten = headers::location(text(Some(location)), &prefix, &own);
        if let Ok(value) = HeaderValue::from_str(&rewritten) {
            response.headers_mut().insert(LOCATION, value);
        }
    }
    Ok(response.map(|body| body.map_err(io::Error::other).boxed_unsync()))
}

fn text(value: Option<&HeaderValue>) -> &str {
    value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// The path up to `proxy`, and what is below, with its slash.
fn split(path: &str, segments: usize) -> (&str, &str) {
    let mut seen = 0;
    let mut end = 0;
    for segment in path.split_inclusive('/') {
        let name = segment.trim_end_matches('/');
        if !name.is_empty() {
            seen += 1;
        }
        if seen == segments {
            end += name.len();
            return path.split_at_checked(end).unwrap_or((path, ""));
        }
        end += segment.len();
    }
    (path, "")
}

/// Relative links of a page work only below a folder.
fn to_folder(parts: &Parts) -> Answer {
    let query = parts.uri.query().map(|query| format!("?{query}"));
    let location = format!("{}/{}", parts.uri.path(), query.unwrap_or_default());
    let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::MOVED_PERMANENTLY;
    if let Ok(location) = HeaderValue::from_str(&location) {
        answer.headers_mut().insert(LOCATION, location);
    }
    answer
}

/// The words for a target that does not answer.
fn unreachable(why: &str) -> Refused {
    Status::service_unavailable(format!("error trying to reach service: {why}")).into()
}

async fn connect(request: &Request, target: &Target) -> Result<Box<dyn Connection>, Refused> {
    let Some(backend) = request.context.pod_backend() else {
        return Err(unreachable("this server runs no pods"));
    };
    let connected = match &target.pod {
        Some(pod) => {
            let asked = ConnectRequest {
                namespace: request.asked.namespace.clone(),
                pod: pod.name.clone(),
                uid: pod.uid.clone(),
                node: target.node.clone(),
                port: target.port,
                host: ConnectHost::Address(target.address),
            };
            backend.connect(asked).await
        }
        None => {
            let asked = ConnectNodeRequest {
                node: target.node.clone(),
                address: target.address,
                port: target.port,
            };
            backend.connect_node(asked).await
        }
    };
    let io = connected.map_err(|error| match error {
        StreamError::Refused(why) => {
            unreachable(&format!("dial tcp {}: connect: {why}", target.authority()))
        }
        StreamError::NotFound(why)
        | StreamError::BadRequest(why)
        | StreamError::NotImplemented(why)
        | StreamError::Internal(why) => unreachable(&why),
    })?;
    if !target.tls {
        return Ok(io);
    }
    match tls::wrap(io, target.address).await {
        Ok(io) => Ok(Box::new(io)),
        Err(error) => Err(unreachable(&error.to_string())),
    }
}

/// The head of the request to the pod.
fn onward(
    request: &Request,
    target: &Target,
    below: &str,
    upgrades: bool,
) -> Result<Parts, Refused> {
    let parts = &request.parts;
    let path = if below.is_empty() { "/" } else { below };
    let query = parts.uri.query().map(|query| format!("?{query}"));
    let uri = format!("{path}{}", query.unwrap_or_default());
    let built = http::Request::builder()
        .method(parts.method.clone())
        .uri(uri)
        .body(());
    let (mut onward, ()) = match built {
        Ok(built) => built.into_parts(),
        Err(error) => return Err(Refused::bad_request(error.to_string())),
    };
    onward.headers = headers::onward(&parts.headers, upgrades);
    if !onward.headers.contains_key(HOST) {
        // HTTP/2 has it in the URI.
        let authority = parts.uri.authority().map(|authority| authority.to_string());
        let host = authority.unwrap_or_else(|| target.authority());
        if let Ok(host) = HeaderValue::from_str(&host) {
            onward.headers.insert(HOST, host);
        }
    }
    headers::forwarded(&mut onward.headers, request.session.peer, parts.uri.path());
    Ok(onward)
}

async fn send(
    request: &Request,
    io: Box<dyn Connection>,
    onward: Parts,
    body: Option<Incoming>,
) -> Result<Response<Incoming>, Refused> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(io))
        .await
        .map_err(|error| unreachable(&error.to_string()))?;
    let (ending, session) = (request.ending.clone(), request.session.clone());
    request.session.tasks.spawn(async move {
        tokio::select! {
            ended = connection.with_upgrades() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a proxied connection ended with an error");
                }
            }
            () = ending.cancelled() => {}
        }
        drop(session);
    });
    let body = match body {
        Some(body) => body.boxed_unsync(),
        None => Empty::new().map_err(|never| match never {}).boxed_unsync(),
    };
    let sent = sender.send_request(http::Request::from_parts(onward, body));
    sent.await.map_err(|error| {
        if error.is_incomplete_message() {
            return unreachable("EOF");
        }
        unreachable(&error.to_string())
    })
}

/// Both sides have agreed on another protocol: carry its bytes.
fn switch(request: &mut Request, mut response: Response<Incoming>) -> Result<Answer, Refused> {
    let theirs = hyper::upgrade::on(&mut response);
    let Some(ours) = request.parts.extensions.remove::<OnUpgrade>() else {
        return Err(unreachable("an upgrade that nobody asked for"));
    };
    let (ending, session) = (request.ending.clone(), request.session.clone());
    request.session.tasks.spawn(async move {
        let carry = async {
            let (ours, theirs) = tokio::try_join!(ours, theirs).map_err(io::Error::other)?;
            let (mut ours, clock) = Watched::new(TokioIo::new(ours));
            let mut theirs = TokioIo::new(theirs);
            tokio::select! {
                copied = tokio::io::copy_bidirectional(&mut ours, &mut theirs) => copied.map(|_| ()),
                () = clock.idle(IDLE_TIMEOUT) => Ok(()),
            }
        };
        tokio::select! {
            ended = carry => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a proxied session ended with an error");
                }
            }
            () = ending.cancelled() => {}
        }
        drop(session);
    });
    Ok(response.map(|_| Empty::new().map_err(|never| match never {}).boxed_unsync()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_split_behind_proxy() {
        let start = "/api/v1/namespaces/n/services/http:web:80/proxy";
        for below in ["", "/", "/a%2Fb/?", "//x", "/proxy/y/"] {
            assert_eq!(split(&format!("{start}{below}"), SEGMENTS), (start, below));
            let start = "/api/v1/nodes/node-1:10256/proxy";
            let path = format!("{start}{below}");
            assert_eq!(split(&path, CLUSTER_SEGMENTS), (start, below));
        }
    }
}
