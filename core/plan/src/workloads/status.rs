//! What the statuses of workloads have in common.

use std::time::Duration;

use jiff::Timestamp;
use portolan_model::workloads::{Condition, Pod};
use serde_json::{Value, json};

use super::step::Step;

/// Counts that are zero are left out of a status, as Kubernetes does: a null
/// in a merge patch removes the field.
pub(super) fn unless_zero(count: i64) -> Value {
    if count == 0 {
        Value::Null
    } else {
        count.into()
    }
}

/// A number of things, as the API counts.
pub(super) fn count(things: usize) -> i64 {
    i64::try_from(things).unwrap_or(i64::MAX)
}

/// Times are written in whole seconds; comparing must not see more.
pub(super) fn whole_second(at: Timestamp) -> Option<Timestamp> {
    Timestamp::from_second(at.as_second()).ok()
}

/// A condition as it is written.
pub(super) fn condition_json(condition: &Condition) -> Value {
    let time = |at: Timestamp| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut body = json!({
        "type": condition.kind,
        "status": condition.status,
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": condition.changed.map(time),
    });
    if let Some(updated) = condition.updated {
        body["lastUpdateTime"] = time(updated).into();
    }
    body
}

/// Time alone makes ready pods available: looks again when the next is due.
pub(super) fn look_again_for(
    pods: &[&Pod],
    min_ready_seconds: i64,
    now: Timestamp,
    step: &mut Step,
) {
    let due = pods
        .iter()
        .filter(|pod| pod.ready && !pod.is_available(min_ready_seconds, now))
        .map(|pod| {
            pod.ready_changed.map_or(1, |since| {
                since.as_second() + min_ready_seconds - now.as_second()
            })
        })
        .min();
    if let Some(due) = due {
        step.look_again(Duration::from_secs(u64::try_from(due).unwrap_or(1).max(1)));
    }
}
