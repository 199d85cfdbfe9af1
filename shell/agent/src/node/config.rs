//! What a node's loop is told when it starts.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;
use kube::Client;
use portolan_client::facts::Wanted;
use portolan_dns::Name;
use portolan_kernel::netns::NetNs;
use portolan_model::Kind;
use portolan_plan::{NodeView, PodNames};

use super::gate::Gate;
use crate::announce::AnnounceTold;
use crate::dns::{DnsGuard, DnsTold, HandOver, KeepConfig, SharedFront, Upstream};
use crate::replies::ReplyPath;

/// Where kube-proxy answers `/healthz` and `/livez`: on every address.
pub const HEALTHZ: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 10256);

/// Where kube-proxy tells its metrics: to the node itself.
pub const METRICS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 10249);

/// Configuration of one node's agent.
#[derive(Clone)]
pub struct NodeConfig {
    /// What decisions are made with, as far as it is configured and not read
    /// from the cluster: the node's name, ranges, and what is masqueraded.
    pub given: NodeView,
    /// The namespace whose packets are ours; on a real node the host's.
    pub netns: NetNs,
    /// The API server.
    pub kube: Client,
    /// Whether NetworkPolicies are enforced. All pods are watched for that.
    pub policies: bool,
    /// Where those who make pods' networks wait until the pods' policies hold.
    pub gate: Gate,
    /// Whether packets that they deny are told of: as flows, events and counters.
    pub policy_log: bool,
    /// Whether names are answered on this node at the addresses of the Service
    /// kube-system/kube-dns; they always are at those in `given`.
    pub cluster_dns: bool,
    /// Who answers for names outside the cluster, if anybody.
    pub upstream: Option<Arc<dyn Upstream>>,
    /// What is counted of forwarding, to be told with everything else.
    pub dns_told: Option<DnsTold>,
    /// What is counted of announcing, to be told with everything else.
    pub announce_told: Option<AnnounceTold>,
    /// What is looked at before the cluster's names.
    pub front: SharedFront,
    /// What pods have in their search lists after the cluster's own domains, if search
    /// lists are completed for them (CoreDNS' autopath).
    pub completed_search: Option<Vec<Name>>,
    /// Who may ask for names, how often, and what is told of it; whose queries are
    /// answered follows from the view.
    pub dns_guard: DnsGuard,
    /// Networks whose queries are answered beside those of the node and its pods.
    pub dns_allowed: Vec<IpNet>,
    /// Where the names that were answered are kept for the next start, if anywhere.
    pub dns_keep: Option<KeepConfig>,
    /// How the DNS server leaves at the agent's end.
    pub dns_hand_over: HandOver,
    /// Where `/healthz` and `/livez` are answered (P15); nowhere if none. An
    /// unspecified address stands for every address of both families.
    pub healthz: Option<SocketAddr>,
    /// Where `/metrics` is answered, for Prometheus; nowhere if none.
    pub metrics: Option<SocketAddr>,
    /// Whether clients outside keep their addresses under `externalTrafficPolicy: Cluster`.
    pub reply_path: ReplyPath,
    /// Whether rules of a kube-proxy on the same node are removed once ours are in
    /// place; otherwise they are told of.
    pub replace_kube_proxy: bool,
}

impl NodeConfig {
    /// What is watched, and what is kept of it.
    pub(super) fn wanted(&self) -> Wanted {
        let everywhere = self.policies || self.given.pod_names == PodNames::Verified;
        // For whom search lists are completed are pods of this node.
        let pods = everywhere || self.completed_search.is_some();
        let mut kinds = Kind::ALL.to_vec();
        kinds.extend(pods.then_some(Kind::Pod));
        if self.policies {
            kinds.extend([Kind::Policy, Kind::ClusterPolicy]);
        }
        // Services go on where policies may not be read.
        let mut optional = vec![Kind::Policy, Kind::ClusterPolicy];
        let others = self.given.pod_names == PodNames::Verified || self.completed_search.is_some();
        optional.extend((!others).then_some(Kind::Pod));
        Wanted {
            kinds,
            optional,
            pods_of: (!everywhere).then(|| self.given.node.to_string()),
            zones: self.given.zonal_names,
        }
    }
}
