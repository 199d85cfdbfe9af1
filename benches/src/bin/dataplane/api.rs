//! An API server inside this process, with a cluster's objects.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, ensure};
use futures::StreamExt as _;
use http::Method;
use hyper::body::Bytes;
use portolan_apiserver::{Config, Server};
use portolan_benches::cluster::{self, NODE};
use portolan_benches::figures::say;
use portolan_benches::http::{Connection, Target};
use portolan_model::Family;
use serde_json::Value;
use tokio_util::sync::CancellationToken;

/// Connections that write, and how much is in flight on each.
const CONNECTIONS: usize = 4;
const IN_FLIGHT: usize = 24;

const SERVICES: &str = "/api/v1/namespaces/default/services";
const SLICES: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";

/// The server; dropping it ends it.
pub(crate) struct Api {
    connections: Vec<Connection>,
    pub(crate) kubeconfig: PathBuf,
    stop: CancellationToken,
}

impl Api {
    pub(crate) async fn start(folder: &Path) -> Result<Self> {
        let server = Server::open(Config {
            data_dir: folder.join("data"),
            ..Config::default()
        })
        .await?;
        let listener =
            tokio::net::TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
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
            stop,
        })
    }

    /// Sends a write by the connection with this number.
    async fn send(&self, turn: usize, method: Method, path: &str, object: &Value) -> Result<()> {
        let connection = self.connections.get(turn % CONNECTIONS);
        ensure!(connection.is_some(), "a connection");
        if let Some(connection) = connection {
            let body = Bytes::from(serde_json::to_vec(object)?);
            connection.call(method, path, body).await?;
        }
        Ok(())
    }

    /// Puts a cluster's objects there.
    pub(crate) async fn fill(&self, services: usize) -> Result<()> {
        let node = cluster::node();
        self.send(0, Method::POST, "/api/v1/nodes", &node).await?;
        let status = format!("/api/v1/nodes/{NODE}/status");
        self.send(0, Method::PUT, &status, &node).await?;
        let begin = Instant::now();
        let writes = (0..services).flat_map(|n| {
            [
                (n, SERVICES, cluster::service(Family::V4, n)),
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
    pub(crate) async fn change(&self, turn: usize, services: usize) -> Result<()> {
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
