//! All parts of a lab in one process: the API server, the controllers, and per
//! node an agent and a pod manager. They speak to each other only through the
//! Kubernetes API.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use ipnet::IpNet;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use portolan_agent::announce::{self, AnnounceConfig, AnnounceTold, HEARTBEAT_PORT};
use portolan_agent::cluster::{self, ClusterConfig};
use portolan_agent::dns::{DnsGuard, Upstream};
use portolan_agent::node::{self, Gate, NodeConfig};
use portolan_agent::replies::ReplyPath;
use portolan_apiserver::{Config, Server};
use portolan_lab::addresses;
use portolan_lab::broker::{Broker, BrokerError};
use portolan_lab::fabric::{Fabric, NodeNet};
use portolan_lab::image::ImageTable;
use portolan_lab::kubelet::{self, Inside, KubeletConfig, PodNet};
use portolan_lab::leftovers::Claim;
use portolan_lab::logs::Logs;
use portolan_lab::pod_net::PodNets;
use portolan_plan::{CUT_BIT, NodeView};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::gated::GatedNets;
use super::seams::LabPods;
use super::{publish, resolvers, write_private};
use crate::cli::Ranges;
use crate::connect::{Call, Session};

/// Where pods and nodes reach the API server, on every address of the outside.
const API_PORT: u16 = 6443;
/// Where the agents' Leases are, as on a cluster.
const LEASES: &str = "kube-system";
/// How long the nodes may take to be ready.
const READY: Duration = Duration::from_secs(30);
/// How often readiness is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// What a lab is started with.
pub(crate) struct Settings {
    pub(crate) nodes: u8,
    pub(crate) ranges: Ranges,
    pub(crate) data_dir: PathBuf,
    pub(crate) listen: SocketAddr,
    pub(crate) cluster_domain: String,
    pub(crate) publish: bool,
    /// Clients outside keep their addresses under `externalTrafficPolicy: Cluster`.
    pub(crate) preserve_client_ip: bool,
    /// The process to name to whoever wants the same data dir.
    pub(crate) holder: u32,
}

/// A running lab.
pub(crate) struct Lab {
    /// The administrator's connection, from inside.
    pub(crate) session: Session,
    /// The nodes and their IPv4 addresses.
    pub(crate) nodes: Vec<(String, Ipv4Addr)>,
    /// Where the kubeconfig was written.
    pub(crate) kubeconfig: PathBuf,
    stop: CancellationToken,
    /// Ends after everything else: the others still write while they stop.
    stop_server: CancellationToken,
    claim: Claim,
    server: JoinSet<Result<()>>,
    parts: JoinSet<Result<()>>,
}

/// What every part needs.
struct Shared {
    settings: Settings,
    client: Client,
    ca: String,
    upstream: Option<Arc<dyn Upstream>>,
    logs: Arc<Logs>,
    inside: Arc<Inside>,
    images: Arc<ImageTable>,
    pods_dir: PathBuf,
    /// The network of the machine beside the nodes.
    outside: PodNet,
    stop: CancellationToken,
}

impl Lab {
    /// Starts every part and waits until the nodes are ready.
    pub(crate) async fn start(settings: Settings, broker: &Broker) -> Result<Self> {
        let claim =
            tokio::task::block_in_place(|| Claim::take(&settings.data_dir, settings.holder))?;
        let host = broker
            .listen_tcp(settings.listen)
            .await
            .map_err(|e| port_taken(settings.listen, e))?;
        let url = format!("https://{}", host.local_addr()?);
        let server = Server::open(server_config(&settings)?).await?;
        let fabric = Fabric::create(settings.nodes).await?;
        let kubeconfig = settings.data_dir.join("kubeconfig");
        write_private(&kubeconfig, &server.kubeconfig(&url))?;
        let (stop, stop_server) = (CancellationToken::new(), CancellationToken::new());
        let mut serving = JoinSet::new();
        serve(&mut serving, &server, host, &stop_server);
        serve_inside(&mut serving, &server, &stop_server).await?;
        let shared = Shared {
            client: client(&server).await?,
            ca: server.ca_certificate().to_owned(),
            upstream: resolvers::upstream(broker).await?,
            logs: Arc::new(Logs::new(settings.data_dir.join("logs"))),
            inside: Arc::default(),
            images: Arc::new(ImageTable::shipped()?),
            pods_dir: claim.run_dir().join("pods"),
            outside: PodNet {
                netns: fabric.outside().clone(),
                ips: addresses::outside().map(|net| net.addr()).into(),
            },
            stop: stop.clone(),
            settings,
        };
        server.set_pod_backend(Arc::new(LabPods {
            logs: Arc::clone(&shared.logs),
            inside: Arc::clone(&shared.inside),
        }));
        let mut parts = JoinSet::new();
        parts.spawn(controllers(shared.client.clone(), stop.clone()));
        for node in fabric.nodes() {
            shared.start_node(&mut parts, node);
        }
        if shared.settings.publish {
            parts.spawn(publish::run(
                shared.client.clone(),
                broker.clone(),
                first_node(&fabric),
                stop.clone(),
            ));
        }
        let nodes = fabric
            .nodes()
            .iter()
            .map(|n| (n.name.clone(), ipv4(&n.ips)))
            .collect();
        let session = Session {
            client: shared.client.clone(),
            namespace: "default".to_owned(),
        };
        let mut lab = Self {
            session,
            nodes,
            kubeconfig,
            stop,
            stop_server,
            claim,
            server: serving,
            parts,
        };
        lab.wait_until_ready(broker).await?;
        Ok(lab)
    }

    async fn wait_until_ready(&mut self, broker: &Broker) -> Result<()> {
        let end = Instant::now() + READY;
        loop {
            if broker.stop().is_cancelled() {
                bail!("interrupted");
            }
            if let Some(ended) = self.parts.try_join_next() {
                ended??;
                bail!("a part of the lab ended");
            }
            let list = self.session.call(&Call::get("/api/v1/nodes")).await?.body;
            let ready = list["items"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|node| {
                    let conditions = node["status"]["conditions"]
                        .as_array()
                        .into_iter()
                        .flatten();
                    conditions
                        .into_iter()
                        .any(|c| c["type"] == "Ready" && c["status"] == "True")
                });
            if ready.count() >= self.nodes.len() {
                return Ok(());
            }
            if Instant::now() >= end {
                bail!("the nodes are not ready after {READY:?}");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until the user wants the lab to end, or a part of it fails.
    pub(crate) async fn until_stopped(&self, broker: &Broker) -> Result<()> {
        broker.stop().cancelled().await;
        Ok(())
    }

    /// Stops pods and agents, then the API server, and waits for all of them.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        drain(&mut self.parts).await;
        self.stop_server.cancel();
        drain(&mut self.server).await;
        if let Err(error) = self.claim.release() {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "what is left of pods"
            );
        }
    }
}

/// Waits for all; a part that failed while it stopped is told and passed over.
async fn drain(tasks: &mut JoinSet<Result<()>>) {
    while let Some(ended) = tasks.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(error = format!("{error:#}"), "a part of the lab"),
            Err(error) => tracing::warn!(%error, "a part of the lab"),
        }
    }
}

impl Shared {
    /// An agent, that announces too, and a pod manager for one node.
    fn start_node(&self, parts: &mut JoinSet<Result<()>>, node: &NodeNet) {
        let gate = Gate::default();
        let told = self.announce(parts, node);
        let agent = NodeConfig {
            given: NodeView {
                node: node.name.as_str().into(),
                cluster_pod_cidrs: addresses::all_pods().to_vec(),
                cluster_domain: self.settings.cluster_domain.as_str().into(),
                close_unknown_pods: true,
                cut_bit: Some(1 << CUT_BIT),
                ..NodeView::default()
            },
            netns: node.netns.clone(),
            kube: self.client.clone(),
            policies: true,
            gate: gate.clone(),
            policy_log: true,
            cluster_dns: true,
            upstream: self.upstream.clone(),
            front: Default::default(),
            completed_search: None,
            dns_told: None,
            announce_told: Some(told),
            dns_guard: DnsGuard {
                name: node.name.clone(),
                ..DnsGuard::default()
            },
            dns_allowed: Vec::new(),
            dns_keep: None,
            dns_hand_over: Default::default(),
            healthz: Some(node::HEALTHZ),
            metrics: Some(node::METRICS),
            reply_path: ReplyPath {
                on: self.settings.preserve_client_ip,
                ..ReplyPath::default()
            },
            replace_kube_proxy: false,
        };
        let stop = self.stop.clone();
        parts.spawn(async move { Ok(node::run(agent, stop).await?) });
        let dir = &self.settings.data_dir;
        let pods = KubeletConfig {
            node_name: node.name.clone(),
            client: self.client.clone(),
            network: Arc::new(GatedNets {
                nets: PodNets::new(node.clone()),
                gate,
            }),
            node_netns: node.netns.clone(),
            node_ips: node.ips.clone(),
            outside: self.outside.clone(),
            pod_cidrs: node.pod_cidrs.clone(),
            cluster_domain: self.settings.cluster_domain.clone(),
            dns_ips: self.settings.ranges.dns.iter().take(1).copied().collect(),
            cluster_ca: self.ca.clone(),
            data_dir: self.pods_dir.clone(),
            hide: vec![dir.clone()],
            program: PathBuf::from("/proc/self/exe"),
            images: Arc::clone(&self.images),
            logs: Arc::clone(&self.logs),
            inside: Arc::clone(&self.inside),
        };
        let stop = self.stop.clone();
        parts.spawn(async move { Ok(kubelet::run(pods, stop).await?) });
    }

    /// Tells the node network, and routers, where load balancers' addresses are. Answers
    /// with what is counted of it.
    fn announce(&self, parts: &mut JoinSet<Result<()>>, node: &NodeNet) -> AnnounceTold {
        let told = AnnounceTold::default();
        let announcer = AnnounceConfig {
            node: node.name.clone(),
            netns: node.netns.clone(),
            client: self.client.clone(),
            namespace: LEASES.to_owned(),
            heartbeat_port: HEARTBEAT_PORT,
            heartbeat_key: None,
            told: told.clone(),
        };
        let stop = self.stop.clone();
        parts.spawn(async move {
            announce::run(announcer, stop).await;
            Ok(())
        });
        told
    }
}

async fn controllers(client: Client, stop: CancellationToken) -> Result<()> {
    cluster::run(client, ClusterConfig::default(), stop).await;
    Ok(())
}

/// What the lab uses for itself, of which no Service may be.
pub(crate) fn used() -> Vec<IpNet> {
    let mut nets = addresses::all_pods().to_vec();
    nets.extend(addresses::outside().iter().map(IpNet::trunc));
    nets
}

fn server_config(settings: &Settings) -> Result<Config> {
    Ok(Config {
        definitions: portolan_api::shipped::definitions()?,
        data_dir: settings.data_dir.clone(),
        cluster_domain: settings.cluster_domain.clone(),
        service_cidrs: settings.ranges.services.clone(),
        node_ports: settings.ranges.node_ports.clone(),
        dns_ips: settings.ranges.dns.clone(),
        advertise: addresses::outside()
            .iter()
            .map(|a| SocketAddr::new(a.addr(), API_PORT))
            .collect(),
        extra_sans: addresses::outside()
            .iter()
            .map(|a| a.addr().to_string())
            .collect(),
        ..Config::default()
    })
}

fn serve(
    tasks: &mut JoinSet<Result<()>>,
    server: &Arc<Server>,
    listener: TcpListener,
    stop: &CancellationToken,
) {
    let (server, stop) = (Arc::clone(server), stop.clone());
    tasks.spawn(async move { Ok(server.serve(listener, stop).await?) });
}

/// Serves pods and nodes, on every address of the lab's outside.
async fn serve_inside(
    serving: &mut JoinSet<Result<()>>,
    server: &Arc<Server>,
    stop: &CancellationToken,
) -> Result<()> {
    for address in addresses::outside() {
        let at = SocketAddr::new(address.addr(), API_PORT);
        let listener = TcpListener::bind(at)
            .await
            .with_context(|| format!("listen on {at} in the lab"))?;
        serve(serving, server, listener, stop);
    }
    Ok(())
}

/// A connection as the administrator, from inside the lab.
async fn client(server: &Server) -> Result<Client> {
    let [outside, _] = addresses::outside();
    let url = format!("https://{}", SocketAddr::new(outside.addr(), API_PORT));
    let read = Kubeconfig::from_yaml(&server.client_config(&url))?;
    let config = kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?;
    Ok(Client::try_from(config)?)
}

fn first_node(fabric: &Fabric) -> Vec<IpAddr> {
    fabric
        .nodes()
        .first()
        .map(|n| n.ips.clone())
        .unwrap_or_default()
}

fn ipv4(ips: &[IpAddr]) -> Ipv4Addr {
    ips.iter()
        .find_map(|ip| {
            if let IpAddr::V4(v4) = ip {
                Some(*v4)
            } else {
                None
            }
        })
        .unwrap_or(Ipv4Addr::UNSPECIFIED)
}

/// The one refusal of the host that users meet, with what to do about it.
fn port_taken(listen: SocketAddr, error: BrokerError) -> anyhow::Error {
    match error.refusal() {
        Some(ErrorKind::AddrInUse) => {
            anyhow!(
                "cannot listen on {listen}: the address is in use: end what uses it, or choose another with --listen"
            )
        }
        Some(_) => anyhow::Error::new(error).context(format!(
            "cannot listen on {listen}: choose another with --listen"
        )),
        None => error.into(),
    }
}
