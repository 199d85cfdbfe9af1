//! Clients outside that keep their address under `externalTrafficPolicy: Cluster`
//! (`--preserve-client-ip`): two agents on two nodes of the town, and real packets.

mod site;

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use portolan_agent::cleanup;
use portolan_agent::replies::ReplyPath;
use portolan_client::{
    ENDPOINT_SLICES, LEASES, NETWORK_POLICIES, NODES, PatchBody, SERVICES, Target,
};
use portolan_kernel::way::Way;
use portolan_model::Protocol::{Tcp, Udp};
use portolan_model::{Family, Protocol};
use portolan_netns::facts::{PORT, TCP_TARGET, UDP_TARGET, cluster_ip};
use portolan_netns::sender::PAUSE;
use portolan_netns::talk::{PATIENCE, SILENCE, Seen, connect};
use portolan_netns::town::{A, B, C, NODE_1, in_town};
use portolan_netns::world::{Client, World};
use serde_json::{Value, json};
use site::running::{Running, until};
use site::{Api, NS};
use tokio::time::Instant;

/// Somebody outside.
const CLIENT: Client = Client::Stranger;
/// Somebody else outside, who reaches nodes only.
const OTHER: Client = Client::Outside;
/// The second node, and one whose agent does not take part.
const NODE_2: Client = Client::Node(1);

/// Endpoint C, on node 2.
const THERE: u8 = 121;
/// Endpoint A, on node 1.
const HERE: u8 = 122;

/// Where the Leases are.
const LEASE_SPACE: &str = "default";

/// A town whose first two nodes have agents.
struct Site {
    api: Api,
    agents: [Running; 2],
}

/// The address of a load balancer from a pool.
fn pool(family: Family, number: u8) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([198, 51, 100, number]),
        Family::V6 => IpAddr::from([0x2001, 0xdb8, 0x51, 0, 0, 0, 0, u16::from(number)]),
    }
}

/// The node port of a Service.
fn node_port(number: u8, protocol: Protocol) -> u16 {
    31_000 + u16::from(number) + if protocol == Tcp { 0 } else { 500 }
}

/// The port at which nodes' own addresses lead to a Service.
fn port_of_node(number: u8) -> u16 {
    9_000 + u16::from(number)
}

impl Site {
    async fn new(world: &World, on: bool) -> Result<Self> {
        let api = Api::new(world).await?;
        let agents = [0, 1].map(|index| {
            let mut agent = Running::new(world, &api);
            let net = &world.nodes[index].net;
            agent.config.given.node = net.name.as_str().into();
            agent.config.netns = net.netns.clone();
            agent.config.cluster_dns = false;
            agent.config.reply_path = path(on);
            agent
        });
        let site = Self { api, agents };
        site.nodes(world).await?;
        site.service(world, (THERE, C), pool).await?;
        site.service(world, (HERE, A), pool).await?;
        Ok(site)
    }

    /// The Node objects of both nodes, with the ranges of their pods.
    async fn nodes(&self, world: &World) -> Result<()> {
        for (index, node) in world.nodes.iter().take(2).enumerate() {
            let (name, writer) = (&node.net.name, &self.api.writer);
            let cidrs = node.net.pod_cidrs.iter().map(ToString::to_string);
            let cidrs: Vec<_> = cidrs.collect();
            let spec = json!({"podCIDR": cidrs[0], "podCIDRs": cidrs});
            let target = Target::one(&NODES, None, name);
            if index == 0 {
                let patch = json!({"spec": spec});
                writer.patch(target, PatchBody::Merge(&patch)).await?;
                continue;
            }
            let object = json!({"apiVersion": "v1", "kind": "Node",
                "metadata": {"name": name}, "spec": spec});
            writer.create(Target::all(&NODES, None), &object).await?;
            let addresses = node.net.ips.iter();
            let addresses: Vec<_> = addresses
                .map(|ip| json!({"type": "InternalIP", "address": ip.to_string()}))
                .collect();
            let status = json!({"addresses": addresses});
            writer.patch_status(target, &status).await?;
        }
        Ok(())
    }

    /// A load balancer of both families and protocols with one endpoint.
    async fn service(
        &self,
        world: &World,
        (number, pod): (u8, Client),
        address: impl Fn(Family, u8) -> IpAddr,
    ) -> Result<()> {
        let (name, writer) = (format!("lb-{number}"), &self.api.writer);
        let ips = Family::BOTH.map(|family| cluster_ip(family, number).to_string());
        let port = |protocol: Protocol, port: u16| {
            json!({"name": format!("{protocol}-{port}").to_lowercase(), "protocol": protocol.name().to_uppercase(),
                "port": port, "nodePort": if port == PORT { node_port(number, protocol) } else {
                    node_port(number, protocol) + 200 }})
        };
        let own = port_of_node(number);
        let ports = [
            port(Tcp, PORT),
            port(Udp, PORT),
            port(Tcp, own),
            port(Udp, own),
        ];
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"type": "LoadBalancer", "ipFamilyPolicy": "RequireDualStack",
                "clusterIP": ips[0], "clusterIPs": ips, "ports": ports}});
        writer.create(Target::all(&SERVICES, NS), &service).await?;
        let of_node = Family::BOTH.map(|family| world.address(NODE_1, family));
        let ingress = Family::BOTH.map(|family| address(family, number));
        let ingress = ingress.into_iter().chain(of_node);
        let ingress: Vec<_> = ingress.map(|ip| json!({"ip": ip.to_string()})).collect();
        let status = json!({"loadBalancer": {"ingress": ingress}});
        let target = Target::one(&SERVICES, NS, &name);
        writer.patch_status(target, &status).await?;
        let Client::Pod(pod) = pod else {
            anyhow::bail!("no pod")
        };
        let node = &world.nodes[world.pods[pod].node].net.name;
        for family in Family::BOTH {
            let endpoint = world.address(Client::Pod(pod), family).to_string();
            let targets = [PORT, own].map(|port| {
                [(Tcp, TCP_TARGET), (Udp, UDP_TARGET)].map(|(protocol, target)| {
                    json!({"name": format!("{protocol}-{port}").to_lowercase(),
                        "protocol": protocol.name().to_uppercase(), "port": target})
                })
            });
            let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {"name": format!("{name}-{family}").to_lowercase(),
                    "labels": {"kubernetes.io/service-name": name}},
                "addressType": family.to_string(), "ports": targets.concat(),
                "endpoints": [{"addresses": [endpoint], "nodeName": node}]});
            let slices = Target::all(&ENDPOINT_SLICES, NS);
            writer.create(slices, &slice).await?;
        }
        Ok(())
    }

    fn start(&mut self) {
        for agent in &mut self.agents {
            agent.start();
        }
    }

    async fn stop(&mut self) -> Result<()> {
        for agent in &mut self.agents {
            agent.stop().await?;
        }
        Ok(())
    }
}

fn path(on: bool) -> ReplyPath {
    ReplyPath {
        on,
        namespace: LEASE_SPACE.to_owned(),
        ..ReplyPath::default()
    }
}

/// Whom an endpoint sees as its client; none while nobody answers.
async fn seen(world: &World, client: Client, at: (Protocol, SocketAddr)) -> Result<Option<IpAddr>> {
    let (protocol, to) = at;
    Ok(
        match world.knock(client, protocol, to, SILENCE * 10).await? {
            Seen::Answer { peer, .. } => Some(peer),
            Seen::Refused | Seen::Silence | Seen::Failed(_) => None,
        },
    )
}

/// Waits until both families' connections to a node port of the first node are seen to
/// come from this client.
async fn until_seen(world: &World, client: Client, (number, as_whom): (u8, Client)) -> Result<()> {
    for family in Family::BOTH {
        let at = SocketAddr::new(world.address(NODE_1, family), node_port(number, Tcp));
        let wanted = world.address(as_whom, family);
        until(&format!("{at} sees {wanted}"), async || {
            Ok(seen(world, client, (Tcp, at)).await? == Some(wanted))
        })
        .await?;
    }
    Ok(())
}

/// Every place of a Service on the first node.
fn places(world: &World, number: u8, protocol: Protocol) -> Vec<SocketAddr> {
    let of = |family| {
        let node = world.address(NODE_1, family);
        [
            SocketAddr::new(node, node_port(number, protocol)),
            SocketAddr::new(node, port_of_node(number)),
            SocketAddr::new(pool(family, number), PORT),
        ]
    };
    Family::BOTH.map(of).concat()
}

/// Every place of a Service answers, and sees this client.
async fn all_see(world: &World, client: Client, (number, as_whom): (u8, Client)) -> Result<()> {
    for protocol in [Tcp, Udp] {
        for place in places(world, number, protocol) {
            let met = world.knock(client, protocol, place, PATIENCE).await?;
            let Seen::Answer { peer, .. } = met else {
                anyhow::bail!("{client:?} to {place}/{protocol}: {met:?}")
            };
            let wanted = world.address(as_whom, Family::of(place.ip()));
            ensure!(peer == wanted, "{client:?} to {place}/{protocol}: {peer}");
        }
    }
    Ok(())
}

/// The ways of a node.
async fn ways(world: &World, node: usize) -> Result<Vec<Way>> {
    Ok(world.nodes[node].net.links.ways().await?)
}

#[test]
fn p7_l12_clients_keep_their_address_and_get_answers() {
    in_town(
        "p7_l12_clients_keep_their_address_and_get_answers",
        async |world| {
            let mut site = Site::new(&world, true).await?;
            site.start();
            until_seen(&world, CLIENT, (THERE, CLIENT)).await?;
            all_see(&world, CLIENT, (THERE, CLIENT)).await?;
            all_see(&world, CLIENT, (HERE, CLIENT)).await?;
            // Pods and nodes are no clients outside (P7).
            all_see(&world, B, (THERE, NODE_1)).await?;
            all_see(&world, NODE_1, (THERE, NODE_1)).await?;
            for family in Family::BOTH {
                let at = |node: Client, number| {
                    SocketAddr::new(world.address(node, family), node_port(number, Tcp))
                };
                // What comes from its own address would not be taken by node 2.
                let own = seen(&world, NODE_2, (Tcp, at(NODE_1, THERE))).await?;
                assert_eq!(own, Some(world.address(NODE_1, family)));
                // The next connection may come in by another node.
                for number in [HERE, THERE] {
                    let peer = seen(&world, CLIENT, (Tcp, at(NODE_2, number))).await?;
                    assert_eq!(peer, Some(world.address(CLIENT, family)), "{number}");
                }
                let other = seen(&world, OTHER, (Tcp, at(NODE_1, THERE))).await?;
                assert_eq!(other, Some(world.address(OTHER, family)));
            }
            assert_eq!(ways(&world, 0).await?.len(), 2);
            assert_eq!(ways(&world, 1).await?.len(), 2);
            site.stop().await
        },
    );
}

#[test]
fn p7_without_the_option_the_node_stands_for_its_clients() {
    in_town(
        "p7_without_the_option_the_node_stands_for_its_clients",
        async |world| {
            let mut site = Site::new(&world, false).await?;
            site.start();
            until_seen(&world, CLIENT, (THERE, NODE_1)).await?;
            all_see(&world, CLIENT, (THERE, NODE_1)).await?;
            for node in [0, 1] {
                assert_eq!(ways(&world, node).await?, []);
            }
            let leases = Target::all(&LEASES, Some(LEASE_SPACE));
            let leases = site.api.writer.list_metadata(leases).await?;
            assert_eq!(leases["items"].as_array().map(Vec::len), Some(0));
            site.stop().await
        },
    );
}

/// Nodes join and leave: whoever does not take part gets masqueraded connections.
#[test]
fn p7_a_node_that_does_not_take_part_is_sent_no_clients() {
    in_town(
        "p7_a_node_that_does_not_take_part_is_sent_no_clients",
        async |world| {
            let mut site = Site::new(&world, true).await?;
            site.agents[1].config.reply_path = path(false);
            site.start();
            until_seen(&world, CLIENT, (HERE, CLIENT)).await?;
            all_see(&world, CLIENT, (THERE, NODE_1)).await?;
            // It joins.
            site.agents[1].stop().await?;
            site.agents[1].config.reply_path = path(true);
            site.agents[1].start();
            until_seen(&world, CLIENT, (THERE, CLIENT)).await?;
            // And leaves: its rules and routes go, those of others stay.
            site.agents[1].stop().await?;
            site.agents[1].config.reply_path = path(false);
            site.agents[1].start();
            until_seen(&world, CLIENT, (THERE, NODE_1)).await?;
            all_see(&world, CLIENT, (THERE, NODE_1)).await?;
            until("its ways are gone", async || {
                Ok(ways(&world, 1).await?.is_empty())
            })
            .await?;
            until("the way to it is gone", async || {
                Ok(ways(&world, 0).await?.is_empty())
            })
            .await?;
            site.stop().await
        },
    );
}

/// Who may come is asked of the client's own address.
#[test]
fn n9_a_policy_by_addresses_sees_the_client() {
    in_town("n9_a_policy_by_addresses_sees_the_client", async |world| {
        let mut site = Site::new(&world, true).await?;
        for agent in &mut site.agents {
            agent.config.policies = true;
        }
        let pod = |index: usize, name: &str| {
            let node = &world.nodes[world.pods[index].node].net.name;
            let ips: Vec<Value> = Family::BOTH
                .map(|family| json!({"ip": world.address(Client::Pod(index), family).to_string()}))
                .into();
            let object = json!({"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "labels": {"app": name}},
                "spec": {"nodeName": node, "containers": [{"name": "c", "image": "i"}]}});
            let status = json!({"phase": "Running", "podIP": ips[0]["ip"], "podIPs": ips});
            (object, status)
        };
        let (object, status) = pod(2, "there");
        let writer = &site.api.writer;
        let pods = Target::all(&portolan_client::PODS, NS);
        writer.create(pods, &object).await?;
        let one = Target::one(&portolan_client::PODS, NS, "there");
        writer.patch_status(one, &status).await?;
        let blocks = |client: Client| {
            Family::BOTH.map(|family| {
                let net = ipnet::IpNet::from(world.address(client, family));
                json!({"ipBlock": {"cidr": net.to_string()}})
            })
        };
        let policy = |client| {
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
                "metadata": {"name": "one-client"},
                "spec": {"podSelector": {"matchLabels": {"app": "there"}},
                    "policyTypes": ["Ingress"], "ingress": [{"from": blocks(client)}]}})
        };
        let all = Target::all(&NETWORK_POLICIES, NS);
        writer.create(all, &policy(CLIENT)).await?;
        site.start();
        until_seen(&world, CLIENT, (THERE, CLIENT)).await?;
        all_see(&world, CLIENT, (THERE, CLIENT)).await?;
        let at = |family| {
            let node = world.address(NODE_1, family);
            (Tcp, SocketAddr::new(node, node_port(THERE, Tcp)))
        };
        for family in Family::BOTH {
            assert_eq!(seen(&world, OTHER, at(family)).await?, None, "{family}");
        }
        // The other way round.
        let one = Target::one(&NETWORK_POLICIES, NS, "one-client");
        let writer = &site.api.writer;
        writer.patch(one, PatchBody::Merge(&policy(OTHER))).await?;
        until_seen(&world, OTHER, (THERE, OTHER)).await?;
        for family in Family::BOTH {
            assert_eq!(seen(&world, CLIENT, at(family)).await?, None, "{family}");
        }
        site.stop().await
    });
}

/// Agents come and go, and connections live on; `cleanup` takes away rules and routes.
#[test]
fn p21_agents_restart_and_connections_find_back() {
    in_town(
        "p21_agents_restart_and_connections_find_back",
        async |world| {
            let mut site = Site::new(&world, true).await?;
            site.start();
            until_seen(&world, CLIENT, (THERE, CLIENT)).await?;
            let mut open = Vec::new();
            for place in places(&world, THERE, Tcp) {
                let connected = connect(world.namespace(CLIENT), world.port(), place).await?;
                open.push(connected.with_context(|| format!("to {place}"))?);
            }
            let before = [ways(&world, 0).await?, ways(&world, 1).await?];
            for _ in 0..2 {
                site.stop().await?;
                for open in &mut open {
                    open.echo("without agents").await?;
                }
                // What the rules hold goes on for new connections, too.
                all_see(&world, CLIENT, (THERE, CLIENT)).await?;
                site.start();
                let end = Instant::now() + PATIENCE;
                for agent in 0..2 {
                    while ready(&world, agent)?.is_none() {
                        ensure!(Instant::now() < end, "an agent does not start");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
                for open in &mut open {
                    open.echo("with new agents").await?;
                }
                all_see(&world, CLIENT, (THERE, CLIENT)).await?;
                let now = [ways(&world, 0).await?, ways(&world, 1).await?];
                assert_eq!(now, before);
            }
            site.stop().await?;
            for node in &world.nodes[..2] {
                let removed = cleanup::cleanup(&node.net.netns).await?;
                let of_ways = |left: &&cleanup::Leftover| matches!(left, cleanup::Leftover::Way(_));
                assert_eq!(removed.iter().filter(of_ways).count(), 2, "{removed:?}");
                assert_eq!(node.net.links.ways().await?, []);
            }
            Ok(())
        },
    );
}

/// Whether an agent's rules stand: it says so at its health port.
fn ready(world: &World, node: usize) -> Result<Option<()>> {
    use std::io::{Read, Write};
    let ask = || -> Result<Option<()>> {
        let at = portolan_agent::node::HEALTHZ.port();
        let Ok(mut stream) = std::net::TcpStream::connect(("127.0.0.1", at)) else {
            return Ok(None);
        };
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: node\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text.starts_with("HTTP/1.1 200").then_some(()))
    };
    tokio::task::block_in_place(|| world.nodes[node].net.netns.run(ask))?
}
