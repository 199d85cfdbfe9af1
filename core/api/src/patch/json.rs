//! JSON Patch (RFC 6902).

use super::PatchError;
use crate::value::str_at;
use serde_json::Value;

/// How many operations one patch may have, as in kube-apiserver.
const MAX_OPERATIONS: usize = 10_000;

/// The object after all operations, or why one of them fails; then none counts.
pub fn json_patch(object: &Value, patch: &Value) -> Result<Value, PatchError> {
    let Some(operations) = patch.as_array() else {
        return Err(malformed("a JSON patch must be an array of operations"));
    };
    if operations.len() > MAX_OPERATIONS {
        let message = format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        );
        return Err(malformed(&message));
    }
    let mut result = object.clone();
    for operation in operations {
        apply(&mut result, operation)?;
    }
    Ok(result)
}

fn malformed(message: &str) -> PatchError {
    PatchError::Malformed(message.to_owned())
}

fn apply(object: &mut Value, operation: &Value) -> Result<(), PatchError> {
    let path = pointer(operation, "path")?;
    let value = || {
        operation
            .get("value")
            .cloned()
            .ok_or_else(|| malformed("an operation lacks its value"))
    };
    match str_at(operation, "op") {
        "add" => add(object, &path, value()?),
        "remove" => remove(object, &path).map(drop),
        "replace" => {
            *existing(object, &path)? = value()?;
            Ok(())
        }
        "move" => {
            let from = pointer(operation, "from")?;
            if path.len() > from.len() && path.starts_with(&from) {
                return Err(malformed("a value cannot be moved into itself"));
            }
            let moved = remove(object, &from)?;
            add(object, &path, moved)
        }
        "copy" => {
            let from = pointer(operation, "from")?;
            let copied = existing(object, &from)?.clone();
            add(object, &path, copied)
        }
        "test" => {
            let wanted = value()?;
            // A missing place equals null, as in the library that Kubernetes uses.
            let found = existing(object, &path).map_or(Value::Null, |found| found.clone());
            match found == wanted {
                true => Ok(()),
                false => Err(PatchError::DoesNotApply(format!(
                    "testing value {} failed: test failed",
                    text(&path)
                ))),
            }
        }
        other => Err(malformed(&format!("Unexpected kind: {other}"))),
    }
}

/// The unescaped steps of a JSON pointer (RFC 6901).
fn pointer(operation: &Value, field: &str) -> Result<Vec<String>, PatchError> {
    let text = operation
        .get(field)
        .and_then(Value::as_str)
        .ok_or_else(|| malformed(&format!("an operation lacks its {field}")))?;
    match text.strip_prefix('/') {
        None if text.is_empty() => Ok(Vec::new()),
        None => Err(malformed(&format!(
            "{field} {text:?} does not start with a slash"
        ))),
        Some(rest) => Ok(rest
            .split('/')
            .map(|step| step.replace("~1", "/").replace("~0", "~"))
            .collect()),
    }
}

fn text(path: &[String]) -> String {
    path.iter().map(|step| format!("/{step}")).collect()
}

fn missing(path: &[String]) -> PatchError {
    PatchError::DoesNotApply(format!(
        "doc is missing path: {}: missing value",
        text(path)
    ))
}

fn existing<'a>(object: &'a mut Value, path: &[String]) -> Result<&'a mut Value, PatchError> {
    let mut value = object;
    for step in path {
        let next = match value {
            Value::Object(map) => map.get_mut(step),
            Value::Array(list) => index(step).and_then(|index| list.get_mut(index)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        };
        value = next.ok_or_else(|| missing(path))?;
    }
    Ok(value)
}

/// An index without leading zeros.
fn index(step: &str) -> Option<usize> {
    let canonical =
        step == "0" || (!step.starts_with('0') && step.bytes().all(|byte| byte.is_ascii_digit()));
    step.parse().ok().filter(|_| canonical && !step.is_empty())
}

fn add(object: &mut Value, path: &[String], new: Value) -> Result<(), PatchError> {
    let Some((last, parents)) = path.split_last() else {
        *object = new;
        return Ok(());
    };
    match existing(object, parents).map_err(|_parent| missing(path))? {
        Value::Object(map) => {
            map.insert(last.clone(), new);
            Ok(())
        }
        Value::Array(list) if last == "-" => {
            list.push(new);
            Ok(())
        }
        Value::Array(list) => match index(last).filter(|index| *index <= list.len()) {
            Some(index) => {
                list.insert(index, new);
                Ok(())
            }
            None => Err(PatchError::DoesNotApply(format!(
                "Unable to access invalid index: {last}: invalid index referenced"
            ))),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Err(missing(path)),
    }
}

fn remove(object: &mut Value, path: &[String]) -> Result<Value, PatchError> {
    let Some((last, parents)) = path.split_last() else {
        return Ok(object.take());
    };
    let removed = match existing(object, parents).map_err(|_parent| missing(path))? {
        Value::Object(map) => map.remove(last),
        Value::Array(list) => index(last)
            .filter(|index| *index < list.len())
            .map(|index| list.remove(index)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
    };
    removed.ok_or_else(|| missing(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Object, patch, and the result if the patch applies.
    const CASES: &[(&str, &str, Option<&str>)] = &[
        (
            r#"{"a":1}"#,
            r#"[{"op":"add","path":"/b","value":2}]"#,
            Some(r#"{"a":1,"b":2}"#),
        ),
        (
            r#"{"a":[1,3]}"#,
            r#"[{"op":"add","path":"/a/1","value":2}]"#,
            Some(r#"{"a":[1,2,3]}"#),
        ),
        (
            r#"{"a":[1]}"#,
            r#"[{"op":"add","path":"/a/-","value":2}]"#,
            Some(r#"{"a":[1,2]}"#),
        ),
        (
            r#"{"a":[1]}"#,
            r#"[{"op":"add","path":"/a/5","value":2}]"#,
            None,
        ),
        (
            r#"{"a":[1]}"#,
            r#"[{"op":"add","path":"/a/01","value":2}]"#,
            None,
        ),
        (r#"{}"#, r#"[{"op":"add","path":"/a/b","value":2}]"#, None),
        (
            r#"{"a":1}"#,
            r#"[{"op":"add","path":"","value":{}}]"#,
            Some("{}"),
        ),
        (r#"{"a":1}"#, r#"[{"op":"remove","path":"/a"}]"#, Some("{}")),
        (r#"{}"#, r#"[{"op":"remove","path":"/a"}]"#, None),
        (
            r#"{"a":1}"#,
            r#"[{"op":"replace","path":"/a","value":2}]"#,
            Some(r#"{"a":2}"#),
        ),
        (r#"{}"#, r#"[{"op":"replace","path":"/a","value":2}]"#, None),
        (
            r#"{"a":1}"#,
            r#"[{"op":"move","from":"/a","path":"/b"}]"#,
            Some(r#"{"b":1}"#),
        ),
        (
            r#"{"a":{"b":1}}"#,
            r#"[{"op":"move","from":"/a","path":"/a/b"}]"#,
            None,
        ),
        (
            r#"{"a":1}"#,
            r#"[{"op":"copy","from":"/a","path":"/b"}]"#,
            Some(r#"{"a":1,"b":1}"#),
        ),
        (
            r#"{"a/b":1}"#,
            r#"[{"op":"test","path":"/a~1b","value":1}]"#,
            Some(r#"{"a/b":1}"#),
        ),
        (
            r#"{"m~n":2}"#,
            r#"[{"op":"remove","path":"/m~0n"}]"#,
            Some("{}"),
        ),
        (
            r#"{"a":1}"#,
            r#"[{"op":"test","path":"/a","value":2}]"#,
            None,
        ),
        (
            r#"{}"#,
            r#"[{"op":"test","path":"/a","value":null}]"#,
            Some("{}"),
        ),
        (r#"{}"#, r#"[{"op":"jump","path":"/a"}]"#, None),
        (r#"{}"#, r#"[{"path":"/a"}]"#, None),
        (r#"{}"#, r#"[{"op":"add","path":"a","value":1}]"#, None),
        (r#"{}"#, r#"{}"#, None),
    ];

    #[test]
    fn operations() {
        let json = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        for (object, patch, want) in CASES {
            let got = json_patch(&json(object), &json(patch)).ok();
            assert_eq!(got, want.map(json), "{object} {patch}");
        }
    }

    #[test]
    fn a_failed_patch_says_where() {
        let patch = serde_json::json!([{"op": "remove", "path": "/spec/x"}]);
        let error = json_patch(&serde_json::json!({}), &patch).unwrap_err();
        assert_eq!(
            error.to_string(),
            "doc is missing path: /spec/x: missing value"
        );
    }
}
