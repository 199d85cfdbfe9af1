//! What one node announces, held over all Services.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use portolan_model::workloads::{BalancedService, ObjectKey};

use super::account::addresses;
use super::shared::Shared;
use super::{About, Account, Ground, Route, Subject, account};

/// The nodes that may answer for an address, and on which links each of them would.
pub type Candidates = BTreeMap<Arc<str>, BTreeSet<Arc<str>>>;
/// A route, by the peer that is told and what it is told.
pub type RouteKey = (Arc<ObjectKey>, IpNet);

/// What there is to say, in order, each with how many say it.
type Counted = Box<[(Arc<Route>, usize)]>;

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

/// What one Service has this node say of one address. Of most addresses the same is
/// said, so it is held once.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Saying {
    address: IpAddr,
    candidates: Arc<Candidates>,
    /// Ordered by their keys.
    routes: Box<[(RouteKey, Arc<Route>)]>,
    /// What some node announces because of which announcement of our own.
    by: Box<[(Arc<About>, IpNet)]>,
}

impl Saying {
    /// Whether nothing is said, by no node.
    fn is_empty(&self) -> bool {
        self.candidates.is_empty() && self.routes.is_empty() && self.by.is_empty()
    }
}

/// What one node announces. It is made of Services' accounts, one by one.
///
/// Services are many and each says little: lists of one are boxes, since a map of one
/// takes as much room as one of eleven.
#[derive(Clone, Debug)]
pub struct Announcing {
    node: Arc<str>,
    ground: Ground,
    /// What Services say, ordered by address.
    said: BTreeMap<Arc<ObjectKey>, Box<[Saying]>>,
    /// The Services that have something to say of an address, in order.
    by_address: BTreeMap<IpAddr, Box<[Arc<ObjectKey>]>>,
    /// What there is to say of a prefix: of one in place of many addresses, all may say
    /// the same.
    by_route: BTreeMap<RouteKey, Counted>,
    /// What some node announces because of an announcement of our
    /// own, and for how many Services.
    by_sayer: BTreeMap<Arc<About>, BTreeMap<IpNet, usize>>,
    candidates: Shared<Candidates>,
    routes: Shared<Route>,
    peers: Shared<ObjectKey>,
}

/// What was held for others before says nothing.
impl PartialEq for Announcing {
    fn eq(&self, other: &Self) -> bool {
        self.node == other.node
            && self.ground == other.ground
            && self.said == other.said
            && self.by_address == other.by_address
            && self.by_route == other.by_route
            && self.by_sayer == other.by_sayer
    }
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
            candidates: Shared::default(),
            routes: Shared::default(),
            peers: Shared::default(),
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
        let mut said = Vec::new();
        // An address that is written twice is one.
        let addresses: BTreeSet<IpAddr> = addresses(service).iter().copied().collect();
        for address in addresses {
            let account = account(&self.ground, service, address, ready_on);
            let saying = self.saying(account);
            if !saying.is_empty() {
                said.push(saying);
            }
        }
        self.replace(&service.meta.key, said.into())
    }

    /// A Service is gone.
    pub fn forget(&mut self, key: &ObjectKey) -> Touched {
        self.replace(key, Box::default())
    }

    /// What follows from an account for this node.
    fn saying(&mut self, account: Account) -> Saying {
        let mut candidates = Candidates::new();
        let mut routes: BTreeMap<RouteKey, Route> = BTreeMap::new();
        let mut covered = Vec::new();
        for on in account.l2 {
            if let Some(by) = &on.by
                && by.namespace.is_empty()
                && on.nodes.values().any(Result::is_ok)
            {
                let by = self.sayer((Subject::L2Announcement, by.clone()));
                covered.push((by, account.address.into()));
            }
            for (node, links) in on.nodes {
                if let Ok(links) = links {
                    candidates.entry(node).or_default().extend(links);
                }
            }
        }
        for mut to in account.bgp {
            if to.by.namespace.is_empty() && to.nodes.values().any(Result::is_ok) {
                let by = self.sayer((Subject::BgpAnnouncement, to.by.clone()));
                covered.push((by, to.prefix));
            }
            let Some(Ok(peers)) = to.nodes.remove(&self.node) else {
                continue;
            };
            for peer in peers {
                let key = (self.peers.share(peer), to.prefix);
                let route = routes.entry(key).or_default();
                *route = route.and(&to.route);
            }
        }
        let routes = routes.into_iter();
        Saying {
            address: account.address,
            candidates: self.candidates.share(candidates),
            routes: routes
                .map(|(key, route)| (key, self.routes.share(route)))
                .collect(),
            by: covered.into(),
        }
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

    fn replace(&mut self, key: &ObjectKey, said: Box<[Saying]>) -> Touched {
        let mut touched = Touched::default();
        let (key, before) = self.said.remove_entry(key).unwrap_or_else(|| {
            let nothing = Box::default();
            (Arc::new(key.clone()), nothing)
        });
        for old in &before {
            let new = of(&said, old.address);
            if new == Some(old) {
                continue;
            }
            self.count(old, false);
            if new.is_none() {
                leave(&mut self.by_address, &old.address, &key);
            }
            if new.is_none_or(|new| new.candidates != old.candidates) {
                touched.addresses.insert(old.address);
            }
            for (key, route) in &old.routes {
                self.say_no_more(key, route);
                touched.routes.insert(key.clone());
            }
        }
        for new in &said {
            let old = of(&before, new.address);
            if old == Some(new) {
                continue;
            }
            self.count(new, true);
            enter(&mut self.by_address, new.address, Arc::clone(&key));
            if old.is_none_or(|old| new.candidates != old.candidates) {
                touched.addresses.insert(new.address);
            }
            for (key, route) in &new.routes {
                self.say(key, route);
                touched.routes.insert(key.clone());
            }
        }
        if !said.is_empty() {
            self.said.insert(key, said);
        }
        touched
    }

    /// One more says this of a prefix.
    fn say(&mut self, key: &RouteKey, route: &Arc<Route>) {
        let list = self.by_route.entry(key.clone()).or_default();
        match list.iter_mut().find(|(said, _)| said == route) {
            Some((_, count)) => *count += 1,
            None => {
                let mut routes = std::mem::take(list).into_vec();
                routes.push((Arc::clone(route), 1));
                routes.sort();
                *list = routes.into();
            }
        }
    }

    /// One less says this of a prefix.
    fn say_no_more(&mut self, key: &RouteKey, route: &Arc<Route>) {
        let Some(list) = self.by_route.get_mut(key) else {
            return;
        };
        if let Some((_, count)) = list.iter_mut().find(|(said, _)| said == route) {
            *count = count.saturating_sub(1);
        }
        if list.iter().all(|(_, count)| *count > 0) {
            return;
        }
        let mut routes = std::mem::take(list).into_vec();
        routes.retain(|(_, count)| *count > 0);
        *list = routes.into();
        if list.is_empty() {
            self.by_route.remove(key);
        }
    }

    fn saying_of(&self, key: &ObjectKey, address: IpAddr) -> Option<&Saying> {
        of(self.said.get(key)?, address)
    }

    /// The nodes that may answer for an address; nobody for one that is not announced
    /// on links. Services that share it have one answerer: a node that may answer for
    /// all of them if there is one, else one that may for some (L8).
    pub fn candidates(&self, address: IpAddr) -> Arc<Candidates> {
        let keys = self.by_address.get(&address).into_iter().flatten();
        let said = keys.filter_map(|key| self.saying_of(key, address));
        let said = said.map(|saying| &saying.candidates);
        let mut said = said.filter(|nodes| !nodes.is_empty());
        let Some(first) = said.next() else {
            return Arc::default();
        };
        let mut said = said.peekable();
        if said.peek().is_none() {
            return Arc::clone(first);
        }
        let (mut all, mut some) = (Candidates::clone(first), Candidates::clone(first));
        for next in said {
            all.retain(|node, _| next.contains_key(node));
            for (node, links) in next.iter() {
                some.entry(Arc::clone(node))
                    .or_default()
                    .extend(links.iter().cloned());
            }
        }
        some.retain(|node, _| all.is_empty() || all.contains_key(node));
        Arc::new(some)
    }

    /// What a peer is told of a prefix; none if it is told nothing.
    pub fn route(&self, key: &RouteKey) -> Option<Route> {
        let said = self.by_route.get(key)?.iter();
        Some(said.fold(Route::default(), |all, (one, _)| all.and(one)))
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
        let keys = self.by_address.get(&address).into_iter().flatten();
        keys.map(AsRef::as_ref)
    }
}

/// What is said of an address.
fn of(said: &[Saying], address: IpAddr) -> Option<&Saying> {
    let at = said.binary_search_by_key(&address, |saying| saying.address);
    at.ok().and_then(|at| said.get(at))
}

/// Puts a value into the list of a key, unless it is there.
fn enter<K: Ord, V: Ord>(map: &mut BTreeMap<K, Box<[V]>>, key: K, value: V) {
    let list = map.entry(key).or_default();
    if let Err(at) = list.binary_search(&value) {
        let mut values = std::mem::take(list).into_vec();
        values.insert(at, value);
        *list = values.into();
    }
}

/// Takes a value out of the list of a key, and the key away with the last one.
fn leave<K: Ord, V: Ord>(map: &mut BTreeMap<K, Box<[V]>>, key: &K, value: &V) {
    let Some(list) = map.get_mut(key) else { return };
    if let Ok(at) = list.binary_search(value) {
        let mut values = std::mem::take(list).into_vec();
        values.remove(at);
        *list = values.into();
    }
    if list.is_empty() {
        map.remove(key);
    }
}

/// Changes the value of a key, and takes it away if that leaves nothing.
fn take<K: Ord, V>(map: &mut BTreeMap<K, V>, key: &K, change: impl FnOnce(&mut V) -> bool) {
    if map.get_mut(key).is_some_and(change) {
        map.remove(key);
    }
}
