//! Addresses of this node's pods that no pod is known to have: closed until then,
//! where that is asked for, so that a new pod is not open before its policies are
//! there (N16).

use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use portolan_model::{Cluster, PodKey};

use super::{Policies, TouchedPolicies};
use crate::view::NodeView;

/// The ranges of which every address that no pod is known to have is closed: those of
/// this node's pods, once there is a policy anywhere; ranges do not overlap.
pub type Closed = Arc<Vec<IpNet>>;

/// What is closed in a cluster.
fn closed(cluster: &Cluster, view: &NodeView) -> Option<Closed> {
    let asked = view.close_unknown_pods && cluster.has_policies();
    asked.then(|| Arc::new(IpNet::aggregate(&view.node_pod_cidrs)))
}

impl Policies {
    /// What is closed, if anything may be.
    pub fn closed(&self) -> Option<&Closed> {
        self.closed.as_ref()
    }

    /// The addresses that pods of this node are known to have.
    pub fn here(&self) -> impl Iterator<Item = IpAddr> {
        let mut last = None;
        let addresses = self.local.keys().map(|(address, _)| *address);
        addresses.filter(move |address| last.replace(*address) != Some(*address))
    }

    /// Whether a pod of this node is known to have an address.
    pub fn is_here(&self, address: IpAddr) -> bool {
        let from = (address, PodKey::new("", ""));
        let mut there = self.local.range(from..);
        there.next().is_some_and(|((own, _), _)| *own == address)
    }

    /// Whether a new connection must wait, since it begins or ends at an address that
    /// nobody is known to have.
    pub fn is_unknown(&self, address: IpAddr) -> bool {
        let closed = self.closed.as_ref();
        closed.is_some_and(|ranges| ranges.iter().any(|range| range.contains(&address)))
            && !self.is_here(address)
    }

    /// Follows the view in what holds for all of the node's pods.
    pub(super) fn look_again(
        &mut self,
        cluster: &Cluster,
        view: &NodeView,
        touched: &mut TouchedPolicies,
    ) {
        let after = closed(cluster, view);
        if after != self.closed {
            touched.closed = Some(std::mem::replace(&mut self.closed, after));
        }
        if view.cut_bit != self.cut_bit {
            touched.cut_bit = Some(std::mem::replace(&mut self.cut_bit, view.cut_bit));
        }
    }
}
