//! What the policies of one tier that are about a pod say together, by port.
//!
//! Their rules are asked in order, and the first that is about a connection decides
//! (N19). NetworkPolicies are such rules too, which all accept, and what none of them
//! is about is denied: so they are additive, and their order does not matter (N3).
//! Ports that no rule treats differently form a class, and classes do not overlap, so
//! a packet belongs to one at most.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use portolan_model::{
    Action, ClusterPolicy, Direction, Family, NetworkPolicy, Pod, PolicyKey, PolicyPort,
    PolicyRule, PortMatch, Protocol, Text, Tier,
};

use super::id::PeersId;
use super::ladder::{Ladder, Level, Rung, Way, ladder};
use super::term::Term;

/// The last port.
const LAST: u16 = u16::MAX;

/// A policy that a set follows from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// A NetworkPolicy.
    Policy(PolicyKey),
    /// A ClusterNetworkPolicy.
    Cluster(Text),
}

/// The rules that govern a pod in one direction and tier, as far as two pods must have
/// them alike to be treated alike: those of the policies that are about it, with the
/// names of its own ports resolved (N10).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Governed {
    tier: Tier,
    direction: Direction,
    families: Families,
    rules: Vec<(Source, Vec<(Action, PolicyRule)>)>,
}

impl Governed {
    /// What these NetworkPolicies, of which each isolates in the direction, say about a
    /// pod.
    pub(super) fn by_policies<'p>(
        direction: Direction,
        policies: impl Iterator<Item = (&'p NetworkPolicy, &'p [PolicyRule])>,
        pod: &Pod,
    ) -> Self {
        let rules = policies.map(|(policy, rules)| {
            let rules = rules.iter();
            let accepted = rules.map(|rule| (Action::Accept, resolved(direction, rule, pod)));
            (Source::Policy(policy.key.clone()), accepted.collect())
        });
        Self {
            tier: Tier::NetworkPolicy,
            direction,
            families: Families::of(pod),
            rules: rules.collect(),
        }
    }

    /// What these ClusterNetworkPolicies of a tier, in this order, say about a pod.
    pub(super) fn by_cluster<'p>(
        (tier, direction): (Tier, Direction),
        policies: impl Iterator<Item = &'p ClusterPolicy>,
        pod: &Pod,
    ) -> Self {
        let rules = policies.map(|policy| {
            let rules = policy.rules(direction).iter();
            let said = rules.map(|one| {
                let action = match (tier, one.action) {
                    // Behind the last tier everything is allowed.
                    (Tier::Baseline, Action::Pass) => Action::Accept,
                    (_, action) => action,
                };
                (action, resolved(direction, &one.rule, pod))
            });
            (Source::Cluster(policy.name.clone()), said.collect())
        });
        Self {
            tier,
            direction,
            families: Families::of(pod),
            rules: rules.collect(),
        }
    }

    /// The policies, as they are asked.
    fn policies(&self) -> impl Iterator<Item = &Source> {
        self.rules.iter().map(|(source, _)| source)
    }

    /// What becomes of whatever no rule is about.
    fn otherwise(&self) -> Action {
        match self.tier {
            Tier::Admin => Action::Pass,
            Tier::NetworkPolicy => Action::Deny,
            Tier::Baseline => Action::Accept,
        }
    }
}

/// A rule with the names of the pod's own ports as numbers. On the way out names are
/// the peers' (N10).
fn resolved(direction: Direction, rule: &PolicyRule, pod: &Pod) -> PolicyRule {
    let numbers = |port: &PolicyPort| -> Vec<PolicyPort> {
        match (&port.port, direction) {
            (PortMatch::Named(name), Direction::Ingress) => {
                let numbers = pod.named(name, port.protocol);
                let one = |number| PolicyPort {
                    protocol: port.protocol,
                    port: PortMatch::Range(number, number),
                };
                numbers.map(one).collect()
            }
            _ => vec![port.clone()],
        }
    };
    PolicyRule {
        peers: rule.peers.clone(),
        ports: rule
            .ports
            .as_ref()
            .map(|ports| ports.iter().flat_map(numbers).collect()),
    }
}

/// The address families in which something is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Families([bool; 2]);

impl Families {
    fn of(pod: &Pod) -> Self {
        let has = |family| {
            pod.addresses
                .iter()
                .any(|address| Family::of(*address) == family)
        };
        Self(Family::BOTH.map(has))
    }

    /// Those.
    pub fn iter(self) -> impl Iterator<Item = Family> {
        let all = Family::BOTH.into_iter().zip(self.0);
        all.filter_map(|(family, needed)| needed.then_some(family))
    }
}

/// What becomes of connections at some ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ports<Peers = PeersId> {
    /// By who the peer is.
    pub way: Way<Peers>,
    /// The same where a rule of that level is about the port by its name.
    pub doors: BTreeMap<Level, Way<Peers>>,
}

impl<P> Ports<P> {
    /// Everywhere to go from here.
    fn ways(&self) -> impl Iterator<Item = &Way<P>> {
        self.doors.values().chain([&self.way])
    }

    /// The same with peers by name.
    fn named<N>(self, name: &mut impl FnMut(P) -> N) -> Ports<N> {
        let doors = self.doors.into_iter();
        Ports {
            doors: doors.map(|(level, way)| (level, way.named(name))).collect(),
            way: self.way.named(name),
        }
    }
}

/// Ports of one protocol that are treated alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class<Peers = PeersId> {
    /// The protocol.
    pub protocol: Protocol,
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
    /// What becomes of connections there.
    pub ports: Ports<Peers>,
}

/// Ports that peers call by a name (N10).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByName {
    /// Which peers.
    pub term: Term,
    /// The protocol.
    pub protocol: Protocol,
    /// The name.
    pub name: Text,
    /// How late the rule is asked.
    pub level: Level,
}

/// What is said in one direction by one tier.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySet<Peers = PeersId> {
    /// Which tier.
    pub tier: Tier,
    /// Which direction.
    pub direction: Direction,
    /// In which families its pods have addresses.
    pub families: Families,
    /// The policies that it follows from, as they are asked.
    pub policies: Vec<Source>,
    /// Ports that are not treated as the rest is; they do not overlap.
    pub classes: Vec<Class<Peers>>,
    /// What becomes of connections at all other ports, and by protocols without ports.
    pub rest: Ports<Peers>,
    /// What is said about ports by name.
    pub named: BTreeSet<ByName>,
}

impl<P> PolicySet<P> {
    /// The ports that a destination belongs to; none stands for protocols without
    /// ports.
    pub fn at(&self, to: Option<(Protocol, u16)>) -> &Ports<P> {
        let class = to.and_then(|(protocol, port)| {
            let mut classes = self.classes.iter();
            classes.find(|class| {
                class.protocol == protocol && (class.first..=class.last).contains(&port)
            })
        });
        class.map_or(&self.rest, |class| &class.ports)
    }

    /// All that its ports lead to.
    pub(super) fn ways(&self) -> impl Iterator<Item = &Way<P>> {
        let classes = self.classes.iter().map(|class| &class.ports);
        classes.chain([&self.rest]).flat_map(Ports::ways)
    }

    /// The same with peers by name.
    pub(super) fn with_names<N>(self, mut name: impl FnMut(P) -> N) -> PolicySet<N> {
        let classes = self.classes.into_iter().map(|class| Class {
            protocol: class.protocol,
            first: class.first,
            last: class.last,
            ports: class.ports.named(&mut name),
        });
        PolicySet {
            tier: self.tier,
            direction: self.direction,
            families: self.families,
            policies: self.policies,
            classes: classes.collect(),
            rest: self.rest.named(&mut name),
            named: self.named,
        }
    }
}

/// Rules by their ports.
pub(super) fn compile(governed: &Governed) -> PolicySet<Ladder> {
    let (rungs, named) = rungs(governed);
    let otherwise = governed.otherwise();
    let levels: BTreeSet<Level> = named.iter().map(|by_name| by_name.level).collect();
    let ports = |is_about: &dyn Fn(&Rung<'_>) -> bool| {
        let about = || rungs.iter().filter(|rung| is_about(rung));
        let door = |level: &Level| {
            let action = rungs.iter().find(|rung| rung.level == *level);
            let before = about().filter(|rung| rung.level < *level);
            let way = ladder(before, action.map_or(otherwise, |rung| rung.action));
            (*level, way)
        };
        Ports {
            way: ladder(about(), otherwise),
            doors: levels.iter().map(door).collect(),
        }
    };
    let rest = ports(&|rung| rung.ports.is_none());
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let mut classes: Vec<Class<Ladder>> = Vec::new();
    for (protocol, first, last) in protocols.iter().flat_map(|own| spans(*own, &rungs)) {
        let ports = ports(&|rung| rung.is_about((protocol, first, last)));
        if ports == rest {
            continue;
        }
        match classes.last_mut() {
            Some(before)
                if before.protocol == protocol
                    && before.ports == ports
                    && before.last.checked_add(1) == Some(first) =>
            {
                before.last = last;
            }
            _ => classes.push(Class {
                protocol,
                first,
                last,
                ports,
            }),
        }
    }
    PolicySet {
        tier: governed.tier,
        direction: governed.direction,
        families: governed.families,
        policies: governed.policies().cloned().collect(),
        classes,
        rest,
        named,
    }
}

/// The rules in their order, and what they say about ports by name.
fn rungs(governed: &Governed) -> (Vec<Rung<'_>>, BTreeSet<ByName>) {
    let mut rungs: Vec<Rung<'_>> = Vec::new();
    let mut named = BTreeSet::new();
    for (source, rules) in &governed.rules {
        for (action, rule) in rules {
            // Where rules that follow each other do the same, their order is all one.
            let level = rungs.last().map_or(0, |before| {
                before.level + Level::from(before.action != *action)
            });
            let rung = Rung::new((level, *action), source, rule);
            for port in rung.ports.unwrap_or_default() {
                let PortMatch::Named(name) = &port.port else {
                    continue;
                };
                let all = || [Term::every_pod()].into();
                let whom = rung.terms.clone().unwrap_or_else(all);
                named.extend(whom.into_iter().map(|term| ByName {
                    term,
                    protocol: port.protocol,
                    name: name.clone(),
                    level,
                }));
            }
            rungs.push(rung);
        }
    }
    (rungs, named)
}

/// The ports of one protocol, cut wherever a rule begins or ends to be about them.
fn spans(protocol: Protocol, rungs: &[Rung<'_>]) -> Vec<(Protocol, u16, u16)> {
    let ports = rungs.iter().filter_map(|rung| rung.ports).flatten();
    let own = ports.filter(|port| port.protocol == protocol);
    let mut starts = BTreeSet::new();
    for port in own {
        let (first, last) = match port.port {
            PortMatch::All => (0, LAST),
            PortMatch::Range(first, last) => (first, last),
            PortMatch::Named(_) => continue,
        };
        starts.insert(first);
        starts.extend(last.checked_add(1));
    }
    let span = |first: &u16| {
        let behind = (Bound::Excluded(*first), Bound::Unbounded);
        let next = starts.range(behind).next();
        (protocol, *first, next.map_or(LAST, |next| next - 1))
    };
    starts.iter().map(span).collect()
}
