//! Rules for DaemonSets.

use super::workload::{count_or_percent, selector_and_template, statuses};
use super::{immutable, not_negative};
use crate::cause::Cause;
use crate::value::{at, str_at};
use serde_json::Value;

/// DaemonSet.
pub fn daemon_set(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = selector_and_template(object, "daemonset");
    for field in ["minReadySeconds", "revisionHistoryLimit"] {
        let path = format!("spec.{field}");
        causes.extend(not_negative(&path, at(object, &path)));
    }
    causes.extend(update_strategy(object));
    causes.extend(old.and_then(|old| {
        let path = "spec.selector";
        immutable(path, at(object, path), at(old, path))
    }));
    causes
}

/// A status update.
pub fn status(object: &Value, _old: &Value) -> Vec<Cause> {
    statuses(
        object,
        &[
            "currentNumberScheduled",
            "numberMisscheduled",
            "desiredNumberScheduled",
            "numberReady",
            "observedGeneration",
            "updatedNumberScheduled",
            "numberAvailable",
            "numberUnavailable",
            "collisionCount",
        ],
        &[],
    )
}

fn update_strategy(object: &Value) -> Vec<Cause> {
    let path = "spec.updateStrategy";
    let rolling = format!("{path}.rollingUpdate");
    match str_at(object, &format!("{path}.type")) {
        "OnDelete" => Vec::new(),
        "RollingUpdate" => {
            let mut causes = Vec::new();
            let zero = |field: &str| {
                let value = at(object, &format!("{rolling}.{field}"));
                value.is_null() || value.as_i64() == Some(0) || value.as_str() == Some("0%")
            };
            for field in ["maxUnavailable", "maxSurge"] {
                let path = format!("{rolling}.{field}");
                causes.extend(count_or_percent(&path, at(object, &path), true));
            }
            match (zero("maxUnavailable"), zero("maxSurge")) {
                (true, true) => {
                    let message = "cannot be 0 when maxSurge is 0";
                    let path = format!("{rolling}.maxUnavailable");
                    causes.push(Cause::required(path, message));
                }
                (false, false) => {
                    let message = "may not be set when maxUnavailable is non-zero";
                    let path = format!("{rolling}.maxSurge");
                    let value = at(object, &path);
                    causes.push(Cause::invalid(path.clone(), value, message));
                }
                (true, false) | (false, true) => {}
            }
            causes
        }
        other => vec![Cause::not_supported(
            format!("{path}.type"),
            &other.into(),
            &["OnDelete", "RollingUpdate"],
        )],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::daemon_set::KIND;
    use serde_json::json;

    fn lines(strategy: Value) -> Vec<String> {
        let mut object = json!({"metadata": {"name": "a", "namespace": "default"}, "spec": {
            "updateStrategy": strategy, "selector": {"matchLabels": {"app": "a"}},
            "template": {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "a", "image": "b"}]}},
        }});
        (KIND.defaults)(&mut object);
        KIND.prepare_create(&mut object);
        let causes = KIND.validate_create(&object);
        causes.iter().map(Cause::to_string).collect()
    }

    #[test]
    fn strategies() {
        assert_eq!(lines(json!({})), [""; 0]);
        assert_eq!(lines(json!({"type": "OnDelete"})), [""; 0]);
        assert_eq!(
            lines(json!({"rollingUpdate": {"maxUnavailable": 0}})),
            [
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0"
            ]
        );
        assert_eq!(
            lines(json!({"rollingUpdate": {"maxUnavailable": 1, "maxSurge": "10%"}})),
            [
                "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: \"10%\": may not be set when maxUnavailable is non-zero"
            ]
        );
        assert_eq!(
            lines(json!({"type": "x"})),
            [
                "spec.updateStrategy.type: Unsupported value: \"x\": supported values: \"OnDelete\", \"RollingUpdate\""
            ]
        );
    }
}
