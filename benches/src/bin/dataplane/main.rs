//! Services in the kernel: cold start, one change, the agent's memory.
//!
//! Runs itself again in a user and network namespace of its own, so it needs no
//! root and touches nothing of the host.

use std::env;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use http::{Method, Request};
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use portolan_apiserver::{Config, Server};
use portolan_benches::cluster::{self, NODE};
use portolan_benches::figures::{figure, millis, peak_memory_mb, percentile, say};
use portolan_kernel::link::Links;
use portolan_kernel::netns::NetNs;
use portolan_kernel::nft::Nft;
use portolan_nft::{Ruleset, diff_into};
use portolan_plan::renode;
use portolan_render::nft as render;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

const INSIDE: &str = "PORTOLAN_BENCH_INSIDE";
const SIZES: [usize; 2] = [1_000, 10_000];
const CHANGES: usize = 500;
const API_CHANGES: usize = 100;
const COLD_RUNS: usize = 5;
const LIMIT: Duration = Duration::from_secs(120);

fn main() -> Result<()> {
    if env::var_os(INSIDE).is_none() {
        let error = Command::new("unshare")
            .args(["-Urn", "--"])
            .arg(env::current_exe()?)
            .env(INSIDE, "1")
            .exec();
        return Err(error).context("start `unshare -Urn`: the benchmark needs user namespaces");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    for services in SIZES {
        in_process(services)?;
    }
    for services in SIZES {
        runtime.block_on(whole_agent(services))?;
    }
    Ok(())
}

/// From facts to the kernel, in this process: what the data plane itself costs.
fn in_process(services: usize) -> Result<()> {
    let size = format!("{services}x{}", cluster::ENDPOINTS);
    say(&format!(
        "data plane, {size}: from facts to the kernel, {COLD_RUNS} times cold, then {CHANGES} changes"
    ));
    let mut facts = cluster::facts(services);
    let view = cluster::view(&facts);
    let mut cold = Vec::new();
    for _ in 0..COLD_RUNS {
        let netns = NetNs::create()?;
        let mut nft = Nft::open(&netns)?;
        let begin = Instant::now();
        let plan = portolan_plan::node(&facts, &view);
        nft.commit(&diff_into(&Ruleset::new(), render::image(&plan)))?;
        cold.push(begin.elapsed());
    }
    let netns = NetNs::create()?;
    let mut nft = Nft::open(&netns)?;
    let mut plan = portolan_plan::node(&facts, &view);
    nft.commit(&diff_into(&Ruleset::new(), render::image(&plan)))?;
    let mut changes = Vec::new();
    for turn in 0..CHANGES {
        let number = turn * 7919 % services;
        let change =
            cluster::endpoint_change(number, turn / services + 1).context("an endpoint change")?;
        let begin = Instant::now();
        let dirty = facts.apply(change);
        let touched = renode(&mut plan, &facts, &view, &dirty);
        let delta = render::delta(&plan, &touched);
        nft.commit(&delta)?;
        changes.push(begin.elapsed());
        ensure!(
            !delta.is_empty(),
            "a change of Service {number} must change the kernel"
        );
    }
    figure(
        &format!("cold_{size}_s"),
        percentile(&mut cold, 0.5).as_secs_f64(),
        "s",
    );
    figure(
        &format!("change_{size}_p50_ms"),
        millis(percentile(&mut changes, 0.5)),
        "ms",
    );
    figure(
        &format!("change_{size}_p99_ms"),
        millis(percentile(&mut changes, 0.99)),
        "ms",
    );
    Ok(())
}

/// A real agent process against a real API server: start, changes, memory.
async fn whole_agent(services: usize) -> Result<()> {
    let size = format!("{services}x{}", cluster::ENDPOINTS);
    say(&format!(
        "whole agent, {size}: an API server with the objects, then an agent process against it"
    ));
    let here = NetNs::current()?;
    let links = Links::open(&here)?;
    links.set_up(links.index("lo").await?, true).await?;
    let folder = tempfile::tempdir()?;
    let api = Api::start(folder.path()).await?;
    api.fill(services).await?;
    let mut nft = Nft::open(&here)?;
    let before = nft.generation()?;
    let begin = Instant::now();
    let agent = Agent::start(&api.kubeconfig)?;
    let mut generation = wait_for_change(&mut nft, before).await?;
    let started = begin.elapsed();
    settle(&mut nft, &mut generation).await?;
    let mut changes = Vec::new();
    for turn in 0..API_CHANGES {
        let number = turn * 7919 % services;
        let path = format!(
            "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/svc-{number}-slice"
        );
        let begin = Instant::now();
        api.send(
            Method::PUT,
            &path,
            &cluster::slice(number, turn / services + 1),
        )
        .await?;
        generation = wait_for_change(&mut nft, generation).await?;
        changes.push(begin.elapsed());
    }
    let peak = peak_memory_mb(agent.0.id())?;
    drop(agent);
    api.stop.cancel();
    figure(&format!("agent_start_{size}_s"), started.as_secs_f64(), "s");
    figure(
        &format!("agent_change_{size}_p50_ms"),
        millis(percentile(&mut changes, 0.5)),
        "ms",
    );
    figure(
        &format!("agent_change_{size}_p99_ms"),
        millis(percentile(&mut changes, 0.99)),
        "ms",
    );
    figure(&format!("rss_{size}_mb"), peak, "MB");
    Ok(())
}

/// Waits for the ruleset's generation to differ from `before`.
async fn wait_for_change(nft: &mut Nft, before: u32) -> Result<u32> {
    let end = Instant::now() + LIMIT;
    loop {
        let now = nft.generation()?;
        if now != before {
            return Ok(now);
        }
        ensure!(
            Instant::now() < end,
            "the kernel did not change in {LIMIT:?}"
        );
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

/// Waits until the ruleset has been still for a while.
async fn settle(nft: &mut Nft, generation: &mut u32) -> Result<()> {
    loop {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let now = nft.generation()?;
        if now == *generation {
            return Ok(());
        }
        *generation = now;
    }
}

/// An API server inside this process.
struct Api {
    client: Client,
    kubeconfig: PathBuf,
    stop: CancellationToken,
}

impl Api {
    async fn start(folder: &Path) -> Result<Self> {
        let server = Server::open(Config {
            data_dir: folder.join("data"),
            ..Config::default()
        })
        .await?;
        let listener =
            tokio::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
        let text = server.kubeconfig(&format!("https://{}", listener.local_addr()?));
        let stop = CancellationToken::new();
        tokio::spawn(Arc::clone(&server).serve(listener, stop.clone()));
        let kubeconfig = folder.join("kubeconfig");
        std::fs::write(&kubeconfig, &text)?;
        let read = Kubeconfig::from_yaml(&text)?;
        let config =
            kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
        Ok(Self {
            client: Client::try_from(config)?,
            kubeconfig,
            stop,
        })
    }

    async fn send(&self, method: Method, path: &str, body: &Value) -> Result<()> {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("Content-Type", "application/json")
            .body(serde_json::to_vec(body)?)?;
        self.client
            .request::<Value>(request)
            .await
            .with_context(|| path.to_owned())?;
        Ok(())
    }

    async fn fill(&self, services: usize) -> Result<()> {
        self.send(Method::POST, "/api/v1/nodes", &cluster::node())
            .await?;
        let status = format!("/api/v1/nodes/{NODE}/status");
        self.send(Method::PUT, &status, &cluster::node()).await?;
        let begin = Instant::now();
        let writes = (0..services).flat_map(|n| {
            [
                ("/api/v1/namespaces/default/services", cluster::service(n)),
                (
                    "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices",
                    cluster::slice(n, 0),
                ),
            ]
        });
        let mut running = futures::stream::iter(writes)
            .map(|(path, body)| async move { self.send(Method::POST, path, &body).await })
            .buffer_unordered(64);
        while let Some(done) = running.next().await {
            done?;
        }
        say(&format!(
            "{} objects created in {:.1} s",
            2 * services,
            begin.elapsed().as_secs_f64()
        ));
        Ok(())
    }
}

/// An agent process; dropping it ends it.
struct Agent(Child);

impl Agent {
    fn start(kubeconfig: &Path) -> Result<Self> {
        let portolan = env::current_exe()?.with_file_name("portolan");
        let child = Command::new(&portolan)
            .args(["agent", "--node-name", NODE, "--kubeconfig"])
            .arg(kubeconfig)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| {
                format!(
                    "start {}: `cargo build --release` makes it",
                    portolan.display()
                )
            })?;
        Ok(Self(child))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if self.0.kill().is_ok() {
            // Its exit status is that of a kill and says nothing.
            drop(self.0.wait());
        }
    }
}
