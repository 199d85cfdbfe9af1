//! From objects in memory to the kernel, in this process: what the data plane
//! itself costs, cold and for one change, beside the kernel's own part.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use portolan_benches::cluster::{self, Objects};
use portolan_benches::figures::{figure, millis, percentile, say};
use portolan_kernel::netns::NetNs;
use portolan_kernel::nft::Nft;
use portolan_model::{Cluster, Family};
use portolan_nft::Batch;
use portolan_nft::netlink::encode;
use portolan_plan::{NodePlan, NodeView, renode};
use portolan_render::nft as render;

use crate::bare::Bare;

const CHANGES: usize = 2000;
const COLD_RUNS: usize = 3;

/// Measures at every size.
pub(crate) fn run(sizes: &[usize]) -> Result<()> {
    let mut bare = Vec::new();
    for services in sizes {
        cold(*services)?;
        bare.extend(changes(*services)?);
    }
    figure(
        "bare_batch_p50_ms",
        millis(percentile(&mut bare, 0.5)),
        "ms",
    );
    figure(
        "bare_batch_p99_ms",
        millis(percentile(&mut bare, 0.99)),
        "ms",
    );
    Ok(())
}

/// Everything into an empty namespace.
fn cold(services: usize) -> Result<()> {
    let size = cluster::size(services);
    say(&format!(
        "cold start, {size}: from objects to the kernel, {COLD_RUNS} times"
    ));
    let objects = Objects::new(Family::V4, services)?;
    let mut parts: [Vec<Duration>; 5] = Default::default();
    let mut resyncs = Vec::new();
    for _ in 0..COLD_RUNS {
        let netns = NetNs::create()?;
        let mut nft = Nft::open(&netns)?;
        let begin = Instant::now();
        let facts = objects.facts();
        let taken = begin.elapsed();
        let plan = portolan_plan::node(&facts, &cluster::view(&facts));
        let planned = begin.elapsed();
        let mut committed = Duration::ZERO;
        for batch in render::start(&plan) {
            let begin = Instant::now();
            nft.commit(&batch)?;
            committed += begin.elapsed();
        }
        let done = begin.elapsed();
        let these = [
            done,
            taken,
            planned - taken,
            done - planned - committed,
            committed,
        ];
        for (part, took) in parts.iter_mut().zip(these) {
            part.push(took);
        }
        resyncs.push(resync(&mut nft, &plan)?);
    }
    let resync = percentile(&mut resyncs, 0.5).as_secs_f64();
    figure(&format!("resync_{size}_s"), resync, "s");
    let names = ["", "_intake", "_plan", "_render", "_kernel"];
    for (name, part) in names.iter().zip(&mut parts) {
        let seconds = percentile(part, 0.5).as_secs_f64();
        figure(&format!("cold_{size}{name}_s"), seconds, "s");
    }
    Ok(())
}

/// How long it takes to find that the kernel holds the plan.
fn resync(nft: &mut Nft, plan: &NodePlan) -> Result<Duration> {
    let begin = Instant::now();
    for (id, wanted) in render::outlines(plan) {
        let held = nft.outline(&id)?;
        ensure!(held == Some(wanted), "{id} is not as planned after a start");
    }
    Ok(begin.elapsed())
}

/// Makes a plan's tables where there are none.
fn start(nft: &mut Nft, plan: &NodePlan) -> Result<()> {
    for batch in render::start(plan) {
        nft.commit(&batch)?;
    }
    Ok(())
}

/// A node with its Services in the kernel.
pub(crate) struct Programmed {
    pub(crate) facts: Cluster,
    pub(crate) view: NodeView,
    pub(crate) plan: NodePlan,
    pub(crate) nft: Nft,
}

impl Programmed {
    /// Programs what is known into a namespace.
    pub(crate) fn new(netns: &NetNs, facts: Cluster) -> Result<Self> {
        let mut nft = Nft::open(netns)?;
        let view = cluster::view(&facts);
        let plan = portolan_plan::node(&facts, &view);
        start(&mut nft, &plan)?;
        Ok(Self {
            facts,
            view,
            plan,
            nft,
        })
    }

    /// Takes events in, by the texts of their EndpointSlices, and commits what they
    /// change, as the agent does: plans once, renders what was touched, commits once.
    pub(crate) fn take<'a>(&mut self, events: impl Iterator<Item = &'a [u8]>) -> Result<Taken> {
        let begin = Instant::now();
        let mut dirty = portolan_model::Dirty::default();
        for text in events {
            dirty.merge(self.facts.apply(cluster::slice_change(text)?));
        }
        let known = begin.elapsed();
        let touched = renode(&mut self.plan, &self.facts, &self.view, &dirty);
        let planned = begin.elapsed();
        let delta = render::delta(&self.plan, &touched);
        let rendered = begin.elapsed();
        self.nft.commit(&delta)?;
        let done = begin.elapsed();
        ensure!(!delta.is_empty(), "a change must change the kernel");
        let parts = [known, planned - known, rendered - planned, done - rendered];
        Ok(Taken { delta, parts })
    }
}

/// A round that was committed.
pub(crate) struct Taken {
    pub(crate) delta: Batch,
    /// How long each of [`PARTS`] took.
    pub(crate) parts: [Duration; 4],
}

/// The parts of a round.
pub(crate) const PARTS: [&str; 4] = ["intake", "plan", "render", "kernel"];

/// One changed endpoint, again and again: from the event's text to the commit. The
/// same batches go to a second namespace with the same Services, bare. Returns how
/// long those took.
fn changes(services: usize) -> Result<Vec<Duration>> {
    let size = cluster::size(services);
    say(&format!(
        "{CHANGES} changes, {size}, beside their bare batches"
    ));
    let mut node = Programmed::new(&NetNs::create()?, cluster::facts(Family::V4, services)?)?;
    let beside = NetNs::create()?;
    start(&mut Nft::open(&beside)?, &node.plan)?;
    let bare = Bare::open(&beside)?;
    let (mut ours, mut kernel) = (Vec::new(), Vec::new());
    for turn in 0..CHANGES {
        let number = turn * 7919 % services;
        let text = serde_json::to_vec(&cluster::slice(Family::V4, number, turn / services + 1))?;
        let begin = Instant::now();
        let delta = node.take(std::iter::once(text.as_slice()))?.delta;
        ours.push(begin.elapsed());
        let one = encode(&delta, usize::MAX, 1, None).next();
        kernel.push(bare.commit(&one.context("a transaction")?.bytes)?);
    }
    for (what, samples) in [("change", &mut ours), ("bare_batch", &mut kernel)] {
        for (name, share) in [("p50", 0.5), ("p99", 0.99)] {
            let value = millis(percentile(samples, share));
            figure(&format!("{what}_{size}_{name}_ms"), value, "ms");
        }
    }
    Ok(kernel)
}
