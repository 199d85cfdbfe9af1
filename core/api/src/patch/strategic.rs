//! Strategic merge patch: a merge patch whose lists are merged by keys.
//!
//! Directives in the patch:
//! - `$patch: replace | delete` in a map says what becomes of the map,
//!   in an element of a list what becomes of the element (or, alone with
//!   `replace`, of the list);
//! - `$retainKeys: [...]` names the fields of a map that stay;
//! - `$deleteFromPrimitiveList/FIELD: [...]` removes from a list of texts;
//! - `$setElementOrder/FIELD: [...]` says in which order the merged list is.

use super::{PatchError, go_value};
use crate::kinds::Kind;
use crate::schema;
use crate::value::str_at;
use serde_json::{Map, Value};

const PATCH: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_FROM: &str = "$deleteFromPrimitiveList/";
const SET_ORDER: &str = "$setElementOrder/";

/// The schema of a place, if it is known.
type Schema<'a> = Option<&'a Value>;

/// The object after the patch, by the merge keys of the kind's schema.
pub fn strategic_merge_patch(
    kind: &Kind,
    object: &Value,
    patch: &Value,
) -> Result<Value, PatchError> {
    let Value::Object(patch) = patch else {
        return Err(super::no_map("", patch));
    };
    let original = object.as_object().cloned().unwrap_or_default();
    merge_map(original, patch, schema::of_kind(kind)).map(Value::Object)
}

fn malformed(message: &str) -> PatchError {
    PatchError::Malformed(message.to_owned())
}

fn unknown_directive(name: &str, patch: &Map<String, Value>) -> PatchError {
    let patch = go_value(&Value::Object(patch.clone()));
    PatchError::Odd(format!("unknown patch type: {name} in map: {patch}"))
}

fn merge_map(
    mut original: Map<String, Value>,
    patch: &Map<String, Value>,
    schema: Schema<'_>,
) -> Result<Map<String, Value>, PatchError> {
    match patch
        .get(PATCH)
        .map(|directive| directive.as_str().unwrap_or(""))
    {
        Some("replace") => {
            let rest: Map<String, Value> = patch
                .iter()
                .filter(|(key, _)| *key != PATCH)
                .map(owned)
                .collect();
            return Ok(rest);
        }
        Some("delete") => return Ok(Map::new()),
        Some(other) => return Err(unknown_directive(other, patch)),
        None => {}
    }
    retain_keys(&mut original, patch)?;
    delete_primitives(&mut original, patch)?;
    for (key, change) in patch.iter().filter(|(key, _)| !key.starts_with('$')) {
        let property = schema.and_then(|schema| schema::property(schema, key));
        let merged = match (original.remove(key), change) {
            (_, Value::Null) => continue,
            (Some(Value::Object(old)), Value::Object(change)) => {
                Value::Object(merge_map(old, change, property)?)
            }
            (None, Value::Object(change)) => {
                Value::Object(merge_map(Map::new(), change, property)?)
            }
            (Some(Value::Array(old)), Value::Array(change)) => merge_list(old, change, property)?,
            (None, Value::Array(change)) => merge_list(Vec::new(), change, property)?,
            (Some(_) | None, change) => change.clone(),
        };
        original.insert(key.clone(), merged);
    }
    for (key, order) in patch {
        let Some(field) = key.strip_prefix(SET_ORDER) else {
            continue;
        };
        let Some(order) = order.as_array() else {
            return Err(malformed("invalid patch format of setElementOrder list"));
        };
        let property = schema.and_then(|schema| schema::property(schema, field));
        if let Some(Value::Array(list)) = patch.get(field) {
            check_order(list, order, merge_key(property).unwrap_or(""))?;
        }
        if let Some(Value::Array(list)) = original.get_mut(field) {
            let merged = std::mem::take(list);
            *list = ordered(merged, order, merge_key(property));
        }
    }
    Ok(original)
}

fn owned((key, value): (&String, &Value)) -> (String, Value) {
    (key.clone(), value.clone())
}

fn retain_keys(
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<(), PatchError> {
    let Some(keys) = patch.get(RETAIN_KEYS) else {
        return Ok(());
    };
    let Some(keys) = keys.as_array() else {
        return Err(malformed("invalid patch format of retainKeys"));
    };
    let listed = |key: &str| keys.iter().any(|item| item.as_str() == Some(key));
    let unlisted = patch
        .iter()
        .find(|(key, value)| !key.starts_with('$') && !value.is_null() && !listed(key));
    if unlisted.is_some() {
        return Err(malformed("invalid patch format of retainKeys"));
    }
    original.retain(|key, _| listed(key));
    Ok(())
}

fn delete_primitives(
    original: &mut Map<String, Value>,
    patch: &Map<String, Value>,
) -> Result<(), PatchError> {
    for (key, gone) in patch {
        let Some(field) = key.strip_prefix(DELETE_FROM) else {
            continue;
        };
        let Some(gone) = gone.as_array() else {
            return Err(malformed("invalid patch format of primitive list"));
        };
        if let Some(Value::Array(list)) = original.get_mut(field) {
            list.retain(|item| !gone.contains(item));
        }
    }
    Ok(())
}

/// The merge key of a list, "" for a list of plain values, `None` for a list
/// that is replaced.
fn merge_key(schema: Schema<'_>) -> Option<&str> {
    let schema = schema?;
    let merges = str_at(schema, "x-kubernetes-patch-strategy")
        .split(',')
        .any(|word| word == "merge");
    merges.then(|| str_at(schema, "x-kubernetes-patch-merge-key"))
}

fn merge_list(
    original: Vec<Value>,
    patch: &[Value],
    schema: Schema<'_>,
) -> Result<Value, PatchError> {
    let Some(key) = merge_key(schema) else {
        return Ok(Value::Array(plain(patch)));
    };
    if key.is_empty() {
        let mut merged = original.clone();
        for item in patch
            .iter()
            .filter(|item| !merged.contains(item))
            .cloned()
            .collect::<Vec<_>>()
        {
            merged.push(item);
        }
        return Ok(Value::Array(interleaved(merged, patch, &original, "")));
    }
    let is_replace = |item: &Value| str_at(item, PATCH) == "replace";
    if patch.iter().any(is_replace) {
        let rest: Vec<Value> = patch
            .iter()
            .filter(|item| item.get(PATCH).is_none())
            .cloned()
            .collect();
        return Ok(Value::Array(rest));
    }
    let item_schema = schema.and_then(schema::items);
    let mut merged = original.clone();
    for item in patch {
        let Value::Object(change) = item else {
            return Err(PatchError::Odd(format!(
                "a list merged by {key} holds something that is no object"
            )));
        };
        let Some(id) = change.get(key) else {
            return Err(PatchError::Odd(format!(
                "map: {} does not contain declared merge key: {key}",
                go_value(item)
            )));
        };
        let same = |candidate: &Value| candidate.get(key) == Some(id);
        match item
            .get(PATCH)
            .map(|directive| directive.as_str().unwrap_or(""))
        {
            Some("delete") => {
                merged.retain(|candidate| !same(candidate));
                continue;
            }
            Some("merge") => {
                return Err(PatchError::Odd(
                    "merging lists cannot yet be specified in the patch".to_owned(),
                ));
            }
            Some(other) => return Err(unknown_directive(other, change)),
            None => {}
        }
        match merged.iter().position(same) {
            Some(index) => {
                let old = merged[index].as_object().cloned().unwrap_or_default();
                merged[index] = Value::Object(merge_map(old, change, item_schema)?);
            }
            None => merged.push(Value::Object(merge_map(Map::new(), change, item_schema)?)),
        }
    }
    Ok(Value::Array(interleaved(merged, patch, &original, key)))
}

/// A list that replaces another, without directives and nulls in its elements.
fn plain(list: &[Value]) -> Vec<Value> {
    list.iter()
        .filter(|item| item.get(PATCH).is_none())
        .cloned()
        .collect()
}

/// What a patch brings must be in its own order, all of it.
fn check_order(list: &[Value], order: &[Value], key: &str) -> Result<(), PatchError> {
    if list.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut wanted = order.iter();
    let brought = list.iter().filter(|item| item.get(PATCH).is_none());
    for item in brought {
        let id = identity(item, key);
        if !wanted.any(|candidate| identity(candidate, key) == id) {
            let list = go_value(&Value::Array(list.to_vec()));
            let order = go_value(&Value::Array(order.to_vec()));
            return Err(PatchError::Odd(format!(
                "The order in patch list:\n{list}\n doesn't match $setElementOrder list:\n{order}\n"
            )));
        }
    }
    Ok(())
}

fn ordered(merged: Vec<Value>, order: &[Value], key: Option<&str>) -> Vec<Value> {
    let original = merged.clone();
    interleaved(merged, order, &original, key.unwrap_or(""))
}

/// Elements that `order` names come in its order; the others keep theirs, and
/// their place relative to those that were in the original too.
fn interleaved(merged: Vec<Value>, order: &[Value], original: &[Value], key: &str) -> Vec<Value> {
    let position = |list: &[Value], item: &Value| {
        let id = identity(item, key);
        list.iter()
            .position(|candidate| identity(candidate, key) == id)
    };
    let (mut named, mut others): (Vec<Value>, Vec<Value>) = merged
        .into_iter()
        .partition(|item| position(order, item).is_some());
    named.sort_by_key(|item| position(order, item));
    others.sort_by_key(|item| position(original, item));
    let mut result = Vec::with_capacity(named.len() + others.len());
    let mut named = named.into_iter().peekable();
    let mut others = others.into_iter().peekable();
    loop {
        let other_first = match (others.peek(), named.peek()) {
            (None, None) => return result,
            (Some(_), None) => true,
            (None, Some(_)) => false,
            (Some(other), Some(name)) => {
                match (position(original, other), position(original, name)) {
                    (Some(other), Some(name)) => other < name,
                    (Some(_) | None, _) => false,
                }
            }
        };
        let next = if other_first {
            others.next()
        } else {
            named.next()
        };
        result.extend(next);
    }
}

/// What tells elements apart: the merge key's value, or the element itself.
fn identity<'a>(item: &'a Value, key: &str) -> &'a Value {
    match item {
        Value::Object(map) if !key.is_empty() => map.get(key).unwrap_or(item),
        Value::Null
        | Value::Bool(_)
        | Value::Number(_)
        | Value::String(_)
        | Value::Array(_)
        | Value::Object(_) => item,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::{deployment, pod, service};
    use serde_json::json;

    fn patched(kind: &Kind, object: Value, patch: Value) -> Value {
        strategic_merge_patch(kind, &object, &patch).unwrap()
    }

    #[test]
    fn service_ports_merge_by_port_alone() {
        let object = json!({"spec": {"ports": [{"port": 80, "protocol": "TCP", "name": "a"}, {"port": 81, "name": "b"}], "clusterIPs": ["x"]}});
        let got = patched(
            &service::KIND,
            object,
            json!({"spec": {"ports": [{"port": 80, "targetPort": 8080}], "clusterIPs": ["y"]}}),
        );
        assert_eq!(
            got,
            json!({"spec": {"ports": [{"port": 80, "protocol": "TCP", "name": "a", "targetPort": 8080}, {"port": 81, "name": "b"}], "clusterIPs": ["y"]}})
        );
        let pair = json!({"spec": {"ports": [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]}});
        let got = patched(
            &service::KIND,
            pair,
            json!({"spec": {"ports": [{"port": 53, "protocol": "TCP", "name": "x"}]}}),
        );
        assert_eq!(
            got["spec"]["ports"][0]["protocol"], "TCP",
            "the first of the pair is hit, which validation refuses"
        );
    }

    fn container(name: &str) -> Value {
        json!({"name": name, "image": "i"})
    }

    fn pod_of(containers: &[&str]) -> Value {
        json!({"spec": {"containers": containers.iter().map(|name| container(name)).collect::<Vec<_>>()}})
    }

    fn names(object: &Value) -> Vec<&str> {
        object["spec"]["containers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["name"].as_str().unwrap())
            .collect()
    }

    #[test]
    fn containers_merge_by_name_and_delete_by_directive() {
        let got = patched(
            &pod::KIND,
            pod_of(&["a", "b"]),
            json!({"spec": {"containers": [{"name": "b", "image": "new"}]}}),
        );
        assert_eq!(names(&got), ["a", "b"]);
        assert_eq!(got["spec"]["containers"][1]["image"], "new");
        let got = patched(
            &pod::KIND,
            pod_of(&["a", "b"]),
            json!({"spec": {"containers": [{"name": "a", "$patch": "delete"}]}}),
        );
        assert_eq!(names(&got), ["b"]);
        let got = patched(
            &pod::KIND,
            pod_of(&["a", "b"]),
            json!({"spec": {"containers": [{"$patch": "replace"}, container("c")]}}),
        );
        assert_eq!(names(&got), ["c"]);
        let missing = strategic_merge_patch(
            &pod::KIND,
            &pod_of(&["a"]),
            &json!({"spec": {"containers": [{"image": "x"}]}}),
        );
        assert_eq!(
            missing.unwrap_err().to_string(),
            "map: map[image:x] does not contain declared merge key: name"
        );
    }

    #[test]
    fn set_element_order() {
        let patch = |order: &[&str], containers: &[&str]| {
            let order: Vec<Value> = order.iter().map(|name| json!({"name": name})).collect();
            let containers: Vec<Value> = containers.iter().map(|name| container(name)).collect();
            json!({"spec": {"$setElementOrder/containers": order, "containers": containers}})
        };
        let got = patched(
            &pod::KIND,
            pod_of(&["a", "b"]),
            patch(&["b", "c", "a"], &["c"]),
        );
        assert_eq!(names(&got), ["b", "c", "a"]);
        let got = patched(
            &pod::KIND,
            pod_of(&["a", "x", "b"]),
            patch(&["a", "c", "b"], &["c"]),
        );
        assert_eq!(
            names(&got),
            ["a", "c", "x", "b"],
            "x stays between its neighbours"
        );
        let got = patched(
            &pod::KIND,
            pod_of(&["a", "b"]),
            json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}]}}),
        );
        assert_eq!(names(&got), ["b", "a"]);
    }

    #[test]
    fn lists_of_plain_values() {
        let object = json!({"metadata": {"finalizers": ["a", "b"]}});
        let got = patched(
            &pod::KIND,
            object.clone(),
            json!({"metadata": {"finalizers": ["c"], "$deleteFromPrimitiveList/finalizers": ["a"], "$setElementOrder/finalizers": ["b", "c"]}}),
        );
        assert_eq!(got["metadata"]["finalizers"], json!(["b", "c"]));
        let got = patched(
            &pod::KIND,
            json!({"spec": {"tolerations": [{"key": "a"}]}}),
            json!({"spec": {"tolerations": [{"key": "b"}]}}),
        );
        assert_eq!(got["spec"]["tolerations"], json!([{"key": "b"}]), "atomic");
    }

    #[test]
    fn retain_keys_and_replace() {
        let object = json!({"spec": {"strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1}}}});
        let got = patched(
            &deployment::KIND,
            object.clone(),
            json!({"spec": {"strategy": {"$retainKeys": ["type"], "type": "Recreate"}}}),
        );
        assert_eq!(got["spec"]["strategy"], json!({"type": "Recreate"}));
        let got = patched(
            &deployment::KIND,
            object.clone(),
            json!({"spec": {"strategy": {"$patch": "replace", "type": "Recreate"}}}),
        );
        assert_eq!(got["spec"]["strategy"], json!({"type": "Recreate"}));
        assert!(
            strategic_merge_patch(
                &deployment::KIND,
                &object,
                &json!({"spec": {"strategy": {"$retainKeys": [], "type": "x"}}})
            )
            .is_err()
        );
        let volume =
            json!({"spec": {"template": {"spec": {"volumes": [{"name": "v", "emptyDir": {}}]}}}});
        let got = patched(
            &deployment::KIND,
            volume,
            json!({"spec": {"template": {"spec": {"volumes": [{"$retainKeys": ["name", "configMap"], "name": "v", "configMap": {"name": "c"}}]}}}}),
        );
        assert_eq!(
            got["spec"]["template"]["spec"]["volumes"],
            json!([{"name": "v", "configMap": {"name": "c"}}])
        );
    }

    #[test]
    fn nulls_remove_and_never_enter() {
        let object = json!({"metadata": {"labels": {"a": "1", "b": "2"}}});
        let got = patched(
            &pod::KIND,
            object,
            json!({"metadata": {"labels": {"a": null}, "annotations": {"x": "1", "y": null}}, "spec": {"containers": [{"name": "a", "tty": null}]}}),
        );
        assert_eq!(
            got,
            json!({"metadata": {"labels": {"b": "2"}, "annotations": {"x": "1"}}, "spec": {"containers": [{"name": "a"}]}})
        );
    }

    #[test]
    fn what_is_wrong_with_a_patch() {
        let failure = |patch: Value| {
            let object =
                json!({"spec": {"containers": [container("a"), container("b")], "x": {"y": 1}}});
            strategic_merge_patch(&pod::KIND, &object, &patch).unwrap_err()
        };
        let odd = |text: &str| PatchError::Odd(text.to_owned());
        let bad = |text: &str| PatchError::Malformed(text.to_owned());
        let cases = [
            (
                json!([]),
                bad("json: cannot unmarshal array into Go value of type map[string]interface {}"),
            ),
            (
                json!({"spec": {"$patch": "merge", "x": 1}}),
                odd("unknown patch type: merge in map: map[$patch:merge x:1]"),
            ),
            (
                json!({"spec": {"containers": [{"$patch": "merge", "name": "a"}]}}),
                odd("merging lists cannot yet be specified in the patch"),
            ),
            (
                json!({"spec": {"containers": [{"$patch": "jump", "name": "a"}]}}),
                odd("unknown patch type: jump in map: map[$patch:jump name:a]"),
            ),
            (
                json!({"spec": {"$retainKeys": "x"}}),
                bad("invalid patch format of retainKeys"),
            ),
            (
                json!({"spec": {"$setElementOrder/containers": 1}}),
                bad("invalid patch format of setElementOrder list"),
            ),
            (
                json!({"spec": {"$deleteFromPrimitiveList/x": 1}}),
                bad("invalid patch format of primitive list"),
            ),
            (
                json!({"spec": {"$setElementOrder/containers": [{"name": "b"}, {"name": "a"}], "containers": [{"name": "a"}, {"name": "b"}]}}),
                odd(
                    "The order in patch list:\n[map[name:a] map[name:b]]\n doesn't match $setElementOrder list:\n[map[name:b] map[name:a]]\n",
                ),
            ),
        ];
        for (patch, want) in cases {
            assert_eq!(failure(patch.clone()), want, "{patch}");
        }
    }
}
