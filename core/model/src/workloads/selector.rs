//! Label selectors.

use std::collections::BTreeMap;

use portolan_api::meta::texts;
use portolan_api::value::{at, list_at, str_at, strings_at};
use serde_json::Value;

/// A condition on labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// `In`, `NotIn`, `Exists`, `DoesNotExist`, and for nodes `Gt` and `Lt`.
    pub operator: String,
    /// What it is compared with.
    pub values: Vec<String>,
}

impl Requirement {
    /// Reads `{key, operator, values}`.
    pub fn of(value: &Value) -> Self {
        Self {
            key: str_at(value, "key").to_owned(),
            operator: str_at(value, "operator").to_owned(),
            values: strings_at(value, "values")
                .into_iter()
                .map(str::to_owned)
                .collect(),
        }
    }

    /// Whether these labels meet it. An unknown operator matches nothing.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        match self.operator.as_str() {
            "In" => value.is_some_and(|v| self.values.contains(v)),
            "NotIn" => value.is_none_or(|v| !self.values.contains(v)),
            "Exists" => value.is_some(),
            "DoesNotExist" => value.is_none(),
            "Gt" => self.compares(value, |label, limit| label > limit),
            "Lt" => self.compares(value, |label, limit| label < limit),
            _ => false,
        }
    }

    fn compares(&self, value: Option<&String>, holds: fn(i64, i64) -> bool) -> bool {
        let label = value.and_then(|v| v.parse().ok());
        let limit = self.values.first().and_then(|v| v.parse().ok());
        label
            .zip(limit)
            .is_some_and(|(label, limit)| holds(label, limit))
    }
}

/// `{matchLabels, matchExpressions}`. An empty selector matches nothing here:
/// Kubernetes refuses it for the kinds that own pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Selector {
    /// Labels with exactly these values.
    pub labels: BTreeMap<String, String>,
    /// Further conditions.
    pub requirements: Vec<Requirement>,
}

impl Selector {
    /// Reads a LabelSelector.
    pub fn of(value: &Value) -> Self {
        Self {
            labels: super::meta::owned(texts(at(value, "matchLabels"))),
            requirements: list_at(value, "matchExpressions")
                .iter()
                .map(Requirement::of)
                .collect(),
        }
    }

    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.requirements.is_empty()
    }

    /// Whether these labels meet all of it.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.is_empty()
            && includes(labels, &self.labels)
            && self.requirements.iter().all(|r| r.matches(labels))
    }
}

/// Whether `labels` has every entry of `wanted`.
pub(crate) fn includes(
    labels: &BTreeMap<String, String>,
    wanted: &BTreeMap<String, String>,
) -> bool {
    wanted
        .iter()
        .all(|(key, value)| labels.get(key) == Some(value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn expressions_and_labels_must_all_hold() {
        let selector = Selector::of(&json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["a", "b"]},
                {"key": "old", "operator": "DoesNotExist"},
            ],
        }));
        let labels = |pairs: &[(&str, &str)]| {
            pairs
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        assert!(selector.matches(&labels(&[("app", "web"), ("tier", "b")])));
        assert!(!selector.matches(&labels(&[("app", "web"), ("tier", "c")])));
        assert!(!selector.matches(&labels(&[("app", "web"), ("tier", "a"), ("old", "")])));
        assert!(!Selector::default().matches(&labels(&[])));
    }
}
