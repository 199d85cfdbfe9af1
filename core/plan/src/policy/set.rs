//! What the policies that select a pod allow together, by port.
//!
//! Policies are additive (N3): at each port the peers of all rules that are about it
//! are allowed. Ports that no rule treats differently form a class, and classes do
//! not overlap, so a packet belongs to one at most.

use std::collections::BTreeSet;
use std::ops::Bound;

use portolan_model::{
    Direction, Family, NetworkPolicy, Pod, PolicyKey, PolicyPort, PolicyRule, PortMatch, Protocol,
};

use super::id::PeersId;
use super::term::Term;

/// The last port.
const LAST: u16 = u16::MAX;

/// The rules that govern a pod in one direction, as far as two pods must have them
/// alike to be treated alike: the policies that select it, with the names of its own
/// ports resolved (N10).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Governed {
    direction: Direction,
    families: Families,
    rules: Vec<(PolicyKey, Vec<PolicyRule>)>,
}

impl Governed {
    /// What these policies, of which each isolates in the direction, say about a pod.
    pub(super) fn new<'p>(
        direction: Direction,
        policies: impl Iterator<Item = (&'p NetworkPolicy, &'p [PolicyRule])>,
        pod: &Pod,
    ) -> Self {
        let rules = policies.map(|(policy, rules)| {
            let resolved = rules.iter().map(|rule| resolved(direction, rule, pod));
            (policy.key.clone(), resolved.collect())
        });
        Self {
            direction,
            families: Families::of(pod),
            rules: rules.collect(),
        }
    }

    /// The policies, by name.
    fn policies(&self) -> impl Iterator<Item = &PolicyKey> {
        self.rules.iter().map(|(key, _)| key)
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

/// Who is allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Allowed<Peers> {
    /// Everybody.
    Everybody,
    /// These; nobody if there are none.
    Only(Peers),
}

/// Peers before they have a name.
pub(super) type Terms = Allowed<BTreeSet<Term>>;

impl Terms {
    fn add(&mut self, rule: &Self) {
        match (&mut *self, rule) {
            (Self::Only(own), Self::Only(others)) => own.extend(others.iter().cloned()),
            (_, Self::Everybody) => *self = Self::Everybody,
            (Self::Everybody, Self::Only(_)) => {}
        }
    }
}

/// Ports of one protocol that are treated alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class<Peers> {
    /// The protocol.
    pub protocol: Protocol,
    /// The first port.
    pub first: u16,
    /// The last port.
    pub last: u16,
    /// Who is allowed there.
    pub allowed: Allowed<Peers>,
}

/// Ports that peers call by a name (N10).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByName {
    /// Which peers.
    pub term: Term,
    /// The protocol.
    pub protocol: Protocol,
    /// The name.
    pub name: portolan_model::Text,
}

/// What is allowed in one direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicySet<Peers = Option<PeersId>> {
    /// Which direction.
    pub direction: Direction,
    /// In which families its pods have addresses.
    pub families: Families,
    /// The policies that it follows from, by name.
    pub policies: Vec<PolicyKey>,
    /// Ports that are not treated as the rest is; they do not overlap.
    pub classes: Vec<Class<Peers>>,
    /// Who is allowed at all other ports, and by protocols without ports.
    pub rest: Allowed<Peers>,
    /// Who is allowed at ports by name, beside.
    pub named: BTreeSet<ByName>,
}

/// Rules by their ports.
pub(super) fn compile(governed: &Governed) -> PolicySet<BTreeSet<Term>> {
    let mut rest = Allowed::Only(BTreeSet::new());
    let mut spans: Vec<(Protocol, u16, u16, Terms)> = Vec::new();
    let mut named = BTreeSet::new();
    for (key, rules) in &governed.rules {
        for rule in rules {
            let terms = match &rule.peers {
                None => Allowed::Everybody,
                Some(peers) => Allowed::Only(
                    peers
                        .iter()
                        .map(|peer| Term::of(peer, &key.namespace))
                        .collect(),
                ),
            };
            let Some(ports) = &rule.ports else {
                rest.add(&terms);
                continue;
            };
            for port in ports {
                match &port.port {
                    PortMatch::All => spans.push((port.protocol, 0, LAST, terms.clone())),
                    PortMatch::Range(first, last) => {
                        spans.push((port.protocol, *first, *last, terms.clone()));
                    }
                    PortMatch::Named(name) => {
                        let whom = match &terms {
                            Allowed::Everybody => [Term::every_pod()].into(),
                            Allowed::Only(terms) => terms.clone(),
                        };
                        named.extend(whom.into_iter().map(|term| ByName {
                            term,
                            protocol: port.protocol,
                            name: name.clone(),
                        }));
                    }
                }
            }
        }
    }
    let classes = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let classes = classes
        .iter()
        .flat_map(|protocol| classes_of(*protocol, &spans, &rest));
    PolicySet {
        direction: governed.direction,
        families: governed.families,
        policies: governed.policies().cloned().collect(),
        classes: classes.collect(),
        rest,
        named,
    }
}

/// The classes of one protocol that differ from the rest.
fn classes_of(
    protocol: Protocol,
    spans: &[(Protocol, u16, u16, Terms)],
    rest: &Terms,
) -> Vec<Class<BTreeSet<Term>>> {
    let own: Vec<_> = spans.iter().filter(|(own, ..)| *own == protocol).collect();
    let firsts = own.iter().map(|(_, first, ..)| *first);
    let behind = own.iter().filter_map(|(_, _, last, _)| last.checked_add(1));
    let starts: BTreeSet<u16> = firsts.chain(behind).collect();
    let mut classes: Vec<Class<BTreeSet<Term>>> = Vec::new();
    for first in &starts {
        let next = starts
            .range((Bound::Excluded(first), Bound::Unbounded))
            .next();
        let last = next.map_or(LAST, |next| next - 1);
        let mut allowed = rest.clone();
        for (_, from, to, terms) in &own {
            if from <= first && last <= *to {
                allowed.add(terms);
            }
        }
        if allowed == *rest {
            continue;
        }
        match classes.last_mut() {
            Some(before)
                if before.allowed == allowed && before.last.checked_add(1) == Some(*first) =>
            {
                before.last = last;
            }
            _ => classes.push(Class {
                protocol,
                first: *first,
                last,
                allowed,
            }),
        }
    }
    classes
}
