//! What is particular to one node: the second argument of every node decision.

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use portolan_model::{Algorithm, Cluster, Family, Text};

use crate::replies::Replies;

/// The port on which the cluster's names are answered.
pub const DNS_PORT: u16 = 53;

/// The bit of connections' marks by which they are cut, if nothing else is configured.
pub const CUT_BIT: u8 = 29;

/// Seconds for which others may keep names of the cluster, if nothing else is
/// configured (D16).
pub const DNS_TTL: u32 = 5;

/// By what pods are told from everybody else (P7): kube-proxy's
/// `--detect-local-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Detector {
    /// By source address: the ranges of all pods. None without ranges.
    #[default]
    ClusterCidr,
    /// By source address: the ranges of this node's pods, from its Node object.
    NodeCidr,
    /// By the link that a packet arrives on: this one.
    Bridge(LinkName),
    /// By the link that a packet arrives on: those whose names begin so.
    Prefix(LinkName),
}

/// The name of a link: at most 15 bytes, as in the kernel.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LinkName([u8; LinkName::LONGEST]);

impl LinkName {
    /// The most bytes that a name has (IFNAMSIZ less the terminator).
    pub const LONGEST: usize = 15;
    /// No link: what the node itself sends arrives on none.
    pub const NONE: Self = Self([0; Self::LONGEST]);

    /// A name that a link can have; none for any other text.
    pub fn new(name: &str) -> Option<Self> {
        let odd = |byte: u8| !byte.is_ascii_graphic() || matches!(byte, b'/' | b'*' | b'"' | b':');
        if name.is_empty() || name == "." || name == ".." || name.bytes().any(odd) {
            return None;
        }
        let mut bytes = [0; Self::LONGEST];
        bytes
            .get_mut(..name.len())?
            .copy_from_slice(name.as_bytes());
        Some(Self(bytes))
    }

    /// The name; empty for [`LinkName::NONE`].
    pub fn as_str(&self) -> &str {
        let end = self.0.iter().position(|byte| *byte == 0);
        let name = self.0.get(..end.unwrap_or(Self::LONGEST));
        name.and_then(|name| std::str::from_utf8(name).ok())
            .unwrap_or_default()
    }
}

impl std::fmt::Debug for LinkName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl std::fmt::Display for LinkName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The node as decisions see it. Two equal views and two equal clusters give
/// equal plans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeView {
    /// The node's name.
    pub node: Text,
    /// Its zone, from its own Node object.
    pub zone: Option<Text>,
    /// Whether the cluster autoscaler is about to delete it.
    pub leaving: bool,
    /// Its addresses, internal ones first, from its own Node object.
    pub node_addresses: Vec<IpAddr>,
    /// The ranges of the pods on this node, from its own Node object.
    pub node_pod_cidrs: Vec<IpNet>,
    /// The ranges of all pods.
    pub cluster_pod_cidrs: Vec<IpNet>,
    /// By what pods are told from everybody else (P7).
    pub detector: Detector,
    /// The ranges that cluster addresses come from: what is not allocated in
    /// them is dropped (P6). Those of ServiceCIDRs come from the cluster.
    pub service_cidrs: Vec<IpNet>,
    /// Where the cluster's names are answered on this node itself.
    pub dns_addresses: Vec<IpAddr>,
    /// Which of the node's addresses node ports are open on (P11).
    pub node_ports: NodePorts,
    /// Whether `spec.externalIPs` are served (P19).
    pub external_ips: bool,
    /// Whether traffic of pods to cluster addresses is masqueraded too.
    pub masquerade_all: bool,
    /// The one bit of a packet's mark that is ours.
    pub masquerade_bit: u32,
    /// Where clients outside keep their address under `externalTrafficPolicy: Cluster`
    /// too, and how answers find back; none where P7 holds for everybody.
    pub replies: Option<Arc<Replies>>,
    /// How connections are spread where a Service says nothing.
    pub algorithm: Algorithm,
    /// The cluster's domain, without a trailing dot.
    pub cluster_domain: Text,
    /// Which addresses have names as pods (D15).
    pub pod_names: PodNames,
    /// Whether the endpoints of each zone have names below those of their headless
    /// Services: CoreDNS' `zonal`.
    pub zonal_names: bool,
    /// Seconds for which others may keep names of the cluster (D16).
    pub dns_ttl: u32,
    /// Whether addresses of this node's pods that no pod is known to have are closed
    /// once there is a policy (N16).
    pub close_unknown_pods: bool,
    /// The one bit of a connection's mark that says that policies no longer allow it;
    /// without a value connections go on that were allowed once (N11).
    pub cut_bit: Option<u32>,
    /// At which group of nfnetlink_log packets that policies deny are told of, if at
    /// all.
    pub policy_log: Option<u16>,
    /// What becomes of such packets.
    pub policy_deny: Deny,
}

/// Which addresses have names as pods, `10-0-0-7.<namespace>.pod.<domain>` (D15):
/// CoreDNS' directive `pods`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PodNames {
    /// None.
    #[default]
    Disabled,
    /// Every address, in every namespace that exists.
    Insecure,
    /// Those of pods of the namespace. All pods must be known for this.
    Verified,
}

/// What becomes of packets that policies deny (N18).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Deny {
    /// They are dropped in silence: who sends them waits.
    #[default]
    Drop,
    /// Who sends them is told: by a reset in TCP, else by ICMP.
    Reject,
}

/// Where node ports are open, by family.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodePorts {
    /// In IPv4.
    pub v4: OpenNodePorts,
    /// In IPv6.
    pub v6: OpenNodePorts,
}

/// Where node ports of one family are open.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OpenNodePorts {
    /// On which of the node's addresses, by translation.
    pub addresses: NodePortAddresses,
    /// On localhost too, which nothing is translated for: somebody listens there
    /// and passes on (KEP-6032).
    pub localhost: bool,
}

/// Which addresses of the node node ports are open on. Loopback is none of them.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum NodePortAddresses {
    /// The node's first address, as kube-proxy's `primary`.
    #[default]
    Primary,
    /// Every address that is the node's own.
    AnyLocal,
    /// Those of the node's own within these ranges, whether its Node object tells
    /// of them or not.
    Within {
        /// The ranges, of one family.
        ranges: Vec<IpNet>,
        /// And the node's first address.
        primary: bool,
    },
}

impl NodePorts {
    /// The same in both families, and not on localhost.
    pub fn both(addresses: NodePortAddresses) -> Self {
        let one = OpenNodePorts {
            addresses,
            localhost: false,
        };
        Self {
            v4: one.clone(),
            v6: one,
        }
    }

    /// The addresses of a family.
    pub fn of(&self, family: Family) -> &NodePortAddresses {
        &self.one(family).addresses
    }

    /// Whether node ports of a family are wanted on localhost.
    pub fn on_localhost(&self, family: Family) -> bool {
        self.one(family).localhost
    }

    fn one(&self, family: Family) -> &OpenNodePorts {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

impl Default for NodeView {
    fn default() -> Self {
        Self {
            node: "".into(),
            zone: None,
            leaving: false,
            node_addresses: Vec::new(),
            node_pod_cidrs: Vec::new(),
            cluster_pod_cidrs: Vec::new(),
            detector: Detector::default(),
            service_cidrs: Vec::new(),
            dns_addresses: Vec::new(),
            node_ports: NodePorts::default(),
            external_ips: true,
            masquerade_all: false,
            masquerade_bit: 0x4000,
            replies: None,
            algorithm: Algorithm::Random,
            cluster_domain: "cluster.local".into(),
            pod_names: PodNames::default(),
            zonal_names: false,
            dns_ttl: DNS_TTL,
            close_unknown_pods: false,
            cut_bit: None,
            policy_log: None,
            policy_deny: Deny::default(),
        }
    }
}

impl NodeView {
    /// This view, with what the node's own Node object and the ServiceCIDRs say
    /// now. Called on the view that was configured, after a change whose dirt
    /// names one of them.
    #[must_use]
    pub fn observed(&self, cluster: &Cluster) -> Self {
        self.with_node(cluster).with_ranges(cluster)
    }

    /// This view with the ranges of the cluster's ServiceCIDRs too (A6).
    #[must_use]
    pub fn with_ranges(&self, cluster: &Cluster) -> Self {
        let mut view = self.clone();
        for range in cluster.service_cidrs().flat_map(|cidr| &cidr.ranges) {
            if !view.service_cidrs.contains(range) {
                view.service_cidrs.push(*range);
            }
        }
        view
    }

    /// This view with what the node's own Node object says, if there is one.
    #[must_use]
    pub fn with_node(&self, cluster: &Cluster) -> Self {
        let mut view = self.clone();
        if let Some(node) = cluster.node(&self.node) {
            let internal = node.addresses.iter().filter(|address| address.internal);
            let external = node.addresses.iter().filter(|address| !address.internal);
            view.zone = node.zone.clone();
            view.leaving = node.leaving;
            view.node_addresses = internal
                .chain(external)
                .map(|address| address.address)
                .collect();
            view.node_pod_cidrs = node.pod_cidrs.clone();
        }
        view
    }

    /// Whether the sender of a packet is a pod, as far as the detector knows.
    pub fn is_pod(&self, source: IpAddr, link: LinkName) -> bool {
        match self.detector {
            Detector::ClusterCidr | Detector::NodeCidr => self.is_pod_address(source),
            Detector::Bridge(bridge) => link == bridge,
            Detector::Prefix(prefix) => link.as_str().starts_with(prefix.as_str()),
        }
    }

    /// Whether pods can be told from others in this family. A family without
    /// ranges has no detector by ranges.
    pub fn has_detector(&self, family: Family) -> bool {
        match self.detector {
            Detector::ClusterCidr | Detector::NodeCidr => {
                of_family(self.pod_ranges(), family).next().is_some()
            }
            Detector::Bridge(_) | Detector::Prefix(_) => true,
        }
    }

    /// The ranges by which pods' addresses are known.
    pub fn pod_ranges(&self) -> &[IpNet] {
        match self.detector {
            Detector::NodeCidr => &self.node_pod_cidrs,
            Detector::ClusterCidr | Detector::Bridge(_) | Detector::Prefix(_) => {
                &self.cluster_pod_cidrs
            }
        }
    }

    /// Whether an address is in those ranges.
    pub fn is_pod_address(&self, address: IpAddr) -> bool {
        contains(self.pod_ranges(), address)
    }

    /// Whether an address lies in the ranges of cluster addresses.
    pub fn is_service_address(&self, address: IpAddr) -> bool {
        contains(&self.service_cidrs, address)
    }

    /// Whether an address is the node's own, by its Node object.
    pub fn is_node_address(&self, address: IpAddr) -> bool {
        self.node_addresses.contains(&address)
    }

    /// The ranges of addresses that node ports are open on; of
    /// [`NodePortAddresses::Within`] only what is the node's own counts, and for
    /// [`NodePortAddresses::AnyLocal`], which is a property and no list, there are
    /// none.
    pub fn node_port_ranges(&self, family: Family) -> Vec<IpNet> {
        let own = || {
            let mut own = self.node_addresses.iter().copied();
            own.find(|address| Family::of(*address) == family)
                .map(IpNet::from)
        };
        match self.node_ports.of(family) {
            NodePortAddresses::Primary => own().into_iter().collect(),
            NodePortAddresses::AnyLocal => Vec::new(),
            NodePortAddresses::Within { ranges, primary } => {
                let first = own().filter(|_| *primary);
                of_family(ranges, family).copied().chain(first).collect()
            }
        }
    }

    /// Whether node ports are open on addresses that the Node object need not
    /// tell of.
    pub fn opens_node_ports_anywhere(&self) -> bool {
        Family::BOTH
            .into_iter()
            .any(|family| *self.node_ports.of(family) != NodePortAddresses::Primary)
    }

    /// Whether a packet to `address`, which is local when `local` says so, can
    /// be one to a node port.
    pub fn opens_node_ports(&self, address: IpAddr, local: bool) -> bool {
        let family = Family::of(address);
        let within = || contains(&self.node_port_ranges(family), address);
        match self.node_ports.of(family) {
            NodePortAddresses::Primary => within(),
            NodePortAddresses::AnyLocal => local && !address.is_loopback(),
            NodePortAddresses::Within { .. } => local && !address.is_loopback() && within(),
        }
    }
}

/// The ranges of one family.
pub fn of_family(ranges: &[IpNet], family: Family) -> impl Iterator<Item = &IpNet> {
    ranges
        .iter()
        .filter(move |range| Family::of(range.addr()) == family)
}

fn contains(ranges: &[IpNet], address: IpAddr) -> bool {
    ranges.iter().any(|range| range.contains(&address))
}
