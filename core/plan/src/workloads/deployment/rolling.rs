//! The two ways to replace pods.

use portolan_model::workloads::ReplicaSet;

use super::Rollout;

impl<'a> Rollout<'a> {
    /// Old pods go, all of them, before new ones come.
    pub(super) fn recreate(&mut self, has_pods: &dyn Fn(&str) -> bool) {
        self.sync_revision(false);
        let mut shrunk = false;
        for set in self.old.clone() {
            if set.replicas > 0 {
                shrunk |= self.resize(set, 0);
            }
        }
        if shrunk || self.old.iter().any(|set| has_pods(&set.meta.uid)) {
            return;
        }
        match self.new {
            Some(new) => {
                self.resize(new, self.wanted.replicas);
            }
            None => self.sync_revision(true),
        }
    }

    /// One step of a rolling update: the new ReplicaSet grows if it can,
    /// otherwise old ones shrink if they can.
    pub(super) fn roll(&mut self) {
        self.sync_revision(true);
        let Some(new) = self.new else {
            return;
        };
        let grown = if new.replicas > self.wanted.replicas {
            self.resize(new, self.wanted.replicas)
        } else {
            self.resize(new, self.size_of_new(new.replicas))
        };
        if !grown {
            self.shrink_old(new);
        }
    }

    /// Takes from old ReplicaSets what may go.
    fn shrink_old(&mut self, new: &'a ReplicaSet) {
        let active: Vec<&ReplicaSet> = self
            .old
            .iter()
            .copied()
            .filter(|set| set.replicas > 0)
            .collect();
        if active.is_empty() {
            return;
        }
        let min_available = self.wanted.replicas - self.max_unavailable();
        let new_missing = new.replicas - new.status.available;
        // Pods of the new ReplicaSet that are not available yet count as
        // lost: taking as many old ones away would add to the loss.
        let limit = self.total() - min_available - new_missing;
        if limit > 0 {
            self.shrink_sick(&active, limit);
            self.shrink_spare(&active, min_available);
        }
    }

    /// Old pods that are not available go first: that costs nothing, and they
    /// would block the rollout otherwise.
    fn shrink_sick(&mut self, active: &[&'a ReplicaSet], limit: i64) {
        let mut gone = 0;
        for set in active {
            let sick = (set.replicas - set.status.available).min(limit - gone);
            if sick > 0 {
                self.resize(set, set.replicas - sick);
                gone += sick;
            }
        }
    }

    /// Old pods go as far as enough available ones remain.
    fn shrink_spare(&mut self, active: &[&'a ReplicaSet], min_available: i64) {
        // A status that is older than the last resize may count pods that are
        // on their way out: never more of them are available than are wanted.
        let available: i64 = self
            .sets()
            .map(|set| set.status.available.min(self.size(set)))
            .sum();
        let mut spare = available - min_available;
        for set in active {
            let size = self.size(set);
            let take = size.min(spare);
            if take > 0 {
                self.resize(set, size - take);
                spare -= take;
            }
        }
    }
}
