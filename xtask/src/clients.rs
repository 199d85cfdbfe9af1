//! The clients of other languages that judge the API server: Python's and
//! JavaScript's, in folders of our own below `target/tools`.
//!
//! Versions are pinned beside the scripts (tests/conformance). client-node is
//! the newest that runs on Debian's Node.js: 2.x wants Node.js 22.19.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::run::{check, command, say};
use crate::setup;

/// Fetches what is not there yet, or is of another version.
pub(crate) fn fetch(root: &Path) -> Result<()> {
    let scripts = root.join("tests/conformance");
    let python = root.join("target/tools/python");
    once(&scripts.join("python/requirements.txt"), &python, || {
        fetch_python(root, &python)
    })?;
    let javascript = root.join("target/tools/javascript");
    let wanted = scripts.join("javascript/package-lock.json");
    once(&wanted, &javascript, || {
        fetch_javascript(root, &scripts, &javascript)
    })
}

/// Runs `fetch` unless it was done for this very file. The copy of the file is
/// written last: what was broken off is done again.
fn once(wanted: &Path, folder: &Path, fetch: impl FnOnce() -> Result<()>) -> Result<()> {
    let text = fs::read_to_string(wanted).with_context(|| wanted.display().to_string())?;
    let stamp = folder.join("fetched");
    if fs::read_to_string(&stamp).is_ok_and(|fetched| fetched == text) {
        return Ok(());
    }
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    fetch()?;
    fs::write(&stamp, text).with_context(|| format!("write {}", stamp.display()))
}

fn fetch_python(root: &Path, folder: &Path) -> Result<()> {
    let system = python();
    let system = system.to_str().context("the path is UTF-8")?;
    // Debian keeps the module in a package of its own.
    let whole = command(root, &[system, "-c", "import ensurepip"]).output()?;
    if !whole.status.success() {
        let why = "an environment for the Python client";
        setup::install(
            root,
            &["python3-venv"],
            &[format!("  venv (package python3-venv): {why}")],
        )?;
    }
    say("fetching the Python client");
    let folder = folder.to_str().context("the path is UTF-8")?;
    check(root, &[system, "-m", "venv", folder])?;
    let pip = format!("{folder}/bin/pip");
    let requirements = "tests/conformance/python/requirements.txt";
    check(
        root,
        &[&pip, "install", "--quiet", "--requirement", requirements],
    )
}

/// The system's Python: one of a user's own may not be readable by others.
fn python() -> PathBuf {
    let debian = PathBuf::from("/usr/bin/python3");
    if debian.is_file() {
        debian
    } else {
        PathBuf::from("python3")
    }
}

fn fetch_javascript(root: &Path, scripts: &Path, folder: &Path) -> Result<()> {
    say("fetching the JavaScript client");
    fs::create_dir_all(folder)?;
    for file in ["package.json", "package-lock.json"] {
        fs::copy(scripts.join("javascript").join(file), folder.join(file))?;
    }
    let folder = folder.to_str().context("the path is UTF-8")?;
    let words = [
        "npm",
        "ci",
        "--no-audit",
        "--no-fund",
        "--silent",
        "--prefix",
        folder,
    ];
    check(root, &words)
}
