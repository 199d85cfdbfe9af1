//! A node dies under new connections: how long until all of them go through again.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use http::Method;
use portolan_agent::cluster::{ClusterConfig, load_balancer};
use portolan_benches::api::{Api, SERVICES};
use portolan_benches::figures::{figure, median, say};
use portolan_client::from_kubeconfig_text;
use portolan_kernel::netns::NetNs;
use portolan_kernel::sysctl;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, until};
use crate::objects::{self, balanced};
use crate::router::{Manner, Router};
use crate::town::{POD, Town, name};

const NODES: usize = 3;
const ROUNDS: usize = 7;
const PORT: u16 = 80;
const TARGET: u16 = 8080;
/// How long a connection may take, and the pause before the next.
const PATIENCE: Duration = Duration::from_millis(50);
const PAUSE: Duration = Duration::from_millis(2);
/// So many in a row that go through are the end of a gap.
const CALM: Duration = Duration::from_secs(1);
const LOOK: Duration = Duration::from_millis(50);
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

/// A cluster with one Service, served by one pod.
struct Small {
    town: Town,
    api: Api,
    stop: CancellationToken,
    agents: Vec<Option<Agent>>,
    address: IpAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Small {
    fn drop(&mut self) {
        // Agents first, who would ask for the API server.
        self.agents.clear();
        self.stop.cancel();
    }
}

impl Small {
    /// A cluster whose pool has these addresses, of which the first is used.
    async fn start(pool: &str, first: Ipv4Addr) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let town = Town::build(NODES).await?;
        let api = Api::start_at(folder.path(), crate::town::HUB.into()).await?;
        town.register(&api).await?;
        objects::pool(&api, pool).await?;
        api.send(0, Method::POST, SERVICES, &balanced(0)).await?;
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "pod", "labels": {"kubernetes.io/service-name": "svc-0"}},
            "addressType": "IPv4", "ports": [{"name": "", "port": TARGET, "protocol": "TCP"}],
            "endpoints": [{"addresses": [POD.to_string()], "conditions": {"ready": true}}],
        });
        api.send(0, Method::POST, SLICES, &slice).await?;
        serve(&town.pod.netns)?;
        let text = std::fs::read_to_string(&api.kubeconfig)?;
        let client = from_kubeconfig_text(&text).await?;
        let (retry, stop) = (ClusterConfig::default().retry, CancellationToken::new());
        tokio::spawn(load_balancer::run(client, retry, stop.clone()));
        let mut small = Self {
            town,
            api,
            stop,
            agents: Vec::new(),
            address: first.into(),
            _folder: folder,
        };
        for node in 0..NODES {
            let agent = small.agent(node)?;
            small.agents.push(Some(agent));
        }
        Ok(small)
    }

    fn agent(&self, node: usize) -> Result<Agent> {
        let place = self.town.nodes.get(node).context("a node")?;
        Agent::start(&place.netns, &name(node), &self.api.kubeconfig, true)
    }

    /// The nodes whose metric of this name is one.
    fn with(&self, metric: &str) -> Vec<usize> {
        let agents = self.agents.iter().enumerate();
        let with = agents.filter(|(_, agent)| {
            let told = agent.as_ref().map(|agent| agent.metric(metric));
            // Who has just been started does not answer yet.
            matches!(told, Some(Ok(Some(value))) if value >= 1.0)
        });
        with.map(|(node, _)| node).collect()
    }

    /// A node dies in a moment, and how long connections fail.
    async fn kill(&mut self, node: usize, probe: &Probe) -> Result<Duration> {
        let agent = self.agents.get_mut(node).and_then(Option::take);
        ensure!(agent.is_some(), "no agent on node {node}");
        let died = Instant::now();
        self.town.plug(node, false).await?;
        drop(agent);
        probe.gap_since(died).await
    }

    /// The node is back.
    async fn revive(&mut self, node: usize) -> Result<()> {
        self.town.plug(node, true).await?;
        let agent = self.agent(node)?;
        *self.agents.get_mut(node).context("a node")? = Some(agent);
        Ok(())
    }
}

/// Takes connections in the pod and closes them at once.
fn serve(pod: &NetNs) -> Result<()> {
    let listener = pod.run(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, TARGET)))??;
    // It ends with the process.
    thread::spawn(move || listener.incoming().for_each(drop));
    Ok(())
}

/// A client that opens connections all the time; it ends with this value.
struct Probe {
    /// When each began and ended, and whether it went through.
    tries: Arc<Mutex<Vec<(Instant, Instant, bool)>>>,
    stop: Arc<AtomicBool>,
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Probe {
    fn start(client: &NetNs, address: IpAddr) -> Self {
        let (tries, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let probe = Self {
            tries: Arc::clone(&tries),
            stop: Arc::clone(&stop),
        };
        let client = client.clone();
        thread::spawn(move || client.run(|| knock(address, &tries, &stop)));
        probe
    }

    fn tries(&self) -> Vec<(Instant, Instant, bool)> {
        let tries = self.tries.lock().unwrap_or_else(PoisonError::into_inner);
        tries.clone()
    }

    /// Waits until all has gone through for a while.
    async fn calm(&self) -> Result<()> {
        let since = Instant::now();
        until("connections that all go through", LOOK, || {
            let tries = self.tries();
            let failed = tries.iter().rev().find(|(_, _, through)| !through);
            let calm = failed.map_or(since, |(_, end, _)| (*end).max(since));
            let last = tries.last().map_or(since, |(_, end, _)| *end);
            Ok(last.saturating_duration_since(calm) >= CALM)
        })
        .await
    }

    /// How long after `died` the last connection failed.
    async fn gap_since(&self, died: Instant) -> Result<Duration> {
        self.calm().await?;
        let tries = self.tries();
        let failed = tries
            .iter()
            .filter(|(_, end, through)| !through && *end >= died);
        Ok(failed
            .map(|(_, end, _)| *end - died)
            .max()
            .unwrap_or_default())
    }
}

type Tries = Mutex<Vec<(Instant, Instant, bool)>>;

fn knock(address: IpAddr, tries: &Tries, stop: &AtomicBool) {
    let to = SocketAddr::new(address, PORT);
    while !stop.load(Ordering::Relaxed) {
        let begin = Instant::now();
        let through = TcpStream::connect_timeout(&to, PATIENCE).is_ok();
        let mut tries = tries.lock().unwrap_or_else(PoisonError::into_inner);
        tries.push((begin, Instant::now(), through));
        drop(tries);
        thread::sleep(PAUSE);
    }
}

fn tell(name: &str, gaps: &mut [f64]) {
    figure(name, median(gaps), "s");
    let worst = name.replace("_s", "_worst_s");
    figure(&worst, gaps.last().copied().unwrap_or_default(), "s");
}

/// The node dies that answers for an address on the link.
pub(crate) async fn l2() -> Result<()> {
    say("the node dies that answers ARP");
    let first = Ipv4Addr::new(10, 99, 0, 200);
    let mut small = Small::start("10.99.0.200-10.99.0.210", first).await?;
    let owns = format!("metallb_speaker_announced{{ip=\"{first}\"}}");
    let probe = Probe::start(&small.town.client.netns, small.address);
    let mut gaps = Vec::new();
    let mut leader = None;
    for _ in 0..ROUNDS {
        until("an answerer, the same as before", LOOK, || {
            let owners = small.with(&owns);
            let all = small.agents.iter().all(Option::is_some);
            let one = owners.first().copied().filter(|_| owners.len() == 1);
            let same = leader.is_none() || leader == one;
            let found = all && one.is_some() && same;
            leader = if found { one } else { leader };
            Ok(found)
        })
        .await?;
        probe.calm().await?;
        let node = leader.context("an answerer")?;
        gaps.push(small.kill(node, &probe).await?.as_secs_f64());
        small.revive(node).await?;
    }
    tell("l2_failover_s", &mut gaps);
    Ok(())
}

/// One of the nodes dies that a router spreads connections over.
pub(crate) async fn bgp(label: &str, manner: Manner) -> Result<()> {
    say(&format!("a node dies that a router sends to ({label})"));
    let first = Ipv4Addr::new(10, 64, 0, 0);
    let mut small = Small::start("10.64.0.0/24", first).await?;
    objects::router(&small.api, manner.hold, manner.bfd).await?;
    let client = small.town.client.netns.clone();
    // By ports too, so that connections of one client go to all nodes.
    sysctl::set(&client, "net.ipv4.fib_multipath_hash_policy", "1")?;
    let mut router = Router::start(&client, NODES, manner)?;
    let probe = Probe::start(&client, small.address);
    let mut gaps = Vec::new();
    for round in 0..ROUNDS {
        until("all sessions", LOOK, || {
            let mut all = true;
            for node in 0..NODES {
                all &= router.imported(&format!("node{node}"))? == Some(1);
            }
            let watched = router.ask("show bfd sessions")?.matches(" Up ").count();
            Ok(all && (!manner.bfd || watched == NODES))
        })
        .await?;
        probe.calm().await?;
        let node = round % NODES;
        gaps.push(small.kill(node, &probe).await?.as_secs_f64());
        small.revive(node).await?;
    }
    tell(&format!("bgp_failover_{label}_s"), &mut gaps);
    Ok(())
}
