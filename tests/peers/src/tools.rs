//! Where the routers are that `cargo xtask setup` fetches.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

fn folder(package: &str) -> PathBuf {
    let root = std::env::var_os("PORTOLAN_ROOT").map_or_else(
        || Path::new(env!("CARGO_MANIFEST_DIR")).join("../.."),
        PathBuf::from,
    );
    root.join("target/tools").join(package)
}

/// A program of a package.
///
/// # Errors
/// If it has not been fetched.
pub(crate) fn tools(package: &str, program: &str) -> Result<PathBuf> {
    let path = folder(package).join(program);
    if !path.is_file() {
        bail!(
            "{} is missing: cargo xtask setup fetches it",
            path.display()
        );
    }
    Ok(path)
}

/// Where its libraries are, for LD_LIBRARY_PATH.
///
/// # Errors
/// If a path has a colon.
pub(crate) fn libraries(package: &str) -> Result<OsString> {
    let folder = folder(package);
    let architecture = format!("{}-linux-gnu", std::env::consts::ARCH);
    let folders = ["usr/lib", "lib"].map(|lib| folder.join(lib).join(&architecture));
    let own = folders.first().map(|lib| lib.join(package));
    Ok(std::env::join_paths(folders.iter().cloned().chain(own))?)
}
