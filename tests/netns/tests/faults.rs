//! Faults of a node while everything changes: its agent is killed, its tables are
//! taken away. Afterwards the kernel holds the plan, and open connections live.

mod site;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use portolan_client::facts::facts;
use portolan_conformance::tools;
use portolan_kernel::nft::Nft;
use portolan_lab::addresses;
use portolan_model::{Change, Cluster, Family, Kind, ServiceKey};
use portolan_netns::facts::{PORT, cluster_ip};
use portolan_netns::talk::{Open, PATIENCE, connect};
use portolan_netns::town::{B, in_town};
use portolan_netns::world::{World, lab_view};
use portolan_nft::{Ruleset, diff};
use portolan_plan::{NodeView, node};
use portolan_render::nft as render;
use proptest::prelude::RngExt;
use proptest::test_runner::{RngAlgorithm, TestRng};
use serde_json::{Value, json};
use site::door::Door;
use site::running::held;
use site::{Api, of_pod};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// How often the agent is killed.
const KILLS: usize = 100;
/// For how long the API server is away.
const AWAY: Duration = Duration::from_secs(60);
/// How often our tables are taken away.
const THEFTS: usize = 10;
/// The Service that nothing happens to.
const STEADY: u8 = 101;
/// The Services that change all the time have the addresses after it.
const STORM: u8 = 20;

/// The agent as a process in the first node's namespace; dropping it kills it.
struct Agent(Child);

impl Agent {
    fn start(world: &World, kubeconfig: &std::path::Path) -> Result<Self> {
        let net = &world.nodes[0].net;
        let mut command = Command::new(tools::portolan()?);
        command
            .args([
                "agent",
                "--serve-dns",
                "--state-dir=",
                "--node-name",
                &net.name,
                "--kubeconfig",
            ])
            .arg(kubeconfig)
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        for range in addresses::all_pods() {
            command.args(["--cluster-cidr", &range.to_string()]);
        }
        for range in addresses::services() {
            command.args(["--service-cidr", &range.to_string()]);
        }
        let child = net
            .netns
            .run(|| command.spawn())?
            .context("start an agent")?;
        Ok(Self(child))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // kill -9; an agent that ended by itself would be a fault of its own.
        assert!(self.0.kill().is_ok() && self.0.wait().is_ok());
    }
}

/// Changes that never end: Services come, move and go.
struct Storm {
    stop: Arc<AtomicBool>,
    changes: Arc<AtomicUsize>,
    work: tokio::task::JoinHandle<Result<()>>,
}

impl Storm {
    fn start(api: &Arc<Api>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let changes = Arc::new(AtomicUsize::new(0));
        let work = {
            let (api, stop, changes) = (Arc::clone(api), Arc::clone(&stop), Arc::clone(&changes));
            async move {
                let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
                let mut there = [false; STORM as usize];
                while !stop.load(Ordering::Relaxed) {
                    let at = rng.random_range(0..STORM);
                    let name = format!("storm-{at}");
                    let there = &mut there[usize::from(at)];
                    if !*there {
                        let count = rng.random_range(0..6);
                        api.service(&name, STEADY + 1 + at, &made_up(&mut rng, count))
                            .await?;
                        *there = true;
                    } else if rng.random_range(0..8) == 0 {
                        api.remove(&name).await?;
                        *there = false;
                    } else {
                        let count = rng.random_range(0..6);
                        api.serve(&name, &made_up(&mut rng, count)).await?;
                    }
                    changes.fetch_add(1, Ordering::Relaxed);
                }
                Ok(())
            }
        };
        Self {
            work: tokio::spawn(work),
            stop,
            changes,
        }
    }

    /// Ends it; returns how many changes there were.
    async fn end(self) -> Result<usize> {
        self.stop.store(true, Ordering::Relaxed);
        timeout(PATIENCE, self.work).await???;
        Ok(self.changes.load(Ordering::Relaxed))
    }
}

/// Endpoints of the pods' range which nobody has: they are only programmed.
fn made_up(rng: &mut TestRng, count: u8) -> Value {
    let first: u8 = rng.random_range(1..200);
    let endpoint = |n: u8| json!({"addresses": [format!("10.244.77.{}", first + n)]});
    (0..count).map(endpoint).collect()
}

/// The image of what the API server holds now.
async fn wanted(api: &Api, world: &World) -> Result<Ruleset> {
    let stop = CancellationToken::new();
    let mut stream = facts(api.kube.clone(), &Kind::ALL, stop.clone());
    let mut cluster = Cluster::default();
    let mut awaited = Kind::ALL.to_vec();
    while !awaited.is_empty() {
        let next = timeout(PATIENCE, stream.recv()).await?;
        let next = next.context("the facts ended")?;
        if let Change::Replace(kind, _) = &next.change {
            awaited.retain(|other| other != kind);
        }
        cluster.apply(next.change);
    }
    stop.cancel();
    let dns = cluster.service(&ServiceKey::new("kube-system", "kube-dns"));
    let view = NodeView {
        dns_addresses: dns.context("names")?.cluster_ips.clone(),
        node: world.nodes[0].net.name.as_str().into(),
        ..lab_view()
    };
    let view = view.observed(&cluster);
    Ok(render::image(&node(&cluster, &view)))
}

/// Waits until the kernel holds what the API server's objects mean; returns for
/// how long.
async fn settled(api: &Api, world: &World) -> Result<Duration> {
    let start = Instant::now();
    let wanted = wanted(api, world).await?;
    let mut nft = Nft::open(&world.nodes[0].net.netns)?;
    while held(&mut nft)? != wanted {
        ensure!(
            start.elapsed() < PATIENCE,
            "the kernel does not hold the plan:\n{:?}",
            diff(&held(&mut nft)?, &wanted)
        );
        sleep(Duration::from_millis(10)).await;
    }
    Ok(start.elapsed())
}

async fn open(world: &World) -> Result<Open> {
    let to = SocketAddr::new(cluster_ip(Family::V4, STEADY), PORT);
    Ok(connect(world.namespace(B), world.port(), to).await??)
}

/// Waits until the steady Service answers; returns for how long.
async fn until_answered(world: &World) -> Result<Duration> {
    /// Longer than a connection takes, shorter than its second packet waits.
    const ATTEMPT: Duration = Duration::from_millis(200);
    let start = Instant::now();
    while !matches!(timeout(ATTEMPT, open(world)).await, Ok(Ok(_))) {
        ensure!(start.elapsed() < PATIENCE, "nobody answers any more");
    }
    Ok(start.elapsed())
}

/// An API server with the steady Service, the file that leads to it, and a first
/// agent, which has programmed it.
async fn begin(world: &World) -> Result<(Arc<Api>, tempfile::NamedTempFile, Agent)> {
    let api = Arc::new(Api::new(world).await?);
    api.service("steady", STEADY, &of_pod(world, 2)).await?;
    let kubeconfig = tempfile::NamedTempFile::new()?;
    std::fs::write(kubeconfig.path(), &api.kubeconfig)?;
    let agent = Agent::start(world, kubeconfig.path())?;
    settled(&api, world).await?;
    Ok((api, kubeconfig, agent))
}

/// 100 times kill -9 at any moment of a storm of changes: each time the next agent
/// goes on from what it finds.
#[test]
fn p21_an_agent_that_is_killed_breaks_nothing() {
    in_town(
        "p21_an_agent_that_is_killed_breaks_nothing",
        async |world| {
            let (api, kubeconfig, mut agent) = begin(&world).await?;
            let mut long = open(&world).await?;
            let storm = Storm::start(&api);
            let mut rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
            for kill in 0..KILLS {
                sleep(Duration::from_micros(rng.random_range(0..150_000))).await;
                drop(agent);
                long.echo("killed")
                    .await
                    .with_context(|| format!("kill {kill}"))?;
                open(&world).await?.echo("no agent").await?;
                agent = Agent::start(&world, kubeconfig.path())?;
            }
            let changes = storm.end().await?;
            assert!(changes > KILLS, "only {changes} changes");
            settled(&api, &world).await?;
            long.echo("the end").await?;
            open(&world).await?.echo("the end").await
        },
    );
}

/// The API server is away while everything changes: the node goes on serving what
/// it knows, and holds the newest plan soon after the server is back.
#[test]
fn p21_an_api_server_that_is_away_breaks_nothing() {
    in_town(
        "p21_an_api_server_that_is_away_breaks_nothing",
        async |world| {
            let api = Arc::new(Api::new(&world).await?);
            api.service("steady", STEADY, &of_pod(&world, 2)).await?;
            let mut door = Door::new(&world, api.port)?;
            door.open()?;
            let kubeconfig = tempfile::NamedTempFile::new()?;
            let by_door = api
                .kubeconfig
                .replace(&format!(":{}", api.port), &format!(":{}", door.at.port()));
            std::fs::write(kubeconfig.path(), by_door)?;
            let agent = Agent::start(&world, kubeconfig.path())?;
            settled(&api, &world).await?;
            let mut long = open(&world).await?;
            let storm = Storm::start(&api);
            door.close().await;
            let end = Instant::now() + AWAY;
            while Instant::now() < end {
                long.echo("away").await?;
                open(&world).await?.echo("away").await?;
                sleep(Duration::from_millis(100)).await;
            }
            let changes = storm.end().await?;
            assert!(changes > 20, "only {changes} changes");
            let stale = wanted(&api, &world).await?;
            let mut nft = Nft::open(&world.nodes[0].net.netns)?;
            assert!(held(&mut nft)? != stale, "the door is open");
            door.open()?;
            settled(&api, &world).await?;
            long.echo("back").await?;
            open(&world).await?.echo("back").await?;
            drop(agent);
            Ok(())
        },
    );
}

/// Our tables are deleted under load: they are back within a second, and
/// connections go on.
#[test]
fn p21_tables_that_somebody_deletes_come_back() {
    in_town(
        "p21_tables_that_somebody_deletes_come_back",
        async |world| {
            let (api, _kubeconfig, agent) = begin(&world).await?;
            let mut long = open(&world).await?;
            let storm = Storm::start(&api);
            let mut nft = Nft::open(&world.nodes[0].net.netns)?;
            let theft = diff(&world.nodes[0].rig.ruleset, &Ruleset::new());
            let mut gaps = Vec::new();
            for _ in 0..THEFTS {
                nft.commit(&theft)?;
                gaps.push(until_answered(&world).await?);
                long.echo("back").await?;
            }
            // Where many wait for two processors, some of them take longer.
            gaps.sort_unstable();
            let quick = gaps[THEFTS / 4];
            assert!(quick < Duration::from_secs(1), "repaired after {gaps:?}");
            storm.end().await?;
            settled(&api, &world).await?;
            long.echo("the end").await?;
            drop(agent);
            Ok(())
        },
    );
}
