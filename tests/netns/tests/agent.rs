//! A whole agent on one node of the town, with an API server beside it.

mod site;

use std::net::SocketAddr;

use anyhow::{Context, Result};
use portolan_agent::node::{self, NodeConfig, NodeError};
use portolan_model::Family;
use portolan_netns::facts::{PORT, UDP_TARGET, cluster_ip};
use portolan_netns::sender::{PAUSE, Sender, entries};
use portolan_netns::talk::{PATIENCE, Seen};
use portolan_netns::town::{B, in_town};
use portolan_netns::world::{Client, World, lab_view};
use portolan_plan::NodeView;
use site::{Api, of_pod};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

/// An API server, and the agent of the town's first node, which can be stopped.
struct Site {
    api: Api,
    config: NodeConfig,
    agent: Option<(JoinHandle<Result<(), NodeError>>, CancellationToken)>,
}

impl Site {
    async fn new(world: &World) -> Result<Self> {
        let api = Api::new(world).await?;
        let net = &world.nodes[0].net;
        Ok(Self {
            config: NodeConfig {
                given: NodeView {
                    node: net.name.as_str().into(),
                    ..lab_view()
                },
                netns: net.netns.clone(),
                kube: api.kube.clone(),
                upstream: None,
                healthz: Some(node::HEALTHZ),
            },
            agent: None,
            api,
        })
    }

    fn start(&mut self) {
        let stop = CancellationToken::new();
        let agent = tokio::spawn(node::run(self.config.clone(), stop.clone()));
        self.agent = Some((agent, stop));
    }

    async fn stop(&mut self) -> Result<()> {
        let (agent, stop) = self.agent.take().context("no agent runs")?;
        stop.cancel();
        Ok(timeout(PATIENCE, agent).await???)
    }
}

fn server(world: &World, pod: usize) -> SocketAddr {
    SocketAddr::new(world.address(Client::Pod(pod), Family::V4), UDP_TARGET)
}

/// A client that keeps its port follows its Service: while the agent runs, and when
/// the change came while there was none; and what did not change, an agent that
/// starts leaves as it is.
#[test]
fn p17_p21_an_agent_tends_flows_and_leaves_those_that_serve() {
    in_town(
        "p17_p21_an_agent_tends_flows_and_leaves_those_that_serve",
        async |world| {
            let mut site = Site::new(&world).await?;
            site.api.service("moves", 101, &of_pod(&world, 0)).await?;
            site.api.service("stays", 102, &of_pod(&world, 2)).await?;
            let to = |number| SocketAddr::new(cluster_ip(Family::V4, number), PORT);
            let [moves, stays] = [101, 102].map(|number| Sender::new(&world, B, to(number)));
            site.start();
            moves.until_served_by(server(&world, 0)).await?;
            stays.until_served_by(server(&world, 2)).await?;
            let node = &world.nodes[0].net.netns;
            let before = entries(node, stays.to)?;
            site.api.serve("moves", &of_pod(&world, 2)).await?;
            moves.until_served_by(server(&world, 2)).await?;
            site.stop().await?;
            site.api.serve("moves", &of_pod(&world, 0)).await?;
            assert_eq!(moves.server().await?, server(&world, 2), "nobody acts");
            site.start();
            moves.until_served_by(server(&world, 0)).await?;
            let end = Instant::now() + PATIENCE;
            site.api.remove("moves").await?;
            while matches!(moves.send().await?, Seen::Answer { .. }) {
                assert!(Instant::now() < end, "a deleted Service answers");
                tokio::time::sleep(PAUSE).await;
            }
            assert_eq!(stays.server().await?, server(&world, 2));
            let ids = |entries: &[portolan_conntrack::Entry]| {
                entries.iter().map(|entry| entry.id).collect::<Vec<_>>()
            };
            assert_eq!(ids(&entries(node, stays.to)?), ids(&before));
            site.stop().await
        },
    );
}
