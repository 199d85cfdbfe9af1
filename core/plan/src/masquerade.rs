//! Whose source address is replaced by the node's, so that answers find back.
//!
//! The table is kube-proxy's (P7). In words: a pod that talks to a cluster
//! address keeps its address; everybody else's connection to a cluster address
//! is masqueraded, as the endpoint's node would not know the way back through
//! this one; so is every connection to a node port, unless
//! `externalTrafficPolicy: Local` asks for the client's address to be kept.
//! An endpoint that talks to itself through its Service (P8) is a property of
//! the packet after translation and not decided here.

use portolan_model::{Family, TrafficPolicy};

use crate::frontend::Masquerade;
use crate::view::NodeView;

/// For connections to a cluster address, whatever the internal policy.
pub(crate) fn to_cluster_ip(view: &NodeView, family: Family) -> Masquerade {
    if view.masquerade_all {
        Masquerade::Always
    } else if view.has_detector(family) {
        Masquerade::UnlessPod
    } else {
        Masquerade::Never
    }
}

/// For connections to a node port or an outer address from a pod or from this
/// node, and with the Cluster policy from anybody.
pub(crate) fn to_external(policy: TrafficPolicy) -> Masquerade {
    match policy {
        TrafficPolicy::Cluster => Masquerade::Always,
        // Pods and the node itself may use all endpoints even so.
        TrafficPolicy::Local => Masquerade::IfNode,
    }
}

/// For connections from outside to such a place with the Cluster policy, if that is
/// another thing: an option keeps clients where answers find back.
pub(crate) fn from_outside_to_cluster(view: &NodeView, family: Family) -> Option<Masquerade> {
    view.keeps_clients(family)
        .then_some(Masquerade::UnlessReturned)
}

/// For connections from outside to such a place with the Local policy: the
/// endpoint is here and answers through this node, so its client is kept.
pub(crate) fn from_outside_to_local() -> Masquerade {
    Masquerade::Never
}
