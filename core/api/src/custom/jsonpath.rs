//! The part of kubectl's JSONPath that definitions use: printer columns, the
//! paths of `scale`, and selectable fields.
//!
//! ```text
//! .spec.replicas   .metadata.labels['app\.kubernetes\.io/name']
//! .spec.ports[0].port   .spec.ports[*].name   .status.conditions[?(@.type=="Ready")].status
//! ```

use serde_json::Value;

/// A parsed path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPath {
    steps: Vec<Step>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Field(String),
    /// Counted from the end where negative.
    Index(i64),
    All,
    Filter {
        left: Vec<Step>,
        equal: bool,
        right: Value,
    },
    /// An element or field that is there.
    Exists(Vec<Step>),
}

impl JsonPath {
    /// Reads a path; `None` where it is malformed or goes beyond this part.
    pub fn parse(text: &str) -> Option<Self> {
        let (steps, rest) = steps(text)?;
        rest.is_empty().then_some(Self { steps })
    }

    /// All values that the path leads to.
    pub fn find<'a>(&self, value: &'a Value) -> Vec<&'a Value> {
        walk(&self.steps, value)
    }

    /// The first value that the path leads to.
    pub fn first<'a>(&self, value: &'a Value) -> Option<&'a Value> {
        self.find(value).into_iter().next()
    }

    /// The field names, if the path has nothing else (`.spec.replicas`).
    pub fn fields(&self) -> Option<Vec<&str>> {
        self.steps
            .iter()
            .map(|step| match step {
                Step::Field(name) => Some(name.as_str()),
                Step::Index(_) | Step::All | Step::Filter { .. } | Step::Exists(_) => None,
            })
            .collect()
    }
}

/// Steps from the start of a text, and what follows them.
fn steps(mut text: &str) -> Option<(Vec<Step>, &str)> {
    let mut steps = Vec::new();
    loop {
        if let Some(rest) = text.strip_prefix('[') {
            let (step, rest) = bracket(rest)?;
            steps.push(step);
            text = rest;
        } else if let Some(rest) = text.strip_prefix('.') {
            if rest.starts_with('[') || rest.is_empty() {
                text = rest;
                continue;
            }
            let (name, rest) = name(rest)?;
            steps.push(match name.as_str() {
                "*" => Step::All,
                _ => Step::Field(name),
            });
            text = rest;
        } else {
            return Some((steps, text));
        }
    }
}

/// A field name; a backslash keeps the next character from ending it.
fn name(text: &str) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        match char {
            '\\' => name.push(chars.next()?.1),
            '.' | '[' | ']' | ' ' | '=' | '!' | ')' => {
                return (!name.is_empty()).then(|| (name, text.get(at..).unwrap_or_default()));
            }
            _ => name.push(char),
        }
    }
    (!name.is_empty()).then_some((name, ""))
}

/// What stands in brackets, and what follows them.
fn bracket(text: &str) -> Option<(Step, &str)> {
    if let Some(rest) = text.strip_prefix("?(") {
        let (step, rest) = filter(rest)?;
        return Some((step, rest.strip_prefix(")]")?));
    }
    if let Some(quote @ ('\'' | '"')) = text.chars().next() {
        let (name, rest) = quoted(text.get(1..)?, quote)?;
        return Some((Step::Field(name), rest.strip_prefix(']')?));
    }
    let (inside, rest) = text.split_once(']')?;
    let step = match inside {
        "*" | ":" => Step::All,
        number => Step::Index(number.parse().ok()?),
    };
    Some((step, rest))
}

/// A text up to its closing quote.
fn quoted(text: &str, quote: char) -> Option<(String, &str)> {
    let mut name = String::new();
    let mut chars = text.char_indices();
    while let Some((at, char)) = chars.next() {
        if char == '\\' {
            name.push(chars.next()?.1);
        } else if char == quote {
            return Some((name, text.get(at + char.len_utf8()..)?));
        } else {
            name.push(char);
        }
    }
    None
}

/// `@.type=="Ready"`, or `@.type` alone.
fn filter(text: &str) -> Option<(Step, &str)> {
    let (left, rest) = steps(text.trim_start().strip_prefix('@')?)?;
    let rest = rest.trim_start();
    if rest.starts_with(')') {
        return Some((Step::Exists(left), rest));
    }
    let (equal, rest) = match rest.strip_prefix("==") {
        Some(rest) => (true, rest),
        None => (false, rest.strip_prefix("!=")?),
    };
    let rest = rest.trim_start();
    let (right, rest) = match rest.chars().next()? {
        quote @ ('\'' | '"') => {
            let (text, rest) = quoted(rest.get(1..)?, quote)?;
            (Value::String(text), rest)
        }
        _ => {
            let end = rest.find(')')?;
            let literal = rest.get(..end)?.trim();
            (serde_json::from_str(literal).ok()?, rest.get(end..)?)
        }
    };
    Some((Step::Filter { left, equal, right }, rest.trim_start()))
}

fn walk<'a>(steps: &[Step], value: &'a Value) -> Vec<&'a Value> {
    let Some((step, rest)) = steps.split_first() else {
        return vec![value];
    };
    let next: Vec<&Value> = match step {
        Step::Field(name) => value.get(name).into_iter().collect(),
        Step::Index(index) => element(value, *index).into_iter().collect(),
        Step::All => elements(value),
        Step::Filter { left, equal, right } => elements(value)
            .into_iter()
            .filter(|element| {
                let found = walk(left, element);
                !found.is_empty() && found.contains(&right) == *equal
            })
            .collect(),
        Step::Exists(left) => elements(value)
            .into_iter()
            .filter(|element| !walk(left, element).is_empty())
            .collect(),
    };
    next.into_iter()
        .flat_map(|value| walk(rest, value))
        .collect()
}

fn element(value: &Value, index: i64) -> Option<&Value> {
    let list = value.as_array()?;
    let index = match index {
        0.. => usize::try_from(index).ok()?,
        _ => list
            .len()
            .checked_sub(usize::try_from(index.unsigned_abs()).ok()?)?,
    };
    list.get(index)
}

fn elements(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().collect(),
        Value::Object(map) => map.values().collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_lead_where_kubectl_goes() {
        let object = json!({
            "metadata": {"labels": {"app.kubernetes.io/name": "web"}},
            "spec": {"ports": [{"name": "a", "port": 1}, {"name": "b", "port": 2}]},
            "status": {"conditions": [{"type": "Ready", "status": "True"}, {"type": "Old", "status": "False"}]},
        });
        let cases = [
            (".spec.ports[0].port", json!([1])),
            (".spec.ports[-1].port", json!([2])),
            (".spec.ports[*].name", json!(["a", "b"])),
            (
                ".metadata.labels['app\\.kubernetes\\.io/name']",
                json!(["web"]),
            ),
            (
                ".metadata.labels.app\\.kubernetes\\.io/name",
                json!(["web"]),
            ),
            (
                ".status.conditions[?(@.type==\"Ready\")].status",
                json!(["True"]),
            ),
            (
                ".status.conditions[?(@.type == 'Ready')].status",
                json!(["True"]),
            ),
            (
                ".status.conditions[?(@.type!=\"Ready\")].status",
                json!(["False"]),
            ),
            (".spec.ports[?(@.port==2)].name", json!(["b"])),
            (".spec.ports[?(@.port)].name", json!(["a", "b"])),
            (".spec.none.at.all", json!([])),
        ];
        for (path, want) in cases {
            let parsed = JsonPath::parse(path).unwrap_or_else(|| panic!("{path}"));
            let found: Vec<Value> = parsed.find(&object).into_iter().cloned().collect();
            assert_eq!(Value::Array(found), want, "{path}");
        }
        for path in [".a[", ".a[b]", ".a[?(@.b=~1)]", "spec", ".a['b", ".a..b"] {
            assert_eq!(JsonPath::parse(path), None, "{path}");
        }
    }
}
