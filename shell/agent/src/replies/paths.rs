//! By which way another node is reached: what the kernel's links and routes say.
//!
//! Only a neighbour on one Ethernet will do, since it is known by its Ethernet address
//! on the other side: on the nodes' own network, or on an overlay that is one (vxlan).

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use ipnet::IpNet;
use portolan_kernel::link::{LinkError, LinkIndex, Links};
use portolan_kernel::sysctl;
use portolan_kernel::way::NextHop;
use portolan_model::Family;

use super::said::{Said, SaidLink};

/// The links of this node that have Ethernet addresses and addresses, by index.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct OwnLinks(BTreeMap<LinkIndex, OwnLink>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct OwnLink {
    name: String,
    said: SaidLink,
}

/// Why a node is not reached so that answers could come back, or go there.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Obstacle {
    /// It has no pods of the family that could be asked for.
    NoRange,
    /// There is no route to its pods.
    NoRoute(IpAddr),
    /// The next one on the way to its pods is somebody else.
    Router(IpAddr),
    /// The link is no Ethernet, or has no address.
    NoEthernet(LinkIndex),
    /// The kernel would drop what comes from clients outside on that link.
    Filtered(String),
    /// There are more nodes than numbers.
    NoNumber,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoRange => f.write_str("no range of its pods is known (spec.podCIDRs)"),
            Self::NoRoute(to) => write!(f, "there is no route to its pods ({to})"),
            Self::Router(hop) => {
                write!(
                    f,
                    "its pods are reached by {hop}, which is none of its addresses"
                )
            }
            Self::NoEthernet(link) => write!(
                f,
                "its pods are reached by link {link}, which has no Ethernet address or no address"
            ),
            Self::Filtered(link) => write!(
                f,
                "net.ipv4.conf.{link}.rp_filter drops what comes from clients there: set it to 0, \
                 or to 2 with a default route"
            ),
            Self::NoNumber => f.write_str("there are more nodes than bits for them in marks"),
        }
    }
}

impl OwnLinks {
    /// Reads them.
    pub(super) async fn read(links: &Links) -> Result<Self, LinkError> {
        let mut addresses: BTreeMap<LinkIndex, Vec<IpAddr>> = BTreeMap::new();
        for (link, address) in links.all_addresses().await? {
            if is_of_world(address.addr()) {
                addresses.entry(link).or_default().push(address.addr());
            }
        }
        let mut own = BTreeMap::new();
        for link in links.list().await? {
            let ether = link.mac.filter(|ether| link.up && *ether != [0; 6]);
            if let (Some(ether), Some(addresses)) = (ether, addresses.remove(&link.index)) {
                let said = SaidLink { ether, addresses };
                let name = link.name;
                own.insert(link.index, OwnLink { name, said });
            }
        }
        Ok(Self(own))
    }

    /// As others are told of them.
    pub(super) fn said(&self) -> Vec<SaidLink> {
        self.0.values().map(|link| link.said.clone()).collect()
    }
}

/// Whether an address is the same wherever it is seen.
fn is_of_world(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}

/// The way to another node: the next hop to every range of its pods, if that is the
/// node itself, on an Ethernet of ours. Or what is in the way.
pub(super) async fn path(
    links: &Links,
    own: &OwnLinks,
    (other, family): (&Said, Family),
) -> Result<Result<NextHop, Obstacle>, LinkError> {
    let mut found = None;
    for range in other.ranges_of(family) {
        let to = within(range);
        let Some(hop) = links.next_hop(to).await? else {
            return Ok(Err(Obstacle::NoRoute(to)));
        };
        if !other.addresses().any(|address| address == hop.address) {
            return Ok(Err(Obstacle::Router(hop.address)));
        }
        if !own.0.contains_key(&hop.link) {
            return Ok(Err(Obstacle::NoEthernet(hop.link)));
        }
        found.get_or_insert(hop);
    }
    Ok(found.ok_or(Obstacle::NoRange))
}

/// Whether the kernel takes what comes from clients outside by a link, although it
/// would answer them by another: only IPv4 has such a filter.
pub(super) fn takes_strangers(
    links: &Links,
    own: &OwnLinks,
    (hop, has_default): (NextHop, bool),
) -> Result<(), Obstacle> {
    let Some(link) = own.0.get(&hop.link).filter(|_| hop.address.is_ipv4()) else {
        return Ok(());
    };
    let read = |of: &str| {
        let name = format!("net.ipv4.conf.{}.rp_filter", of.replace('.', "/"));
        let text = sysctl::get(links.netns(), &name).unwrap_or_default();
        text.trim().parse().unwrap_or(0_u8)
    };
    // The kernel takes the larger one; 2 asks for any route to the client.
    match read("all").max(read(&link.name)) {
        0 => Ok(()),
        2 if has_default => Ok(()),
        _ => Err(Obstacle::Filtered(link.name.clone())),
    }
}

/// An address in a range that a pod could have.
fn within(range: &IpNet) -> IpAddr {
    range.hosts().nth(1).unwrap_or(range.network())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_a_pods_address() {
        for (range, to) in [
            ("10.244.2.0/24", "10.244.2.2"),
            ("10.244.2.7/32", "10.244.2.7"),
            ("fd00:10:244:2::/64", "fd00:10:244:2::1"),
        ] {
            let to: IpAddr = to.parse().unwrap();
            assert_eq!(within(&range.parse().unwrap()), to);
        }
    }

    #[test]
    fn addresses_of_one_link_alone_are_not_told() {
        for (address, told) in [
            ("192.0.2.1", true),
            ("169.254.1.1", false),
            ("127.0.0.1", false),
            ("2001:db8::1", true),
            ("fe80::1", false),
            ("::1", false),
        ] {
            assert_eq!(is_of_world(address.parse().unwrap()), told, "{address}");
        }
    }
}
