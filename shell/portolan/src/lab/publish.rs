//! `--publish`: the NodePorts that Services have now, open on this machine.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use anyhow::Result;
use kube::Client;
use portolan_client::facts::facts;
use portolan_lab::broker::Broker;
use portolan_lab::publish::{Published, Publisher, Transport};
use portolan_model::{Cluster, Kind, Protocol};
use tokio_util::sync::CancellationToken;

/// Follows the Services until `stop`.
pub(crate) async fn run(
    client: Client,
    broker: Broker,
    nodes: Vec<IpAddr>,
    stop: CancellationToken,
) -> Result<()> {
    let publisher = Publisher::new(broker, IpAddr::V4(Ipv4Addr::LOCALHOST), &nodes);
    let mut stream = facts(client, &Kind::ALL, stop.clone());
    let mut cluster = Cluster::default();
    let mut open = BTreeSet::new();
    loop {
        let next = tokio::select! {
            () = stop.cancelled() => return Ok(()),
            next = stream.recv() => next,
        };
        let Some(next) = next else { return Ok(()) };
        cluster.apply(next.change);
        while let Ok(more) = stream.try_recv() {
            cluster.apply(more.change);
        }
        let wanted = node_ports(&cluster);
        if wanted != open {
            for refused in publisher.set(&wanted).await {
                let error = &refused as &dyn std::error::Error;
                tracing::warn!(error, "a NodePort is not open on this machine");
            }
            open = wanted;
        }
    }
}

/// Every node port of every Service; SCTP has no sockets to forward from.
fn node_ports(cluster: &Cluster) -> BTreeSet<Published> {
    let ports = cluster.services().flat_map(|service| service.ports.iter());
    ports
        .filter_map(|port| {
            let transport = match port.protocol {
                Protocol::Tcp => Transport::Tcp,
                Protocol::Udp => Transport::Udp,
                Protocol::Sctp => return None,
            };
            Some(Published {
                transport,
                port: port.node_port?,
            })
        })
        .collect()
}
