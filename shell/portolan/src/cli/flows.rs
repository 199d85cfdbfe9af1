//! What may be typed after `portolan flows`.

use clap::Args;

use super::{Connection, ReportOutput};

/// What the help ends with.
pub(super) const EXAMPLES: &str = "Examples:\n  \
    portolan flows --dropped                  the last packets that policies denied, of all nodes\n  \
    portolan flows --dropped -f               and each as it happens\n  \
    portolan flows --dropped -f -n shop --pod api\n  \
    portolan flows --dropped -f -o json | jq -r .reason\n\n\
    Each node's agent is asked through the API server. Of many packets of one flow those of a fifth of a second are \
    one line; of a flood no more than 100 packets a second are told of, and the rest is counted. A flow for which no \
    policy is told was denied by one that is gone by now.";

#[derive(Debug, Args)]
pub(crate) struct FlowsArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// Those that policies deny; there are no others yet
    #[arg(long, required = true)]
    pub(crate) dropped: bool,
    /// Go on until it is interrupted
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Only those that begin or end at this pod
    #[arg(long, value_name = "NAME")]
    pub(crate) pod: Option<String>,
    /// Only those of this node
    #[arg(long, value_name = "NAME")]
    pub(crate) node: Option<String>,
    /// No column headings
    #[arg(long)]
    pub(crate) no_headers: bool,
    /// How to print; with --follow each flow is a document
    #[arg(short, long)]
    pub(crate) output: Option<ReportOutput>,
}
