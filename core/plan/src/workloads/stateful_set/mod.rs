//! StatefulSet → Pods with names of their own.
//!
//! ```text
//!  ordinals  start … start+replicas-1 │ beyond: condemned
//!            ───────────────────────► │ ◄────────────
//!            made from the lowest up, │ deleted from the highest down
//!            then replaced from the highest down to the partition
//! ```
//!
//! Ordered (the default), each pod waits until all below it are available, so
//! one pod at a time comes or goes; in parallel nothing waits but updates,
//! which keep to `maxUnavailable`. A pod that never becomes available stops an
//! ordered set, also from taking a better template: as in Kubernetes, somebody
//! has to delete that pod.

mod identity;
mod status;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use jiff::Timestamp;
use portolan_model::workloads::{
    ControllerRevision, Phase, Pod, Share, StatefulSet, StatefulUpdate,
};

use super::claim::Claimant;
use super::history::{History, REVISION_HASH, Revision};
use super::status::look_again_for;
use super::step::{About, Kind, Step, Tell};

/// Pods created in one step, as in Kubernetes.
const BURST: usize = 500;

/// What brings a StatefulSet's pods closer to its template and number.
///
/// `revisions` are those of its namespace; `pods` those of its namespace that
/// it controls or that nobody does.
pub fn stateful_set(
    set: &StatefulSet,
    revisions: &[&ControllerRevision],
    pods: &[&Pod],
    now: Timestamp,
) -> Step {
    let mut step = Step::default();
    let claimant = Claimant {
        kind: Kind::StatefulSet,
        meta: &set.meta,
        selector: &set.selector,
    };
    let is_member = |pod: &Pod| set.ordinal(&pod.meta.key.name).is_some();
    let mine = claimant.claim(Kind::Pod, pods, is_member, &mut step);
    let collisions = set.status.collisions.unwrap_or(0);
    let mut history = History::claim(claimant, revisions, collisions, &mut step);
    if set.meta.deleting {
        return step;
    }
    tell_of_claims(set, &mut step);
    let update = history.settle(&set.template, &mut step);
    let current = history
        .named(&set.status.current_revision)
        .unwrap_or_else(|| update.clone());
    let mut look = Look {
        set,
        by_ordinal: mine
            .iter()
            .filter_map(|pod| Some((set.ordinal(&pod.meta.key.name)?, *pod)))
            .collect(),
        pods: &mine,
        current,
        update,
        now,
        step,
    };
    look.write_status(history.collisions);
    look_again_for(&mine, set.min_ready_seconds, now, &mut look.step);
    look.converge();
    let Look {
        current,
        update,
        mut step,
        ..
    } = look;
    let live = |revision: &Revision| {
        revision.name == current.name
            || revision.name == update.name
            || mine.iter().any(|pod| of_revision(pod) == revision.name)
    };
    history.clean_up(set.revision_history_limit, live, &mut step);
    step
}

/// Says once what becomes of volumes that would outlive their pods.
fn tell_of_claims(set: &StatefulSet, step: &mut Step) {
    if set.status.observed_generation != 0 {
        return;
    }
    for claim in &set.claims {
        step.tell.push(Tell {
            about: About::new(Kind::StatefulSet, &set.meta),
            warning: true,
            reason: "VolumeClaimReplaced",
            message: format!(
                "There are no persistent volumes here: each pod gets an emptyDir in place of \
                 the volume claim \"{claim}\", and its content ends with the pod"
            ),
        });
    }
}

/// The revision that a pod was made from.
fn of_revision(pod: &Pod) -> &str {
    pod.meta
        .labels
        .get(REVISION_HASH)
        .map_or("", String::as_str)
}

/// One look at a StatefulSet.
struct Look<'a> {
    set: &'a StatefulSet,
    by_ordinal: BTreeMap<i64, &'a Pod>,
    pods: &'a [&'a Pod],
    /// The revision of pods below the partition.
    current: Revision,
    /// The revision that the template is.
    update: Revision,
    now: Timestamp,
    step: Step,
}

impl<'a> Look<'a> {
    fn ordinals(&self) -> std::ops::Range<i64> {
        self.set.start..self.set.start.saturating_add(self.set.replicas)
    }

    /// Running, ready, ready for long enough, and not on its way out.
    fn is_available(&self, pod: &Pod) -> bool {
        pod.phase == Phase::Running
            && !pod.meta.deleting
            && pod.is_available(self.set.min_ready_seconds, self.now)
    }

    fn converge(&mut self) {
        if self.keep_replicas() || self.shrink() {
            return;
        }
        if let StatefulUpdate::RollingUpdate {
            partition,
            max_unavailable,
        } = self.set.update
        {
            self.roll(partition, max_unavailable);
        }
    }

    /// Makes missing pods and replaces ended ones. True if the rest must wait.
    fn keep_replicas(&mut self) -> bool {
        let mut room = BURST;
        for ordinal in self.ordinals() {
            if room == 0 {
                return true;
            }
            let pod = self.by_ordinal.get(&ordinal).copied();
            let blocks = match pod {
                None => {
                    let write = self.create(ordinal);
                    self.step.writes.push(write);
                    room -= 1;
                    true
                }
                Some(pod) if pod.is_finished() => {
                    if !pod.meta.deleting {
                        self.delete(pod);
                    }
                    true
                }
                Some(pod) => {
                    let blocks = !self.is_available(pod);
                    if self.set.parallel || !blocks {
                        self.keep_identity(pod, ordinal);
                    }
                    blocks
                }
            };
            if blocks && !self.set.parallel {
                return true;
            }
        }
        false
    }

    /// Deletes pods beyond the wanted number. True if the rest must wait.
    fn shrink(&mut self) -> bool {
        let ordinals = self.ordinals();
        let condemned: Vec<&Pod> = self
            .by_ordinal
            .iter()
            .rev()
            .filter(|(ordinal, _)| !ordinals.contains(ordinal))
            .map(|(_, pod)| *pod)
            .collect();
        if self.set.parallel {
            for pod in condemned.into_iter().filter(|pod| !pod.meta.deleting) {
                self.delete(pod);
            }
            return false;
        }
        let Some(highest) = condemned.first() else {
            return false;
        };
        // Deleting a sick pod does no harm unless a lower one is sick as well. One that has
        // ended is missed by nobody, and would never get well: Kubernetes waits for somebody
        // who deletes it.
        let is_sick = |pod: &Pod| !self.is_available(pod) && !pod.is_finished();
        let lowest_sick = condemned.iter().rev().find(|pod| is_sick(pod));
        let is_first_sick = lowest_sick.is_none_or(|sick| sick.meta.uid == highest.meta.uid);
        if !highest.meta.deleting && (!is_sick(highest) || is_first_sick) {
            self.delete(highest);
        }
        true
    }

    /// Replaces pods of other revisions, from the highest ordinal down.
    fn roll(&mut self, partition: i64, max_unavailable: Option<Share>) {
        let ordinals = self.ordinals();
        let lowest = ordinals.start.saturating_add(partition);
        let available = self
            .by_ordinal
            .range(ordinals.clone())
            .filter(|(_, pod)| self.is_available(pod))
            .count();
        let available = super::status::count(available);
        let allowed = max_unavailable
            .unwrap_or(Share::Count(1))
            .rounded_down(self.set.replicas)
            .max(1);
        let mut room = allowed - (self.set.replicas - available);
        let candidates: Vec<&Pod> = self
            .by_ordinal
            .range(ordinals)
            .rev()
            .take_while(|(ordinal, _)| **ordinal >= lowest)
            .map(|(_, pod)| *pod)
            .filter(|pod| !pod.meta.deleting && of_revision(pod) != self.update.name)
            .collect();
        for pod in candidates {
            // A pod that is not available is missed by nobody.
            if self.is_available(pod) {
                if room <= 0 {
                    return;
                }
                room -= 1;
            }
            self.delete(pod);
        }
    }
}
