//! `portolan policy`: what NetworkPolicies let through, and why.
//!
//! Thin verbs: they read objects from any API server, plan each node as its agent
//! does, and leave every judgement to `portolan_why::policy`.

mod check;
mod ends;
mod lint;
mod matrix;

use std::collections::BTreeSet;
use std::process::ExitCode;

use anyhow::{Result, bail};
use portolan_model::Text;
use portolan_plan::NodePlan;

use crate::cli::{PolicyArgs, PolicyCommand};
use crate::connect::Session;
use crate::observed::Observed;

/// Runs the command.
pub(crate) async fn run(args: PolicyArgs) -> Result<ExitCode> {
    match args.command {
        PolicyCommand::Check(args) => check::run(args).await,
        PolicyCommand::Matrix(args) => matrix::run(args).await,
        PolicyCommand::Lint(args) => lint::run(args).await,
    }
}

/// The namespace that is asked about; none for all.
fn namespaces(session: &Session, all: bool) -> Option<BTreeSet<Text>> {
    (!all).then(|| [session.namespace.as_str().into()].into())
}

/// The cluster, with its policies, and the plan of each node.
async fn look(session: &Session) -> Result<(Observed, Vec<NodePlan>)> {
    let observed = Observed::read(session).await?;
    if let Some(why) = &observed.policies_unread {
        bail!("error: NetworkPolicies cannot be read: {why}");
    }
    let nodes = observed.nodes.iter();
    let plans = nodes
        .map(|node| observed.plan(&node.metadata.name))
        .collect();
    Ok((observed, plans))
}
