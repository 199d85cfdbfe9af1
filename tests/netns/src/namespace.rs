//! A test in a user and network namespace of its own, without root.

use std::io::Write;
use std::process::{Command, Stdio};

/// Set in the process that runs a test inside its namespaces.
const AGAIN: &str = "PORTOLAN_TEST_IN_NAMESPACE";

/// Whether the caller is in namespaces of its own.
///
/// If not, the test of this name has been run there, as a new process of the same
/// test program; a failure there fails it here. So a test begins with
/// `if !inside("its_name") { return; }`.
///
/// # Panics
///
/// If user namespaces are refused or `unshare` is missing: nothing is skipped.
pub fn inside(test: &str) -> bool {
    if std::env::var_os(AGAIN).is_some() {
        return true;
    }
    let program = std::env::current_exe().expect("a test knows its own program");
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--net"])
        .arg(program)
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(AGAIN, "1")
        .status()
        .expect("unshare (Debian package util-linux) must be installed");
    assert!(
        status.success(),
        "{test} failed in its user and network namespace, or there could be none"
    );
    false
}

/// Runs Debian's `nft` with a ruleset on its standard input.
///
/// # Panics
///
/// If it is missing or fails.
pub fn nft(args: &[&str], input: &str) -> String {
    let mut child = Command::new("nft")
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("nft (Debian package nftables) must be installed");
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // A listing does not read what it is given.
    let written = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("nft can be waited for");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "nft {args:?}: {}, {written:?}\n{errors}\n{input}",
        output.status
    );
    String::from_utf8_lossy(&output.stdout).into_owned()
}
