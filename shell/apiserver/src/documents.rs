//! Discovery, OpenAPI, version and health: what clients read before they ask
//! for objects. The large documents are made once.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use bytes::Bytes;
use http::header::{ETAG, HeaderValue, IF_NONE_MATCH};
use http::{HeaderMap, StatusCode};
use portolan_api::kinds::KindRef;
use portolan_api::{Status, discovery, openapi};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::answer::{self, Answer};
use crate::negotiate;

/// The Kubernetes version whose API is served.
const GIT_VERSION: &str = concat!("v1.36.0+portolan-", env!("CARGO_PKG_VERSION"));

/// What is told about the kinds of one snapshot; large documents are made when
/// first asked for.
#[derive(Debug)]
pub(crate) struct Documents {
    kinds: Vec<KindRef>,
    v2_json: OnceLock<Document>,
    v2_protobuf: OnceLock<Document>,
    v3_index: OnceLock<Document>,
    v3: OnceLock<BTreeMap<String, Document>>,
}

impl Documents {
    pub(crate) fn new(kinds: Vec<KindRef>) -> Self {
        Self {
            kinds,
            v2_json: OnceLock::new(),
            v2_protobuf: OnceLock::new(),
            v3_index: OnceLock::new(),
            v3: OnceLock::new(),
        }
    }

    /// The documents of v3 by path.
    fn v3(&self) -> &BTreeMap<String, Document> {
        self.v3.get_or_init(|| {
            openapi::v3_paths(&self.kinds)
                .into_iter()
                .filter_map(|path| {
                    let document = openapi::v3(&self.kinds, &path)?;
                    let body = Bytes::from(document.to_string());
                    Some((path, Document::new(body)))
                })
                .collect()
        })
    }
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
pub(crate) fn paths(documents: &Documents) -> Answer {
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
    for kind in &documents.kinds {
        let root = kind.root_path();
        if !paths.contains(&root) {
            paths.push(root);
        }
    }
    paths.sort();
    answer::json(StatusCode::OK, &json!({"paths": paths}))
}

/// `/api`, `/apis` and below.
pub(crate) fn discovery(
    documents: &Documents,
    path: &[String],
    headers: &HeaderMap,
    address: &str,
) -> Answer {
    let kinds = &documents.kinds;
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
            let document = discovery::aggregated(kinds, texts.first() == Some(&"api"));
            return answer::bytes(
                StatusCode::OK,
                discovery::AGGREGATED_MEDIA_TYPE,
                Bytes::from(document.to_string()),
            );
        }
        ["api"] => Some(discovery::core_versions(address)),
        ["apis"] => Some(discovery::groups(kinds)),
        ["api", version] => discovery::resources(kinds, "", version),
        ["apis", group] => discovery::group(kinds, group),
        ["apis", group, version] => discovery::resources(kinds, group, version),
        _ => None,
    };
    match document {
        Some(document) => answer::json(StatusCode::OK, &document),
        None => answer::status(&Status::no_such_path()),
    }
}

/// `/openapi/…`.
pub(crate) fn openapi(documents: &Documents, path: &str, headers: &HeaderMap) -> Answer {
    let kinds = &documents.kinds;
    match path {
        "v2" => {
            let accept = negotiate::accept(headers);
            // kubectl up to 1.20 asks for protobuf only, and writes the version with an @.
            if accept.contains("proto-openapi.spec.v2") && !accept.contains(answer::JSON) {
                return documents
                    .v2_protobuf
                    .get_or_init(|| Document::new(Bytes::from(openapi::v2_protobuf(kinds))))
                    .answer(headers, openapi::V2_PROTOBUF_MEDIA_TYPE);
            }
            documents
                .v2_json
                .get_or_init(|| Document::new(Bytes::from(openapi::v2(kinds).to_string())))
                .answer(headers, answer::JSON)
        }
        "v3" => documents
            .v3_index
            .get_or_init(|| {
                let parts = documents.v3().iter();
                let parts = parts.map(|(path, document)| (path.as_str(), &document.body[..]));
                Document::new(Bytes::from(openapi::v3_index(parts).to_string()))
            })
            .answer(headers, answer::JSON),
        other => {
            let path = other.strip_prefix("v3/").unwrap_or_default();
            match documents.v3().get(path) {
                Some(document) => document.answer(headers, answer::JSON),
                None => answer::status(&Status::no_such_path()),
            }
        }
    }
}
