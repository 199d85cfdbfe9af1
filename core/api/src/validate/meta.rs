//! Rules for `metadata`.

use super::{IMMUTABLE, immutable, invalid, labels, names};
use crate::cause::Cause;
use crate::kinds::{Kind, NameRule};
use crate::meta;
use crate::value::{at, has, list_at, str_at};
use serde_json::Value;

/// The bytes that all annotations of an object may have together.
const ANNOTATIONS_MAX: usize = 256 * 1024;

/// What is wrong with the metadata of a new object.
pub fn create(kind: &Kind, object: &Value) -> Vec<Cause> {
    let rule = match kind.name_rule {
        NameRule::Subdomain => names::dns1123_subdomain,
        NameRule::Label => names::dns1123_label,
        NameRule::Address => super::service_cidr::address_name,
    };
    let mut causes = Vec::new();
    let prefix = meta::generate_name(object);
    if !prefix.is_empty() {
        // Something is appended, so that a dash at the end is fine.
        let masked = match prefix.strip_suffix('-') {
            Some(head) => format!("{head}a"),
            None => prefix.to_owned(),
        };
        causes.extend(invalid(
            "metadata.generateName",
            &prefix.into(),
            rule(&masked),
        ));
    }
    match meta::name(object) {
        "" => causes.push(Cause::required(
            "metadata.name",
            "name or generateName is required",
        )),
        name => causes.extend(invalid("metadata.name", &name.into(), rule(name))),
    }
    causes.extend(namespace(kind, object));
    causes.extend(common(object));
    causes
}

/// What is wrong with the metadata of an update.
pub fn update(object: &Value, old: &Value) -> Vec<Cause> {
    let mut causes = common(object);
    if meta::resource_version(object).is_empty() {
        let message = "must be specified for an update";
        causes.push(Cause::invalid(
            "metadata.resourceVersion",
            &"".into(),
            message,
        ));
    }
    for field in ["name", "namespace", "uid", "creationTimestamp"] {
        let path = format!("metadata.{field}");
        let (new, old) = (str_at(object, &path), str_at(old, &path));
        causes.extend((new != old).then(|| Cause::invalid(path, &new.into(), IMMUTABLE)));
    }
    for path in [
        "metadata.deletionTimestamp",
        "metadata.deletionGracePeriodSeconds",
    ] {
        causes.extend(immutable(path, at(object, path), at(old, path)));
    }
    causes.extend(new_finalizers(object, old));
    causes
}

fn namespace(kind: &Kind, object: &Value) -> Vec<Cause> {
    let namespace = meta::namespace(object);
    match (kind.namespaced, namespace) {
        (true, "") => vec![Cause::required("metadata.namespace", "")],
        (true, _) => invalid(
            "metadata.namespace",
            &namespace.into(),
            names::dns1123_label(namespace),
        ),
        (false, "") => Vec::new(),
        (false, _) => vec![Cause::forbidden(
            "metadata.namespace",
            "not allowed on this type",
        )],
    }
}

fn common(object: &Value) -> Vec<Cause> {
    let mut causes = labels::labels("metadata.labels", at(object, "metadata.labels"));
    causes.extend(annotations(
        "metadata.annotations",
        at(object, "metadata.annotations"),
    ));
    causes.extend(owners(object));
    for finalizer in meta::finalizers(object) {
        let messages = names::qualified_name(finalizer);
        causes.extend(invalid("metadata.finalizers", &finalizer.into(), messages));
    }
    causes
}

/// What is wrong with a map of annotations.
pub fn annotations(path: &str, map: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    let mut size = 0;
    for (key, value) in meta::texts(map) {
        causes.extend(invalid(
            path,
            &key.into(),
            names::qualified_name(&key.to_lowercase()),
        ));
        size += key.len() + value.len();
    }
    if size > ANNOTATIONS_MAX {
        causes.push(Cause::too_long(path, ANNOTATIONS_MAX));
    }
    causes
}

fn owners(object: &Value) -> Vec<Cause> {
    let path = "metadata.ownerReferences";
    let mut causes = Vec::new();
    let mut controller: Option<String> = None;
    for owner in list_at(object, path) {
        for field in ["apiVersion", "kind", "name", "uid"] {
            if str_at(owner, field).is_empty() {
                let message = match field {
                    "apiVersion" => "version must not be empty",
                    _ => "must not be empty",
                };
                causes.push(Cause::invalid(
                    format!("{path}.{field}"),
                    &"".into(),
                    message,
                ));
            }
        }
        if at(owner, "controller") == &Value::Bool(true) {
            let this = format!("{}/{}", str_at(owner, "kind"), str_at(owner, "name"));
            if let Some(first) = &controller {
                let message = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {this}"
                );
                causes.push(Cause::invalid(path, at(object, path), &message));
            }
            controller.get_or_insert(this);
        }
    }
    causes
}

/// An object that is being deleted takes no new finalizers.
fn new_finalizers(object: &Value, old: &Value) -> Option<Cause> {
    if !has(old, "metadata.deletionTimestamp") {
        return None;
    }
    let old = meta::finalizers(old);
    let new: Vec<String> = meta::finalizers(object)
        .into_iter()
        .filter(|finalizer| !old.contains(finalizer))
        .map(|finalizer| format!("{finalizer:?}"))
        .collect();
    (!new.is_empty()).then(|| {
        let message = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
            new.join(", ")
        );
        Cause::forbidden("metadata.finalizers", &message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds;
    use serde_json::json;

    fn causes(metadata: Value) -> Vec<String> {
        create(&kinds::service::KIND, &json!({"metadata": metadata}))
            .iter()
            .map(|cause| format!("{} {}", cause.field, cause.reason.as_str()))
            .collect()
    }

    #[test]
    fn s1_service_names_are_labels_and_may_start_with_a_digit() {
        assert!(causes(json!({"name": "1web", "namespace": "default"})).is_empty());
        assert_eq!(
            causes(json!({"name": "a.b", "namespace": "default"})),
            ["metadata.name FieldValueInvalid"]
        );
        assert_eq!(
            causes(json!({"namespace": "x"})),
            ["metadata.name FieldValueRequired"]
        );
    }

    #[test]
    fn metadata_rules() {
        let base = |extra: Value| {
            let mut metadata = json!({"name": "a", "namespace": "x"});
            for (key, value) in extra.as_object().unwrap() {
                metadata[key] = value.clone();
            }
            causes(metadata)
        };
        assert_eq!(
            base(json!({"labels": {"a b": "x"}})),
            ["metadata.labels FieldValueInvalid"]
        );
        assert_eq!(
            base(json!({"labels": {"a": "x y"}})),
            ["metadata.labels FieldValueInvalid"]
        );
        assert!(base(json!({"annotations": {"A/b": "x y"}})).is_empty());
        assert!(base(json!({"generateName": "web-"})).is_empty());
        assert_eq!(
            base(json!({"generateName": "Web-"})),
            ["metadata.generateName FieldValueInvalid"]
        );
        let big = "x".repeat(ANNOTATIONS_MAX);
        assert_eq!(
            base(json!({"annotations": {"a": big}})),
            ["metadata.annotations FieldValueTooLong"]
        );
        let owner =
            json!({"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "1", "controller": true});
        assert_eq!(
            base(json!({"ownerReferences": [owner, owner]})),
            ["metadata.ownerReferences FieldValueInvalid"]
        );
    }

    #[test]
    fn updates_keep_identity() {
        let old = json!({"metadata": {"name": "a", "uid": "1", "resourceVersion": "5", "deletionTimestamp": "t"}});
        let mut new = old.clone();
        new["metadata"]["finalizers"] = json!(["a/b"]);
        new["metadata"]["uid"] = json!("2");
        let causes: Vec<String> = update(&new, &old)
            .into_iter()
            .map(|cause| cause.field)
            .collect();
        assert_eq!(causes, ["metadata.uid", "metadata.finalizers"]);
    }
}
