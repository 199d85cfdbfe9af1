//! Whose address an endpoint sees (P7): kube-proxy's 27 rows with real packets,
//! by every detector of local traffic.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, bail, ensure};
use portolan_model::Protocol::{Tcp, Udp};
use portolan_model::{Family, Outer, Protocol, Service, TrafficPolicy};
use portolan_netns::facts::{PORT, READY, Server, cluster_ip, node_port, service, with_endpoints};
use portolan_netns::talk::{PATIENCE, Seen};
use portolan_netns::town::{A, B, C, NODE_1, in_town};
use portolan_netns::world::{Client, World, lab_view};
use portolan_plan::{Detector, LinkName, NodeView};

/// Endpoints A and C; both policies Cluster.
const CLUSTER: u8 = 51;
/// The same; `externalTrafficPolicy: Local`.
const EXTERNAL: u8 = 52;
/// The same; `internalTrafficPolicy: Local`.
const INTERNAL: u8 = 53;

/// To what, in the words of P7.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    ClusterIp,
    NodePort,
    LoadBalancer,
}

use To::{ClusterIp, LoadBalancer, NodePort};

/// Who, to what, of which Service; whether only the local endpoint is reached,
/// and whether it sees the node.
type Row = (Client, To, u8, bool, bool);

const POD: Client = B;
const EXT: Client = Client::Stranger;

const ROWS: [Row; 27] = [
    (POD, ClusterIp, CLUSTER, false, false),
    (POD, NodePort, CLUSTER, false, true),
    (POD, LoadBalancer, CLUSTER, false, true),
    (NODE_1, ClusterIp, CLUSTER, false, true),
    (NODE_1, NodePort, CLUSTER, false, true),
    (NODE_1, LoadBalancer, CLUSTER, false, true),
    (EXT, ClusterIp, CLUSTER, false, true),
    (EXT, NodePort, CLUSTER, false, true),
    (EXT, LoadBalancer, CLUSTER, false, true),
    (POD, ClusterIp, EXTERNAL, false, false),
    (POD, NodePort, EXTERNAL, false, false),
    (POD, LoadBalancer, EXTERNAL, false, false),
    (NODE_1, ClusterIp, EXTERNAL, false, true),
    (NODE_1, NodePort, EXTERNAL, false, true),
    (NODE_1, LoadBalancer, EXTERNAL, false, true),
    (EXT, ClusterIp, EXTERNAL, false, true),
    (EXT, NodePort, EXTERNAL, true, false),
    (EXT, LoadBalancer, EXTERNAL, true, false),
    (POD, ClusterIp, INTERNAL, true, false),
    (POD, NodePort, INTERNAL, false, true),
    (POD, LoadBalancer, INTERNAL, false, true),
    (NODE_1, ClusterIp, INTERNAL, true, true),
    (NODE_1, NodePort, INTERNAL, false, true),
    (NODE_1, LoadBalancer, INTERNAL, false, true),
    (EXT, ClusterIp, INTERNAL, true, true),
    (EXT, NodePort, INTERNAL, false, true),
    (EXT, LoadBalancer, INTERNAL, false, true),
];

/// Which addresses load balancers have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Balancers {
    /// Addresses of their own, all at the usual port.
    OfPool,
    /// The node's, each at a port of its own (L12).
    OfNode,
}

use Balancers::{OfNode, OfPool};

impl Balancers {
    fn address(self, world: &World, family: Family, number: u8) -> IpAddr {
        match (self, family) {
            (OfNode, _) => world.address(NODE_1, family),
            (OfPool, Family::V4) => IpAddr::from([198, 51, 100, number]),
            (OfPool, Family::V6) => {
                IpAddr::from([0x2001, 0xdb8, 0x51, 0, 0, 0, 0, u16::from(number)])
            }
        }
    }

    fn port(self, number: u8) -> u16 {
        match self {
            OfPool => PORT,
            OfNode => 9000 + u16::from(number),
        }
    }
}

/// The three Services of the table.
fn build(world: &mut World, balancers: Balancers) -> Result<()> {
    let servers = [0, 2].map(|pod| Server::pod(world, &world.pods[pod], READY));
    let of = |world: &World, name: &str, number, internal, external| {
        let policy = |local| {
            if local {
                TrafficPolicy::Local
            } else {
                TrafficPolicy::Cluster
            }
        };
        let plain = service(name, number);
        let addresses = Family::BOTH.map(|family| balancers.address(world, family, number));
        let mut ports = plain.ports.to_vec();
        for port in &mut ports {
            port.port = balancers.port(number);
        }
        let service = Service {
            ports,
            internal_policy: policy(internal),
            external_policy: policy(external),
            outer: Some(Box::new(Outer {
                external_ips: Vec::new(),
                load_balancer_ips: addresses.into(),
                source_ranges: Vec::new(),
                health_check_port: None,
            })),
            ..plain
        };
        with_endpoints(service, &servers)
    };
    let changes = [
        of(world, "row-cluster", CLUSTER, false, false),
        of(world, "row-external", EXTERNAL, false, true),
        of(world, "row-internal", INTERNAL, true, false),
    ];
    world.apply(&changes.concat())
}

fn place(
    world: &World,
    (_, to, number, ..): Row,
    family: Family,
    balancers: Balancers,
) -> SocketAddr {
    let port = balancers.port(number);
    match to {
        ClusterIp => SocketAddr::new(cluster_ip(family, number), port),
        NodePort => SocketAddr::new(world.address(NODE_1, family), node_port(number)),
        LoadBalancer => SocketAddr::new(balancers.address(world, family, number), port),
    }
}

/// Knocks until both endpoints, or the local one, were met.
async fn row(
    world: &World,
    row: Row,
    family: Family,
    protocol: Protocol,
    balancers: Balancers,
) -> Result<()> {
    let (client, _, _, local_only, masqueraded) = row;
    let to = place(world, row, family, balancers);
    let pods = [world.address(A, family), world.address(C, family)];
    let count = if local_only { 1 } else { 2 };
    let expected: BTreeSet<IpAddr> = pods.into_iter().take(count).collect();
    let mut left = expected.clone();
    let own = world.address(client, family);
    for _ in 0..200 {
        let Seen::Answer { server, peer } = world.knock(client, protocol, to, PATIENCE).await?
        else {
            bail!("{row:?} {family} {protocol}: no answer");
        };
        ensure!(
            expected.contains(&server.ip()),
            "{row:?} {family}: {server} answers"
        );
        // What the node itself sends has its address before and after.
        ensure!(
            (peer != own) == (masqueraded && client != NODE_1),
            "{row:?} {family}: {server} sees {peer}"
        );
        left.remove(&server.ip());
        if left.is_empty() {
            world.check(client, protocol, to).await?;
            return Ok(());
        }
    }
    bail!("{row:?} {family} {protocol}: never {left:?}")
}

/// Runs the table in a town whose nodes have this view.
fn table(
    test: &str,
    view: impl FnOnce(&World) -> NodeView,
    expected: impl Fn(Row) -> Row,
    protocols: &[Protocol],
    balancers: Balancers,
) {
    in_town(test, async |mut world| {
        build(&mut world, balancers)?;
        // The address at which the node answers names is its own too, and must
        // never be the one that a masqueraded packet comes from.
        world
            .answer_names(&Family::BOTH.map(|family| cluster_ip(family, 10)))
            .await?;
        let view = view(&world);
        world.look(&view)?;
        for case in ROWS.map(expected) {
            for family in Family::BOTH {
                for protocol in protocols {
                    row(&world, case, family, *protocol, balancers).await?;
                }
            }
        }
        Ok(())
    });
}

#[test]
fn p7_27_rows_by_the_ranges_of_all_pods() {
    let view = |_: &World| lab_view();
    table(
        "p7_27_rows_by_the_ranges_of_all_pods",
        view,
        |row| row,
        &[Tcp, Udp],
        OfPool,
    );
}

#[test]
fn p7_l12_27_rows_where_load_balancers_are_the_node() {
    let test = "p7_l12_27_rows_where_load_balancers_are_the_node";
    table(test, |_| lab_view(), |row| row, &[Tcp, Udp], OfNode);
}

#[test]
fn p7_27_rows_by_the_ranges_of_the_nodes_pods() {
    let view = |_: &World| NodeView {
        detector: Detector::NodeCidr,
        cluster_pod_cidrs: Vec::new(),
        ..lab_view()
    };
    let test = "p7_27_rows_by_the_ranges_of_the_nodes_pods";
    table(test, view, |row| row, &[Tcp], OfPool);
}

/// A link that is one pod's serves for the bridge of all pods: only that pod asks.
#[test]
fn p7_27_rows_by_a_bridge() {
    let view = |world: &World| NodeView {
        detector: Detector::Bridge(world.pods[1].link),
        ..lab_view()
    };
    table("p7_27_rows_by_a_bridge", view, |row| row, &[Tcp], OfPool);
}

#[test]
fn p7_27_rows_by_the_prefix_of_links() {
    let view = |_: &World| NodeView {
        detector: Detector::Prefix(LinkName::new("veth").unwrap_or_default()),
        cluster_pod_cidrs: Vec::new(),
        ..lab_view()
    };
    table(
        "p7_27_rows_by_the_prefix_of_links",
        view,
        |row| row,
        &[Tcp],
        OfPool,
    );
}

#[test]
fn p7_27_rows_with_masquerade_all() {
    let view = |_: &World| NodeView {
        masquerade_all: true,
        ..lab_view()
    };
    let expected = |(client, to, number, local, masqueraded)| {
        (client, to, number, local, masqueraded || to == ClusterIp)
    };
    table(
        "p7_27_rows_with_masquerade_all",
        view,
        expected,
        &[Tcp],
        OfPool,
    );
}

/// Without a detector nobody is masqueraded at a cluster address, and a pod is like
/// the outside for a Local policy. An answer that does not come back through the
/// node is lost, as `why` says beforehand.
#[test]
fn p7_27_rows_without_detector() {
    in_town("p7_27_rows_without_detector", async |mut world| {
        build(&mut world, OfPool)?;
        world.look(&NodeView {
            cluster_pod_cidrs: Vec::new(),
            ..lab_view()
        })?;
        for case @ (client, to, number, local, masqueraded) in ROWS {
            for family in Family::BOTH {
                match (client, to) {
                    (EXT, ClusterIp) => {
                        let to = place(&world, case, family, OfPool);
                        world.check(client, Tcp, to).await?;
                    }
                    (_, ClusterIp) => {
                        let case = (client, to, number, local, false);
                        row(&world, case, family, Tcp, OfPool).await?;
                    }
                    (POD, NodePort | LoadBalancer) if number == EXTERNAL => {
                        let case = (client, to, number, true, false);
                        row(&world, case, family, Tcp, OfPool).await?;
                    }
                    (_, NodePort | LoadBalancer) => {
                        let case = (client, to, number, local, masqueraded);
                        row(&world, case, family, Tcp, OfPool).await?;
                    }
                }
            }
        }
        Ok(())
    });
}
