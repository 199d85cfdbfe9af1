//! Changing the size of ReplicaSets.

use std::cmp::Reverse;

use portolan_model::workloads::{ReplicaSet, Strategy};
use serde_json::{Value, json};

use super::super::step::{Action, Kind};
use super::Rollout;
use super::revision::{DESIRED_REPLICAS, MAX_REPLICAS, annotate};

/// A number that an earlier step left on a ReplicaSet.
fn noted(set: &ReplicaSet, annotation: &str) -> Option<i64> {
    set.meta.annotations.get(annotation)?.parse().ok()
}

impl<'a> Rollout<'a> {
    /// Whether the Deployment's size changed since its ReplicaSets were sized.
    pub(super) fn is_scaling(&self) -> bool {
        self.sets()
            .filter(|set| set.replicas > 0)
            .filter_map(|set| noted(set, DESIRED_REPLICAS))
            .any(|desired| desired != self.wanted.replicas)
    }

    /// Decides the size of a ReplicaSet. True if it changes.
    pub(super) fn resize(&mut self, set: &'a ReplicaSet, size: i64) -> bool {
        let before = self.size(set);
        let stale_note = self
            .size_notes()
            .iter()
            .any(|(key, value)| set.meta.annotations.get(*key) != Some(value));
        if before == size && !stale_note {
            return false;
        }
        self.sizes.insert(set.meta.key.name.clone(), size);
        let notes = Value::Object(annotate(self.size_notes()));
        let patch = json!({
            "metadata": {"uid": set.meta.uid, "annotations": notes},
            "spec": {"replicas": size},
        });
        let told = (before != size).then(|| {
            let direction = if size > before { "up" } else { "down" };
            let name = &set.meta.key.name;
            self.tell(format!(
                "Scaled {direction} replica set {name} from {before} to {size}"
            ))
        });
        self.push(Kind::ReplicaSet, set, Action::Merge(patch), told);
        before != size
    }

    /// The size that the new ReplicaSet may have now, if it has `size`.
    pub(super) fn size_of_new(&self, size: i64) -> i64 {
        match self.wanted.strategy {
            Strategy::Recreate => self.wanted.replicas,
            Strategy::RollingUpdate { .. } => {
                let room = self.wanted.replicas + self.max_surge() - self.total();
                size + room.min(self.wanted.replicas - size).max(0)
            }
        }
    }

    /// The Deployment's size changed, or it is paused: size what is there.
    pub(super) fn scale_all(&mut self) {
        let active: Vec<&ReplicaSet> = self.sets().filter(|set| set.replicas > 0).collect();
        let alone = match active.as_slice() {
            [] => self.new.or_else(|| self.old.last().copied()),
            [only] => Some(*only),
            [..] => None,
        };
        if let Some(set) = alone {
            self.resize(set, self.wanted.replicas);
        } else if self.new.is_some_and(|new| self.is_saturated(new)) {
            for set in self.old.clone() {
                if set.replicas > 0 {
                    self.resize(set, 0);
                }
            }
        } else if matches!(self.wanted.strategy, Strategy::RollingUpdate { .. }) {
            self.scale_in_proportion(active);
        }
    }

    /// The new ReplicaSet has all pods, and they are available.
    fn is_saturated(&self, new: &ReplicaSet) -> bool {
        let wanted = self.wanted.replicas;
        new.replicas == wanted
            && noted(new, DESIRED_REPLICAS) == Some(wanted)
            && new.status.available == wanted
    }

    /// In the middle of a rollout every ReplicaSet gets its share of the
    /// change, so that the mix of old and new stays as it is.
    fn scale_in_proportion(&mut self, mut active: Vec<&'a ReplicaSet>) {
        let allowed = if self.wanted.replicas > 0 {
            self.wanted.replicas + self.max_surge()
        } else {
            0
        };
        let change = allowed - self.total();
        // Largest first; among equals the newest gains and the oldest loses.
        active.sort_by_key(|set| (set.meta.created, &set.meta.key.name));
        if change > 0 {
            active.reverse();
        }
        active.sort_by_key(|set| Reverse(set.replicas));
        let mut given = 0;
        let mut sizes = Vec::new();
        for set in &active {
            let share = if change == 0 {
                0
            } else {
                self.share(set, change, given)
            };
            given += share;
            sizes.push(set.replicas + share);
        }
        for (i, set) in active.into_iter().enumerate() {
            let leftover = if i == 0 { change - given } else { 0 };
            self.resize(set, (sizes[i] + leftover).max(0));
        }
    }

    /// One ReplicaSet's share of `change`, of which `given` is spent.
    fn share(&self, set: &ReplicaSet, change: i64, given: i64) -> i64 {
        let rest = change - given;
        let fraction = self.fraction(set);
        if change > 0 {
            fraction.min(rest)
        } else {
            fraction.max(rest)
        }
    }

    fn fraction(&self, set: &ReplicaSet) -> i64 {
        if self.wanted.replicas == 0 {
            return -set.replicas;
        }
        let now = self.wanted.replicas + self.max_surge();
        let before = noted(set, MAX_REPLICAS)
            .filter(|max| *max > 0)
            .unwrap_or_else(|| self.wanted.status.replicas.max(1));
        // Rounded half away from zero; all three are small and not negative.
        (2 * set.replicas * now + before) / (2 * before) - set.replicas
    }
}
