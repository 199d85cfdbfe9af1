//! The scale subresource (`autoscaling/v1` Scale) of Deployments and ReplicaSets.

use crate::cause::Cause;
use crate::meta;
use crate::selector::LabelSelector;
use crate::validate;
use crate::value::{at, int_at, set, str_at};
use serde_json::{Map, Value, json};

/// The Scale of an object.
pub fn of(object: &Value) -> Value {
    let mut metadata = Map::new();
    for field in [
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "creationTimestamp",
    ] {
        let text = str_at(at(object, "metadata"), field);
        if !text.is_empty() {
            metadata.insert(field.to_owned(), text.into());
        }
    }
    let selector = LabelSelector::from_object(at(object, "spec.selector")).unwrap_or_default();
    json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": int_at(object, "spec.replicas").unwrap_or(0)},
        "status": {
            "replicas": int_at(object, "status.replicas").unwrap_or(0),
            "selector": selector.to_string(),
        },
    })
}

/// Writes the replicas of a Scale, and its resourceVersion as precondition,
/// into the object; or says what is wrong with the Scale.
pub fn apply(object: &mut Value, scale: &Value) -> Result<(), Vec<Cause>> {
    let replicas = int_at(scale, "spec.replicas").unwrap_or(0);
    let causes: Vec<Cause> = validate::not_negative("spec.replicas", &replicas.into())
        .into_iter()
        .collect();
    if !causes.is_empty() {
        return Err(causes);
    }
    set(object, "spec.replicas", replicas);
    let version = meta::resource_version(scale);
    if !version.is_empty() {
        meta::set_resource_version(object, version);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let mut object = json!({"metadata": {"name": "web", "uid": "1", "labels": {"a": "b"}},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}}, "status": {"replicas": 2}});
        let mut scale = of(&object);
        assert_eq!(scale["spec"], json!({"replicas": 3}));
        assert_eq!(
            scale["status"],
            json!({"replicas": 2, "selector": "app=web"})
        );
        scale["spec"]["replicas"] = json!(5);
        apply(&mut object, &scale).unwrap();
        assert_eq!(object["spec"]["replicas"], 5);
        scale["spec"]["replicas"] = json!(-1);
        assert_eq!(
            apply(&mut object, &scale).unwrap_err()[0].field,
            "spec.replicas"
        );
    }
}
