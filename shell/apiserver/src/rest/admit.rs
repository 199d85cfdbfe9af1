//! What the server adds or refuses beyond the kind's own rules: namespaces
//! that must be there, and the default service account.

use portolan_api::value::{set, set_default_text, str_at};
use portolan_api::{Kind, Status, meta};
use serde_json::{Value, json};

use crate::answer::Failure;
use crate::context::{Context, Resource};
use crate::store::Key;

/// The service account that pods get, and the ConfigMap with our certificate.
const DEFAULT_ACCOUNT: &str = "default";
const ROOT_CA: &str = "kube-root-ca.crt";

/// The namespace that must exist for a new object.
pub(super) fn namespace_guard(
    context: &Context,
    resource: &Resource,
    namespace: &str,
) -> Option<Key> {
    if !resource.kind.namespaced {
        return None;
    }
    let namespaces = context.core("Namespace")?;
    Some(namespaces.key("", namespace))
}

/// Refuse early what the store would refuse at the end.
pub(super) fn check_namespace(
    context: &Context,
    kind: &Kind,
    guard: &Key,
    name: &str,
) -> Result<(), Failure> {
    let namespace = &guard.name.name;
    match context.store.get(guard) {
        None => Err(Box::new(no_namespace(context, namespace))),
        Some(stored) if stored.deleting => Err(Box::new(terminating(kind, namespace, name))),
        Some(_) => Ok(()),
    }
}

/// 404, `namespaces "x" not found`.
pub(super) fn no_namespace(context: &Context, namespace: &str) -> Status {
    match context.core("Namespace") {
        Some(namespaces) => Status::not_found(&namespaces.kind, namespace),
        None => Status::no_such_path(),
    }
}

/// 403 for a namespace on its way out.
pub(super) fn terminating(kind: &Kind, namespace: &str, name: &str) -> Status {
    let cause = format!(
        "unable to create new content in namespace {namespace} because it is being terminated"
    );
    let mut status = Status::forbidden(kind, name, &cause);
    status.details.causes = vec![json!({
        "reason": "NamespaceTerminating",
        "message": format!("namespace {namespace} is being terminated"),
        "field": "metadata.namespace",
    })];
    status
}

/// What the server fills into a new object.
pub(super) fn complete(resource: &Resource, object: &mut Value) {
    if resource.is("", "Pod") {
        set_default_text(object, "spec.serviceAccountName", DEFAULT_ACCOUNT);
        let account = str_at(object, "spec.serviceAccountName").to_owned();
        set(object, "spec.serviceAccount", account);
    }
}

/// What every namespace begins with.
pub(crate) fn default_objects(context: &Context, namespace: &str) -> Vec<(Resource, Value)> {
    let mut objects = Vec::new();
    if let Some(resource) = context.core("ServiceAccount") {
        let object = json!({"metadata": meta::new(DEFAULT_ACCOUNT, namespace)});
        objects.push((resource, object));
    }
    if let Some(resource) = context.core("ConfigMap") {
        let mut object = json!({
            "metadata": meta::new(ROOT_CA, namespace),
            "data": {"ca.crt": context.identity.ca},
        });
        let text = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters.";
        meta::set_annotation(&mut object, "kubernetes.io/description", text);
        objects.push((resource, object));
    }
    objects
}
