//! Fuzzing on stable Rust: the instrumentation that `cargo fuzz` asks of
//! nightly is a matter of LLVM, so plain flags do.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::say;

/// The targets, as fuzz/Cargo.toml names them.
pub(crate) const TARGETS: [&str; 13] = [
    "arp",
    "beats",
    "bfd",
    "bgp",
    "conntrack",
    "decode",
    "dns",
    "intake",
    "ndp",
    "netlink",
    "patch",
    "replies",
    "selectors",
];

/// What libFuzzer needs of the compiler: counters on edges, and comparisons.
const FLAGS: [&str; 8] = [
    "--cfg=fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Cdebug-assertions",
];

/// A single input must not take longer, nor more memory.
const LIMITS: [&str; 3] = ["-timeout=10", "-rss_limit_mb=2048", "-max_len=8192"];

/// Runs one target, or all, for so many seconds each. Inputs that were found
/// stay in `fuzz/corpus`; one that fails is kept in `fuzz/artifacts`.
pub(crate) fn run(root: &Path, target: Option<&str>, seconds: u32) -> Result<()> {
    let targets: Vec<&str> = match target {
        None => TARGETS.to_vec(),
        Some(one) if TARGETS.contains(&one) => vec![one],
        Some(other) => bail!("no target {other:?}: there are {}", TARGETS.join(", ")),
    };
    let folder = root.join("fuzz");
    let host = host()?;
    // Named explicitly, so that build scripts are not instrumented.
    build(&folder, &host)?;
    for target in targets {
        say(&format!("fuzz {target} for {seconds} s"));
        let corpus = folder.join("corpus").join(target);
        let artifacts = folder.join("artifacts").join(target);
        std::fs::create_dir_all(&corpus)?;
        std::fs::create_dir_all(&artifacts)?;
        let program = root
            .join("target/fuzz")
            .join(&host)
            .join("release")
            .join(target);
        let output = Command::new(&program)
            .current_dir(&folder)
            .args(LIMITS)
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .args(["-verbosity=0", "-print_final_stats=1"])
            .arg(&corpus)
            .arg(folder.join("seeds").join(target))
            .output()
            .with_context(|| format!("run {}", program.display()))?;
        let text = String::from_utf8_lossy(&output.stderr);
        if !output.status.success() {
            bail!("{target} found something, see fuzz/artifacts/{target}:\n{text}");
        }
        let runs = text
            .lines()
            .find_map(|line| line.strip_prefix("stat::number_of_executed_units:"))
            .map_or("", str::trim);
        if runs.parse::<u64>().unwrap_or(0) == 0 {
            bail!("{target} ran nothing:\n{text}");
        }
        say(&format!("  {runs} inputs, nothing found"));
    }
    Ok(())
}

fn build(folder: &Path, host: &str) -> Result<()> {
    let done = Command::new("cargo")
        .current_dir(folder)
        .args(["build", "--release", "--bins", "--quiet", "--target", host])
        .arg("--target-dir")
        .arg(folder.join("../target/fuzz"))
        .env("RUSTFLAGS", FLAGS.join(" "))
        .status()
        .context("build the fuzz targets")?;
    if !done.success() {
        bail!("the fuzz targets do not build");
    }
    Ok(())
}

/// The triple of this machine.
fn host() -> Result<String> {
    let output = Command::new("rustc")
        .arg("-vV")
        .output()
        .context("rustc -vV")?;
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines()
        .find_map(|line| line.strip_prefix("host: "))
        .map(str::to_owned)
        .context("rustc does not say its host")
}
