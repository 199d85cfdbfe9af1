//! Packets that connection tracking cannot place, and so does not translate: they
//! must not end the connection they belong to (P18, kubernetes/kubernetes#74839).

use std::net::SocketAddr;

use anyhow::{Context, Result, ensure};
use portolan_kernel::netns::NetNs;
use portolan_model::Family;
use portolan_model::Protocol::Tcp;
use portolan_netns::facts::{PORT, TCP_TARGET, cluster_ip, node_port};
use portolan_netns::namespace::nft;
use portolan_netns::raw::{Said, Wire};
use portolan_netns::talk::{Open, PATIENCE, connect};
use portolan_netns::town::{self, A, B, C, NODE_1, in_town};
use portolan_netns::world::{Client, World};
use tokio::time::Instant;

const NODE_2: Client = Client::Node(1);

/// How many strays a connection must survive, each followed by an echo.
const STRAYS: usize = 20;

/// A connection, and one of its ends, from which strays are sent.
struct Talk {
    name: String,
    open: Open,
    end: Wire,
    said: Option<Said>,
}

impl Talk {
    /// A client's connection; strays come from `end`, which is the client or whoever
    /// serves it.
    async fn new(world: &World, client: Client, end: Client, to: SocketAddr) -> Result<Self> {
        let me = world.address(end, Family::of(to.ip()));
        let end = Wire::tap(world.namespace(end), me, Tcp)?;
        let open = connect(world.namespace(client), world.port(), to).await??;
        let mut talk = Self {
            name: format!("{client:?} to {to}, strays of {me}"),
            open,
            end,
            said: None,
        };
        talk.open.echo("hello").await?;
        Ok(talk)
    }

    /// One stray, and a line that has to come back after it.
    async fn stray_and_echo(&mut self) -> Result<()> {
        if let Some(said) = self.end.last_said()? {
            self.said = Some(said);
        }
        let said = self.said.context("nothing was said")?;
        self.end.stray(&said)?;
        self.open
            .echo("still here?")
            .await
            .context(self.name.clone())
    }

    async fn survives(&mut self) -> Result<()> {
        for _ in 0..STRAYS {
            self.stray_and_echo().await?;
        }
        Ok(())
    }

    /// Goes on until the connection is broken.
    async fn breaks(&mut self) -> Result<()> {
        let end = Instant::now() + PATIENCE;
        while self.stray_and_echo().await.is_ok() {
            ensure!(
                Instant::now() < end,
                "{} survives without the rules",
                self.name
            );
        }
        Ok(())
    }
}

/// Takes away from every node what stops strays: the counter-proof.
fn let_strays_pass(world: &World) -> Result<()> {
    let chains = ["invalid-input", "invalid-forward", "invalid-output"];
    for node in &world.nodes {
        let ns: &NetNs = &node.net.netns;
        let flush = |family: &str| {
            let line = |chain: &&str| format!("flush chain {family} portolan {chain}\n");
            chains.iter().map(line).collect::<String>()
        };
        ns.run(|| nft(&["-f", "-"], &(flush("ip") + &flush("ip6"))))?;
    }
    Ok(())
}

/// Connections survive strays, and the same connections would not without the
/// rules.
async fn prove(world: &World, rows: &[(Client, Client, SocketAddr)]) -> Result<()> {
    let mut talks = Vec::new();
    for (client, end, to) in rows {
        let mut talk = Talk::new(world, *client, *end, *to).await?;
        talk.survives().await?;
        talks.push(talk);
    }
    let_strays_pass(world)?;
    for talk in &mut talks {
        talk.breaks().await?;
    }
    Ok(())
}

fn at(family: Family, number: u8) -> SocketAddr {
    SocketAddr::new(cluster_ip(family, number), PORT)
}

/// The server is a pod: its client is a pod of the same node or of another one, a
/// node, or somebody outside.
#[test]
fn p18_strays_of_a_pod_reset_nothing() {
    in_town("p18_strays_of_a_pod_reset_nothing", async |world| {
        let rows: Vec<_> = Family::BOTH
            .into_iter()
            .flat_map(|family| {
                [B, C, NODE_1, Client::Stranger].map(|client| (client, A, at(family, town::ALONE)))
            })
            .collect();
        prove(&world, &rows).await
    });
}

/// The server is a process of a node, which no range of pods tells.
#[test]
fn p18_strays_of_a_node_reset_nothing() {
    in_town("p18_strays_of_a_node_reset_nothing", async |world| {
        let rows: Vec<_> = Family::BOTH
            .into_iter()
            .flat_map(|family| {
                [B, C, NODE_1, Client::Stranger]
                    .map(|client| (client, NODE_2, at(family, town::ON_NODE)))
            })
            .collect();
        prove(&world, &rows).await
    });
}

/// The stray is the client's, and the node port is the node's own address.
#[test]
fn p18_strays_to_a_node_port_reset_nothing() {
    in_town("p18_strays_to_a_node_port_reset_nothing", async |world| {
        let rows: Vec<_> = Family::BOTH
            .into_iter()
            .flat_map(|family| {
                let node = world.address(NODE_1, family);
                let to = SocketAddr::new(node, node_port(town::ALONE));
                [B, C, Client::Stranger].map(|client| (client, client, to))
            })
            .collect();
        prove(&world, &rows).await
    });
}

/// Whoever talks to a pod without a Service is left alone: a stray reaches it, and
/// it answers as it always did. (A node's stray here is nobody's endpoint's.)
#[test]
fn p18_strays_of_others_pass() {
    in_town("p18_strays_of_others_pass", async |world| {
        for family in Family::BOTH {
            let node = world.address(Client::Node(2), family);
            let to = SocketAddr::new(node, TCP_TARGET);
            for client in [NODE_1, Client::Stranger] {
                let me = world.address(client, family);
                let server = Wire::tap(world.namespace(Client::Node(2)), node, Tcp)?;
                let mut talk = Talk::new(&world, client, client, to).await?;
                talk.survives().await?;
                server.last_said()?;
                let said = talk.said.context("nothing was said")?;
                talk.end.stray(&said)?;
                let end = Instant::now() + PATIENCE;
                while !server.has_stray(&said)? {
                    ensure!(Instant::now() < end, "the stray of {me} was dropped");
                    tokio::task::yield_now().await;
                }
            }
        }
        Ok(())
    });
}
