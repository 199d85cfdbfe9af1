//! A server, the controllers, and kubelets that run nothing.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::StreamExt;
use portolan_agent::cluster::{self, ClusterConfig};
use portolan_apiserver::{Config, Server};
use portolan_client::{
    Client, Deletion, EVENTS, Event, NODES, PODS, Params, PatchBody, Propagation, Resource, Target,
    Writer, from_kubeconfig_text, watch,
};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(120);

pub(crate) struct Bed {
    writer: Writer,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    behaviour: ClusterConfig,
    /// Ends the controllers alone.
    controllers: CancellationToken,
    _dir: tempfile::TempDir,
}

impl Bed {
    /// A cluster with so many nodes.
    pub(crate) async fn start(nodes: usize) -> Result<Self> {
        Self::start_with(nodes, ClusterConfig::default()).await
    }

    /// The same, with controllers that behave as told.
    pub(crate) async fn start_with(nodes: usize, behaviour: ClusterConfig) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let config = Config {
            data_dir: dir.path().to_owned(),
            definitions: portolan_api::shipped::definitions()?,
            ..Config::default()
        };
        let server = Server::open(config).await?;
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let url = format!("https://{}", listener.local_addr()?);
        let shutdown = CancellationToken::new();
        let tasks = TaskTracker::new();
        let kubeconfig = server.client_config(&url);
        let stop = shutdown.clone();
        tasks.spawn(async move {
            let result = server.serve(listener, stop).await;
            assert!(result.is_ok(), "{result:?}");
        });
        let client = from_kubeconfig_text(&kubeconfig).await?;
        let mut bed = Self {
            writer: Writer::new(client.clone(), "test"),
            shutdown: shutdown.clone(),
            tasks: tasks.clone(),
            behaviour,
            controllers: CancellationToken::new(),
            _dir: dir,
        };
        for i in 1..=nodes {
            bed.node(&format!("node-{i}")).await?;
        }
        tasks.spawn(kubelets(client, shutdown));
        bed.restart_controllers();
        Ok(bed)
    }

    /// The controllers die wherever they are, and others take over.
    pub(crate) fn restart_controllers(&mut self) {
        self.controllers.cancel();
        self.controllers = self.shutdown.child_token();
        let client = self.writer.client().clone();
        let end = self.controllers.clone();
        self.tasks
            .spawn(cluster::run(client, self.behaviour.clone(), end));
    }

    pub(crate) async fn stop(self) -> Result<()> {
        self.shutdown.cancel();
        self.tasks.close();
        tokio::time::timeout(DEADLINE, self.tasks.wait())
            .await
            .context("something does not stop")
    }

    /// One more node.
    pub(crate) async fn node(&self, name: &str) -> Result<()> {
        let body = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name,
            "labels": {"topology.kubernetes.io/zone": "lab"}}});
        self.create(&NODES, "", &body).await?;
        let status = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        self.writer
            .patch_status(Target::one(&NODES, None, name), &status)
            .await?;
        Ok(())
    }

    /// Gives a node addresses.
    pub(crate) async fn addresses(&self, node: &str, addresses: &[&str]) -> Result<()> {
        let entry = |address: &&str| json!({"type": "InternalIP", "address": address});
        let addresses: Vec<Value> = addresses.iter().map(entry).collect();
        self.writer
            .patch_status(
                Target::one(&NODES, None, node),
                &json!({ "addresses": addresses }),
            )
            .await?;
        Ok(())
    }

    /// The connection underneath.
    pub(crate) fn client(&self) -> &Client {
        self.writer.client()
    }

    pub(crate) async fn create(&self, kind: &Resource, ns: &str, body: &Value) -> Result<Value> {
        let answer = self.writer.create(Target::all(kind, Some(ns)), body).await;
        answer.map_err(|e| anyhow::anyhow!("{e}: {}", e.message()))
    }

    pub(crate) async fn patch(
        &self,
        kind: &Resource,
        ns: &str,
        name: &str,
        patch: &Value,
    ) -> Result<()> {
        let target = Target::one(kind, Some(ns), name);
        let answer = self.writer.patch(target, PatchBody::Strategic(patch)).await;
        answer
            .map(|_| ())
            .map_err(|e| anyhow::anyhow!("{e}: {}", e.message()))
    }

    pub(crate) async fn delete(&self, kind: &Resource, ns: &str, name: &str) -> Result<()> {
        self.delete_as(kind, ns, name, Propagation::Background)
            .await
    }

    pub(crate) async fn delete_as(
        &self,
        kind: &Resource,
        ns: &str,
        name: &str,
        propagation: Propagation,
    ) -> Result<()> {
        let deletion = Deletion {
            propagation: Some(propagation),
            ..Deletion::default()
        };
        let answer = self
            .writer
            .delete(Target::one(kind, Some(ns), name), &deletion)
            .await;
        answer
            .map(|_| ())
            .map_err(|e| anyhow::anyhow!("{e}: {}", e.message()))
    }

    pub(crate) async fn set_ready(&self, ns: &str, pod: &str, ready: bool) -> Result<()> {
        set_ready(&self.writer, ns, pod, ready).await
    }

    /// All objects of a kind in a namespace.
    pub(crate) async fn list(&self, kind: &Resource, ns: &str) -> Result<Vec<Value>> {
        let list = self.writer.get(Target::all(kind, Some(ns))).await?;
        Ok(list["items"].as_array().cloned().unwrap_or_default())
    }

    /// Looks at all objects of a kind at each change until they are as wanted.
    pub(crate) async fn until(
        &self,
        what: &str,
        kind: &Resource,
        ns: &str,
        mut holds: impl FnMut(&[Value]) -> bool,
    ) -> Result<Vec<Value>> {
        let params = Params {
            namespace: Some(ns.to_owned()),
            ..Params::all()
        };
        let mut events = watch::<Value>(self.writer.client().clone(), kind.clone(), params);
        let deadline = tokio::time::Instant::now() + DEADLINE;
        let mut last = Vec::new();
        loop {
            match tokio::time::timeout_at(deadline, events.next()).await {
                Ok(Some(Event::Init | Event::InitItem(_))) => continue,
                Ok(Some(_)) => {}
                Ok(None) => bail!("the watch for {what} ended"),
                Err(_late) => bail!("{what} did not come: {last:#?}"),
            }
            last = self.list(kind, ns).await?;
            if holds(&last) {
                return Ok(last);
            }
        }
    }

    /// Events with this reason, as soon as there is one.
    pub(crate) async fn events_when(&self, reason: &str) -> Result<Vec<Value>> {
        let with_reason = |all: &[Value]| -> Vec<Value> {
            all.iter()
                .filter(|e| e["reason"] == reason)
                .cloned()
                .collect()
        };
        let all = self
            .until(reason, &EVENTS, "default", |all| {
                !with_reason(all).is_empty()
            })
            .await?;
        Ok(with_reason(&all))
    }

    /// How long after `doing` began an object as wanted is seen.
    pub(crate) async fn time_to(
        &self,
        kind: &Resource,
        holds: impl Fn(&Value) -> bool,
        doing: impl Future<Output = Result<()>>,
    ) -> Result<Duration> {
        let mut events = watch::<Value>(self.writer.client().clone(), kind.clone(), Params::all());
        while let Some(event) = events.next().await {
            if matches!(event, Event::InitDone { .. }) {
                break;
            }
        }
        let begin = Instant::now();
        doing.await?;
        let seen = async {
            while let Some(event) = events.next().await {
                if matches!(&event, Event::Upsert(object) if holds(object)) {
                    return Ok(begin.elapsed());
                }
            }
            bail!("the watch ended")
        };
        tokio::time::timeout(DEADLINE, seen).await?
    }
}

async fn set_ready(writer: &Writer, ns: &str, pod: &str, ready: bool) -> Result<()> {
    let status = json!({"status": {"conditions": [{
        "type": "Ready",
        "status": if ready { "True" } else { "False" },
        "lastTransitionTime": jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    }]}});
    let target = Target::one(&PODS, Some(ns), pod).subresource("status");
    writer.patch(target, PatchBody::Strategic(&status)).await?;
    Ok(())
}

/// Makes bound pods ready with an address, and lets deleted pods go.
async fn kubelets(client: Client, shutdown: CancellationToken) {
    let writer = Writer::new(client.clone(), "kubelet");
    let mut events = watch::<Value>(client, PODS.clone(), Params::all());
    let mut addresses = 0u16;
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return,
            event = events.next() => event,
        };
        let Some(Event::InitItem(pod) | Event::Upsert(pod)) = event else {
            continue;
        };
        let text = |pointer: &str| pod.pointer(pointer).and_then(Value::as_str).unwrap_or("");
        let (ns, name) = (text("/metadata/namespace"), text("/metadata/name"));
        let target = Target::one(&PODS, Some(ns), name);
        // A pod may be gone before its kubelet is done with it.
        let result = if !text("/metadata/deletionTimestamp").is_empty() {
            let now = Deletion {
                grace_seconds: Some(0),
                ..Deletion::default()
            };
            writer.delete(target, &now).await.map(|_| ())
        } else if !text("/spec/nodeName").is_empty() && text("/status/podIP").is_empty() {
            addresses += 1;
            let ip = format!("10.244.{}.{}", addresses / 250, addresses % 250 + 1);
            let status = json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]});
            let running = writer.patch_status(target, &status).await.map(|_| ());
            if running.is_ok() && set_ready(&writer, ns, name, true).await.is_err() {
                tracing::debug!(name, "gone already");
            }
            running
        } else {
            Ok(())
        };
        if let Err(error) = result {
            tracing::debug!(%error, name, "kubelet");
        }
    }
}

pub(crate) fn service(name: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name},
        "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
    })
}

pub(crate) fn deployment(name: &str, replicas: u32) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{
                    "name": name, "image": "one",
                    "ports": [{"containerPort": 8080}],
                }]},
            },
        },
    })
}
