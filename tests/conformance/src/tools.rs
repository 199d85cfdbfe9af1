//! Where the product, the kubectls and the examples are.

use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// The root of the repository, or of a copy of what tests need of it.
pub fn root() -> PathBuf {
    std::env::var_os("PORTOLAN_ROOT").map_or_else(
        || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../.."),
        PathBuf::from,
    )
}

/// The product's program.
pub fn portolan() -> Result<PathBuf> {
    existing("PORTOLAN_BIN", "target/debug/portolan", "cargo build")
}

/// kubectl 1.32.
pub fn kubectl() -> Result<PathBuf> {
    existing(
        "PORTOLAN_KUBECTL",
        "target/tools/kubectl-1.32/usr/bin/kubectl",
        "cargo xtask setup",
    )
}

/// kubectl 1.20, the old one.
pub fn old_kubectl() -> Result<PathBuf> {
    existing(
        "PORTOLAN_KUBECTL_OLD",
        "target/tools/kubectl-1.20/usr/bin/kubectl",
        "cargo xtask setup",
    )
}

/// Python with the Kubernetes client.
pub fn python() -> Result<PathBuf> {
    // Not made canonical: a virtual environment is known by the path of its interpreter.
    let path = root().join("target/tools/python/bin/python");
    let path = std::env::var_os("PORTOLAN_PYTHON").map_or(path, PathBuf::from);
    if !path.is_file() {
        bail!(
            "{} is not there: `cargo xtask setup` makes it",
            path.display()
        );
    }
    Ok(path)
}

/// Node.js.
pub fn node() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|d| d.join("node"))
        .find(|p| p.is_file())
        .context("node is not on PATH: `cargo xtask setup` installs it")
}

/// The JavaScript client.
pub fn node_modules() -> Result<PathBuf> {
    let below = "target/tools/javascript/node_modules/@kubernetes/client-node/dist/index.js";
    existing("PORTOLAN_CLIENT_NODE", below, "cargo xtask setup")
}

fn existing(variable: &str, below_root: &str, made_by: &str) -> Result<PathBuf> {
    let path = std::env::var_os(variable).map_or_else(|| root().join(below_root), PathBuf::from);
    if !path.is_file() {
        bail!(
            "{} is not there: `{made_by}` makes it ({variable} names another)",
            path.display()
        );
    }
    path.canonicalize().context("make the path absolute")
}

/// A port of 127.0.0.1 that nobody listens on at the moment.
pub fn free_port() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("bind 127.0.0.1:0")?;
    Ok(listener.local_addr()?.port())
}
