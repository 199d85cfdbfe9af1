//! What may be typed of the DNS server alone.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::PathBuf;

use clap::{Args, Subcommand};
use ipnet::IpNet;

/// What the help ends with.
pub(super) const EXAMPLES: &str = "Examples:
  portolan dns import Corefile > dns.yaml      CoreDNS' configuration as ours; what has no place is listed
  portolan dns check dns.yaml
  portolan dns serve --zone-from-kubeconfig ~/.kube/config --listen 127.0.0.1:5353
  portolan dns serve --config /etc/portolan/dns.yaml      in a pod, with its service account (see deploy/dns)";

/// Flags of `portolan dns`.
#[derive(Debug, Clone, Args)]
pub(crate) struct DnsArgs {
    #[command(subcommand)]
    pub(crate) command: DnsCommand,
}

#[derive(Debug, Clone, Subcommand)]
pub(crate) enum DnsCommand {
    /// Answer the names of a cluster, and forward others, without a data plane: in place of CoreDNS
    Serve(ServeArgs),
    /// Print the configuration that a Corefile means; what it cannot say goes to standard error
    Import(FileArg),
    /// Say whether a configuration can be used
    Check(FileArg),
}

/// One file.
#[derive(Debug, Clone, Args)]
pub(crate) struct FileArg {
    /// The file, or - for standard input
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
}

/// Flags of `portolan dns serve`.
#[derive(Debug, Clone, Args)]
pub(crate) struct ServeArgs {
    /// The cluster whose names are answered [default: that of the pod it runs in]
    #[arg(long, alias = "kubeconfig", value_name = "FILE")]
    pub(crate) zone_from_kubeconfig: Option<PathBuf>,
    /// The configuration file; it is read again when it changes, and on SIGHUP
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Where names are answered, over UDP and TCP
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "0.0.0.0:53,[::]:53",
        value_name = "ADDRESS:PORT"
    )]
    pub(crate) listen: Vec<SocketAddr>,
    /// Where the names that were answered are kept, for a start while the API server is away
    /// [default: nowhere]
    #[arg(long, value_name = "DIRECTORY")]
    pub(crate) state_dir: Option<PathBuf>,
    /// The cluster's DNS domain [default: that of the configuration, else cluster.local]
    #[arg(long, value_name = "DOMAIN")]
    pub(crate) cluster_domain: Option<String>,
    /// Networks whose queries are answered, beside the machine's own [default: everybody's]
    #[arg(long, alias = "dns-allow", value_delimiter = ',', value_name = "CIDR")]
    pub(crate) allow: Vec<IpNet>,
    /// Networks that may have whole zones (AXFR) [default: nobody]
    #[arg(
        long,
        alias = "dns-transfer",
        value_delimiter = ',',
        value_name = "CIDR"
    )]
    pub(crate) transfer: Vec<IpNet>,
    /// How many queries per second one client may ask [default: no limit]
    #[arg(long, alias = "dns-rate-limit", value_name = "NUMBER")]
    pub(crate) rate_limit: Option<NonZeroU32>,
    /// Log one of so many queries, in CoreDNS' format [default: as the configuration says]
    #[arg(long, alias = "dns-log-one-in", value_name = "NUMBER")]
    pub(crate) log_one_in: Option<NonZeroU32>,
}
