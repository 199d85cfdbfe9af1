//! Field selectors: `metadata.name=web,status.phase!=Running`.

use super::SelectorError;
use crate::kinds::Kind;
use serde_json::{Value, json};

/// A parsed field selector; the empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Term {
    field: String,
    equal: bool,
    value: String,
}

impl FieldSelector {
    /// Reads `a=b,c==d,e!=f`; a field that the kind does not offer is an error.
    pub fn parse(kind: &Kind, text: &str) -> Result<Self, SelectorError> {
        let offered = kind.selectable(&json!({}));
        let mut terms = Vec::new();
        for part in split(text) {
            let term = term(&part).ok_or_else(|| {
                SelectorError::new(format!(
                    "invalid selector: '{text}'; can't understand '{part}'"
                ))
            })?;
            if !offered.contains_key(term.field.as_str()) {
                let message = match term.field.as_str() {
                    field if kind.group.is_empty() || kind.converts() => {
                        format!("field label not supported: {field}")
                    }
                    field => format!(
                        "{field:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\""
                    ),
                };
                return Err(SelectorError::new(message));
            }
            terms.push(term);
        }
        Ok(Self { terms })
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty()
    }

    /// Whether an object of the kind satisfies it.
    pub fn matches(&self, kind: &Kind, object: &Value) -> bool {
        if self.terms.is_empty() {
            return true;
        }
        let fields = kind.selectable(object);
        self.matches_fields(|field| fields.get(field).map(String::as_str))
    }

    /// Whether an object satisfies it whose selectable fields `field` looks up.
    pub fn matches_fields<'a>(&self, field: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.terms.iter().all(|term| {
            let found = field(&term.field).unwrap_or_default();
            (found == term.value) == term.equal
        })
    }

    /// The value that it demands of `metadata.name`, for a shortcut.
    pub fn exact_name(&self) -> Option<&str> {
        self.terms
            .iter()
            .find(|term| term.equal && term.field == "metadata.name")
            .map(|term| term.value.as_str())
    }
}

/// At commas that no backslash escapes.
fn split(text: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut escaped = false;
    for char in text.chars() {
        if char == ',' && !escaped {
            parts.push(String::new());
            continue;
        }
        escaped = char == '\\' && !escaped;
        if let Some(part) = parts.last_mut() {
            part.push(char);
        }
    }
    parts.retain(|part| !part.is_empty());
    parts
}

fn term(part: &str) -> Option<Term> {
    let at = part.find(['=', '!'])?;
    let (field, rest) = part.split_at(at);
    let (equal, value) = if let Some(value) = rest.strip_prefix("!=") {
        (false, value)
    } else if let Some(value) = rest.strip_prefix("==") {
        (true, value)
    } else {
        (true, rest.strip_prefix('=')?)
    };
    Some(Term {
        field: field.to_owned(),
        equal,
        value: unescaped(value),
    })
}

fn unescaped(text: &str) -> String {
    let mut result = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\\' => result.extend(chars.next()),
            _ => result.push(char),
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::{deployment, event, pod};

    #[test]
    fn fields_of_kinds() {
        let object = json!({"metadata": {"name": "a", "namespace": "x"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}});
        let cases = [
            ("", true),
            ("metadata.name=a", true),
            ("metadata.name==a,spec.nodeName=n", true),
            ("status.phase!=Running", false),
            ("spec.nodeName=", false),
            ("spec.hostNetwork=false", true),
        ];
        for (text, want) in cases {
            let selector = FieldSelector::parse(&pod::KIND, text).unwrap();
            assert_eq!(selector.matches(&pod::KIND, &object), want, "{text}");
        }
        assert_eq!(
            FieldSelector::parse(&pod::KIND, "metadata.name=a")
                .unwrap()
                .exact_name(),
            Some("a")
        );
        assert!(FieldSelector::parse(&event::KIND, "involvedObject.name=a,reason=b").is_ok());
        assert!(FieldSelector::parse(&deployment::KIND, "spec.replicas=1").is_err());
        assert_eq!(
            FieldSelector::parse(&pod::KIND, "x=1")
                .unwrap_err()
                .to_string(),
            "field label not supported: x"
        );
        assert!(FieldSelector::parse(&pod::KIND, "metadata.name").is_err());
        assert_eq!(
            FieldSelector::parse(&pod::KIND, r"metadata.name=a\,b\\")
                .unwrap()
                .exact_name(),
            Some(r"a,b\")
        );
    }
}
