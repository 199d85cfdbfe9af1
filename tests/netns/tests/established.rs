//! Connections that began before a policy changed: exactly those that it no longer
//! allows are cut, and go on when it allows them again (N11).

mod site;

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, ensure};
use portolan_client::{EVENTS, NETWORK_POLICIES, PODS, Target};
use portolan_conntrack::{Entry, Filter};
use portolan_kernel::conntrack::Conntrack;
use portolan_kernel::netns::NetNs;
use portolan_model::{Change, Fact, Family, Kind, Labels, Namespace, Pod, PodKey, intake};
use portolan_netns::facts::{PORT, UDP_TARGET, cluster_ip};
use portolan_netns::sender::Sender;
use portolan_netns::talk::{PATIENCE, SILENCE, Seen};
use portolan_netns::town::{A, ALONE, B, C, NODE_1, in_town};
use portolan_netns::world::{Client, World, lab_view};
use portolan_plan::{CUT_BIT, NodeView};
use serde_json::{Value, json};
use site::running::{Running, until};
use site::{Api, NS};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::time::timeout;

/// The bit of connections that are cut.
const BIT: u32 = 1 << CUT_BIT;

/// The pods of the town, by their names.
const NAMES: [(Client, &str); 3] = [(A, "a"), (B, "b"), (C, "c")];

fn people(world: &World) -> Vec<Change> {
    let pods = world.pods.iter().zip(NAMES).map(|(pod, (_, name))| {
        let node = &world.nodes[pod.node].net.name;
        Fact::Pod(
            Pod {
                addresses: pod.net.ips.clone(),
                labels: [("app", name)].into_iter().collect(),
                node: Some(node.as_str().into()),
                ..Pod::at(PodKey::new("default", name), None)
            }
            .into(),
        )
    });
    let namespace = Fact::Namespace(Namespace {
        name: "default".into(),
        labels: Labels::default(),
    });
    pods.chain([namespace]).map(Change::Upsert).collect()
}

/// This policy alone, or none.
fn policy(spec: Option<Value>) -> Result<Change> {
    let facts = spec.into_iter().map(|spec| {
        let object = json!({"metadata": {"namespace": "default", "name": "p"}, "spec": spec});
        let (policy, problems) = intake::policy(&serde_json::from_value(object)?);
        ensure!(problems.is_empty(), "{problems:?}");
        Ok(Fact::Policy(policy.into()))
    });
    Ok(Change::Replace(Kind::Policy, facts.collect::<Result<_>>()?))
}

fn app(name: &str) -> Value {
    json!({"matchLabels": {"app": name}})
}

/// Nobody but these may come in to B.
fn into_b(names: &[&str]) -> Value {
    let from: Vec<Value> = names
        .iter()
        .map(|name| json!({"podSelector": app(name)}))
        .collect();
    let rules: Vec<Value> = (!from.is_empty())
        .then(|| json!({"from": from}))
        .into_iter()
        .collect();
    json!({"podSelector": app("b"), "policyTypes": ["Ingress"], "ingress": rules})
}

/// Nobody but A may be reached from B.
fn out_of_b() -> Value {
    json!({
        "podSelector": app("b"), "policyTypes": ["Egress"],
        "egress": [{"to": [{"podSelector": app("a")}]}],
    })
}

/// Both ends of an open TCP connection.
struct Pair {
    client: TcpStream,
    server: TcpStream,
    from: SocketAddr,
    said: u32,
}

impl Pair {
    /// From a client to a pod that listens for it, perhaps by another address.
    async fn open(world: &World, from: Client, to: Client, family: Family) -> Result<Self> {
        let at = SocketAddr::new(world.address(to, family), world.port());
        Self::open_at(world.namespace(from), world.namespace(to), (at, at)).await
    }

    async fn open_at(
        from: &NetNs,
        to: &NetNs,
        (at, called): (SocketAddr, SocketAddr),
    ) -> Result<Self> {
        let listener = to.run(|| std::net::TcpListener::bind(at))??;
        listener.set_nonblocking(true)?;
        let listener = TcpListener::from_std(listener)?;
        let socket = from.run(|| match called {
            SocketAddr::V4(_) => TcpSocket::new_v4(),
            SocketAddr::V6(_) => TcpSocket::new_v6(),
        })??;
        let client = timeout(PATIENCE, socket.connect(called)).await??;
        let (server, _) = timeout(PATIENCE, listener.accept()).await??;
        let from = client.local_addr()?;
        let said = 0;
        let mut pair = Self {
            client,
            server,
            from,
            said,
        };
        pair.speaks().await?;
        Ok(pair)
    }

    /// Whether what one end says now comes to the other in time.
    async fn says(&mut self, from_server: bool, patience: std::time::Duration) -> Result<bool> {
        self.said += 1;
        let said = self.said;
        let (one, other) = if from_server {
            (&mut self.server, &mut self.client)
        } else {
            (&mut self.client, &mut self.server)
        };
        one.write_all(&said.to_be_bytes()).await?;
        let heard = async {
            // What was held back comes first.
            while other.read_u32().await? != said {}
            Ok::<_, std::io::Error>(())
        };
        Ok(timeout(patience, heard).await.map(|heard| heard.is_ok()) == Ok(true))
    }

    async fn speaks(&mut self) -> Result<()> {
        for from_server in [false, true] {
            let heard = self.says(from_server, PATIENCE).await?;
            ensure!(heard, "{} is not heard ({from_server})", self.from);
        }
        Ok(())
    }

    /// Nothing comes through, whoever sends.
    async fn is_silent(&mut self) -> Result<()> {
        for from_server in [true, false, true] {
            let heard = self.says(from_server, SILENCE).await?;
            ensure!(!heard, "{} is heard ({from_server})", self.from);
        }
        Ok(())
    }
}

/// The entries of the first node from a place.
fn entries(world: &World, from: SocketAddr) -> Result<Vec<Entry>> {
    let mut conntrack = Conntrack::open(&world.nodes[0].net.netns)?;
    let from_there = |entry: &Entry| (entry.original.from() == Some(from)).then_some(*entry);
    let mut found = conntrack.pick(&Filter::default(), from_there)?;
    found.dedup();
    Ok(found)
}

/// Waits until connections are cut, or go on.
async fn turned(world: &World, from: SocketAddr, cut: bool) -> Result<()> {
    until(&format!("{from} is cut: {cut}"), async || {
        let entries = entries(world, from)?;
        Ok(!entries.is_empty() && entries.iter().all(|entry| (entry.mark == BIT) == cut))
    })
    .await
}

fn look(world: &mut World, cut_bit: Option<u32>) -> Result<()> {
    world.look(&NodeView {
        cut_bit,
        ..lab_view()
    })?;
    let people = people(world);
    world.apply(&people)?;
    world.tend_flows()
}

/// Whoever is no longer let in is cut, and nobody else; whoever is let in again goes on.
#[test]
fn n11_exactly_what_is_no_longer_allowed_is_cut() {
    let test = "n11_exactly_what_is_no_longer_allowed_is_cut";
    in_town(test, async |mut world| {
        look(&mut world, Some(BIT))?;
        for family in Family::BOTH {
            world.apply(&[policy(None)?])?;
            let mut stays = Vec::new();
            // From A, whom the policy lets in; from B itself; from the node, which may
            // always come; and past B.
            for (from, to) in [(A, B), (B, C), (B, A), (NODE_1, B), (C, A), (A, C)] {
                stays.push(Pair::open(&world, from, to, family).await?);
            }
            let mut goes = Pair::open(&world, C, B, family).await?;
            let at = SocketAddr::new(world.address(B, family), UDP_TARGET);
            let [udp_a, udp_c] = [A, C].map(|from| Sender::new(&world, from, at));
            for sender in [&udp_a, &udp_c] {
                sender
                    .until(|seen| matches!(seen, Seen::Answer { .. }))
                    .await?;
            }
            let udp = |client: Client, sender: &Sender| {
                SocketAddr::new(world.address(client, family), sender.port)
            };
            let (udp_from_a, udp_from_c) = (udp(A, &udp_a), udp(C, &udp_c));
            world.apply(&[policy(Some(into_b(&["a"])))?])?;
            turned(&world, goes.from, true).await?;
            turned(&world, udp_from_c, true).await?;
            goes.is_silent().await?;
            ensure!(udp_c.send().await? == Seen::Silence);
            for pair in &mut stays {
                pair.speaks().await?;
                turned(&world, pair.from, false).await?;
            }
            udp_a
                .until(|seen| matches!(seen, Seen::Answer { .. }))
                .await?;
            turned(&world, udp_from_a, false).await?;
            // Who tries anew is not let in, and cuts nobody.
            let seen = world
                .knock(C, portolan_model::Protocol::Tcp, at, SILENCE)
                .await?;
            ensure!(seen == Seen::Silence, "{seen:?}");
            // Another policy allows the same: nothing changes.
            world.apply(&[policy(Some(into_b(&["a", "x"])))?])?;
            goes.is_silent().await?;
            // Allowed again.
            world.apply(&[policy(Some(into_b(&["a", "c"])))?])?;
            turned(&world, goes.from, false).await?;
            turned(&world, udp_from_c, false).await?;
            goes.speaks().await?;
            udp_c
                .until(|seen| matches!(seen, Seen::Answer { .. }))
                .await?;
            // By the labels of a peer too, and by the end of all policies.
            let mut other = people(&world);
            if let Change::Upsert(Fact::Pod(pod)) = &mut other[2] {
                std::sync::Arc::make_mut(pod).labels = Labels::default();
            }
            world.apply(&other)?;
            turned(&world, goes.from, true).await?;
            goes.is_silent().await?;
            let again = people(&world);
            world.apply(&again)?;
            turned(&world, goes.from, false).await?;
            world.apply(&[policy(Some(into_b(&[])))?])?;
            turned(&world, goes.from, true).await?;
            world.apply(&[policy(None)?])?;
            turned(&world, goes.from, false).await?;
            goes.speaks().await?;
        }
        Ok(())
    });
}

/// Who began a connection decides which policies it needs, also if the other end speaks
/// first afterwards.
#[test]
fn n11_who_began_it_decides() {
    let test = "n11_who_began_it_decides";
    in_town(test, async |mut world| {
        look(&mut world, Some(BIT))?;
        for family in Family::BOTH {
            world.apply(&[policy(None)?])?;
            let mut out = Pair::open(&world, B, C, family).await?;
            let mut in_ = Pair::open(&world, C, B, family).await?;
            world.apply(&[policy(Some(out_of_b()))?])?;
            turned(&world, out.from, true).await?;
            // C may begin connections to B, but not go on with this one.
            out.is_silent().await?;
            in_.speaks().await?;
            world.apply(&[policy(Some(into_b(&["a"])))?])?;
            turned(&world, in_.from, true).await?;
            turned(&world, out.from, false).await?;
            in_.is_silent().await?;
            out.speaks().await?;
        }
        Ok(())
    });
}

/// Behind a Service the pod counts that a connection reaches (N17).
#[test]
fn n11_n17_behind_a_service_the_pod_counts() {
    let test = "n11_n17_behind_a_service_the_pod_counts";
    in_town(test, async |mut world| {
        look(&mut world, Some(BIT))?;
        for family in Family::BOTH {
            world.apply(&[policy(None)?])?;
            let called = SocketAddr::new(cluster_ip(family, ALONE), PORT);
            let udp = Sender::new(&world, B, called);
            udp.until(|seen| matches!(seen, Seen::Answer { .. }))
                .await?;
            let from = SocketAddr::new(world.address(B, family), udp.port);
            let only = |cidr: IpAddr| {
                let cidr = ipnet(cidr);
                json!({"podSelector": app("a"), "policyTypes": ["Ingress"],
                    "ingress": [{"from": [{"ipBlock": {"cidr": cidr}}],
                        "ports": [{"protocol": "UDP", "port": UDP_TARGET}]}]})
            };
            // The pod's own port and the client's own address.
            world.apply(&[policy(Some(only(world.address(B, family))))?])?;
            udp.until(|seen| matches!(seen, Seen::Answer { .. }))
                .await?;
            turned(&world, from, false).await?;
            world.apply(&[policy(Some(only(world.address(C, family))))?])?;
            turned(&world, from, true).await?;
            ensure!(udp.send().await? == Seen::Silence);
        }
        Ok(())
    });
}

fn ipnet(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 32 } else { 128 })
}

#[test]
fn n11_connections_may_be_kept() {
    let test = "n11_connections_may_be_kept";
    in_town(test, async |mut world| {
        look(&mut world, None)?;
        for family in Family::BOTH {
            world.apply(&[policy(None)?])?;
            let mut pair = Pair::open(&world, C, B, family).await?;
            world.apply(&[policy(Some(into_b(&["a"])))?])?;
            pair.speaks().await?;
            // After another look at everything, too.
            world.tend_flows()?;
            pair.speaks().await?;
            turned(&world, pair.from, false).await?;
        }
        Ok(())
    });
}

/// Whether pod b has an event that a connection of this client was cut.
async fn is_told(api: &Api, client: IpAddr) -> Result<bool> {
    let events = api.writer.get(Target::all(&EVENTS, NS)).await?;
    let events = events["items"].as_array().context("a list")?;
    let start = format!("Cut a connection, ingress from pod default/c ({client}) to ");
    let is = |event: &Value| {
        let message = event["message"].as_str().unwrap_or_default();
        event["reason"] == "PolicyDropped"
            && event["involvedObject"]["name"] == "b"
            && message.starts_with(&start)
            && message.contains(", by NetworkPolicy default/p")
    };
    Ok(events.iter().any(is))
}

/// An agent that starts finds what its predecessor did not see.
#[test]
fn n11_an_agent_that_starts_judges_what_it_finds() {
    let test = "n11_an_agent_that_starts_judges_what_it_finds";
    in_town(test, async |world| {
        let api = Api::new(&world).await?;
        for ((client, name), pod) in NAMES.into_iter().zip(&world.pods) {
            let object = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "labels": {"app": name}},
                "spec": {
                    "nodeName": world.nodes[pod.node].net.name,
                    "containers": [{"name": "one", "image": "busybox"}],
                },
            });
            api.writer.create(Target::all(&PODS, NS), &object).await?;
            let ips = Family::BOTH.map(|family| world.address(client, family).to_string());
            let all: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
            let status = json!({"phase": "Running", "podIP": ips[0], "podIPs": all});
            let target = Target::one(&PODS, NS, name);
            api.writer.patch_status(target, &status).await?;
        }
        let mut agent = Running::new(&world, &api);
        agent.config.policies = true;
        agent.config.policy_log = true;
        agent.config.given.cut_bit = Some(BIT);
        agent.start();
        let gate = agent.config.gate.clone();
        timeout(PATIENCE, gate.ready()).await.context("ready")?;
        let mut pairs = Vec::new();
        for family in Family::BOTH {
            let goes = Pair::open(&world, C, B, family).await?;
            pairs.push((goes, Pair::open(&world, A, B, family).await?));
        }
        agent.stop().await?;
        let object = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "p"}, "spec": into_b(&["a"]),
        });
        let target = Target::all(&NETWORK_POLICIES, NS);
        api.writer.create(target, &object).await?;
        for (goes, stays) in &mut pairs {
            goes.speaks().await?;
            stays.speaks().await?;
        }
        agent.start();
        for (goes, stays) in &mut pairs {
            turned(&world, goes.from, true).await?;
            goes.is_silent().await?;
            stays.speaks().await?;
            turned(&world, stays.from, false).await?;
            // The pod whose policy it is hears of it, with who was cut off.
            let from = goes.from.ip();
            until("the cut is told", async || is_told(&api, from).await).await?;
        }
        // Nothing changes with the agent alone.
        agent.stop().await?;
        for (goes, stays) in &mut pairs {
            goes.is_silent().await?;
            stays.speaks().await?;
        }
        // The policy ends while nobody looks.
        let target = Target::one(&NETWORK_POLICIES, NS, "p");
        api.writer.delete(target, &Default::default()).await?;
        agent.start();
        for (goes, stays) in &mut pairs {
            turned(&world, goes.from, false).await?;
            goes.speaks().await?;
            stays.speaks().await?;
        }
        agent.stop().await
    });
}
