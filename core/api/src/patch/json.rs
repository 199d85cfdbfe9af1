//! JSON Patch (RFC 6902).

use super::{PatchError, go_type};
use crate::value::str_at;
use serde_json::Value;

/// How many operations one patch may have, as in kube-apiserver.
const MAX_OPERATIONS: usize = 10_000;
/// How many bytes all copies of one patch may have, as in kube-apiserver:
/// copies of copies grow without bound.
const MAX_COPIED: usize = 3 * 1024 * 1024;

/// The object after all operations, or why one of them fails; then none counts.
pub fn json_patch(object: &Value, patch: &Value) -> Result<Value, PatchError> {
    let operations = operations(patch)?;
    if operations.len() > MAX_OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            operations.len()
        )));
    }
    let mut result = object.clone();
    let mut copied = 0;
    for operation in operations {
        apply(&mut result, operation, &mut copied)?;
    }
    Ok(result)
}

/// The operations of a patch, or what Go's decoder says of it.
fn operations(patch: &Value) -> Result<&[Value], PatchError> {
    let wrong = |value: &Value, wanted: &str| {
        PatchError::Malformed(format!(
            "error decoding patch: json: cannot unmarshal {} into Go {wanted}",
            go_type(value)
        ))
    };
    let Some(operations) = patch.as_array() else {
        return Err(wrong(patch, "value of type []handlers.jsonPatchOp"));
    };
    for operation in operations {
        if !operation.is_object() {
            return Err(wrong(operation, "value of type handlers.jsonPatchOp"));
        }
        for field in ["op", "path", "from"] {
            match operation.get(field) {
                None | Some(Value::Null | Value::String(_)) => {}
                Some(other) => {
                    let wanted = format!("struct field jsonPatchOp.{field} of type string");
                    return Err(wrong(other, &wanted));
                }
            }
        }
    }
    Ok(operations)
}

/// `json patch unknown field "[0].foo"` for what an operation does not have.
pub fn unknown_members(patch: &Value) -> Vec<String> {
    let operations = patch.as_array().into_iter().flatten().enumerate();
    operations
        .flat_map(|(index, operation)| {
            let members = operation.as_object().into_iter().flatten();
            members
                .filter(|(name, _)| !["op", "path", "from", "value"].contains(&name.as_str()))
                .map(move |(name, _)| {
                    let field = format!("[{index}].{name}");
                    format!("json patch unknown field {field:?}")
                })
        })
        .collect()
}

fn inapplicable(message: &str) -> PatchError {
    PatchError::DoesNotApply(message.to_owned())
}

fn apply(object: &mut Value, operation: &Value, copied: &mut usize) -> Result<(), PatchError> {
    let path = pointer(operation, "path")?;
    // An operation that says no value means null, as in the library that
    // Kubernetes uses.
    let value = || operation.get("value").cloned().unwrap_or_default();
    match str_at(operation, "op") {
        "add" => add(object, &path, value()),
        "remove" => remove(object, &path).map(drop),
        "replace" => {
            *existing(object, &path)? = value();
            Ok(())
        }
        "move" => {
            let from = pointer(operation, "from")?;
            let moved = remove(object, &from)?;
            add(object, &path, moved)
        }
        "copy" => {
            let from = pointer(operation, "from")?;
            let found = existing(object, &from)?;
            *copied += found.to_string().len();
            if *copied > MAX_COPIED {
                return Err(PatchError::DoesNotApply(format!(
                    "Unable to complete the copy, the accumulated size increase of copy is {copied}, exceeding the limit {MAX_COPIED}"
                )));
            }
            let found = found.clone();
            add(object, &path, found)
        }
        "test" => {
            let wanted = value();
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
        other => Err(PatchError::DoesNotApply(format!(
            "Unexpected kind: {other}"
        ))),
    }
}

/// The unescaped steps of a JSON pointer (RFC 6901).
fn pointer(operation: &Value, field: &str) -> Result<Vec<String>, PatchError> {
    let text = operation
        .get(field)
        .and_then(Value::as_str)
        .ok_or_else(|| inapplicable(&format!("operation missing {field} field: missing value")))?;
    match text.strip_prefix('/') {
        None if text.is_empty() => Ok(Vec::new()),
        None => Err(inapplicable(&format!(
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
            Value::Array(list) => index(step, list.len()).and_then(|index| list.get_mut(index)),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => None,
        };
        value = next.ok_or_else(|| missing(path))?;
    }
    Ok(value)
}

/// A place in a list of this length. Kubernetes' library reads it as Go reads
/// numbers (`01` is 1), and counts negative ones from the end.
fn index(step: &str, length: usize) -> Option<usize> {
    let digits = step.strip_prefix(['-', '+']).unwrap_or(step);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let place: usize = digits.parse().ok()?;
    match step.starts_with('-') {
        true => length.checked_sub(place),
        false => Some(place),
    }
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
        // One longer than before: `-1` is the new end.
        Value::Array(list) => {
            match index(last, list.len() + 1).filter(|index| *index <= list.len()) {
                Some(index) => {
                    list.insert(index, new);
                    Ok(())
                }
                None => Err(PatchError::DoesNotApply(format!(
                    "Unable to access invalid index: {last}: invalid index referenced"
                ))),
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Err(missing(path)),
    }
}

fn remove(object: &mut Value, path: &[String]) -> Result<Value, PatchError> {
    let Some((last, parents)) = path.split_last() else {
        return Ok(object.take());
    };
    let removed = match existing(object, parents).map_err(|_parent| missing(path))? {
        Value::Object(map) => map.remove(last),
        Value::Array(list) => index(last, list.len())
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
            Some(r#"{"a":[1,2]}"#),
        ),
        (
            r#"{"a":[1,2]}"#,
            r#"[{"op":"add","path":"/a/-1","value":3}]"#,
            Some(r#"{"a":[1,2,3]}"#),
        ),
        (
            r#"{"a":[1,2]}"#,
            r#"[{"op":"remove","path":"/a/-1"}]"#,
            Some(r#"{"a":[1]}"#),
        ),
        (
            r#"{"a":[1,2]}"#,
            r#"[{"op":"remove","path":"/a/-3"}]"#,
            None,
        ),
        (
            r#"{"a":[1,2]}"#,
            r#"[{"op":"replace","path":"/a/-2","value":0}]"#,
            Some(r#"{"a":[0,2]}"#),
        ),
        (r#"{"a":[]}"#, r#"[{"op":"remove","path":"/a/-0"}]"#, None),
        (
            r#"{"a":1}"#,
            r#"[{"op":"add","path":"/b"}]"#,
            Some(r#"{"a":1,"b":null}"#),
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

    #[test]
    fn what_is_wrong_with_a_patch() {
        let failure = |patch: Value| json_patch(&serde_json::json!({"a": 1}), &patch).unwrap_err();
        let malformed = |text: &str| PatchError::Malformed(format!("error decoding patch: {text}"));
        assert_eq!(
            failure(serde_json::json!({})),
            malformed("json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp")
        );
        assert_eq!(
            failure(serde_json::json!([{"op": 3}])),
            malformed(
                "json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string"
            )
        );
        let many = vec![serde_json::json!({"op": "test", "path": "/a", "value": 1}); 10_001];
        assert_eq!(
            failure(many.into()),
            PatchError::TooLarge(
                "The allowed maximum operations in a JSON patch is 10000, got 10001".to_owned()
            )
        );
        for patch in [
            serde_json::json!([{"op": "jump", "path": "/a"}]),
            serde_json::json!([{"path": "/a"}]),
            serde_json::json!([{"op": "add", "path": "a"}]),
            serde_json::json!([{"op": "add"}]),
        ] {
            assert!(matches!(failure(patch), PatchError::DoesNotApply(_)));
        }
    }

    #[test]
    fn copies_of_copies_come_to_an_end() {
        let grow: Vec<Value> = (0..64)
            .map(|step| serde_json::json!({"op": "copy", "from": "", "path": format!("/{step}")}))
            .collect();
        let error = json_patch(&serde_json::json!({"a": "b"}), &grow.into()).unwrap_err();
        assert!(error.to_string().contains("exceeding the limit"), "{error}");
    }

    #[test]
    fn members_that_no_operation_has() {
        let patch = serde_json::json!([{"op": "test", "path": "", "value": 1, "x": 2}]);
        assert_eq!(
            unknown_members(&patch),
            ["json patch unknown field \"[0].x\""]
        );
    }
}
