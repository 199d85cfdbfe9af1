//! What pods near a node mean for one more.
//!
//! A topology domain is all nodes with the same value of a label. Everything
//! that needs counting over domains is counted once per pod, not per node.

use std::collections::{BTreeMap, BTreeSet};

use portolan_model::workloads::{Node, Pod, PodTerm, Spread};

use super::Usage;
use super::obstacles::Obstacle;

/// A label and one of its values.
type Domain<'a> = (&'a str, &'a str);

/// The domains around all nodes, as one pod sees them.
#[derive(Default)]
pub(super) struct Vicinity<'a> {
    /// Each term of its affinity, and the domains that have a pod like that.
    together: Vec<(&'a str, BTreeSet<Domain<'a>>)>,
    /// Domains with pods that it stays away from.
    apart: BTreeSet<Domain<'a>>,
    /// Domains with pods that keep it away.
    guarded: BTreeSet<Domain<'a>>,
    spread: Vec<Evenness<'a>>,
}

/// How many pods count in each domain of a spread constraint.
struct Evenness<'a> {
    constraint: &'a Spread,
    /// By the label's value.
    counts: BTreeMap<&'a str, i64>,
    /// Whether the pod itself counts.
    counts_itself: bool,
}

impl<'a> Vicinity<'a> {
    pub(super) fn of(pod: &'a Pod, nodes: &[&'a Node], usage: &Usage<'a>) -> Self {
        let mut vicinity = Self::default();
        if usage.keeps_apart {
            vicinity.guarded = guarded(pod, nodes, usage);
        }
        let Some(wishes) = &pod.neighbours else {
            return vicinity;
        };
        for term in &wishes.apart {
            vicinity.apart.extend(domains(pod, term, nodes, usage));
        }
        for term in &wishes.together {
            let found: BTreeSet<Domain<'a>> = domains(pod, term, nodes, usage).collect();
            // The first of pods that want to be together may go anywhere.
            if !found.is_empty() || !term.means(&pod.meta, &pod.meta) {
                vicinity.together.push((&term.topology, found));
            }
        }
        let spread = wishes.spread.iter();
        vicinity.spread = spread
            .map(|constraint| Evenness::of(constraint, pod, nodes, usage))
            .collect();
        vicinity
    }

    pub(super) fn obstacle(&self, node: &'a Node) -> Option<Obstacle> {
        self.spread
            .iter()
            .find_map(|evenness| evenness.obstacle(node))
            .or_else(|| self.unfriendly(node))
    }

    fn unfriendly(&self, node: &'a Node) -> Option<Obstacle> {
        let is_in = |domains: &BTreeSet<Domain<'a>>| {
            let mut labels = node.meta.labels.iter();
            labels.any(|(key, value)| domains.contains(&(key.as_str(), value.as_str())))
        };
        if !self.together.iter().all(|(_, domains)| is_in(domains)) {
            return Some(Obstacle::Always("node(s) didn't match pod affinity rules"));
        }
        if is_in(&self.apart) {
            return Some(Obstacle::Crowded(vec![
                "node(s) didn't match pod anti-affinity rules",
            ]));
        }
        is_in(&self.guarded).then(|| {
            Obstacle::Crowded(vec![
                "node(s) didn't satisfy existing pods anti-affinity rules",
            ])
        })
    }
}

fn domain<'a>(node: &'a Node, topology: &'a str) -> Option<Domain<'a>> {
    let value = node.meta.labels.get(topology)?;
    Some((topology, value))
}

/// The domains that have a pod which a term of `pod` means.
fn domains<'a>(
    pod: &'a Pod,
    term: &'a PodTerm,
    nodes: &[&'a Node],
    usage: &Usage<'a>,
) -> impl Iterator<Item = Domain<'a>> {
    nodes.iter().filter_map(move |node| {
        let mut pods = usage.pods_of(&node.meta.key.name).iter();
        let found = pods.any(|other| term.means(&pod.meta, &other.meta));
        domain(node, &term.topology).filter(|_| found)
    })
}

/// The domains of pods that keep `pod` away.
fn guarded<'a>(pod: &Pod, nodes: &[&'a Node], usage: &Usage<'a>) -> BTreeSet<Domain<'a>> {
    let mut guarded = BTreeSet::new();
    for node in nodes {
        for other in usage.pods_of(&node.meta.key.name) {
            for term in other.neighbours.iter().flat_map(|wishes| &wishes.apart) {
                if term.means(&other.meta, &pod.meta) {
                    guarded.extend(domain(node, &term.topology));
                }
            }
        }
    }
    guarded
}

impl<'a> Evenness<'a> {
    fn of(constraint: &'a Spread, pod: &Pod, nodes: &[&'a Node], usage: &Usage<'a>) -> Self {
        let mut counts: BTreeMap<&str, i64> = BTreeMap::new();
        let eligible = nodes.iter().filter(|node| pod.placement.accepts(node));
        for node in eligible {
            let Some((_, value)) = domain(node, &constraint.topology) else {
                continue;
            };
            let counted = usage.pods_of(&node.meta.key.name).iter().filter(|other| {
                other.meta.key.namespace == pod.meta.key.namespace
                    && !other.meta.deleting
                    && constraint.counts(&other.meta.labels)
            });
            *counts.entry(value).or_default() += super::super::status::count(counted.count());
        }
        Self {
            constraint,
            counts,
            counts_itself: constraint.counts(&pod.meta.labels),
        }
    }

    fn obstacle(&self, node: &Node) -> Option<Obstacle> {
        let Some(value) = node.meta.labels.get(&self.constraint.topology) else {
            return Some(Obstacle::Always(
                "node(s) didn't match pod topology spread constraints (missing required label)",
            ));
        };
        let few = super::super::status::count(self.counts.len()) < self.constraint.min_domains;
        let least = if few {
            0
        } else {
            self.counts.values().copied().min().unwrap_or(0)
        };
        let here = self.counts.get(value.as_str()).copied().unwrap_or(0);
        let skew = here + i64::from(self.counts_itself) - least;
        (skew > self.constraint.max_skew).then(|| {
            Obstacle::Crowded(vec!["node(s) didn't match pod topology spread constraints"])
        })
    }
}
