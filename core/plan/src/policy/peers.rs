//! Terms in use with the pods that they are about, and who asked for them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};
use portolan_model::{Action, Cluster, Direction, Family, Pod, PodKey, Protocol};

use super::dns_key;
use super::id::{PeersId, SetId, TermId};
use super::ladder::{Ladder, Level};
use super::ranges::{follows, steps_of};
use super::set::{ByName, Families};
use super::term::{Anchor, Term, anchors_of};
use crate::node::tally;

/// Which step of some peers: the first that is about one decides.
pub type Step = u32;

/// Peers that are judged together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peers {
    /// Addresses of pods, each with the steps that are about it and with how many terms
    /// of the step are.
    pods: OrdMap<(IpAddr, Step), u32>,
    /// What is the same as long as they are there.
    pub frame: Arc<Frame>,
    terms: Arc<BTreeSet<(TermId, Step)>>,
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
    /// What becomes of whoever no step is about.
    pub otherwise: Action,
    /// What each step does, and whether it is about pods.
    steps: Vec<(Action, bool)>,
    /// Addresses, whose pods need not be known: intervals which do not overlap, in
    /// order, by family.
    ranges: [Vec<Interval>; 2],
}

/// Addresses that the same step is the first to be about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Interval {
    first: IpAddr,
    last: IpAddr,
    step: Step,
}

impl Peers {
    /// What becomes of an address.
    pub fn action(&self, address: IpAddr) -> Action {
        let step = self.step(address);
        self.frame.action(address, step)
    }

    /// The first step that is about the pod at an address, if there is one.
    pub fn step(&self, address: IpAddr) -> Option<Step> {
        let next = self.pods.range((address, 0)..).next();
        next.and_then(|((own, step), _)| (*own == address).then_some(*step))
    }

    /// Addresses of pods, each with the first step that is about it.
    pub fn pods(&self) -> impl Iterator<Item = (IpAddr, Step)> {
        let mut before = None;
        let all = self.pods.keys().copied();
        all.filter(move |(address, _)| before.replace(*address) != Some(*address))
    }
}

impl Frame {
    fn new(use_of: (Direction, Families), ladder: &Ladder) -> Self {
        let steps = ladder.steps.iter();
        let blocks = steps.clone().map(|(_, terms)| {
            let blocks = terms.iter().filter_map(|term| match term {
                Term::Block(block) => Some(block),
                Term::Pods { .. } => None,
            });
            blocks.collect::<Vec<_>>()
        });
        let blocks: Vec<_> = blocks.collect();
        let ranges = Family::BOTH.map(|family| {
            let all = steps_of(&blocks, family).into_iter();
            let intervals = all.map(|(first, last, step)| Interval { first, last, step });
            intervals.collect()
        });
        let pods = |terms: &BTreeSet<Term>| {
            let mut terms = terms.iter();
            terms.any(|term| matches!(term, Term::Pods { .. }))
        };
        Self {
            direction: use_of.0,
            families: use_of.1,
            otherwise: ladder.otherwise,
            steps: steps
                .map(|(action, terms)| (*action, pods(terms)))
                .collect(),
            ranges,
        }
    }

    /// What becomes of an address at which there is a pod that this step is the first to
    /// be about.
    pub fn action(&self, address: IpAddr, pod: Option<Step>) -> Action {
        let step = match (pod, self.interval(address)) {
            (Some(pod), Some(range)) => Some(pod.min(range.step)),
            (pod, range) => pod.or(range.map(|range| range.step)),
        };
        step.map_or(self.otherwise, |step| self.does(step))
    }

    /// The same, if it is not what becomes of the address for its own sake.
    pub fn exception(&self, address: IpAddr, pod: Option<Step>) -> Option<Action> {
        let action = self.action(address, pod);
        (action != self.action(address, None)).then_some(action)
    }

    /// What may become of a pod, but not of its address for its own sake.
    pub fn exceptions(&self) -> impl Iterator<Item = Action> {
        let ranges = self.ranges.iter().any(|all| !all.is_empty());
        let all = [Action::Accept, Action::Deny, Action::Pass].into_iter();
        all.filter(move |action| {
            let of_pods = self.steps.contains(&(*action, true));
            of_pods && (ranges || *action != self.otherwise)
        })
    }

    /// The addresses of which this becomes for their own sake, without what becomes of
    /// everybody else: intervals by first and last address, which do not overlap.
    pub fn ranges(&self, family: Family, action: Action) -> Vec<(IpAddr, IpAddr)> {
        let mut merged: Vec<(IpAddr, IpAddr)> = Vec::new();
        if action == self.otherwise {
            return merged;
        }
        let all = Family::BOTH.into_iter().zip(&self.ranges);
        let own = all.filter(|(own, _)| *own == family);
        for interval in own.flat_map(|(_, intervals)| intervals) {
            if self.does(interval.step) != action {
                continue;
            }
            match merged.last_mut() {
                Some((_, last)) if follows(*last, interval.first) => *last = interval.last,
                _ => merged.push((interval.first, interval.last)),
            }
        }
        merged
    }

    fn does(&self, step: Step) -> Action {
        let own = usize::try_from(step)
            .ok()
            .and_then(|step| self.steps.get(step));
        own.map_or(self.otherwise, |(action, _)| *action)
    }

    fn interval(&self, address: IpAddr) -> Option<&Interval> {
        let all = Family::BOTH.into_iter().zip(&self.ranges);
        let mut own = all.filter(|(family, _)| *family == Family::of(address));
        let (_, intervals) = own.next()?;
        let behind = intervals.partition_point(|interval| interval.first <= address);
        let here = intervals.get(behind.checked_sub(1)?)?;
        (address <= here.last).then_some(here)
    }
}

/// The pods as terms have them.
pub(super) type Known = OrdMap<PodKey, Arc<Pod>>;

/// A port of a pod that a rule is about by its name.
pub type Door = (IpAddr, Protocol, u16);

/// A term in use.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Used {
    term: Arc<Term>,
    members: OrdSet<PodKey>,
    /// Peers at whose step it is.
    peers: OrdSet<(PeersId, Step)>,
    /// Names of ports by which sets allow it.
    names: OrdSet<(SetId, ByName)>,
}

/// All terms in use.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Terms {
    used: OrdMap<TermId, Used>,
    anchored: OrdSet<(Anchor, TermId)>,
    pub(super) peers: OrdMap<PeersId, Peers>,
    /// What sets treat by name, each with how many pods and rules of the level lead to
    /// it.
    doors: OrdMap<(SetId, Door, Level), u32>,
}

/// What came and went among peers, with what was before.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TouchedPeers {
    /// Peers that came or went.
    pub peers: BTreeMap<PeersId, Option<Arc<Frame>>>,
    /// Which step was the first to be about a pod at an address.
    pub pods: BTreeMap<(PeersId, IpAddr), Option<Step>>,
    /// Which level was the first at which a set had the door.
    pub doors: BTreeMap<(SetId, Door), Option<Level>>,
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
        for (peers, step) in &used.peers {
            let Some(own) = self.peers.get_mut(peers) else {
                continue;
            };
            for address in &pod.addresses {
                let before = own.step(*address);
                touched.pods.entry((*peers, *address)).or_insert(before);
                tally(&mut own.pods, (*address, *step), into);
            }
        }
        let names: Vec<_> = used.names.iter().cloned().collect();
        for (set, name) in &names {
            self.knock(*set, (pod, name), into, touched);
        }
    }

    /// Counts the doors of a pod in or out.
    fn knock(
        &mut self,
        set: SetId,
        (pod, name): (&Pod, &ByName),
        into: bool,
        touched: &mut TouchedPeers,
    ) {
        for door in doors(pod, name) {
            let before = self.door(set, door);
            touched.doors.entry((set, door)).or_insert(before);
            tally(&mut self.doors, (set, door, name.level), into);
        }
    }

    /// The first level at which a set has a door, if it has it.
    pub(super) fn door(&self, set: SetId, door: Door) -> Option<Level> {
        let next = self.doors.range((set, door, 0)..).next();
        next.and_then(|((own, at, level), _)| ((*own, *at) == (set, door)).then_some(*level))
    }

    /// All doors of sets, each with the first level at which it is there.
    pub(super) fn doors(&self) -> impl Iterator<Item = (SetId, Door, Level)> {
        let mut before = None;
        let all = self.doors.keys().copied();
        all.filter(move |(set, door, _)| before.replace((*set, *door)) != Some((*set, *door)))
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

    /// Uses peers.
    pub(super) fn take_peers(
        &mut self,
        cluster: &Cluster,
        (use_of, ladder): ((Direction, Families), &Ladder),
        known: &Known,
        touched: &mut TouchedPeers,
    ) -> PeersId {
        let id = PeersId::of(&(use_of, ladder));
        if let Some(peers) = self.peers.get_mut(&id) {
            peers.uses += 1;
            return id;
        }
        touched.peers.entry(id).or_insert(None);
        let mut pods = OrdMap::new();
        let mut ids = BTreeSet::new();
        for (step, (_, terms)) in (0..).zip(&ladder.steps) {
            for term in terms {
                let term = self.take(cluster, term, known);
                ids.insert((term, step));
                if let Some(used) = self.used.get_mut(&term) {
                    used.peers.insert((id, step));
                    for pod in used.members.iter().filter_map(|key| known.get(key)) {
                        for address in &pod.addresses {
                            tally(&mut pods, (*address, step), true);
                            touched.pods.entry((id, *address)).or_insert(None);
                        }
                    }
                }
            }
        }
        let peers = Peers {
            pods,
            frame: Arc::new(Frame::new(use_of, ladder)),
            terms: Arc::new(ids),
            uses: 1,
        };
        self.peers.insert(id, peers);
        id
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
        for (address, step) in peers.pods() {
            touched.pods.entry((id, address)).or_insert(Some(step));
        }
        for (term, step) in peers.terms.iter() {
            if let Some(used) = self.used.get_mut(term) {
                used.peers.remove(&(id, *step));
            }
            self.leave(*term);
        }
    }

    /// Treats ports by name in a set.
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
        for pod in used.members.clone().iter().filter_map(|key| known.get(key)) {
            self.knock(set, (pod, name), true, touched);
        }
    }

    /// Treats them so no longer.
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
        for pod in used.members.clone().iter().filter_map(|key| known.get(key)) {
            self.knock(set, (pod, name), false, touched);
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
