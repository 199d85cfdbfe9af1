//! The plan, the interpreter and the kernel held to each other, by real packets.
//!
//! A town of three nodes is made of the lab's own parts; each node's rules are
//! what its plan renders. Clients of every kind then knock at every place, and
//! what becomes of it is what `why` said beforehand; the interpreter runs the same
//! packets through the same rules.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use portolan_kernel::sysctl;
use portolan_model::Protocol::{Tcp, Udp};
use portolan_model::{Family, ServicePort};
use portolan_netns::facts::{
    PORT, READY, Server, TCP_TARGET, UDP_TARGET, cluster_ip, node_port, service, with_endpoints,
};
use portolan_netns::journey::Ending;
use portolan_netns::namespace::nft;
use portolan_netns::talk::{PATIENCE, Seen, repeated_handshakes};
use portolan_netns::town::{
    self, A, B, C, EVERYBODY, NODE_1, at, everybody_to, in_town, places, servers,
};
use portolan_netns::world::{Client, lab_view};
use portolan_plan::{DNS_PORT, NodeView};

/// Every client at every place of every Service: what `why` says comes true.
#[test]
fn p1_p3_p7_p23_everybody_meets_what_why_says() {
    in_town(
        "p1_p3_p7_p23_everybody_meets_what_why_says",
        async |world| {
            let places: Vec<_> = town::ALL
                .iter()
                .flat_map(|number| places(&world, *number))
                .collect();
            let done = world.check_all(everybody_to(&places)).await?;
            assert_eq!(
                done.len(),
                9 * 2 * (7 * 8 + 6),
                "Services, protocols, clients and places"
            );
            Ok(())
        },
    );
}

#[test]
fn p1_p3_which_endpoints_answer() {
    in_town("p1_p3_which_endpoints_answer", async |world| {
        // Who asks node 1, and which pods answer.
        let rows: [(Client, u8, &[Client]); 8] = [
            (B, town::WEB, &[A, B, C]),
            (NODE_1, town::MIXED, &[A]),
            (B, town::CLOSING, &[B, C]),
            (B, town::INTERNAL_LOCAL, &[A]),
            (C, town::INTERNAL_LOCAL, &[C]),
            (Client::Stranger, town::INTERNAL_LOCAL, &[A]),
            (Client::Node(1), town::FAR, &[C]),
            (C, town::ALONE, &[A]),
        ];
        for (client, number, pods) in rows {
            for family in Family::BOTH {
                for (protocol, target) in [(Tcp, TCP_TARGET), (Udp, UDP_TARGET)] {
                    let to = SocketAddr::new(cluster_ip(family, number), PORT);
                    let endings = world.check(client, protocol, to).await?;
                    assert_eq!(
                        servers(&endings),
                        at(&world, pods, family, target),
                        "{client:?} {to}"
                    );
                }
            }
        }
        Ok(())
    });
}

/// Without endpoints everybody is refused, by the answer to the first packet: no
/// handshake is repeated.
#[test]
fn p5_no_endpoints_refuse_at_once() {
    in_town("p5_no_endpoints_refuse_at_once", async |world| {
        for (client, protocol, to) in everybody_to(&places(&world, town::NOBODY)) {
            let before = repeated_handshakes(world.namespace(client))?;
            let seen = world.knock(client, protocol, to, PATIENCE).await?;
            assert_eq!(seen, Seen::Refused, "{client:?} to {to}/{protocol}");
            let after = repeated_handshakes(world.namespace(client))?;
            assert_eq!(before, after, "{client:?} to {to}: repeated");
            world.check(client, protocol, to).await?;
        }
        Ok(())
    });
}

/// A Local policy without local endpoints, while others exist: no answer at all.
#[test]
fn p5_local_without_local_endpoints_drops() {
    in_town("p5_local_without_local_endpoints_drops", async |world| {
        let dropped = BTreeSet::from([Ending::Dropped]);
        let mut pairs = Vec::new();
        for family in Family::BOTH {
            let cluster_ip = SocketAddr::new(cluster_ip(family, town::FAR), PORT);
            pairs.extend([A, NODE_1, Client::Stranger].map(|client| (client, cluster_ip)));
            let node_port = SocketAddr::new(world.address(NODE_1, family), node_port(town::FAR));
            pairs.extend([Client::Outside, Client::Stranger].map(|client| (client, node_port)));
        }
        let both = pairs
            .iter()
            .flat_map(|(client, to)| [(*client, Tcp, *to), (*client, Udp, *to)]);
        let both: Vec<_> = both.collect();
        for (client, protocol, to) in &both {
            let endings = world.endings(*client, *protocol, *to)?;
            assert_eq!(endings, dropped, "{client:?} to {to}/{protocol}");
        }
        world.check_all(both).await?;
        Ok(())
    });
}

#[test]
fn p6_undefined_ports_refuse_and_unallocated_addresses_drop() {
    in_town(
        "p6_undefined_ports_refuse_and_unallocated_addresses_drop",
        async |world| {
            let mut places = Vec::new();
            for family in Family::BOTH {
                let undefined = SocketAddr::new(cluster_ip(family, town::WEB), PORT + 1);
                places.push((undefined, Ending::Refused));
                let unallocated = SocketAddr::new(cluster_ip(family, 99), PORT);
                places.push((unallocated, Ending::Dropped));
            }
            let clients = || {
                EVERYBODY
                    .into_iter()
                    .filter(|client| *client != Client::Outside)
            };
            for (client, (to, ending)) in
                clients().flat_map(|client| places.iter().map(move |place| (client, place)))
            {
                for protocol in [Tcp, Udp] {
                    let endings = world.endings(client, protocol, *to)?;
                    assert_eq!(
                        endings,
                        BTreeSet::from([ending.clone()]),
                        "{client:?} to {to}"
                    );
                }
            }
            let pairs = clients().flat_map(|client| {
                let both = move |to: SocketAddr| [(client, Tcp, to), (client, Udp, to)];
                places.iter().flat_map(move |(to, _)| both(*to))
            });
            world.check_all(pairs).await?;
            Ok(())
        },
    );
}

/// An endpoint reaches itself through each of its Service's places, and sees a node.
#[test]
fn p8_an_endpoint_reaches_itself() {
    in_town("p8_an_endpoint_reaches_itself", async |world| {
        for protocol in [Tcp, Udp] {
            for to in places(&world, town::ALONE) {
                let own = world.address(A, Family::of(to.ip()));
                let Seen::Answer { server, peer } = world.knock(A, protocol, to, PATIENCE).await?
                else {
                    bail!("{to}/{protocol}: no answer");
                };
                ensure!(
                    server.ip() == own && peer != own,
                    "{to}/{protocol}: {server} sees {peer}"
                );
                world.check(A, protocol, to).await?;
            }
        }
        Ok(())
    });
}

/// One number on two protocols is two ports, and a protocol without the port is
/// not let through.
#[test]
fn p12_protocols_are_independent() {
    in_town("p12_protocols_are_independent", async |mut world| {
        let mut tcp_only = service("tcp-only", 31);
        tcp_only.ports.retain(|port| port.protocol == Tcp);
        let server = Server::pod(&world, &world.pods[0], READY);
        world.apply(&with_endpoints(tcp_only, &[server]))?;
        for family in Family::BOTH {
            let web = SocketAddr::new(cluster_ip(family, town::ALONE), PORT);
            for (protocol, port) in [(Tcp, TCP_TARGET), (Udp, UDP_TARGET)] {
                let endings = world.check(C, protocol, web).await?;
                assert_eq!(servers(&endings), at(&world, &[A], family, port));
            }
            let node = world.address(NODE_1, family);
            for to in [
                SocketAddr::new(cluster_ip(family, 31), PORT),
                SocketAddr::new(node, node_port(31)),
            ] {
                assert_eq!(servers(&world.check(C, Tcp, to).await?).len(), 1, "{to}");
                let other = world.check(C, Udp, to).await?;
                assert_eq!(other, BTreeSet::from([Ending::Refused]), "{to}/udp");
            }
        }
        Ok(())
    });
}

/// On one node a pod reaches a Service whose endpoint is its neighbour, though no
/// bridge passes packets to the rules: pods are routed.
#[test]
fn neighbours_are_translated_without_bridge_netfilter() {
    in_town(
        "neighbours_are_translated_without_bridge_netfilter",
        async |world| {
            let namespaces = world
                .nodes
                .iter()
                .map(|node| &node.net.netns)
                .chain([world.fabric.outside()]);
            for ns in namespaces {
                for kind in ["iptables", "ip6tables", "arptables"] {
                    let name = format!("net.bridge.bridge-nf-call-{kind}");
                    let file =
                        Path::new("/proc/sys/net/bridge").join(format!("bridge-nf-call-{kind}"));
                    if ns.run(|| file.exists())? {
                        sysctl::set(ns, &name, "0")?;
                        assert_eq!(sysctl::get(ns, &name)?, "0");
                    } else {
                        // Then no bridge of this kernel shows packets to the rules anyway.
                        assert!(sysctl::get(ns, &name).is_err(), "{name} is not there");
                    }
                }
            }
            for family in Family::BOTH {
                for protocol in [Tcp, Udp] {
                    let to = SocketAddr::new(cluster_ip(family, town::ALONE), PORT);
                    let endings = world.check(B, protocol, to).await?;
                    assert_eq!(servers(&endings).len(), 1, "from the neighbour");
                    world.check(A, protocol, to).await?;
                    world.check(C, protocol, to).await?;
                }
            }
            Ok(())
        },
    );
}

/// Names are answered by the node that the query meets first, untranslated: the
/// server sees the client. Another port of that address is a Service's as usual.
#[test]
fn p7_p22_names_are_answered_where_the_query_is() {
    in_town(
        "p7_p22_names_are_answered_where_the_query_is",
        async |mut world| {
            const DNS: u8 = 10;
            let addresses = Family::BOTH.map(|family| cluster_ip(family, DNS));
            world.answer_names(&addresses).await?;
            let mut names = service("names", DNS);
            names.ports.iter_mut().for_each(|port| port.port = DNS_PORT);
            let metrics = ServicePort {
                name: "metrics".into(),
                protocol: Tcp,
                port: 9153,
                node_port: None,
            };
            names.ports.push(metrics);
            let view = NodeView {
                dns_addresses: addresses.into(),
                ..lab_view()
            };
            world.look(&view)?;
            world.apply(&with_endpoints(names, &[]))?;
            for (client, address) in [A, C, NODE_1, Client::Stranger]
                .into_iter()
                .flat_map(|client| addresses.map(|address| (client, address)))
            {
                let at = SocketAddr::new(address, DNS_PORT);
                // The node itself talks to itself by that very address.
                let source = if client == NODE_1 {
                    address
                } else {
                    world.address(client, Family::of(address))
                };
                for protocol in [Tcp, Udp] {
                    let seen = world.knock(client, protocol, at, PATIENCE).await?;
                    let expected = Seen::Answer {
                        server: at,
                        peer: source,
                    };
                    assert_eq!(seen, expected, "{client:?} to {at}/{protocol}");
                }
                for port in [9153, 81] {
                    let to = SocketAddr::new(address, port);
                    let endings = world.check(client, Tcp, to).await?;
                    assert_eq!(
                        endings,
                        BTreeSet::from([Ending::Refused]),
                        "{client:?} {to}"
                    );
                }
            }
            Ok(())
        },
    );
}

/// What is measured here, is: without the rules nothing comes true.
#[test]
fn rules_that_are_not_there_are_noticed() {
    in_town("rules_that_are_not_there_are_noticed", async |world| {
        let [v4, v6] =
            Family::BOTH.map(|family| SocketAddr::new(cluster_ip(family, town::WEB), PORT));
        world.check(B, Tcp, v4).await?;
        let node = world.nodes.first().context("node 1")?;
        node.net
            .netns
            .run(|| nft(&["delete", "table", "ip", "portolan"], ""))?;
        let error = world
            .check(B, Tcp, v4)
            .await
            .err()
            .context("no rules, and yet")?;
        assert!(error.to_string().contains("not one of"), "{error}");
        world.check(B, Tcp, v6).await?;
        world.check(C, Tcp, v4).await?;
        Ok(())
    });
}
