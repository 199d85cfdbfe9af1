//! A whole agent on one node of the town, with an API server beside it.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use portolan_agent::node::{self, NodeConfig, NodeError};
use portolan_apiserver::{Config, Server};
use portolan_client::{
    ENDPOINT_SLICES, NODES, PatchBody, SERVICES, Target, Writer, from_kubeconfig_text,
};
use portolan_lab::addresses;
use portolan_model::Family;
use portolan_netns::facts::{PORT, UDP_TARGET, cluster_ip};
use portolan_netns::sender::{PAUSE, Sender, entries};
use portolan_netns::talk::{PATIENCE, Seen};
use portolan_netns::town::{B, in_town};
use portolan_netns::world::{Client, World};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

const NS: Option<&str> = Some("default");

/// An API server, and the agent of the town's first node, which can be stopped.
struct Site {
    writer: Writer,
    config: NodeConfig,
    agent: Option<(JoinHandle<Result<(), NodeError>>, CancellationToken)>,
    _dir: tempfile::TempDir,
}

impl Site {
    async fn new(world: &World) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let server = Server::open(Config {
            data_dir: dir.path().to_owned(),
            ..Config::default()
        })
        .await?;
        let (outside, links) = (world.fabric.outside(), world.fabric.outside_links());
        // Its own addresses are reached through this.
        links.set_up(links.index("lo").await?, true).await?;
        let listener = outside
            .run(|| std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)))?
            .context("listen")?;
        listener.set_nonblocking(true)?;
        let port = listener.local_addr()?.port();
        let at = world.address(Client::Outside, Family::V4);
        let kubeconfig = server.client_config(&format!("https://{}", SocketAddr::new(at, port)));
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tokio::spawn(server.serve(listener, CancellationToken::new()));
        let kube = from_kubeconfig_text(&kubeconfig).await?;
        let net = &world.nodes[0].net;
        let addresses: Vec<Value> = net
            .ips
            .iter()
            .map(|ip| json!({"type": "InternalIP", "address": ip.to_string()}))
            .collect();
        let site = Self {
            writer: Writer::new(kube.clone(), "test"),
            config: NodeConfig {
                node_name: net.name.clone(),
                netns: net.netns.clone(),
                kube,
                cluster_domain: "cluster.local".to_owned(),
                service_cidrs: addresses::services().into(),
                cluster_cidrs: addresses::all_pods().into(),
                dns_addresses: Vec::new(),
                upstream: None,
            },
            agent: None,
            _dir: dir,
        };
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": net.name}});
        site.writer.create(Target::all(&NODES, None), &node).await?;
        let status = json!({"addresses": addresses});
        let target = Target::one(&NODES, None, &net.name);
        site.writer.patch_status(target, &status).await?;
        Ok(site)
    }

    /// A UDP Service at the cluster address of this number, served by a pod.
    async fn service(&self, world: &World, name: &str, number: u8, pod: usize) -> Result<()> {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"clusterIP": cluster_ip(Family::V4, number).to_string(),
                "ports": [{"protocol": "UDP", "port": PORT}]}});
        let services = Target::all(&SERVICES, NS);
        self.writer.create(services, &service).await?;
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "ports": [{"name": "", "protocol": "UDP", "port": UDP_TARGET}],
            "endpoints": endpoints(world, pod)});
        let slices = Target::all(&ENDPOINT_SLICES, NS);
        self.writer.create(slices, &slice).await?;
        Ok(())
    }

    /// Another pod serves from now on.
    async fn serve(&self, world: &World, name: &str, pod: usize) -> Result<()> {
        let target = Target::one(&ENDPOINT_SLICES, NS, name);
        let patch = json!({"endpoints": endpoints(world, pod)});
        self.writer.patch(target, PatchBody::Merge(&patch)).await?;
        Ok(())
    }

    fn start(&mut self) {
        let stop = CancellationToken::new();
        let agent = tokio::spawn(node::run(self.config.clone(), stop.clone()));
        self.agent = Some((agent, stop));
    }

    async fn stop(&mut self) -> Result<()> {
        let (agent, stop) = self.agent.take().context("no agent runs")?;
        stop.cancel();
        Ok(timeout(PATIENCE, agent).await???)
    }
}

fn endpoints(world: &World, pod: usize) -> Value {
    let node = &world.nodes[world.pods[pod].node].net.name;
    let address = world.address(Client::Pod(pod), Family::V4);
    json!([{"addresses": [address.to_string()], "nodeName": node}])
}

fn server(world: &World, pod: usize) -> SocketAddr {
    SocketAddr::new(world.address(Client::Pod(pod), Family::V4), UDP_TARGET)
}

/// A client that keeps its port follows its Service: while the agent runs, and when
/// the change came while there was none; and what did not change, an agent that
/// starts leaves as it is.
#[test]
fn p17_p21_an_agent_tends_flows_and_leaves_those_that_serve() {
    in_town(
        "p17_p21_an_agent_tends_flows_and_leaves_those_that_serve",
        async |world| {
            let mut site = Site::new(&world).await?;
            site.service(&world, "moves", 101, 0).await?;
            site.service(&world, "stays", 102, 2).await?;
            let to = |number| SocketAddr::new(cluster_ip(Family::V4, number), PORT);
            let [moves, stays] = [101, 102].map(|number| Sender::new(&world, B, to(number)));
            site.start();
            moves.until_served_by(server(&world, 0)).await?;
            stays.until_served_by(server(&world, 2)).await?;
            let node = &world.nodes[0].net.netns;
            let before = entries(node, stays.to)?;
            site.serve(&world, "moves", 2).await?;
            moves.until_served_by(server(&world, 2)).await?;
            site.stop().await?;
            site.serve(&world, "moves", 0).await?;
            assert_eq!(moves.server().await?, server(&world, 2), "nobody acts");
            site.start();
            moves.until_served_by(server(&world, 0)).await?;
            let end = Instant::now() + PATIENCE;
            site.writer
                .delete(Target::one(&SERVICES, NS, "moves"), &Default::default())
                .await?;
            while matches!(moves.send().await?, Seen::Answer { .. }) {
                assert!(Instant::now() < end, "a deleted Service answers");
                tokio::time::sleep(PAUSE).await;
            }
            assert_eq!(stays.server().await?, server(&world, 2));
            let ids = |entries: &[portolan_conntrack::Entry]| {
                entries.iter().map(|entry| entry.id).collect::<Vec<_>>()
            };
            assert_eq!(ids(&entries(node, stays.to)?), ids(&before));
            site.stop().await
        },
    );
}
