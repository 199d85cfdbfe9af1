//! What may be typed after `portolan lb`.

use clap::{Args, Subcommand};

use super::{Connection, ReportOutput};

/// What the help of `portolan lb` ends with.
pub(super) const EXAMPLES: &str = "Examples:\n  \
    portolan lb status                 Services of type LoadBalancer, their addresses, or why they have none\n  \
    portolan lb status -n shop         those of one namespace; of all, as without it, with -A\n  \
    portolan lb pools                  pools, and how much of them is used\n  \
    portolan lb bgp                    sessions with routers, and what they were told\n  \
    portolan lb explain svc/web        where the addresses of one come from, and are announced from";

#[derive(Debug, Args)]
pub(crate) struct BalancerArgs {
    #[command(subcommand)]
    pub(crate) command: BalancerCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BalancerCommand {
    /// Show Services of type LoadBalancer, of all namespaces unless -n names one
    Status(BalancerStatusArgs),
    /// Show pools, and how much of them is used
    Pools(BalancerViewArgs),
    /// Show the sessions with BGP peers, of each node that should have one
    Bgp(BalancerViewArgs),
    /// Explain where a Service's addresses come from, or why it has none, and from where they
    /// are announced
    Explain(ExplainArgs),
}

#[derive(Debug, Args)]
pub(crate) struct BalancerViewArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// How to print
    #[arg(short, long)]
    pub(crate) output: Option<ReportOutput>,
}

#[derive(Debug, Args)]
pub(crate) struct BalancerStatusArgs {
    #[command(flatten)]
    pub(crate) view: BalancerViewArgs,
    /// Show all namespaces, whatever -n says
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// svc/NAME, service/NAME or NAME
    #[arg(value_name = "SERVICE")]
    pub(crate) service: String,
}
