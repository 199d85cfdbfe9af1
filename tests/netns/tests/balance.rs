//! Algorithms and weights with real packets, and the kernel's hash beside ours.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use anyhow::{Result, bail, ensure};
use portolan_kernel::netns::NetNs;
use portolan_kernel::nft::Nft;
use portolan_model::Protocol::{Tcp, Udp};
use portolan_model::{Algorithm, Change, Fact, Family, Protocol, Service, Spread};
use portolan_netns::facts::{
    PORT, READY, Server, cluster_ip, node_port, service, slices, with_endpoints,
};
use portolan_netns::namespace::inside;
use portolan_netns::talk::{PATIENCE, Seen};
use portolan_netns::town::{A, B, C, NODE_1, in_town};
use portolan_netns::world::{Client, World};
use portolan_nft::{
    Chain, ChainType, Data, DynOp, Field, Hook, Key, Rule, Ruleset, Set, Statement, Table, TableId,
    Value, diff, hash,
};
use portolan_plan::LinkName;
use portolan_why::{Packet, trace};
use socket2::{Domain, Socket, Type};

const ONE: u8 = 51;
const OTHER: u8 = 52;

fn balanced(name: &str, number: u8, algorithm: Algorithm) -> Service {
    let spread = Spread {
        algorithm: Some(algorithm),
        weights: Vec::new(),
    };
    Service {
        spread: Some(Box::new(spread)),
        ..service(name, number)
    }
}

fn pods(world: &World, which: &[usize]) -> Vec<Server> {
    let pods = which.iter().map(|index| &world.pods[*index]);
    pods.map(|pod| Server::pod(world, pod, READY)).collect()
}

/// The same slices, whose endpoints have a weight.
fn weighing(slices: [Change; 2], name: &str, weight: u16) -> Vec<Change> {
    let heavier = |change: Change| match change {
        Change::Upsert(Fact::Slice(slice)) => {
            let mut slice = (*slice).clone();
            slice.weight = weight;
            slice.key.name = format!("{}-{name}", slice.key.name).into();
            Change::Upsert(Fact::Slice(slice.into()))
        }
        other @ (Change::Upsert(_)
        | Change::Delete(_)
        | Change::Replace(..)
        | Change::Attach(_)
        | Change::Detach(..)) => other,
    };
    slices.map(heavier).into()
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

/// Two Services whose clients alternate: each still takes its endpoints in turn.
#[test]
fn interleaved_services_take_turns_exactly() {
    in_town(
        "interleaved_services_take_turns_exactly",
        async |mut world| {
            let all = pods(&world, &[0, 1, 2]);
            world.apply(&with_endpoints(
                balanced("one", ONE, Algorithm::RoundRobin),
                &all,
            ))?;
            world.apply(&with_endpoints(
                balanced("other", OTHER, Algorithm::RoundRobin),
                &all[..2],
            ))?;
            for (family, protocol) in [(Family::V4, Tcp), (Family::V6, Tcp), (Family::V4, Udp)] {
                let mut counts: BTreeMap<(u8, IpAddr), u32> = BTreeMap::new();
                for _ in 0..12 {
                    for number in [ONE, OTHER] {
                        let to = SocketAddr::new(cluster_ip(family, number), PORT);
                        let server = served_by(&world, A, protocol, to).await?;
                        *counts.entry((number, server)).or_default() += 1;
                    }
                }
                let of = |number| {
                    let mine = counts.iter().filter(|((of, _), _)| *of == number);
                    mine.map(|(_, count)| *count).collect::<Vec<_>>()
                };
                assert_eq!((of(ONE), of(OTHER)), (vec![4; 3], vec![6; 2]), "{counts:?}");
            }
            // An endpoint is replaced: the counter goes on where it was.
            let to = SocketAddr::new(cluster_ip(Family::V4, OTHER), PORT);
            let first = served_by(&world, A, Tcp, to).await?;
            world.apply(&slices("other", &[all[0].clone(), all[2].clone()]))?;
            let second = served_by(&world, A, Tcp, to).await?;
            assert_ne!(first, second);
            Ok(())
        },
    );
}

/// Three to one, whatever the algorithm; nothing where the weight is 0.
#[test]
fn weights_give_the_stated_share() {
    in_town("weights_give_the_stated_share", async |mut world| {
        let [light, heavy, none] = [0, 1, 2].map(|pod| pods(&world, &[pod]));
        for (number, algorithm) in [(ONE, Algorithm::RoundRobin), (OTHER, Algorithm::Random)] {
            let name = format!("web-{algorithm}");
            world.apply(&with_endpoints(balanced(&name, number, algorithm), &light))?;
            world.apply(&weighing(slices(&name, &heavy), "heavy", 3))?;
            world.apply(&weighing(slices(&name, &none), "none", 0))?;
        }
        let [light, heavy] = [A, B].map(|pod| world.address(pod, Family::V4));
        let mut counts: BTreeMap<(u8, IpAddr), i32> = BTreeMap::new();
        for number in [ONE, OTHER] {
            let to = SocketAddr::new(cluster_ip(Family::V4, number), PORT);
            for _ in 0..200 {
                let server = served_by(&world, C, Udp, to).await?;
                *counts.entry((number, server)).or_default() += 1;
            }
        }
        let at = |number, server| counts.get(&(number, server)).copied().unwrap_or(0);
        assert_eq!([at(ONE, light), at(ONE, heavy)], [50, 150]);
        // At random 150 are expected, give or take 6: this is eight times as much.
        let random = at(OTHER, heavy);
        assert!((102..=198).contains(&random), "{counts:?}");
        assert_eq!(
            random + at(OTHER, light),
            200,
            "none goes to the weight of 0"
        );
        Ok(())
    });
}

/// A client has one endpoint, at whatever place of whichever node it knocks, which
/// is the one that the trace names.
#[test]
fn a_client_has_one_endpoint_everywhere() {
    in_town("a_client_has_one_endpoint_everywhere", async |mut world| {
        let all = pods(&world, &[0, 1, 2]);
        world.apply(&with_endpoints(
            balanced("one", ONE, Algorithm::Maglev),
            &all,
        ))?;
        let mut met = BTreeSet::new();
        for family in Family::BOTH {
            let nodes = [0, 1, 2].map(|node| world.address(Client::Node(node), family));
            let node_ports = nodes.map(|node| SocketAddr::new(node, node_port(ONE)));
            let cluster = SocketAddr::new(cluster_ip(family, ONE), PORT);
            for client in [A, B, C, NODE_1, Client::Stranger] {
                let mut seen = BTreeSet::new();
                for to in node_ports.into_iter().chain([cluster]) {
                    // Another node sees what leaves this one masqueraded, by its own rules.
                    if client == NODE_1 && to != cluster && to.ip() != nodes[0] {
                        continue;
                    }
                    for protocol in [Tcp, Udp] {
                        world.check(client, protocol, to).await?;
                        let server = served_by(&world, client, protocol, to).await?;
                        seen.insert(server);
                    }
                }
                ensure!(seen.len() == 1, "{client:?} of {family}: {seen:?}");
                met.extend(seen);
            }
        }
        assert!(met.len() > 2, "not all clients have the same: {met:?}");
        few_clients_move(&mut world, &all)
    });
}

/// One of three endpoints goes: its clients move, and few others.
fn few_clients_move(world: &mut World, all: &[Server]) -> Result<()> {
    let chosen = |world: &World| -> Vec<IpAddr> {
        let rig = &world.nodes[0].rig;
        let of = |client: u32| {
            let packet = Packet {
                source: Ipv4Addr::from_bits(0xcb00_7100 + client).into(),
                destination: cluster_ip(Family::V4, ONE),
                protocol: Tcp,
                port: PORT,
                from_node: false,
                link: LinkName::NONE,
            };
            let trace = trace(&rig.cluster, &rig.plan, &rig.plan.view, packet);
            let chosen = trace.reachable().next();
            chosen.map(|candidate| candidate.target.address)
        };
        (0..2000).filter_map(of).collect()
    };
    let before = chosen(world);
    let gone = world.address(C, Family::V4);
    world.apply(&slices("one", &all[..2]))?;
    let after = chosen(world);
    assert_eq!((before.len(), after.len()), (2000, 2000));
    let had = before.iter().filter(|server| **server == gone).count();
    let pairs = before.iter().zip(&after);
    let others = pairs.filter(|(old, new)| **old != gone && old != new);
    let others = others.count();
    assert!((500..850).contains(&had), "a third of 2000: {had}");
    assert!(others < 300, "{others} of 2000 moved for nothing");
    Ok(())
}

/// What the hash is asked for, and the map that remembers.
const HASHES: [(&str, u32, u32); 4] = [
    ("small", 61, 0x706f_7274),
    ("large", 65_521, 0x706f_7274),
    ("other", 251, 7),
    ("whole", u32::MAX, 1),
];

/// A table that writes down the hash of whoever sends.
fn witness() -> Table {
    let mut table = Table::default();
    let mut rules = Vec::new();
    for (name, modulus, seed) in HASHES {
        let set = Set::map([Field::Saddr], [Field::random(1)]).dynamic(4096, 600_000);
        table.sets.insert(name.into(), set);
        rules.push(
            Rule::new()
                .eq(Field::L4Proto, Value::Proto(17))
                .then(Statement::Dynset {
                    op: DynOp::Update,
                    set: name.into(),
                    key: vec![Field::Saddr],
                    data: Some(vec![Field::jhash(modulus, seed)]),
                    timeout_ms: None,
                }),
        );
    }
    let chain = Chain::base(ChainType::Filter, Hook::Output, 0, rules);
    table.chains.insert("output".into(), chain);
    table
}

/// Sends a datagram within the namespace from an address that nobody has.
fn send_from(source: IpAddr) -> std::io::Result<usize> {
    let at = SocketAddr::new(source, 0);
    let socket = Socket::new(Domain::for_address(at), Type::DGRAM, None)?;
    let to: IpAddr = match source {
        IpAddr::V4(_) => {
            socket.set_ip_transparent_v4(true)?;
            Ipv4Addr::LOCALHOST.into()
        }
        IpAddr::V6(_) => {
            socket.set_ip_transparent_v6(true)?;
            Ipv6Addr::LOCALHOST.into()
        }
    };
    socket.bind(&at.into())?;
    socket.send_to(b"x", &SocketAddr::new(to, 9).into())
}

#[test]
fn the_kernel_hashes_clients_as_we_do() {
    if !inside("the_kernel_hashes_clients_as_we_do") {
        return;
    }
    let netns = NetNs::create().expect("a namespace");
    let mut kernel = Nft::open(&netns).expect("nftables");
    let v4 = |number: u32| IpAddr::from(Ipv4Addr::from_bits(0xc612_0000 + number * 77));
    let v6 = |number: u32| {
        let spread = u128::from(number) * 0x1234_5678_9abc_def1;
        IpAddr::from(Ipv6Addr::from_bits((0x2001_0db8 << 96) | spread))
    };
    let families = [
        (
            portolan_nft::Family::Ip,
            (0..300).map(v4).collect::<Vec<_>>(),
        ),
        (portolan_nft::Family::Ip6, (0..300).map(v6).collect()),
    ];
    for (family, sources) in families {
        let id = TableId::new(family, "witness");
        let wanted = Ruleset::new().with(id.clone(), witness());
        let batch = diff(&Ruleset::new(), &wanted);
        kernel.commit(&batch).expect("the rules");
        let held = kernel.read(&id).expect("read").expect("our table");
        assert!(held == wanted.tables[&id], "read back as written");
        netns
            .run(|| {
                for source in &sources {
                    send_from(*source).unwrap_or_else(|error| panic!("{source}: {error}"));
                }
            })
            .expect("a visit");
        for (name, modulus, seed) in HASHES {
            let learned = kernel.learned(&id, &name.into()).expect("read");
            assert_eq!(learned.len(), sources.len(), "{family:?} {name}");
            for (key, data) in learned {
                let (Key::Exact(key), Data::Tuple(data)) = (key, data) else {
                    panic!("not what was asked for");
                };
                let number = data.values(family, &[Field::random(1)]);
                let ours = hash::slot(key.bytes(), modulus, seed);
                assert_eq!(number, Some(vec![Value::Number(ours)]), "{name} {key:?}");
            }
        }
    }
}
