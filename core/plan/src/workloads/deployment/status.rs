//! What a Deployment says of itself.

use std::time::Duration;

use jiff::Timestamp;
use portolan_model::workloads::{Condition, DeploymentStatus, ReplicaSet};
use serde_json::{Value, json};

use super::super::replica_set::REPLICA_FAILURE;
use super::super::status::{condition_json, unless_zero, whole_second};
use super::super::step::{Action, Kind};
use super::Rollout;

const AVAILABLE: &str = "Available";
const PROGRESSING: &str = "Progressing";
/// Reasons of the condition Progressing that decide what comes next.
const NEW_SET_AVAILABLE: &str = "NewReplicaSetAvailable";
const TIMED_OUT: &str = "ProgressDeadlineExceeded";
const PAUSED: &str = "DeploymentPaused";
/// The server refused the new ReplicaSet.
pub(super) const CREATE_ERROR: &str = "ReplicaSetCreateError";

impl Rollout<'_> {
    /// A pause stops the clock of the progress deadline.
    pub(super) fn note_pause(&mut self) {
        if self.wanted.progress_deadline.is_none() || self.wanted.meta.deleting {
            return;
        }
        let reason = self.condition(PROGRESSING).map(|c| c.reason.as_str());
        if reason == Some(TIMED_OUT) {
            return;
        }
        let was_paused = reason == Some(PAUSED);
        if self.wanted.paused && !was_paused {
            self.set(
                PROGRESSING,
                "Unknown",
                PAUSED,
                "Deployment is paused".to_owned(),
            );
        } else if !self.wanted.paused && was_paused {
            let message = "Deployment is resumed".to_owned();
            self.set(PROGRESSING, "Unknown", "DeploymentResumed", message);
        }
    }

    /// A rollout begins.
    pub(super) fn note_created(&mut self, name: &str) {
        if self.wanted.progress_deadline.is_some() {
            let message = format!("Created new replica set \"{name}\"");
            self.set(PROGRESSING, "True", "NewReplicaSetCreated", message);
        }
    }

    /// A rollout cannot begin.
    pub(super) fn note_refused(&mut self, name: &str, error: &str) {
        if self.wanted.progress_deadline.is_some() {
            let message = format!("Failed to create new replica set \"{name}\": {error}");
            self.set(PROGRESSING, "False", CREATE_ERROR, message);
        }
    }

    /// Whether the last status tells of a rollout that is at its end.
    pub(super) fn was_complete(&self) -> bool {
        self.is_complete(&self.wanted.status)
            && self.wanted.status.observed_generation >= self.wanted.meta.generation
    }

    /// A rollout goes on with a ReplicaSet that was there. One that goes back
    /// to it (`returns`) is another rollout than the one that timed out:
    /// Kubernetes leaves the old verdict until something moves, so that
    /// `kubectl rollout status` after an undo may fail for no reason.
    pub(super) fn note_found(&mut self, new: &ReplicaSet, returns: bool) {
        let is_over = match self.condition(PROGRESSING) {
            None => true,
            Some(known) => returns && known.reason == TIMED_OUT,
        };
        if self.wanted.progress_deadline.is_some() && is_over {
            let message = format!("Found new replica set \"{}\"", new.meta.key.name);
            self.set(PROGRESSING, "True", "FoundNewReplicaSet", message);
        }
    }

    /// Writes the status where it differs; `estimate` says whether progress
    /// is judged.
    pub(super) fn finish(&mut self, estimate: bool) {
        let mut status = self.numbers();
        let min_available = self.wanted.replicas - self.max_unavailable();
        if status.available >= min_available {
            let message = "Deployment has minimum availability.".to_owned();
            self.set(AVAILABLE, "True", "MinimumReplicasAvailable", message);
        } else {
            let message = "Deployment does not have minimum availability.".to_owned();
            self.set(AVAILABLE, "False", "MinimumReplicasUnavailable", message);
        }
        if estimate {
            self.estimate(&status);
            self.note_failure();
        }
        status.conditions = std::mem::take(&mut self.conditions);
        if status != self.wanted.status {
            let action = Action::MergeStatus(json!({"status": body(&status)}));
            self.step.write(Kind::Deployment, &self.wanted.meta, action);
            if self.blame.is_some() {
                // What fails again must not keep the reason from being told.
                self.step.writes.rotate_right(1);
            }
        }
    }

    fn numbers(&self) -> DeploymentStatus {
        let sum = |of: fn(&ReplicaSet) -> i64| self.sets().map(of).sum::<i64>();
        let available = sum(|set| set.status.available);
        DeploymentStatus {
            observed_generation: self.wanted.meta.generation,
            replicas: sum(|set| set.status.replicas),
            updated: self.new.map_or(0, |set| set.status.replicas),
            ready: sum(|set| set.status.ready),
            available,
            unavailable: (self.total() - available).max(0),
            terminating: self.terminating(),
            collisions: self.collisions,
            conditions: Vec::new(),
        }
    }

    /// Pods that are being deleted; none while a ReplicaSet does not say.
    fn terminating(&self) -> Option<i64> {
        self.sets().map(|set| set.status.terminating).sum()
    }

    /// What keeps a ReplicaSet from its pods keeps the Deployment from them:
    /// the new one's trouble counts before that of the others.
    fn note_failure(&mut self) {
        let failure = self
            .new
            .into_iter()
            .chain(self.old.iter().copied())
            .flat_map(|set| &set.status.conditions)
            .find(|known| known.kind == REPLICA_FAILURE);
        match failure {
            None => self.conditions.retain(|c| c.kind != REPLICA_FAILURE),
            Some(failure) => {
                let known = self.condition(REPLICA_FAILURE);
                if known
                    .is_none_or(|c| (&c.status, &c.reason) != (&failure.status, &failure.reason))
                {
                    let mut failure = failure.clone();
                    failure.updated = failure.changed;
                    self.conditions.retain(|c| c.kind != REPLICA_FAILURE);
                    self.conditions.push(failure);
                }
            }
        }
    }

    /// Judges whether the rollout is complete, progresses, or is stuck.
    fn estimate(&mut self, status: &DeploymentStatus) {
        let Some(deadline) = self.wanted.progress_deadline else {
            self.conditions.retain(|c| c.kind != PROGRESSING);
            return;
        };
        let was = self.condition(PROGRESSING).cloned();
        let settled = status.replicas == status.updated
            && was.as_ref().is_some_and(|c| c.reason == NEW_SET_AVAILABLE);
        if settled {
            return;
        }
        if self.is_complete(status) {
            let message = format!("{} has successfully progressed.", self.subject());
            self.set(PROGRESSING, "True", NEW_SET_AVAILABLE, message);
        } else if has_progressed(&self.wanted.status, status) {
            let message = format!("{} is progressing.", self.subject());
            // Progress counts from now even where the reason stays the same.
            self.conditions.retain(|c| c.kind != PROGRESSING);
            self.set(PROGRESSING, "True", "ReplicaSetUpdated", message);
            if let Some(was) = was.filter(|was| was.status == "True") {
                self.keep_transition_time(&was);
            }
            self.look_again(Some(self.now), deadline);
        } else if let Some(was) = was.filter(|was| was.reason != TIMED_OUT) {
            let due = was.updated.map(|at| at.as_second() + deadline);
            if was.reason != NEW_SET_AVAILABLE && due.is_some_and(|due| due < self.now.as_second())
            {
                let message = format!("{} has timed out progressing.", self.subject());
                self.set(PROGRESSING, "False", TIMED_OUT, message);
            } else {
                self.look_again(was.updated, deadline);
            }
        }
    }

    /// Looks again when the deadline has passed (a second later, since times
    /// are written in whole seconds).
    fn look_again(&mut self, since: Option<Timestamp>, deadline: i64) {
        let since = since.unwrap_or(self.now).as_second();
        let left = (since + deadline - self.now.as_second()).max(0) + 1;
        self.step
            .look_again(Duration::from_secs(u64::try_from(left).unwrap_or(1)));
    }

    fn is_complete(&self, status: &DeploymentStatus) -> bool {
        let wanted = self.wanted.replicas;
        (status.updated, status.replicas, status.available) == (wanted, wanted, wanted)
    }

    /// What progresses: the new ReplicaSet, where there is one.
    fn subject(&self) -> String {
        match self.new {
            Some(new) => format!("ReplicaSet \"{}\"", new.meta.key.name),
            None => format!("Deployment \"{}\"", self.wanted.meta.key.name),
        }
    }

    fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|c| c.kind == kind)
    }

    /// Sets a condition. Same status and reason: nothing happens. Same status:
    /// the time of transition stays.
    fn set(&mut self, kind: &str, status: &str, reason: &str, message: String) {
        let now = whole_second(self.now);
        let was = self.condition(kind).cloned();
        let mut changed = now;
        if let Some(was) = was {
            if was.status == status && was.reason == reason {
                return;
            }
            if was.status == status {
                changed = was.changed;
            }
        }
        self.conditions.retain(|c| c.kind != kind);
        self.conditions.push(Condition {
            kind: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message,
            updated: now,
            changed,
        });
    }

    fn keep_transition_time(&mut self, was: &Condition) {
        if let Some(c) = self.conditions.iter_mut().find(|c| c.kind == was.kind) {
            c.changed = was.changed;
        }
    }
}

/// More new pods, fewer old ones, more ready or more available ones.
fn has_progressed(was: &DeploymentStatus, is: &DeploymentStatus) -> bool {
    is.updated > was.updated
        || is.replicas - is.updated < was.replicas - was.updated
        || is.ready > was.ready
        || is.available > was.available
}

fn body(status: &DeploymentStatus) -> Value {
    let conditions: Vec<Value> = status.conditions.iter().map(condition_json).collect();
    json!({
        "observedGeneration": status.observed_generation,
        "replicas": unless_zero(status.replicas),
        "updatedReplicas": unless_zero(status.updated),
        "readyReplicas": unless_zero(status.ready),
        "availableReplicas": unless_zero(status.available),
        "unavailableReplicas": unless_zero(status.unavailable),
        "terminatingReplicas": status.terminating,
        "collisionCount": unless_zero(status.collisions),
        "conditions": conditions,
    })
}
