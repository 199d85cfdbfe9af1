//! An API server beside a town, and the objects that an agent needs.
#![allow(
    dead_code,
    reason = "a module of several tests, of which none uses everything"
)]

pub(crate) mod door;
pub(crate) mod knocker;
pub(crate) mod running;

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use portolan_apiserver::{Config, Server};
use portolan_client::{
    ENDPOINT_SLICES, NODES, PatchBody, SERVICES, Target, Writer, from_kubeconfig_text,
};
use portolan_model::Family;
use portolan_netns::facts::{PORT, TCP_TARGET, UDP_TARGET, cluster_ip};
use portolan_netns::world::{Client, World};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// The namespace of everything.
pub(crate) const NS: Option<&str> = Some("default");

/// An API server in the town's outside, and a Node object of the town's first node.
pub(crate) struct Api {
    pub(crate) writer: Writer,
    /// How the administrator reaches it.
    pub(crate) kubeconfig: String,
    pub(crate) kube: kube::Client,
    /// Where it listens, in the town's outside.
    pub(crate) port: u16,
    _dir: tempfile::TempDir,
}

impl Api {
    pub(crate) async fn new(world: &World) -> Result<Self> {
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
        let api = Self {
            writer: Writer::new(kube.clone(), "test"),
            kubeconfig,
            kube,
            port,
            _dir: dir,
        };
        let net = &world.nodes[0].net;
        let addresses: Vec<Value> = net
            .ips
            .iter()
            .map(|ip| json!({"type": "InternalIP", "address": ip.to_string()}))
            .collect();
        let node = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": net.name}});
        api.writer.create(Target::all(&NODES, None), &node).await?;
        let status = json!({"addresses": addresses});
        let target = Target::one(&NODES, None, &net.name);
        api.writer.patch_status(target, &status).await?;
        Ok(api)
    }

    /// A Service of both protocols at the cluster address of this number, served
    /// by these endpoints.
    pub(crate) async fn service(&self, name: &str, number: u8, endpoints: &Value) -> Result<()> {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"clusterIP": cluster_ip(Family::V4, number).to_string(), "ports": [
                {"name": "udp", "protocol": "UDP", "port": PORT},
                {"name": "tcp", "protocol": "TCP", "port": PORT}]}});
        let services = Target::all(&SERVICES, NS);
        self.writer.create(services, &service).await?;
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}},
            "addressType": "IPv4", "endpoints": endpoints, "ports": [
                {"name": "udp", "protocol": "UDP", "port": UDP_TARGET},
                {"name": "tcp", "protocol": "TCP", "port": TCP_TARGET}]});
        let slices = Target::all(&ENDPOINT_SLICES, NS);
        self.writer.create(slices, &slice).await?;
        Ok(())
    }

    /// Changes the spec of a Service.
    pub(crate) async fn change(&self, name: &str, spec: &Value) -> Result<()> {
        let target = Target::one(&SERVICES, NS, name);
        let patch = json!({"spec": spec});
        self.writer.patch(target, PatchBody::Merge(&patch)).await?;
        Ok(())
    }

    /// Others serve from now on.
    pub(crate) async fn serve(&self, name: &str, endpoints: &Value) -> Result<()> {
        let target = Target::one(&ENDPOINT_SLICES, NS, name);
        let patch = json!({"endpoints": endpoints});
        self.writer.patch(target, PatchBody::Merge(&patch)).await?;
        Ok(())
    }

    /// Takes a Service away, and its endpoints.
    pub(crate) async fn remove(&self, name: &str) -> Result<()> {
        for kind in [&SERVICES, &ENDPOINT_SLICES] {
            let target = Target::one(kind, NS, name);
            self.writer.delete(target, &Default::default()).await?;
        }
        Ok(())
    }
}

/// A pod as the only endpoint.
pub(crate) fn of_pod(world: &World, pod: usize) -> Value {
    of_pods(world, &[pod])
}

/// Pods as endpoints.
pub(crate) fn of_pods(world: &World, pods: &[usize]) -> Value {
    let endpoint = |pod: &usize| {
        let node = &world.nodes[world.pods[*pod].node].net.name;
        let address = world.address(Client::Pod(*pod), Family::V4);
        json!({"addresses": [address.to_string()], "nodeName": node})
    };
    pods.iter().map(endpoint).collect()
}
