//! A server on 127.0.0.1 and clients of it.

use std::net::Ipv4Addr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request};
use http_body_util::BodyExt as _;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use portolan_apiserver::{Config, OpenError, Server};
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Longest wait for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// A running server in a directory of its own.
pub(crate) struct Lab {
    pub(crate) dir: Arc<TempDir>,
    pub(crate) server: Arc<Server>,
    pub(crate) client: kube::Client,
    pub(crate) url: String,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

/// What a request got.
pub(crate) struct Got {
    pub(crate) code: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Got {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&self.body)))
    }

    /// Assert the code, return the JSON.
    #[track_caller]
    pub(crate) fn expect(&self, code: u16) -> Value {
        assert_eq!(self.code, code, "{}", String::from_utf8_lossy(&self.body));
        self.json()
    }
}

pub(crate) fn config(dir: &Path) -> Config {
    Config {
        data_dir: dir.join("data"),
        bookmark_interval: Duration::from_millis(200),
        ..Config::default()
    }
}

/// Open, waiting for an earlier server in this process to let go of the file.
pub(crate) async fn open(dir: &Path) -> Arc<Server> {
    open_as(config(dir)).await
}

async fn open_as(config: Config) -> Arc<Server> {
    tokio::time::timeout(DEADLINE, async {
        loop {
            match Server::open(config.clone()).await {
                Err(OpenError::InUse { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
                other => return other.unwrap(),
            }
        }
    })
    .await
    .unwrap()
}

impl Lab {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// Start with a changed configuration.
    pub(crate) async fn start_with(edit: impl FnOnce(&mut Config)) -> Self {
        Self::start_in_with(Arc::new(tempfile::tempdir().unwrap()), edit).await
    }

    pub(crate) async fn start_in_with(dir: Arc<TempDir>, edit: impl FnOnce(&mut Config)) -> Self {
        let mut config = config(dir.path());
        edit(&mut config);
        Self::serve(dir, open_as(config).await).await
    }

    pub(crate) async fn start_in(dir: Arc<TempDir>) -> Self {
        let server = open(dir.path()).await;
        Self::serve(dir, server).await
    }

    async fn serve(dir: Arc<TempDir>, server: Arc<Server>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("https://{}", listener.local_addr().unwrap());
        let shutdown = CancellationToken::new();
        let serving = tokio::spawn({
            let (server, shutdown) = (Arc::clone(&server), shutdown.clone());
            async move { server.serve(listener, shutdown).await.unwrap() }
        });
        let client = client(&server.kubeconfig(&url), |_| {}).await;
        Self {
            dir,
            server,
            client,
            url,
            shutdown,
            serving,
        }
    }

    /// Stop serving; the state stays in the directory.
    pub(crate) async fn stop(self) -> Arc<TempDir> {
        self.shutdown.cancel();
        drop(self.client);
        tokio::time::timeout(DEADLINE, self.serving)
            .await
            .unwrap()
            .unwrap();
        self.dir
    }

    pub(crate) fn shut_down(&self) {
        self.shutdown.cancel();
    }

    pub(crate) async fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Got {
        request(&self.client, method, path, body, &[]).await
    }

    pub(crate) async fn get(&self, path: &str) -> Got {
        self.request(Method::GET, path, None).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Got {
        self.request(Method::POST, path, Some(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: &Value) -> Got {
        self.request(Method::PUT, path, Some(body)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Got {
        self.request(Method::DELETE, path, None).await
    }

    pub(crate) async fn merge(&self, path: &str, body: &Value) -> Got {
        let headers = [("content-type", "application/merge-patch+json")];
        request(&self.client, Method::PATCH, path, Some(body), &headers).await
    }

    pub(crate) async fn watch(&self, path: &str) -> Lines {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = self.client.send(request).await.unwrap();
        assert_eq!(response.status(), 200);
        Lines {
            body: response.into_body(),
            buffer: Vec::new(),
        }
    }
}

pub(crate) async fn request(
    client: &kube::Client,
    method: Method,
    path: &str,
    body: Option<&Value>,
    headers: &[(&str, &str)],
) -> Got {
    let mut builder = Request::builder().method(method).uri(path);
    if !headers.iter().any(|(name, _)| *name == "content-type") {
        builder = builder.header("content-type", "application/json");
    }
    for (name, value) in headers {
        builder = builder.header(*name, *value);
    }
    let body = body.map_or_else(Body::empty, |body| {
        Body::from(body.to_string().into_bytes())
    });
    let response = client.send(builder.body(body).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let collected = tokio::time::timeout(DEADLINE, body.collect()).await;
    Got {
        code: parts.status.as_u16(),
        headers: parts.headers,
        body: collected.unwrap().unwrap().to_bytes(),
    }
}

/// A client whose kubeconfig has been changed by `edit`.
pub(crate) async fn client(kubeconfig: &str, edit: impl Fn(&mut Kubeconfig)) -> kube::Client {
    let mut kubeconfig = Kubeconfig::from_yaml(kubeconfig).unwrap();
    edit(&mut kubeconfig);
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .unwrap();
    kube::Client::try_from(config).unwrap()
}

/// The events of a watch.
pub(crate) struct Lines {
    body: Body,
    buffer: Vec<u8>,
}

impl Lines {
    /// The next event, `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        tokio::time::timeout(DEADLINE, async {
            loop {
                if let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = self.buffer.drain(..=end).collect();
                    return Some(serde_json::from_slice(&line).unwrap());
                }
                let frame = self.body.frame().await?;
                if let Ok(data) = frame.ok()?.into_data() {
                    self.buffer.extend_from_slice(&data);
                }
            }
        })
        .await
        .expect("no event came")
    }

    /// The next event that is no bookmark, as type and name.
    pub(crate) async fn event(&mut self) -> (String, String) {
        loop {
            let event = self.next().await.expect("the watch ended");
            let kind = event["type"].as_str().unwrap().to_owned();
            if kind != "BOOKMARK" {
                let name = event["object"]["metadata"]["name"].as_str();
                return (kind, name.unwrap_or_default().to_owned());
            }
        }
    }
}
