//! Who announces an address for a Service, and why others do not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use portolan_model::workloads::{BalancedService, Community, ObjectKey, SpeakerLink};

use super::ground::{Answerers, Ground, Source, Standing, Tellers, is_usual};
use super::{Mute, Unsaid};
use crate::load_balancer::{NODES_CLASS, Unfit, is_ours};

/// The links on which each node may answer, or why it does not.
pub type Links = BTreeMap<Arc<str>, Result<BTreeSet<Arc<str>>, Mute>>;
/// The peers that each node tells, or why it does not.
pub type Told = BTreeMap<Arc<str>, Result<BTreeSet<ObjectKey>, Mute>>;

/// All that is to be said about one address of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// The address.
    pub address: IpAddr,
    /// The pool that it is of.
    pub pool: Option<ObjectKey>,
    /// Where it is answered for.
    pub l2: Vec<OnLinks>,
    /// Which routes lead to it.
    pub bgp: Vec<ToPeers>,
    /// Why nothing is said, where that is not because of the nodes.
    pub unsaid: Option<Unsaid>,
}

/// An address that is answered for on links, by one of the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OnLinks {
    /// The announcement that says so; none where nobody said anything.
    pub by: Option<ObjectKey>,
    /// The nodes.
    pub nodes: Links,
}

/// A route to an address that peers are told of, by each of the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToPeers {
    /// The announcement that says so.
    pub by: ObjectKey,
    /// What is told: the address, or a prefix that it is in.
    pub prefix: IpNet,
    /// What is said of it.
    pub route: Route,
    /// The nodes.
    pub nodes: Told,
}

/// What peers are told of a prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// LOCAL_PREF, for peers of the same AS.
    pub local_pref: Option<u32>,
    /// Communities, none of them a mere name.
    pub communities: BTreeSet<Community>,
}

impl Route {
    /// What is said of a prefix that several say something of: all communities, and the
    /// highest preference.
    #[must_use]
    pub fn and(&self, other: &Self) -> Self {
        Self {
            local_pref: self.local_pref.max(other.local_pref),
            communities: self
                .communities
                .union(&other.communities)
                .cloned()
                .collect(),
        }
    }
}

/// Says who announces an address of a Service. `ready_on` are the nodes of its ready
/// endpoints, which count with `externalTrafficPolicy: Local`: an endpoint that ends is
/// no longer ready, and still serves for a while.
pub fn account(
    ground: &Ground,
    service: &BalancedService,
    address: IpAddr,
    ready_on: &BTreeSet<&str>,
) -> Account {
    let mut account = Account {
        address,
        pool: None,
        l2: Vec::new(),
        bgp: Vec::new(),
        unsaid: None,
    };
    if service.class.as_deref() == Some(NODES_CLASS) || ground.sources.is_empty() {
        account.unsaid = Some(Unsaid::OfNodes);
        return account;
    }
    let Some(source) = ground.source(address) else {
        account.unsaid = Some(Unsaid::NotInPool);
        return account;
    };
    account.pool = Some(source.pool.meta.key.clone());
    let look = Look {
        ground,
        service,
        address,
        ready_on,
    };
    look.fill(source, &mut account);
    account
}

/// The addresses of a Service that are given by pools here.
pub(super) fn addresses(service: &BalancedService) -> &[IpAddr] {
    match is_ours(service) {
        true => &service.ingress,
        false => &[],
    }
}

struct Look<'a> {
    ground: &'a Ground,
    service: &'a BalancedService,
    address: IpAddr,
    ready_on: &'a BTreeSet<&'a str>,
}

impl Look<'_> {
    fn fill(&self, source: &Source, account: &mut Account) {
        let labels = &self.service.meta.labels;
        let l2 = source.l2.iter().filter_map(|at| self.ground.l2.get(*at));
        let bgp = source.bgp.iter().filter_map(|at| self.ground.bgp.get(*at));
        let mut others = Vec::new();
        for one in l2 {
            match one.of.scope.takes_service(labels) {
                true => account.l2.push(self.on_links(one)),
                false => others.push(one.of.meta.key.clone()),
            }
        }
        for one in bgp {
            match one.of.scope.takes_service(labels) {
                true => account.bgp.push(self.to_peers(one)),
                false => others.push(one.of.meta.key.clone()),
            }
        }
        if !account.l2.is_empty() || !account.bgp.is_empty() {
            return;
        }
        if !others.is_empty() {
            account.unsaid = Some(Unsaid::OtherServices(others));
        } else if source.pool.is_own() {
            account.l2.push(self.where_it_is_at_home());
        } else {
            account.unsaid = Some(Unsaid::NoAdvertisement(source.pool.meta.key.clone()));
        }
    }

    /// The links of a node that may announce this Service's addresses (L4).
    fn fit<'s>(&self, name: &str, standing: &'s Standing) -> Result<&'s [SpeakerLink], Mute> {
        let links = standing.speaks()?;
        if self.service.local && !self.ready_on.contains(name) {
            return Err(Mute::Unfit(Unfit::NoEndpoint));
        }
        Ok(links)
    }

    fn on_links(&self, one: &Answerers) -> OnLinks {
        let named = &one.of.interfaces;
        self.answer(Some(one.of.meta.key.clone()), |name, links| {
            if !one.nodes.contains(name) {
                return Err(Mute::NotSelected);
            }
            let used = links.iter().filter(|link| match named.is_empty() {
                true => is_usual(link),
                false => named.contains(&link.name),
            });
            some(used, Mute::NoInterface)
        })
    }

    /// Nobody said anything: where a subnet has the address in it.
    fn where_it_is_at_home(&self) -> OnLinks {
        self.answer(None, |_, links| {
            let used = links.iter().filter(|link| link.holds(self.address));
            some(used, Mute::NoSubnet)
        })
    }

    fn answer(
        &self,
        by: Option<ObjectKey>,
        links: impl Fn(&str, &[SpeakerLink]) -> Result<BTreeSet<Arc<str>>, Mute>,
    ) -> OnLinks {
        let nodes = self.ground.nodes.iter().map(|(name, standing)| {
            let fit = self.fit(name, standing);
            let on = fit.and_then(|all| links(name, all));
            (Arc::clone(name), on)
        });
        OnLinks {
            by,
            nodes: nodes.collect(),
        }
    }

    fn to_peers(&self, one: &Tellers) -> ToPeers {
        let nodes = self.ground.nodes.iter().map(|(name, standing)| {
            let peers = self.fit(name, standing).and_then(|_| {
                let peers = one.nodes.get(name).ok_or(Mute::NotSelected)?;
                let carries = |peer: &&ObjectKey| self.ground.carries(peer, self.address);
                let told: BTreeSet<ObjectKey> = peers.iter().filter(carries).cloned().collect();
                match (peers.is_empty(), told.is_empty()) {
                    (true, _) => Err(Mute::NoPeer),
                    (false, true) => Err(Mute::OtherFamily),
                    (false, false) => Ok(told),
                }
            });
            (Arc::clone(name), peers)
        });
        ToPeers {
            by: one.of.meta.key.clone(),
            prefix: prefix(self.address, one.of.lengths),
            route: Route {
                local_pref: one.of.local_pref,
                communities: one.communities.clone(),
            },
            nodes: nodes.collect(),
        }
    }
}

/// The names of links, or why there are none.
fn some<'a>(
    links: impl Iterator<Item = &'a SpeakerLink>,
    none: Mute,
) -> Result<BTreeSet<Arc<str>>, Mute> {
    let names: BTreeSet<Arc<str>> = links.map(|link| link.name.as_str().into()).collect();
    match names.is_empty() {
        true => Err(none),
        false => Ok(names),
    }
}

/// The prefix of an address, of the length for its family; a length that cannot be is
/// none.
fn prefix(address: IpAddr, [v4, v6]: [Option<u8>; 2]) -> IpNet {
    let whole = IpNet::from(address);
    let cut = match address {
        IpAddr::V4(address) => v4
            .and_then(|n| Ipv4Net::new(address, n).ok())
            .map(IpNet::V4),
        IpAddr::V6(address) => v6
            .and_then(|n| Ipv6Net::new(address, n).ok())
            .map(IpNet::V6),
    };
    cut.unwrap_or(whole).trunc()
}
