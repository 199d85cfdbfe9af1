//! The lab's world against the running kernel: the way in and out of the
//! sandbox, the fabric, pods' networks, published ports.
//!
//! A lab must be entered before any thread starts, so this test brings its own
//! `main`: as `world --inside NAME` it enters a lab and runs one case there;
//! otherwise it starts itself once per case and judges the exit code. As root,
//! every case runs a second time as an unprivileged user.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::zombie_processes,
    unsafe_code,
    reason = "a test program: it panics to fail, talks to its judge over stdout, and leaves \
              children behind to see them die"
)]

mod inside;
mod network;
mod outside;
mod run;

use std::process::ExitCode;

use libtest_mimic::{Arguments, Trial};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, flag, case, rest @ ..] = arguments.as_slice()
        && flag == "--inside"
    {
        return inside::enter(case, rest);
    }
    let mut trials = Vec::new();
    for user in run::users() {
        for case in inside::CASES {
            trials.push(Trial::test(format!("{}::{case}", user.name), move || {
                Ok(run::inside(user, case)?)
            }));
        }
        for case in outside::CASES {
            trials.push(Trial::test(
                format!("{}::{}", user.name, case.name),
                move || Ok((case.run)(user)?),
            ));
        }
    }
    let judged = libtest_mimic::run(&Arguments::from_args(), trials);
    run::remove_copy();
    judged.exit_code()
}
