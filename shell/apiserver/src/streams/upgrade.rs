//! From an HTTP/1.1 request to a connection of another protocol.
//!
//! HTTP/2 has no upgrades (and Kubernetes no extended CONNECT), so a request
//! that came over it is answered like any that asks for no upgrade; clients open
//! an HTTP/1.1 connection for these.

use std::future::Future;

use http::header::{
    CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, Response, StatusCode};
use http_body_util::{BodyExt as _, Empty};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::idle::Watched;
use super::refused::Refused;
use super::{IDLE_TIMEOUT, Request};
use crate::answer::Answer;

/// The name of the protocol in `Upgrade`.
const SPDY: &str = "SPDY/3.1";
const STREAM_PROTOCOL: &str = "x-stream-protocol-version";
const ACCEPTED_PROTOCOLS: &str = "x-accepted-stream-protocol-versions";

/// What a client wants to speak.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Offer {
    WebSocket {
        /// What proves that a WebSocket server answers.
        accept: String,
        /// Subprotocols, the client's favourite first.
        protocols: Vec<String>,
    },
    Spdy,
}

/// A connection after the upgrade.
pub(super) type Io = Watched<TokioIo<Upgraded>>;

/// Whether the client asks to change the protocol at all.
pub(super) fn is_upgrade(headers: &HeaderMap) -> bool {
    texts(headers, &CONNECTION).any(|text| text.to_ascii_lowercase().contains("upgrade"))
}

/// Read what the client wants.
pub(super) fn offer(request: &Request) -> Result<Offer, Refused> {
    let headers = &request.parts.headers;
    if !is_upgrade(headers) || request.parts.extensions.get::<OnUpgrade>().is_none() {
        return Err(Refused::bad_request("Upgrade request required"));
    }
    let upgrade = texts(headers, &UPGRADE).next().unwrap_or_default();
    if upgrade.eq_ignore_ascii_case("websocket") {
        let version = texts(headers, &SEC_WEBSOCKET_VERSION).next();
        let key = headers.get(SEC_WEBSOCKET_KEY);
        return match (version, key) {
            (Some("13"), Some(key)) => Ok(Offer::WebSocket {
                accept: derive_accept_key(key.as_bytes()),
                protocols: list(headers, &SEC_WEBSOCKET_PROTOCOL),
            }),
            (Some("13"), None) => Err(Refused::text(
                StatusCode::BAD_REQUEST,
                "Sec-WebSocket-Key is missing",
            )),
            _ => Err(Refused::text(
                StatusCode::BAD_REQUEST,
                "missing or bad WebSocket Version",
            )),
        };
    }
    if upgrade.to_ascii_lowercase().contains("spdy/3.1") {
        return Ok(Offer::Spdy);
    }
    Err(Refused::text(
        StatusCode::BAD_REQUEST,
        "unable to upgrade: missing upgrade headers in request",
    ))
}

/// Choose a protocol for the streams of an SPDY connection, the client's
/// favourite first.
pub(super) fn stream_protocol(headers: &HeaderMap, ours: &[&str]) -> Result<String, Refused> {
    let name = HeaderName::from_static(STREAM_PROTOCOL);
    if !headers.contains_key(&name) {
        return Err(Refused::text(
            StatusCode::BAD_REQUEST,
            "unable to upgrade: header X-Stream-Protocol-Version does not exist in request",
        ));
    }
    let theirs = list(headers, &name);
    if let Some(protocol) = theirs.iter().find(|theirs| ours.contains(&theirs.as_str())) {
        return Ok(protocol.clone());
    }
    let message = format!(
        "unable to upgrade: unable to negotiate protocol: client supports [{}], server accepts [{}]",
        theirs.join(" "),
        ours.join(" ")
    );
    let mut answer = Refused::text(StatusCode::FORBIDDEN, &message).into_answer();
    for protocol in ours {
        if let Ok(value) = HeaderValue::from_str(protocol) {
            let name = HeaderName::from_static(ACCEPTED_PROTOCOLS);
            answer.headers_mut().append(name, value);
        }
    }
    Err(answer.into())
}

/// No subprotocol in common.
pub(super) fn no_subprotocol() -> Refused {
    Refused::text(StatusCode::FORBIDDEN, "no supported subprotocol")
}

/// The answer that begins a WebSocket.
pub(super) fn websocket_answer(accept: &str, protocol: &str) -> Answer {
    let mut answer = switching("websocket");
    let headers = answer.headers_mut();
    if let Ok(accept) = HeaderValue::from_str(accept) {
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Ok(protocol) = HeaderValue::from_str(protocol)
        && !protocol.is_empty()
    {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, protocol);
    }
    answer
}

/// The answer that begins an SPDY connection.
pub(super) fn spdy_answer(protocol: &str) -> Answer {
    let mut answer = switching(SPDY);
    if let Ok(protocol) = HeaderValue::from_str(protocol) {
        let name = HeaderName::from_static(STREAM_PROTOCOL);
        answer.headers_mut().insert(name, protocol);
    }
    answer
}

fn switching(protocol: &'static str) -> Answer {
    let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let mut answer = Response::new(body);
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static(protocol));
    answer
}

/// Run a session on the connection, once the answer has been sent.
pub(super) fn start<F, W>(request: &mut Request, work: W)
where
    W: FnOnce(Io) -> F + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    let Some(upgrade) = request.parts.extensions.remove::<OnUpgrade>() else {
        return;
    };
    let ending = request.ending.clone();
    let session = request.session.clone();
    request.session.tasks.spawn(async move {
        let upgraded = tokio::select! {
            upgraded = upgrade => upgraded,
            () = ending.cancelled() => return,
        };
        match upgraded {
            Ok(upgraded) => {
                let (io, clock) = Watched::new(TokioIo::new(upgraded));
                tokio::select! {
                    () = work(io) => {}
                    () = ending.cancelled() => {}
                    () = clock.idle(IDLE_TIMEOUT) => tracing::debug!("an idle session ended"),
                }
            }
            Err(error) => tracing::debug!(%error, "a client left before its upgrade"),
        }
        drop(session);
    });
}

fn texts<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    headers
        .get_all(name)
        .iter()
        .filter_map(|value| value.to_str().ok())
}

/// The words of a header that is a list.
fn list(headers: &HeaderMap, name: &HeaderName) -> Vec<String> {
    texts(headers, name)
        .flat_map(|text| text.split(','))
        .map(|word| word.trim().to_owned())
        .filter(|word| !word.is_empty())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn the_clients_favourite_protocol_wins() {
        let ours = ["v4.channel.k8s.io", "channel.k8s.io"];
        let both = headers(&[
            (STREAM_PROTOCOL, "v9.channel.k8s.io"),
            (STREAM_PROTOCOL, "channel.k8s.io, v4.channel.k8s.io"),
        ]);
        assert_eq!(stream_protocol(&both, &ours).unwrap(), "channel.k8s.io");
        let none = stream_protocol(&HeaderMap::new(), &ours).unwrap_err();
        assert_eq!(none.into_answer().status(), StatusCode::BAD_REQUEST);
        let other = headers(&[(STREAM_PROTOCOL, "v9.channel.k8s.io")]);
        let refused = stream_protocol(&other, &ours).unwrap_err().into_answer();
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
        let accepted = refused.headers().get_all(ACCEPTED_PROTOCOLS);
        assert_eq!(accepted.iter().count(), 2);
    }

    #[test]
    fn upgrades_are_recognised_among_other_words() {
        assert!(is_upgrade(&headers(&[(
            "connection",
            "keep-alive, Upgrade"
        )])));
        assert!(!is_upgrade(&headers(&[("connection", "keep-alive")])));
        assert!(!is_upgrade(&headers(&[("upgrade", "websocket")])));
    }
}
