//! Rendezvous hashing: the node with the highest number leads.

use std::net::IpAddr;

use crate::random::mix;

/// FNV-1a of a name, mixed.
fn seed(node: &str) -> u64 {
    mix(node.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    }))
}

/// The number of a node for an address: the node's seed and the halves of the address,
/// each mixed in whole. It must stay the same over all versions: agents of two
/// versions that drew otherwise would both answer.
fn score(seed: u64, address: IpAddr) -> u64 {
    let bits = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    };
    let [low, high] = [bits, bits >> 64].map(|half| u64::try_from(half & u128::from(u64::MAX)));
    let mixed = mix(seed ^ high.unwrap_or(0));
    mix(mixed.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ low.unwrap_or(0))
}

/// Nodes that lead many addresses: their names are hashed once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roster {
    nodes: Vec<(u64, String)>,
}

impl Roster {
    /// Of these nodes.
    #[must_use]
    pub fn new<'a>(nodes: impl IntoIterator<Item = &'a str>) -> Self {
        let nodes = nodes.into_iter().map(|node| (seed(node), node.to_owned()));
        Self {
            nodes: nodes.collect(),
        }
    }

    /// The node that answers for an address, as [`leader`] finds it.
    #[must_use]
    pub fn leader(&self, address: IpAddr) -> Option<&str> {
        let nodes = self.nodes.iter();
        let best = nodes.max_by_key(|(seed, node)| (score(*seed, address), node.as_str()));
        best.map(|(_, node)| node.as_str())
    }
}

/// The node of these that answers for an address; `None` if there are none. The order
/// of the nodes does not matter.
#[must_use]
pub fn leader<'a>(address: IpAddr, nodes: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nodes
        .into_iter()
        .max_by_key(|node| (score(seed(node), address), *node))
}

/// The nodes in the order in which they would lead, if those before were gone.
#[must_use]
pub fn ranked<'a>(address: IpAddr, nodes: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut out: Vec<&str> = nodes.into_iter().collect();
    out.sort_by_key(|node| std::cmp::Reverse((score(seed(node), address), *node)));
    out.dedup();
    out
}
