//! Replacing pods of older revisions.

use portolan_model::workloads::{DaemonUpdate, Node, Pod, Share};

use super::{Look, Work};

/// The live pods of a node by revision.
struct Pair<'a> {
    node: &'a str,
    new: Option<&'a Pod>,
    old: Option<&'a Pod>,
    /// More than one of a revision: that is mended first.
    crowded: bool,
}

impl<'a> Look<'a> {
    /// What may be replaced now.
    pub(super) fn roll(&self) -> Work<'a> {
        match self.set.update {
            DaemonUpdate::OnDelete => Work::default(),
            DaemonUpdate::RollingUpdate {
                max_surge,
                max_unavailable,
            } => {
                let pairs: Vec<Pair<'a>> = self
                    .nodes
                    .iter()
                    .copied()
                    .filter(|node| self.wishes.of_node(node).runs)
                    .map(|node| self.pair(node))
                    .collect();
                let nodes = super::super::status::count(pairs.len());
                if self.surges() {
                    self.surge(&pairs, max_surge.rounded_up(nodes))
                } else {
                    self.replace(&pairs, allowed(max_unavailable, nodes))
                }
            }
        }
    }

    fn pair(&self, node: &'a Node) -> Pair<'a> {
        let name = node.meta.key.name.as_str();
        let live = self
            .pods_of(name)
            .iter()
            .copied()
            .filter(|pod| !pod.meta.deleting);
        let (new, old): (Vec<&Pod>, Vec<&Pod>) = live.partition(|pod| self.is_updated(pod));
        Pair {
            node: name,
            crowded: new.len() > 1 || old.len() > 1,
            new: new.first().copied(),
            old: old.first().copied(),
        }
    }

    /// Old pods go: those that serve nobody at once, others while no more
    /// than `allowed` nodes go without.
    fn replace(&self, pairs: &[Pair<'a>], allowed: i64) -> Work<'a> {
        let mut room = allowed;
        let mut work = Work::default();
        let mut candidates = Vec::new();
        for pair in pairs {
            match (pair.new, pair.old) {
                (None, Some(old)) if !pair.crowded => {
                    if self.is_available(old) {
                        candidates.push(old);
                    } else {
                        work.delete.push(old);
                        room -= 1;
                    }
                }
                (Some(new), None) if !pair.crowded && self.is_available(new) => {}
                // Missing, not available yet, or being put in order.
                (_, _) => room -= 1,
            }
        }
        let room = usize::try_from(room).unwrap_or(0);
        work.delete.extend(candidates.into_iter().take(room));
        work
    }

    /// New pods come beside old ones: beside those that serve nobody at once,
    /// beside others on no more than `allowed` nodes. The old one goes when
    /// the new one is available.
    fn surge(&self, pairs: &[Pair<'a>], allowed: i64) -> Work<'a> {
        let mut room = allowed;
        let mut work = Work::default();
        let mut candidates = Vec::new();
        for pair in pairs {
            match (pair.new, pair.old) {
                (_, _) if pair.crowded => room -= 1,
                (_, None) => {}
                (None, Some(old)) if self.is_available(old) => candidates.push(pair.node),
                (None, Some(_)) => work.create.push(pair.node),
                (Some(new), Some(old)) if self.is_available(new) => work.delete.push(old),
                (Some(_), Some(_)) => room -= 1,
            }
        }
        let room = usize::try_from(room).unwrap_or(0);
        work.create.extend(candidates.into_iter().take(room));
        work
    }
}

/// Both shares round up; without surge at least one pod must be able to go.
fn allowed(max_unavailable: Share, nodes: i64) -> i64 {
    max_unavailable.rounded_up(nodes).max(1)
}
