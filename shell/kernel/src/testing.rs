//! Lets the crate's own tests make namespaces without being root.
//!
//! A test that needs it starts with `if !privileged() { return; }`. As root the
//! body simply runs. Otherwise the test binary is started again, this one test
//! only, in a user and network namespace of its own; a failure there fails the
//! test here.

#![expect(unsafe_code, reason = "pre_exec runs between fork and exec")]

use std::{env, fs, io, os::unix::process::CommandExt, process::Command, thread};

use nix::{
    sched::{CloneFlags, unshare},
    unistd::{getegid, geteuid},
};

const AGAIN: &str = "PORTOLAN_TEST_IN_NAMESPACE";

/// Whether the caller may go on; if not, the test has been run elsewhere.
pub(crate) fn privileged() -> bool {
    if geteuid().is_root() {
        return true;
    }
    assert!(
        env::var_os(AGAIN).is_none(),
        "the user namespace gave no root"
    );
    let test = thread::current()
        .name()
        .expect("tests run on named threads")
        .to_owned();
    let mut again = Command::new(env::current_exe().unwrap());
    again
        .args([&test, "--exact", "--test-threads=1"])
        .env(AGAIN, "1");
    // SAFETY: between fork and exec the child only makes system calls and
    // allocates small strings; the test harness holds no lock of the allocator
    // across a fork in glibc.
    unsafe { again.pre_exec(enter) };
    let status = again.status().unwrap();
    assert!(status.success(), "{test} failed in its user namespace");
    false
}

fn enter() -> io::Result<()> {
    let (uid, gid) = (geteuid(), getegid());
    unshare(CloneFlags::CLONE_NEWUSER | CloneFlags::CLONE_NEWNET)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}
