//! The seam between the pod manager and whatever gives pods a network.

use std::net::IpAddr;

use futures::future::BoxFuture;
use portolan_kernel::netns::NetNs;

/// The annotation by which a pod with `hostNetwork` says whose network it has:
/// [`OUTSIDE`], or its node's without it.
pub const NETWORK: &str = "portolan.dev/network";
/// That of the machine beside the nodes: a client in no cluster, on their network.
pub const OUTSIDE: &str = "outside";

/// Which pod: the uid tells two pods of one name apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodIdentity {
    /// `metadata.namespace`
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
    /// `metadata.uid`
    pub uid: String,
}

/// What a pod got: a namespace of its own and its addresses in it.
#[derive(Clone, Debug)]
pub struct PodNet {
    /// The namespace in which the pod's processes run.
    pub netns: NetNs,
    /// Addresses in the order of `status.podIPs`: the primary family first.
    pub ips: Vec<IpAddr>,
}

/// Why a pod got no network, as the implementation tells it.
pub type NetworkError = Box<dyn std::error::Error + Send + Sync>;

/// Attaches pods to a node's network, as a CNI plugin does.
pub trait PodNetwork: Send + Sync + 'static {
    /// Makes a namespace with an address of each family. Called again for the
    /// same pod after [`PodNetwork::detach`] or after a failure.
    fn attach<'a>(&'a self, pod: &'a PodIdentity) -> BoxFuture<'a, Result<PodNet, NetworkError>>;

    /// Takes the pod's addresses and links away. What is gone already is success.
    fn detach<'a>(&'a self, pod: &'a PodIdentity) -> BoxFuture<'a, Result<(), NetworkError>>;
}
