//! What the pod manager of one node needs to know.

use std::{net::IpAddr, path::PathBuf, sync::Arc};

use ipnet::IpNet;
use portolan_kernel::netns::NetNs;

use super::{
    inside::Inside,
    network::{PodNet, PodNetwork},
};
use crate::{image::ImageTable, logs::Logs};

/// Everything about one node, and what all nodes share.
#[derive(Clone)]
pub struct KubeletConfig {
    /// The Node's name.
    pub node_name: String,
    /// The API server.
    pub client: kube::Client,
    /// Gives pods their network.
    pub network: Arc<dyn PodNetwork>,
    /// The node's own network, from which probes are sent.
    pub node_netns: NetNs,
    /// The node's addresses: `status.addresses`, and `hostIPs` of its pods.
    pub node_ips: Vec<IpAddr>,
    /// The network of the machine beside the nodes, for pods that say
    /// [`NETWORK`](super::NETWORK): `outside`.
    pub outside: PodNet,
    /// The node's pod ranges, `spec.podCIDRs`.
    pub pod_cidrs: Vec<IpNet>,
    /// Such as `cluster.local`.
    pub cluster_domain: String,
    /// The cluster's DNS servers, for `/etc/resolv.conf`.
    pub dns_ips: Vec<IpAddr>,
    /// The API server's CA certificate as PEM, for pods.
    pub cluster_ca: String,
    /// Where pods have their folders. May be shared by the nodes of one lab.
    pub data_dir: PathBuf,
    /// Folders of the lab that pods must not see.
    pub hide: Vec<PathBuf>,
    /// The program that is started again in pods; its `main` calls
    /// [`crate::container::init_main`] first. Mostly `/proc/self/exe`.
    pub program: PathBuf,
    /// Which images there are.
    pub images: Arc<ImageTable>,
    /// Where pods' output goes. Shared by the nodes of one lab.
    pub logs: Arc<Logs>,
    /// Where running pods are found. Shared by the nodes of one lab.
    pub inside: Arc<Inside>,
}
