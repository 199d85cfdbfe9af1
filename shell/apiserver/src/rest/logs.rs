//! `pods/NAME/log`.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use portolan_api::value::str_at;
use portolan_api::{Cause, Status, meta};
use serde_json::json;

use super::Call;
use crate::answer::{self, Answer, Failure};
use crate::pods::{LogError, LogOptions, LogRequest, LogStream};
use crate::request::Query;
use crate::streams;

const CONTENT_TYPE: &str = "text/plain";

pub(super) async fn logs(call: &Call) -> Result<Answer, Failure> {
    let options = options(call.query(), &call.asked.name, Timestamp::now())?;
    let pod = call.current()?.value();
    let container = streams::container(&pod, call.query().text("container"))?;
    let node = str_at(&pod, "spec.nodeName").to_owned();
    if node.is_empty() {
        return Ok(answer::bytes(StatusCode::OK, CONTENT_TYPE, Bytes::new()));
    }
    let Some(backend) = call.context.pod_backend() else {
        return Err(Box::new(Status::internal(
            "this server runs no pods, so it has no logs",
        )));
    };
    let limit = options.limit_bytes;
    let request = LogRequest {
        namespace: call.asked.namespace.clone(),
        pod: call.asked.name.clone(),
        uid: meta::uid(&pod).to_owned(),
        node,
        container,
        options,
    };
    let log = backend.logs(request).await.map_err(|error| match error {
        LogError::NotFound(message) => {
            let mut status = Status::not_found(&call.asked.resource.kind, &call.asked.name);
            status.message = message;
            Box::new(status)
        }
        LogError::BadRequest(message) => Box::new(Status::bad_request(message)),
        LogError::Internal(message) => Box::new(Status::internal(message)),
    })?;
    let log = limited(log, limit);
    let (ending, place) = (call.ending.clone(), Arc::clone(&call.place));
    let log = log.take_until(async move {
        ending.cancelled().await;
        // Held as long as somebody follows.
        drop(place);
    });
    Ok(answer::stream(CONTENT_TYPE, log.boxed()))
}

/// The parameters, checked as Kubernetes checks PodLogOptions of this pod.
fn options(query: &Query, pod: &str, now: Timestamp) -> Result<LogOptions, Failure> {
    let number = |key: &str| match query.text(key) {
        "" => Ok(None),
        text => text.parse::<i64>().map(Some).map_err(|_not_a_number| {
            let message = format!("strconv.ParseInt: parsing {text:?}: invalid syntax");
            Box::new(Status::bad_request(message)) as Failure
        }),
    };
    let (tail_lines, limit_bytes) = (number("tailLines")?, number("limitBytes")?);
    let since_seconds = number("sinceSeconds")?;
    let since_time = match query.text("sinceTime") {
        "" | "null" => None,
        text => Some(text.parse::<Timestamp>().map_err(|_not_a_time| {
            Box::new(Status::bad_request(format!(
                "parsing time {text:?} as \"2006-01-02T15:04:05Z07:00\": cannot parse {text:?} as \"2006\""
            )))
        })?),
    };
    let mut causes = Vec::new();
    let mut at_least = |field: &str, value: Option<i64>, least: i64, detail: &str| {
        if let Some(value) = value.filter(|value| *value < least) {
            causes.push(Cause::invalid(field, &json!(value), detail));
        }
    };
    at_least(
        "tailLines",
        tail_lines,
        0,
        "must be greater than or equal to 0",
    );
    at_least("limitBytes", limit_bytes, 1, "must be greater than 0");
    if since_time.is_none() {
        at_least("sinceSeconds", since_seconds, 1, "must be greater than 0");
    }
    if since_time.is_some() && since_seconds.is_some() {
        let detail = "at most one of `sinceTime` or `sinceSeconds` may be specified";
        causes.push(Cause::forbidden("[]", detail));
    }
    // The feature gate PodLogsQuerySplitStreams is off.
    if query.has("stream") {
        causes.push(Cause::forbidden("stream", "may not be specified"));
    }
    if !causes.is_empty() {
        let status = Status::invalid_kind("", "PodLogOptions", pod, &causes);
        return Err(Box::new(status));
    }
    let ago = |seconds| now.checked_sub(SignedDuration::from_secs(seconds)).ok();
    let count = |number: Option<i64>| number.and_then(|number| u64::try_from(number).ok());
    Ok(LogOptions {
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        tail_lines: count(tail_lines),
        since: since_time.or_else(|| since_seconds.and_then(ago)),
        limit_bytes: count(limit_bytes),
    })
}

/// Cut after so many bytes, whatever the backend does.
fn limited(log: LogStream, limit: Option<u64>) -> LogStream {
    let Some(limit) = limit else { return log };
    stream::unfold((log, limit), |(mut log, left)| async move {
        if left == 0 {
            return None;
        }
        let piece: Result<Bytes, io::Error> = match log.next().await? {
            Ok(bytes) => {
                let room = usize::try_from(left).unwrap_or(usize::MAX);
                Ok(bytes.slice(..bytes.len().min(room)))
            }
            Err(error) => Err(error),
        };
        let used = piece.as_ref().map_or(0, |bytes| bytes.len() as u64);
        Some((piece, (log, left.saturating_sub(used))))
    })
    .boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<LogOptions, String> {
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        options(&Query::parse(query), "p", now).map_err(|status| status.message)
    }

    #[test]
    fn options_are_read() {
        let query = "follow=true&tailLines=0&sinceSeconds=60&limitBytes=5&insecureSkipTLSVerifyBackend=true&timestamps=1";
        let expected = LogOptions {
            follow: true,
            previous: false,
            timestamps: true,
            tail_lines: Some(0),
            since: Some("2026-01-01T00:00:00Z".parse().unwrap()),
            limit_bytes: Some(5),
        };
        assert_eq!(read(query), Ok(expected));
        let since = read("sinceTime=2025-12-31T23:00:00%2B01:00").unwrap().since;
        assert_eq!(since, Some("2025-12-31T22:00:00Z".parse().unwrap()));
        assert_eq!(read(""), Ok(LogOptions::default()));
    }

    #[test]
    fn wrong_options_are_refused_in_the_words_of_kubernetes() {
        let invalid = |cause: &str| Err(format!("PodLogOptions \"p\" is invalid: {cause}"));
        assert_eq!(
            read("tailLines=-1"),
            invalid("tailLines: Invalid value: -1: must be greater than or equal to 0")
        );
        assert_eq!(
            read("limitBytes=0"),
            invalid("limitBytes: Invalid value: 0: must be greater than 0")
        );
        assert_eq!(
            read("sinceSeconds=0"),
            invalid("sinceSeconds: Invalid value: 0: must be greater than 0")
        );
        assert_eq!(
            read("sinceSeconds=1&sinceTime=2026-01-01T00:00:00Z"),
            invalid("[]: Forbidden: at most one of `sinceTime` or `sinceSeconds` may be specified")
        );
        assert_eq!(
            read("stream=Stdout"),
            invalid("stream: Forbidden: may not be specified")
        );
        assert_eq!(
            read("tailLines=x"),
            Err("strconv.ParseInt: parsing \"x\": invalid syntax".to_owned())
        );
    }
}
