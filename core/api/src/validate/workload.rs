//! Rules for Deployments and ReplicaSets, and what all workloads share.

use super::{immutable, labels, not_negative, pod};
use crate::cause::Cause;
use crate::selector::LabelSelector;
use crate::value::{at, has, int_at, map_at, str_at};
use serde_json::{Value, json};

/// Deployment.
pub fn deployment(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = common(object);
    causes.extend(strategy(object));
    for field in [
        "minReadySeconds",
        "revisionHistoryLimit",
        "progressDeadlineSeconds",
    ] {
        let path = format!("spec.{field}");
        causes.extend(not_negative(&path, at(object, &path)));
    }
    if let Some(deadline) = int_at(object, "spec.progressDeadlineSeconds")
        && deadline <= int_at(object, "spec.minReadySeconds").unwrap_or(0)
    {
        let message = "must be greater than minReadySeconds";
        causes.push(Cause::invalid(
            "spec.progressDeadlineSeconds",
            &deadline.into(),
            message,
        ));
    }
    causes.extend(old.and_then(|old| same_selector(object, old)));
    causes
}

/// ReplicaSet.
pub fn replica_set(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = common(object);
    causes.extend(not_negative(
        "spec.minReadySeconds",
        at(object, "spec.minReadySeconds"),
    ));
    causes.extend(old.and_then(|old| same_selector(object, old)));
    causes
}

/// A status update of a Deployment.
pub fn deployment_status(object: &Value, _old: &Value) -> Vec<Cause> {
    statuses(
        object,
        &[
            "observedGeneration",
            "replicas",
            "updatedReplicas",
            "readyReplicas",
            "availableReplicas",
            "unavailableReplicas",
        ],
        &[
            ("updatedReplicas", "replicas"),
            ("readyReplicas", "replicas"),
            ("availableReplicas", "replicas"),
            ("availableReplicas", "readyReplicas"),
        ],
    )
}

/// Numbers of a status: none negative, none greater than its bound.
pub(crate) fn statuses(object: &Value, fields: &[&str], bounds: &[(&str, &str)]) -> Vec<Cause> {
    let mut causes = Vec::new();
    for field in fields {
        let path = format!("status.{field}");
        causes.extend(not_negative(&path, at(object, &path)));
    }
    let count = |field: &str| int_at(object, &format!("status.{field}")).unwrap_or(0);
    for (field, bound) in bounds {
        if count(field) > count(bound) {
            let bound = match *bound {
                "replicas" => "status.replicas",
                other => other,
            };
            let message = format!("cannot be greater than {bound}");
            causes.push(Cause::invalid(
                format!("status.{field}"),
                &count(field).into(),
                &message,
            ));
        }
    }
    causes
}

fn same_selector(object: &Value, old: &Value) -> Option<Cause> {
    immutable(
        "spec.selector",
        at(object, "spec.selector"),
        at(old, "spec.selector"),
    )
}

fn common(object: &Value) -> Vec<Cause> {
    let mut causes: Vec<Cause> = not_negative("spec.replicas", at(object, "spec.replicas"))
        .into_iter()
        .collect();
    causes.extend(selector_and_template(object, "deployment"));
    causes
}

/// The selector selects, and what the template makes.
pub(crate) fn selector_and_template(object: &Value, workload: &str) -> Vec<Cause> {
    let mut causes = Vec::new();
    let path = "spec.selector";
    let selector = at(object, path);
    let is_empty =
        ["matchLabels", "matchExpressions"]
            .iter()
            .all(|field| match at(selector, field) {
                Value::Object(map) => map.is_empty(),
                Value::Array(list) => list.is_empty(),
                Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => true,
            });
    if selector.is_null() {
        causes.push(Cause::required(path, ""));
    } else {
        causes.extend(labels::selector(path, selector));
        if is_empty {
            let message = format!("empty selector is invalid for {workload}");
            causes.push(Cause::invalid(path, selector, &message));
        }
    }
    causes.extend(template(object, selector, is_empty));
    causes
}

fn template(object: &Value, selector: &Value, unselective: bool) -> Vec<Cause> {
    let path = "spec.template";
    let template = at(object, path);
    let mut causes = Vec::new();
    if let Ok(parsed) = LabelSelector::from_object(selector)
        && !unselective
        && !parsed.matches(template)
    {
        let shown = match map_at(template, "metadata.labels") {
            Some(labels) => json!(labels),
            None => json!({}),
        };
        let message = "`selector` does not match template `labels`";
        causes.push(Cause::invalid(
            "spec.template.metadata.labels",
            &shown,
            message,
        ));
    }
    causes.extend(pod::template(path, template));
    match str_at(template, "spec.restartPolicy") {
        "Always" | "" => {}
        other => {
            causes.push(Cause::not_supported(
                "spec.template.spec.restartPolicy",
                &other.into(),
                &["Always"],
            ));
        }
    }
    if has(template, "spec.activeDeadlineSeconds") {
        let message = "activeDeadlineSeconds in ReplicaSet is not Supported";
        causes.push(Cause::forbidden(
            "spec.template.spec.activeDeadlineSeconds",
            message,
        ));
    }
    causes
}

fn strategy(object: &Value) -> Vec<Cause> {
    let path = "spec.strategy";
    let rolling = format!("{path}.rollingUpdate");
    let mut causes = Vec::new();
    match str_at(object, "spec.strategy.type") {
        "Recreate" => {
            if has(object, &rolling) {
                let message = "may not be specified when strategy `type` is 'Recreate'";
                causes.push(Cause::forbidden(rolling, message));
            }
        }
        "RollingUpdate" => {
            let mut zero = true;
            for field in ["maxUnavailable", "maxSurge"] {
                let path = format!("{rolling}.{field}");
                let value = at(object, &path);
                causes.extend(count_or_percent(&path, value, field == "maxUnavailable"));
                zero &= matches!(value.as_i64(), Some(0)) || value.as_str() == Some("0%");
            }
            if zero {
                let path = format!("{rolling}.maxUnavailable");
                let value = at(object, &path).clone();
                causes.push(Cause::invalid(
                    path,
                    &value,
                    "may not be 0 when `maxSurge` is 0",
                ));
            }
        }
        "" => causes.push(Cause::required(format!("{path}.type"), "")),
        other => {
            let supported = ["Recreate", "RollingUpdate"];
            causes.push(Cause::not_supported(
                format!("{path}.type"),
                &other.into(),
                &supported,
            ));
        }
    }
    causes
}

/// An IntOrString that counts pods or is a part of all.
pub(crate) fn count_or_percent(path: &str, value: &Value, at_most_all: bool) -> Vec<Cause> {
    match value {
        Value::Number(_) => not_negative(path, value).into_iter().collect(),
        Value::String(text) => {
            let percent = text
                .strip_suffix('%')
                .and_then(|number| number.parse::<u32>().ok());
            match percent {
                None => {
                    let message = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
                    vec![Cause::invalid(path, value, message)]
                }
                Some(percent) if at_most_all && percent > 100 => {
                    vec![Cause::invalid(path, value, "must not be greater than 100%")]
                }
                Some(_) => Vec::new(),
            }
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::deployment::KIND;

    fn made(changes: Value) -> Value {
        let mut object = json!({"metadata": {"name": "web", "namespace": "default"}, "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "b"}]}},
        }});
        for (key, value) in changes.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        (KIND.defaults)(&mut object);
        KIND.prepare_create(&mut object);
        object
    }

    fn lines(changes: Value) -> Vec<String> {
        KIND.validate_create(&made(changes))
            .iter()
            .map(Cause::to_string)
            .collect()
    }

    #[test]
    fn selectors_and_templates_fit() {
        assert!(lines(json!({})).is_empty());
        assert_eq!(
            lines(json!({"selector": null})),
            ["spec.selector: Required value"]
        );
        assert_eq!(
            lines(json!({"selector": {"matchLabels": {"app": "db"}}})),
            [
                "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`"
            ]
        );
        let old = made(json!({}));
        let mut new = old.clone();
        new["spec"]["selector"]["matchLabels"]["tier"] = json!("x");
        new["spec"]["template"]["metadata"]["labels"]["tier"] = json!("x");
        let causes = deployment(&new, Some(&old));
        assert_eq!(
            causes[0].to_string(),
            "spec.selector: Invalid value: {\"matchLabels\":{\"app\":\"web\",\"tier\":\"x\"}}: field is immutable"
        );
    }

    #[test]
    fn strategies_and_numbers() {
        let cases = [
            (
                json!({"replicas": -1}),
                "spec.replicas: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                json!({"strategy": {"type": "Recreate", "rollingUpdate": {}}}),
                "spec.strategy.rollingUpdate: Forbidden: may not be specified when strategy `type` is 'Recreate'",
            ),
            (
                json!({"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}}),
                "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when `maxSurge` is 0",
            ),
            (
                json!({"strategy": {"type": "x"}}),
                "spec.strategy.type: Unsupported value: \"x\": supported values: \"Recreate\", \"RollingUpdate\"",
            ),
            (
                json!({"progressDeadlineSeconds": 5, "minReadySeconds": 5}),
                "spec.progressDeadlineSeconds: Invalid value: 5: must be greater than minReadySeconds",
            ),
        ];
        for (changes, text) in cases {
            assert_eq!(lines(changes), [text]);
        }
    }
}
