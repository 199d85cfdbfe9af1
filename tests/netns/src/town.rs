//! A town of three nodes: two pods on the first, one on the second, none on the
//! third, and a Service of every kind.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::Result;
use portolan_model::Protocol::{Tcp, Udp};
use portolan_model::{Family, Protocol, Service, TrafficPolicy};

use crate::facts::{
    LEAVING, NOT_READY, PORT, READY, Server, TCP_TARGET, UDP_TARGET, cluster_ip, node_port,
    service, with_endpoints,
};
use crate::journey::Ending;
use crate::namespace::inside;
use crate::world::{Client, World, block_on};

/// The first pod of node 1.
pub const A: Client = Client::Pod(0);
/// The second pod of node 1.
pub const B: Client = Client::Pod(1);
/// The pod of node 2.
pub const C: Client = Client::Pod(2);
/// Node 1 itself.
pub const NODE_1: Client = Client::Node(0);

/// All clients there are.
pub const EVERYBODY: [Client; 8] = [
    A,
    B,
    C,
    NODE_1,
    Client::Node(1),
    Client::Node(2),
    Client::Outside,
    Client::Stranger,
];

/// Endpoints A, B and C, all ready.
pub const WEB: u8 = 21;
/// Endpoints A and C; `externalTrafficPolicy: Local`.
pub const EXTERNAL_LOCAL: u8 = 22;
/// Endpoints A and C; `internalTrafficPolicy: Local`.
pub const INTERNAL_LOCAL: u8 = 23;
/// Endpoint C; both policies Local.
pub const FAR: u8 = 24;
/// No endpoints.
pub const NOBODY: u8 = 25;
/// A is ready, B is not, C is leaving.
pub const MIXED: u8 = 26;
/// A is not ready, B and C are leaving.
pub const CLOSING: u8 = 27;
/// Endpoint A.
pub const ALONE: u8 = 28;
/// Endpoint: node 2 itself.
pub const ON_NODE: u8 = 29;
/// The Services of the town, by the numbers of their addresses.
pub const ALL: [u8; 9] = [
    WEB,
    EXTERNAL_LOCAL,
    INTERNAL_LOCAL,
    FAR,
    NOBODY,
    MIXED,
    CLOSING,
    ALONE,
    ON_NODE,
];

fn local(mut service: Service, internal: bool, external: bool) -> Service {
    if internal {
        service.internal_policy = TrafficPolicy::Local;
    }
    if external {
        service.external_policy = TrafficPolicy::Local;
    }
    service
}

/// Makes the town.
///
/// # Errors
/// If the kernel refuses any part.
pub async fn town() -> Result<World> {
    let mut world = World::new(&[2, 1, 0], &[TCP_TARGET, UDP_TARGET]).await?;
    let pod = |index: usize, conditions| Server::pod(&world, &world.pods[index], conditions);
    let (a, b, c) = (pod(0, READY), pod(1, READY), pod(2, READY));
    let (leaving_b, leaving_c) = (pod(1, LEAVING), pod(2, LEAVING));
    let pair = [a.clone(), c.clone()];
    let changes = [
        with_endpoints(service("web", WEB), &[a.clone(), b, c.clone()]),
        with_endpoints(
            local(service("external", EXTERNAL_LOCAL), false, true),
            &pair,
        ),
        with_endpoints(
            local(service("internal", INTERNAL_LOCAL), true, false),
            &pair,
        ),
        with_endpoints(
            local(service("far", FAR), true, true),
            std::slice::from_ref(&c),
        ),
        with_endpoints(service("nobody", NOBODY), &[]),
        with_endpoints(
            service("mixed", MIXED),
            &[a.clone(), pod(1, NOT_READY), leaving_c.clone()],
        ),
        with_endpoints(
            service("closing", CLOSING),
            &[pod(0, NOT_READY), leaving_b, leaving_c],
        ),
        with_endpoints(service("alone", ALONE), &[a]),
        with_endpoints(service("on-node", ON_NODE), &[Server::node(&world, 1)]),
    ];
    world.apply(&changes.concat())?;
    Ok(world)
}

/// Runs a test in a town, in namespaces of its own; `test` is its name.
pub fn in_town(test: &str, work: impl AsyncFnOnce(World) -> Result<()>) {
    if inside(test) {
        block_on(async { work(town().await?).await });
    }
}

/// The places of a Service: its addresses, and its node port on each node.
pub fn places(world: &World, number: u8) -> Vec<SocketAddr> {
    let addresses = Family::BOTH.map(|family| SocketAddr::new(cluster_ip(family, number), PORT));
    let nodes = world.nodes.iter().flat_map(|node| &node.net.ips);
    let node_ports = nodes.map(|ip| SocketAddr::new(*ip, node_port(number)));
    addresses.into_iter().chain(node_ports).collect()
}

/// Every client to each of these places, by both protocols.
pub fn everybody_to(places: &[SocketAddr]) -> Vec<(Client, Protocol, SocketAddr)> {
    let to = |client: Client| {
        // The lab's own namespace has no way to Services.
        let reachable = move |at: &&SocketAddr| client != Client::Outside || at.port() != PORT;
        let both = move |at: &SocketAddr| [(client, Tcp, *at), (client, Udp, *at)];
        places.iter().filter(reachable).flat_map(both)
    };
    EVERYBODY.into_iter().flat_map(to).collect()
}

/// The servers among what may become of a packet.
pub fn servers(endings: &BTreeSet<Ending>) -> Vec<SocketAddr> {
    let server = |ending: &Ending| match ending {
        Ending::Answer(server, _) => Some(*server),
        Ending::Refused | Ending::Dropped | Ending::Lost => None,
    };
    endings.iter().filter_map(server).collect()
}

/// Where these pods serve a port.
pub fn at(world: &World, pods: &[Client], family: Family, port: u16) -> Vec<SocketAddr> {
    pods.iter()
        .map(|pod| SocketAddr::new(world.address(*pod, family), port))
        .collect()
}
