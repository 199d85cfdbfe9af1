//! `portolan apply`: what the manifests say becomes what the server holds.
//!
//! As with kubectl's client-side apply, the manifest that was applied last is
//! kept in an annotation, so that a field that leaves the manifest also leaves
//! the object, while fields that others set stay.

use anyhow::Result;
use http::Method;
use serde_json::{Map, Value, json};

use super::{encoded, manifests};
use crate::cli::ApplyArgs;
use crate::connect::{Call, Session, server_error};
use crate::out;
use crate::resources::Resources;

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Runs the verb.
pub(crate) async fn run(args: ApplyArgs) -> Result<()> {
    let session = Session::open(&args.connection).await?;
    let objects = manifests::read(&args.filename)?;
    if args.server_side {
        return apply_on_server(&session, &args, objects).await;
    }
    for line in apply_all(&session, objects).await? {
        out::line(line);
    }
    Ok(())
}

/// The server merges: it knows who set which field, and refuses to take one from
/// another without `--force-conflicts`.
async fn apply_on_server(session: &Session, args: &ApplyArgs, objects: Vec<Value>) -> Result<()> {
    let resources = Resources::discover(session).await?;
    for object in objects {
        let resource = resources.of_manifest(&object)?;
        let metadata = &object["metadata"];
        let name = metadata["name"].as_str().unwrap_or_default();
        let namespace = metadata["namespace"].as_str();
        let namespace = namespace.unwrap_or(&session.namespace);
        let path = format!(
            "{}?fieldManager={}&force={}&fieldValidation=Strict",
            resource.path(Some(namespace), Some(name)),
            encoded(&args.field_manager),
            args.force_conflicts
        );
        let media = "application/apply-patch+yaml";
        let call = Call::sending(Method::PATCH, &path, media, &object);
        session.call(&call).await?;
        out::line(format_args!("{} serverside-applied", resource.named(name)));
    }
    Ok(())
}

/// Applies objects in order and returns a line for each: `service/web created`.
pub(crate) async fn apply_all(session: &Session, objects: Vec<Value>) -> Result<Vec<String>> {
    let resources = Resources::discover(session).await?;
    let mut lines = Vec::new();
    for object in objects {
        let resource = resources.of_manifest(&object)?;
        lines.push(apply_one(session, resource, object).await?);
    }
    Ok(lines)
}

async fn apply_one(
    session: &Session,
    resource: &crate::resources::Resource,
    mut object: Value,
) -> Result<String> {
    let name = object["metadata"]["name"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    let namespace = object["metadata"]["namespace"]
        .as_str()
        .unwrap_or(&session.namespace)
        .to_owned();
    let manifest = format!("{object}\n");
    if let Some(metadata) = object["metadata"].as_object_mut() {
        if resource.namespaced {
            metadata.insert("namespace".to_owned(), json!(namespace));
        }
        let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
        if !annotations.is_object() {
            *annotations = json!({});
        }
        annotations[LAST_APPLIED] = json!(manifest);
    }
    let one = resource.path(Some(&namespace), Some(&name));
    let current = session.try_call(&Call::get(&one)).await?;
    let shown = resource.named(&name);
    if current.status == 404 {
        let path = resource.path(Some(&namespace), None) + "?fieldValidation=Warn";
        session
            .call(&Call::sending(
                Method::POST,
                &path,
                "application/json",
                &object,
            ))
            .await?;
        return Ok(format!("{shown} created"));
    }
    if current.status >= 400 {
        return Err(server_error(&current));
    }
    let last = current.body["metadata"]["annotations"][LAST_APPLIED]
        .as_str()
        .and_then(|text| serde_json::from_str::<Value>(text).ok())
        .unwrap_or(Value::Null);
    let patch = merge_patch(&last, &object, &current.body);
    if patch.as_object().is_none_or(Map::is_empty) {
        return Ok(format!("{shown} unchanged"));
    }
    let path = one + "?fieldValidation=Warn";
    let answer = session
        .call(&Call::sending(
            Method::PATCH,
            &path,
            "application/merge-patch+json",
            &patch,
        ))
        .await?;
    let same =
        answer.body["metadata"]["resourceVersion"] == current.body["metadata"]["resourceVersion"];
    Ok(format!(
        "{shown} {}",
        if same { "unchanged" } else { "configured" }
    ))
}

/// The merge patch (RFC 7386) that makes `current` say what `wanted` says, and
/// drops what `last` said and `wanted` does not.
fn merge_patch(last: &Value, wanted: &Value, current: &Value) -> Value {
    let empty = Map::new();
    let (last, current) = (
        last.as_object().unwrap_or(&empty),
        current.as_object().unwrap_or(&empty),
    );
    let mut patch = Map::new();
    for (key, value) in wanted.as_object().unwrap_or(&empty) {
        let held = current.get(key);
        if value.is_object() && held.is_some_and(Value::is_object) {
            let inner = merge_patch(
                last.get(key).unwrap_or(&Value::Null),
                value,
                held.unwrap_or(&Value::Null),
            );
            if inner.as_object().is_some_and(|m| !m.is_empty()) {
                patch.insert(key.clone(), inner);
            }
        } else if held.is_none_or(|h| !holds(h, value)) {
            patch.insert(key.clone(), value.clone());
        }
    }
    for key in last.keys() {
        if wanted.get(key).is_none_or(Value::is_null) && current.contains_key(key) {
            patch.insert(key.clone(), Value::Null);
        }
    }
    Value::Object(patch)
}

/// Whether `held` already says all that `wanted` says (defaults that the server added may stand beside it).
fn holds(held: &Value, wanted: &Value) -> bool {
    match (held, wanted) {
        (Value::Object(h), Value::Object(w)) => {
            w.iter().all(|(k, v)| h.get(k).is_some_and(|x| holds(x, v)))
        }
        (Value::Array(h), Value::Array(w)) => {
            h.len() == w.len() && h.iter().zip(w).all(|(x, v)| holds(x, v))
        }
        _ => held == wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_says_only_what_differs() {
        let current = json!({"spec": {"replicas": 3, "ports": [{"port": 80, "protocol": "TCP"}]}, "status": {}});
        let wanted = json!({"spec": {"replicas": 5, "ports": [{"port": 80}]}});
        assert_eq!(
            merge_patch(&Value::Null, &wanted, &current),
            json!({"spec": {"replicas": 5}})
        );
    }

    #[test]
    fn what_left_the_manifest_leaves_the_object() {
        let last = json!({"metadata": {"labels": {"a": "1", "b": "2"}}});
        let wanted = json!({"metadata": {"labels": {"a": "1"}}});
        let current = json!({"metadata": {"labels": {"a": "1", "b": "2", "c": "3"}}});
        assert_eq!(
            merge_patch(&last, &wanted, &current),
            json!({"metadata": {"labels": {"b": null}}})
        );
    }

    #[test]
    fn a_list_of_another_length_is_sent_whole() {
        let current = json!({"spec": {"ports": [{"port": 80}, {"port": 81}]}});
        let wanted = json!({"spec": {"ports": [{"port": 80}]}});
        assert_eq!(
            merge_patch(&Value::Null, &wanted, &current),
            json!({"spec": {"ports": [{"port": 80}]}})
        );
    }
}
