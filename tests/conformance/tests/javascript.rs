//! The JavaScript client (npm `@kubernetes/client-node`) against the embedded API server.

use std::process::{Command, ExitCode};

use anyhow::Result;
use portolan_conformance::scripts::{self, Language};
use portolan_conformance::tools;

fn interpreter() -> Result<Command> {
    let mut command = Command::new(tools::node()?);
    // Modules are looked up beside the scripts otherwise, and they are in target/tools.
    command.env("CLIENT_NODE", tools::node_modules()?);
    Ok(command)
}

static JAVASCRIPT: Language = Language {
    folder: "javascript",
    extension: ".mjs",
    interpreter,
    scripts: &[
        ("informer.mjs", "a_javascript_informer_follows"),
        ("apply.mjs", "javascript_applies_and_patches"),
        ("streams.mjs", "javascript_execs_and_follows_logs"),
    ],
};

fn main() -> ExitCode {
    scripts::main(&JAVASCRIPT)
}
