//! Terms in use with the pods that they are about, and who asked for them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use portolan_model::{Cluster, Direction, Family, Pod, PodKey, Protocol};

use super::dns_key;
use super::id::{PeersId, SetId, TermId};
use super::ranges::intervals;
use super::set::{ByName, Families};
use super::term::{Anchor, Term, anchors_of};
use crate::node::tally;

/// Peers that are allowed together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peers {
    /// Addresses of pods, each with how many terms are about it.
    pub pods: OrdMap<IpAddr, u32>,
    /// What is the same as long as they are there.
    pub frame: Arc<Frame>,
    terms: Arc<BTreeSet<TermId>>,
    /// How many classes and rests have it.
    uses: u32,
}

/// Peers without the pods among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// For which direction.
    pub direction: Direction,
    /// For pods with addresses of these families.
    pub families: Families,
    /// Addresses, whose pods need not be known: intervals by first and last address,
    /// which do not overlap, by family.
    pub ranges: [Vec<(IpAddr, IpAddr)>; 2],
}

impl Peers {
    /// Whether an address is one of them.
    pub fn has(&self, address: IpAddr) -> bool {
        let inside = |(first, last): &(IpAddr, IpAddr)| *first <= address && address <= *last;
        self.pods.contains_key(&address) || self.frame.ranges.iter().flatten().any(inside)
    }
}

/// The pods as terms have them.
pub(super) type Known = OrdMap<PodKey, Arc<Pod>>;

/// A port of a pod that a rule allows by its name.
pub type Door = (IpAddr, Protocol, u16);

/// A term in use.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Used {
    term: Arc<Term>,
    members: OrdSet<PodKey>,
    peers: OrdSet<PeersId>,
    /// Names of ports by which sets allow it.
    names: OrdSet<(SetId, ByName)>,
}

/// All terms in use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Terms {
    used: OrdMap<TermId, Used>,
    anchored: OrdSet<(Anchor, TermId)>,
    pub(super) peers: OrdMap<PeersId, Peers>,
    /// What sets allow by name, each with how many pods and rules lead to it.
    pub(super) doors: OrdMap<(SetId, Door), u32>,
}

/// What came and went among peers, with what was before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TouchedPeers {
    /// Peers that came or went.
    pub peers: BTreeMap<PeersId, Option<Arc<Frame>>>,
    /// Whether an address was among the peers.
    pub pods: BTreeMap<(PeersId, IpAddr), bool>,
    /// Whether a set had the door.
    pub doors: BTreeMap<(SetId, Door), bool>,
}

impl Terms {
    /// A pod came, changed or went: `before` and `after` are as policies saw it
    /// (not at all, where it is its node to them).
    pub(super) fn moved(
        &mut self,
        cluster: &Cluster,
        (before, after): (Option<&Pod>, Option<&Pod>),
        touched: &mut TouchedPeers,
    ) {
        let anchors = [before, after].into_iter().flatten();
        let anchors = anchors.flat_map(|pod| anchors_of(&pod.key.namespace, &pod.labels));
        let ids: BTreeSet<TermId> = anchors.flat_map(|anchor| self.at(&anchor)).collect();
        for id in ids {
            let Some(used) = self.used.get(&id) else {
                continue;
            };
            let was = before.filter(|pod| used.members.contains(&pod.key));
            let is = after.filter(|pod| used.term.selects(cluster, pod));
            if let Some(pod) = was {
                self.count(id, pod, false, touched);
            }
            if let Some(pod) = is {
                self.count(id, pod, true, touched);
            }
            if let Some(used) = self.used.get_mut(&id) {
                if let Some(pod) = was {
                    used.members.remove(&pod.key);
                }
                if let Some(pod) = is {
                    used.members.insert(pod.key.clone());
                }
            }
        }
    }

    fn at(&self, anchor: &Anchor) -> Vec<TermId> {
        let from = (anchor.clone(), TermId::default());
        let here = self.anchored.range(from..);
        here.take_while(|(own, _)| own == anchor)
            .map(|(_, id)| *id)
            .collect()
    }

    /// Counts a pod in or out, at whoever uses the term.
    fn count(&mut self, id: TermId, pod: &Pod, into: bool, touched: &mut TouchedPeers) {
        let Some(used) = self.used.get(&id) else {
            return;
        };
        for peers in &used.peers {
            let Some(own) = self.peers.get_mut(peers) else {
                continue;
            };
            for address in &pod.addresses {
                let before = tally(&mut own.pods, *address, into).is_some();
                touched.pods.entry((*peers, *address)).or_insert(before);
            }
        }
        for (set, name) in &used.names {
            for door in doors(pod, name) {
                let before = tally(&mut self.doors, (*set, door), into).is_some();
                touched.doors.entry((*set, door)).or_insert(before);
            }
        }
    }

    /// Uses a term, which finds its pods if it was not in use.
    fn take(&mut self, cluster: &Cluster, term: &Term, known: &Known) -> TermId {
        let id = TermId::of(term);
        if self.used.contains_key(&id) {
            return id;
        }
        let dns = known.get(&dns_key()).map(|pod| &**pod);
        let dns = dns.filter(|pod| term.selects(cluster, pod));
        let members = term.members(cluster).into_iter().chain(dns);
        let used = Used {
            term: Arc::new(term.clone()),
            members: members.map(|pod| pod.key.clone()).collect(),
            peers: OrdSet::new(),
            names: OrdSet::new(),
        };
        for anchor in term.anchors() {
            self.anchored.insert((anchor, id));
        }
        self.used.insert(id, used);
        id
    }

    /// Forgets a term that nobody uses.
    fn leave(&mut self, id: TermId) {
        let Some(used) = self.used.get(&id) else {
            return;
        };
        if used.peers.is_empty() && used.names.is_empty() {
            for anchor in used.term.anchors() {
                self.anchored.remove(&(anchor, id));
            }
            self.used.remove(&id);
        }
    }

    /// Uses peers; nobody if there are no terms.
    pub(super) fn take_peers(
        &mut self,
        cluster: &Cluster,
        (use_of, terms): ((Direction, Families), &BTreeSet<Term>),
        known: &Known,
        touched: &mut TouchedPeers,
    ) -> Option<PeersId> {
        if terms.is_empty() {
            return None;
        }
        let id = PeersId::of(&(use_of, terms));
        if let Some(peers) = self.peers.get_mut(&id) {
            peers.uses += 1;
            return Some(id);
        }
        touched.peers.entry(id).or_insert(None);
        let mut pods = OrdMap::new();
        let mut ids = BTreeSet::new();
        for term in terms {
            let term = self.take(cluster, term, known);
            ids.insert(term);
            if let Some(used) = self.used.get_mut(&term) {
                used.peers.insert(id);
                for pod in used.members.iter().filter_map(|key| known.get(key)) {
                    for address in &pod.addresses {
                        tally(&mut pods, *address, true);
                        touched.pods.entry((id, *address)).or_insert(false);
                    }
                }
            }
        }
        let blocks = || {
            terms.iter().filter_map(|term| match term {
                Term::Block(block) => Some(block),
                Term::Pods { .. } => None,
            })
        };
        let peers = Peers {
            pods,
            frame: Arc::new(Frame {
                direction: use_of.0,
                families: use_of.1,
                ranges: Family::BOTH.map(|family| intervals(blocks(), family)),
            }),
            terms: Arc::new(ids),
            uses: 1,
        };
        self.peers.insert(id, peers);
        Some(id)
    }

    /// Uses peers no longer.
    pub(super) fn leave_peers(&mut self, id: PeersId, touched: &mut TouchedPeers) {
        let Some(peers) = self.peers.get_mut(&id) else {
            return;
        };
        peers.uses = peers.uses.saturating_sub(1);
        if peers.uses > 0 {
            return;
        }
        let Some(peers) = self.peers.remove(&id) else {
            return;
        };
        let frame = Arc::clone(&peers.frame);
        touched.peers.entry(id).or_insert(Some(frame));
        for address in peers.pods.keys() {
            touched.pods.entry((id, *address)).or_insert(true);
        }
        for term in peers.terms.iter() {
            if let Some(used) = self.used.get_mut(term) {
                used.peers.remove(&id);
            }
            self.leave(*term);
        }
    }

    /// Allows ports by name in a set.
    pub(super) fn take_name(
        &mut self,
        cluster: &Cluster,
        (set, name): (SetId, &ByName),
        known: &Known,
        touched: &mut TouchedPeers,
    ) {
        let id = self.take(cluster, &name.term, known);
        let Some(used) = self.used.get_mut(&id) else {
            return;
        };
        used.names.insert((set, name.clone()));
        for pod in used.members.iter().filter_map(|key| known.get(key)) {
            for door in doors(pod, name) {
                let before = tally(&mut self.doors, (set, door), true).is_some();
                touched.doors.entry((set, door)).or_insert(before);
            }
        }
    }

    /// Allows them no longer.
    pub(super) fn leave_name(
        &mut self,
        (set, name): (SetId, &ByName),
        known: &Known,
        touched: &mut TouchedPeers,
    ) {
        let id = TermId::of(&name.term);
        let Some(used) = self.used.get_mut(&id) else {
            return;
        };
        used.names.remove(&(set, name.clone()));
        for pod in used.members.iter().filter_map(|key| known.get(key)) {
            for door in doors(pod, name) {
                let before = tally(&mut self.doors, (set, door), false).is_some();
                touched.doors.entry((set, door)).or_insert(before);
            }
        }
        self.leave(id);
    }
}

/// The ports of a pod that a name stands for.
fn doors<'d>(pod: &'d Pod, name: &'d ByName) -> impl Iterator<Item = Door> + 'd {
    let ports = pod.named(&name.name, name.protocol);
    ports.flat_map(move |port| {
        let addresses = pod.addresses.iter();
        addresses.map(move |address| (*address, name.protocol, port))
    })
}
