//! Names: queries per second over UDP and TCP beside a bare echo with the same system
//! calls, latency at half of the load, the zone's memory, and how soon a change is
//! seen in an answer.
//!
//! Runs in namespaces of its own, so it touches nothing of the host.

mod change;
mod echo;
mod load;
mod memory;
mod outside;
mod world;

use std::io::Write as _;
use std::time::Instant;

use anyhow::Result;
use clap::{Parser, ValueEnum};
use portolan_benches::figures::say;
use portolan_benches::inside;

/// Benchmarks of names.
#[derive(Parser)]
struct Cli {
    /// Only these parts.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Part>,
    /// Seconds of each measurement under load.
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// How often echo and server take turns.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Queries per second and latency.
    Load,
    /// Bytes of a zone.
    Memory,
    /// From a change to the answer that tells it.
    Change,
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
    let _inside = runtime.enter();
    if wanted(Part::Memory) {
        memory::run()?;
    }
    if wanted(Part::Load) {
        load::run(&runtime, cli.seconds, cli.rounds)?;
    }
    if wanted(Part::Change) {
        change::run(&runtime)?;
    }
    say(&format!(
        "all of it took {:.0} s",
        begin.elapsed().as_secs_f64()
    ));
    Ok(())
}
