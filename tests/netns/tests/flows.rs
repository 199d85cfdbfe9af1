//! Flows without connections: where they go when endpoints come and go, and that
//! nobody else's are touched. Clients keep one source port, so that the kernel
//! takes each of their datagrams for the same flow.

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use portolan_conntrack::Entry;
use portolan_kernel::route::{Route, RouteKind};
use portolan_kernel::sysctl;
use portolan_lab::addresses;
use portolan_model::Protocol::Sctp;
use portolan_model::{
    Change, Fact, Family, Key, Publication, Service, ServicePort, SlicePort, TrafficPolicy,
};
use portolan_netns::facts::{
    LEAVING, PORT, READY, Server, UDP_TARGET, cluster_ip, node_port, service, slices,
};
use portolan_netns::namespace::nft;
use portolan_netns::raw::Wire;
use portolan_netns::sender::{PAUSE, Sender, entries};
use portolan_netns::talk::{PATIENCE, Seen, connect};
use portolan_netns::town::{self, A, B, C, NODE_1, in_town};
use portolan_netns::world::{Client, World};
use tokio::time::Instant;

const SCTP_SERVICE: u8 = 60;
const SCTP_PORT: u16 = 3868;
const SCTP_TARGET: u16 = 38_680;

/// Clients of all kinds, each to the address and to the node port of a Service.
fn senders(world: &World, number: u8) -> Vec<Sender> {
    let mut senders = Vec::new();
    for family in Family::BOTH {
        let address = SocketAddr::new(cluster_ip(family, number), PORT);
        let on_node = world.address(NODE_1, family);
        let on_node = SocketAddr::new(on_node, node_port(number));
        for client in [B, C, NODE_1, Client::Stranger] {
            senders.extend([address, on_node].map(|to| Sender::new(world, client, to)));
        }
    }
    senders
}

fn udp_of(world: &World, pod: usize, like: SocketAddr) -> SocketAddr {
    let address = world.address(Client::Pod(pod), Family::of(like.ip()));
    SocketAddr::new(address, UDP_TARGET)
}

#[test]
fn p17_a_client_reaches_the_endpoint_that_replaced_its_own() {
    in_town(
        "p17_a_client_reaches_the_endpoint_that_replaced_its_own",
        async |mut world| {
            let senders = senders(&world, town::ALONE);
            for sender in &senders {
                assert_eq!(sender.server().await?, udp_of(&world, 0, sender.to));
            }
            let other = Server::pod(&world, &world.pods[2], READY);
            world.apply(&slices("alone", &[other]))?;
            // This is what it is about: left alone, they would stay where they were.
            for sender in &senders {
                assert_eq!(sender.server().await?, udp_of(&world, 0, sender.to));
            }
            world.tend_flows()?;
            for sender in &senders {
                sender.until_served_by(udp_of(&world, 2, sender.to)).await?;
            }
            // Now by what each change touches.
            for pod in [1, 0] {
                let other = Server::pod(&world, &world.pods[pod], READY);
                world.apply(&slices("alone", &[other]))?;
                for sender in &senders {
                    sender
                        .until_served_by(udp_of(&world, pod, sender.to))
                        .await?;
                }
            }
            Ok(())
        },
    );
}

#[test]
fn p17_no_endpoint_is_refused_and_the_next_one_is_reached() {
    in_town(
        "p17_no_endpoint_is_refused_and_the_next_one_is_reached",
        async |mut world| {
            world.tend_flows()?;
            let senders = senders(&world, town::ALONE);
            for sender in &senders {
                sender.server().await?;
            }
            world.apply(&slices("alone", &[]))?;
            for sender in &senders {
                sender.until(|seen| *seen == Seen::Refused).await?;
            }
            let other = Server::pod(&world, &world.pods[2], READY);
            world.apply(&slices("alone", &[other]))?;
            for sender in &senders {
                sender.until_served_by(udp_of(&world, 2, sender.to)).await?;
            }
            Ok(())
        },
    );
}

/// A deleted Service answers nobody, also not those who were talking to it.
#[test]
fn p17_a_deleted_service_is_left() {
    in_town("p17_a_deleted_service_is_left", async |mut world| {
        world.tend_flows()?;
        let senders = senders(&world, town::ALONE);
        for sender in &senders {
            sender.server().await?;
        }
        let key = service("alone", town::ALONE).key;
        world.apply(&[Change::Delete(Key::Service(key))])?;
        for sender in &senders {
            sender
                .until(|seen| !matches!(seen, Seen::Answer { .. }))
                .await?;
        }
        Ok(())
    });
}

/// A client that sent before there were rules: its flow is tracked untranslated.
#[test]
fn p17_flows_from_before_the_rules_find_their_way() {
    in_town(
        "p17_flows_from_before_the_rules_find_their_way",
        async |mut world| {
            let node = &mut world.nodes[0];
            node.hold_rules(false)?;
            // Somebody else's rules track connections, and there is a way for
            // packets to Services, so that they leave the node.
            let theirs = "table inet theirs {
                chain c { type filter hook forward priority 0; ct state new accept; }
                chain d { type filter hook output priority 0; ct state new accept; }
            }";
            node.net.netns.run(|| nft(&["-f", "-"], theirs))?;
            let ways = addresses::services().into_iter().zip(addresses::node(3));
            for (services, next) in ways {
                let route = Route::new(services, RouteKind::Via(next.addr()));
                node.net.links.replace_route(&route).await?;
            }
            world.nodes[2].hold_rules(false)?;
            let senders: Vec<Sender> = [A, B, NODE_1]
                .into_iter()
                .flat_map(|client| Family::BOTH.map(|family| (client, family)))
                .map(|(client, family)| {
                    let to = SocketAddr::new(cluster_ip(family, town::WEB), PORT);
                    Sender::new(&world, client, to)
                })
                .collect();
            for sender in &senders {
                sender.send().await?;
                let found = entries(&world.nodes[0].net.netns, sender.to)?;
                let own = |entry: &&Entry| {
                    entry.original.from().map(|from| from.port()) == Some(sender.port)
                };
                let entry = found.iter().find(own).with_context(|| {
                    format!("no entry of {} to {} in {found:?}", sender.port, sender.to)
                })?;
                ensure!(!entry.is_translated(), "{entry:?}");
            }
            world.nodes[0].hold_rules(true)?;
            for sender in &senders {
                let seen = sender.send().await?;
                ensure!(!matches!(seen, Seen::Answer { .. }), "{seen:?} by itself");
            }
            world.tend_flows()?;
            for sender in &senders {
                sender
                    .until(|seen| matches!(seen, Seen::Answer { .. }))
                    .await?;
            }
            Ok(())
        },
    );
}

/// Whoever still serves keeps flows, whatever else changes; an agent that starts
/// anew leaves them too.
#[test]
fn p17_p21_flows_to_who_serves_stay() {
    in_town("p17_p21_flows_to_who_serves_stay", async |mut world| {
        world.tend_flows()?;
        let to = SocketAddr::new(cluster_ip(Family::V4, town::WEB), PORT);
        let senders: Vec<Sender> = (0..12).map(|_| Sender::new(&world, A, to)).collect();
        let mut servers = Vec::new();
        for sender in &senders {
            servers.push(sender.server().await?);
        }
        let ids = |world: &World| -> Result<Vec<u32>> {
            let mut ids: Vec<u32> = entries(&world.nodes[0].net.netns, to)?
                .iter()
                .map(|e| e.id)
                .collect();
            ids.sort_unstable();
            ids.dedup();
            Ok(ids)
        };
        let before = ids(&world)?;
        assert_eq!(before.len(), senders.len());
        let (ready, leaving) = (READY, LEAVING);
        let pods = |world: &World, conditions: [_; 3]| -> Vec<Server> {
            let pods = world.pods.iter().zip(conditions);
            pods.map(|(pod, conditions)| Server::pod(world, pod, conditions))
                .collect()
        };
        let mut local = service("web", town::WEB);
        local.internal_policy = TrafficPolicy::Local;
        world.apply(&[Change::Upsert(Fact::Service(local.into()))])?;
        world.apply(&slices("web", &pods(&world, [ready, leaving, ready])))?;
        world.apply(&slices("web", &pods(&world, [leaving, leaving, leaving])))?;
        let mut other = service("web", town::WEB);
        other.external_policy = TrafficPolicy::Local;
        world.apply(&[Change::Upsert(Fact::Service(other.into()))])?;
        world.leave_flows();
        world.tend_flows()?;
        // Another Service's flow is stale: once it is ended, all were looked at.
        let alone = SocketAddr::new(cluster_ip(Family::V4, town::ALONE), PORT);
        let canary = Sender::new(&world, B, alone);
        canary.server().await?;
        world.leave_flows();
        world.apply(&slices(
            "alone",
            &[Server::pod(&world, &world.pods[2], READY)],
        ))?;
        world.tend_flows()?;
        canary.until_served_by(udp_of(&world, 2, alone)).await?;
        assert_eq!(ids(&world)?, before);
        for (sender, server) in senders.iter().zip(servers) {
            assert_eq!(sender.server().await?, server);
        }
        Ok(())
    });
}

/// Open TCP connections keep their endpoint even when it is gone: looking through
/// all flows ends none of them.
#[test]
fn p18_connections_are_not_ended() {
    in_town("p18_connections_are_not_ended", async |mut world| {
        let mut open = Vec::new();
        for client in [B, C, NODE_1, Client::Stranger] {
            for family in Family::BOTH {
                let to = SocketAddr::new(cluster_ip(family, town::ALONE), PORT);
                open.push(connect(world.namespace(client), world.port(), to).await??);
            }
        }
        let alone = SocketAddr::new(cluster_ip(Family::V4, town::ALONE), PORT);
        let canary = Sender::new(&world, B, alone);
        canary.server().await?;
        let other = Server::pod(&world, &world.pods[2], READY);
        world.apply(&slices("alone", &[other]))?;
        world.tend_flows()?;
        canary.until_served_by(udp_of(&world, 2, alone)).await?;
        for connection in &mut open {
            connection.echo("its endpoint left").await?;
        }
        Ok(())
    });
}

/// A Service of one SCTP port, for which nobody needs to speak SCTP: what counts is
/// where the first packets of an association go.
fn sctp_service() -> Service {
    let port = ServicePort {
        name: "sctp".into(),
        protocol: Sctp,
        port: SCTP_PORT,
        node_port: None,
    };
    Service {
        publication: Publication::ClusterIp,
        ports: vec![port],
        ..service("sctp", SCTP_SERVICE)
    }
}

fn sctp_slices(world: &World, pod: usize) -> [Change; 2] {
    let server = Server::pod(world, &world.pods[pod], READY);
    slices("sctp", &[server]).map(|change| {
        let Change::Upsert(Fact::Slice(mut slice)) = change else {
            unreachable!("slices come as upserts");
        };
        let ports = vec![SlicePort {
            name: "sctp".into(),
            protocol: Sctp,
            port: Some(SCTP_TARGET),
        }];
        std::sync::Arc::make_mut(&mut slice).ports = ports;
        Change::Upsert(Fact::Slice(slice))
    })
}

/// An association that is asked for again and again reaches the new endpoint.
#[test]
fn p17_sctp_reaches_the_endpoint_that_replaced_its_own() {
    in_town(
        "p17_sctp_reaches_the_endpoint_that_replaced_its_own",
        async |mut world| {
            // Not by its end of its own after three seconds.
            let lasting = ("net.netfilter.nf_conntrack_sctp_timeout_cookie_wait", "60");
            sysctl::set(&world.nodes[0].net.netns, lasting.0, lasting.1)?;
            world.apply(&[Change::Upsert(Fact::Service(sctp_service().into()))])?;
            world.apply(&sctp_slices(&world, 0))?;
            for family in Family::BOTH {
                let to = SocketAddr::new(cluster_ip(family, SCTP_SERVICE), SCTP_PORT);
                let tap = |client| -> Result<Wire> {
                    Wire::tap(world.namespace(client), world.address(client, family), Sctp)
                };
                let (client, a, c) = (tap(B)?, tap(A)?, tap(C)?);
                let port = world.port();
                client.sctp_init(port, to)?;
                let from = a.arrival(SCTP_TARGET).await?;
                assert_eq!(from, SocketAddr::new(world.address(B, family), port));
                world.apply(&sctp_slices(&world, 2))?;
                client.sctp_init(port, to)?;
                a.arrival(SCTP_TARGET).await?;
                world.tend_flows()?;
                let end = Instant::now() + PATIENCE;
                while !c.has_come(SCTP_TARGET)? {
                    client.sctp_init(port, to)?;
                    ensure!(Instant::now() < end, "{to}: still to the old endpoint");
                    tokio::time::sleep(PAUSE).await;
                }
                world.leave_flows();
                world.apply(&sctp_slices(&world, 0))?;
            }
            Ok(())
        },
    );
}

/// A storm of changes: whatever the last one says holds soon after.
#[test]
fn p17_the_last_of_many_changes_counts() {
    in_town("p17_the_last_of_many_changes_counts", async |mut world| {
        world.tend_flows()?;
        let to = SocketAddr::new(cluster_ip(Family::V4, town::ALONE), PORT);
        let senders: Vec<Sender> = [B, C, NODE_1]
            .map(|client| Sender::new(&world, client, to))
            .into();
        for round in 0..100 {
            let server = Server::pod(&world, &world.pods[round % 3], READY);
            for node in &mut world.nodes {
                node.apply(&slices("alone", std::slice::from_ref(&server)))?;
            }
            senders[round % senders.len()].send().await?;
        }
        for sender in &senders {
            sender.until_served_by(udp_of(&world, 0, to)).await?;
        }
        Ok(())
    });
}
