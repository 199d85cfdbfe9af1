//! `--publish`: the NodePorts that Services have now, and the ports of load balancers
//! at the nodes' own addresses, open on this machine.

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
        let on_nodes = node_ports(&cluster);
        let mut wanted = balancer_ports(&cluster, &nodes);
        wanted.extend(&on_nodes);
        if wanted != open {
            for refused in publisher.set(&wanted).await {
                let error = &refused as &dyn std::error::Error;
                if on_nodes.contains(&refused.port) {
                    tracing::warn!(error, "a NodePort is not open on this machine");
                } else {
                    // Such as 80, for whoever is not root; there is a NodePort besides.
                    tracing::info!(error, "a load balancer's port is not open on this machine");
                }
            }
            open = wanted;
        }
    }
}

/// The ports of load balancers that the nodes' own addresses are.
fn balancer_ports(cluster: &Cluster, nodes: &[IpAddr]) -> BTreeSet<Published> {
    let balanced = cluster.services().filter(|service| {
        let mut given = service
            .outer
            .iter()
            .flat_map(|outer| &outer.load_balancer_ips);
        given.any(|address| nodes.contains(address))
    });
    let ports = balanced.flat_map(|service| service.ports.iter());
    ports
        .filter_map(|port| {
            Some(Published {
                transport: transport(port.protocol)?,
                port: port.port,
            })
        })
        .collect()
}

/// Every node port of every Service; SCTP has no sockets to forward from.
fn node_ports(cluster: &Cluster) -> BTreeSet<Published> {
    let ports = cluster.services().flat_map(|service| service.ports.iter());
    ports
        .filter_map(|port| {
            Some(Published {
                transport: transport(port.protocol)?,
                port: port.node_port?,
            })
        })
        .collect()
}

fn transport(protocol: Protocol) -> Option<Transport> {
    match protocol {
        Protocol::Tcp => Some(Transport::Tcp),
        Protocol::Udp => Some(Transport::Udp),
        Protocol::Sctp => None,
    }
}
