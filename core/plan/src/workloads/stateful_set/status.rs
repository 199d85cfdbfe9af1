//! What a StatefulSet says of itself.

use portolan_model::workloads::{Phase, Pod, StatefulSetStatus, StatefulUpdate};
use serde_json::{Value, json};

use super::super::status::{count, unless_zero};
use super::super::step::{Action, Kind};
use super::{Look, of_revision};

impl Look<'_> {
    /// Writes the status where it differs from the last one.
    pub(super) fn write_status(&mut self, collisions: i64) {
        let mut status = self.numbers();
        status.collisions = Some(collisions);
        self.complete(&mut status);
        if status != self.set.status {
            let action = Action::MergeStatus(json!({"status": body(&status)}));
            self.step.write(Kind::StatefulSet, &self.set.meta, action);
        }
    }

    fn numbers(&self) -> StatefulSetStatus {
        let of =
            |holds: &dyn Fn(&Pod) -> bool| count(self.pods.iter().filter(|pod| holds(pod)).count());
        let ready = |pod: &Pod| pod.phase == Phase::Running && pod.ready;
        let is_of =
            |revision: &str| of(&|pod: &Pod| !pod.meta.deleting && of_revision(pod) == revision);
        StatefulSetStatus {
            observed_generation: self.set.meta.generation,
            replicas: of(&|_| true),
            ready: of(&ready),
            available: of(&|pod| {
                ready(pod) && pod.is_available(self.set.min_ready_seconds, self.now)
            }),
            current: is_of(&self.current.name),
            updated: is_of(&self.update.name),
            current_revision: self.current.name.clone(),
            update_revision: self.update.name.clone(),
            collisions: None,
            conditions: self.set.status.conditions.clone(),
        }
    }

    /// With all pods updated and ready, the update revision is the current one.
    fn complete(&self, status: &mut StatefulSetStatus) {
        let wanted = self.set.replicas;
        let rolls = matches!(self.set.update, StatefulUpdate::RollingUpdate { .. });
        if rolls && [status.updated, status.ready, status.replicas] == [wanted; 3] {
            status.current = status.updated;
            status.current_revision.clone_from(&status.update_revision);
        }
    }
}

fn body(status: &StatefulSetStatus) -> Value {
    json!({
        "observedGeneration": status.observed_generation,
        "replicas": status.replicas,
        "readyReplicas": unless_zero(status.ready),
        "availableReplicas": status.available,
        "currentReplicas": unless_zero(status.current),
        "updatedReplicas": unless_zero(status.updated),
        "currentRevision": status.current_revision,
        "updateRevision": status.update_revision,
        "collisionCount": status.collisions,
    })
}
