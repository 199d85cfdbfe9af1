//! NetworkPolicies: compiled and committed cold, one label changed, and packets of an
//! allowed flow against a node without any policy.
//!
//! Runs in namespaces of its own, so it touches nothing of the host.

mod packets;
mod world;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use portolan_benches::figures::{figure, memory_mb, millis, percentile, say};
use portolan_benches::inside;
use portolan_kernel::netns::NetNs;
use portolan_kernel::nft::Nft;
use portolan_model::{Change, Cluster, Fact, Pod};
use portolan_plan::{NodePlan, node, renode};
use portolan_render::nft as render;

const COLD_RUNS: usize = 5;
const LABEL_CHANGES: usize = 2000;

fn main() -> Result<()> {
    inside::enter()?;
    memory()?;
    cold()?;
    label_changes()?;
    packets::run()
}

/// What facts and plan take, in a process that has nothing else.
fn memory() -> Result<()> {
    let before = memory_mb(std::process::id())?;
    let facts = world::facts(world::changes()?);
    let plan = node(&facts, &world::view());
    let after = memory_mb(std::process::id())?;
    ensure!(!plan.policies.isolated.is_empty(), "nothing is isolated");
    figure("rss_mb", after - before, "MB");
    Ok(())
}

fn start(netns: &NetNs, plan: &NodePlan) -> Result<Nft> {
    let mut nft = Nft::open(netns)?;
    for batch in render::start(plan) {
        nft.commit(&batch)?;
    }
    Ok(nft)
}

/// From objects in memory to the kernel.
fn cold() -> Result<()> {
    say("cold start, 1 000 policies and 10 000 pods");
    let mut parts: [Vec<Duration>; 4] = Default::default();
    for _ in 0..COLD_RUNS {
        let (changes, netns) = (world::changes()?, NetNs::create()?);
        let begin = Instant::now();
        let facts = world::facts(changes);
        let known = begin.elapsed();
        let plan = node(&facts, &world::view());
        let planned = begin.elapsed();
        start(&netns, &plan)?;
        let done = begin.elapsed();
        let these = [done, known, planned - known, done - planned];
        for (part, took) in parts.iter_mut().zip(these) {
            part.push(took);
        }
    }
    for (name, part) in ["", "_facts", "_plan", "_commit"].iter().zip(&mut parts) {
        let seconds = percentile(part, 0.5).as_secs_f64();
        figure(&format!("cold_1000x10000{name}_s"), seconds, "s");
    }
    Ok(())
}

/// A pod somewhere in the cluster becomes one of another application, and back.
fn label_changes() -> Result<()> {
    say("changed labels, from the fact to the commit");
    let view = world::view();
    let mut facts: Cluster = world::facts(world::changes()?);
    let mut plan = node(&facts, &view);
    let mut nft = start(&NetNs::create()?, &plan)?;
    let (mut took, mut committed) = (Vec::new(), 0);
    for turn in 0..LABEL_CHANGES {
        let was = world::pod(turn * 7919 % world::PODS);
        let changed = Pod {
            labels: world::labels(turn % 13),
            ..was.clone()
        };
        for pod in [changed, was] {
            let change = Change::Upsert(Fact::Pod(pod.into()));
            let begin = Instant::now();
            let dirty = facts.apply(change);
            let touched = renode(&mut plan, &facts, &view, &dirty);
            let batch = render::delta(&plan, &touched);
            committed += usize::from(!batch.is_empty());
            nft.commit(&batch)?;
            took.push(begin.elapsed());
        }
    }
    ensure!(committed * 4 > took.len(), "hardly a label mattered");
    figure(
        "label_change_p50_ms",
        millis(percentile(&mut took, 0.5)),
        "ms",
    );
    figure(
        "label_change_p99_ms",
        millis(percentile(&mut took, 0.99)),
        "ms",
    );
    Ok(())
}
