//! Rules for StatefulSets.

use super::workload::{count_or_percent, selector_and_template, statuses};
use super::{names, not_negative};
use crate::cause::Cause;
use crate::value::{at, has, int_at, list_at, str_at};
use serde_json::{Value, json};

/// StatefulSet.
pub fn stateful_set(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = management(object);
    causes.extend(update_strategy(object));
    causes.extend(retention(object));
    for field in [
        "replicas",
        "minReadySeconds",
        "revisionHistoryLimit",
        "ordinals.start",
    ] {
        let path = format!("spec.{field}");
        causes.extend(not_negative(&path, at(object, &path)));
    }
    // The pods' spec is judged with each pod: until then nobody knows the
    // volumes that claims stand for.
    let judged = |cause: &Cause| {
        !cause.field.starts_with("spec.template.spec.")
            || ["restartPolicy", "activeDeadlineSeconds"]
                .iter()
                .any(|field| cause.field.ends_with(field))
    };
    let found = selector_and_template(object, "statefulset");
    causes.extend(found.into_iter().filter(judged));
    causes.extend(claims(object));
    causes.extend(old.and_then(|old| unchanged(object, old)));
    causes
}

/// A status update.
pub fn status(object: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = statuses(
        object,
        &[
            "replicas",
            "readyReplicas",
            "currentReplicas",
            "updatedReplicas",
            "availableReplicas",
            "observedGeneration",
            "collisionCount",
        ],
        &[
            ("readyReplicas", "replicas"),
            ("currentReplicas", "replicas"),
            ("updatedReplicas", "replicas"),
            ("availableReplicas", "replicas"),
            ("availableReplicas", "readyReplicas"),
        ],
    );
    let collisions = |object: &Value| int_at(object, "status.collisionCount").unwrap_or(0);
    if collisions(object) < collisions(old) {
        let message = "cannot be decremented";
        causes.push(Cause::invalid(
            "status.collisionCount",
            &collisions(object).into(),
            message,
        ));
    }
    causes
}

fn management(object: &Value) -> Vec<Cause> {
    let path = "spec.podManagementPolicy";
    match str_at(object, path) {
        "OrderedReady" | "Parallel" => Vec::new(),
        "" => vec![Cause::required(path, "")],
        other => {
            let message = "must be 'OrderedReady' or 'Parallel'";
            vec![Cause::invalid(path, &other.into(), message)]
        }
    }
}

fn update_strategy(object: &Value) -> Vec<Cause> {
    let path = "spec.updateStrategy";
    let rolling = format!("{path}.rollingUpdate");
    match str_at(object, &format!("{path}.type")) {
        "" => vec![Cause::required(path, "")],
        "OnDelete" if has(object, &rolling) => {
            let message = "only allowed for updateStrategy 'RollingUpdate'";
            vec![Cause::invalid(
                rolling.clone(),
                at(object, &rolling),
                message,
            )]
        }
        "OnDelete" => Vec::new(),
        "RollingUpdate" => {
            let partition = format!("{rolling}.partition");
            let unavailable = format!("{rolling}.maxUnavailable");
            let mut causes: Vec<Cause> = not_negative(&partition, at(object, &partition))
                .into_iter()
                .collect();
            let value = at(object, &unavailable);
            causes.extend(count_or_percent(&unavailable, value, true));
            if value.as_i64() == Some(0) || value.as_str() == Some("0%") {
                causes.push(Cause::invalid(unavailable, value, "cannot be 0"));
            }
            causes
        }
        other => {
            let message = "must be 'RollingUpdate' or 'OnDelete'";
            vec![Cause::invalid(path, &json!({"type": other}), message)]
        }
    }
}

fn retention(object: &Value) -> Vec<Cause> {
    let policy = "spec.persistentVolumeClaimRetentionPolicy";
    let mut causes = Vec::new();
    for field in ["whenDeleted", "whenScaled"] {
        let path = format!("{policy}.{field}");
        match str_at(object, &path) {
            "Retain" | "Delete" | "" => {}
            other => {
                causes.push(Cause::not_supported(
                    path,
                    &other.into(),
                    &["Delete", "Retain"],
                ));
            }
        }
    }
    causes
}

fn claims(object: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (index, claim) in list_at(object, "spec.volumeClaimTemplates")
        .iter()
        .enumerate()
    {
        let name = str_at(claim, "metadata.name");
        for message in names::dns1123_label(name) {
            let path = format!("spec.volumeClaimTemplates[{index}].metadata.name");
            causes.push(Cause::invalid(path, &name.into(), &message));
        }
    }
    causes
}

/// What an update may change, and nothing else.
const MUTABLE: &[&str] = &[
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

fn unchanged(object: &Value, old: &Value) -> Option<Cause> {
    let rest = |object: &Value| {
        let mut spec = at(object, "spec").clone();
        if let Some(map) = spec.as_object_mut() {
            map.retain(|field, _| !MUTABLE.contains(&field.as_str()));
        }
        spec
    };
    (rest(object) != rest(old)).then(|| {
        Cause::forbidden(
            "spec",
            "updates to statefulset spec for fields other than 'replicas', 'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::stateful_set::KIND;

    fn made(changes: Value) -> Value {
        let mut object = json!({"metadata": {"name": "db", "namespace": "default"}, "spec": {
            "serviceName": "db", "selector": {"matchLabels": {"app": "db"}},
            "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "a", "image": "b"}]}},
        }});
        for (key, value) in changes.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        (KIND.defaults)(&mut object);
        KIND.prepare_create(&mut object);
        object["metadata"]["resourceVersion"] = json!("1");
        object
    }

    #[test]
    fn c7_a_stateful_set_is_defaulted_and_checked() {
        let good = made(json!({}));
        assert_eq!(KIND.validate_create(&good), []);
        assert_eq!(good["spec"]["podManagementPolicy"], "OrderedReady");
        assert_eq!(
            good["spec"]["updateStrategy"]["rollingUpdate"]["partition"],
            0
        );
        let cases = [
            (
                json!({"podManagementPolicy": "x"}),
                "spec.podManagementPolicy: Invalid value: \"x\": must be 'OrderedReady' or 'Parallel'",
            ),
            (
                json!({"updateStrategy": {"rollingUpdate": {"partition": -1}}}),
                "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0",
            ),
            (
                json!({"updateStrategy": {"type": "OnDelete", "rollingUpdate": {}}}),
                "spec.updateStrategy.rollingUpdate: Invalid value: {}: only allowed for updateStrategy 'RollingUpdate'",
            ),
            (
                json!({"updateStrategy": {"rollingUpdate": {"maxUnavailable": 0}}}),
                "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0",
            ),
            (
                json!({"selector": {}}),
                "spec.selector: Invalid value: {}: empty selector is invalid for statefulset",
            ),
        ];
        for (changes, text) in cases {
            let lines: Vec<String> = KIND
                .validate_create(&made(changes))
                .iter()
                .map(Cause::to_string)
                .collect();
            assert_eq!(lines, [text]);
        }
    }

    #[test]
    fn only_some_fields_may_change() {
        let old = made(json!({}));
        let mut new = old.clone();
        new["spec"]["replicas"] = json!(5);
        assert_eq!(KIND.validate_update(&new, &old), []);
        new["spec"]["serviceName"] = json!("other");
        let causes = KIND.validate_update(&new, &old);
        assert_eq!((causes.len(), causes[0].field.as_str()), (1, "spec"));
    }
}
