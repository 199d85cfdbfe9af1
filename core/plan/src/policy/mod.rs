//! NetworkPolicies on one node: which of its pods are isolated, and from whom.
//!
//! What the policies that select a pod allow together is a [`PolicySet`]; pods that
//! the same policies select share one. A set's classes of ports lead to [`Peers`],
//! which sets share as well. Both are named by their content and never change but in
//! the pods among the peers, so that a changed policy becomes another set beside the
//! old one, and a pod goes from one to the other at once.
//!
//! A pod finds the terms that are about it by its labels, so a change costs what it
//! concerns, not policies times pods.

mod established;
mod id;
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
    Cluster, Direction, Dirty, LabelSelector, Labels, NamedPort, Pod, PodKey, PolicyKey, Protocol,
};

use crate::view::{DNS_PORT, NodeView};

pub use established::{Connection, Review, Turn};
pub use id::{PeersId, SetId};
pub use peers::{Door, Frame, Peers, TouchedPeers};
pub use set::{Allowed, ByName, Class, Families, PolicySet};
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
    /// Addresses of this node's pods that are isolated.
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

/// What governs a pod; nothing in a direction in which no policy isolates it (N1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Isolation {
    /// What may come in.
    pub ingress: Option<SetId>,
    /// What may go out.
    pub egress: Option<SetId>,
}

impl Isolation {
    /// What governs it in a direction.
    pub fn set(&self, direction: Direction) -> Option<SetId> {
        match direction {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
        }
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

    /// Doors that sets open by name.
    pub fn doors(&self) -> impl Iterator<Item = &(SetId, Door)> {
        self.terms.doors.keys()
    }

    /// Whether a set opens a door.
    pub fn has_door(&self, id: SetId, door: Door) -> bool {
        self.terms.doors.contains_key(&(id, door))
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
        (own, peer): (IpAddr, IpAddr),
        to: Option<(Protocol, u16)>,
    ) -> bool {
        let isolation = self.isolated.get(&own);
        let Some(id) = isolation.and_then(|isolation| isolation.set(direction)) else {
            return true;
        };
        if own == peer {
            return true; // N12
        }
        let Some(set) = self.set(id) else { return true };
        let by_name = to.is_some_and(|(protocol, port)| self.has_door(id, (peer, protocol, port)));
        let class = to.and_then(|(protocol, port)| {
            let mut classes = set.classes.iter();
            classes.find(|class| {
                class.protocol == protocol && (class.first..=class.last).contains(&port)
            })
        });
        by_name
            || match class.map_or(&set.rest, |class| &class.allowed) {
                Allowed::Everybody => true,
                Allowed::Only(peers) => {
                    let peers = peers.and_then(|id| self.terms.peers.get(&id));
                    peers.is_some_and(|peers| peers.has(peer))
                }
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
        for key in &subjects {
            self.govern(cluster, view, key, &mut touched);
        }
        self.look_again(cluster, view, &mut touched);
        self.settle(touched)
    }

    /// This node's pods whom a policy governs, or would now.
    fn concerned(&self, cluster: &Cluster, policy: &PolicyKey) -> Vec<PodKey> {
        let here = self.own.range(PodKey::first_of(&policy.namespace)..);
        let here = here.take_while(|(key, _)| key.namespace == policy.namespace);
        let selector = cluster.policy(policy).map(|policy| &policy.pods);
        let governs = |id: SetId| {
            let set = self.set(id);
            set.is_some_and(|set| set.policies.binary_search(policy).is_ok())
        };
        here.filter(|(key, (_, isolation))| {
            let sets = Direction::BOTH.map(|direction| isolation.set(direction));
            let selects = |selector: &LabelSelector| {
                cluster
                    .pod(key)
                    .is_some_and(|pod| selector.matches(&pod.labels))
            };
            sets.into_iter().flatten().any(governs) || selector.is_some_and(selects)
        })
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
            isolation.ingress = self.take(cluster, pod, Direction::Ingress, touched);
            isolation.egress = self.take(cluster, pod, Direction::Egress, touched);
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
            for direction in Direction::BOTH {
                self.leave(isolation.set(direction), touched);
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
            isolation.ingress = isolation.ingress.or(own.ingress);
            isolation.egress = isolation.egress.or(own.egress);
        }
        let before = if isolation == Isolation::default() {
            self.isolated.remove(&address)
        } else {
            self.isolated.insert(address, isolation)
        };
        touched.isolated.entry(address).or_insert(before);
    }

    /// Uses the set that governs a pod in a direction; none if no policy selects it
    /// there (N1).
    fn take(
        &mut self,
        cluster: &Cluster,
        pod: &Pod,
        direction: Direction,
        touched: &mut TouchedPolicies,
    ) -> Option<SetId> {
        let policies = cluster.policies_of(&pod.key.namespace);
        let selecting = policies.filter(|policy| policy.pods.matches(&pod.labels));
        let mut isolating = selecting
            .filter_map(|policy| Some((&**policy, policy.rules(direction)?)))
            .peekable();
        isolating.peek()?;
        let governed = Governed::new(direction, isolating, pod);
        let id = SetId::of(&governed);
        if let Some(held) = self.sets.get_mut(&id) {
            held.uses += 1;
            return Some(id);
        }
        touched.sets.entry(id).or_insert(None);
        let compiled = compile(&governed);
        let use_of = (direction, compiled.families);
        let mut name = |allowed: Allowed<BTreeSet<Term>>| match allowed {
            Allowed::Everybody => Allowed::Everybody,
            Allowed::Only(terms) => Allowed::Only(self.terms.take_peers(
                cluster,
                (use_of, &terms),
                &self.known,
                &mut touched.peers,
            )),
        };
        let classes = compiled.classes.into_iter().map(|class| Class {
            protocol: class.protocol,
            first: class.first,
            last: class.last,
            allowed: name(class.allowed),
        });
        let classes = classes.collect();
        let set = PolicySet {
            direction,
            families: compiled.families,
            policies: compiled.policies,
            classes,
            rest: name(compiled.rest),
            named: compiled.named,
        };
        for by_name in &set.named {
            self.terms
                .take_name(cluster, (id, by_name), &self.known, &mut touched.peers);
        }
        let held = Held {
            set: Arc::new(set),
            uses: 1,
        };
        self.sets.insert(id, held);
        Some(id)
    }

    /// Uses a set no longer.
    fn leave(&mut self, id: Option<SetId>, touched: &mut TouchedPolicies) {
        let Some((id, held)) = id.and_then(|id| Some((id, self.sets.get_mut(&id)?))) else {
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
        for allowed in set
            .classes
            .iter()
            .map(|class| &class.allowed)
            .chain([&set.rest])
        {
            if let Allowed::Only(Some(peers)) = allowed {
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
            *before != own.is_some_and(|own| own.pods.contains_key(address))
        });
        doors.retain(|door, before| *before != self.terms.doors.contains_key(door));
        touched
    }
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
