//! An API server inside this process, with a cluster's objects.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, Result};
use futures::StreamExt as _;
use http::Method;
use hyper::body::Bytes;
use portolan_apiserver::{Config, Server};
use portolan_model::Family;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::cluster::{self, NODE};
use crate::figures::say;
use crate::http::{Connection, Target};

/// Connections that write, and how much is in flight on each.
const CONNECTIONS: usize = 4;
const IN_FLIGHT: usize = 24;

/// Where Services and EndpointSlices are.
pub const SERVICES: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

/// The server; dropping it ends it.
pub struct Api {
    connections: Vec<Connection>,
    /// The file by which others reach it.
    pub kubeconfig: PathBuf,
    /// Where it is, and who we are to it.
    pub target: Target,
    stop: CancellationToken,
}

impl Api {
    /// Starts one on the loopback, with its files in `folder`.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start(folder: &Path) -> Result<Self> {
        Self::start_at(folder, Ipv4Addr::LOCALHOST.into()).await
    }

    /// Starts one at an address of this network namespace, with the kinds of the
    /// product's own.
    ///
    /// # Errors
    /// If it does not start.
    pub async fn start_at(folder: &Path, address: IpAddr) -> Result<Self> {
        let server = Server::open(Config {
            data_dir: folder.join("data"),
            extra_sans: vec![address.to_string()],
            definitions: portolan_api::shipped::definitions()?,
            ..Config::default()
        })
        .await?;
        let listener = tokio::net::TcpListener::bind(SocketAddr::new(address, 0)).await?;
        let address = listener.local_addr()?;
        let text = server.kubeconfig(&format!("https://{address}"));
        let stop = CancellationToken::new();
        tokio::spawn(Arc::clone(&server).serve(listener, stop.clone()));
        let kubeconfig = folder.join("kubeconfig");
        std::fs::write(&kubeconfig, &text)?;
        let target = Target::new(&text, address)?;
        let mut connections = Vec::new();
        for number in 0..CONNECTIONS {
            connections.push(target.connect(&format!("bench-{number}")).await?);
        }
        Ok(Self {
            connections,
            kubeconfig,
            target,
            stop,
        })
    }

    /// Sends a write by the connection with this number.
    ///
    /// # Errors
    /// If it is refused.
    pub async fn send(
        &self,
        turn: usize,
        method: Method,
        path: &str,
        object: &Value,
    ) -> Result<()> {
        let connection = self.connections.get(turn % CONNECTIONS);
        let connection = connection.context("a connection")?;
        let body = Bytes::from(serde_json::to_vec(object)?);
        connection.call(method, path, body).await?;
        Ok(())
    }

    /// Puts a cluster's objects there.
    ///
    /// # Errors
    /// If one is refused.
    pub async fn fill(&self, services: usize) -> Result<()> {
        let node = cluster::node();
        self.send(0, Method::POST, "/api/v1/nodes", &node).await?;
        let status = format!("/api/v1/nodes/{NODE}/status");
        self.send(0, Method::PUT, &status, &node).await?;
        self.services(services, |n| cluster::service(Family::V4, n))
            .await
    }

    /// Puts so many Services there, and an EndpointSlice of each.
    ///
    /// # Errors
    /// If one is refused.
    pub async fn services(&self, services: usize, service: impl Fn(usize) -> Value) -> Result<()> {
        let begin = Instant::now();
        let writes = (0..services).flat_map(|n| {
            [
                (n, SERVICES, service(n)),
                (n, SLICES, cluster::slice(Family::V4, n, 0)),
            ]
        });
        let mut running =
            futures::stream::iter(writes)
                .map(|(turn, path, body)| async move {
                    self.send(turn, Method::POST, path, &body).await
                })
                .buffer_unordered(CONNECTIONS * IN_FLIGHT);
        let mut count = 0;
        while let Some(done) = running.next().await {
            done?;
            count += 1;
            if count % 20_000 == 0 {
                say(&format!("  {count} objects created"));
            }
        }
        say(&format!(
            "  {count} objects in {:.1} s",
            begin.elapsed().as_secs_f64()
        ));
        Ok(())
    }

    /// Moves the first endpoint of a Service.
    ///
    /// # Errors
    /// If that is refused.
    pub async fn change(&self, turn: usize, services: usize) -> Result<()> {
        let number = turn * 7919 % services;
        let path = format!("{SLICES}/svc-{number}-slice");
        let slice = cluster::slice(Family::V4, number, turn / services + 1);
        self.send(turn, Method::PUT, &path, &slice).await
    }
}

impl Drop for Api {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
