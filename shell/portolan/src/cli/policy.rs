//! What may be typed after `portolan policy`.

use clap::{Args, Subcommand};

use super::{Connection, ReportOutput};

/// What the help of `portolan policy` ends with.
pub(super) const EXAMPLES: &str = "Examples:\n  \
    portolan policy check --from client --to api:8080\n  \
    portolan policy check --from shop/client --to service/api:80 -n prod\n  \
    portolan policy matrix -n shop\n  \
    portolan policy lint -A\n\n\
    They read the API server, and work with any cluster whose policies are enforced as Kubernetes says.";

const MATRIX_EXAMPLES: &str = "Examples:\n  \
    portolan policy matrix -n shop                 who can reach whom, at the ports that rules and containers name\n  \
    portolan policy matrix -n shop --port 8080     at one port: yes or no\n  \
    portolan policy matrix -A -o json\n\n\
    Rows are who begins a connection. A cell says at which ports, all, or - for none; pods that are treated alike are \
    one row, whose own cell is about two of them.";

const LINT_EXAMPLES: &str = "Examples:\n  \
    portolan policy lint -n shop\n  \
    portolan policy lint -A -o json\n\n\
    It finds policies and rules that select nobody, rules that name a Service's address, names of ports that no pod \
    has, rules that a wider one of the same policy covers, and what cannot be read. \
    Exit code: 0 if there is nothing but notes, 1 if there is, or on an error.";

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
    /// Print who can reach whom as a table
    #[command(after_help = MATRIX_EXAMPLES)]
    Matrix(MatrixArgs),
    /// Find rules that do nothing, or not what they seem to
    #[command(after_help = LINT_EXAMPLES)]
    Lint(LintArgs),
}

#[derive(Debug, Args)]
pub(crate) struct MatrixArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// The pods of all namespaces
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Only this port [default: those that rules and containers name]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u16).range(1..))]
    pub(crate) port: Option<u16>,
    /// tcp, udp or sctp, for --port
    #[arg(long, default_value = "tcp", value_name = "PROTOCOL")]
    pub(crate) protocol: String,
    /// How to print
    #[arg(short, long)]
    pub(crate) output: Option<ReportOutput>,
}

#[derive(Debug, Args)]
pub(crate) struct LintArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// The policies of all namespaces
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// How to print
    #[arg(short, long)]
    pub(crate) output: Option<ReportOutput>,
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
