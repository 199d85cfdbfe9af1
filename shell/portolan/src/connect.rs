//! Which API server, and how one request is made and its errors told.

use std::path::PathBuf;

use anyhow::{Context, Result, anyhow};
use http::{Method, Request};
use http_body_util::BodyExt;
use kube::Client;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::Value;

use crate::cli::Connection;
use crate::out;

/// The lab's state folder when none is given.
pub(crate) fn default_data_dir() -> Result<PathBuf> {
    if let Some(dir) = std::env::var_os("XDG_DATA_HOME").filter(|d| !d.is_empty()) {
        return Ok(PathBuf::from(dir).join("portolan"));
    }
    let home = std::env::var_os("HOME").filter(|h| !h.is_empty()).context(
        "neither XDG_DATA_HOME nor HOME is set: say where the state lives with --data-dir",
    )?;
    Ok(PathBuf::from(home).join(".local/share/portolan"))
}

/// A server and the namespace that commands without `-n` mean.
#[derive(Clone)]
pub(crate) struct Session {
    /// The connection.
    pub(crate) client: Client,
    /// The namespace.
    pub(crate) namespace: String,
}

/// What the server answered.
pub(crate) struct Answer {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The body, parsed.
    pub(crate) body: Value,
}

impl Answer {
    /// Reads a body to its end; what is not JSON is kept as text.
    async fn read(status: u16, body: Body) -> Result<Self> {
        let bytes = body
            .collect()
            .await
            .context("read the server's answer")?
            .to_bytes();
        let body = serde_json::from_slice(&bytes).unwrap_or_else(|_not_json| {
            Value::String(String::from_utf8_lossy(&bytes).into_owned())
        });
        Ok(Self { status, body })
    }
}

/// One request to the server.
pub(crate) struct Call<'a> {
    /// The HTTP method.
    pub(crate) method: Method,
    /// Path and query.
    pub(crate) path: &'a str,
    /// Media type asked for.
    pub(crate) accept: &'a str,
    /// Media type and content sent.
    pub(crate) send: Option<(&'a str, &'a Value)>,
}

impl<'a> Call<'a> {
    /// A GET of JSON.
    pub(crate) fn get(path: &'a str) -> Self {
        Self {
            method: Method::GET,
            path,
            accept: "application/json",
            send: None,
        }
    }

    /// A request that sends `body`.
    pub(crate) fn sending(method: Method, path: &'a str, media: &'a str, body: &'a Value) -> Self {
        Self {
            method,
            path,
            accept: "application/json",
            send: Some((media, body)),
        }
    }

    fn request(&self) -> Result<Request<Body>> {
        let mut builder = Request::builder()
            .method(self.method.clone())
            .uri(self.path)
            .header("Accept", self.accept);
        let body = match self.send {
            Some((media, value)) => {
                builder = builder.header("Content-Type", media);
                Body::from(serde_json::to_vec(value)?)
            }
            None => Body::empty(),
        };
        Ok(builder.body(body)?)
    }
}

impl Session {
    /// Connects as the flags, the environment and the files say.
    pub(crate) async fn open(connection: &Connection) -> Result<Self> {
        Self::of(connection, true).await
    }

    /// The same, for requests of which "unavailable" is an answer and no reason
    /// to ask again.
    pub(crate) async fn open_asking_once(connection: &Connection) -> Result<Self> {
        Self::of(connection, false).await
    }

    async fn of(connection: &Connection, retry: bool) -> Result<Self> {
        let path = kubeconfig_path(connection)?;
        let read = Kubeconfig::read_from(&path)
            .with_context(|| format!("read kubeconfig {}", path.display()))?;
        let mut config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default())
            .await
            .with_context(|| format!("kubeconfig {}", path.display()))?;
        config.default_retry = retry;
        let namespace = connection
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        Ok(Self {
            client: Client::try_from(config)?,
            namespace,
        })
    }

    /// Makes one request; an answer of 400 or more is an error in kubectl's words.
    pub(crate) async fn call(&self, call: &Call<'_>) -> Result<Answer> {
        let answer = self.try_call(call).await?;
        if answer.status >= 400 {
            return Err(server_error(&answer));
        }
        Ok(answer)
    }

    /// Makes one request and returns whatever the server answered.
    pub(crate) async fn try_call(&self, call: &Call<'_>) -> Result<Answer> {
        let response = self
            .client
            .send(call.request()?)
            .await
            .map_err(|e| unreachable_server(&e))?;
        let (parts, body) = response.into_parts();
        for warning in parts.headers.get_all("warning") {
            if let Some(text) = warning.to_str().ok().and_then(warning_text) {
                out::note(out::styled(
                    anstyle::AnsiColor::Yellow.on_default(),
                    format_args!("Warning: {text}"),
                ));
            }
        }
        Answer::read(parts.status.as_u16(), body).await
    }

    /// Makes one request and returns the body as it arrives.
    pub(crate) async fn stream(&self, call: &Call<'_>) -> Result<Body> {
        let response = self
            .client
            .send(call.request()?)
            .await
            .map_err(|e| unreachable_server(&e))?;
        let status = response.status().as_u16();
        let body = response.into_body();
        if status >= 400 {
            return Err(server_error(&Answer::read(status, body).await?));
        }
        Ok(body)
    }
}

/// The text of a `Warning: 299 - "text"` header (RFC 9111 section 5.5, kept by Kubernetes).
fn warning_text(header: &str) -> Option<String> {
    let (_, quoted) = header.split_once('"')?;
    let (text, _) = quoted.rsplit_once('"')?;
    Some(text.replace("\\\"", "\"").replace("\\\\", "\\"))
}

/// `Error from server (NotFound): pods "x" not found`, as kubectl says it.
pub(crate) fn server_error(answer: &Answer) -> anyhow::Error {
    let message = answer.body["message"]
        .as_str()
        .map_or_else(|| answer.body.to_string(), str::to_owned);
    match answer.body["reason"].as_str() {
        Some("Invalid") => anyhow!("{message}"),
        Some(reason) => anyhow!("Error from server ({reason}): {message}"),
        None => anyhow!("Error from server: {message}"),
    }
}

fn unreachable_server(error: &kube::Error) -> anyhow::Error {
    let mut cause: &dyn std::error::Error = error;
    while let Some(next) = cause.source() {
        cause = next;
    }
    anyhow!("Unable to connect to the server: {cause} - is `portolan up` running?")
}

fn kubeconfig_path(connection: &Connection) -> Result<PathBuf> {
    if let Some(path) = &connection.kubeconfig {
        return Ok(path.clone());
    }
    if let Some(path) = std::env::var_os("KUBECONFIG").filter(|p| !p.is_empty()) {
        let first = std::env::split_paths(&path).find(|p| !p.as_os_str().is_empty());
        return first.context("KUBECONFIG names no file");
    }
    let lab = default_data_dir()?.join("kubeconfig");
    if lab.is_file() {
        return Ok(lab);
    }
    let home = std::env::var_os("HOME")
        .map(PathBuf::from)
        .unwrap_or_default();
    let own = home.join(".kube/config");
    if own.is_file() {
        return Ok(own);
    }
    Err(anyhow!(
        "no kubeconfig: start a lab with `portolan up`, or name one with --kubeconfig"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_warning_header_is_unquoted() {
        assert_eq!(
            warning_text(r#"299 - "unknown field \"spec.foo\"""#).as_deref(),
            Some(r#"unknown field "spec.foo""#)
        );
        assert_eq!(warning_text("299 - nothing"), None);
    }
}
