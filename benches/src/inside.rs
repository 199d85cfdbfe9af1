//! A network namespace of the benchmark's own.

use std::env;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};

/// Says to the program that it runs inside already.
const INSIDE: &str = "PORTOLAN_BENCH_INSIDE";

/// Runs the program again in a network namespace of its own, without root in a user
/// namespace as well; returns when it is inside.
///
/// # Errors
/// If there is no `unshare`, or namespaces are refused.
pub fn enter() -> Result<()> {
    if env::var_os(INSIDE).is_some() {
        return Ok(());
    }
    let namespaces = if is_root() { "-n" } else { "-Urn" };
    let error = Command::new("unshare")
        .args([namespaces, "--"])
        .arg(env::current_exe()?)
        .args(env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    Err(error).context("start `unshare`: the benchmark needs namespaces of its own")
}

/// Whether this is root of the machine: then a socket's buffer may be as large as
/// it wants.
pub fn is_root() -> bool {
    const ALL: &str = "0 0 4294967295";
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let words: Vec<&str> = map.split_whitespace().collect();
    words.join(" ") == ALL && nix::unistd::geteuid().is_root()
}
