//! The agent's flags: kube-proxy's names, defaults and meanings where it has
//! them, so that a node's configuration carries over.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{ArgAction, Args, ValueEnum};
use ipnet::IpNet;
use portolan_agent::announce::HEARTBEAT_PORT;
use portolan_agent::gate_socket::SOCKET;
use portolan_model::Algorithm;
use portolan_plan::{CUT_BIT, DNS_TTL, Deny, PodNames};

use super::client_ip::reply_mask;
use super::node_ports::NodePortWord;

/// What the help ends with.
pub(super) const EXAMPLES: &str = "Examples:
  In a pod of the node, with a service account (see deploy/):
    portolan agent --cluster-cidr 10.244.0.0/16
  By hand, beside any cluster:
    portolan agent --kubeconfig /etc/portolan/kubeconfig --node-name node-1 \\
        --cluster-cidr 10.244.0.0/16,fd00:10:244::/48
  Pods on a bridge, known by it:
    portolan agent --detect-local-mode BridgeInterface --pod-bridge-interface cni0
  A cluster older than Kubernetes 1.33, which has no ServiceCIDR objects:
    portolan agent --cluster-cidr 10.244.0.0/16 --service-cidr 10.96.0.0/12

RUST_LOG=debug says more of what it does. What is in the kernel stays there when it ends.";

/// Flags of `portolan agent`.
#[derive(Debug, Clone, Args)]
pub(crate) struct AgentArgs {
    /// Path to the kubeconfig file [default: the service account of the pod it runs in]
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// This node's name in the cluster [default: the machine's host name]
    #[arg(
        long,
        alias = "hostname-override",
        env = "NODE_NAME",
        value_name = "NAME"
    )]
    pub(crate) node_name: Option<String>,
    /// The cluster's DNS domain
    #[arg(long, default_value = "cluster.local", value_name = "DOMAIN")]
    pub(crate) cluster_domain: String,
    /// Answer names on the node itself at the address of kube-system/kube-dns, in place of
    /// the cluster's DNS; other names are forwarded, by --dns-config
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub(crate) serve_dns: bool,
    /// Where --serve-dns answers, as kubelets tell pods, at most one address of each family:
    /// known from the first moment on, so that queries wait there until the names are known
    /// [default: the addresses of kube-system/kube-dns, once that Service is known]
    #[arg(long, value_delimiter = ',', value_name = "IP")]
    pub(crate) cluster_dns: Vec<IpAddr>,
    /// The configuration file of --serve-dns: forwarding, cache, written names, rewriting;
    /// read again when it changes, and on SIGHUP [default: forward to those of /etc/resolv.conf]
    #[arg(long, value_name = "FILE", requires = "serve_dns")]
    pub(crate) dns_config: Option<PathBuf>,
    /// Which pods have names, 10-0-0-7.<namespace>.pod.<domain>, for --serve-dns
    #[arg(long, default_value = "disabled", value_name = "MODE")]
    pub(crate) dns_pods: PodMode,
    /// Seconds for which clients may keep names of the cluster, for --serve-dns
    #[arg(long, default_value_t = DNS_TTL, value_parser = clap::value_parser!(u32).range(0..=3600), value_name = "SECONDS")]
    pub(crate) dns_ttl: u32,
    /// Networks whose queries for names are answered beside those of the node and its pods
    #[arg(long, value_delimiter = ',', value_name = "CIDR")]
    pub(crate) dns_allow: Vec<IpNet>,
    /// Networks that may have whole zones (AXFR)
    #[arg(long, value_delimiter = ',', value_name = "CIDR")]
    pub(crate) dns_transfer: Vec<IpNet>,
    /// How many queries per second one client may ask [default: no limit]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) dns_rate_limit: Option<NonZeroU32>,
    /// Log one of so many queries, in CoreDNS' format [default: none]
    #[arg(long, value_name = "NUMBER")]
    pub(crate) dns_log_one_in: Option<NonZeroU32>,
    /// Where the names that were answered are kept, for a start while the API server is away,
    /// with --serve-dns; "" means nowhere
    #[arg(long, default_value = "/var/lib/portolan", value_parser = path_or_nothing, value_name = "DIRECTORY")]
    pub(crate) state_dir: PathBuf,
    /// Ranges of pod addresses
    #[arg(long, value_delimiter = ',', value_name = "CIDR")]
    pub(crate) cluster_cidr: Vec<IpNet>,
    /// By what pods are told from everybody else
    #[arg(long, default_value = "ClusterCIDR", value_name = "MODE")]
    pub(crate) detect_local_mode: LocalMode,
    /// The bridge that pods hang on, for --detect-local-mode BridgeInterface
    #[arg(long, value_name = "LINK")]
    pub(crate) pod_bridge_interface: Option<String>,
    /// How the names of pods' links begin, for --detect-local-mode InterfaceNamePrefix
    #[arg(long, value_name = "PREFIX")]
    pub(crate) pod_interface_name_prefix: Option<String>,
    /// Ranges of Service addresses, beside those of the cluster's ServiceCIDR objects
    #[arg(long, value_delimiter = ',', value_name = "CIDR")]
    pub(crate) service_cidr: Vec<IpNet>,
    /// Where /healthz and /livez are answered; 0.0.0.0 and :: mean every address, "" means nowhere
    #[arg(long, default_value = "0.0.0.0:10256", value_name = "ADDRESS[:PORT]")]
    pub(crate) healthz_bind_address: Bind,
    /// Where /metrics is answered; "" means nowhere
    #[arg(long, default_value = "127.0.0.1:10249", value_name = "ADDRESS[:PORT]")]
    pub(crate) metrics_bind_address: Bind,
    /// Masquerade all traffic to cluster addresses, that of pods too
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub(crate) masquerade_all: bool,
    /// Which bit of a packet's mark says that it is to be masqueraded
    #[arg(long, alias = "iptables-masquerade-bit", default_value_t = 14, value_parser = clap::value_parser!(u8).range(0..=31), value_name = "BIT")]
    pub(crate) masquerade_bit: u8,
    /// Serve the external addresses that Services name in spec.externalIPs
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    pub(crate) external_ips: bool,
    /// Enforce NetworkPolicies; all pods and policies of the cluster are watched for that
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    pub(crate) network_policy: bool,
    /// What becomes of connections that policies no longer allow: they are cut, or kept
    #[arg(long, default_value = "cut", value_name = "WORD")]
    pub(crate) established: Established,
    /// Which bit of a connection's mark (ct mark) says that it is cut; nobody else may use it
    #[arg(long, default_value_t = CUT_BIT, value_parser = clap::value_parser!(u8).range(0..=31), value_name = "BIT")]
    pub(crate) established_mark_bit: u8,
    /// Listen there for the CNI plugin (portolan cni), whose pods start once their policies
    /// are in the kernel [default: nowhere]
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = SOCKET, value_name = "PATH")]
    pub(crate) cni_socket: Option<PathBuf>,
    /// Once there is any policy, close every address of this node's pod ranges (spec.podCIDRs)
    /// that no pod is known to have: for nodes without the CNI plugin. New pods wait for their
    /// network until the API server tells their addresses
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub(crate) close_unknown_pods: bool,
    /// Tell which packets policies deny: as `portolan flows --dropped`, as events on pods and
    /// in the metrics; the kernel logs up to 100 packets per second for that
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = true, default_missing_value = "true")]
    pub(crate) policy_log: bool,
    /// What becomes of packets that policies deny
    #[arg(long, default_value = "drop", value_name = "WAY")]
    pub(crate) policy_deny: DenyWord,
    /// Give Services of type LoadBalancer their addresses: of AddressPools, or without any the
    /// nodes' own; one agent of those with this flag does it, by a Lease
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub(crate) load_balancer: bool,
    /// Announce load balancers' addresses from this node by ARP, NDP and BGP, as AddressPools,
    /// L2Announcements, BGPAnnouncements and BGPPeers ask for; needs CAP_NET_RAW, and the same
    /// flag on all nodes
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub(crate) announce: bool,
    /// The UDP port on which agents that announce hear each other's heartbeats, the same on all
    /// nodes
    #[arg(long, default_value_t = HEARTBEAT_PORT, value_name = "PORT")]
    pub(crate) heartbeat_port: u16,
    /// A file whose content seals heartbeats, the same on all nodes; without it, whoever reaches
    /// the port can pretend to be a node
    #[arg(long, value_name = "FILE")]
    pub(crate) heartbeat_key_file: Option<PathBuf>,
    /// The namespace of that Lease, and of those of agents that announce or preserve clients'
    /// addresses
    #[arg(long, default_value = "kube-system", value_name = "NAMESPACE")]
    pub(crate) leader_elect_resource_namespace: String,
    /// Keep the address of clients outside under externalTrafficPolicy Cluster too, where the
    /// endpoint's node has this flag as well and is a neighbour on one Ethernet (or vxlan):
    /// answers go back by the node that the connection came in by. Goes with --cluster-cidr
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub(crate) preserve_client_ip: bool,
    /// Which bits of marks (of packets and connections) say where a connection came in, for
    /// --preserve-client-ip: adjacent ones, the same on all nodes; nobody else may use them
    #[arg(long, default_value = "0x00ff0000", value_parser = reply_mask, value_name = "MASK")]
    pub(crate) preserve_client_ip_mask: u32,
    /// How connections are spread where a Service says nothing by the annotation
    /// portolan.dev/lb-algorithm: random, round-robin or maglev (by client address)
    #[arg(long, alias = "ipvs-scheduler", default_value_t = Algorithm::Random, value_parser = Algorithm::parse, value_name = "ALGORITHM")]
    pub(crate) lb_algorithm: Algorithm,
    /// Remove kube-proxy's rules once ours are in place (its table of nftables, and its chains
    /// of iptables-nft); stop kube-proxy first
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false, default_missing_value = "true")]
    pub(crate) replace_kube_proxy: bool,
    /// On which of the node's addresses node ports are open: CIDR ranges, primary (the node's
    /// first address), all (but 127.0.0.0/8 and ::1), or localhost (127.0.0.1 and ::1, where
    /// the agent listens itself and passes TCP and UDP on; a range of localhost means the same)
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "primary",
        value_name = "CIDR|WORD"
    )]
    pub(crate) nodeport_addresses: Vec<NodePortWord>,
}

/// A path, or an empty one where clap would ask for more.
fn path_or_nothing(text: &str) -> Result<PathBuf, std::convert::Infallible> {
    Ok(PathBuf::from(text))
}

/// What becomes of connections that policies no longer allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Established {
    /// Their packets are dropped, until policies allow them again
    Cut,
    /// They go on until they end
    Keep,
}

/// What becomes of packets that policies deny.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DenyWord {
    /// They are dropped in silence: clients wait
    Drop,
    /// Clients are told: TCP by a reset, others by ICMP (administratively prohibited)
    Reject,
}

impl From<DenyWord> for Deny {
    fn from(word: DenyWord) -> Self {
        match word {
            DenyWord::Drop => Self::Drop,
            DenyWord::Reject => Self::Reject,
        }
    }
}

/// By what pods are told from everybody else: kube-proxy's modes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LocalMode {
    /// By their addresses: --cluster-cidr
    #[value(name = "ClusterCIDR")]
    ClusterCidr,
    /// By their addresses: spec.podCIDRs of this node's Node object
    #[value(name = "NodeCIDR")]
    NodeCidr,
    /// By the link their packets arrive on: --pod-bridge-interface
    #[value(name = "BridgeInterface")]
    BridgeInterface,
    /// By how its name begins: --pod-interface-name-prefix
    #[value(name = "InterfaceNamePrefix")]
    InterfaceNamePrefix,
}

/// Which pods have names: the modes of CoreDNS' directive `pods`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PodMode {
    /// None
    Disabled,
    /// Every address in every namespace, whether a pod has it or not
    Insecure,
    /// Pods that exist; the agent watches all pods for it and must be allowed to
    Verified,
}

impl From<PodMode> for PodNames {
    fn from(mode: PodMode) -> Self {
        match mode {
            PodMode::Disabled => Self::Disabled,
            PodMode::Insecure => Self::Insecure,
            PodMode::Verified => Self::Verified,
        }
    }
}

/// An address to listen at, whose port may be left to the flag's default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bind {
    /// Nowhere.
    Off,
    /// At this address and the usual port.
    Address(IpAddr),
    /// Here.
    Socket(SocketAddr),
}

impl Bind {
    /// Where to listen, if anywhere.
    pub(crate) fn at(self, usual_port: u16) -> Option<SocketAddr> {
        match self {
            Self::Off => None,
            Self::Address(address) => Some(SocketAddr::new(address, usual_port)),
            Self::Socket(socket) => Some(socket),
        }
    }
}

impl FromStr for Bind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Ok(Self::Off);
        }
        let address = text.parse().map(Self::Address);
        let bind = address.or_else(|_not_bare| text.parse().map(Self::Socket));
        bind.map_err(|_neither| "expected ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT".to_owned())
    }
}
