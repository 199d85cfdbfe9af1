//! Node ports on 127.0.0.1 and ::1, for those who ask for them (P11, KEP-6032).

mod site;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use portolan_client::{ENDPOINT_SLICES, PatchBody, SERVICES, Target};
use portolan_kernel::netns::NetNs;
use portolan_model::{Family, Protocol};
use portolan_netns::facts::{PORT, TCP_TARGET, UDP_TARGET, cluster_ip};
use portolan_netns::talk::{PATIENCE, SILENCE, Seen, connect, knock};
use portolan_netns::town::{NODE_1, in_town};
use portolan_netns::world::{Client, World};
use portolan_plan::{NodePortAddresses, NodePorts, OpenNodePorts};
use serde_json::{Value, json};
use site::running::{Running, until};
use site::{Api, NS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const LOCALHOST: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];
/// Where an HTTP server answers on the first pod.
const HTTP: u16 = 8088;

/// The Node's first addresses, and localhost.
fn with_localhost() -> NodePorts {
    let [v4, v6] = Family::BOTH.map(|_| OpenNodePorts {
        addresses: NodePortAddresses::Primary,
        localhost: true,
    });
    NodePorts { v4, v6 }
}

fn pod_at(world: &World, pod: usize, ip: IpAddr, port: u16) -> SocketAddr {
    SocketAddr::new(world.address(Client::Pod(pod), Family::of(ip)), port)
}

/// A Service of both families at a node port, served by these pods.
struct Offer<'a> {
    name: &'a str,
    number: u8,
    node_port: u16,
    pods: &'a [usize],
    /// Where endpoints serve TCP.
    target: u16,
}

fn endpoints(world: &World, family: Family, pods: &[usize]) -> Value {
    let endpoint = |pod: &usize| {
        let node = &world.nodes[world.pods[*pod].node].net.name;
        let address = world.address(Client::Pod(*pod), family);
        json!({"addresses": [address.to_string()], "nodeName": node})
    };
    pods.iter().map(endpoint).collect()
}

fn slice_name(name: &str, family: Family) -> String {
    format!("{name}-{family}").to_lowercase()
}

async fn offer(world: &World, api: &Api, offer: &Offer<'_>) -> Result<()> {
    let Offer { name, number, .. } = offer;
    let ips = Family::BOTH.map(|family| cluster_ip(family, *number).to_string());
    let port = |name: &str| {
        json!({"name": name.to_lowercase(), "protocol": name, "port": PORT,
            "nodePort": offer.node_port})
    };
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"type": "NodePort", "ipFamilyPolicy": "RequireDualStack", "clusterIPs": ips,
            "clusterIP": ips[0], "ports": [port("TCP"), port("UDP")]}});
    let services = Target::all(&SERVICES, NS);
    api.writer.create(services, &service).await?;
    for family in Family::BOTH {
        let slice = json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": slice_name(name, family),
                "labels": {"kubernetes.io/service-name": name}},
            "addressType": family.to_string(), "endpoints": endpoints(world, family, offer.pods),
            "ports": [
                {"name": "tcp", "protocol": "TCP", "port": offer.target},
                {"name": "udp", "protocol": "UDP", "port": UDP_TARGET}]});
        let slices = Target::all(&ENDPOINT_SLICES, NS);
        api.writer.create(slices, &slice).await?;
    }
    Ok(())
}

/// These pods serve from now on.
async fn serve(world: &World, api: &Api, name: &str, pods: &[usize]) -> Result<()> {
    for family in Family::BOTH {
        let slice = slice_name(name, family);
        let patch = json!({"endpoints": endpoints(world, family, pods)});
        let target = Target::one(&ENDPOINT_SLICES, NS, &slice);
        api.writer.patch(target, PatchBody::Merge(&patch)).await?;
    }
    Ok(())
}

/// Answers every request on a pod with one line, in HTTP.
fn http_server(world: &World) -> Result<()> {
    for family in Family::BOTH {
        let at = SocketAddr::new(world.address(Client::Pod(0), family), HTTP);
        let ns = world.namespace(Client::Pod(0));
        let listener = ns.run(|| std::net::TcpListener::bind(at))??;
        listener.set_nonblocking(true)?;
        let listener = tokio::net::TcpListener::from_std(listener)?;
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let mut head = [0; 1024];
                    let answer =
                        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\nconnection: close\r\n\r\nhere";
                    let asked = stream.read(&mut head).await?;
                    stream.write_all(answer).await.map(|()| asked)
                });
            }
        });
    }
    Ok(())
}

/// What real curl prints on the node.
async fn curl(netns: &NetNs, url: String) -> Result<String> {
    let netns = netns.clone();
    let asked = tokio::task::spawn_blocking(move || {
        netns.run(|| {
            let mut curl = Command::new("curl");
            curl.args(["-sS", "--max-time", "5", &url]).output()
        })
    });
    let output = asked.await??.context("curl (Debian package curl)")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "curl: {errors}");
    Ok(String::from_utf8(output.stdout)?)
}

async fn seen(world: &World, protocol: Protocol, to: SocketAddr) -> Result<Seen> {
    knock(world.namespace(NODE_1), world.port(), protocol, to, SILENCE).await
}

async fn until_answered(world: &World, to: SocketAddr, by: SocketAddr) -> Result<()> {
    until("another answers", async || {
        let seen = seen(world, Protocol::Tcp, to).await?;
        Ok(matches!(seen, Seen::Answer { server, .. } if server == by))
    })
    .await
}

#[test]
fn p11_node_ports_answer_on_localhost_where_that_is_asked_for() {
    in_town(
        "p11_node_ports_answer_on_localhost_where_that_is_asked_for",
        async |world| {
            http_server(&world)?;
            let api = Api::new(&world).await?;
            let web = Offer {
                name: "web",
                number: 131,
                node_port: 31_131,
                pods: &[0],
                target: HTTP,
            };
            offer(&world, &api, &web).await?;
            let echo = Offer {
                name: "echo",
                number: 132,
                node_port: 31_132,
                pods: &[0],
                target: TCP_TARGET,
            };
            offer(&world, &api, &echo).await?;
            let mut agent = Running::new(&world, &api);
            agent.config.given.node_ports = with_localhost();
            agent.start();
            let node = world.namespace(NODE_1).clone();
            for ip in LOCALHOST {
                let to = SocketAddr::new(ip, 31_132);
                until_answered(&world, to, pod_at(&world, 0, ip, TCP_TARGET)).await?;
                let at = SocketAddr::new(ip, 31_131);
                assert_eq!(curl(&node, format!("http://{at}/")).await?, "here");
                for _ in 0..3 {
                    let seen = knock(&node, world.port(), Protocol::Udp, to, PATIENCE).await?;
                    let server = pod_at(&world, 0, ip, UDP_TARGET);
                    assert!(
                        matches!(seen, Seen::Answer { server: by, .. } if by == server),
                        "{seen:?}"
                    );
                }
            }
            // A neighbour gets nothing by naming its own localhost.
            let neighbour = world.namespace(Client::Node(1));
            let to = SocketAddr::new(LOCALHOST[0], 31_132);
            let there = knock(neighbour, world.port(), Protocol::Tcp, to, SILENCE).await?;
            assert_eq!(there, Seen::Refused);
            agent.stop().await?;
            until("the sockets are closed", async || {
                Ok(seen(&world, Protocol::Tcp, to).await? == Seen::Refused)
            })
            .await
        },
    );
}

#[test]
fn p11_p18_connections_on_localhost_outlive_changes_and_new_ones_follow_them() {
    in_town(
        "p11_p18_connections_on_localhost_outlive_changes_and_new_ones_follow_them",
        async |world| {
            let api = Api::new(&world).await?;
            let echo = Offer {
                name: "echo",
                number: 133,
                node_port: 31_133,
                pods: &[0],
                target: TCP_TARGET,
            };
            offer(&world, &api, &echo).await?;
            let node = world.namespace(NODE_1);
            let mut agent = Running::new(&world, &api);
            agent.config.given.node_ports = with_localhost();
            // Somebody else has the port at first.
            let taken = node.run(|| std::net::TcpListener::bind("127.0.0.1:31133"))??;
            agent.start();
            let [v4, v6] = LOCALHOST.map(|ip| SocketAddr::new(ip, 31_133));
            let at = |pod, to: SocketAddr| pod_at(&world, pod, to.ip(), TCP_TARGET);
            until_answered(&world, v6, at(0, v6)).await?;
            drop(taken);
            // The next change of the frontend tries the port again.
            api.change("echo", &json!({"sessionAffinity": "ClientIP"}))
                .await?;
            until_answered(&world, v4, at(0, v4)).await?;
            api.change("echo", &json!({"sessionAffinity": "None"}))
                .await?;
            let mut open = Vec::new();
            for to in [v4, v6] {
                let mut connection = connect(node, world.port(), to).await??;
                connection.echo("before").await?;
                open.push(connection);
            }
            serve(&world, &api, "echo", &[2]).await?;
            for to in [v4, v6] {
                until_answered(&world, to, at(2, to)).await?;
            }
            // A UDP client that keeps its port follows.
            let port = world.port();
            until("the UDP client follows", async || {
                let seen = knock(node, port, Protocol::Udp, v4, SILENCE).await?;
                let server = pod_at(&world, 2, v4.ip(), UDP_TARGET);
                Ok(matches!(seen, Seen::Answer { server: by, .. } if by == server))
            })
            .await?;
            let service = Target::one(&SERVICES, NS, "echo");
            api.writer.delete(service, &Default::default()).await?;
            for to in [v4, v6] {
                until("the Service is gone", async || {
                    Ok(seen(&world, Protocol::Tcp, to).await? == Seen::Refused)
                })
                .await?;
            }
            for connection in &mut open {
                connection.echo("after").await?;
            }
            agent.stop().await
        },
    );
}

/// Says a line, ends its own half, and hears the other out; in blocking words.
fn say_and_end(node: &NetNs, to: SocketAddr) -> Result<String> {
    use std::io::{Read, Write};
    let mut stream = node.run(|| std::net::TcpStream::connect(to))??;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(b"bye\n")?;
    stream.shutdown(std::net::Shutdown::Write)?;
    let mut heard = String::new();
    stream.read_to_string(&mut heard)?;
    Ok(heard)
}

#[test]
fn p11_p13_clients_on_localhost_stay_and_are_heard_out() {
    in_town(
        "p11_p13_clients_on_localhost_stay_and_are_heard_out",
        async |world| {
            let api = Api::new(&world).await?;
            let echo = Offer {
                name: "echo",
                number: 135,
                node_port: 31_135,
                pods: &[0, 2],
                target: TCP_TARGET,
            };
            offer(&world, &api, &echo).await?;
            let stay = json!({"sessionAffinity": "ClientIP"});
            api.change("echo", &stay).await?;
            let mut agent = Running::new(&world, &api);
            agent.config.given.node_ports = with_localhost();
            agent.start();
            let node = world.namespace(NODE_1);
            let to = SocketAddr::new(LOCALHOST[0], 31_135);
            until("somebody answers", async || {
                Ok(matches!(
                    seen(&world, Protocol::Tcp, to).await?,
                    Seen::Answer { .. }
                ))
            })
            .await?;
            let first = connect(node, world.port(), to).await??.server;
            for _ in 0..10 {
                let again = connect(node, world.port(), to).await??;
                assert_eq!(again.server, first);
            }
            let said = node.clone();
            let heard = tokio::task::spawn_blocking(move || say_and_end(&said, to)).await??;
            assert!(heard.ends_with("\nbye\n"), "{heard:?}");
            serve(&world, &api, "echo", &[]).await?;
            until("nobody serves", async || {
                Ok(seen(&world, Protocol::Tcp, to).await? == Seen::Refused)
            })
            .await?;
            serve(&world, &api, "echo", &[2]).await?;
            until_answered(&world, to, pod_at(&world, 2, to.ip(), TCP_TARGET)).await?;
            agent.stop().await
        },
    );
}

#[test]
fn p11_localhost_is_left_alone_unless_it_is_asked_for() {
    in_town(
        "p11_localhost_is_left_alone_unless_it_is_asked_for",
        async |world| {
            let api = Api::new(&world).await?;
            let echo = Offer {
                name: "echo",
                number: 134,
                node_port: 31_134,
                pods: &[0],
                target: TCP_TARGET,
            };
            offer(&world, &api, &echo).await?;
            let mut agent = Running::new(&world, &api);
            for open in [NodePortAddresses::Primary, NodePortAddresses::AnyLocal] {
                agent.config.given.node_ports = NodePorts::both(open);
                agent.start();
                for family in Family::BOTH {
                    let own = SocketAddr::new(world.address(NODE_1, family), 31_134);
                    let server = pod_at(&world, 0, own.ip(), TCP_TARGET);
                    until_answered(&world, own, server).await?;
                }
                for ip in LOCALHOST {
                    let to = SocketAddr::new(ip, 31_134);
                    assert_eq!(seen(&world, Protocol::Tcp, to).await?, Seen::Refused);
                }
                agent.stop().await?;
            }
            // Ranges are of what the node has, also where its Node object is silent.
            let lo = world.nodes[0].net.links.index("lo").await?;
            let links = &world.nodes[0].net.links;
            links.add_address(lo, "192.0.2.7/32".parse()?).await?;
            let mut node_ports = with_localhost();
            node_ports.v4 = OpenNodePorts {
                addresses: NodePortAddresses::Within {
                    ranges: vec!["192.0.2.0/24".parse()?],
                    primary: false,
                },
                localhost: false,
            };
            agent.config.given.node_ports = node_ports;
            agent.start();
            // The rules of the agent before are there until now.
            let first = SocketAddr::new(world.address(NODE_1, Family::V4), 31_134);
            until("only the ranges are open", async || {
                Ok(seen(&world, Protocol::Tcp, first).await? == Seen::Refused)
            })
            .await?;
            let own = SocketAddr::new("192.0.2.7".parse()?, 31_134);
            until_answered(&world, own, pod_at(&world, 0, own.ip(), TCP_TARGET)).await?;
            let v4 = SocketAddr::new(LOCALHOST[0], 31_134);
            assert_eq!(seen(&world, Protocol::Tcp, v4).await?, Seen::Refused);
            let v6 = SocketAddr::new(LOCALHOST[1], 31_134);
            until_answered(&world, v6, pod_at(&world, 0, v6.ip(), TCP_TARGET)).await?;
            agent.stop().await
        },
    );
}
