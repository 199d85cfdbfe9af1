//! Portolan: a complete Kubernetes Service network in one binary.
//!
//! `main` chooses: a helper process of the lab, a command that makes the lab's
//! namespaces (before any thread starts), or a command that talks to an API
//! server. What each does is in the module of its name.

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

mod agent;
mod balancer;
mod cleanup;
mod cli;
mod cni;
mod connect;
mod dns;
mod doctor;
mod flows;
mod lab;
mod observed;
mod out;
mod policy;
mod resources;
mod status;
mod terminal;
mod trace;
mod verbs;

use cli::{Cli, Command};
use portolan_lab::container;

fn main() -> ExitCode {
    if let Some(code) = helper() {
        return code;
    }
    let cli = Cli::parse();
    log_to_stderr(&cli.command);
    match run(cli) {
        Ok(code) => code,
        Err(error) => {
            out::note(format_args!("{}", one_line(&error)));
            ExitCode::FAILURE
        }
    }
}

/// The program under another name: the CNI plugin, a process of the lab, or the
/// application of the image portolan/echo.
fn helper() -> Option<ExitCode> {
    if cni::is_plugin() {
        return Some(cni::plugin());
    }
    let code = container::init_main().or_else(|| {
        let mut arguments = std::env::args().skip(1);
        (arguments.next()? == "echo").then(|| portolan_lab::echo::run(arguments))
    })?;
    Some(ExitCode::from(u8::try_from(code).unwrap_or(1)))
}

/// The error and its causes, in one line.
fn one_line(error: &anyhow::Error) -> String {
    let mut parts: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !parts.iter().any(|p| p.contains(&text)) {
            parts.push(text);
        }
    }
    let text = parts.join(": ");
    if text.starts_with("Error") || text.starts_with("error") || text.starts_with("Unable") {
        text
    } else {
        format!("error: {text}")
    }
}

fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Completion { shell } => {
            clap_complete::generate(
                shell,
                &mut Cli::command(),
                "portolan",
                &mut std::io::stdout(),
            );
            Ok(ExitCode::SUCCESS)
        }
        Command::Get(args) => client(verbs::get::run(args)),
        Command::Describe(args) => client(verbs::describe::run(args)),
        Command::Apply(args) => client(verbs::apply::run(args)),
        Command::Delete(args) => client(verbs::delete::run(args)),
        Command::Scale(args) => client(verbs::scale::run(args)),
        Command::Expose(args) => client(verbs::expose::run(args)),
        Command::Run(args) => talk(verbs::run::run(args)),
        Command::Exec(args) => talk(verbs::exec::run(args)),
        Command::PortForward(args) => client(verbs::port_forward::run(args)),
        Command::Logs(args) => client(verbs::logs::run(args)),
        Command::Service(args) => client(verbs::service::run(args)),
        Command::Trace(args) => client(trace::run(args)),
        Command::Doctor(args) => talk(doctor::run(args)),
        Command::Flows(args) => client(flows::run(args)),
        Command::Policy(args) => talk(policy::run(args)),
        Command::Lb(args) => client(balancer::run(args)),
        Command::Status(args) => client(status::run(args)),
        Command::Demo(args) => lab::demo(args),
        Command::Up(args) => lab::up(args),
        Command::Agent(args) => agent::run(args),
        Command::Dns(args) => dns::run(args),
        Command::Cni(args) => cni::run(&args),
        Command::Cleanup(args) => client(cleanup::run(args)),
    }
}

/// Warnings go to standard error, and what an agent says of itself; RUST_LOG asks
/// for more.
fn log_to_stderr(command: &Command) {
    let usual = if matches!(command, Command::Agent(_) | Command::Dns(_)) {
        "warn,kube_client=off,portolan=info,portolan_agent=info"
    } else {
        "warn,kube_client=off"
    };
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_unset| tracing_subscriber::EnvFilter::new(usual));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
}

/// Runs a command that only talks to an API server.
fn client(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<ExitCode> {
    talk(async { work.await.map(|()| ExitCode::SUCCESS) })
}

/// Runs a command whose exit code is that of something else.
fn talk(work: impl Future<Output = anyhow::Result<ExitCode>>) -> anyhow::Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let done = runtime.block_on(work);
    // A read of standard input may never end: it is not waited for.
    runtime.shutdown_background();
    done
}
