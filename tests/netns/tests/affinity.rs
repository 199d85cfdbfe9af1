//! Session affinity and outer addresses with real packets.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use portolan_model::Protocol::{Tcp, Udp};
use portolan_model::{
    Affinity, Change, Fact, Family, Outer, Protocol, Service, Slice, TrafficPolicy,
};
use portolan_netns::facts::{
    PORT, READY, Server, cluster_ip, node_port, service, slices, with_endpoints,
};
use portolan_netns::journey::Ending;
use portolan_netns::namespace::nft;
use portolan_netns::talk::{PATIENCE, Seen};
use portolan_netns::town::{A, B, C, NODE_1, in_town};
use portolan_netns::world::{Client, World};

const NUMBER: u8 = 41;
/// How often a client knocks: with three endpoints, staying by chance is one in
/// three to this.
const KNOCKS: usize = 15;

fn sticky(seconds: u32) -> Service {
    Service {
        affinity: Affinity::ClientIp { seconds },
        ..service("sticky", NUMBER)
    }
}

fn pods(world: &World, which: &[usize]) -> Vec<Server> {
    let pods = which.iter().map(|index| &world.pods[*index]);
    pods.map(|pod| Server::pod(world, pod, READY)).collect()
}

async fn served_by(
    world: &World,
    client: Client,
    protocol: Protocol,
    to: SocketAddr,
) -> Result<IpAddr> {
    match world.knock(client, protocol, to, PATIENCE).await? {
        Seen::Answer { server, .. } => Ok(server.ip()),
        other @ (Seen::Refused | Seen::Silence | Seen::Failed(_)) => {
            bail!("{client:?} {to}/{protocol}: {other:?}")
        }
    }
}

/// The one server that a client has.
async fn stays(
    world: &World,
    client: Client,
    protocol: Protocol,
    to: SocketAddr,
) -> Result<IpAddr> {
    let mut servers = BTreeSet::new();
    for _ in 0..KNOCKS {
        servers.insert(served_by(world, client, protocol, to).await?);
    }
    ensure!(
        servers.len() == 1,
        "{client:?} {to}/{protocol}: {servers:?}"
    );
    servers.pop_first().context("no server")
}

#[test]
fn p13_a_client_stays_with_its_endpoint() {
    in_town("p13_a_client_stays_with_its_endpoint", async |mut world| {
        let all = pods(&world, &[0, 1, 2]);
        world.apply(&with_endpoints(sticky(60), &all))?;
        for family in Family::BOTH {
            let node = world.address(NODE_1, family);
            let places = [
                SocketAddr::new(cluster_ip(family, NUMBER), PORT),
                SocketAddr::new(node, node_port(NUMBER)),
            ];
            for to in places {
                for protocol in [Tcp, Udp] {
                    for client in [A, C, NODE_1, Client::Stranger] {
                        stays(&world, client, protocol, to).await?;
                    }
                }
            }
        }
        Ok(())
    });
}

/// The client of an endpoint that goes gets another and stays there; the others
/// are not disturbed.
#[test]
fn p13_the_client_of_a_removed_endpoint_gets_another() {
    in_town(
        "p13_the_client_of_a_removed_endpoint_gets_another",
        async |mut world| {
            let all = pods(&world, &[0, 1, 2]);
            world.apply(&with_endpoints(sticky(60), &all))?;
            for family in Family::BOTH {
                let to = SocketAddr::new(cluster_ip(family, NUMBER), PORT);
                let mut left = vec![0, 1, 2];
                while left.len() > 1 {
                    let server = stays(&world, B, Tcp, to).await?;
                    let other = stays(&world, C, Tcp, to).await?;
                    left.retain(|pod| world.address(Client::Pod(*pod), family) != server);
                    let servers = pods(&world, &left);
                    world.apply(&slices("sticky", &servers))?;
                    let next = stays(&world, B, Tcp, to).await?;
                    ensure!(next != server, "{server} serves still");
                    if other != server {
                        ensure!(stays(&world, C, Tcp, to).await? == other, "disturbed");
                    }
                }
                let all = pods(&world, &[0, 1, 2]);
                world.apply(&slices("sticky", &all))?;
            }
            Ok(())
        },
    );
}

/// Each connection starts the time again; without one it runs out.
#[test]
fn p13_the_time_slides() {
    in_town("p13_the_time_slides", async |mut world| {
        let all = pods(&world, &[0, 1, 2]);
        world.apply(&with_endpoints(sticky(2), &all))?;
        let to = SocketAddr::new(cluster_ip(Family::V4, NUMBER), PORT);
        let began = Instant::now();
        let server = served_by(&world, B, Tcp, to).await?;
        // Three times as long as it lasts, never idle for so long.
        while began.elapsed() < Duration::from_secs(6) {
            ensure!(served_by(&world, B, Tcp, to).await? == server, "it moved");
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
        ensure!(world.remembered()? > 0, "nothing is remembered");
        let idle = Instant::now();
        while world.remembered()? > 0 {
            ensure!(idle.elapsed() < Duration::from_secs(20), "it never ends");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        ensure!(
            idle.elapsed() > Duration::from_secs(1),
            "it ended too early"
        );
        Ok(())
    });
}

/// A client that gets no answers is new to the kernel for all that it sends. It is
/// remembered once, by its first packet, as by kube-proxy.
#[test]
fn p13_packets_without_an_answer_do_not_slide_the_time() {
    const UNSERVED: u16 = 9;
    const DATAGRAMS: usize = 5;
    let name = "p13_packets_without_an_answer_do_not_slide_the_time";
    in_town(name, async |mut world| {
        let all = pods(&world, &[1]);
        let mut changes = with_endpoints(sticky(60), &all);
        for change in &mut changes {
            if let Change::Upsert(Fact::Slice(slice)) = change {
                let mut other = Slice::clone(slice);
                for port in &mut other.ports {
                    port.port = Some(UNSERVED);
                }
                *slice = other.into();
            }
        }
        world.apply(&changes)?;
        for (family, any, table) in [
            (Family::V4, IpAddr::V4(Ipv4Addr::UNSPECIFIED), "ip"),
            (Family::V6, IpAddr::V6(Ipv6Addr::UNSPECIFIED), "ip6"),
        ] {
            let to = SocketAddr::new(cluster_ip(family, NUMBER), PORT);
            world.namespace(A).run(|| {
                let socket = UdpSocket::bind((any, 0))?;
                (0..DATAGRAMS).try_for_each(|_| socket.send_to(b"anyone?", to).map(drop))
            })??;
            let chain = ["list", "chain", table, "portolan", "learn-udp-60"];
            let listing = world.namespace(NODE_1).run(|| nft(&chain, ""))?;
            ensure!(
                listing.contains("counter packets 1 "),
                "{family}: {listing}"
            );
        }
        Ok(())
    });
}

fn outer(family: Family, last: u8) -> IpAddr {
    let text = match family {
        Family::V4 => format!("198.51.100.{last}"),
        Family::V6 => format!("2001:db8:51::{last}"),
    };
    text.parse()
        .unwrap_or(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST))
}

/// Load balancer and external addresses, on nodes that do not have them, and
/// the ranges that may use them.
#[test]
fn p9_p10_p19_outer_addresses() {
    in_town("p9_p10_p19_outer_addresses", async |mut world| {
        let balanced = |name: &str, number: u8, last: u8, ranges: &[&str]| Service {
            outer: Some(Box::new(Outer {
                external_ips: Family::BOTH.map(|family| outer(family, last + 100)).into(),
                load_balancer_ips: Family::BOTH.map(|family| outer(family, last)).into(),
                health_check_port: None,
                source_ranges: ranges
                    .iter()
                    .filter_map(|range| range.parse().ok())
                    .collect(),
            })),
            ..service(name, number)
        };
        let near = pods(&world, &[0, 2]);
        world.apply(&with_endpoints(balanced("open", 42, 1, &[]), &near))?;
        let pods_only = ["10.244.0.0/16", "fd00:10:244::/48"];
        world.apply(&with_endpoints(
            balanced("closed", 43, 2, &pods_only),
            &near,
        ))?;
        let local = Service {
            external_policy: TrafficPolicy::Local,
            ..balanced("local", 44, 3, &[])
        };
        world.apply(&with_endpoints(local, &near))?;
        world.apply(&with_endpoints(balanced("empty", 45, 4, &[]), &[]))?;
        for family in Family::BOTH {
            for protocol in [Tcp, Udp] {
                for last in [1, 2, 3, 4, 101, 102, 103, 104] {
                    let to = SocketAddr::new(outer(family, last), PORT);
                    for client in [A, C, NODE_1] {
                        let endings = world.check(client, protocol, to).await?;
                        let refused = BTreeSet::from([Ending::Refused]);
                        let dropped = BTreeSet::from([Ending::Dropped]);
                        match last {
                            4 | 104 => ensure!(endings == refused, "{client:?} {to}: {endings:?}"),
                            2 if client == NODE_1 => {
                                ensure!(endings == dropped, "{client:?} {to}: {endings:?}");
                            }
                            _ => ensure!(!endings.contains(&Ending::Dropped), "{client:?} {to}"),
                        }
                    }
                }
            }
        }
        Ok(())
    });
}
