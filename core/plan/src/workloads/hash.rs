//! The name of a template.

use portolan_api::value::at;
use serde_json::Value;

/// The label that tells the pods of one ReplicaSet from another's.
pub(crate) const TEMPLATE_HASH: &str = "pod-template-hash";

/// Letters that neither form words nor are mistaken for each other.
const ALPHABET: &[u8; 27] = b"bcdfghjklmnpqrstvwxz2456789";

/// A short name of a template, different for each `collisions`.
pub(crate) fn template_hash(template: &Value, collisions: i64) -> String {
    let mut hash = Fnv::default();
    hash.value(template);
    if collisions != 0 {
        hash.bytes(&collisions.to_le_bytes());
    }
    hash.0
        .to_string()
        .bytes()
        .map(|digit| char::from(ALPHABET[usize::from(digit) % ALPHABET.len()]))
        .collect()
}

/// FNV-1a, 32 bit, over a value in canonical order.
struct Fnv(u32);

impl Default for Fnv {
    fn default() -> Self {
        Self(0x811c_9dc5)
    }
}

impl Fnv {
    fn bytes(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
        }
    }

    fn value(&mut self, value: &Value) {
        match value {
            Value::Null => self.bytes(b"n"),
            Value::Bool(flag) => self.bytes(if *flag { b"t" } else { b"f" }),
            Value::Number(number) => self.bytes(number.to_string().as_bytes()),
            Value::String(text) => {
                self.bytes(b"\"");
                self.bytes(text.as_bytes());
                self.bytes(b"\"");
            }
            Value::Array(items) => {
                self.bytes(b"[");
                items.iter().for_each(|item| self.value(item));
                self.bytes(b"]");
            }
            Value::Object(map) => {
                let mut entries: Vec<_> = map.iter().filter(|(_, v)| !says_nothing(v)).collect();
                entries.sort_by_key(|(key, _)| *key);
                self.bytes(b"{");
                for (key, value) in entries {
                    self.bytes(key.as_bytes());
                    self.bytes(b":");
                    self.value(value);
                }
                self.bytes(b"}");
            }
        }
    }
}

/// Null, and maps and lists without content, mean the same as absence.
fn says_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.values().all(says_nothing),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Whether two templates are the same but for the hash label.
pub(crate) fn same_template(a: &Value, b: &Value) -> bool {
    same_maps(a, b, |key| key != "metadata") && same_metadata(at(a, "metadata"), at(b, "metadata"))
}

fn same_metadata(a: &Value, b: &Value) -> bool {
    same_maps(a, b, |key| key != "labels")
        && same_maps(at(a, "labels"), at(b, "labels"), |key| key != TEMPLATE_HASH)
}

/// Whether two maps are the same in the keys that count.
fn same_maps(a: &Value, b: &Value, counts: fn(&str) -> bool) -> bool {
    let covers = |a: &Value, b: &Value| {
        a.as_object()
            .into_iter()
            .flatten()
            .all(|(key, value)| !counts(key) || same(value, b.get(key).unwrap_or(&Value::Null)))
    };
    covers(a, b) && covers(b, a)
}

/// Equality in which empty means absent.
pub(crate) fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Object(_), Value::Object(_)) => same_maps(a, b, |_| true),
        (Value::Array(x), Value::Array(y)) => {
            x.len() == y.len() && x.iter().zip(y).all(|(a, b)| same(a, b))
        }
        _ => a == b || (says_nothing(a) && says_nothing(b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_hash_label_and_emptiness_do_not_count() {
        let a = json!({"metadata": {"labels": {"app": "x"}, "creationTimestamp": null},
            "spec": {"containers": [{"name": "c", "resources": {}}]}});
        let b = json!({"metadata": {"labels": {"app": "x", "pod-template-hash": "1"}},
            "spec": {"containers": [{"name": "c"}]}});
        let c = json!({"metadata": {"labels": {"app": "x"}},
            "spec": {"containers": [{"name": "d"}]}});
        assert!(same_template(&a, &b));
        assert!(!same_template(&a, &c));
        assert_eq!(
            template_hash(&a, 0),
            template_hash(
                &json!({"spec": {"containers": [{"name": "c"}]},
                "metadata": {"labels": {"app": "x"}}}),
                0
            )
        );
        assert_ne!(template_hash(&a, 0), template_hash(&a, 1));
        assert_ne!(template_hash(&a, 0), template_hash(&c, 0));
    }
}
