//! Three nodes with whole agents (the program, as users start it), an API server, a
//! router, and a Service of type LoadBalancer that a server on every node stands behind.

use std::fs::File;
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use portolan_apiserver::{Config, Server};
use portolan_client::{
    ADDRESS_POOLS, BGP_ANNOUNCEMENTS, BGP_PEERS, ENDPOINT_SLICES, EVENTS, NODES, PatchBody,
    Resource, SERVICES, Target, Writer, from_kubeconfig_text,
};
use portolan_kernel::link::Links;
use portolan_kernel::netns::NetNs;
use portolan_kernel::sysctl;
use portolan_peers::segment::Segment;
use portolan_peers::until;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

/// How many nodes there are; the router is the one after them, the API server the next.
pub(crate) const NODES_COUNT: u8 = 3;
/// The router's address.
pub(crate) const ROUTER: &str = "192.0.2.4";
const API: u8 = 5;
/// The port of the servers on the nodes.
const SERVED: u16 = 8080;
const NS: Option<&str> = Some("default");
/// How long a process may take to end.
const END: Duration = Duration::from_secs(60);

/// All of it.
pub(crate) struct Site {
    pub(crate) segment: Segment,
    runtime: Runtime,
    writer: Writer,
    folder: tempfile::TempDir,
    agents: Vec<Option<Child>>,
    _servers: Vec<Served>,
}

/// Servers of a node that say its number, until this is dropped.
struct Served {
    over: Arc<AtomicBool>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn program() -> Result<PathBuf> {
    let path = std::env::var_os("PORTOLAN_BIN").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/debug/portolan"),
        PathBuf::from,
    );
    ensure!(
        path.is_file(),
        "{} is missing: cargo build makes it",
        path.display()
    );
    Ok(path)
}

impl Site {
    /// Without agents yet, and without peers.
    pub(crate) fn new() -> Result<Self> {
        let segment = Segment::new(NODES_COUNT)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()?;
        let folder = tempfile::tempdir()?;
        let config = Config {
            data_dir: folder.path().join("api"),
            definitions: portolan_api::shipped::definitions()?,
            extra_sans: vec![format!("192.0.2.{API}")],
            ..Config::default()
        };
        let (client, kubeconfig) = runtime.block_on(async {
            segment.join(API).await?;
            let server = Server::open(config).await?;
            let listener = tokio::net::TcpListener::bind(("0.0.0.0", 0)).await?;
            let url = format!("https://192.0.2.{API}:{}", listener.local_addr()?.port());
            let kubeconfig = server.client_config(&url);
            tokio::spawn(server.serve(listener, CancellationToken::new()));
            let client = from_kubeconfig_text(&kubeconfig).await?;
            anyhow::Ok((client, kubeconfig))
        })?;
        std::fs::write(folder.path().join("kubeconfig"), kubeconfig)?;
        let mut site = Self {
            segment,
            writer: Writer::new(client, "test"),
            runtime,
            folder,
            agents: (1..=NODES_COUNT).map(|_| None).collect(),
            _servers: Vec::new(),
        };
        site.nodes()?;
        site.service()?;
        Ok(site)
    }

    /// The namespace of a node, counted from one; the router's comes after them.
    pub(crate) fn place(&self, number: u8) -> Result<&NetNs> {
        let place = self.segment.places.get(usize::from(number - 1));
        Ok(&place.context("a place")?.0)
    }

    fn nodes(&mut self) -> Result<()> {
        for n in 1..=NODES_COUNT {
            let name = format!("n{n}");
            let rack = if n == 1 { "a" } else { "b" };
            let node = json!({
                "apiVersion": "v1", "kind": "Node",
                "metadata": {"name": name, "labels": {"rack": rack}},
            });
            self.create(&NODES, None, &node)?;
            self.addresses(n, &[format!("192.0.2.{n}"), format!("2001:db8::{n}")])?;
            let ns = self.place(n)?.clone();
            // A link that was down has its addresses when it is up again.
            sysctl::set(&ns, "net.ipv6.conf.link.keep_addr_on_down", "1")?;
            self.runtime.block_on(async {
                let links = Links::open(&ns)?;
                links.set_up(links.index("lo").await?, true).await?;
                anyhow::Ok(())
            })?;
            self._servers.push(serve(&ns, n)?);
        }
        let router = self.place(NODES_COUNT + 1)?;
        // Paths are chosen by ports too.
        for name in [
            "net.ipv4.fib_multipath_hash_policy",
            "net.ipv6.fib_multipath_hash_policy",
        ] {
            sysctl::set(router, name, "1")?;
        }
        let router = router.clone();
        self.runtime.block_on(async {
            let links = Links::open(&router)?;
            links.set_up(links.index("lo").await?, true).await?;
            anyhow::Ok(())
        })
    }

    /// A node has these addresses, as far as the cluster knows.
    pub(crate) fn addresses(&self, node: u8, addresses: &[String]) -> Result<()> {
        let addresses = addresses.iter();
        let addresses = addresses.map(|ip| json!({"type": "InternalIP", "address": ip}));
        let status = json!({"status": {
            "addresses": addresses.collect::<Vec<Value>>(),
            "conditions": [{"type": "Ready", "status": "True"}],
        }});
        let name = format!("n{node}");
        let target = Target::one(&NODES, None, &name);
        self.patch(target.subresource("status"), &status)
    }

    /// A Service whose addresses are of a pool, `Local` since that tells the nodes apart.
    fn service(&self) -> Result<()> {
        let pool = json!({
            "apiVersion": "portolan.dev/v1alpha1", "kind": "AddressPool",
            "metadata": {"name": "home"},
            "spec": {"addresses": ["198.51.100.0/24", "2001:db8:1::/120"]},
        });
        self.create(&ADDRESS_POOLS, None, &pool)?;
        let service = json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "labels": {"app": "web"}, "annotations": {
                "portolan.dev/load-balancer-ips": format!("{FOUR},{SIX}"),
            }},
            "spec": {
                "type": "LoadBalancer", "externalTrafficPolicy": "Local",
                "ipFamilyPolicy": "RequireDualStack",
                "ports": [
                    {"name": "tcp", "port": 80, "targetPort": SERVED, "protocol": "TCP"},
                    {"name": "udp", "port": 80, "targetPort": SERVED, "protocol": "UDP"},
                ],
            },
        });
        self.create(&SERVICES, NS, &service)?;
        for (family, start) in [("IPv4", "192.0.2."), ("IPv6", "2001:db8::")] {
            let endpoints = (1..=NODES_COUNT).map(|n| endpoint(start, n, true));
            let slice = json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "addressType": family,
                "metadata": {
                    "name": slice_name(family),
                    "labels": {"kubernetes.io/service-name": "web"},
                },
                "endpoints": endpoints.collect::<Vec<_>>(),
                "ports": [
                    {"name": "tcp", "port": SERVED, "protocol": "TCP"},
                    {"name": "udp", "port": SERVED, "protocol": "UDP"},
                ],
            });
            self.create(&ENDPOINT_SLICES, NS, &slice)?;
        }
        Ok(())
    }

    /// Only these nodes' endpoints are ready; the others serve still, and end.
    pub(crate) fn ready_on(&self, nodes: &[u8]) -> Result<()> {
        for (family, start) in [("IPv4", "192.0.2."), ("IPv6", "2001:db8::")] {
            let endpoints = (1..=NODES_COUNT).map(|n| endpoint(start, n, nodes.contains(&n)));
            let endpoints: Vec<Value> = endpoints.collect();
            let target = Target::one(&ENDPOINT_SLICES, NS, slice_name(family));
            self.patch(target, &json!({"endpoints": endpoints}))?;
        }
        Ok(())
    }

    pub(crate) fn create(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        body: &Value,
    ) -> Result<()> {
        let target = Target::all(resource, namespace);
        self.runtime.block_on(self.writer.create(target, body))?;
        Ok(())
    }

    pub(crate) fn patch(&self, target: Target<'_>, body: &Value) -> Result<()> {
        let patch = PatchBody::Merge(body);
        self.runtime.block_on(self.writer.patch(target, patch))?;
        Ok(())
    }

    pub(crate) fn get(&self, target: Target<'_>) -> Result<Value> {
        Ok(self.runtime.block_on(self.writer.get(target))?)
    }

    /// A peer of all nodes, with this besides what every one needs.
    pub(crate) fn peer(&self, name: &str, more: &Value) -> Result<()> {
        let mut spec = json!({
            "localASN": 64512, "peerASN": 64513, "peerAddress": ROUTER,
            "connectRetrySeconds": 1, "holdTimeSeconds": 9,
        });
        for (field, value) in more.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        let peer = json!({
            "apiVersion": "portolan.dev/v1alpha1", "kind": "BGPPeer",
            "metadata": {"name": name}, "spec": spec,
        });
        self.create(&BGP_PEERS, None, &peer)
    }

    /// An announcement.
    pub(crate) fn announcement(&self, name: &str, spec: &Value) -> Result<()> {
        let announcement = json!({
            "apiVersion": "portolan.dev/v1alpha1", "kind": "BGPAnnouncement",
            "metadata": {"name": name}, "spec": spec,
        });
        self.create(&BGP_ANNOUNCEMENTS, None, &announcement)
    }

    /// The entry of a node in the status of a peer.
    pub(crate) fn session(&self, peer: &str, node: u8) -> Option<Value> {
        let peer = self.get(Target::one(&BGP_PEERS, None, peer)).ok()?;
        let sessions = peer["status"]["sessions"].as_array()?.clone();
        let name = format!("n{node}");
        sessions.into_iter().find(|one| one["node"] == name)
    }

    /// The messages of events with a reason.
    pub(crate) fn events(&self, reason: &str) -> Vec<String> {
        let events = self.get(Target::all(&EVENTS, NS)).unwrap_or_default();
        let all = events["items"].as_array().cloned().unwrap_or_default();
        let of = all.into_iter().filter(|event| event["reason"] == reason);
        of.filter_map(|event| Some(event["message"].as_str()?.to_owned()))
            .collect()
    }

    fn log_of(&self, node: u8) -> PathBuf {
        self.folder.path().join(format!("n{node}.log"))
    }

    /// The program with these words, in the namespace of a node.
    pub(crate) fn command(&self, node: u8, words: &[&str]) -> Result<std::process::Output> {
        let mut command = Command::new(program()?);
        command.args(words);
        command.env("KUBECONFIG", self.folder.path().join("kubeconfig"));
        Ok(self.place(node)?.run(|| command.output())??)
    }

    /// Where the kubeconfig of the administrator is.
    pub(crate) fn kubeconfig(&self) -> String {
        let path = self.folder.path().join("kubeconfig");
        path.display().to_string()
    }

    /// Starts the agent of a node.
    pub(crate) fn start(&mut self, node: u8) -> Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_of(node))?;
        let mut command = Command::new(program()?);
        command
            .args([
                "agent",
                "--announce",
                "--load-balancer",
                "--network-policy=false",
            ])
            .arg("--kubeconfig")
            .arg(self.folder.path().join("kubeconfig"))
            .arg(format!("--node-name=n{node}"))
            .args(["--cluster-cidr", "10.244.0.0/16,fd00:10:244::/48"])
            .arg("--state-dir")
            .arg(self.folder.path().join(format!("state{node}")))
            .env("RUST_LOG", "info,portolan_agent::announce=debug")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = self.place(node)?.run(|| command.spawn())?;
        let slot = self.agents.get_mut(usize::from(node - 1));
        *slot.context("a node")? = Some(child.context("start an agent")?);
        Ok(())
    }

    pub(crate) fn start_all(&mut self) -> Result<()> {
        (1..=NODES_COUNT).try_for_each(|node| self.start(node))
    }

    fn child(&mut self, node: u8) -> Result<Child> {
        let slot = self.agents.get_mut(usize::from(node - 1));
        slot.and_then(Option::take).context("no agent runs there")
    }

    /// The agent of a node dies without a word (SIGKILL).
    pub(crate) fn kill(&mut self, node: u8) -> Result<()> {
        let mut child = self.child(node)?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// The agent of a node ends as it is asked to (SIGTERM).
    pub(crate) fn end(&mut self, node: u8) -> Result<()> {
        let mut child = self.child(node)?;
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id())?);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
        let deadline = std::time::Instant::now() + END;
        while child.try_wait()?.is_none() {
            if std::time::Instant::now() > deadline {
                child.kill()?;
                bail!("an agent does not end: {}", self.log(node));
            }
            std::thread::sleep(portolan_peers::PAUSE);
        }
        Ok(())
    }

    /// The link of a node is down from now on, or up again.
    pub(crate) fn link(&self, node: u8, up: bool) -> Result<()> {
        let place = self.segment.places.get(usize::from(node - 1));
        let (ns, link) = place.context("a node")?;
        self.runtime.block_on(async {
            Links::open(ns)?.set_up(*link, up).await?;
            anyhow::Ok(())
        })
    }

    /// What the agent of a node has logged.
    pub(crate) fn log(&self, node: u8) -> String {
        std::fs::read_to_string(self.log_of(node)).unwrap_or_default()
    }

    /// Waits until something is so; else says what the agents logged.
    pub(crate) fn until<T>(&self, what: &str, step: impl FnMut() -> Option<T>) -> T {
        let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| until(what, step)));
        found.unwrap_or_else(|cause| {
            for node in 1..=NODES_COUNT {
                eprintln!("--- n{node}\n{}", self.log(node));
            }
            std::panic::resume_unwind(cause)
        })
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        for child in self.agents.iter_mut().flatten() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// The addresses of the Service.
pub(crate) const FOUR: &str = "198.51.100.10";
pub(crate) const SIX: &str = "2001:db8:1::10";

fn slice_name(family: &str) -> &'static str {
    if family == "IPv4" { "web-v4" } else { "web-v6" }
}

fn endpoint(start: &str, node: u8, ready: bool) -> Value {
    json!({
        "addresses": [format!("{start}{node}")], "nodeName": format!("n{node}"),
        "conditions": {"ready": ready, "serving": true, "terminating": !ready},
    })
}

/// Servers of TCP and UDP in a namespace that say the number of the node.
fn serve(ns: &NetNs, number: u8) -> Result<Served> {
    let over = Arc::new(AtomicBool::new(false));
    let any: IpAddr = "::".parse()?;
    let tcp = ns.run(|| TcpListener::bind((any, SERVED)))??;
    tcp.set_nonblocking(true)?;
    let stop = Arc::clone(&over);
    std::thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            match tcp.accept() {
                // The client may be gone already.
                Ok((mut stream, _)) => drop(std::io::Write::write_all(&mut stream, &[number])),
                Err(_nobody) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    });
    // One for each family: a reply of ::ffff:… would have another source.
    for any in ["0.0.0.0", "::"] {
        let domain = if any == "::" {
            socket2::Domain::IPV6
        } else {
            socket2::Domain::IPV4
        };
        let at = std::net::SocketAddr::new(any.parse()?, SERVED);
        let udp = ns.run(|| -> std::io::Result<UdpSocket> {
            let socket = socket2::Socket::new(domain, socket2::Type::DGRAM, None)?;
            if any == "::" {
                socket.set_only_v6(true)?;
            }
            socket.bind(&at.into())?;
            Ok(socket.into())
        })??;
        udp.set_read_timeout(Some(Duration::from_millis(200)))?;
        let stop = Arc::clone(&over);
        std::thread::spawn(move || {
            let mut buffer = [0; 64];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((_, from)) = udp.recv_from(&mut buffer) {
                    drop(udp.send_to(&[number], from));
                }
            }
        });
    }
    Ok(Served { over })
}
