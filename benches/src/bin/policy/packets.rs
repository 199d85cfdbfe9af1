//! Packets of a flow that both ends' policies allow, against a node without any.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result};
use portolan_benches::figures::{alternate, figure, say};
use portolan_benches::talk::{self, Caller, Seen};
use portolan_benches::wires::{self, Wires};
use portolan_kernel::nft::Nft;
use portolan_model::{Cluster, Family};
use portolan_plan::node;

use crate::{start, world};

const ROUNDS: usize = 40;
const CONNECTS: u64 = 200;
const STREAM_ROUNDS: usize = 16;
const STREAM_TIME: Duration = Duration::from_millis(80);

/// Namespaces with the rules of a cluster, and somebody who calls.
struct Way {
    wires: Wires,
    caller: Caller,
    seen: Seen,
    _rules: Nft,
}

impl Way {
    async fn new(facts: &Cluster) -> Result<Self> {
        let wires = Wires::lay().await?;
        let rules = start(&wires.node, &node(facts, &world::view()))?;
        Ok(Self {
            caller: Caller::new(&wires::clients(Family::V4)),
            seen: talk::serve(&wires.pod)?,
            wires,
            _rules: rules,
        })
    }

    /// Connections per second.
    fn connects(&mut self, to: SocketAddr) -> Result<f64> {
        let (caller, seen) = (&mut self.caller, &self.seen);
        let took = self
            .wires
            .client
            .run(|| caller.connect(to, CONNECTS, seen))??;
        let sum: Duration = took.iter().sum();
        Ok(took.len() as f64 / sum.as_secs_f64())
    }

    fn stream(&mut self, to: SocketAddr) -> Result<std::net::TcpStream> {
        let caller = &mut self.caller;
        self.wires.client.run(|| caller.open(to))?
    }
}

/// Both ways in turn.
pub(crate) fn run() -> Result<()> {
    say("packets of an allowed flow, against a node without policies");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let facts = world::facts(world::changes()?);
    let mut free = runtime.block_on(Way::new(&Cluster::default()))?;
    let mut governed = runtime.block_on(Way::new(&facts))?;
    let pod = *wires::pods(Family::V4).first().context("a pod")?;
    let at = |port| SocketAddr::new(pod, port);
    let (connect, sink) = (at(talk::CONNECT), at(talk::SINK));
    let ratio = alternate(
        ROUNDS,
        || free.connects(connect),
        || governed.connects(connect),
    )?;
    figure("connect_ratio", ratio, "x");
    let mut streams = [free.stream(sink)?, governed.stream(sink)?];
    let [one, other] = &mut streams;
    let ratio = alternate(
        STREAM_ROUNDS,
        || talk::write(one, STREAM_TIME),
        || talk::write(other, STREAM_TIME),
    )?;
    figure("throughput_ratio", ratio, "x");
    Ok(())
}
