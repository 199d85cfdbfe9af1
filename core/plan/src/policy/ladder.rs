//! What becomes of a peer: the first step that is about it says so.

use std::collections::BTreeSet;

use portolan_model::{Action, PolicyPort, PolicyRule, PortMatch, Protocol, Text};

use super::id::PeersId;
use super::set::Source;
use super::term::Term;

/// How late a rule is asked. Rules that follow each other and do the same share one.
pub type Level = u32;

/// A rule among those that are asked one after another.
#[derive(Debug, Clone)]
pub(super) struct Rung<'r> {
    pub(super) level: Level,
    pub(super) action: Action,
    /// About whom; none for everybody.
    pub(super) terms: Option<BTreeSet<Term>>,
    /// At which ports; none for all of them, and for protocols without ports.
    pub(super) ports: Option<&'r [PolicyPort]>,
}

impl<'r> Rung<'r> {
    pub(super) fn new(
        (level, action): (Level, Action),
        source: &Source,
        rule: &'r PolicyRule,
    ) -> Self {
        // Those of a ClusterNetworkPolicy always tell their namespaces.
        let nowhere = Text::from("");
        let own = match source {
            Source::Policy(key) => &key.namespace,
            Source::Cluster(_) => &nowhere,
        };
        let terms = rule.peers.as_ref();
        let terms = terms.map(|peers| peers.iter().map(|peer| Term::of(peer, own)).collect());
        Self {
            level,
            action,
            terms,
            ports: rule.ports.as_deref(),
        }
    }

    /// Whether it is about these ports by their numbers.
    pub(super) fn is_about(&self, (protocol, first, last): (Protocol, u16, u16)) -> bool {
        self.ports.is_none_or(|ports| {
            ports.iter().any(|port| {
                let inside = match port.port {
                    PortMatch::All => true,
                    PortMatch::Range(from, to) => from <= first && last <= to,
                    PortMatch::Named(_) => false,
                };
                inside && port.protocol == protocol
            })
        })
    }
}

/// Where a connection goes from its port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way<Peers = PeersId> {
    /// The same becomes of everybody.
    All(Action),
    /// It depends on who the peer is.
    By(Peers),
}

impl<P> Way<P> {
    /// The same with peers by name.
    pub(super) fn named<N>(self, name: &mut impl FnMut(P) -> N) -> Way<N> {
        match self {
            Self::All(action) => Way::All(action),
            Self::By(peers) => Way::By(name(peers)),
        }
    }
}

/// Peers, each with what becomes of them: the first step that is about one decides.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Ladder {
    /// No two that follow each other do the same, and the last does not do what is done
    /// otherwise.
    pub(super) steps: Vec<(Action, BTreeSet<Term>)>,
    /// What becomes of everybody else.
    pub(super) otherwise: Action,
}

/// What these rules, in their order, make of a peer.
pub(super) fn ladder<'r>(
    rungs: impl Iterator<Item = &'r Rung<'r>>,
    otherwise: Action,
) -> Way<Ladder> {
    let mut steps: Vec<(Action, BTreeSet<Term>)> = Vec::new();
    let mut seen = BTreeSet::new();
    let mut end = otherwise;
    for rung in rungs {
        let Some(terms) = &rung.terms else {
            end = rung.action;
            break;
        };
        let new = terms.iter().filter(|term| seen.insert((*term).clone()));
        let mut new = new.cloned().peekable();
        if new.peek().is_none() {
            continue;
        }
        match steps.last_mut() {
            Some((action, before)) if *action == rung.action => before.extend(new),
            _ => steps.push((rung.action, new.collect())),
        }
    }
    while steps.last().is_some_and(|(action, _)| *action == end) {
        steps.pop();
    }
    if steps.is_empty() {
        return Way::All(end);
    }
    Way::By(Ladder {
        steps,
        otherwise: end,
    })
}

#[cfg(test)]
mod tests {
    use portolan_model::{LabelSelector, PolicyPeer};

    use super::*;

    /// A term that differs from others by its namespace.
    fn peer(name: &str) -> PolicyPeer {
        let label = (
            "name".into(),
            portolan_model::Ask::In(vec![Text::from(name)]),
        );
        PolicyPeer::Pods {
            namespaces: Some(LabelSelector::new(vec![label])),
            pods: LabelSelector::default(),
        }
    }

    /// What rules about these peers come to; a star is everybody.
    fn of(rules: &[(Action, &str)], otherwise: Action) -> Way<Vec<(Action, usize)>> {
        let rules: Vec<(Action, PolicyRule)> = rules
            .iter()
            .map(|(action, names)| {
                let peers = (*names != "*").then(|| names.split(' ').map(peer).collect());
                (*action, PolicyRule { peers, ports: None })
            })
            .collect();
        let source = Source::Cluster("p".into());
        let rungs: Vec<Rung<'_>> = rules
            .iter()
            .map(|(action, rule)| Rung::new((0, *action), &source, rule))
            .collect();
        match ladder(rungs.iter(), otherwise) {
            Way::All(action) => Way::All(action),
            Way::By(ladder) => {
                let steps = ladder.steps.iter();
                let mut counts: Vec<_> = steps.map(|(own, terms)| (*own, terms.len())).collect();
                counts.push((ladder.otherwise, 0));
                Way::By(counts)
            }
        }
    }

    #[test]
    fn n19_the_first_step_decides() {
        use Action::{Accept, Deny, Pass};
        assert_eq!(of(&[], Pass), Way::All(Pass));
        assert_eq!(of(&[(Deny, "*"), (Accept, "a")], Pass), Way::All(Deny));
        // Neighbours that do the same are one step.
        assert_eq!(
            of(&[(Accept, "a"), (Accept, "a b"), (Deny, "c")], Pass),
            Way::By(vec![(Accept, 2), (Deny, 1), (Pass, 0)])
        );
        // What an earlier step decided no later one does.
        assert_eq!(
            of(&[(Accept, "a"), (Deny, "a"), (Accept, "b")], Pass),
            Way::By(vec![(Accept, 2), (Pass, 0)])
        );
        // What would become of everybody else needs no step.
        assert_eq!(of(&[(Pass, "a b"), (Pass, "c")], Pass), Way::All(Pass));
        assert_eq!(
            of(&[(Accept, "a"), (Pass, "b"), (Deny, "*")], Pass),
            Way::By(vec![(Accept, 1), (Pass, 1), (Deny, 0)])
        );
    }
}
