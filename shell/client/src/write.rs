//! The verbs controllers write with, over raw JSON.

use kube::Client;
use serde_json::{Value, json};
use thiserror::Error;

use crate::Resource;

/// A request that the server refused or that never reached it.
#[derive(Debug, Error)]
#[error("cannot {verb} {path}")]
pub struct RequestError {
    /// What was tried, such as `create`.
    pub verb: &'static str,
    /// The URL path.
    pub path: String,
    /// What the server or the connection said.
    #[source]
    pub source: Box<kube::Error>,
}

impl RequestError {
    fn status(&self) -> Option<&kube::core::Status> {
        if let kube::Error::Api(status) = self.source.as_ref() {
            Some(status)
        } else {
            None
        }
    }

    /// The HTTP status of the server's answer; none where there was no answer.
    pub fn code(&self) -> Option<u16> {
        self.status().map(|status| status.code)
    }

    /// The machine-readable reason of the server's Status.
    pub fn reason(&self) -> &str {
        self.status().map_or("", |status| &status.reason)
    }

    /// The server's message, or the connection's.
    pub fn message(&self) -> String {
        self.status()
            .map_or_else(|| self.source.to_string(), |status| status.message.clone())
    }

    /// The object is not there.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// The object was changed by somebody else meanwhile.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409) && self.reason() != "AlreadyExists"
    }

    /// An object of that name exists.
    pub fn is_already_exists(&self) -> bool {
        self.reason() == "AlreadyExists"
    }

    /// The namespace is being deleted: creating in it is pointless.
    pub fn is_namespace_terminating(&self) -> bool {
        self.code() == Some(403) && self.message().contains("because it is being terminated")
    }
}

/// The object, or collection, that a request is about.
#[derive(Clone, Copy, Debug)]
pub struct Target<'a> {
    resource: &'a Resource,
    namespace: Option<&'a str>,
    name: Option<&'a str>,
    subresource: Option<&'a str>,
}

impl<'a> Target<'a> {
    /// All objects of a kind in a namespace (or in the cluster).
    pub fn all(resource: &'a Resource, namespace: Option<&'a str>) -> Self {
        Self {
            resource,
            namespace,
            name: None,
            subresource: None,
        }
    }

    /// One object.
    pub fn one(resource: &'a Resource, namespace: Option<&'a str>, name: &'a str) -> Self {
        Self {
            name: Some(name),
            ..Self::all(resource, namespace)
        }
    }

    /// A subresource of it, such as `status`.
    pub fn subresource(self, subresource: &'a str) -> Self {
        Self {
            subresource: Some(subresource),
            ..self
        }
    }

    fn path(&self) -> String {
        let mut path = self.resource.path(self.namespace);
        for part in [self.name, self.subresource].into_iter().flatten() {
            path.push('/');
            path.push_str(part);
        }
        path
    }
}

/// A patch and how it is to be read.
#[derive(Clone, Copy, Debug)]
pub enum PatchBody<'a> {
    /// RFC 7386 merge patch.
    Merge(&'a Value),
    /// Kubernetes' strategic merge patch.
    Strategic(&'a Value),
    /// RFC 6902 JSON patch.
    Json(&'a Value),
}

impl PatchBody<'_> {
    fn parts(&self) -> (&'static str, &Value) {
        match self {
            Self::Merge(body) => ("application/merge-patch+json", body),
            Self::Strategic(body) => ("application/strategic-merge-patch+json", body),
            Self::Json(body) => ("application/json-patch+json", body),
        }
    }
}

/// What becomes of the objects owned by a deleted one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// They are deleted afterwards.
    Background,
    /// They are deleted first.
    Foreground,
    /// They stay, without this owner.
    Orphan,
}

/// How to delete.
#[derive(Clone, Debug, Default)]
pub struct Deletion {
    /// Only the object with this uid.
    pub uid: Option<String>,
    /// Only if it was not changed since this version.
    pub resource_version: Option<String>,
    /// Seconds a pod gets to stop; 0 removes it at once.
    pub grace_seconds: Option<u32>,
    /// What becomes of owned objects.
    pub propagation: Option<Propagation>,
}

impl Deletion {
    fn body(&self) -> Value {
        let mut body = json!({"kind": "DeleteOptions", "apiVersion": "v1"});
        if let Some(seconds) = self.grace_seconds {
            body["gracePeriodSeconds"] = seconds.into();
        }
        if let Some(propagation) = self.propagation {
            body["propagationPolicy"] = match propagation {
                Propagation::Background => "Background",
                Propagation::Foreground => "Foreground",
                Propagation::Orphan => "Orphan",
            }
            .into();
        }
        if let Some(uid) = &self.uid {
            body["preconditions"]["uid"] = uid.as_str().into();
        }
        if let Some(version) = &self.resource_version {
            body["preconditions"]["resourceVersion"] = version.as_str().into();
        }
        body
    }
}

/// Writes objects as raw JSON. Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    manager: &'static str,
}

impl Writer {
    /// A writer that appears in `managedFields` as `manager`.
    pub fn new(client: Client, manager: &'static str) -> Self {
        Self { client, manager }
    }

    /// The connection underneath.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Reads one object.
    pub async fn get(&self, target: Target<'_>) -> Result<Value, RequestError> {
        self.send("get", "GET", target.path(), None).await
    }

    /// Lists a collection, only the objects' metadata.
    pub async fn list_metadata(&self, target: Target<'_>) -> Result<Value, RequestError> {
        let path = target.path();
        let request = kube::core::Request::new(path.clone())
            .list_metadata(&kube::api::ListParams::default())
            .map_err(kube::Error::BuildRequest);
        let answer = match request {
            Ok(request) => self.client.request(request).await,
            Err(error) => Err(error),
        };
        answer.map_err(|source| RequestError {
            verb: "list",
            path,
            source: Box::new(source),
        })
    }

    /// Creates an object, or posts to a subresource such as `binding`.
    pub async fn create(&self, target: Target<'_>, body: &Value) -> Result<Value, RequestError> {
        let path = format!("{}?fieldManager={}", target.path(), self.manager);
        self.send("create", "POST", path, Some((JSON, body))).await
    }

    /// Replaces an object; the body carries the resourceVersion it was read at.
    pub async fn replace(&self, target: Target<'_>, body: &Value) -> Result<Value, RequestError> {
        let path = format!("{}?fieldManager={}", target.path(), self.manager);
        self.send("replace", "PUT", path, Some((JSON, body))).await
    }

    /// Patches an object or subresource.
    pub async fn patch(
        &self,
        target: Target<'_>,
        patch: PatchBody<'_>,
    ) -> Result<Value, RequestError> {
        let path = format!("{}?fieldManager={}", target.path(), self.manager);
        self.send("patch", "PATCH", path, Some(patch.parts())).await
    }

    /// Merge-patches `status` of an object.
    pub async fn patch_status(
        &self,
        target: Target<'_>,
        status: &Value,
    ) -> Result<Value, RequestError> {
        let body = json!({ "status": status });
        self.patch(target.subresource("status"), PatchBody::Merge(&body))
            .await
    }

    /// Deletes one object, or a whole collection where the target names none.
    pub async fn delete(
        &self,
        target: Target<'_>,
        deletion: &Deletion,
    ) -> Result<Value, RequestError> {
        let body = deletion.body();
        self.send("delete", "DELETE", target.path(), Some((JSON, &body)))
            .await
    }

    async fn send(
        &self,
        verb: &'static str,
        method: &str,
        path: String,
        body: Option<(&str, &Value)>,
    ) -> Result<Value, RequestError> {
        let answer = self.exchange(method, &path, body).await;
        answer.map_err(|source| RequestError {
            verb,
            path,
            source: Box::new(source),
        })
    }

    async fn exchange(
        &self,
        method: &str,
        path: &str,
        body: Option<(&str, &Value)>,
    ) -> Result<Value, kube::Error> {
        let mut request = http::Request::builder().method(method).uri(path);
        let bytes = match body {
            Some((media_type, body)) => {
                request = request.header(http::header::CONTENT_TYPE, media_type);
                serde_json::to_vec(body).map_err(kube::Error::SerdeError)?
            }
            None => Vec::new(),
        };
        let request = request.body(bytes).map_err(kube::Error::HttpError)?;
        self.client.request(request).await
    }
}

const JSON: &str = "application/json";
