//! Services in the kernel: cold start, changes, the agent's memory, packets, and a
//! ruleset of kube-proxy's shape beside it.
//!
//! Runs in namespaces of its own, so it touches nothing of the host.

mod agent;
mod bare;
mod kernel;
mod kubeproxy;
mod memory;
mod packets;
mod storm;

use std::io::Write as _;
use std::time::Instant;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use portolan_benches::figures::say;
use portolan_benches::inside;

/// How many Services there are.
const SIZES: [usize; 2] = [10_000, 50_000];

/// Benchmarks of the data plane.
#[derive(Parser)]
struct Cli {
    /// Only these parts.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Cold start and single changes, from objects in memory to the kernel.
    Kernel,
    /// Many changes: sustained, and a rolling update.
    Storm,
    /// A whole agent against an API server.
    Agent,
    /// Bytes per Service and per endpoint.
    Memory,
    /// Packets through a Service against straight to the pod.
    Packets,
    /// A ruleset of kube-proxy's shape.
    Kubeproxy,
}

fn main() -> Result<()> {
    if let Some(bytes) = memory::child() {
        writeln!(std::io::stdout(), "{}", bytes?)?;
        return Ok(());
    }
    let cli = Cli::parse();
    inside::enter()?;
    let begin = Instant::now();
    let wanted = |part| cli.only.is_empty() || cli.only.contains(&part);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    // The agent is a process of its own. It comes first, so that what this one has
    // allocated does not matter.
    if wanted(Part::Agent) {
        for services in SIZES {
            runtime.block_on(agent::run(services))?;
        }
    }
    if wanted(Part::Memory) {
        memory::run()?;
    }
    if wanted(Part::Kernel) {
        kernel::run(&SIZES)?;
    }
    if wanted(Part::Storm) {
        storm::run()?;
    }
    if wanted(Part::Packets) {
        packets::run(&runtime)?;
    }
    if wanted(Part::Kubeproxy) {
        kubeproxy::run()?;
    }
    say(&format!(
        "all of it took {:.0} s",
        begin.elapsed().as_secs_f64()
    ));
    Ok(())
}
