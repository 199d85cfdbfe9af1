//! Building HTTP answers.

use std::convert::Infallible;

use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use http::header::{
    CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, WARNING, WWW_AUTHENTICATE,
};
use http::{Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use portolan_api::Status;
use serde_json::Value;

/// The body of every answer.
pub(crate) type Body = UnsyncBoxBody<Bytes, std::io::Error>;
/// What a handler returns.
pub(crate) type Answer = Response<Body>;
/// What a handler may fail with: boxed, since it is large and rare.
pub(crate) type Failure = Box<Status>;

pub(crate) const JSON: &str = "application/json";
pub(crate) const TEXT: &str = "text/plain; charset=utf-8";

/// Marks answers that may be compressed; streams may not.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Compressible;

/// Smaller answers are not worth the CPU on either side (Kubernetes' own threshold).
const COMPRESS_FROM_BYTES: usize = 128 * 1024;

/// An answer with a whole body.
pub(crate) fn bytes(code: StatusCode, content_type: &'static str, body: Bytes) -> Answer {
    let compressible = body.len() >= COMPRESS_FROM_BYTES;
    let body = Full::new(body).map_err(never).boxed_unsync();
    let mut answer = plain(code, content_type, body);
    if compressible {
        answer.extensions_mut().insert(Compressible);
    }
    answer
}

/// An answer whose body comes piece by piece.
pub(crate) fn stream(
    content_type: &'static str,
    pieces: BoxStream<'static, Result<Bytes, std::io::Error>>,
) -> Answer {
    let body = StreamBody::new(pieces.map(|piece| piece.map(Frame::data)));
    plain(StatusCode::OK, content_type, body.boxed_unsync())
}

fn plain(code: StatusCode, content_type: &'static str, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() = code;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    answer
}

/// A JSON answer.
pub(crate) fn json(code: StatusCode, value: &Value) -> Answer {
    bytes(code, JSON, Bytes::from(value.to_string()))
}

/// A text answer.
pub(crate) fn text(code: StatusCode, text: impl Into<String>) -> Answer {
    bytes(code, TEXT, Bytes::from(text.into()))
}

/// A Status answer.
pub(crate) fn status(status: &Status) -> Answer {
    let code = StatusCode::from_u16(status.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut answer = json(code, &status.to_value());
    if code == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer realm=\"portolan\"");
        answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    }
    if status.details.retry_after_seconds > 0
        && let Ok(seconds) = HeaderValue::from_str(&status.details.retry_after_seconds.to_string())
    {
        let name = HeaderName::from_static("retry-after");
        answer.headers_mut().insert(name, seconds);
    }
    answer
}

/// Add warnings, which kubectl prints as `Warning: text`.
pub(crate) fn warn(answer: &mut Answer, warnings: &[String]) {
    for warning in warnings {
        let escaped = warning.replace('\\', "\\\\").replace('"', "\\\"");
        let value = HeaderValue::from_str(&format!("299 - \"{escaped}\""));
        if let Ok(value) = value {
            answer.headers_mut().append(WARNING, value);
        }
    }
}

/// A failure that is no decision of the API: 500 with the text as it is.
pub(crate) fn unknown_error(message: impl Into<String>) -> Failure {
    Box::new(Status {
        code: 500,
        reason: "",
        message: message.into(),
        details: Default::default(),
    })
}

fn never(never: Infallible) -> std::io::Error {
    match never {}
}
