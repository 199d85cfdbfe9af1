//! What is said of the prefixes that are announced.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustbgpd_wire::{
    AsPath, AsPathSegment, LargeCommunity, MpReachNlri, MpUnreachNlri, NlriEntry, Origin,
    PathAttribute, Prefix, Safi,
};

use super::config::Config;

/// The preference of routes on internal sessions where none is configured.
const DEFAULT_LOCAL_PREF: u32 = 100;
/// More ASNs do not fit into one segment of a path.
const MOST_PREPENDED: u8 = 254;

/// What is said of a prefix. Prefixes with equal attributes share messages.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attributes {
    /// Where packets for the prefix go.
    pub next_hop: IpAddr,
    /// The preference within our autonomous system; 100 if absent. External peers
    /// are not told.
    pub local_pref: Option<u32>,
    /// Which of several ways into our autonomous system to take (MED).
    pub med: Option<u32>,
    /// Communities (RFC 1997), the high half first.
    pub communities: Vec<u32>,
    /// Large communities (RFC 8092).
    pub large_communities: Vec<[u32; 3]>,
    /// How many times more our ASN is put into the path. Internal peers are not told:
    /// who finds its own ASN in a path drops the route.
    pub prepend: u8,
}

impl Attributes {
    /// A next hop and nothing else.
    #[must_use]
    pub const fn new(next_hop: IpAddr) -> Self {
        Self {
            next_hop,
            local_pref: None,
            med: None,
            communities: Vec::new(),
            large_communities: Vec::new(),
            prepend: 0,
        }
    }

    /// As attributes of an UPDATE, in order of their types, without next hop.
    pub(super) fn for_peer(&self, config: &Config) -> Vec<PathAttribute> {
        let internal = config.is_internal();
        let times = match internal {
            true => 0,
            false => self.prepend.min(MOST_PREPENDED) + 1,
        };
        let path = vec![config.local_as; usize::from(times)];
        let segments = match path.is_empty() {
            true => Vec::new(),
            false => vec![AsPathSegment::AsSequence(path)],
        };
        let mut out = vec![
            PathAttribute::Origin(Origin::Igp),
            PathAttribute::AsPath(AsPath { segments }),
        ];
        out.extend(self.med.map(PathAttribute::Med));
        if internal {
            let preference = self.local_pref.unwrap_or(DEFAULT_LOCAL_PREF);
            out.push(PathAttribute::LocalPref(preference));
        }
        if !self.communities.is_empty() {
            out.push(PathAttribute::Communities(self.communities.clone()));
        }
        if !self.large_communities.is_empty() {
            let large = self.large_communities.iter();
            let large = large.map(|[a, b, c]| LargeCommunity::new(*a, *b, *c));
            out.push(PathAttribute::LargeCommunities(large.collect()));
        }
        out
    }
}

/// The prefix of an address that is announced: of this length, or the address
/// alone. A length that is too long counts as the whole.
#[must_use]
pub fn aggregate(address: IpAddr, length: Option<u8>) -> IpNet {
    match address {
        IpAddr::V4(address) => {
            let net = Ipv4Net::new(address, length.unwrap_or(32).min(32));
            IpNet::V4(net.unwrap_or_else(|_| address.into()).trunc())
        }
        IpAddr::V6(address) => {
            let net = Ipv6Net::new(address, length.unwrap_or(128).min(128));
            IpNet::V6(net.unwrap_or_else(|_| address.into()).trunc())
        }
    }
}

/// A prefix as the message library has it.
pub(super) fn entry(prefix: IpNet) -> NlriEntry {
    use rustbgpd_wire::{Ipv4Prefix, Ipv6Prefix};
    let prefix = match prefix {
        IpNet::V4(net) => Prefix::V4(Ipv4Prefix::new(net.network(), net.prefix_len())),
        IpNet::V6(net) => Prefix::V6(Ipv6Prefix::new(net.network(), net.prefix_len())),
    };
    NlriEntry { path_id: 0, prefix }
}

/// Routes as an attribute (RFC 4760, RFC 8950).
pub(super) fn reach(prefixes: &[IpNet], next_hop: IpAddr) -> Option<PathAttribute> {
    let family = super::Family::of(*prefixes.first()?);
    Some(PathAttribute::MpReachNlri(Box::new(MpReachNlri {
        afi: family.afi(),
        safi: Safi::Unicast,
        next_hop,
        link_local_next_hop: None,
        announced: prefixes.iter().copied().map(entry).collect(),
        flowspec_announced: Vec::new(),
        evpn_announced: Vec::new(),
        bgpls_announced: Vec::new(),
        vpn_announced: Vec::new(),
        labeled_announced: Vec::new(),
        rtc_announced: Vec::new(),
    })))
}

/// The end of routes as an attribute; without any, the End-of-RIB of a family.
pub(super) fn unreach(family: super::Family, prefixes: &[IpNet]) -> PathAttribute {
    PathAttribute::MpUnreachNlri(Box::new(MpUnreachNlri {
        afi: family.afi(),
        safi: Safi::Unicast,
        withdrawn: prefixes.iter().copied().map(entry).collect(),
        flowspec_withdrawn: Vec::new(),
        evpn_withdrawn: Vec::new(),
        bgpls_withdrawn: Vec::new(),
        vpn_withdrawn: Vec::new(),
        labeled_withdrawn: Vec::new(),
        rtc_withdrawn: Vec::new(),
    }))
}
