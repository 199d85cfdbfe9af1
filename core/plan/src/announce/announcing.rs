//! What one node announces, held over all Services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use portolan_model::workloads::{BalancedService, ObjectKey};

use super::account::addresses;
use super::{About, Account, Ground, Route, Subject, account};

/// The nodes that may answer for an address, and on which links each of them would.
pub type Candidates = BTreeMap<Arc<str>, BTreeSet<Arc<str>>>;
/// A route, by the peer that is told and what it is told.
pub type RouteKey = (ObjectKey, IpNet);

/// What may be otherwise than before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    /// Addresses that may be answered for by others.
    pub addresses: BTreeSet<IpAddr>,
    /// Routes that may be told otherwise, or no longer.
    pub routes: BTreeSet<RouteKey>,
}

impl Touched {
    /// Takes in what else was touched.
    pub fn extend(&mut self, other: Self) {
        self.addresses.extend(other.addresses);
        self.routes.extend(other.routes);
    }
}

/// What one Service has this node say of one address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Saying {
    candidates: Candidates,
    routes: BTreeMap<RouteKey, Route>,
    /// What some node announces because of which announcement of our own.
    by: Vec<(Arc<About>, IpNet)>,
}

/// What one node announces. It is made of Services' accounts, one by one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcing {
    node: Arc<str>,
    ground: Ground,
    said: BTreeMap<ObjectKey, BTreeMap<IpAddr, Saying>>,
    /// The Services that have something to say of an address.
    by_address: BTreeMap<IpAddr, BTreeSet<ObjectKey>>,
    /// What there is to say of a prefix, by whose it is.
    by_route: BTreeMap<RouteKey, BTreeMap<(ObjectKey, IpAddr), Route>>,
    /// What some node announces because of an announcement of our
    /// own, and for how many Services.
    by_sayer: BTreeMap<Arc<About>, BTreeMap<IpNet, usize>>,
}

impl Announcing {
    /// A node that has nothing to say.
    pub fn new(node: &str) -> Self {
        Self {
            node: node.into(),
            ground: Ground::default(),
            said: BTreeMap::new(),
            by_address: BTreeMap::new(),
            by_route: BTreeMap::new(),
            by_sayer: BTreeMap::new(),
        }
    }

    /// What all Services have in common.
    pub fn ground(&self) -> &Ground {
        &self.ground
    }

    /// What all Services have in common is so now. True if that is otherwise than
    /// before: every Service is to be looked at again.
    pub fn set_ground(&mut self, ground: Ground) -> bool {
        let other = self.ground != ground;
        self.ground = ground;
        other
    }

    /// Looks at a Service. `ready_on` are the nodes of its ready endpoints.
    pub fn converge(&mut self, service: &BalancedService, ready_on: &BTreeSet<&str>) -> Touched {
        let mut said = BTreeMap::new();
        for address in addresses(service) {
            let account = account(&self.ground, service, *address, ready_on);
            let saying = self.saying(account);
            if saying != Saying::default() {
                said.insert(*address, saying);
            }
        }
        self.replace(&service.meta.key, said)
    }

    /// A Service is gone.
    pub fn forget(&mut self, key: &ObjectKey) -> Touched {
        self.replace(key, BTreeMap::new())
    }

    /// What follows from an account for this node.
    fn saying(&self, account: Account) -> Saying {
        let mut saying = Saying::default();
        for on in account.l2 {
            if let Some(by) = &on.by
                && by.namespace.is_empty()
                && on.nodes.values().any(Result::is_ok)
            {
                let by = self.sayer((Subject::L2Announcement, by.clone()));
                saying.by.push((by, account.address.into()));
            }
            for (node, links) in on.nodes {
                if let Ok(links) = links {
                    saying.candidates.entry(node).or_default().extend(links);
                }
            }
        }
        for mut to in account.bgp {
            if to.by.namespace.is_empty() && to.nodes.values().any(Result::is_ok) {
                let by = self.sayer((Subject::BgpAnnouncement, to.by.clone()));
                saying.by.push((by, to.prefix));
            }
            let Some(Ok(peers)) = to.nodes.remove(&self.node) else {
                continue;
            };
            for peer in peers {
                let route = saying.routes.entry((peer, to.prefix)).or_default();
                *route = route.and(&to.route);
            }
        }
        saying
    }

    /// The same name is kept once, however many addresses it covers.
    fn sayer(&self, about: About) -> Arc<About> {
        let known = self.by_sayer.get_key_value(&about);
        known.map_or_else(|| Arc::new(about), |(known, _)| Arc::clone(known))
    }

    /// Counts what a saying covers, once more or once less.
    fn count(&mut self, saying: &Saying, more: bool) {
        for (by, prefix) in &saying.by {
            if more {
                let covered = self.by_sayer.entry(Arc::clone(by)).or_default();
                *covered.entry(*prefix).or_default() += 1;
                continue;
            }
            take(&mut self.by_sayer, by, |covered| {
                take(covered, prefix, |services| {
                    *services = services.saturating_sub(1);
                    *services == 0
                });
                covered.is_empty()
            });
        }
    }

    /// How many addresses or prefixes some node announces because of an
    /// announcement of our own.
    pub fn covers(&self, about: &About) -> usize {
        self.by_sayer.get(about).map_or(0, BTreeMap::len)
    }

    fn replace(&mut self, key: &ObjectKey, said: BTreeMap<IpAddr, Saying>) -> Touched {
        let mut touched = Touched::default();
        let before = self.said.remove(key).unwrap_or_default();
        for (address, old) in &before {
            let new = said.get(address);
            if new == Some(old) {
                continue;
            }
            self.count(old, false);
            if new.is_none() {
                take(&mut self.by_address, address, |keys| {
                    keys.remove(key);
                    keys.is_empty()
                });
            }
            if new.is_none_or(|new| new.candidates != old.candidates) {
                touched.addresses.insert(*address);
            }
            for route in old.routes.keys() {
                take(&mut self.by_route, route, |of| {
                    of.remove(&(key.clone(), *address));
                    of.is_empty()
                });
                touched.routes.insert(route.clone());
            }
        }
        for (address, new) in &said {
            let old = before.get(address);
            if old == Some(new) {
                continue;
            }
            self.count(new, true);
            let keys = self.by_address.entry(*address).or_default();
            keys.insert(key.clone());
            if old.is_none_or(|old| new.candidates != old.candidates) {
                touched.addresses.insert(*address);
            }
            for (route, said) in &new.routes {
                let of = self.by_route.entry(route.clone()).or_default();
                of.insert((key.clone(), *address), said.clone());
                touched.routes.insert(route.clone());
            }
        }
        if !said.is_empty() {
            self.said.insert(key.clone(), said);
        }
        touched
    }

    /// The nodes that may answer for an address; nobody for one that is not announced
    /// on links. Services that share it have one answerer: a node that may answer for
    /// all of them if there is one, else one that may for some (L8).
    pub fn candidates(&self, address: IpAddr) -> Candidates {
        let keys = self.by_address.get(&address).into_iter().flatten();
        let said = keys.filter_map(|key| self.said.get(key)?.get(&address));
        let mut said = said.map(|saying| &saying.candidates);
        let mut said = said.by_ref().filter(|nodes| !nodes.is_empty());
        let Some(first) = said.next() else {
            return Candidates::new();
        };
        let (mut all, mut some) = (first.clone(), first.clone());
        for next in said {
            all.retain(|node, _| next.contains_key(node));
            for (node, links) in next {
                some.entry(Arc::clone(node))
                    .or_default()
                    .extend(links.iter().cloned());
            }
        }
        some.retain(|node, _| all.is_empty() || all.contains_key(node));
        some
    }

    /// What a peer is told of a prefix; none if it is told nothing.
    pub fn route(&self, key: &RouteKey) -> Option<Route> {
        let of = self.by_route.get(key)?;
        let said = of.values();
        Some(said.fold(Route::default(), |all, one| all.and(one)))
    }

    /// All routes that this node tells.
    pub fn routes(&self) -> impl Iterator<Item = &RouteKey> {
        self.by_route.keys()
    }

    /// The addresses that are announced in any way.
    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.by_address.keys().copied()
    }

    /// The Services that have an address announced.
    pub fn services(&self, address: IpAddr) -> impl Iterator<Item = &ObjectKey> {
        self.by_address.get(&address).into_iter().flatten()
    }
}

/// Changes the value of a key, and takes it away if that leaves nothing.
fn take<K: Ord, V>(map: &mut BTreeMap<K, V>, key: &K, change: impl FnOnce(&mut V) -> bool) {
    if map.get_mut(key).is_some_and(change) {
        map.remove(key);
    }
}
