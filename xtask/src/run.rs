//! Running other programs, loudly.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The folder that holds the workspace's Cargo.toml.
pub(crate) fn workspace_root() -> Result<PathBuf> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    Ok(here
        .parent()
        .context("xtask lies in the workspace")?
        .to_owned())
}

/// Says one line of progress.
#[expect(clippy::print_stderr, reason = "a task tells what it does")]
pub(crate) fn say(text: &str) {
    eprintln!("xtask: {text}");
}

/// A command that runs in `root`, and its words for messages.
pub(crate) fn command(root: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(words.first().copied().unwrap_or("true"));
    command.args(words.iter().skip(1)).current_dir(root);
    command
}

/// Runs a command and fails with its words when it does not succeed.
pub(crate) fn check(root: &Path, words: &[&str]) -> Result<()> {
    say(&words.join(" "));
    run(command(root, words), &words.join(" "))
}

/// Runs `command`; an exit status other than 0 is an error that names `what`.
pub(crate) fn run(mut command: Command, what: &str) -> Result<()> {
    let status = command
        .status()
        .with_context(|| format!("start `{what}`"))?;
    if !status.success() {
        bail!("`{what}` ended with {status}");
    }
    Ok(())
}

/// What a command prints, or an error that carries its standard error.
pub(crate) fn output(root: &Path, words: &[&str]) -> Result<String> {
    let what = words.join(" ");
    let out = command(root, words)
        .output()
        .with_context(|| format!("start `{what}`"))?;
    if !out.status.success() {
        bail!(
            "`{what}` ended with {}: {}",
            out.status,
            String::from_utf8_lossy(&out.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

/// True when this process may install packages and change user.
pub(crate) fn is_root() -> bool {
    std::fs::read_to_string("/proc/self/status")
        .ok()
        .and_then(|s| {
            s.lines()
                .find_map(|l| l.strip_prefix("Uid:").map(str::to_owned))
        })
        .is_some_and(|uids| uids.split_whitespace().nth(1) == Some("0"))
}
