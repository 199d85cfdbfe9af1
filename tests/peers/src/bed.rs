//! Whole agents on one bridge, with an API server: each is a process, which can be
//! asked to end and killed.
//!
//! The API server listens at the loopback address of the test's own namespace, where
//! the agents run; their packet sockets and heartbeats are in the namespaces of the
//! nodes. So a node can be cut off from its neighbours alone.

use std::fs;
use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use portolan_agent::announce::{self, AnnounceConfig, AnnounceTold, HEARTBEAT_PORT};
use portolan_announce::election::leader;
use portolan_apiserver::{Config, Server};
use portolan_client::{
    ADDRESS_POOLS, NODES, PatchBody, Resource, SERVICES, Target, Writer, from_kubeconfig_text,
};
use portolan_kernel::link::Links;
use portolan_kernel::netns::NetNs;
use portolan_testkit::namespace::inside_as_somebody;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::segment::Segment;
use crate::until;

/// Set in the process that is an agent: its node, the namespace of that, and where to
/// find the API server.
const AGENT: &str = "PORTOLAN_TEST_AGENT";
/// The namespace of Services.
pub const NS: Option<&str> = Some("default");

/// Whether the caller is the test of this name, in a user namespace of its own. If not,
/// that has been run, or this was the process of an agent, which has ended.
///
/// # Panics
/// If the test fails there.
pub fn inside(test: &str) -> bool {
    if !inside_as_somebody(test) {
        return false;
    }
    match std::env::var(AGENT) {
        Ok(words) => {
            announces(&words).expect("an agent");
            false
        }
        Err(_) => true,
    }
}

/// Is an agent until it is asked to end.
fn announces(words: &str) -> Result<()> {
    // Who started it may be killed.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL)?;
    let mut words = words.split(' ');
    let mut word = || words.next().context("three words");
    let (node, netns, kubeconfig) = (word()?, word()?, word()?);
    runtime()?.block_on(async {
        let config = AnnounceConfig {
            node: node.to_owned(),
            netns: NetNs::open(Path::new(netns))?,
            client: from_kubeconfig_text(&fs::read_to_string(kubeconfig)?).await?,
            namespace: "kube-system".to_owned(),
            heartbeat_port: HEARTBEAT_PORT,
            heartbeat_key: Some(b"of these nodes alone".to_vec()),
            told: AnnounceTold::default(),
        };
        let mut ends = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let stop = CancellationToken::new();
        let agent = tokio::spawn(announce::run(config, stop.clone()));
        ends.recv().await;
        stop.cancel();
        Ok(agent.await?)
    })
}

fn runtime() -> Result<Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    Ok(builder.worker_threads(1).enable_all().build()?)
}

/// Nodes on a bridge, a client, and an API server.
pub struct Bed {
    /// The nodes, and the client.
    pub segment: Segment,
    /// How many nodes there are.
    pub nodes: u8,
    test: String,
    runtime: Runtime,
    writer: Writer,
    kubeconfig: PathBuf,
    /// The nodes' namespaces, which agents open.
    held: Vec<OwnedFd>,
    _folder: tempfile::TempDir,
}

/// The agent of a node.
pub struct Agent {
    /// Its node.
    pub node: u8,
    child: Child,
}

/// The name of a node.
#[must_use]
pub fn name(node: u8) -> String {
    format!("n{node}")
}

/// Says what was measured.
pub fn say(words: &str) {
    let said = writeln!(std::io::stderr(), "{words}");
    drop(said);
}

impl Bed {
    /// An API server with so many nodes, and a pool of addresses on their network.
    ///
    /// # Errors
    /// If something does not come up.
    pub fn new(test: &str, nodes: u8) -> Result<Self> {
        let segment = Segment::new(nodes)?;
        let runtime = runtime()?;
        let folder = tempfile::tempdir()?;
        let config = Config {
            data_dir: folder.path().join("data"),
            definitions: portolan_api::shipped::definitions()?,
            ..Config::default()
        };
        let (client, text) = runtime.block_on(async {
            let links = Links::open(&NetNs::current()?)?;
            links.set_up(links.index("lo").await?, true).await?;
            let server = Server::open(config).await?;
            let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            let url = format!("https://{}", listener.local_addr()?);
            let text = server.client_config(&url);
            tokio::spawn(server.serve(listener, CancellationToken::new()));
            anyhow::Ok((from_kubeconfig_text(&text).await?, text))
        })?;
        let kubeconfig = folder.path().join("kubeconfig");
        fs::write(&kubeconfig, text)?;
        let held = segment.places.iter().map(|(ns, _)| ns.try_clone_fd());
        let bed = Self {
            nodes,
            test: test.to_owned(),
            runtime,
            writer: Writer::new(client, "test"),
            kubeconfig,
            held: held.collect::<std::io::Result<_>>()?,
            segment,
            _folder: folder,
        };
        for node in 1..=nodes {
            bed.node(node)?;
        }
        let pool = json!({
            "apiVersion": "portolan.dev/v1alpha1", "kind": "AddressPool",
            "metadata": {"name": "home"},
            "spec": {"addresses": ["192.0.2.128/25", "2001:db8::1:0/112"]},
        });
        bed.create(&ADDRESS_POOLS, None, &pool)?;
        Ok(bed)
    }

    fn node(&self, node: u8) -> Result<()> {
        let name = name(node);
        let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}});
        self.create(&NODES, None, &object)?;
        let status = json!({"status": {
            "addresses": [{"type": "InternalIP", "address": format!("192.0.2.{node}")}],
            "conditions": [{"type": "Ready", "status": "True"}],
        }});
        self.patch(
            Target::one(&NODES, None, &name).subresource("status"),
            &status,
        )
    }

    /// A Service that has been given these addresses.
    ///
    /// # Errors
    /// If the API server refuses it.
    pub fn service(&self, name: &str, addresses: &[IpAddr]) -> Result<()> {
        let service = json!({
            "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {
                "type": "LoadBalancer", "selector": {"app": name},
                "ports": [{"port": 80, "protocol": "TCP"}],
            },
        });
        self.create(&SERVICES, NS, &service)?;
        let ingress: Vec<Value> = addresses.iter().map(|ip| json!({"ip": ip})).collect();
        let status = json!({"status": {"loadBalancer": {"ingress": ingress}}});
        self.patch(
            Target::one(&SERVICES, NS, name).subresource("status"),
            &status,
        )
    }

    /// Makes an object.
    ///
    /// # Errors
    /// If the API server refuses it.
    pub fn create(&self, resource: &Resource, namespace: Option<&str>, body: &Value) -> Result<()> {
        let target = Target::all(resource, namespace);
        self.runtime.block_on(self.writer.create(target, body))?;
        Ok(())
    }

    /// Changes an object by a merge patch.
    ///
    /// # Errors
    /// If the API server refuses it.
    pub fn patch(&self, target: Target<'_>, body: &Value) -> Result<()> {
        let patch = PatchBody::Merge(body);
        self.runtime.block_on(self.writer.patch(target, patch))?;
        Ok(())
    }

    /// Reads an object, or a list of them.
    ///
    /// # Errors
    /// If the API server refuses it.
    pub fn get(&self, target: Target<'_>) -> Result<Value> {
        Ok(self.runtime.block_on(self.writer.get(target))?)
    }

    /// Starts the agent of a node.
    ///
    /// # Errors
    /// If the process cannot be started.
    pub fn agent(&self, node: u8) -> Result<Agent> {
        let held = self.held.get(usize::from(node - 1)).context("a node")?;
        let netns = format!("/proc/{}/fd/{}", std::process::id(), held.as_raw_fd());
        let words = format!("{} {netns} {}", name(node), self.kubeconfig.display());
        let child = Command::new(std::env::current_exe()?)
            .args([&self.test, "--exact", "--nocapture", "--test-threads=1"])
            .env(AGENT, words)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()?;
        Ok(Agent { node, child })
    }

    /// Starts the agents of all nodes.
    ///
    /// # Errors
    /// If a process cannot be started.
    pub fn agents(&self) -> Result<Vec<Agent>> {
        (1..=self.nodes).map(|node| self.agent(node)).collect()
    }

    /// The node that should answer for an address, of all but these.
    #[must_use]
    pub fn leader(&self, address: IpAddr, without: &[u8]) -> u8 {
        let nodes = (1..=self.nodes).filter(|node| !without.contains(node));
        let names: Vec<String> = nodes.map(name).collect();
        let leads = leader(address, names.iter().map(String::as_str));
        let found = (1..=self.nodes).find(|node| leads == Some(&name(*node)));
        found.unwrap_or(0)
    }

    /// What the kernel says of a node's network: a file of `/proc/net`.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn proc_net(&self, node: u8, file: &str) -> Result<String> {
        let (ns, _) = self.segment.place(node)?;
        let path = format!("/proc/thread-self/net/{file}");
        Ok(ns.run(|| fs::read_to_string(path))??)
    }

    /// Waits until an agent of a node holds nothing of its network any more: no packet
    /// socket, and none of these groups.
    ///
    /// # Panics
    /// If that does not come.
    pub fn nothing_stays(&self, node: u8, address: IpAddr) {
        until("an agent that holds nothing", || {
            let packets = self.proc_net(node, "packet").ok()?;
            let groups = self.proc_net(node, "igmp6").ok()?;
            let group = group_of(address);
            let joined = group.is_some_and(|group| groups.contains(&group));
            (packets.lines().count() == 1 && !joined).then_some(())
        });
    }
}

/// The solicited-node group of an address, as the kernel lists it.
#[must_use]
pub fn group_of(address: IpAddr) -> Option<String> {
    let IpAddr::V6(address) = address else {
        return None;
    };
    let group = portolan_announce::l2::ndp::solicited_node(address);
    Some(format!("{:032x}", group.to_bits()))
}

impl Agent {
    /// Ends as an agent does that is asked to.
    ///
    /// # Errors
    /// If it ends otherwise.
    pub fn end(mut self) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().try_into()?);
        kill(pid, Signal::SIGTERM)?;
        let status = until("an agent to end", || self.child.try_wait().ok().flatten());
        anyhow::ensure!(status.success(), "the agent of n{}: {status}", self.node);
        Ok(())
    }

    /// Stops the process, or lets it go on.
    ///
    /// # Errors
    /// If it is gone.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().try_into()?);
        let signal = if frozen {
            Signal::SIGSTOP
        } else {
            Signal::SIGCONT
        };
        Ok(kill(pid, signal)?)
    }

    /// Dies without a word (kill -9).
    pub fn die(self) {
        drop(self);
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let killed = self.child.kill().and_then(|()| self.child.wait());
        drop(killed);
    }
}
