//! Rules for Lease.

use crate::cause::Cause;
use crate::value::at;
use serde_json::Value;

/// Lease.
pub fn lease(object: &Value, _old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    let duration = at(object, "spec.leaseDurationSeconds");
    if duration.as_i64().is_some_and(|seconds| seconds <= 0) {
        causes.push(Cause::invalid(
            "spec.leaseDurationSeconds",
            duration,
            "must be greater than 0",
        ));
    }
    let transitions = at(object, "spec.leaseTransitions");
    if transitions.as_i64().is_some_and(|count| count < 0) {
        let message = "must be greater than or equal to 0";
        causes.push(Cause::invalid(
            "spec.leaseTransitions",
            transitions,
            message,
        ));
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn durations_are_positive() {
        assert!(lease(&json!({"spec": {"leaseDurationSeconds": 15}}), None).is_empty());
        let causes = lease(
            &json!({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}}),
            None,
        );
        assert_eq!(causes.len(), 2);
    }
}
