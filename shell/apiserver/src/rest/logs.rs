//! `pods/NAME/log`.

use std::io;

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use portolan_api::value::{list_at, str_at};
use portolan_api::{Status, meta};
use serde_json::Value;

use super::Call;
use crate::answer::{self, Answer, Failure};
use crate::pods::{LogError, LogOptions, LogRequest, LogStream};

const CONTENT_TYPE: &str = "text/plain";

pub(super) async fn logs(call: &Call) -> Result<Answer, Failure> {
    let pod = call.current()?.value();
    let options = options(call)?;
    let container = container(call, &pod)?;
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
            let mut status = Status::not_found(call.asked.resource.kind, &call.asked.name);
            status.message = message;
            Box::new(status)
        }
        LogError::BadRequest(message) => Box::new(Status::bad_request(message)),
        LogError::Internal(message) => Box::new(Status::internal(message)),
    })?;
    let log = limited(log, limit);
    let ending = call.ending.clone();
    let log = log.take_until(async move { ending.cancelled().await });
    Ok(answer::stream(CONTENT_TYPE, log.boxed()))
}

fn options(call: &Call) -> Result<LogOptions, Failure> {
    let query = call.query();
    let number = |key: &str| {
        query.number(key).map_err(|text| {
            Box::new(Status::bad_request(format!(
                "{key}: Invalid value: {text:?}: must be a number"
            ))) as Failure
        })
    };
    let since_seconds = number("sinceSeconds")?;
    let since = match (since_seconds, query.text("sinceTime")) {
        (Some(_), time) if !time.is_empty() => {
            return Err(Box::new(Status::bad_request(
                "at most one of `sinceTime` or `sinceSeconds` may be specified",
            )));
        }
        (Some(seconds), _) => ago(seconds),
        (None, "") => None,
        (None, time) => Some(
            time.parse::<Timestamp>()
                .map_err(|error| Box::new(Status::bad_request(format!("sinceTime: {error}"))))?,
        ),
    };
    Ok(LogOptions {
        follow: query.flag("follow"),
        previous: query.flag("previous"),
        timestamps: query.flag("timestamps"),
        tail_lines: number("tailLines")?,
        since,
        limit_bytes: number("limitBytes")?,
    })
}

fn ago(seconds: u64) -> Option<Timestamp> {
    let span = SignedDuration::from_secs(i64::try_from(seconds).ok()?);
    Timestamp::now().checked_sub(span).ok()
}

/// The container asked for, or the only one.
fn container(call: &Call, pod: &Value) -> Result<String, Failure> {
    let wanted = call.query().text("container");
    let name = &call.asked.name;
    let names = |path: &str| -> Vec<String> {
        list_at(pod, path)
            .iter()
            .map(|container| str_at(container, "name").to_owned())
            .collect()
    };
    let containers = names("spec.containers");
    let message = match (wanted, containers.as_slice()) {
        ("", [only]) => return Ok(only.clone()),
        ("", many) => format!(
            "a container name must be specified for pod {name}, choose one of: [{}]",
            many.join(" ")
        ),
        (wanted, _) => {
            let all = [
                containers.clone(),
                names("spec.initContainers"),
                names("spec.ephemeralContainers"),
            ]
            .concat();
            if all.iter().any(|own| own == wanted) {
                return Ok(wanted.to_owned());
            }
            format!("container {wanted} is not valid for pod {name}")
        }
    };
    Err(Box::new(Status::bad_request(message)))
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
