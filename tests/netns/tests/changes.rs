//! Changes under traffic: what comes next goes the new way, what is open stays.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use portolan_model::Protocol::{Tcp, Udp};
use portolan_model::{Change, Fact, Family};
use portolan_netns::facts::{
    PORT, READY, Server, TCP_TARGET, UDP_TARGET, cluster_ip, service, slices, with_endpoints,
};
use portolan_netns::journey::Ending;
use portolan_netns::talk::{PATIENCE, Seen, connect, knock, repeated_handshakes};
use portolan_netns::town::{self, A, B, C, NODE_1, at, in_town, servers};
use portolan_netns::world::Client;

/// Datagrams from a new port reach the new endpoint; so do new connections.
#[test]
fn p20_a_changed_endpoint_gets_what_comes_next() {
    in_town(
        "p20_a_changed_endpoint_gets_what_comes_next",
        async |mut world| {
            for family in Family::BOTH {
                let to = SocketAddr::new(cluster_ip(family, town::ALONE), PORT);
                for pod in [2, 1, 0] {
                    let server = Server::pod(&world, &world.pods[pod], READY);
                    world.apply(&slices("alone", &[server]))?;
                    for client in [B, NODE_1, Client::Stranger] {
                        for (protocol, port) in [(Udp, UDP_TARGET), (Tcp, TCP_TARGET)] {
                            let endings = world.check(client, protocol, to).await?;
                            assert_eq!(
                                servers(&endings),
                                at(&world, &[Client::Pod(pod)], family, port)
                            );
                        }
                    }
                }
            }
            Ok(())
        },
    );
}

/// Type, ports and target ports that change count from the next connection on.
#[test]
fn p20_ports_that_change_count_for_new_connections() {
    in_town(
        "p20_ports_that_change_count_for_new_connections",
        async |mut world| {
            let old = SocketAddr::new(cluster_ip(Family::V4, town::ALONE), PORT);
            let new = SocketAddr::new(old.ip(), 8888);
            assert_eq!(servers(&world.check(C, Tcp, old).await?).len(), 1);
            let mut moved = service("alone", town::ALONE);
            moved
                .ports
                .iter_mut()
                .for_each(|port| port.port = new.port());
            world.apply(&[Change::Upsert(Fact::Service(moved.clone().into()))])?;
            assert_eq!(
                world.check(C, Tcp, old).await?,
                BTreeSet::from([Ending::Refused])
            );
            assert_eq!(servers(&world.check(C, Tcp, new).await?).len(), 1);
            let key = portolan_model::Key::Service(moved.key.clone());
            world.apply(&[Change::Delete(key)])?;
            assert_eq!(
                world.check(C, Tcp, new).await?,
                BTreeSet::from([Ending::Dropped])
            );
            world.apply(&[Change::Upsert(Fact::Service(moved.into()))])?;
            assert_eq!(servers(&world.check(C, Tcp, new).await?).len(), 1);
            Ok(())
        },
    );
}

/// Open connections keep their endpoint, whatever happens to other Services and to
/// their own.
#[test]
fn p18_open_connections_keep_their_endpoint() {
    in_town(
        "p18_open_connections_keep_their_endpoint",
        async |mut world| {
            let mut open = Vec::new();
            for client in [A, B, C, NODE_1, Client::Stranger] {
                for family in Family::BOTH {
                    let to = SocketAddr::new(cluster_ip(family, town::ALONE), PORT);
                    let mut connection =
                        connect(world.namespace(client), world.port(), to).await??;
                    connection.echo("before").await?;
                    open.push(connection);
                }
            }
            world.apply(&with_endpoints(service("new", 40), &[]))?;
            world.apply(&slices("web", &[]))?;
            for connection in &mut open {
                connection.echo("others changed").await?;
            }
            let other = Server::pod(&world, &world.pods[2], READY);
            world.apply(&slices("alone", &[other]))?;
            for connection in &mut open {
                connection.echo("its own changed").await?;
            }
            world.apply(&slices("alone", &[]))?;
            for connection in &mut open {
                connection.echo("none is left").await?;
            }
            Ok(())
        },
    );
}

/// 200 connections per second, and a delta every 20 ms: each connection is
/// answered, and no handshake had to be repeated.
#[test]
fn p20_deltas_lose_no_connection() {
    in_town("p20_deltas_lose_no_connection", async |mut world| {
        const CONNECTIONS: u32 = 300;
        let client = world.namespace(C).clone();
        let ports: Vec<u16> = (0..CONNECTIONS).map(|_| world.port()).collect();
        let to = SocketAddr::new(cluster_ip(Family::V4, town::WEB), PORT);
        let before = repeated_handshakes(&client)?;
        let rate = client.clone();
        let load = tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_secs(1) / 200);
            let mut running = tokio::task::JoinSet::new();
            for port in ports {
                tick.tick().await;
                let ns = rate.clone();
                running.spawn(async move { knock(&ns, port, Tcp, to, PATIENCE).await });
            }
            running.join_all().await
        });
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        let mut deltas = 0;
        while !load.is_finished() {
            tick.tick().await;
            let stays = Server::pod(&world, &world.pods[2], READY);
            let comes = Server::pod(&world, &world.pods[deltas % 2], READY);
            let servers = if deltas % 3 == 0 {
                vec![stays]
            } else {
                vec![stays, comes]
            };
            let changes = slices("web", &servers);
            for node in &mut world.nodes {
                node.apply(&changes)?;
            }
            deltas += 1;
        }
        let ended = load.await?;
        assert!(deltas >= 20, "only {deltas} deltas");
        for seen in &ended {
            let seen = seen
                .as_ref()
                .map_err(|error| anyhow::anyhow!("{error:?}"))?;
            assert!(matches!(seen, Seen::Answer { .. }), "{seen:?}");
        }
        assert_eq!(ended.len(), usize::try_from(CONNECTIONS)?);
        assert_eq!(
            repeated_handshakes(&client)?,
            before,
            "a handshake was repeated"
        );
        Ok(())
    });
}
