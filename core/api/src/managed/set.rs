//! Sets of field paths, and their JSON form `fieldsV1`.
//!
//! ```text
//! {"f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}}}}
//! ```
//! A step of a path is written as there: `f:NAME` is a field, `k:{…}` the
//! element of a list by its keys, `v:…` an element of a set by its value,
//! `i:N` by its place. A node without children is a member of the set; one
//! with children is a member if it has `.`.

use serde_json::{Map, Value};
use std::cmp::Ordering;
use std::collections::BTreeMap;

/// A set of field paths, as a tree.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSet {
    /// Whether the path to here is itself a member.
    pub member: bool,
    /// What is below, by step.
    pub children: BTreeMap<String, FieldSet>,
}

/// Why a text is no `fieldsV1`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetError {
    /// A node is not an object.
    #[error("fieldsV1 must hold objects only")]
    NotAnObject,
    /// A step of a path has none of the known forms.
    #[error("unrecognized path element {0:?}")]
    Step(String),
    /// Deeper than any object can be.
    #[error("fieldsV1 is nested too deeply")]
    Depth,
}

/// Objects are never that deep; JSON readers stop at 128.
const MAX_DEPTH: usize = 128;

impl FieldSet {
    /// The set with this path only.
    pub(super) fn leaf() -> Self {
        Self {
            member: true,
            children: BTreeMap::new(),
        }
    }

    /// Whether no path is in it.
    pub fn is_empty(&self) -> bool {
        !self.member && self.children.values().all(Self::is_empty)
    }

    /// Adds what is below a step, unless it is nothing.
    pub(super) fn put(&mut self, step: String, below: Self) {
        if !below.is_empty() {
            self.children.insert(step, below);
        }
    }

    /// Every path of either.
    pub fn union(mut self, other: &Self) -> Self {
        self.member |= other.member;
        for (step, theirs) in &other.children {
            let ours = self.children.remove(step).unwrap_or_default();
            self.children.insert(step.clone(), ours.union(theirs));
        }
        self
    }

    /// Every path of this that is not in the other.
    pub fn difference(&self, other: &Self) -> Self {
        let mut left = Self {
            member: self.member && !other.member,
            children: BTreeMap::new(),
        };
        for (step, ours) in &self.children {
            let below = match other.children.get(step) {
                Some(theirs) => ours.difference(theirs),
                None => ours.clone(),
            };
            left.put(step.clone(), below);
        }
        left
    }

    /// Every path of both.
    pub fn intersection(&self, other: &Self) -> Self {
        let mut common = Self {
            member: self.member && other.member,
            children: BTreeMap::new(),
        };
        for (step, ours) in &self.children {
            if let Some(theirs) = other.children.get(step) {
                common.put(step.clone(), ours.intersection(theirs));
            }
        }
        common
    }

    /// Without what lies at and below a path of fields.
    pub(super) fn without(mut self, path: &[&str]) -> Self {
        if let [first, rest @ ..] = path {
            let step = field(first);
            if rest.is_empty() {
                self.children.remove(&step);
            } else if let Some(child) = self.children.remove(&step) {
                self.put(step, child.without(rest));
            }
        }
        self
    }

    /// All paths, each as its steps: at every place first the members, then
    /// what is below, as Kubernetes lists conflicts.
    pub fn paths(&self) -> Vec<Vec<&str>> {
        let mut paths = Vec::new();
        self.collect(&mut Vec::new(), &mut paths);
        paths
    }

    fn collect<'a>(&'a self, at: &mut Vec<&'a str>, paths: &mut Vec<Vec<&'a str>>) {
        let mut steps: Vec<(&'a str, &'a Self)> = self
            .children
            .iter()
            .map(|(step, child)| (step.as_str(), child))
            .collect();
        steps.sort_by(|(one, _), (other, _)| compare_steps(one, other));
        for (step, _) in steps.iter().filter(|(_, child)| child.member) {
            let mut path = at.clone();
            path.push(step);
            paths.push(path);
        }
        for (step, child) in steps {
            at.push(step);
            child.collect(at, paths);
            at.pop();
        }
    }

    /// The JSON form.
    pub fn to_value(&self) -> Value {
        let mut map = Map::new();
        if self.member && !self.children.is_empty() {
            map.insert(".".to_owned(), Value::Object(Map::new()));
        }
        for (step, child) in &self.children {
            map.insert(step.clone(), child.to_value());
        }
        Value::Object(map)
    }

    /// Reads the JSON form.
    pub fn parse(value: &Value) -> Result<Self, SetError> {
        let mut set = Self::parse_node(value, 0)?;
        set.member = false;
        Ok(set)
    }

    fn parse_node(value: &Value, depth: usize) -> Result<Self, SetError> {
        let map = value.as_object().ok_or(SetError::NotAnObject)?;
        if depth > MAX_DEPTH {
            return Err(SetError::Depth);
        }
        let mut set = Self {
            member: map.is_empty(),
            children: BTreeMap::new(),
        };
        for (step, below) in map {
            if step == "." {
                set.member = true;
            } else {
                let below = Self::parse_node(below, depth + 1)?;
                set.children.insert(canonical(step)?, below);
            }
        }
        Ok(set)
    }
}

/// A step as this server writes it, so that equal steps are equal texts.
fn canonical(step: &str) -> Result<String, SetError> {
    let wrong = || SetError::Step(step.to_owned());
    let (form, rest) = step.split_once(':').ok_or_else(wrong)?;
    match form {
        "f" => Ok(step.to_owned()),
        "i" => match rest.parse::<u32>() {
            Ok(place) => Ok(format!("i:{place}")),
            Err(_) => Err(wrong()),
        },
        "v" | "k" => {
            let Ok(parsed) = serde_json::from_str::<Value>(rest) else {
                return Err(wrong());
            };
            match (form, parsed) {
                ("v", parsed) => Ok(element(&parsed)),
                (_, Value::Object(map)) => Ok(keyed(map.into_iter().collect())),
                (_, _) => Err(wrong()),
            }
        }
        _ => Err(wrong()),
    }
}

/// Fields come first, then elements by key, by value, by place; numbers in
/// the order of numbers.
fn compare_steps(one: &str, other: &str) -> Ordering {
    let parts = |step: &str| -> (u8, Vec<(String, Value)>) {
        let (form, rest) = step.split_once(':').unwrap_or(("f", step));
        let value = || serde_json::from_str(rest).unwrap_or_default();
        match form {
            "k" => {
                let keys: BTreeMap<String, Value> = serde_json::from_str(rest).unwrap_or_default();
                (1, keys.into_iter().collect())
            }
            "v" => (2, vec![(String::new(), value())]),
            "i" => (3, vec![(String::new(), value())]),
            _ => (0, vec![(rest.to_owned(), Value::Null)]),
        }
    };
    let ((rank, one), (other_rank, other)) = (parts(one), parts(other));
    rank.cmp(&other_rank).then_with(|| {
        let pairs = one.iter().zip(&other);
        pairs
            .map(|(one, other)| {
                one.0
                    .cmp(&other.0)
                    .then_with(|| compare_values(&one.1, &other.1))
            })
            .find(|order| order.is_ne())
            .unwrap_or_else(|| one.len().cmp(&other.len()))
    })
}

fn compare_values(one: &Value, other: &Value) -> Ordering {
    match (one.as_f64(), other.as_f64()) {
        (Some(one), Some(other)) => one.total_cmp(&other),
        // Numbers come before texts.
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => match (one.as_str(), other.as_str()) {
            (Some(one), Some(other)) => one.cmp(other),
            _ => one.to_string().cmp(&other.to_string()),
        },
    }
}

/// The step to a field.
pub(super) fn field(name: &str) -> String {
    format!("f:{name}")
}

/// The step to an element of a list of type set.
pub(super) fn element(value: &Value) -> String {
    format!("v:{value}")
}

/// The step to an element of a list of type map.
pub(super) fn keyed(keys: BTreeMap<String, Value>) -> String {
    let keys: Map<String, Value> = keys.into_iter().collect();
    format!("k:{}", Value::Object(keys))
}

/// A path as messages show it: `.spec.ports[port=80,protocol="TCP"].targetPort`.
pub(super) fn shown(path: &[&str]) -> String {
    path.iter().map(|step| shown_step(step)).collect()
}

fn shown_step(step: &str) -> String {
    let (form, rest) = step.split_once(':').unwrap_or(("f", step));
    match form {
        "k" => {
            let keys: BTreeMap<String, Value> = serde_json::from_str(rest).unwrap_or_default();
            let pairs: Vec<String> = keys
                .iter()
                .map(|(key, value)| format!("{key}={value}"))
                .collect();
            format!("[{}]", pairs.join(","))
        }
        "v" => format!("[={rest}]"),
        "i" => format!("[{rest}]"),
        _ => format!(".{rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(value: Value) -> FieldSet {
        FieldSet::parse(&value).unwrap()
    }

    #[test]
    fn the_json_form_round_trips() {
        let value = json!({"f:metadata": {"f:labels": {".": {}, "f:app": {}}},
            "f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:port": {}}},
                "f:finalizers": {"v:\"x\"": {}}, "f:list": {"i:3": {}}}});
        assert_eq!(set(value.clone()).to_value(), value);
        // Other clients may order keys differently.
        let other = json!({"f:a": {"k:{\"protocol\":\"TCP\", \"port\":80}": {}}});
        assert_eq!(
            set(other).to_value(),
            json!({"f:a": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {}}})
        );
        for bad in [
            json!({"x": {}}),
            json!({"f:a": 3}),
            json!({"k:3": {}}),
            json!({"i:x": {}}),
            json!([]),
        ] {
            assert!(FieldSet::parse(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn algebra() {
        let a = set(json!({"f:x": {}, "f:y": {".": {}, "f:z": {}}}));
        let b = set(json!({"f:x": {}, "f:y": {"f:z": {}}}));
        assert_eq!(a.difference(&b).to_value(), json!({"f:y": {}}));
        assert_eq!(a.intersection(&b), b);
        assert_eq!(b.clone().union(&a), a);
        assert!(b.difference(&a).is_empty());
        assert_eq!(
            a.clone().without(&["y", "z"]).to_value(),
            json!({"f:x": {}, "f:y": {}})
        );
    }

    #[test]
    fn paths_are_shown_as_kubectl_shows_them() {
        let set = set(
            json!({"f:spec": {"f:ports": {"k:{\"port\":80,\"protocol\":\"TCP\"}": {"f:targetPort": {}}},
            "f:finalizers": {"v:\"a\"": {}}}}),
        );
        let shown: Vec<String> = set.paths().iter().map(|path| shown(path)).collect();
        assert_eq!(
            shown,
            [
                ".spec.finalizers[=\"a\"]",
                ".spec.ports[port=80,protocol=\"TCP\"].targetPort"
            ]
        );
    }

    #[test]
    fn paths_come_members_first_and_numbers_in_their_order() {
        let set = set(json!({"f:spec": {
            "f:a": {"f:x": {}}, "f:z": {},
            "f:ports": {"k:{\"port\":443,\"protocol\":\"TCP\"}": {}, "k:{\"port\":80,\"protocol\":\"UDP\"}": {},
                "k:{\"port\":80,\"protocol\":\"TCP\"}": {".": {}, "f:name": {}}}}}));
        let shown: Vec<String> = set.paths().iter().map(|path| shown(path)).collect();
        assert_eq!(
            shown,
            [
                ".spec.z",
                ".spec.a.x",
                ".spec.ports[port=80,protocol=\"TCP\"]",
                ".spec.ports[port=80,protocol=\"UDP\"]",
                ".spec.ports[port=443,protocol=\"TCP\"]",
                ".spec.ports[port=80,protocol=\"TCP\"].name",
            ]
        );
    }
}
