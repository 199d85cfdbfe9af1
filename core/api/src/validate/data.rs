//! Rules for the small kinds: ConfigMap, Event, Namespace.

use super::{IMMUTABLE, invalid, names};
use crate::cause::Cause;
use crate::meta;
use crate::value::{at, bool_at, map_at, str_at};
use serde_json::Value;

/// The bytes that a ConfigMap or Secret may hold.
pub(super) const DATA_MAX: usize = 1024 * 1024;

/// ConfigMap.
pub fn config_map(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    if let Some(old) = old.filter(|old| bool_at(old, "immutable")) {
        causes.extend(frozen(object, old, &["data", "binaryData"]));
    }
    let mut size = 0;
    for (field, other) in [("data", "binaryData"), ("binaryData", "data")] {
        for (key, value) in map_at(object, field).into_iter().flatten() {
            causes.extend(invalid(
                &format!("{field}[{key}]"),
                &key.as_str().into(),
                names::config_key(key),
            ));
            if map_at(object, other).is_some_and(|data| data.contains_key(key)) {
                causes.push(Cause::invalid(
                    format!("{field}[{key}]"),
                    &key.as_str().into(),
                    &format!("duplicate of key present in {other}"),
                ));
            }
            let text = value.as_str().unwrap_or("");
            size += match field {
                "data" => text.len(),
                _ => decoded(text),
            };
        }
    }
    if size > DATA_MAX {
        // An empty path, which Kubernetes prints as `[]`.
        causes.push(Cause::too_long("[]", DATA_MAX));
    }
    causes
}

/// The bytes that a base64 text stands for.
pub(super) fn decoded(text: &str) -> usize {
    let text = text.trim_end_matches('=');
    text.len() / 4 * 3 + (text.len() % 4).saturating_sub(1)
}

/// What an immutable ConfigMap or Secret keeps.
pub(super) fn frozen(object: &Value, old: &Value, fields: &[&str]) -> Vec<Cause> {
    let mut causes = Vec::new();
    if !bool_at(object, "immutable") {
        let message = "field is immutable when `immutable` is set";
        causes.push(Cause::forbidden("immutable", message));
    }
    for field in fields {
        if at(object, field) != at(old, field) {
            let message = "field is immutable when `immutable` is set";
            causes.push(Cause::forbidden(*field, message));
        }
    }
    causes
}

/// Event.
pub fn event(object: &Value, _old: Option<&Value>) -> Vec<Cause> {
    let namespace = meta::namespace(object);
    let involved = str_at(object, "involvedObject.namespace");
    // What belongs to no namespace has its events in `default`.
    let fits = match involved {
        "" => namespace.is_empty() || namespace == "default",
        _ => involved == namespace,
    };
    match fits {
        true => Vec::new(),
        false => vec![Cause::invalid(
            "involvedObject.namespace",
            &involved.into(),
            "does not match event.namespace",
        )],
    }
}

/// Namespace.
pub fn namespace(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (index, finalizer) in crate::value::strings_at(object, "spec.finalizers")
        .iter()
        .enumerate()
    {
        let messages = names::qualified_name(finalizer);
        causes.extend(invalid(
            &format!("spec.finalizers[{index}]"),
            &(*finalizer).into(),
            messages,
        ));
    }
    let label = meta::label(object, crate::kinds::namespace::NAME_LABEL);
    if old.is_some() && label != Some(meta::name(object)) {
        causes.push(Cause::invalid(
            "metadata.labels",
            &label.unwrap_or("").into(),
            IMMUTABLE,
        ));
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn config_maps() {
        assert!(
            config_map(
                &json!({"data": {"a.b": "x"}, "binaryData": {"c": "eA=="}}),
                None
            )
            .is_empty()
        );
        assert_eq!(
            config_map(&json!({"data": {"a b": "x"}}), None)[0].field,
            "data[a b]"
        );
        assert_eq!(
            config_map(&json!({"data": {"a": ""}, "binaryData": {"a": ""}}), None)[0].field,
            "data[a]"
        );
        let binary = |size: usize| json!({"binaryData": {"a": "A".repeat(size.div_ceil(3) * 4)}});
        assert!(config_map(&binary(DATA_MAX - 2), None).is_empty());
        assert_eq!(config_map(&binary(DATA_MAX + 3), None).len(), 1);
        let big = config_map(&json!({"data": {"a": "x".repeat(DATA_MAX + 1)}}), None);
        assert_eq!(
            big[0].to_string(),
            "[]: Too long: may not be more than 1048576 bytes"
        );
        let old = json!({"immutable": true, "data": {"a": "1"}});
        let new = json!({"immutable": true, "data": {"a": "2"}});
        assert_eq!(
            config_map(&new, Some(&old))[0].to_string(),
            "data: Forbidden: field is immutable when `immutable` is set"
        );
    }
}
