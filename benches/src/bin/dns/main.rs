//! Names: queries per second over UDP and TCP beside a bare echo with the same system
//! calls, latency at half of the load, the zone's memory, and how soon a change is
//! seen in an answer.
//!
//! Runs itself again in a network namespace of its own, without root in a user
//! namespace as well, so it touches nothing of the host.

mod change;
mod echo;
mod load;
mod memory;
mod outside;
mod world;

use std::env;
use std::io::Write as _;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum};
use portolan_benches::figures::say;

const INSIDE: &str = "PORTOLAN_BENCH_INSIDE";

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

fn is_root() -> bool {
    const ALL: &str = "0 0 4294967295";
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let words: Vec<&str> = map.split_whitespace().collect();
    words.join(" ") == ALL && nix::unistd::geteuid().is_root()
}

fn main() -> Result<()> {
    if let Some(bytes) = memory::child() {
        writeln!(std::io::stdout(), "{}", bytes?)?;
        return Ok(());
    }
    let cli = Cli::parse();
    if env::var_os(INSIDE).is_none() {
        let namespaces = if is_root() { "-n" } else { "-Urn" };
        let error = Command::new("unshare")
            .args([namespaces, "--"])
            .arg(env::current_exe()?)
            .args(env::args_os().skip(1))
            .env(INSIDE, "1")
            .exec();
        return Err(error).context("start `unshare`: the benchmark needs namespaces of its own");
    }
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
