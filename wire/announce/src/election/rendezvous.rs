//! Rendezvous hashing: the node with the highest number leads.

use std::net::IpAddr;

use crate::random::mix;

/// The number of a node for an address. It must stay the same over all versions:
/// agents of two versions that drew otherwise would both answer.
fn score(node: &str, address: IpAddr) -> u64 {
    // FNV-1a of the name, then the halves of the address, each mixed in whole.
    let name = node.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let bits = match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().to_bits(),
        IpAddr::V6(address) => address.to_bits(),
    };
    let [low, high] = [bits, bits >> 64].map(|half| u64::try_from(half & u128::from(u64::MAX)));
    let mixed = mix(mix(name) ^ high.unwrap_or(0));
    mix(mixed.wrapping_add(0x9e37_79b9_7f4a_7c15) ^ low.unwrap_or(0))
}

/// The node of these that answers for an address; `None` if there are none. The order
/// of the nodes does not matter.
#[must_use]
pub fn leader<'a>(address: IpAddr, nodes: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nodes
        .into_iter()
        .max_by_key(|node| (score(node, address), *node))
}

/// The nodes in the order in which they would lead, if those before were gone.
#[must_use]
pub fn ranked<'a>(address: IpAddr, nodes: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut out: Vec<&str> = nodes.into_iter().collect();
    out.sort_by_key(|node| std::cmp::Reverse((score(node, address), *node)));
    out.dedup();
    out
}
