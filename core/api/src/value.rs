//! Reading and writing fields of untyped objects without panics.
//!
//! Paths are field names joined by dots (`spec.clusterIP`); what is missing or
//! of another type reads as empty. Keys with dots in them (labels) need
//! [`crate::meta`].

use serde_json::{Map, Value};

static NULL: Value = Value::Null;

/// The value at `path`, or null.
pub fn at<'a>(object: &'a Value, path: &str) -> &'a Value {
    path.split('.')
        .try_fold(object, |value, key| value.get(key))
        .unwrap_or(&NULL)
}

/// The text at `path`, or "".
pub fn str_at<'a>(object: &'a Value, path: &str) -> &'a str {
    at(object, path).as_str().unwrap_or("")
}

/// The integer at `path`, if there is one.
pub fn int_at(object: &Value, path: &str) -> Option<i64> {
    at(object, path).as_i64()
}

/// The boolean at `path`, or false.
pub fn bool_at(object: &Value, path: &str) -> bool {
    at(object, path).as_bool().unwrap_or(false)
}

/// The elements of the list at `path`, or none.
pub fn list_at<'a>(object: &'a Value, path: &str) -> &'a [Value] {
    at(object, path).as_array().map_or(&[], Vec::as_slice)
}

/// The texts of the list at `path`; elements that are no text are left out.
pub fn strings_at<'a>(object: &'a Value, path: &str) -> Vec<&'a str> {
    list_at(object, path)
        .iter()
        .filter_map(Value::as_str)
        .collect()
}

/// The map at `path`, if there is one.
pub fn map_at<'a>(object: &'a Value, path: &str) -> Option<&'a Map<String, Value>> {
    at(object, path).as_object()
}

/// Whether `path` holds something other than null.
pub fn has(object: &Value, path: &str) -> bool {
    !at(object, path).is_null()
}

/// The place at `path` to write to; missing or mistyped parents become maps.
pub fn place<'a>(object: &'a mut Value, path: &str) -> &'a mut Value {
    path.split('.').fold(object, |value, key| {
        map_mut(value).entry(key).or_insert(Value::Null)
    })
}

/// The elements at `path` to change, or none.
pub fn list_at_mut<'a>(object: &'a mut Value, path: &str) -> &'a mut [Value] {
    let mut value = object;
    for key in path.split('.') {
        match value.get_mut(key) {
            Some(next) => value = next,
            None => return &mut [],
        }
    }
    value.as_array_mut().map_or(&mut [], Vec::as_mut_slice)
}

/// The value at `path` to change, if it exists.
pub fn at_mut<'a>(object: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    path.split('.')
        .try_fold(object, |value, key| value.get_mut(key))
}

/// Writes `value` at `path`.
pub fn set(object: &mut Value, path: &str, value: impl Into<Value>) {
    *place(object, path) = value.into();
}

/// Writes `value` at `path` where nothing, or null, is.
pub fn set_default(object: &mut Value, path: &str, value: impl Into<Value>) {
    if !has(object, path) {
        set(object, path, value);
    }
}

/// Writes `value` at `path` where nothing, null or an empty text is.
///
/// For fields whose zero value means "not given", as most text fields of
/// Kubernetes.
pub fn set_default_text(object: &mut Value, path: &str, value: &str) {
    if str_at(object, path).is_empty() {
        set(object, path, value);
    }
}

/// Removes the field at `path` and returns it.
pub fn remove(object: &mut Value, path: &str) -> Option<Value> {
    let (parent, key) = match path.rsplit_once('.') {
        Some((parent, key)) => (at_mut(object, parent)?, key),
        None => (object, path),
    };
    parent.as_object_mut()?.remove(key)
}

/// Makes the field at `path` in `to` what it is in `from`, absence included.
pub fn copy(from: &Value, to: &mut Value, path: &str) {
    let value = at(from, path);
    if value.is_null() {
        drop(remove(to, path));
    } else {
        set(to, path, value.clone());
    }
}

/// The value as a map; anything else becomes an empty map first.
pub fn map_mut(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            unreachable!("made a map above")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn missing_reads_as_empty() {
        let object = json!({"spec": {"ports": 3}});
        assert_eq!(str_at(&object, "spec.type"), "");
        assert!(list_at(&object, "spec.ports").is_empty());
        assert_eq!(int_at(&object, "spec.ports"), Some(3));
        assert!(!has(&object, "a.b.c"));
    }

    #[test]
    fn set_makes_parents_and_remove_takes_one_field() {
        let mut object = json!({});
        set(&mut object, "spec.strategy.type", "Recreate");
        set_default(&mut object, "spec.strategy.type", "RollingUpdate");
        assert_eq!(object, json!({"spec": {"strategy": {"type": "Recreate"}}}));
        assert_eq!(
            remove(&mut object, "spec.strategy.type"),
            Some(json!("Recreate"))
        );
        assert_eq!(remove(&mut object, "spec.no.type"), None);
    }
}
