//! Manifests: several YAML or JSON documents in one text.

use crate::value::{list_at, map_mut, str_at};
use serde_json::Value;

/// Why a manifest cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {message}")]
pub struct YamlError {
    /// 1-based.
    pub line: u64,
    /// 1-based.
    pub column: u64,
    /// What is wrong.
    pub message: String,
}

/// The documents of a text; empty ones are left out and Lists are replaced by
/// their items.
pub fn parse(text: &str) -> Result<Vec<Value>, YamlError> {
    let mut objects = Vec::new();
    for document in documents(text)? {
        match document {
            Value::Null => {}
            Value::Object(_) => flatten(document, &mut objects),
            Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
                return Err(YamlError {
                    line: 1,
                    column: 1,
                    message: "a document is not an object with apiVersion and kind".to_owned(),
                });
            }
        }
    }
    Ok(objects)
}

fn documents(text: &str) -> Result<Vec<Value>, YamlError> {
    // JSON is YAML, except that YAML is stricter about tabs.
    if text.trim_start().starts_with('{')
        && let Ok(value) = serde_json::from_str(text)
    {
        return Ok(vec![value]);
    }
    let options = serde_saphyr::options! {
        // As Go's YAML library reads file modes.
        legacy_octal_numbers: true,
        with_snippet: false,
    };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let error = error.without_snippet();
        let location = error.location();
        YamlError {
            line: location.map_or(1, |location| location.line()),
            column: location.map_or(1, |location| location.column()),
            message: without_location(&error.to_string()),
        }
    })
}

/// The parser's text ends with the place, which [`YamlError`] says itself.
fn without_location(text: &str) -> String {
    let line = text.lines().next().unwrap_or(text);
    let head = line.split(" at line ").next().unwrap_or(line);
    head.trim_end_matches([',', ':', ' ']).to_owned()
}

/// A List gives its items, each with a kind.
fn flatten(document: Value, objects: &mut Vec<Value>) {
    let item_kind = match str_at(&document, "kind").strip_suffix("List") {
        Some(kind) if document.get("items").is_some_and(Value::is_array) => kind.to_owned(),
        Some(_) | None => {
            objects.push(document);
            return;
        }
    };
    let version = str_at(&document, "apiVersion").to_owned();
    for item in list_at(&document, "items") {
        let mut item = item.clone();
        if !item_kind.is_empty() && item.is_object() {
            let map = map_mut(&mut item);
            map.entry("kind")
                .or_insert_with(|| item_kind.clone().into());
            map.entry("apiVersion")
                .or_insert_with(|| version.clone().into());
        }
        flatten(item, objects);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn several_documents_lists_and_comments() {
        let text = "# first\napiVersion: v1\nkind: A\n---\n---\n# nothing\n---\nkind: List\nitems:\n- kind: B\n- kind: C\n---\nkind: ServiceList\napiVersion: v1\nitems:\n- metadata: {name: d}\n";
        let kinds: Vec<String> = parse(text)
            .unwrap()
            .iter()
            .map(|object| str_at(object, "kind").to_owned())
            .collect();
        assert_eq!(kinds, ["A", "B", "C", "Service"]);
    }

    #[test]
    fn scalars_are_read_as_kubectl_does() {
        let text = "kind: A\nport: 80\nname: \"80\"\non: yes\nmode: 0644\ntext: |\n  a\n  b\nversion: 1.27\nquoted: 'yes'\nempty:\n";
        assert_eq!(
            parse(text).unwrap(),
            [
                json!({"kind": "A", "port": 80, "name": "80", "on": true, "mode": 420, "text": "a\nb\n", "version": 1.27, "quoted": "yes", "empty": null})
            ]
        );
    }

    #[test]
    fn json_is_a_manifest() {
        assert_eq!(
            parse("{\n\t\"kind\": \"A\"\n}").unwrap(),
            [json!({"kind": "A"})]
        );
        assert!(parse("").unwrap().is_empty());
    }

    #[test]
    fn errors_have_a_place() {
        let error = parse("kind: A\nspec:\n  a: [1, 2\n  b: 3\n").unwrap_err();
        assert!(error.line >= 3, "{error}");
        let error = parse("kind: A\nspec:\n\tb: 3\n").unwrap_err();
        assert_eq!(error.line, 3, "{error}");
        let error = parse("kind: A\nkind: B\n").unwrap_err();
        assert!(error.message.contains("kind"), "{error}");
        assert!(!error.message.contains(" at line "), "{error}");
        assert!(parse("just text").is_err());
    }
}
