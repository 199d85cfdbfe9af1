//! `portolan cleanup`: takes away what an agent left in this network namespace.

use anyhow::{Error, Result};
use portolan_agent::cleanup::{CleanupError, Leftover, cleanup, leftovers};
use portolan_kernel::netns::NetNs;
use serde_json::{Value, json};

use crate::cli::{CleanupArgs, ReportOutput};
use crate::out;
use crate::verbs::get::print_value;

/// Runs the command. That there is nothing is no error.
pub(crate) async fn run(args: CleanupArgs) -> Result<()> {
    let netns = NetNs::current()?;
    let done = if args.dry_run {
        leftovers(&netns).await
    } else {
        cleanup(&netns).await
    };
    let found = done.map_err(told)?;
    if let Some(output) = args.output {
        let removed: Vec<Value> = found.iter().map(value).collect();
        let report = json!({"dryRun": args.dry_run, "removed": removed});
        return print_value(&report, output == ReportOutput::Yaml);
    }
    if found.is_empty() {
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
    Ok(())
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
        Leftover::Address(address) => {
            json!({"kind": "Address", "link": Leftover::LINK, "address": address.to_string()})
        }
    }
}
