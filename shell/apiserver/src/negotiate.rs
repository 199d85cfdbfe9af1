//! Content negotiation: what the client sends and what it wants back.

use bytes::Bytes;
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};
use portolan_api::Status;
use serde_json::Value;

use crate::answer::Failure;

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    /// The objects themselves.
    Object,
    /// A Table of meta.k8s.io/v1.
    Table,
    /// PartialObjectMetadata, or a list of them.
    Metadata,
}

/// Media types of objects that we speak.
const ACCEPTED: &[&str] = &["application/json"];
/// Media types of bodies that we read.
const READ: &[&str] = &["application/json", "application/yaml", PROTOBUF];
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// One entry of an Accept header.
struct Entry<'a> {
    media: &'a str,
    parameters: Vec<(&'a str, &'a str)>,
}

impl<'a> Entry<'a> {
    fn parse(text: &'a str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let media = parts.next().unwrap_or_default();
        let parameters = parts
            .filter_map(|part| part.split_once('='))
            .map(|(key, value)| (key.trim(), value.trim()))
            .collect();
        Self { media, parameters }
    }

    fn get(&self, key: &str) -> &'a str {
        self.parameters
            .iter()
            .find(|(own, _)| *own == key)
            .map_or("", |(_, value)| value)
    }

    fn output(&self) -> Option<Output> {
        if !matches!(self.media, "application/json" | "application/*" | "*/*") {
            return None;
        }
        let (group, version) = (self.get("g"), self.get("v"));
        match self.get("as") {
            "" => Some(Output::Object),
            "Table" if group == "meta.k8s.io" && version == "v1" => Some(Output::Table),
            "PartialObjectMetadata" | "PartialObjectMetadataList"
                if group == "meta.k8s.io" && version == "v1" =>
            {
                Some(Output::Metadata)
            }
            _ => None,
        }
    }
}

/// The first form that the client names and we speak. Kubernetes takes the
/// order of the header, too.
pub(crate) fn output(headers: &HeaderMap) -> Result<Output, Failure> {
    let accept = accept(headers);
    if accept.trim().is_empty() {
        return Ok(Output::Object);
    }
    accept
        .split(',')
        .find_map(|entry| Entry::parse(entry).output())
        .ok_or_else(|| Box::new(Status::not_acceptable(ACCEPTED)))
}

/// The Accept header, or "".
pub(crate) fn accept(headers: &HeaderMap) -> &str {
    headers
        .get(ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// The Content-Type without parameters, or "".
pub(crate) fn content_type(headers: &HeaderMap) -> &str {
    headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.split(';').next())
        .unwrap_or_default()
        .trim()
}

/// Read a body that holds one object.
pub(crate) fn body(headers: &HeaderMap, body: &Bytes) -> Result<Value, Failure> {
    let value = match content_type(headers) {
        "" | "application/json" => serde_json::from_slice(body).map_err(|error| error.to_string()),
        "application/yaml" => yaml(body),
        PROTOBUF => portolan_api::protobuf::decode(body).map_err(|fault| fault.to_string()),
        _ => return Err(Box::new(Status::unsupported_media_type(READ))),
    };
    match value {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(bad(
            "couldn't get version/kind; json parse error: the body is not an object",
        )),
        Err(error) => Err(bad(&error)),
    }
}

/// Read a body in YAML, of which JSON is a part.
pub(crate) fn yaml(body: &Bytes) -> Result<Value, String> {
    let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    let documents = portolan_api::yaml::parse(text).map_err(|error| error.to_string())?;
    let mut documents = documents.into_iter();
    match (documents.next(), documents.next()) {
        (Some(document), None) => Ok(document),
        _ => Err("the body must hold one object".to_owned()),
    }
}

fn bad(error: &str) -> Failure {
    Box::new(Status::bad_request(format!(
        "the object provided is unrecognized: {error}"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negotiated(accept: &'static str) -> Option<Output> {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, http::HeaderValue::from_static(accept));
        output(&headers).ok()
    }

    #[test]
    fn the_first_form_that_we_speak_wins() {
        let cases = [
            ("application/json", Some(Output::Object)),
            ("*/*", Some(Output::Object)),
            ("", Some(Output::Object)),
            (
                "application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json",
                Some(Output::Table),
            ),
            (
                "application/vnd.kubernetes.protobuf, */*",
                Some(Output::Object),
            ),
            (
                "application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json",
                Some(Output::Metadata),
            ),
            ("application/vnd.kubernetes.protobuf", None),
            ("text/html", None),
        ];
        for (accept, expected) in cases {
            assert_eq!(negotiated(accept), expected, "{accept}");
        }
    }

    #[test]
    fn bodies_that_are_no_objects_are_refused() {
        let mut headers = HeaderMap::new();
        for text in ["", "3", "[]", "{\"a\":", "nul"] {
            let error = body(&headers, &Bytes::from_static(text.as_bytes())).unwrap_err();
            assert_eq!(error.code, 400, "{text}");
        }
        headers.insert(
            CONTENT_TYPE,
            http::HeaderValue::from_static("application/cbor"),
        );
        assert_eq!(body(&headers, &Bytes::new()).unwrap_err().code, 415);
    }
}
