//! Random clusters, as everywhere in the laws, with real packets.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use portolan_model::{Change, Fact, Family, Kind, Protocol};
use portolan_netns::journey::Ending;
use portolan_netns::namespace::inside;
use portolan_netns::world::{Client, World, block_on};
use portolan_plan::{Detector, Frontend, LinkName, NodeView, Place};
use portolan_testkit::strategy::{facts, view};
use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngSeed, TestRunner};

const SEEDS: u64 = 20;

/// The ports that random slices name.
const PORTS: [u16; 3] = [80, 8080, 30_080];

/// The strategies count pods from 1, the lab from 2.
fn in_the_lab(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(v4) if v4.octets().starts_with(&[10, 244]) => {
            Ipv4Addr::from_bits(v4.to_bits() + 1).into()
        }
        IpAddr::V6(v6) if v6.segments().starts_with(&[0xfd00, 0x10, 0x244]) => {
            Ipv6Addr::from_bits(v6.to_bits() + 1).into()
        }
        IpAddr::V4(_) | IpAddr::V6(_) => address,
    }
}

fn moved(fact: Fact) -> Fact {
    match fact {
        Fact::Slice(slice) => {
            let mut slice = (*slice).clone();
            for endpoint in &mut slice.endpoints {
                endpoint.address = in_the_lab(endpoint.address);
            }
            Fact::Slice(slice.into())
        }
        Fact::Service(_)
        | Fact::Node(_)
        | Fact::Namespace(_)
        | Fact::ServiceCidr(_)
        | Fact::Pod(_)
        | Fact::Policy(_)
        | Fact::ClusterPolicy(_) => fact,
    }
}

fn generated(seed: u64) -> (NodeView, Vec<Fact>) {
    let config = Config {
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..Config::default()
    };
    let tree = (view(), facts(120))
        .new_tree(&mut TestRunner::new(config))
        .expect("a cluster");
    let (view, facts) = tree.current();
    // Nobody answers names in this world.
    let view = NodeView {
        dns_addresses: Vec::new(),
        ..view
    };
    (view, facts.into_iter().map(moved).collect())
}

/// Everybody to every frontend of the first two nodes.
fn pairs(world: &World) -> Vec<(Client, Protocol, SocketAddr)> {
    let clients = [
        Client::Pod(0),
        Client::Pod(1),
        Client::Pod(4),
        Client::Node(0),
        Client::Node(1),
        Client::Outside,
        Client::Stranger,
    ];
    let mut pairs = Vec::new();
    for frontend in world
        .nodes
        .iter()
        .take(2)
        .flat_map(|node| node.rig.plan.frontends.keys())
    {
        let Frontend {
            place,
            protocol,
            port,
        } = *frontend;
        let addresses: Vec<IpAddr> = match place {
            Place::ClusterIp(address) | Place::External(address) => vec![address],
            Place::NodePort(family) => [0, 1]
                .map(|node| world.address(Client::Node(node), family))
                .into(),
        };
        for (client, address) in clients
            .iter()
            .flat_map(|client| addresses.iter().map(move |a| (*client, *a)))
        {
            let to_service = !matches!(place, Place::NodePort(_));
            if protocol != Protocol::Sctp && !(client == Client::Outside && to_service) {
                pairs.push((client, protocol, SocketAddr::new(address, port)));
            }
        }
    }
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

#[test]
fn p1_p3_p5_p7_p8_random_clusters_with_real_packets() {
    if !inside("p1_p3_p5_p7_p8_random_clusters_with_real_packets") {
        return;
    }
    block_on(async {
        let mut world = World::new(&[3, 3, 3], &PORTS).await?;
        let first = world.address(Client::Pod(0), Family::V4);
        assert_eq!(first.to_string(), "10.244.1.2", "the first pod of the lab");
        let mut met = Vec::new();
        for seed in 0..SEEDS {
            let (mut view, facts) = generated(seed);
            // The links of this world are called otherwise.
            view.detector = match view.detector {
                Detector::Bridge(_) => Detector::Bridge(world.pods[0].link),
                Detector::Prefix(_) => Detector::Prefix(LinkName::new("veth").unwrap_or_default()),
                by_address @ (Detector::ClusterCidr | Detector::NodeCidr) => by_address,
            };
            let none = Kind::ALL.map(|kind| Change::Replace(kind, Vec::new()));
            world.apply(&none)?;
            world.look(&view)?;
            let changes: Vec<_> = facts.into_iter().map(Change::Upsert).collect();
            world.apply(&changes)?;
            met.extend(
                world
                    .check_all(pairs(&world))
                    .await
                    .map_err(|error| error.context(format!("seed {seed}")))?,
            );
        }
        let answered = |endings: &&BTreeSet<Ending>| {
            let is_answer = |ending: &Ending| matches!(ending, Ending::Answer(..));
            endings.iter().any(is_answer)
        };
        let answered = met.iter().filter(answered).count();
        assert!(
            answered > 100,
            "only {answered} of {} are answered",
            met.len()
        );
        let choices = met.iter().filter(|endings| endings.len() > 1).count();
        assert!(
            choices > 50,
            "only {choices} of {} have a choice",
            met.len()
        );
        for one in [Ending::Refused, Ending::Dropped, Ending::Lost] {
            let is_there = met.iter().any(|endings| endings.contains(&one));
            assert!(is_there, "none of {} is {one:?}", met.len());
        }
        Ok(())
    });
}
