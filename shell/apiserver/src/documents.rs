//! Discovery, OpenAPI, version and health: what clients read before they ask
//! for objects. The large documents are made once.

use std::sync::OnceLock;

use bytes::Bytes;
use http::header::{ETAG, HeaderValue, IF_NONE_MATCH};
use http::{HeaderMap, StatusCode};
use portolan_api::{Status, discovery, openapi};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::answer::{self, Answer};
use crate::negotiate;

/// The Kubernetes version whose API is served.
const GIT_VERSION: &str = concat!("v1.36.0+portolan-", env!("CARGO_PKG_VERSION"));

/// Documents that never change while the program runs.
#[derive(Debug, Default)]
pub(crate) struct Documents {
    v2_json: OnceLock<Document>,
    v2_protobuf: OnceLock<Document>,
}

#[derive(Debug)]
struct Document {
    body: Bytes,
    etag: String,
}

impl Document {
    fn new(body: Bytes) -> Self {
        let mut etag = String::from("\"");
        for byte in Sha256::digest(&body) {
            etag.push_str(&format!("{byte:02X}"));
        }
        etag.push('"');
        Self { body, etag }
    }

    fn answer(&self, headers: &HeaderMap, content_type: &'static str) -> Answer {
        let known = headers.get(IF_NONE_MATCH).and_then(|tag| tag.to_str().ok());
        let mut answer = if known == Some(self.etag.as_str()) {
            answer::bytes(StatusCode::NOT_MODIFIED, content_type, Bytes::new())
        } else {
            answer::bytes(StatusCode::OK, content_type, self.body.clone())
        };
        if let Ok(etag) = HeaderValue::from_str(&self.etag) {
            answer.headers_mut().insert(ETAG, etag);
        }
        answer
    }
}

/// `/version`.
pub(crate) fn version() -> Answer {
    let version = json!({
        "major": "1",
        "minor": "36",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("linux/{}", platform()),
    });
    answer::json(StatusCode::OK, &version)
}

/// Go's names of architectures.
fn platform() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// `/`.
pub(crate) fn paths() -> Answer {
    let mut paths: Vec<String> = [
        "/api",
        "/apis",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
        "/version",
    ]
    .map(str::to_owned)
    .into();
    for kind in portolan_api::kinds::all() {
        let root = kind.root_path();
        if !paths.contains(&root) {
            paths.push(root);
        }
    }
    paths.sort();
    answer::json(StatusCode::OK, &json!({"paths": paths}))
}

/// `/api`, `/apis` and below.
pub(crate) fn discovery(path: &[String], headers: &HeaderMap, address: &str) -> Answer {
    let texts: Vec<&str> = path.iter().map(String::as_str).collect();
    let wants_aggregated = negotiate::accept(headers)
        .split(',')
        .next()
        .is_some_and(|first| {
            first.contains("as=APIGroupDiscoveryList")
                && first.contains("v=v2")
                && !first.contains("v=v2beta1")
        });
    let document = match texts.as_slice() {
        ["api"] | ["apis"] if wants_aggregated => {
            let document = discovery::aggregated(texts.first() == Some(&"api"));
            return answer::bytes(
                StatusCode::OK,
                discovery::AGGREGATED_MEDIA_TYPE,
                Bytes::from(document.to_string()),
            );
        }
        ["api"] => Some(discovery::core_versions(address)),
        ["apis"] => Some(discovery::groups()),
        ["api", version] => discovery::resources("", version),
        ["apis", group] => discovery::group(group),
        ["apis", group, version] => discovery::resources(group, version),
        _ => None,
    };
    match document {
        Some(document) => answer::json(StatusCode::OK, &document),
        None => answer::status(&Status::no_such_path()),
    }
}

/// `/openapi/…`.
pub(crate) fn openapi(documents: &Documents, path: &str, headers: &HeaderMap) -> Answer {
    match path {
        "v2" => {
            let accept = negotiate::accept(headers);
            // kubectl up to 1.20 asks for protobuf only, and writes the version with an @.
            if accept.contains("proto-openapi.spec.v2") && !accept.contains(answer::JSON) {
                return documents
                    .v2_protobuf
                    .get_or_init(|| Document::new(Bytes::from(openapi::v2_protobuf())))
                    .answer(headers, openapi::V2_PROTOBUF_MEDIA_TYPE);
            }
            documents
                .v2_json
                .get_or_init(|| Document::new(Bytes::from(openapi::v2().to_string())))
                .answer(headers, answer::JSON)
        }
        "v3" => answer::json(StatusCode::OK, &openapi::v3_index()),
        other => match other.strip_prefix("v3/").and_then(openapi::v3) {
            Some(document) => {
                Document::new(Bytes::from(document.to_string())).answer(headers, answer::JSON)
            }
            None => answer::status(&Status::no_such_path()),
        },
    }
}
