//! A test in a user and network namespace of its own, without root.

use std::process::Command;

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
    inside_as(test, &["--map-root-user"])
}

/// As [`inside`], but as a user who is not called root and may do the same: some
/// programs give up what they may when they find that they are root.
///
/// # Panics
///
/// As [`inside`].
pub fn inside_as_somebody(test: &str) -> bool {
    inside_as(test, &["--map-user=1000", "--keep-caps"])
}

fn inside_as(test: &str, who: &[&str]) -> bool {
    if std::env::var_os(AGAIN).is_some() {
        return true;
    }
    let program = std::env::current_exe().expect("a test knows its own program");
    let status = Command::new("unshare")
        .args(["--user", "--net"])
        .args(who)
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
