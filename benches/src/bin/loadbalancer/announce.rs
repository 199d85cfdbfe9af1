//! Many routes told to a router: by an agent, and by another BIRD.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portolan_benches::figures::{
    figure, median, memory_mb, millis, peak_memory_mb, percentile, say,
};
use portolan_benches::still::{settle, wait_for_change};
use portolan_kernel::nft::Nft;
use portolan_nft::{Batch, Op};

use crate::agent::{Agent, LIMIT, until};
use crate::allocate::{CHANGES, Cluster};
use crate::objects;
use crate::router::{Manner, Router};
use crate::town::{CLIENT, Town, address, name, pool_address};

/// Sessions that are begun, by each side in turn.
const ROUNDS: usize = 5;
/// Agents that are started to see what they hold.
const STARTS: usize = 3;
/// How often an agent is asked.
const SEEN: Duration = Duration::from_millis(50);
/// How often BIRD is asked.
const LOOK: Duration = Duration::from_millis(1);
/// The node whose agent tells, and the one whose BIRD does.
const OURS: usize = 0;
const THEIRS: usize = 1;
const MANNER: Manner = Manner {
    hold: 90,
    bfd: false,
    routes: false,
};

/// What an agent holds after its start, in MB.
async fn held(town: &Town, cluster: &Cluster, announce: bool) -> Result<f64> {
    let node = &town.nodes.get(OURS).context("a node")?.netns;
    let mut nft = Nft::open(node)?;
    // What an earlier agent left would be compared.
    for id in portolan_render::nft::tables() {
        if nft.exists(&id)? {
            let mut batch = Batch::new();
            batch.push(&id, Op::DeleteTable);
            nft.commit(&batch)?;
        }
    }
    let before = nft.generation()?;
    let agent = Agent::start(node, &name(OURS), &cluster.api.kubeconfig, announce)?;
    if announce {
        let owned = format!("metallb_speaker_announced{{ip=\"{}\"}}", pool_address(0)?);
        until("an address that is answered for", SEEN, || {
            // It does not answer from its first moment on.
            Ok(matches!(agent.metric(&owned), Ok(Some(_))))
        })
        .await?;
    } else {
        wait_for_change(&mut nft, before).await?;
    }
    settle(&mut nft).await?;
    memory_mb(agent.pid())
}

/// What announcing adds to an agent; on links, since no router is known yet.
pub(crate) async fn memory(town: &Town, cluster: &Cluster) -> Result<()> {
    say("agents with and without announcing");
    objects::everywhere(&cluster.api).await?;
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..STARTS {
        without.push(held(town, cluster, false).await?);
        with.push(held(town, cluster, true).await?);
    }
    let (with, without) = (median(&mut with), median(&mut without));
    figure("rss_without_mb", without, "MB");
    figure("rss_l2_mb", with, "MB");
    figure("announcing_mb", with - without, "MB");
    Ok(())
}

/// One Service after another: from the start of its creation until the router has its
/// route.
async fn changes(router: &mut Router, cluster: &mut Cluster, label: &str) -> Result<()> {
    let mut samples = Vec::new();
    for _ in 0..CHANGES {
        let begin = Instant::now();
        cluster.add().await?;
        let wanted = cluster.size();
        until("a route", Duration::from_micros(200), || {
            Ok(router.imported("node0")? == Some(wanted))
        })
        .await?;
        samples.push(begin.elapsed());
    }
    for (percent, share) in [("p50", 0.5), ("p99", 0.99)] {
        let value = millis(percentile(&mut samples, share));
        figure(
            &format!("announce_change_{label}_{percent}_ms"),
            value,
            "ms",
        );
    }
    Ok(())
}

/// Begins a session anew: from when it is up until the router has all routes.
async fn session(router: &mut Router, session: &str, routes: usize) -> Result<Duration> {
    router.ask(&format!("disable {session}"))?;
    until("the end of a session", LOOK, || {
        Ok(router.imported(session)?.is_none())
    })
    .await?;
    router.ask(&format!("enable {session}"))?;
    let end = Instant::now() + LIMIT;
    let mut up = None;
    loop {
        match router.imported(session)? {
            Some(count) if count >= routes => {
                return Ok(up.map_or(Duration::ZERO, |up: Instant| up.elapsed()));
            }
            Some(_) => drop(up.get_or_insert_with(Instant::now)),
            // One that did not last does not count.
            None => up = None,
        }
        ensure!(Instant::now() < end, "not within {LIMIT:?}: {session}");
        tokio::time::sleep(LOOK).await;
    }
}

/// One Service more, as the router sees it, where there are few.
pub(crate) async fn few(town: &Town, cluster: &mut Cluster) -> Result<()> {
    let (mut router, _agent, _) = begin(town, cluster).await?;
    changes(&mut router, cluster, "10").await
}

async fn begin(town: &Town, cluster: &Cluster) -> Result<(Router, Agent, Duration)> {
    objects::router(&cluster.api, MANNER.hold, MANNER.bfd).await?;
    let mut router = Router::start(&town.client.netns, town.nodes.len(), MANNER)?;
    let node = &town.nodes.get(OURS).context("a node")?.netns;
    let begin = Instant::now();
    let agent = Agent::start(node, &name(OURS), &cluster.api.kubeconfig, true)?;
    let wanted = cluster.size();
    until("all routes", LOOK, || {
        Ok(router.imported("node0")? == Some(wanted))
    })
    .await?;
    Ok((router, agent, begin.elapsed()))
}

/// All of it where there are many.
pub(crate) async fn many(town: &Town, cluster: &mut Cluster) -> Result<()> {
    say("an agent that announces, and a BIRD that hears of it");
    let size = cluster.size();
    let (mut router, agent, started) = begin(town, cluster).await?;
    figure("announce_start_s", started.as_secs_f64(), "s");
    let updates = format!("metallb_bgp_updates_total{{peer=\"{CLIENT}:179\"}}");
    let updates = agent.metric(&updates)?.context("a count of UPDATEs")?;
    figure("updates_10000", updates, "messages");
    figure("prefixes_per_update", size as f64 / updates, "1");
    let node = &town.nodes.get(OURS).context("a node")?.netns;
    settle(&mut Nft::open(node)?).await?;
    figure("rss_listed_mb", memory_mb(agent.pid())?, "MB");
    let other = &town.nodes.get(THEIRS).context("a node")?.netns;
    let _teller = Router::start_teller(other, address(THEIRS)?, size)?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        router.ask("disable node1")?;
        ours.push(session(&mut router, "node0", size).await?.as_secs_f64());
        router.ask("disable node0")?;
        theirs.push(session(&mut router, "node1", size).await?.as_secs_f64());
    }
    let (ours, theirs) = (median(&mut ours), median(&mut theirs));
    figure("announce_10000_s", ours, "s");
    figure("announce_bird_10000_s", theirs, "s");
    figure("announce_ratio_to_bird", ours / theirs, "1");
    router.ask("disable node1")?;
    session(&mut router, "node0", size).await?;
    changes(&mut router, cluster, "10000").await?;
    figure("rss_mb", peak_memory_mb(agent.pid())?, "MB");
    Ok(())
}
