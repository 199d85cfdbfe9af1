//! The project's own tasks: `cargo xtask --help`.
//!
//! `setup` installs what tests need, `test` runs every test, `tidy` checks the
//! structure, `ci` does all of it, `bench` measures. Nothing here is part of the
//! product.

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

mod bench;
mod clients;
mod codegen;
mod fuzz;
mod kubectl;
mod run;
mod setup;
mod test;
mod tidy;

/// How long each fuzz target runs in `ci`.
const CI_FUZZ_SECONDS: u32 = 5;

/// Tasks of the Portolan repository.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Check the structure: arrows between crates, purity, file sizes, ARCHITECTURE.md.
    Tidy,
    /// Write the generated files: the field table of Kubernetes' protobuf.
    Codegen {
        /// Write nothing; fail when a file is not up to date.
        #[arg(long)]
        check: bool,
    },
    /// Install what the tests need (as root), or say what is missing and how to get it.
    Setup,
    /// Set up, then run every test: pure, real kernel, real clients, as root and without it.
    Test {
        /// Leave out the runs as an unprivileged user (they need root to change user).
        #[arg(long)]
        only_current_user: bool,
    },
    /// Formatting, clippy with warnings denied, tidy, then everything of `test`.
    Ci,
    /// Fuzz the readers of requests, patches, selectors, objects and the kernel's answers.
    Fuzz {
        /// conntrack, decode, intake, netlink, patch or selectors; all if none is named.
        target: Option<String>,
        /// How long each runs.
        #[arg(long, default_value_t = 60)]
        seconds: u32,
    },
    /// Run one benchmark; it ends with lines `figure NAME VALUE UNIT`.
    Bench {
        /// dataplane or apiserver
        name: String,
        /// What the benchmark itself takes, such as `--only packets`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            run::say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let root = run::workspace_root()?;
    match Cli::parse().task {
        Task::Tidy => tidy::run(&root),
        Task::Codegen { check } => codegen::run(&root, check),
        Task::Setup => setup::run(&root),
        Task::Test { only_current_user } => {
            setup::run(&root)?;
            test::every_test(&root, only_current_user)
        }
        Task::Ci => {
            tidy::formatting_and_lints(&root)?;
            tidy::run(&root)?;
            setup::run(&root)?;
            fuzz::run(&root, None, CI_FUZZ_SECONDS)?;
            test::every_test(&root, false)
        }
        Task::Fuzz { target, seconds } => fuzz::run(&root, target.as_deref(), seconds),
        Task::Bench { name, arguments } => bench::run(&root, &name, &arguments),
    }
}
