//! `portolan cleanup`: takes away what an agent left in this network namespace.

use anyhow::{Error, Result, anyhow, bail};
use portolan_agent::announce::{Farewelled, end_sessions};
use portolan_agent::cleanup::{CleanupError, Leftover, alone, cleanup, leftovers};
use portolan_kernel::netns::NetNs;
use serde_json::{Value, json};

use crate::agent::host_name;
use crate::cli::{CleanupArgs, ReportOutput};
use crate::out;
use crate::verbs::get::print_value;

/// Runs the command. That there is nothing is no error.
pub(crate) async fn run(args: CleanupArgs) -> Result<()> {
    let netns = NetNs::current()?;
    let sessions = sessions(&args, &netns).await?;
    let done = if args.dry_run {
        leftovers(&netns).await
    } else {
        cleanup(&netns).await
    };
    let found = done.map_err(told)?;
    if let Some(output) = args.output {
        let removed: Vec<Value> = found.iter().map(value).collect();
        let mut report = json!({"dryRun": args.dry_run, "removed": removed});
        if args.kubeconfig.is_some() {
            report["ended"] = sessions.iter().map(session).collect();
        }
        print_value(&report, output == ReportOutput::Yaml)?;
        return all_ended(&sessions);
    }
    let end = if args.dry_run { "would end" } else { "ended" };
    for one in sessions.iter().filter(|one| one.failed.is_none()) {
        let (peer, address) = (&one.peer, &one.address);
        out::line(format_args!(
            "{end} the BGP session with {peer} ({address})"
        ));
    }
    if found.is_empty() && sessions.is_empty() {
        out::line("nothing to remove");
    }
    let verb = if args.dry_run {
        "would remove"
    } else {
        "removed"
    };
    for leftover in found {
        out::line(format_args!("{verb} {leftover}"));
    }
    all_ended(&sessions)
}

/// The sessions that are ended, none where nobody says which API server knows of them.
async fn sessions(args: &CleanupArgs, netns: &NetNs) -> Result<Vec<Farewelled>> {
    let Some(path) = &args.kubeconfig else {
        return Ok(Vec::new());
    };
    if !args.dry_run {
        // Not while an agent has them; the next step looks again.
        drop(alone(netns).map_err(told)?);
    }
    let client = portolan_client::from_kubeconfig_file(path).await?;
    let node = match &args.node_name {
        Some(name) => name.clone(),
        None => host_name()?.trim().to_lowercase(),
    };
    let ended = end_sessions(client, &node, netns, args.dry_run).await;
    ended.map_err(|error| anyhow!("{}", error.message()).context("end the BGP sessions"))
}

/// A router that was not reached may keep the paths of this node for some time.
fn all_ended(sessions: &[Farewelled]) -> Result<()> {
    let failed = sessions.iter().filter_map(|one| {
        let why = one.failed.as_ref()?;
        Some(format!("{} ({}): {why}", one.peer, one.address))
    });
    let failed: Vec<String> = failed.collect();
    if failed.is_empty() {
        return Ok(());
    }
    bail!(
        "these routers may keep the paths of this node until their restart time is over: {}",
        failed.join("; ")
    )
}

fn session(one: &Farewelled) -> Value {
    let mut value = json!({"kind": "Session", "peer": one.peer, "address": one.address});
    if let Some(why) = &one.failed {
        value["failed"] = why.as_str().into();
    }
    value
}

/// A refusal for want of rights says what to do.
fn told(error: CleanupError) -> Error {
    if error.is_forbidden() {
        return Error::new(error).context(
            "cleanup needs the right to administer this network namespace (CAP_NET_ADMIN): run it as root",
        );
    }
    error.into()
}

fn value(leftover: &Leftover) -> Value {
    match leftover {
        Leftover::Table(table) => {
            json!({"kind": "Table", "family": table.family.name(), "name": &*table.name})
        }
        Leftover::Way(way) => {
            json!({"kind": "Rule", "family": if way.ipv6 { "IPv6" } else { "IPv4" }, "rule": way.to_string()})
        }
        Leftover::Address(address) => {
            json!({"kind": "Address", "link": Leftover::LINK, "address": address.to_string()})
        }
    }
}
