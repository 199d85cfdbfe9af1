//! Deployment → ReplicaSets.
//!
//! ```text
//!              ┌ deleted ────────────────► status
//!  ReplicaSets ┤ paused, or replicas     ► scale (in proportion) ► status
//!  new and old │ changed since last time
//!              ├ Recreate ───────────────► old to 0, wait for their pods,
//!              │                           new ReplicaSet, up ► status
//!              └ RollingUpdate ──────────► new up | old down  ► status
//! ```
//!
//! Each step keeps `wanted − maxUnavailable ≤ available` and
//! `pods ≤ wanted + maxSurge`; the changes it causes lead to the next one.

mod revision;
mod rolling;
mod scale;
mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use portolan_model::workloads::{Condition, Deployment, ReplicaSet, Strategy};
use serde_json::json;

use super::claim::Claimant;
use super::hash::same_template;
use super::step::{About, Action, Blame, Kind, Step, Tell, Write};

/// What brings a Deployment closer to its template and number of pods.
///
/// `sets` are the ReplicaSets of its namespace; `has_pods` tells whether the
/// ReplicaSet with this uid has pods that have not ended, dying ones included;
/// `blame` says why a ReplicaSet could not be made the last time.
pub fn deployment(
    deployment: &Deployment,
    sets: &[&ReplicaSet],
    has_pods: &dyn Fn(&str) -> bool,
    blame: Option<&Blame>,
    now: Timestamp,
) -> Step {
    if deployment.selector.is_empty() {
        return selects_all(deployment);
    }
    let mut rollout = Rollout::begin(deployment, sets, now);
    rollout.blame = blame;
    rollout.note_pause();
    if deployment.meta.deleting {
        rollout.finish(false);
    } else if deployment.paused || rollout.is_scaling() {
        rollout.sync_revision(false);
        rollout.scale_all();
        if deployment.paused {
            rollout.clean_up();
        }
        rollout.finish(false);
    } else {
        match deployment.strategy {
            Strategy::Recreate => rollout.recreate(has_pods),
            Strategy::RollingUpdate { .. } => rollout.roll(),
        }
        if rollout.was_complete() {
            rollout.clean_up();
        }
        rollout.finish(true);
    }
    rollout.step
}

/// A selector without terms would take every pod of the namespace.
fn selects_all(deployment: &Deployment) -> Step {
    let mut step = Step::default();
    if deployment.status.observed_generation < deployment.meta.generation {
        step.tell.push(Tell {
            about: About::new(Kind::Deployment, &deployment.meta),
            warning: true,
            reason: "SelectingAll",
            message: "This deployment is selecting all pods. A non-empty selector is required."
                .to_owned(),
        });
        let status = json!({"status": {"observedGeneration": deployment.meta.generation}});
        step.write(
            Kind::Deployment,
            &deployment.meta,
            Action::MergeStatus(status),
        );
    }
    step
}

/// One look at a Deployment: what is known, and what was decided so far.
struct Rollout<'a> {
    wanted: &'a Deployment,
    /// The ReplicaSet with the current template.
    new: Option<&'a ReplicaSet>,
    /// The others, oldest first.
    old: Vec<&'a ReplicaSet>,
    /// Names of ReplicaSets in the namespace that are not its own.
    foreign: Vec<&'a str>,
    /// Decided sizes by name; where there is none, the size stays.
    sizes: BTreeMap<String, i64>,
    /// Size of a ReplicaSet that is being created in this step.
    created: i64,
    conditions: Vec<Condition>,
    collisions: i64,
    blame: Option<&'a Blame>,
    now: Timestamp,
    step: Step,
}

impl<'a> Rollout<'a> {
    fn begin(wanted: &'a Deployment, sets: &[&'a ReplicaSet], now: Timestamp) -> Self {
        let mut step = Step::default();
        let claimant = Claimant {
            kind: Kind::Deployment,
            meta: &wanted.meta,
            selector: &wanted.selector,
        };
        let mut mine = claimant.claim(Kind::ReplicaSet, sets, |_| true, &mut step);
        let foreign = sets
            .iter()
            .filter(|set| !mine.iter().any(|own| own.meta.uid == set.meta.uid))
            .map(|set| set.meta.key.name.as_str())
            .collect();
        mine.sort_by_key(|set| (set.meta.created, &set.meta.key.name));
        // The oldest match is the new one: a rollback finds the old
        // ReplicaSet again instead of making another.
        let new = mine
            .iter()
            .copied()
            .find(|set| same_template(&set.template, &wanted.template));
        mine.retain(|set| new.is_none_or(|new| new.meta.uid != set.meta.uid));
        Self {
            wanted,
            new,
            old: mine,
            foreign,
            sizes: BTreeMap::new(),
            created: 0,
            conditions: wanted.status.conditions.clone(),
            collisions: wanted.status.collisions,
            blame: None,
            now,
            step,
        }
    }

    /// All its ReplicaSets.
    fn sets(&self) -> impl Iterator<Item = &'a ReplicaSet> + use<'a> {
        self.old.clone().into_iter().chain(self.new)
    }

    /// The size of a ReplicaSet after this step.
    fn size(&self, set: &ReplicaSet) -> i64 {
        self.sizes
            .get(&set.meta.key.name)
            .copied()
            .unwrap_or(set.replicas)
    }

    /// The sizes of all its ReplicaSets together, after this step.
    fn total(&self) -> i64 {
        self.created + self.sets().map(|set| self.size(set)).sum::<i64>()
    }

    /// How many pods more than wanted there may be.
    fn max_surge(&self) -> i64 {
        self.fence_posts().0
    }

    /// How many fewer pods than wanted may be available.
    fn max_unavailable(&self) -> i64 {
        self.fence_posts().1.min(self.wanted.replicas)
    }

    /// Surge rounds up, unavailability down; both zero would mean standstill.
    fn fence_posts(&self) -> (i64, i64) {
        match self.wanted.strategy {
            Strategy::Recreate => (0, 0),
            Strategy::RollingUpdate {
                max_surge,
                max_unavailable,
            } => {
                let surge = max_surge.rounded_up(self.wanted.replicas);
                let unavailable = max_unavailable.rounded_down(self.wanted.replicas);
                if surge == 0 && unavailable == 0 {
                    (0, 1)
                } else {
                    (surge, unavailable)
                }
            }
        }
    }

    /// Something to tell about the Deployment.
    fn tell(&self, message: String) -> Tell {
        Tell {
            about: About::new(Kind::Deployment, &self.wanted.meta),
            warning: false,
            reason: "ScalingReplicaSet",
            message,
        }
    }

    /// Deletes the oldest ReplicaSets without pods beyond the history limit.
    fn clean_up(&mut self) {
        let Some(limit) = self.wanted.revision_history_limit else {
            return;
        };
        let mut kept: Vec<&ReplicaSet> = self
            .old
            .iter()
            .copied()
            .filter(|set| !set.meta.deleting)
            .collect();
        let limit = usize::try_from(limit).unwrap_or(0);
        let Some(surplus) = kept.len().checked_sub(limit).filter(|n| *n > 0) else {
            return;
        };
        kept.sort_by_key(|set| revision::of(&set.meta));
        for set in kept.into_iter().take(surplus) {
            let idle = set.status.replicas == 0
                && self.size(set) == 0
                && set.replicas == 0
                && set.status.observed_generation >= set.meta.generation;
            if idle {
                let action = Action::Delete {
                    uid: set.meta.uid.clone(),
                    force: false,
                };
                self.step.write(Kind::ReplicaSet, &set.meta, action);
            }
        }
    }

    fn push(&mut self, kind: Kind, set: &ReplicaSet, action: Action, success: Option<Tell>) {
        self.step.writes.push(Write {
            success,
            ..Write::quiet(kind, set.meta.key.clone(), action)
        });
    }
}
