//! What may be typed after `portolan policy`.

use clap::{Args, Subcommand};

use super::{Connection, ReportOutput};

/// What the help of `portolan policy` ends with.
pub(super) const EXAMPLES: &str = "Examples:\n  \
    portolan policy check --from client --to api:8080\n  \
    portolan policy check --from shop/client --to service/api:80 -n prod";

const CHECK_EXAMPLES: &str = "Examples:\n  \
    portolan policy check --from client --to api:8080              two pods of the namespace\n  \
    portolan policy check --from shop/client --to prod/api:http    of other namespaces; a port by name\n  \
    portolan policy check --from client --to service/api:80        wherever the Service leads\n  \
    portolan policy check --from client --to 10.96.0.10:53 --protocol udp\n  \
    portolan policy check --from outside --to node-1:30080 -o json\n\n\
    Each direction is judged for itself: the egress of the source, the ingress of the destination, both after a \
    Service's address was translated. Exit code: 0 if the connection is allowed, 1 if it is denied, or on an error.";

#[derive(Debug, Args)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    pub(crate) command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Tell whether a connection is allowed, and which rule decides or comes nearest
    #[command(after_help = CHECK_EXAMPLES)]
    Check(CheckArgs),
}

#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// A pod, NAMESPACE/POD, node/NAME, an address, outside, or outside@NODE
    #[arg(long, value_name = "SOURCE")]
    pub(crate) from: String,
    /// POD:PORT, NAMESPACE/POD:PORT, service/NAME:PORT, node/NAME:PORT or an address
    #[arg(long, value_name = "DESTINATION:PORT")]
    pub(crate) to: String,
    /// tcp, udp or sctp [default: tcp, or what the Service's port has]
    #[arg(long, value_name = "PROTOCOL")]
    pub(crate) protocol: Option<String>,
    /// How to print
    #[arg(short, long)]
    pub(crate) output: Option<ReportOutput>,
}
