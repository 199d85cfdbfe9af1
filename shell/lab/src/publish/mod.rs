//! NodePorts on the host's loopback: `127.0.0.1:PORT` of the host leads to
//! `NODE:PORT` in the lab.
//!
//! The broker makes the listeners; the traffic goes through the lab, which
//! connects to a node from its own namespace, the outside. So a pod sees what it
//! would see of a client outside the cluster. If the first node does not take a
//! connection, the next is tried. Ports come and go with [`Publisher::set`].

mod tcp;
mod udp;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::sync::Mutex;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::broker::{Broker, BrokerError};

/// A UDP client that says nothing for this long is forgotten; connection
/// tracking forgets a UDP conversation after two minutes as well.
const UDP_IDLE: Duration = Duration::from_secs(120);

/// Most UDP clients of one port at a time; the next has to wait for one to go.
const MAX_UDP_CLIENTS: usize = 1024;

/// The transport of a published port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

/// A port that is published under the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Published {
    /// TCP or UDP.
    pub transport: Transport,
    /// The number on the host and on the nodes.
    pub port: u16,
}

impl fmt::Display for Published {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.transport {
            Transport::Tcp => "TCP",
            Transport::Udp => "UDP",
        };
        write!(f, "{}/{name}", self.port)
    }
}

/// A port that the host does not give; it is tried again with the next `set`.
#[derive(Debug, thiserror::Error)]
#[error("cannot publish {port} on {host}")]
pub struct PublishError {
    /// The port.
    pub port: Published,
    /// The host's address.
    pub host: IpAddr,
    /// What the host said.
    #[source]
    pub cause: BrokerError,
}

/// Publishes ports. Dropping the last clone unpublishes everything.
#[derive(Clone, Debug)]
pub struct Publisher {
    broker: Broker,
    host: IpAddr,
    nodes: Arc<[IpAddr]>,
    open: Arc<Mutex<BTreeMap<Published, DropGuard>>>,
}

impl Publisher {
    /// Publishes on `host`, an address of the host such as 127.0.0.1, what
    /// `nodes` offer.
    pub fn new(broker: Broker, host: IpAddr, nodes: &[IpAddr]) -> Self {
        Self {
            broker,
            host,
            nodes: nodes.into(),
            open: Arc::default(),
        }
    }

    /// Makes exactly `ports` published. Ports that stay are not interrupted;
    /// connections through a port that goes are closed. Says which ports the
    /// host refuses.
    pub async fn set(&self, ports: &BTreeSet<Published>) -> Vec<PublishError> {
        let mut open = self.open.lock().await;
        open.retain(|port, _guard| ports.contains(port));
        let mut refused = Vec::new();
        for port in ports {
            if open.contains_key(port) {
                continue;
            }
            match self.publish(*port).await {
                Ok(guard) => {
                    open.insert(*port, guard);
                }
                Err(cause) => {
                    refused.push(PublishError {
                        port: *port,
                        host: self.host,
                        cause,
                    });
                }
            }
        }
        refused
    }

    /// What is published now.
    pub async fn published(&self) -> BTreeSet<Published> {
        self.open.lock().await.keys().copied().collect()
    }

    async fn publish(&self, port: Published) -> Result<DropGuard, BrokerError> {
        let at = SocketAddr::new(self.host, port.port);
        let targets = self
            .nodes
            .iter()
            .map(|node| SocketAddr::new(*node, port.port))
            .collect();
        let closed = CancellationToken::new();
        match port.transport {
            Transport::Tcp => {
                let listener = self.broker.listen_tcp(at).await?;
                tokio::spawn(tcp::forward(listener, targets, closed.clone()));
            }
            Transport::Udp => {
                let socket = self.broker.bind_udp(at).await?;
                let limits = udp::Limits {
                    idle: UDP_IDLE,
                    clients: MAX_UDP_CLIENTS,
                };
                tokio::spawn(udp::forward(socket, targets, limits, closed.clone()));
            }
        }
        Ok(closed.drop_guard())
    }
}
