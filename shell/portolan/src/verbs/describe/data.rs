//! What pods read: ConfigMaps, Secrets (never their values), ServiceAccounts;
//! and, for kinds that nobody described yet, the object itself.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::Related;
use super::page::{Page, list, plain, sorted, text};

/// A ConfigMap with its content.
pub(super) fn config_map(page: &mut Page, map: &Value, related: &Related) {
    page.metadata(map);
    page.line(0, "\nData\n====");
    for (key, value) in sorted(&map["data"]) {
        page.line(0, format_args!("{key}:\n----\n{}\n", text(value)));
    }
    page.line(0, "\nBinaryData\n====");
    for (key, value) in sorted(&map["binaryData"]) {
        page.line(0, format_args!("{key}: {} bytes", size(value)));
    }
    page.line(0, "");
    page.events(related);
}

/// A Secret: its keys and how long their values are.
pub(super) fn secret(page: &mut Page, secret: &Value) {
    page.metadata(secret);
    page.line(0, format_args!("\nType:\t{}", text(&secret["type"])));
    page.line(0, "\nData\n====");
    for (key, value) in sorted(&secret["data"]) {
        page.field(0, key, format_args!("{} bytes", size(value)));
    }
}

/// How many bytes a base64 text stands for.
fn size(encoded: &Value) -> usize {
    STANDARD
        .decode(text(encoded))
        .map_or(0, |bytes| bytes.len())
}

/// A ServiceAccount.
pub(super) fn service_account(page: &mut Page, account: &Value, related: &Related) {
    page.metadata(account);
    for (label, field) in [
        ("Image pull secrets", "imagePullSecrets"),
        ("Mountable secrets", "secrets"),
        ("Tokens", "tokens"),
    ] {
        let names: Vec<&str> = list(&account[field])
            .iter()
            .map(|s| text(&s["name"]))
            .collect();
        for (i, name) in names.iter().enumerate() {
            let head = if i == 0 {
                format!("{label}:")
            } else {
                String::new()
            };
            page.line(0, format_args!("{head}\t{name}"));
        }
        if names.is_empty() {
            page.field(0, label, "<none>");
        }
    }
    page.events(related);
}

/// Any other kind, custom resources among them: the object with its fields named in words.
pub(super) fn anything(page: &mut Page, object: &Value, related: &Related) {
    let metadata = &object["metadata"];
    page.field(0, "Name", text(&metadata["name"]));
    page.field(0, "Namespace", text(&metadata["namespace"]));
    page.labels(0, "Labels", &metadata["labels"]);
    page.annotations(&metadata["annotations"]);
    members(page, 0, object, "");
    page.events(related);
}

/// Shown above, or of no interest.
const SKIPPED: [&str; 5] = [
    ".metadata.managedFields",
    ".metadata.name",
    ".metadata.namespace",
    ".metadata.labels",
    ".metadata.annotations",
];

fn members(page: &mut Page, level: usize, object: &Value, path: &str) {
    for (key, value) in sorted(object) {
        let path = format!("{path}.{key}");
        if SKIPPED.contains(&path.as_str()) {
            continue;
        }
        match value {
            Value::Object(_) => {
                page.line(level, format_args!("{}:", words(key)));
                members(page, level + 1, value, &path);
            }
            Value::Array(items) => {
                page.line(level, format_args!("{}:", words(key)));
                for item in items {
                    match item {
                        Value::Object(_) => members(page, level + 1, item, &path),
                        Value::Null
                        | Value::Bool(_)
                        | Value::Number(_)
                        | Value::String(_)
                        | Value::Array(_) => page.line(level + 1, plain(item)),
                    }
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
                page.field(level, &words(key), plain(value));
            }
        }
    }
}

/// `apiVersion` → `API Version`, `creationTimestamp` → `Creation Timestamp`.
fn words(key: &str) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut last_upper = false;
    for letter in key.chars() {
        let begins = letter.is_uppercase() && !last_upper;
        match words.last_mut() {
            Some(word) if !begins => word.push(letter),
            _ => words.push(letter.to_string()),
        }
        last_upper = letter.is_uppercase();
    }
    let shown: Vec<String> = words
        .iter()
        .map(|word| match word.to_lowercase().as_str() {
            "api" | "url" | "uid" | "osb" | "guid" => word.to_uppercase(),
            _ => {
                let mut letters = word.chars();
                let first = letters.next().map(|c| c.to_uppercase().to_string());
                format!("{}{}", first.unwrap_or_default(), letters.as_str())
            }
        })
        .collect();
    shown.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn field_names_become_words() {
        for (key, shown) in [
            ("apiVersion", "API Version"),
            ("creationTimestamp", "Creation Timestamp"),
            ("uid", "UID"),
            ("spec", "Spec"),
        ] {
            assert_eq!(words(key), shown);
        }
    }

    #[test]
    fn a_secret_never_shows_a_value() {
        let mut page = Page::default();
        secret(
            &mut page,
            &json!({"metadata": {"name": "s"}, "type": "Opaque", "data": {"pw": "aHVudGVyMg=="}}),
        );
        let text = page.render();
        assert!(text.contains("pw:  7 bytes"), "{text}");
        assert!(
            !text.contains("hunter2") && !text.contains("aHVudGVy"),
            "{text}"
        );
    }
}
