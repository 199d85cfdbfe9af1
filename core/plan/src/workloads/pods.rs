//! Pods made from templates, and the words about them.

use portolan_api::meta::{annotations, labels};
use portolan_api::value::at;
use portolan_model::workloads::{Meta, ObjectKey, Pod};
use serde_json::{Value, json};

use super::step::{About, Action, Kind, Tell, Write, controller_reference};

/// A pod as a template says, owned, still without a name.
pub(super) fn body(template: &Value, kind: Kind, owner: &Meta) -> Value {
    let mut metadata = json!({
        "namespace": owner.key.namespace,
        "labels": labels(template),
        "ownerReferences": [controller_reference(kind, owner)],
    });
    let notes = annotations(template);
    if !notes.is_empty() {
        metadata["annotations"] = json!(notes);
    }
    let finalizers = at(template, "metadata.finalizers");
    if !finalizers.is_null() {
        metadata["finalizers"] = finalizers.clone();
    }
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": at(template, "spec").clone(),
    })
}

/// Creates a pod whose name the server chooses.
pub(super) fn create_unnamed(mut body: Value, kind: Kind, owner: &Meta) -> Write {
    body["metadata"]["generateName"] = format!("{}-", owner.key.name).into();
    Write {
        kind: Kind::Pod,
        key: ObjectKey::new(&owner.key.namespace, ""),
        action: Action::Create(body),
        success: tell(kind, owner, "SuccessfulCreate", "Created pod: ".to_owned()),
        failure: complain(kind, owner, "FailedCreate", "Error creating: ".to_owned()),
    }
}

/// Deletes a pod.
pub(super) fn delete(pod: &Pod, kind: Kind, owner: &Meta) -> Write {
    let name = &pod.meta.key.name;
    Write {
        success: tell(
            kind,
            owner,
            "SuccessfulDelete",
            format!("Deleted pod: {name}"),
        ),
        failure: complain(kind, owner, "FailedDelete", "Error deleting: ".to_owned()),
        ..quiet_delete(pod)
    }
}

/// Deletes a pod without a word.
pub(super) fn quiet_delete(pod: &Pod) -> Write {
    let action = Action::Delete {
        uid: pod.meta.uid.clone(),
        force: false,
    };
    Write::quiet(Kind::Pod, pod.meta.key.clone(), action)
}

/// Something that went well.
pub(super) fn tell(
    kind: Kind,
    owner: &Meta,
    reason: &'static str,
    message: String,
) -> Option<Tell> {
    Some(Tell {
        about: About::new(kind, owner),
        warning: false,
        reason,
        message,
    })
}

/// Something that did not.
pub(super) fn complain(
    kind: Kind,
    owner: &Meta,
    reason: &'static str,
    message: String,
) -> Option<Tell> {
    tell(kind, owner, reason, message).map(|tell| Tell {
        warning: true,
        ..tell
    })
}
