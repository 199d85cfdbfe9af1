//! `cargo xtask bench NAME`: builds a benchmark in release mode and runs it.

use std::path::Path;

use anyhow::{Result, bail};

use crate::run::check;

/// The benchmarks: name, and what it measures.
const BENCHES: [(&str, &str); 5] = [
    (
        "dataplane",
        "Services in the kernel: cold start, changes, packets, the agent's memory",
    ),
    (
        "dns",
        "names: queries per second beside a bare echo, latency, memory, changes",
    ),
    (
        "policy",
        "NetworkPolicies: cold start, changed labels, packets, memory",
    ),
    (
        "loadbalancer",
        "addresses given to 10 000 Services, told to a router, moved when a node dies",
    ),
    (
        "apiserver",
        "the API server: creates, lists, watches, start, memory",
    ),
];

/// Runs one benchmark by name, with its own arguments.
pub(crate) fn run(root: &Path, name: &str, arguments: &[String]) -> Result<()> {
    if !BENCHES.iter().any(|(n, _)| *n == name) {
        let known: Vec<String> = BENCHES
            .iter()
            .map(|(n, what)| format!("  {n}: {what}"))
            .collect();
        bail!("no benchmark `{name}`; there are:\n{}", known.join("\n"));
    }
    if name == "dns" {
        crate::setup::need(root, "dnsperf")?;
    }
    if name == "loadbalancer" {
        crate::kubectl::fetch_routers(root)?;
    }
    check(
        root,
        &["cargo", "build", "--release", "--quiet", "-p", "portolan"],
    )?;
    let mut command = vec![
        "cargo",
        "run",
        "--release",
        "--quiet",
        "-p",
        "portolan-benches",
        "--bin",
        name,
        "--",
    ];
    command.extend(arguments.iter().map(String::as_str));
    check(root, &command)
}
