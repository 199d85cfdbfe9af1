//! NetworkPolicies on one node: which of its pods are isolated, and from whom.
//!
//! What the policies of one tier that are about a pod say together is a [`PolicySet`];
//! pods that the same policies are about share one. A set's classes of ports lead to
//! [`Peers`], which sets share as well. Both are named by their content and never change
//! but in the pods among the peers, so that a changed policy becomes another set beside
//! the old one, and a pod goes from one to the other at once.
//!
//! A connection is judged tier by tier until one accepts or denies it (N19):
//!
//! ```text
//!  Admin ──pass──► NetworkPolicies ──none isolates the pod──► Baseline ──► let through
//! ```
//!
//! A pod finds the terms that are about it by its labels, so a change costs what it
//! concerns, not policies times pods.

mod established;
mod id;
mod ladder;
mod peers;
mod ranges;
mod set;
mod term;
mod unknown;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use portolan_model::{
    Action, Cluster, ClusterPolicy, Direction, Dirty, Labels, NamedPort, Pod, PodKey, PolicyKey,
    Protocol, Text, Tier,
};

use crate::view::{DNS_PORT, NodeView};

pub use established::{Connection, Review, Turn};
pub use id::{PeersId, SetId};
pub use ladder::{Level, Way};
pub use peers::{Door, Frame, Peers, Step, TouchedPeers};
pub use set::{ByName, Class, Families, PolicySet, Ports, Source};
pub use term::{Term, Within};
pub use unknown::Closed;

use peers::{Known, Terms};
use set::{Governed, compile};

/// The namespace and the label of those who answer for names in every cluster (N21).
const DNS_NAMESPACE: &str = "kube-system";
const DNS_LABEL: (&str, &str) = ("k8s-app", "kube-dns");

/// What policies say on one node.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Policies {
    /// Addresses of this node's pods that policies are about.
    pub isolated: OrdMap<IpAddr, Isolation>,
    sets: OrdMap<SetId, Held>,
    terms: Terms,
    /// Pods as the terms have them.
    known: Known,
    /// This node's pods by address, and what governs them.
    local: OrdMap<(IpAddr, PodKey), Isolation>,
    /// The node's own pods, with the addresses that they had.
    own: OrdMap<PodKey, (Vec<IpAddr>, Isolation)>,
    closed: Option<Closed>,
    /// The bit of connections' marks by which they are cut (N11).
    pub cut_bit: Option<u32>,
}

/// What governs a pod; nothing where no policy is about it (N1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Isolation {
    /// By direction and tier, each as they come.
    sets: [[Option<SetId>; 3]; 2],
}

impl Isolation {
    /// What governs it in a direction and tier.
    pub fn set(&self, direction: Direction, tier: Tier) -> Option<SetId> {
        let mut all = self.iter();
        let own = all.find(|(own, at, _)| (*own, *at) == (direction, tier));
        own.map(|(_, _, id)| id)
    }

    /// All that governs it, and where.
    pub fn iter(&self) -> impl Iterator<Item = (Direction, Tier, SetId)> {
        let directions = Direction::BOTH.into_iter().zip(self.sets);
        directions.flat_map(|(direction, sets)| {
            let sets = Tier::ALL.into_iter().zip(sets);
            sets.filter_map(move |(tier, set)| Some((direction, tier, set?)))
        })
    }

    /// What `set` makes of each place.
    fn by(mut set: impl FnMut(Direction, Tier) -> Option<SetId>) -> Self {
        Self {
            sets: Direction::BOTH.map(|direction| Tier::ALL.map(|tier| set(direction, tier))),
        }
    }

    /// The same, and what another has where it has nothing.
    fn or(self, other: &Self) -> Self {
        Self::by(|direction, tier| {
            let own = self.set(direction, tier);
            own.or_else(|| other.set(direction, tier))
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Held {
    set: Arc<PolicySet>,
    uses: u32,
}

/// What a round changed, with what was before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TouchedPolicies {
    /// How addresses were isolated.
    pub isolated: BTreeMap<IpAddr, Option<Isolation>>,
    /// Sets that came or went.
    pub sets: BTreeMap<SetId, Option<Arc<PolicySet>>>,
    /// Peers.
    pub peers: TouchedPeers,
    /// Whether a pod of this node was known to have an address.
    pub here: BTreeMap<IpAddr, bool>,
    /// What was closed, if that changed.
    pub closed: Option<Option<Closed>>,
    /// The bit by which connections were cut, if that changed.
    pub cut_bit: Option<Option<u32>>,
}

/// Reading.
impl Policies {
    /// The sets in use.
    pub fn sets(&self) -> impl ExactSizeIterator<Item = (&SetId, &Arc<PolicySet>)> {
        self.sets.iter().map(|(id, held)| (id, &held.set))
    }

    /// One set.
    pub fn set(&self, id: SetId) -> Option<&Arc<PolicySet>> {
        self.sets.get(&id).map(|held| &held.set)
    }

    /// The peers in use.
    pub fn peers(&self) -> &OrdMap<PeersId, Peers> {
        &self.terms.peers
    }

    /// Doors that sets treat by name, each with the first level at which it is there.
    pub fn doors(&self) -> impl Iterator<Item = (SetId, Door, Level)> {
        self.terms.doors()
    }

    /// The first level at which a set treats a door by name.
    pub fn door(&self, id: SetId, door: Door) -> Option<Level> {
        self.terms.door(id, door)
    }

    /// Whether a pod is known to be on this node with these addresses among its own, so
    /// that what governs it is said here.
    pub fn governs(&self, pod: &PodKey, addresses: &[IpAddr]) -> bool {
        let own = self.own.get(pod).map(|(own, _)| own);
        own.is_some_and(|own| addresses.iter().all(|address| own.contains(address)))
    }

    /// Whether this node lets a new connection of a pod through in one direction:
    /// `own` is the pod, `peer` the other end, `to` the destination's protocol and
    /// port, none for protocols without ports.
    pub fn allows(
        &self,
        direction: Direction,
        ends: (IpAddr, IpAddr),
        to: Option<(Protocol, u16)>,
    ) -> bool {
        let judged = self.judge(direction, ends, to);
        judged.is_none_or(|(_, action)| action != Action::Deny)
    }

    /// Which tier decides about such a connection, and what: [`Action::Accept`] or
    /// [`Action::Deny`]. None does where it is let through because nobody minds (N1), or
    /// because a pod speaks to itself (N12).
    pub fn judge(
        &self,
        direction: Direction,
        (own, peer): (IpAddr, IpAddr),
        to: Option<(Protocol, u16)>,
    ) -> Option<(Tier, Action)> {
        let isolation = self.isolated.get(&own).filter(|_| own != peer)?;
        let mut tiers = Tier::ALL.into_iter().filter_map(|tier| {
            let id = isolation.set(direction, tier)?;
            Some((tier, self.action(id, peer, to)?))
        });
        tiers.find(|(_, action)| *action != Action::Pass)
    }

    /// What a set says about a peer.
    fn action(&self, id: SetId, peer: IpAddr, to: Option<(Protocol, u16)>) -> Option<Action> {
        let ports = self.set(id)?.at(to);
        let level = to.and_then(|(protocol, port)| self.door(id, (peer, protocol, port)));
        let door = level.and_then(|level| ports.doors.get(&level));
        match door.unwrap_or(&ports.way) {
            Way::All(action) => Some(*action),
            Way::By(peers) => Some(self.terms.peers.get(peers)?.action(peer)),
        }
    }
}

/// Writing.
impl Policies {
    /// Decides again what is dirty. `before` is the view of the last time.
    pub(crate) fn again(
        &mut self,
        cluster: &Cluster,
        (before, view): (Option<&NodeView>, &NodeView),
        dirty: &Dirty,
    ) -> TouchedPolicies {
        let mut touched = TouchedPolicies::default();
        let dns = dns(view);
        let mut moved = dirty.selected.clone();
        for namespace in &dirty.namespaces {
            let here = cluster.pods_of(namespace).map(|pod| pod.key.clone());
            moved.extend(here);
            if **namespace == *DNS_NAMESPACE {
                moved.insert(dns.key.clone());
            }
        }
        let elsewhere = before.is_some_and(|before| before.node != view.node);
        let answers = (!dns.addresses.is_empty()).then_some(&dns);
        if self.known.get(&dns.key).map(|known| &**known) != answers {
            moved.insert(dns.key.clone());
        }
        for key in &moved {
            self.move_peer(cluster, key, &dns, &mut touched);
        }
        let mut subjects = dirty.selected.clone();
        if elsewhere {
            subjects.extend(cluster.pods().map(|pod| pod.key.clone()));
            subjects.extend(self.own.keys().cloned());
        }
        for policy in &dirty.policies {
            subjects.extend(self.concerned(cluster, policy));
        }
        for name in &dirty.cluster_policies {
            subjects.extend(self.concerned_by_cluster(cluster, name));
        }
        // By their namespaces' labels only ClusterNetworkPolicies find whom they govern.
        let mut clusterwide = Tier::ALL
            .into_iter()
            .flat_map(|tier| cluster.cluster_policies(tier));
        if clusterwide.next().is_some() {
            for namespace in &dirty.namespaces {
                subjects.extend(self.own_in(namespace).map(|(key, _)| key.clone()));
            }
        }
        for key in &subjects {
            self.govern(cluster, view, key, &mut touched);
        }
        self.look_again(cluster, view, &mut touched);
        self.settle(touched)
    }

    /// This node's pods in a namespace.
    fn own_in(&self, namespace: &Text) -> impl Iterator<Item = (&PodKey, &Isolation)> {
        let inside = namespace.clone();
        let here = self.own.range(PodKey::first_of(namespace)..);
        let here = here.take_while(move |(key, _)| key.namespace == inside);
        here.map(|(key, (_, isolation))| (key, isolation))
    }

    /// Whether what governs a pod follows from a policy.
    fn follows(&self, isolation: &Isolation, source: &Source) -> bool {
        let mut sets = isolation.iter().filter_map(|(_, _, id)| self.set(id));
        sets.any(|set| match source {
            // Those of a set are in the order of their names.
            Source::Policy(_) => set.policies.binary_search(source).is_ok(),
            Source::Cluster(_) => set.policies.contains(source),
        })
    }

    /// This node's pods whom a policy governs, or would now.
    fn concerned(&self, cluster: &Cluster, policy: &PolicyKey) -> Vec<PodKey> {
        let selector = cluster.policy(policy).map(|policy| &policy.pods);
        let source = Source::Policy(policy.clone());
        let selects = |key: &PodKey| {
            let pod = cluster.pod(key).zip(selector);
            pod.is_some_and(|(pod, selector)| selector.matches(&pod.labels))
        };
        let here = self.own_in(&policy.namespace);
        here.filter(|(key, isolation)| self.follows(isolation, &source) || selects(key))
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// The same for a ClusterNetworkPolicy.
    fn concerned_by_cluster(&self, cluster: &Cluster, name: &Text) -> Vec<PodKey> {
        let policy = cluster.cluster_policy(name);
        let source = Source::Cluster(name.clone());
        let selects = |key: &PodKey| {
            let pod = cluster.pod(key).zip(policy);
            pod.is_some_and(|(pod, policy)| is_subject(cluster, policy, pod))
        };
        let here = self.own.iter();
        here.filter(|(key, (_, isolation))| self.follows(isolation, &source) || selects(key))
            .map(|(key, _)| key.clone())
            .collect()
    }

    fn move_peer(
        &mut self,
        cluster: &Cluster,
        key: &PodKey,
        dns: &Pod,
        touched: &mut TouchedPolicies,
    ) {
        let after = if *key == dns.key {
            (!dns.addresses.is_empty()).then(|| Arc::new(dns.clone()))
        } else {
            cluster.pod(key).filter(|pod| !pod.host_network).cloned()
        };
        let before = match &after {
            Some(after) => self.known.insert(key.clone(), Arc::clone(after)),
            None => self.known.remove(key),
        };
        let pods = (before.as_deref(), after.as_deref());
        self.terms.moved(cluster, pods, &mut touched.peers);
    }

    /// Looks again at what governs a pod.
    fn govern(
        &mut self,
        cluster: &Cluster,
        view: &NodeView,
        key: &PodKey,
        touched: &mut TouchedPolicies,
    ) {
        let here = |pod: &&Arc<Pod>| !pod.host_network && pod.node.as_ref() == Some(&view.node);
        let pod = cluster.pod(key).filter(here);
        let mut isolation = Isolation::default();
        if let Some(pod) = pod {
            let mut isolated = false;
            // Tier by tier: NetworkPolicies have the last word about the pods that they
            // isolate (N19).
            isolation = Isolation::by(|direction, tier| {
                let governed = match tier {
                    Tier::NetworkPolicy => by_policies(cluster, pod, direction),
                    Tier::Baseline if isolated => None,
                    Tier::Admin | Tier::Baseline => by_cluster(cluster, pod, (direction, tier)),
                };
                isolated = tier == Tier::NetworkPolicy && governed.is_some();
                Some(self.take(cluster, &governed?, touched))
            });
        }
        let after = pod.map(|pod| (pod.addresses.clone(), isolation));
        let before = match after.clone() {
            Some(after) => self.own.insert(key.clone(), after),
            None => self.own.remove(key),
        };
        let mut addresses = BTreeSet::new();
        for address in before.iter().chain(&after).flat_map(|(own, _)| own) {
            let here = self.is_here(*address);
            touched.here.entry(*address).or_insert(here);
        }
        if let Some((old, isolation)) = &before {
            for address in old {
                self.local.remove(&(*address, key.clone()));
                addresses.insert(*address);
            }
            for (_, _, id) in isolation.iter() {
                self.leave(id, touched);
            }
        }
        if let Some((new, isolation)) = &after {
            for address in new {
                self.local.insert((*address, key.clone()), *isolation);
                addresses.insert(*address);
            }
        }
        for address in addresses {
            self.place(address, touched);
        }
    }

    /// An address is its pod's. While two pods have it, one of which is about to go, it
    /// is closed if either is: by the set of the first by name.
    fn place(&mut self, address: IpAddr, touched: &mut TouchedPolicies) {
        let from = (address, PodKey::new("", ""));
        let here = self.local.range(from..);
        let here = here.take_while(|((own, _), _)| *own == address);
        let mut isolation = Isolation::default();
        for (_, own) in here {
            isolation = isolation.or(own);
        }
        let before = if isolation == Isolation::default() {
            self.isolated.remove(&address)
        } else {
            self.isolated.insert(address, isolation)
        };
        touched.isolated.entry(address).or_insert(before);
    }

    /// Uses the set that follows from these rules.
    fn take(
        &mut self,
        cluster: &Cluster,
        governed: &Governed,
        touched: &mut TouchedPolicies,
    ) -> SetId {
        let id = SetId::of(governed);
        if let Some(held) = self.sets.get_mut(&id) {
            held.uses += 1;
            return id;
        }
        touched.sets.entry(id).or_insert(None);
        let compiled = compile(governed);
        let use_of = (compiled.direction, compiled.families);
        let set = compiled.with_names(|ladder| {
            let use_of = (use_of, &ladder);
            self.terms
                .take_peers(cluster, use_of, &self.known, &mut touched.peers)
        });
        for by_name in &set.named {
            self.terms
                .take_name(cluster, (id, by_name), &self.known, &mut touched.peers);
        }
        let held = Held {
            set: Arc::new(set),
            uses: 1,
        };
        self.sets.insert(id, held);
        id
    }

    /// Uses a set no longer.
    fn leave(&mut self, id: SetId, touched: &mut TouchedPolicies) {
        let Some(held) = self.sets.get_mut(&id) else {
            return;
        };
        held.uses = held.uses.saturating_sub(1);
        if held.uses > 0 {
            return;
        }
        let set = Arc::clone(&held.set);
        self.sets.remove(&id);
        for by_name in &set.named {
            self.terms
                .leave_name((id, by_name), &self.known, &mut touched.peers);
        }
        for way in set.ways() {
            if let Way::By(peers) = way {
                self.terms.leave_peers(*peers, &mut touched.peers);
            }
        }
        touched.sets.entry(id).or_insert(Some(set));
    }

    /// Keeps in the report only what is different from before.
    fn settle(&self, mut touched: TouchedPolicies) -> TouchedPolicies {
        touched
            .isolated
            .retain(|address, before| self.isolated.get(address) != before.as_ref());
        touched
            .sets
            .retain(|id, before| before.is_some() != self.sets.contains_key(id));
        touched
            .here
            .retain(|address, before| *before != self.is_here(*address));
        let TouchedPeers { peers, pods, doors } = &mut touched.peers;
        peers.retain(|id, before| before.is_some() != self.terms.peers.contains_key(id));
        pods.retain(|(id, address), before| {
            let own = self.terms.peers.get(id);
            *before != own.and_then(|own| own.step(*address))
        });
        doors.retain(|(id, door), before| *before != self.terms.door(*id, *door));
        touched
    }
}

/// What NetworkPolicies say about a pod; none if none isolates it in the direction (N1).
fn by_policies(cluster: &Cluster, pod: &Pod, direction: Direction) -> Option<Governed> {
    let policies = cluster.policies_of(&pod.key.namespace);
    let selecting = policies.filter(|policy| policy.pods.matches(&pod.labels));
    let isolating = selecting.filter_map(|policy| Some((&**policy, policy.rules(direction)?)));
    let mut isolating = isolating.peekable();
    isolating.peek()?;
    Some(Governed::by_policies(direction, isolating, pod))
}

/// What ClusterNetworkPolicies of a tier say about a pod; none if none speaks of it.
fn by_cluster(
    cluster: &Cluster,
    pod: &Pod,
    (direction, tier): (Direction, Tier),
) -> Option<Governed> {
    let policies = cluster.cluster_policies(tier).map(|policy| &**policy);
    let speaking = policies.filter(|policy| !policy.rules(direction).is_empty());
    let about = speaking.filter(|policy| is_subject(cluster, policy, pod));
    let mut about = about.peekable();
    about.peek()?;
    Some(Governed::by_cluster((tier, direction), about, pod))
}

/// Whether a ClusterNetworkPolicy is about a pod.
fn is_subject(cluster: &Cluster, policy: &ClusterPolicy, pod: &Pod) -> bool {
    let namespace = cluster.labels_of(&pod.key.namespace);
    policy.subject.selects(namespace, &pod.labels)
}

/// The name of who answers for names: no pod has an empty one.
fn dns_key() -> PodKey {
    PodKey::new(DNS_NAMESPACE, "")
}

/// Who answers for names on this node, as the pod that policies know (N21). It has no
/// addresses where nobody does.
pub fn dns(view: &NodeView) -> Pod {
    let port = |name: &str, protocol| NamedPort {
        name: name.into(),
        protocol,
        port: DNS_PORT,
    };
    Pod {
        addresses: view.dns_addresses.clone(),
        labels: Labels::from_iter([DNS_LABEL]),
        ports: vec![port("dns", Protocol::Udp), port("dns-tcp", Protocol::Tcp)],
        ..Pod::at(dns_key(), None)
    }
}
