//! What may be typed: flags and subcommands, before anything is touched.
//!
//! Verbs that kubectl has keep kubectl's flags and short forms.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "portolan",
    version,
    about = "A complete Kubernetes Service network in one binary",
    long_about = "A complete Kubernetes Service network in one binary.\n\n\
        `portolan demo` shows it in a few seconds on this machine, without root.\n\
        `portolan up` keeps a lab running that kubectl can talk to.",
    after_help = "Examples:\n  \
        portolan demo                                a Service, from manifest to packet\n  \
        portolan up --nodes 3 --apply web.yaml       a lab; prints how to use kubectl with it\n  \
        portolan get pods,svc -o wide                what is there\n  \
        portolan trace --from client --to web:80     where a packet would go, and why",
    propagate_version = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The subcommands, in the order of a first visit.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show a Service at work: three nodes, traffic, a pod that dies, no failed request
    #[command(after_help = "Needs no root and no cluster. Exit code 0 only if every step held.")]
    Demo(DemoArgs),
    /// Start a lab: an API server for kubectl, controllers, and nodes as network namespaces
    #[command(after_help = "Examples:\n  \
        portolan up\n  \
        portolan up --nodes 5 --apply web.yaml --publish\n  \
        export KUBECONFIG=~/.local/share/portolan/kubeconfig; kubectl get nodes")]
    Up(UpArgs),
    /// Show resources as the server's tables
    #[command(after_help = "Examples:\n  \
        portolan get pods\n  \
        portolan get svc web -o yaml\n  \
        portolan get pods,services -A -o wide\n  \
        portolan get pods -l app=web -w")]
    Get(GetArgs),
    /// Create or change resources from a file
    #[command(after_help = "Examples:\n  \
        portolan apply -f web.yaml\n  \
        cat web.yaml | portolan apply -f -")]
    Apply(ApplyArgs),
    /// Delete resources by file, by name or by label
    #[command(after_help = "Examples:\n  \
        portolan delete -f web.yaml\n  \
        portolan delete pod web-1 --grace-period 0\n  \
        portolan delete pods -l app=web")]
    Delete(DeleteArgs),
    /// Set the number of replicas
    #[command(after_help = "Example:\n  portolan scale deployment/web --replicas 5")]
    Scale(ScaleArgs),
    /// Print what a pod wrote
    #[command(after_help = "Examples:\n  \
        portolan logs web-7d4b9c-abcde\n  \
        portolan logs deployment/web -f --tail 10")]
    Logs(LogsArgs),
    /// Explain where a packet from a pod would go, step by step
    #[command(after_help = "Examples:\n  \
        portolan trace --from client --to web:80\n  \
        portolan trace --from client --to 10.96.0.10:53/udp\n  \
        portolan trace --from outside --to node-1:30080")]
    Trace(TraceArgs),
    /// Show the nodes, what runs on them, and what is wrong with any object
    Status(StatusArgs),
    /// Print how to reach a Service from this machine
    #[command(after_help = "Example:\n  portolan service web --url")]
    Service(ServiceArgs),
    /// Run the node agent against any cluster
    #[command(
        after_help = "Example:\n  portolan agent --kubeconfig /etc/portolan/kubeconfig --node-name node-1"
    )]
    Agent(AgentArgs),
    /// Print the completion script of a shell
    #[command(after_help = "Example:\n  source <(portolan completion bash)")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Which server, as whom, in which namespace.
#[derive(Debug, Clone, Args)]
pub(crate) struct Connection {
    /// Path to the kubeconfig file [default: $KUBECONFIG, then the lab's, then ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The namespace
    #[arg(short, long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
}

/// How objects are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// A table with more columns
    Wide,
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// kind/name
    Name,
}

/// How a report is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportOutput {
    /// JSON
    Json,
    /// YAML
    Yaml,
}

#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// How many lab nodes
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=16))]
    pub(crate) nodes: u8,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct UpArgs {
    /// How many lab nodes
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=16))]
    pub(crate) nodes: u8,
    /// Apply these manifests once the lab is up
    #[arg(long, value_name = "FILE", num_args = 1..)]
    pub(crate) apply: Vec<PathBuf>,
    /// Where the state lives [default: $XDG_DATA_HOME/portolan, else ~/.local/share/portolan]
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The cluster's DNS domain
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    pub(crate) cluster_domain: String,
    /// Forward NodePorts from 127.0.0.1 of this machine
    #[arg(long)]
    pub(crate) publish: bool,
    /// Where the API server listens on this machine
    #[arg(long, default_value = "127.0.0.1:6443", value_name = "ADDRESS:PORT")]
    pub(crate) listen: SocketAddr,
}

#[derive(Debug, Args)]
pub(crate) struct GetArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// TYPE[,TYPE…] [NAME…] or TYPE/NAME…
    #[arg(required = true, value_name = "RESOURCE")]
    pub(crate) resources: Vec<String>,
    /// Show all namespaces
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Only objects with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
    /// Only objects with these fields
    #[arg(long, value_name = "SELECTOR")]
    pub(crate) field_selector: Option<String>,
    /// How to print
    #[arg(short, long)]
    pub(crate) output: Option<Output>,
    /// Print each change as it happens
    #[arg(short, long)]
    pub(crate) watch: bool,
    /// No column headings
    #[arg(long)]
    pub(crate) no_headers: bool,
    /// Show labels in a last column
    #[arg(long)]
    pub(crate) show_labels: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// A file, a folder of manifests, or - for standard input
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    pub(crate) filename: Vec<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DeleteArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// TYPE NAME… or TYPE/NAME…
    #[arg(value_name = "RESOURCE")]
    pub(crate) resources: Vec<String>,
    /// Delete what these files describe
    #[arg(short, long = "filename", value_name = "FILE")]
    pub(crate) filename: Vec<PathBuf>,
    /// Delete the objects with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
    /// Delete all objects of the type in the namespace
    #[arg(long)]
    pub(crate) all: bool,
    /// Seconds a pod has to end by itself; -1 means as the pod says
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    pub(crate) grace_period: i64,
    /// Wait until the objects are gone
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) wait: bool,
    /// An object that is not there is no error
    #[arg(long)]
    pub(crate) ignore_not_found: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ScaleArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// TYPE NAME… or TYPE/NAME…
    #[arg(required = true, value_name = "RESOURCE")]
    pub(crate) resources: Vec<String>,
    /// How many there should be
    #[arg(long, value_parser = clap::value_parser!(i32).range(0..))]
    pub(crate) replicas: i32,
}

#[derive(Debug, Args)]
pub(crate) struct LogsArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// POD or TYPE/NAME
    #[arg(value_name = "POD")]
    pub(crate) target: String,
    /// Which container
    #[arg(short, long)]
    pub(crate) container: Option<String>,
    /// Keep printing
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Of the instance before the last restart
    #[arg(short, long)]
    pub(crate) previous: bool,
    /// Only the last lines; -1 means all
    #[arg(long, default_value_t = -1, allow_hyphen_values = true)]
    pub(crate) tail: i64,
    /// With the time of each line
    #[arg(long)]
    pub(crate) timestamps: bool,
}

#[derive(Debug, Args)]
pub(crate) struct TraceArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// A pod, NAMESPACE/POD, node/NAME, an address, outside, or outside@NODE
    #[arg(long, value_name = "SOURCE")]
    pub(crate) from: String,
    /// SERVICE:PORT, SERVICE.NAMESPACE:PORT, a node's name or an address, with /udp for UDP
    #[arg(long, value_name = "NAME:PORT[/PROTOCOL]")]
    pub(crate) to: String,
    /// How to print
    #[arg(short, long)]
    pub(crate) output: Option<ReportOutput>,
}

#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// How to print
    #[arg(short, long)]
    pub(crate) output: Option<ReportOutput>,
}

#[derive(Debug, Args)]
pub(crate) struct ServiceArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// The Service
    pub(crate) name: String,
    /// Print only what to open in a browser
    #[arg(long)]
    pub(crate) url: bool,
}

#[derive(Debug, Args)]
pub(crate) struct AgentArgs {
    /// Path to the kubeconfig file
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: PathBuf,
    /// This node's name in the cluster
    #[arg(long, env = "NODE_NAME", value_name = "NAME")]
    pub(crate) node_name: String,
    /// The cluster's DNS domain
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    pub(crate) cluster_domain: String,
    /// The ranges of Service addresses
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "10.96.0.0/16,fd00:10:96::/112",
        value_name = "CIDR"
    )]
    pub(crate) service_cidr: Vec<ipnet::IpNet>,
    /// The ranges of pod addresses
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "10.244.0.0/16,fd00:10:244::/48",
        value_name = "CIDR"
    )]
    pub(crate) cluster_cidr: Vec<ipnet::IpNet>,
}
