//! Addresses for many Services: the controller against the API server, and the same
//! writes from a plain client.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::future::try_join_all;
use http::Method;
use http_body_util::BodyExt as _;
use hyper::body::Bytes;
use portolan_agent::cluster::ClusterConfig;
use portolan_agent::cluster::load_balancer;
use portolan_benches::api::{Api, SERVICES};
use portolan_benches::figures::{figure, millis, percentile, say};
use portolan_benches::http::Connection;
use portolan_client::from_kubeconfig_text;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::agent::LIMIT;
use crate::objects::{self, balanced, unserved};
use crate::town::{HUB, pool_address};

/// Services that come one by one.
pub(crate) const CHANGES: usize = 100;
/// As many writes as the controller has under way.
const IN_FLIGHT: usize = 64;
/// What only a Service with an address has.
const ADDRESS: &[u8] = b"\"ingress\":[";

/// When Services got their addresses.
#[derive(Default)]
struct Given {
    times: Mutex<Vec<Instant>>,
    some: Notify,
}

impl Given {
    fn count(&self) -> usize {
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.len()
    }

    /// When Service number `many`, counted from one, had its own; none if it has not.
    fn of(&self, many: usize) -> Option<Instant> {
        let times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        many.checked_sub(1)
            .and_then(|last| times.get(last))
            .copied()
    }

    /// When so many Services had theirs.
    async fn when(&self, many: usize) -> Result<Instant> {
        let last = async {
            loop {
                let more = self.some.notified();
                if let Some(at) = self.of(many) {
                    return at;
                }
                more.await;
            }
        };
        let waited = tokio::time::timeout(LIMIT, last).await;
        waited.with_context(|| format!("{} of {many} Services got an address", self.count()))
    }
}

/// Watches Services; each is written once with an address.
async fn watch(api: &Api) -> Result<Arc<Given>> {
    let connection = api.target.connect("bench-watch/1").await?;
    let path = format!(
        "{SERVICES}?watch=true&resourceVersion=0&sendInitialEvents=false&resourceVersionMatch=NotOlderThan"
    );
    let answer = connection
        .send(Method::GET, &path, Bytes::new(), false)
        .await?;
    ensure!(answer.status() == 200, "{path}: {}", answer.status());
    let given = Arc::new(Given::default());
    let seen = Arc::clone(&given);
    drop(tokio::spawn(async move {
        let (mut body, _connection) = (answer.into_body(), connection);
        let mut rest: Vec<u8> = Vec::new();
        while let Some(Ok(frame)) = body.frame().await {
            let Some(data) = frame.data_ref() else {
                continue;
            };
            rest.extend_from_slice(data);
            let Some(end) = rest.iter().rposition(|byte| *byte == b'\n') else {
                continue;
            };
            let lines = rest.get(..end).unwrap_or_default();
            let lines = lines.split(|byte| *byte == b'\n');
            let with = lines.filter(|line| line.windows(ADDRESS.len()).any(|part| part == ADDRESS));
            let (count, now) = (with.count(), Instant::now());
            rest.drain(..=end);
            let mut times = seen.times.lock().unwrap_or_else(PoisonError::into_inner);
            times.extend(std::iter::repeat_n(now, count));
            drop(times);
            seen.some.notify_waiters();
        }
    }));
    Ok(given)
}

/// An API server with a pool, Services that have their addresses, and the controller;
/// which ends with this value.
pub(crate) struct Cluster {
    pub(crate) api: Api,
    size: usize,
    given: Arc<Given>,
    stop: CancellationToken,
    _folder: tempfile::TempDir,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Creates so many Services, lets the controller give them addresses, and says how long
/// that took.
pub(crate) async fn run(size: usize) -> Result<(Cluster, Duration)> {
    let folder = tempfile::tempdir()?;
    let api = Api::start_at(folder.path(), HUB.into()).await?;
    objects::pool(&api, "10.64.0.0/16").await?;
    api.services(size, balanced).await?;
    let given = watch(&api).await?;
    let before = given.count();
    ensure!(before == 0, "{before} Services have an address too early");
    let text = std::fs::read_to_string(&api.kubeconfig)?;
    let client = from_kubeconfig_text(&text).await?;
    let (retry, stop) = (ClusterConfig::default().retry, CancellationToken::new());
    let begin = Instant::now();
    tokio::spawn(load_balancer::run(client, retry, stop.clone()));
    let took = given.when(size).await? - begin;
    let cluster = Cluster {
        api,
        size,
        given,
        stop,
        _folder: folder,
    };
    cluster.check().await?;
    Ok((cluster, took))
}

impl Cluster {
    /// Each Service has an address that no other one has, and the first ones of the
    /// pool are in use.
    async fn check(&self) -> Result<()> {
        let connection = self.api.target.connect("bench-list/1").await?;
        let list = connection.call(Method::GET, SERVICES, Bytes::new()).await?;
        let list: Value = serde_json::from_slice(&list)?;
        let items = list["items"].as_array().context("a list")?;
        let addresses = items.iter().filter_map(|service| {
            let ip = &service["status"]["loadBalancer"]["ingress"][0]["ip"];
            ip.as_str()?.parse().ok()
        });
        let addresses: std::collections::BTreeSet<std::net::IpAddr> = addresses.collect();
        ensure!(
            addresses.len() == self.size,
            "{} addresses",
            addresses.len()
        );
        let last = addresses.last().context("an address")?;
        ensure!(*last == pool_address(self.size - 1)?, "{last} is in use");
        Ok(())
    }

    /// One Service more.
    pub(crate) async fn add(&mut self) -> Result<()> {
        let service = balanced(self.size);
        self.size += 1;
        self.api.send(0, Method::POST, SERVICES, &service).await
    }

    /// How many Services there are.
    pub(crate) fn size(&self) -> usize {
        self.size
    }

    /// One Service after another: from the start of its creation until a watcher sees
    /// its address.
    pub(crate) async fn changes(&mut self, name: &str) -> Result<()> {
        let mut samples = Vec::new();
        for _ in 0..CHANGES {
            let begin = Instant::now();
            self.add().await?;
            samples.push(self.given.when(self.size).await?.duration_since(begin));
        }
        for (percent, share) in [("p50", 0.5), ("p99", 0.99)] {
            let value = millis(percentile(&mut samples, share));
            figure(&format!("allocate_change_{name}_{percent}_ms"), value, "ms");
        }
        Ok(())
    }
}

/// The writes that the controller makes for so many Services, by a plain client with as
/// many under way, for Services that nobody else serves.
pub(crate) async fn bare(size: usize, folder: &Path) -> Result<Duration> {
    say("the same writes by a plain client");
    let api = Api::start_at(folder, HUB.into()).await?;
    api.services(size, unserved).await?;
    let connection = api.target.connect("bench-bare/1").await?;
    let next = Arc::new(AtomicUsize::new(0));
    let begin = Instant::now();
    let workers = (0..IN_FLIGHT).map(|_| {
        let (connection, next) = (connection.clone(), Arc::clone(&next));
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= size {
                    return anyhow::Ok(());
                }
                give(&connection, number).await?;
            }
        })
    });
    for worker in try_join_all(workers).await? {
        worker?;
    }
    Ok(begin.elapsed())
}

async fn give(connection: &Connection, number: usize) -> Result<()> {
    let path = format!("{SERVICES}/svc-{number}");
    let finalizers = ["service.kubernetes.io/load-balancer-cleanup"];
    let body = json!({"metadata": {"finalizers": finalizers}});
    connection.patch(&path, &body).await?;
    let body = json!({"status": {
        "loadBalancer": {"ingress": [{"ip": pool_address(number)?.to_string(), "ipMode": "VIP"}]},
        "conditions": [{
            "type": "portolan.dev/AddressAssigned", "status": "True", "reason": "Assigned",
            "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
    }});
    connection.patch(&format!("{path}/status"), &body).await?;
    Ok(())
}
