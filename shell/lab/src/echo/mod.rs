//! `portolan/echo`: the application that answers who it is.
//!
//! HTTP, TCP and UDP servers whose answers name the pod, its node and the
//! client that they see, so that one request shows where a Service led and
//! whether the client's address survived. `/healthz` fails on demand. A client
//! mode sends requests by name and counts who answered.
//!
//! It runs as an ordinary process in a pod: nothing here knows the lab.

mod args;
mod client;
mod lines;
mod reply;
mod server;

use std::io::Write;

use clap::Parser;

use args::{Args, Mode};

/// Runs the application with the arguments that follow its name, and returns
/// its exit code. It builds its own runtime.
pub fn run(args: impl IntoIterator<Item = String>) -> i32 {
    let named = std::iter::once("portolan echo".to_owned()).chain(args);
    let args = match Args::try_parse_from(named) {
        Ok(args) => args,
        Err(help) => {
            // Help goes to standard output, complaints to standard error.
            help.print().unwrap_or_default();
            return help.exit_code();
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("cannot start: {error}")),
    };
    let done = match args.mode {
        Some(Mode::Client(client)) => runtime.block_on(client::run(client)),
        None => runtime.block_on(server::run(args.server)),
    };
    match done {
        Ok(code) => code,
        Err(error) => complain(&error.to_string()),
    }
}

/// One line to standard output, which is the pod's log. A reader that went
/// away is no reason to stop.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").unwrap_or_default();
}

fn complain(line: &str) -> i32 {
    writeln!(std::io::stderr(), "portolan echo: {line}").unwrap_or_default();
    1
}
