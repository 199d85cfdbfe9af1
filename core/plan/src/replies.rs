//! The way back of connections whose clients keep their address although
//! `externalTrafficPolicy` is Cluster.
//!
//! The node that a client comes to translates its packets, and must see the answers
//! to translate them back. kube-proxy sees to that by its own address as the source
//! (P7). Where the endpoint's node sends answers back to where a connection came in,
//! the client may keep its address:
//!
//! ```text
//!  client ──► node 1: to the endpoint, source kept ──► node 2: came by node 1's
//!    ▲           │                                     Ethernet address: remembered
//!    └───────────┘◄── marked, routed to node 1 ◄────── pod answers the client
//! ```
//!
//! Who can do so is not decided here: it needs links, routes, and the word of other
//! nodes. Whoever is not named in [`Replies`] is served as by P7.

use std::net::IpAddr;

use ipnet::IpNet;
use portolan_model::Family;

use crate::view::{Detector, NodeView};

/// The bits of marks that say where a connection came in, if nothing else is
/// configured: as many as 254 other nodes need.
pub const REPLY_MASK: u32 = 0x00ff_0000;

/// What is known of the way back, on one node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Replies {
    /// Which bits of connections' and packets' marks are used: adjacent ones, at least
    /// two. A neighbour's number stands there; all of them together stand for
    /// connections that came in here.
    pub mask: u32,
    /// Addresses of nodes that take part: nodes as clients are masqueraded, since what
    /// comes from a node's own address must not come to it.
    pub nodes: Vec<IpAddr>,
    /// Ranges of pods on other nodes that send answers back here.
    pub kept: Vec<IpNet>,
    /// To whom answers of this node's pods are sent back.
    pub neighbours: Vec<Neighbour>,
}

/// Another node from which connections come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Neighbour {
    /// Its number on this node, from 1 on, within the mask.
    pub number: u32,
    /// From which Ethernet addresses it sends.
    pub ethers: Vec<[u8; 6]>,
}

impl Replies {
    /// How many neighbours there may be.
    pub fn room(mask: u32) -> u32 {
        // All bits together stand for what came in here, none for nothing.
        (mask >> mask.trailing_zeros().min(31)).saturating_sub(1)
    }

    /// The bits of a mark that stand for a neighbour.
    pub fn mark(mask: u32, number: u32) -> u32 {
        number.checked_shl(mask.trailing_zeros()).unwrap_or(0) & mask
    }
}

impl NodeView {
    /// Whether clients outside keep their address where they can, in a family. Pods of
    /// all nodes must be told from them.
    pub fn keeps_clients(&self, family: Family) -> bool {
        self.replies.is_some()
            && self.detector == Detector::ClusterCidr
            && self.has_detector(family)
    }

    /// The ranges of pods whose answers come by this node: its own, and those of nodes
    /// that send them back here. Whoever is in them is known as a pod, and so is never a
    /// client outside.
    pub fn kept_ranges(&self) -> Vec<IpNet> {
        let others = self.replies.iter().flat_map(|replies| &replies.kept);
        let known = |range: &&IpNet| self.pod_ranges().iter().any(|pods| pods.contains(*range));
        let all = self.node_pod_cidrs.iter().chain(others);
        all.filter(known).copied().collect()
    }

    /// Whether a client outside keeps its address on the way to an endpoint.
    pub fn keeps(&self, client: IpAddr, endpoint: IpAddr) -> bool {
        let is_node = |replies: &Replies| replies.nodes.contains(&client);
        self.keeps_clients(Family::of(client))
            && !self.replies.as_deref().is_some_and(is_node)
            && self
                .kept_ranges()
                .iter()
                .any(|range| range.contains(&endpoint))
    }

    /// Whether both views decide the same at every frontend: which nodes send answers
    /// back is looked up by packets, so that it changes no decision.
    pub fn decides_like(&self, other: &Self) -> bool {
        let without = |view: &Self| Self {
            replies: None,
            ..view.clone()
        };
        self.replies.is_some() == other.replies.is_some() && without(self) == without(other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view() -> NodeView {
        let ranges = ["10.244.0.0/16", "fd00:10:244::/48"];
        NodeView {
            cluster_pod_cidrs: ranges.map(|range| range.parse().unwrap()).into(),
            node_pod_cidrs: vec!["10.244.1.0/24".parse().unwrap()],
            replies: Some(
                Replies {
                    mask: REPLY_MASK,
                    nodes: vec!["192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap()],
                    kept: vec!["10.244.2.0/24".parse().unwrap()],
                    neighbours: Vec::new(),
                }
                .into(),
            ),
            ..NodeView::default()
        }
    }

    #[test]
    fn p7_a_client_keeps_its_address_only_where_answers_come_back() {
        let view = view();
        let rows = [
            ("198.51.100.7", "10.244.1.5", true),
            ("198.51.100.7", "10.244.2.5", true),
            // A node that does not take part, and an endpoint that is no pod.
            ("198.51.100.7", "10.244.3.5", false),
            ("198.51.100.7", "192.0.2.2", false),
            // What comes from a node's own address must not come to it.
            ("192.0.2.2", "10.244.2.5", false),
            ("2001:db8::7", "fd00:10:244:2::5", false),
        ];
        for (client, endpoint, kept) in rows {
            let [from, to] = [client, endpoint].map(|text| text.parse().unwrap());
            assert_eq!(view.keeps(from, to), kept, "{client} to {endpoint}");
        }
        let off = NodeView {
            replies: None,
            ..view.clone()
        };
        let by_link = NodeView {
            detector: Detector::Bridge(crate::LinkName::new("cni0").unwrap()),
            ..view
        };
        for view in [off, by_link] {
            assert!(!view.keeps(
                "198.51.100.7".parse().unwrap(),
                "10.244.1.5".parse().unwrap()
            ));
        }
    }

    #[test]
    fn numbers_stay_within_their_bits() {
        for (mask, room, last) in [
            (REPLY_MASK, 254, 0x00fe_0000),
            (0x3, 2, 0x2),
            (0xc000_0000, 2, 0x8000_0000),
        ] {
            assert_eq!(Replies::room(mask), room);
            assert_eq!(Replies::mark(mask, room), last);
        }
        assert_eq!(Replies::room(0), 0);
        assert_eq!(Replies::mark(0, 1), 0);
    }

    #[test]
    fn who_sends_answers_back_changes_no_decision() {
        let (one, mut other) = (view(), view());
        other.replies = Some(Replies::default().into());
        assert!(one.decides_like(&other));
        other.replies = None;
        assert!(!one.decides_like(&other));
    }
}
