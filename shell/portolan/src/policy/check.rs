//! `portolan policy check`: whether a connection is allowed, and by which rule.

use std::process::ExitCode;

use anyhow::{Result, bail};
use portolan_plan::LinkName;
use portolan_why::Packet;
use portolan_why::policy::{World, check};

use super::{ends, look};
use crate::cli::{CheckArgs, ReportOutput};
use crate::connect::Session;
use crate::out;
use crate::verbs::get::print_value;

/// Runs the command. The exit code is 1 if the connection is denied, as that of
/// `kubectl auth can-i`.
pub(crate) async fn run(args: CheckArgs) -> Result<ExitCode> {
    let session = Session::open(&args.connection).await?;
    let (observed, plans) = look(&session).await?;
    let namespace = &session.namespace;
    let protocol = args.protocol.as_deref().map(ends::protocol).transpose()?;
    let to = ends::destination(&observed, namespace, &args.to, protocol)?;
    let from = ends::source(&observed, namespace, &args.from, &to)?;
    let world = World::new(&observed.cluster, &plans);
    let Some(plan) = world.plan(&from.node) else {
        bail!("error: --from: {} is on no node yet", args.from);
    };
    let packet = Packet {
        source: from.address,
        destination: to.address,
        protocol: to.protocol,
        port: to.port,
        from_node: from.is_node,
        link: LinkName::NONE,
    };
    let found = check(&world, plan, packet);
    match args.output {
        Some(output) => print_value(&found.json(), output == ReportOutput::Yaml)?,
        None => out::line(found.to_string().trim_end()),
    }
    Ok(if found.allowed() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
