//! What a DaemonSet says of itself.

use portolan_model::workloads::DaemonSetStatus;
use serde_json::{Value, json};

use super::super::status::unless_zero;
use super::super::step::{Action, Kind};
use super::Look;

impl Look<'_> {
    /// Writes the status where it differs from the last one.
    pub(super) fn write_status(&mut self, collisions: i64) {
        let mut status = self.numbers();
        status.collisions = collisions;
        if status != self.set.status {
            let action = Action::MergeStatus(json!({"status": body(&status)}));
            self.step.write(Kind::DaemonSet, &self.set.meta, action);
        }
    }

    /// Nodes are counted, each by its oldest pod.
    fn numbers(&self) -> DaemonSetStatus {
        let mut status = DaemonSetStatus {
            observed_generation: self.set.meta.generation,
            ..DaemonSetStatus::default()
        };
        for node in self.nodes {
            let pod = self.pods_of(&node.meta.key.name).first();
            if !self.wishes.of_node(node).runs {
                status.misscheduled += i64::from(pod.is_some());
                continue;
            }
            status.desired += 1;
            if let Some(pod) = pod {
                status.current += 1;
                status.ready += i64::from(pod.ready);
                status.available += i64::from(self.is_available(pod));
                status.updated += i64::from(self.is_updated(pod));
            }
        }
        status.unavailable = status.desired - status.available;
        status
    }
}

fn body(status: &DaemonSetStatus) -> Value {
    json!({
        "observedGeneration": status.observed_generation,
        "desiredNumberScheduled": status.desired,
        "currentNumberScheduled": status.current,
        "numberMisscheduled": status.misscheduled,
        "numberReady": status.ready,
        "updatedNumberScheduled": unless_zero(status.updated),
        "numberAvailable": unless_zero(status.available),
        "numberUnavailable": unless_zero(status.unavailable),
        "collisionCount": unless_zero(status.collisions),
    })
}
