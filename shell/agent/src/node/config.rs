//! What a node's loop is told when it starts.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use kube::Client;
use portolan_kernel::netns::NetNs;

use crate::dns::Upstream;

/// Configuration of one node's agent.
#[derive(Clone)]
pub struct NodeConfig {
    /// The Node object that this agent serves.
    pub node_name: String,
    /// The namespace whose packets are ours; on a real node the host's.
    pub netns: NetNs,
    /// The API server.
    pub kube: Client,
    /// The cluster's DNS domain, without a trailing dot.
    pub cluster_domain: String,
    /// The ranges of Service addresses.
    pub service_cidrs: Vec<IpNet>,
    /// The ranges of pod addresses: they tell pods from everybody else (P7).
    pub cluster_cidrs: Vec<IpNet>,
    /// Where names are answered; empty means at the addresses of the Service
    /// kube-system/kube-dns.
    pub dns_addresses: Vec<IpAddr>,
    /// Who answers for names outside the cluster, if anybody.
    pub upstream: Option<Arc<dyn Upstream>>,
}
