//! Rules for pods and pod templates: the essentials.
//!
//! Not checked here: volume sources in detail, security contexts, affinity and
//! topology spread terms, whose mistakes only the parts that use them notice.

use super::{container, invalid, labels, meta, names, not_negative};
use crate::cause::Cause;
use crate::defaults::CONTAINER_LISTS;
use crate::value::{at, has, list_at, list_at_mut, remove, set, str_at};
use serde_json::Value;
use std::collections::BTreeSet;

const RESTART_POLICIES: &[&str] = &["Always", "OnFailure", "Never"];
const DNS_POLICIES: &[&str] = &["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];

/// A rule of [`names`].
type NameRule = fn(&str) -> Vec<String>;

/// What a pod update that changes more is answered with.
const MUTABLE: &str = "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";

/// Pod.
pub fn pod(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = pod_spec("spec", at(object, "spec"));
    if let Some(old) = old {
        causes.extend(update(object, old));
    }
    causes
}

/// The template of a workload.
pub fn template(path: &str, template: &Value) -> Vec<Cause> {
    let mut causes = labels::labels(&format!("{path}.labels"), at(template, "metadata.labels"));
    let annotations = at(template, "metadata.annotations");
    causes.extend(meta::annotations(
        &format!("{path}.annotations"),
        annotations,
    ));
    causes.extend(pod_spec(&format!("{path}.spec"), at(template, "spec")));
    if !list_at(template, "spec.ephemeralContainers").is_empty() {
        let path = format!("{path}.spec.ephemeralContainers");
        causes.push(Cause::forbidden(
            path,
            "ephemeral containers not allowed in pod template",
        ));
    }
    causes
}

/// The spec of a pod or template.
pub fn pod_spec(path: &str, spec: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let volumes = volumes(path, spec, &mut causes);
    if list_at(spec, "containers").is_empty() {
        causes.push(Cause::required(format!("{path}.containers"), ""));
    }
    let mut seen = BTreeSet::new();
    for list in CONTAINER_LISTS {
        for (index, one) in list_at(spec, list).iter().enumerate() {
            let path = format!("{path}.{list}[{index}]");
            causes.extend(container::container(&path, one, &volumes));
            let name = str_at(one, "name");
            if !name.is_empty() && !seen.insert(name) {
                causes.push(Cause::duplicate(format!("{path}.name"), &name.into()));
            }
        }
    }
    causes.extend(policies(path, spec));
    causes.extend(labels::labels(
        &format!("{path}.nodeSelector"),
        at(spec, "nodeSelector"),
    ));
    causes.extend(identity(path, spec));
    causes.extend(not_negative(
        &format!("{path}.terminationGracePeriodSeconds"),
        at(spec, "terminationGracePeriodSeconds"),
    ));
    let deadline = at(spec, "activeDeadlineSeconds");
    if deadline
        .as_i64()
        .is_some_and(|seconds| !(1..=i64::from(i32::MAX)).contains(&seconds))
    {
        let message = "must be between 1 and 2147483647, inclusive";
        causes.push(Cause::invalid(
            format!("{path}.activeDeadlineSeconds"),
            deadline,
            message,
        ));
    }
    causes
}

fn volumes<'a>(path: &str, spec: &'a Value, causes: &mut Vec<Cause>) -> BTreeSet<&'a str> {
    let mut volumes = BTreeSet::new();
    for (index, volume) in list_at(spec, "volumes").iter().enumerate() {
        let path = format!("{path}.volumes[{index}]");
        let name = str_at(volume, "name");
        match name {
            "" => causes.push(Cause::required(format!("{path}.name"), "")),
            _ => causes.extend(invalid(
                &format!("{path}.name"),
                &name.into(),
                names::dns1123_label(name),
            )),
        }
        if !name.is_empty() && !volumes.insert(name) {
            causes.push(Cause::duplicate(format!("{path}.name"), &name.into()));
        }
        let sources: Vec<&String> = volume
            .as_object()
            .into_iter()
            .flatten()
            .filter(|(key, value)| *key != "name" && !value.is_null())
            .map(|(key, _)| key)
            .collect();
        match sources.as_slice() {
            [] => causes.push(Cause::required(path, "must specify a volume type")),
            [_] => {}
            [_, more @ ..] => causes.extend(more.iter().map(|key| {
                Cause::forbidden(
                    format!("{path}.{key}"),
                    "may not specify more than 1 volume type",
                )
            })),
        }
    }
    volumes
}

fn policies(path: &str, spec: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (field, supported) in [
        ("restartPolicy", RESTART_POLICIES),
        ("dnsPolicy", DNS_POLICIES),
    ] {
        match str_at(spec, field) {
            "" => causes.push(Cause::required(format!("{path}.{field}"), "")),
            text if supported.contains(&text) => {}
            text => causes.push(Cause::not_supported(
                format!("{path}.{field}"),
                &text.into(),
                supported,
            )),
        }
    }
    if str_at(spec, "dnsPolicy") == "None" && list_at(spec, "dnsConfig.nameservers").is_empty() {
        let message = "must provide at least one DNS nameserver when `dnsPolicy` is None";
        causes.push(Cause::required(
            format!("{path}.dnsConfig.nameservers"),
            message,
        ));
    }
    causes
}

fn identity(path: &str, spec: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let rules: [(&str, NameRule); 4] = [
        ("hostname", names::dns1123_label),
        ("subdomain", names::dns1123_label),
        ("nodeName", names::dns1123_subdomain),
        ("serviceAccountName", names::dns1123_subdomain),
    ];
    for (field, rule) in rules {
        let text = str_at(spec, field);
        if !text.is_empty() {
            causes.extend(invalid(
                &format!("{path}.{field}"),
                &text.into(),
                rule(text),
            ));
        }
    }
    for (index, alias) in list_at(spec, "hostAliases").iter().enumerate() {
        causes.extend(super::address::ip(
            &format!("{path}.hostAliases[{index}].ip"),
            str_at(alias, "ip"),
        ));
    }
    causes
}

/// Only images, the deadline, further tolerations and a negative grace period
/// may change.
fn update(object: &Value, old: &Value) -> Vec<Cause> {
    let (new_spec, old_spec) = (at(object, "spec"), at(old, "spec"));
    let mut causes = Vec::new();
    if list_at(new_spec, "containers").len() != list_at(old_spec, "containers").len() {
        let message = "pod updates may not add or remove containers";
        return vec![Cause::forbidden("spec.containers", message)];
    }
    let (new_list, old_list) = (
        list_at(new_spec, "tolerations"),
        list_at(old_spec, "tolerations"),
    );
    if let Some(missing) = old_list
        .iter()
        .find(|toleration| !new_list.contains(toleration))
    {
        let message = "existing toleration can not be modified except its tolerationSeconds";
        let same_but_seconds = new_list.iter().any(|toleration| {
            ["key", "operator", "value", "effect"]
                .iter()
                .all(|field| str_at(toleration, field) == str_at(missing, field))
        });
        if !same_but_seconds {
            causes.push(Cause::forbidden("spec.tolerations", message));
        }
    }
    let mut masked = new_spec.clone();
    for field in ["activeDeadlineSeconds", "tolerations"] {
        crate::value::copy(old_spec, &mut masked, field);
    }
    for list in CONTAINER_LISTS {
        let images: Vec<Value> = list_at(old_spec, list)
            .iter()
            .map(|one| at(one, "image").clone())
            .collect();
        for (one, image) in list_at_mut(&mut masked, list).iter_mut().zip(images) {
            set(one, "image", image);
        }
    }
    if at(old_spec, "terminationGracePeriodSeconds")
        .as_i64()
        .is_some_and(|seconds| seconds < 0)
    {
        crate::value::copy(old_spec, &mut masked, "terminationGracePeriodSeconds");
    }
    if !has(old_spec, "schedulingGates") {
        drop(remove(&mut masked, "schedulingGates"));
    }
    if masked != *old_spec {
        causes.push(Cause::forbidden("spec", MUTABLE));
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::pod::KIND;
    use serde_json::json;

    fn made(spec: Value) -> Value {
        let mut object = json!({"metadata": {"name": "a", "namespace": "x"}, "spec": spec});
        (KIND.defaults)(&mut object);
        KIND.prepare_create(&mut object);
        object
    }

    fn lines(spec: Value) -> Vec<String> {
        KIND.validate_create(&made(spec))
            .iter()
            .map(Cause::to_string)
            .collect()
    }

    fn one(container: Value) -> Vec<String> {
        let mut base = json!({"name": "a", "image": "b"});
        for (key, value) in container.as_object().unwrap() {
            base[key] = value.clone();
        }
        lines(json!({"containers": [base]}))
    }

    #[test]
    fn essentials() {
        assert_eq!(lines(json!({})), ["spec.containers: Required value"]);
        assert!(one(json!({})).is_empty());
        assert_eq!(
            one(json!({"image": ""})),
            ["spec.containers[0].image: Required value"]
        );
        assert_eq!(
            lines(
                json!({"containers": [{"name": "a", "image": "b"}, {"name": "a", "image": "b"}]})
            ),
            ["spec.containers[1].name: Duplicate value: \"a\""]
        );
        assert_eq!(
            lines(
                json!({"containers": [{"name": "a", "image": "b"}], "restartPolicy": "Sometimes"})
            ),
            [
                "spec.restartPolicy: Unsupported value: \"Sometimes\": supported values: \"Always\", \"OnFailure\", \"Never\""
            ]
        );
    }

    #[test]
    fn containers() {
        let cases = [
            (
                json!({"ports": [{"containerPort": 0}]}),
                "spec.containers[0].ports[0].containerPort: Required value",
            ),
            (
                json!({"ports": [{"containerPort": 70000}]}),
                "spec.containers[0].ports[0].containerPort: Invalid value: 70000: must be between 1 and 65535, inclusive",
            ),
            (
                json!({"volumeMounts": [{"name": "v", "mountPath": "/v"}]}),
                "spec.containers[0].volumeMounts[0].name: Not found: \"v\"",
            ),
            (
                json!({"livenessProbe": {}}),
                "spec.containers[0].livenessProbe: Required value: must specify a handler type",
            ),
            (
                json!({"resources": {"limits": {"cpu": "1"}, "requests": {"cpu": "1500m"}}}),
                "spec.containers[0].resources.requests: Invalid value: \"1500m\": must be less than or equal to cpu limit of 1",
            ),
            (
                json!({"env": [{"value": "x"}]}),
                "spec.containers[0].env[0].name: Required value",
            ),
        ];
        for (container, text) in cases {
            assert_eq!(one(container), [text]);
        }
    }

    #[test]
    fn updates_change_images_only() {
        let old = made(json!({"containers": [{"name": "a", "image": "b"}]}));
        let mut new = old.clone();
        new["spec"]["containers"][0]["image"] = json!("c");
        assert!(pod(&new, Some(&old)).is_empty());
        new["spec"]["containers"][0]["command"] = json!(["x"]);
        let causes = pod(&new, Some(&old));
        assert_eq!(causes.len(), 1);
        assert!(
            causes[0]
                .to_string()
                .starts_with("spec: Forbidden: pod updates may not change fields other than")
        );
    }
}
