//! What the plan says of a prefix, as BGP says it: pure.

use std::net::IpAddr;

use ipnet::IpNet;
use portolan_announce::bgp::Attributes;
use portolan_model::workloads::Community;
use portolan_plan::announce::Route;

/// A prefix, and what is told of it from now on; none if nothing.
pub(super) type Change = (IpNet, Option<Route>);

/// Where packets for a prefix go: to the node's end of the session if that is of its
/// family, else to the node's first address of it. Without any, the end of the session
/// has to do, which peers take who agreed to it (RFC 8950).
pub(super) fn next_hop(prefix: IpNet, session: IpAddr, own: &[IpAddr]) -> IpAddr {
    let is_v4 = matches!(prefix, IpNet::V4(_));
    let mut all = std::iter::once(session).chain(own.iter().copied());
    all.find(|one| one.is_ipv4() == is_v4).unwrap_or(session)
}

/// What is said of a prefix.
pub(super) fn attributes(route: &Route, next_hop: IpAddr) -> Attributes {
    let mut attributes = Attributes::new(next_hop);
    attributes.local_pref = route.local_pref;
    for community in &route.communities {
        match community {
            Community::Standard(number) => attributes.communities.push(*number),
            Community::Large(numbers) => attributes.large_communities.push(*numbers),
            // The plan has put what they stand for in their place.
            Community::Named(_) => {}
        }
    }
    attributes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn l10_the_next_hop_is_of_the_prefixs_family() {
        let own: Vec<IpAddr> = vec!["192.0.2.7".parse().unwrap(), "2001:db8::7".parse().unwrap()];
        for (prefix, session, own, wanted) in [
            ("192.0.2.130/32", "192.0.2.8", &own[..], "192.0.2.8"),
            ("2001:db8::100/128", "192.0.2.8", &own[..], "2001:db8::7"),
            ("192.0.2.130/32", "fe80::1", &own[..], "192.0.2.7"),
            ("192.0.2.130/32", "2001:db8::8", &own[1..], "2001:db8::8"),
        ] {
            let hop = next_hop(prefix.parse().unwrap(), session.parse().unwrap(), own);
            assert_eq!(
                hop,
                wanted.parse::<IpAddr>().unwrap(),
                "{prefix} over {session}"
            );
        }
    }

    #[test]
    fn l10_preference_and_communities_are_said() {
        let communities = ["64512:7", "large:1:2:3", "no-export"].map(Community::parse);
        let route = Route {
            local_pref: Some(200),
            communities: communities.into(),
        };
        let said = attributes(&route, "192.0.2.1".parse().unwrap());
        assert_eq!(said.local_pref, Some(200));
        assert_eq!(said.communities, [0xfc00_0007, 0xffff_ff01]);
        assert_eq!(said.large_communities, [[1, 2, 3]]);
    }
}
