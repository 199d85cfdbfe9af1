//! The scale subresource (`autoscaling/v1` Scale) of workloads and of custom
//! resources whose definition says where the numbers are.

use crate::cause::Cause;
use crate::kinds::Kind;
use crate::meta;
use crate::selector::LabelSelector;
use crate::validate;
use crate::value::{at, int_at, set, str_at};
use serde_json::{Map, Value, json};

/// Where the replicas are that a kind's Scale sets.
fn wanted_path(kind: &Kind) -> &str {
    let custom = kind.custom.as_ref().and_then(|custom| custom.scale());
    custom.map_or("spec.replicas", |(spec, _, _)| spec)
}

/// The Scale of an object.
pub fn of(kind: &Kind, object: &Value) -> Value {
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
    let custom = kind.custom.as_ref().and_then(|custom| custom.scale());
    let (status, selector) = match custom {
        None => {
            let selector = LabelSelector::from_object(at(object, "spec.selector"));
            let selector = selector.unwrap_or_default().to_string();
            ("status.replicas", Some(selector))
        }
        Some((_, status, path)) => {
            let selector = path.map(|path| str_at(object, path).to_owned());
            (status, selector.filter(|text| !text.is_empty()))
        }
    };
    let mut scale = json!({
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": metadata,
        "spec": {"replicas": int_at(object, wanted_path(kind)).unwrap_or(0)},
        "status": {"replicas": int_at(object, status).unwrap_or(0)},
    });
    if let Some(selector) = selector {
        set(&mut scale, "status.selector", selector);
    }
    scale
}

/// Writes the replicas of a Scale, and its resourceVersion as precondition,
/// into the object; or says what is wrong with the Scale.
pub fn apply(kind: &Kind, object: &mut Value, scale: &Value) -> Result<(), Vec<Cause>> {
    let replicas = int_at(scale, "spec.replicas").unwrap_or(0);
    let causes: Vec<Cause> = validate::not_negative("spec.replicas", &replicas.into())
        .into_iter()
        .collect();
    if !causes.is_empty() {
        return Err(causes);
    }
    set(object, wanted_path(kind), replicas);
    let version = meta::resource_version(scale);
    if !version.is_empty() {
        meta::set_resource_version(object, version);
    }
    Ok(())
}

/// What applying this Scale means for the object: the replicas alone, if it
/// says any.
pub fn config(kind: &Kind, scale: &Value) -> Value {
    let mut config = json!({
        "apiVersion": kind.api_version(),
        "kind": kind.kind,
        "metadata": {"name": meta::name(scale), "namespace": meta::namespace(scale)},
    });
    let replicas = at(scale, "spec.replicas");
    if !replicas.is_null() {
        set(&mut config, wanted_path(kind), replicas.clone());
    }
    config
}

/// The replicas that an object wants, as a Scale of these.
pub fn wanted(kind: &Kind, object: &Value) -> Value {
    json!({"spec": {"replicas": int_at(object, wanted_path(kind)).unwrap_or(0)}})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::deployment::KIND;

    #[test]
    fn there_and_back() {
        let mut object = json!({"metadata": {"name": "web", "uid": "1", "labels": {"a": "b"}},
            "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}}}, "status": {"replicas": 2}});
        let mut scale = of(&KIND, &object);
        assert_eq!(scale["spec"], json!({"replicas": 3}));
        assert_eq!(
            scale["status"],
            json!({"replicas": 2, "selector": "app=web"})
        );
        scale["spec"]["replicas"] = json!(5);
        apply(&KIND, &mut object, &scale).unwrap();
        assert_eq!(object["spec"]["replicas"], 5);
        scale["spec"]["replicas"] = json!(-1);
        assert_eq!(
            apply(&KIND, &mut object, &scale).unwrap_err()[0].field,
            "spec.replicas"
        );
    }
}
