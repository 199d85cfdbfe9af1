//! What happens to facts, and what has to be planned again after it.

use std::collections::BTreeSet;
use std::net::IpAddr;

use crate::attached::{Attachment, Uid};
use crate::fact::{Fact, Key, Kind};
use crate::key::{PodKey, PolicyKey, ServiceKey};
use crate::text::Text;

/// Something the API server told us, or who makes the networks of pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// An object is now so.
    Upsert(Fact),
    /// An object is gone; deleting what is not known is fine.
    Delete(Key),
    /// A complete list of one kind: whatever is not in it is gone. Facts of
    /// another kind in the list are ignored.
    Replace(Kind, Vec<Fact>),
    /// A pod of this node has these addresses, which the API may not know yet.
    Attach(Attachment),
    /// The network of such a pod is gone.
    Detach(PodKey, Uid),
}

/// What a change may have changed in the plan, and nothing else.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dirty {
    /// Services that changed themselves or in one of their slices.
    pub services: BTreeSet<ServiceKey>,
    /// Nodes that changed: their own agent looks at its view again.
    pub nodes: BTreeSet<Text>,
    /// Namespaces that came or went, or whose labels changed.
    pub namespaces: BTreeSet<Text>,
    /// ServiceCIDRs that changed: every agent looks at its view again.
    pub service_cidrs: BTreeSet<Text>,
    /// Addresses that came or went as pods' in a namespace.
    pub pods: BTreeSet<(Text, IpAddr)>,
    /// Pods that policies may select otherwise than before, themselves or as peers.
    pub selected: BTreeSet<PodKey>,
    /// NetworkPolicies that changed.
    pub policies: BTreeSet<PolicyKey>,
    /// ClusterNetworkPolicies that changed.
    pub cluster_policies: BTreeSet<Text>,
}

impl Dirty {
    /// Whether nothing has to be planned again.
    pub fn is_empty(&self) -> bool {
        self.services.is_empty()
            && self.nodes.is_empty()
            && self.namespaces.is_empty()
            && self.service_cidrs.is_empty()
            && self.pods.is_empty()
            && self.selected.is_empty()
            && self.policies.is_empty()
            && self.cluster_policies.is_empty()
    }

    /// Adds another change's dirt, so that one round of planning serves many changes.
    pub fn merge(&mut self, other: Self) {
        self.services.extend(other.services);
        self.nodes.extend(other.nodes);
        self.namespaces.extend(other.namespaces);
        self.service_cidrs.extend(other.service_cidrs);
        self.pods.extend(other.pods);
        self.selected.extend(other.selected);
        self.policies.extend(other.policies);
        self.cluster_policies.extend(other.cluster_policies);
    }
}
