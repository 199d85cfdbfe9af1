//! A test in a user and network namespace of its own, and Debian's `nft` there.

use std::io::Write;
use std::process::{Command, Stdio};

pub use portolan_testkit::namespace::inside;

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
