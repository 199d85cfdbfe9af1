//! A whole agent on one node of the town, with an API server beside it.

mod site;

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use portolan_client::{SERVICE_CIDRS, Target};
use portolan_kernel::nft::Nft;
use portolan_model::Family;
use portolan_netns::facts::{PORT, UDP_TARGET, cluster_ip};
use portolan_netns::sender::{PAUSE, Sender, entries};
use portolan_netns::talk::{PATIENCE, Seen};
use portolan_netns::town::{B, in_town};
use portolan_netns::world::{Client, World};
use portolan_nft::{Batch, Op, Ruleset, Table, TableId, diff};
use serde_json::json;
use site::running::{Running, held, metric, until};
use site::{Api, of_pod};
use tokio::time::Instant;

/// An API server, and the agent of the town's first node, which can be stopped.
struct Site {
    api: Api,
    agent: Running,
}

impl Site {
    async fn new(world: &World) -> Result<Self> {
        let api = Api::new(world).await?;
        Ok(Self {
            agent: Running::new(world, &api),
            api,
        })
    }
}

fn server(world: &World, pod: usize) -> SocketAddr {
    SocketAddr::new(world.address(Client::Pod(pod), Family::V4), UDP_TARGET)
}

const FOREIGN: &str = "portolan_nftables_repairs_total{cause=\"foreign\"}";

/// Others may change their tables as they like, and ours are not read each time;
/// who changes ours is found out even so.
#[test]
fn others_changes_are_borne_and_ours_are_mended() {
    in_town(
        "others_changes_are_borne_and_ours_are_mended",
        async |world| {
            let mut site = Site::new(&world).await?;
            site.api.service("web", 101, &of_pod(&world, 2)).await?;
            site.agent.start();
            let to = SocketAddr::new(cluster_ip(Family::V4, 101), PORT);
            let web = Sender::new(&world, B, to);
            web.until_served_by(server(&world, 2)).await?;
            let mut nft = Nft::open(&world.nodes[0].net.netns)?;
            let ours = portolan_render::nft::tables();
            let whole = held(&mut nft)?;
            let same = |nft: &mut Nft| -> Result<bool> { Ok(held(nft)? == whole) };
            let repairs = || Ok::<_, anyhow::Error>(metric(&world, FOREIGN)?.unwrap_or(0.0));
            assert_eq!(repairs()?, 0.0, "its own commits are no foreign changes");
            // A table is gone; a chain is flushed.
            let mut theft = Batch::new();
            theft.push(&ours[0], Op::DeleteTable);
            nft.commit(&theft)?;
            until("the table is back", async || same(&mut nft)).await?;
            let mut flush = Batch::new();
            let chain = "refuse".into();
            flush.push(&ours[1], Op::FlushChain { chain });
            nft.commit(&flush)?;
            until("the chain is full again", async || same(&mut nft)).await?;
            until("two repairs are counted", async || Ok(repairs()? >= 2.0)).await?;
            // Somebody else's table comes and goes.
            let noise =
                Ruleset::new().with(TableId::new(ours[0].family, "noise"), Table::default());
            let (come, go) = (diff(&Ruleset::new(), &noise), diff(&noise, &Ruleset::new()));
            let before = repairs()?;
            let end = Instant::now() + Duration::from_secs(4);
            while Instant::now() < end {
                nft.commit(&come)?;
                nft.commit(&go)?;
                tokio::time::sleep(PAUSE).await;
            }
            let read = repairs()? - before;
            assert!((1.0..=8.0).contains(&read), "compared {read} times in 4 s");
            nft.commit(&flush)?;
            until("the chain is full again", async || same(&mut nft)).await?;
            assert!(
                metric(
                    &world,
                    "kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv4\"}"
                )?
                .is_some()
            );
            assert!(
                metric(&world, "portolan_nftables_foreign_changes_total")?.unwrap_or(0.0) > 10.0
            );
            site.agent.stop().await
        },
    );
}

/// Ranges of Service addresses that come at run time are followed (P6, A6).
#[test]
fn p6_a_range_that_is_added_at_run_time_drops_free_addresses() {
    in_town(
        "p6_a_range_that_is_added_at_run_time_drops_free_addresses",
        async |world| {
            let mut site = Site::new(&world).await?;
            site.api.service("web", 101, &of_pod(&world, 2)).await?;
            site.agent.start();
            let to = SocketAddr::new(cluster_ip(Family::V4, 101), PORT);
            let web = Sender::new(&world, B, to);
            web.until_served_by(server(&world, 2)).await?;
            let free = || {
                let mut nft = Nft::open(&world.nodes[0].net.netns)?;
                let table = nft
                    .read(&portolan_render::nft::tables()[0])?
                    .context("ours")?;
                let set = table.sets.get("service_cidrs").context("the set")?;
                Ok::<_, anyhow::Error>(set.elements.len())
            };
            let before = free()?;
            let range = json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR",
                "metadata": {"name": "more"}, "spec": {"cidrs": ["10.111.0.0/24"]}});
            let all = Target::all(&SERVICE_CIDRS, None);
            site.api.writer.create(all, &range).await?;
            until("the range is there", async || Ok(free()? == before + 1)).await?;
            let one = Target::one(&SERVICE_CIDRS, None, "more");
            site.api.writer.delete(one, &Default::default()).await?;
            until("the range is gone", async || Ok(free()? == before)).await?;
            site.agent.stop().await
        },
    );
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
            site.agent.start();
            moves.until_served_by(server(&world, 0)).await?;
            stays.until_served_by(server(&world, 2)).await?;
            let node = &world.nodes[0].net.netns;
            let before = entries(node, stays.to)?;
            site.api.serve("moves", &of_pod(&world, 2)).await?;
            moves.until_served_by(server(&world, 2)).await?;
            site.agent.stop().await?;
            site.api.serve("moves", &of_pod(&world, 0)).await?;
            assert_eq!(moves.server().await?, server(&world, 2), "nobody acts");
            site.agent.start();
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
            site.agent.stop().await
        },
    );
}
