//! What may be typed: flags and subcommands, before anything is touched.
//!
//! Verbs that kubectl has keep kubectl's flags and short forms.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

mod agent;
mod balancer;
mod cleanup;
mod client_ip;
mod cni;
mod dns;
mod doctor;
mod flows;
mod node_ports;
mod pods;
mod policy;
mod ranges;

pub(crate) use agent::{AgentArgs, Established, LocalMode};
pub(crate) use balancer::{
    BalancerArgs, BalancerCommand, BalancerStatusArgs, BalancerViewArgs, ExplainArgs,
};
pub(crate) use cleanup::CleanupArgs;
pub(crate) use cni::{CniArgs, CniCommand, FolderArgs, InstallArgs};
pub(crate) use dns::{DnsArgs, DnsCommand, ServeArgs};
pub(crate) use doctor::DoctorArgs;
pub(crate) use flows::FlowsArgs;
pub(crate) use node_ports::node_ports;
pub(crate) use pods::{ExecArgs, Listen, PortForwardArgs, Restart, RunArgs, Streams};
pub(crate) use policy::{CheckArgs, LintArgs, MatrixArgs, PolicyArgs, PolicyCommand};
pub(crate) use ranges::{RangeArgs, Ranges, no_host_bits, overlap};

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
        portolan trace --from client --to web:80     where a packet would go, and why\n  \
        portolan doctor service/web                  what is wrong, and what mends it",
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
    /// Show an object with what belongs to it: endpoints, pods, events
    #[command(after_help = "Examples:\n  \
        portolan describe service web\n  \
        portolan describe pod web-7d4b9c-abcde\n  \
        portolan describe pods -l app=web\n  \
        portolan describe node/node-1")]
    Describe(DescribeArgs),
    /// Create or change resources from a file
    #[command(after_help = "Examples:\n  \
        portolan apply -f web.yaml\n  \
        portolan apply -f web.yaml --server-side --field-manager ci\n  \
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
    /// Put a Service in front of a Deployment, ReplicaSet, StatefulSet, pod or Service
    #[command(after_help = "Examples:\n  \
        portolan expose deployment web --port 80 --target-port 8080\n  \
        portolan expose deployment web --port 80 --type NodePort --name web-public\n  \
        portolan expose pod web-1 --port 80 --dry-run=client -o yaml")]
    Expose(ExposeArgs),
    /// Run a pod, and a terminal in it
    #[command(after_help = "Examples:\n  \
        portolan run web --image nginx --port 80 --expose\n  \
        portolan run tmp --rm -it --image busybox --restart Never -- sh\n  \
        portolan run once --rm -i --image curlimages/curl --restart Never -- http://web")]
    Run(RunArgs),
    /// Run a command in a pod; its exit code is the command's
    #[command(after_help = "Examples:\n  \
        portolan exec web-1 -- cat /etc/resolv.conf\n  \
        portolan exec -it deployment/web -- sh\n  \
        echo hello | portolan exec -i web-1 -- cat")]
    Exec(ExecArgs),
    /// Forward ports of this machine to a pod
    #[command(after_help = "Examples:\n  \
        portolan port-forward service/web 8080:80\n  \
        portolan port-forward pod/web-1 :80\n  \
        portolan port-forward deployment/web 8080:http 9090 --address 127.0.0.1\n\n\
        A Service's port is that of one of its pods: the connection goes to the pod, not through the Service.")]
    PortForward(PortForwardArgs),
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
    /// Find out what is wrong with a Service, and what mends it
    #[command(after_help = "Examples:\n  \
        portolan doctor service/web\n  \
        portolan doctor svc/web -n shop -o json\n  \
        portolan doctor web.shop                     by the name that a client uses\n  \
        portolan doctor                              all Services of the namespace, a line each\n  \
        portolan doctor -A\n\n\
        Exit code: 0 if there is no fault (warnings and notes are none), 1 if there is one, or on an error.\n\
        To learn whether something listens at a pod's port, it has the API server send an HTTP request there (HEAD, \
        and GET where that fails), unless a readiness probe tells; --connect=false does without.")]
    Doctor(DoctorArgs),
    /// Show which packets policies deny, as they happen
    #[command(after_help = flows::EXAMPLES)]
    Flows(FlowsArgs),
    /// Explain NetworkPolicies: who may reach whom, and which rule decides
    #[command(after_help = policy::EXAMPLES)]
    Policy(PolicyArgs),
    /// Show load balancers' addresses and pools
    #[command(after_help = balancer::EXAMPLES)]
    Lb(BalancerArgs),
    /// Show the nodes, what runs on them, and what is wrong with any object
    Status(StatusArgs),
    /// Print how to reach a Service from this machine
    #[command(after_help = "Example:\n  portolan service web --url")]
    Service(ServiceArgs),
    /// Run the node agent against any cluster
    #[command(after_help = agent::EXAMPLES)]
    Agent(AgentArgs),
    /// Run the DNS server alone, or look after its configuration
    #[command(after_help = dns::EXAMPLES)]
    Dns(DnsArgs),
    /// Remove what an agent left in this network namespace: its tables and addresses
    #[command(after_help = "Examples:\n  \
        portolan cleanup --dry-run\n  \
        portolan cleanup\n\n\
        Needs root. Stop the agent first. Open connections go on until they end.")]
    Cleanup(CleanupArgs),
    /// The CNI plugin: a pod's network is ready once its policies are in the kernel
    #[command(after_help = cni::EXAMPLES)]
    Cni(CniArgs),
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

/// How a verb that makes objects prints them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ObjectOutput {
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// kind/name
    Name,
}

/// Who is asked whether the change would do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Rehearsal {
    /// The change is made
    None,
    /// Nobody: only print what would be sent
    Client,
    /// The server, which stores nothing
    Server,
}

/// Printing a change, and not making it.
#[derive(Debug, Clone, Copy, Args)]
pub(crate) struct DryRun {
    /// Do not make the change
    #[arg(long = "dry-run", num_args = 0..=1, require_equals = true, default_value = "none", default_missing_value = "client", value_name = "WHO")]
    pub(crate) who: Rehearsal,
    /// How to print
    #[arg(short, long)]
    pub(crate) output: Option<ObjectOutput>,
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
    #[command(flatten)]
    pub(crate) ranges: RangeArgs,
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
    /// Let pods see the address of clients outside under externalTrafficPolicy Cluster too, as
    /// portolan agent --preserve-client-ip does
    #[arg(long)]
    pub(crate) preserve_client_ip: bool,
    /// Where the API server listens on this machine
    #[arg(long, default_value = "127.0.0.1:6443", value_name = "ADDRESS:PORT")]
    pub(crate) listen: SocketAddr,
    #[command(flatten)]
    pub(crate) ranges: RangeArgs,
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
pub(crate) struct DescribeArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// TYPE [NAME…] or TYPE/NAME…; a name may be only the beginning of one
    #[arg(value_name = "RESOURCE", required_unless_present = "filename")]
    pub(crate) resources: Vec<String>,
    /// Describe what these files name
    #[arg(short, long = "filename", value_name = "FILE")]
    pub(crate) filename: Vec<PathBuf>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Only objects with these labels
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    pub(crate) selector: Option<String>,
    /// Show what happened to the object
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub(crate) show_events: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ApplyArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// A file, a folder of manifests, or - for standard input
    #[arg(short, long = "filename", required = true, value_name = "FILE")]
    pub(crate) filename: Vec<PathBuf>,
    /// The server merges, and remembers who set which field
    #[arg(long)]
    pub(crate) server_side: bool,
    /// Take over fields that others set
    #[arg(long, requires = "server_side")]
    pub(crate) force_conflicts: bool,
    /// Whose fields they are
    #[arg(long, default_value = "portolan", value_name = "NAME")]
    pub(crate) field_manager: String,
}

#[derive(Debug, Args)]
pub(crate) struct ExposeArgs {
    #[command(flatten)]
    pub(crate) connection: Connection,
    /// TYPE NAME or TYPE/NAME
    #[arg(value_name = "RESOURCE", required_unless_present = "filename")]
    pub(crate) resources: Vec<String>,
    /// Expose what these files name
    #[arg(short, long = "filename", value_name = "FILE")]
    pub(crate) filename: Vec<PathBuf>,
    /// The Service's name [default: that of what it exposes]
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// The Service's ports [default: those of the containers]
    #[arg(long, value_delimiter = ',')]
    pub(crate) port: Vec<u16>,
    /// Number or name of the containers' port [default: the same as --port]
    #[arg(long)]
    pub(crate) target_port: Option<String>,
    /// ClusterIP, NodePort, LoadBalancer or ExternalName
    #[arg(long = "type", value_name = "TYPE")]
    pub(crate) service_type: Option<String>,
    /// TCP, UDP or SCTP
    #[arg(long)]
    pub(crate) protocol: Option<String>,
    /// Labels of the pods behind it [default: the selector of what it exposes]
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub(crate) selector: Option<String>,
    /// Labels of the Service [default: those of what it exposes]
    #[arg(short, long, value_name = "KEY=VALUE,…")]
    pub(crate) labels: Option<String>,
    /// An address to have, or None for a headless Service
    #[arg(long, value_name = "IP")]
    pub(crate) cluster_ip: Option<String>,
    /// An address from outside that leads here too
    #[arg(long, value_name = "IP")]
    pub(crate) external_ip: Option<String>,
    /// The address to ask a load balancer for
    #[arg(long, value_name = "IP")]
    pub(crate) load_balancer_ip: Option<String>,
    /// None or ClientIP
    #[arg(long, value_name = "AFFINITY")]
    pub(crate) session_affinity: Option<String>,
    #[command(flatten)]
    pub(crate) dry_run: DryRun,
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

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_has_help_and_completion() {
        let mut script = Vec::new();
        let shell = clap_complete::Shell::Bash;
        clap_complete::generate(shell, &mut Cli::command(), "portolan", &mut script);
        let script = String::from_utf8(script).unwrap();
        for command in Cli::command().get_subcommands() {
            let name = command.get_name();
            assert!(command.get_about().is_some(), "{name} says what it is for");
            assert!(
                script.contains(&format!("portolan,{name})")),
                "{name} completes"
            );
        }
    }

    #[test]
    fn words_after_two_dashes_are_the_command() {
        let typed = |words: &[&str]| Cli::try_parse_from(words).map(|cli| cli.command);
        let words = ["portolan", "exec", "-it", "web", "--", "sh", "-c", "ls -l"];
        let Ok(Command::Exec(args)) = typed(&words) else {
            panic!("another verb");
        };
        assert!(args.streams.stdin && args.streams.tty);
        assert_eq!(args.command, ["sh", "-c", "ls -l"]);
        assert!(typed(&["portolan", "exec", "web", "ls"]).is_err());
        assert!(typed(&["portolan", "port-forward", "web"]).is_err());
    }
}
