//! Label selectors and field selectors.
//!
//! Label selectors come as text (`-l`, the `labelSelector` parameter), as
//! LabelSelector objects and as plain maps; all end as one list of conditions.

mod field;
mod parse;

pub use field::FieldSelector;

use crate::meta;
use crate::value::{at, list_at, str_at, strings_at};
use serde_json::Value;
use std::fmt;

/// A parsed label selector; the empty one matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
}

/// One condition on one label; all of a selector's must hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// The comparison with its values.
    pub operator: Operator,
}

/// What a label must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operator {
    /// One of these.
    In(Vec<String>),
    /// None of these; a missing label matches.
    NotIn(Vec<String>),
    /// There, whatever its value.
    Exists,
    /// Not there.
    DoesNotExist,
    /// An integer above this.
    GreaterThan(i64),
    /// An integer below this.
    LessThan(i64),
}

/// Why a selector cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SelectorError {
    message: String,
}

impl SelectorError {
    fn new(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
        }
    }
}

impl LabelSelector {
    /// Reads the syntax of `kubectl -l`: `a=b,c!=d,e in (f,g),h,!i,j>1`.
    pub fn parse(text: &str) -> Result<Self, SelectorError> {
        let requirements = parse::requirements(text)?;
        Ok(Self { requirements })
    }

    /// Reads a LabelSelector object (`matchLabels`, `matchExpressions`). The
    /// empty object matches everything.
    pub fn from_object(selector: &Value) -> Result<Self, SelectorError> {
        let mut requirements = equalities(at(selector, "matchLabels"));
        for expression in list_at(selector, "matchExpressions") {
            let values = || {
                strings_at(expression, "values")
                    .into_iter()
                    .map(str::to_owned)
                    .collect()
            };
            let operator = match str_at(expression, "operator") {
                "In" => Operator::In(values()),
                "NotIn" => Operator::NotIn(values()),
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => {
                    return Err(SelectorError::new(format!(
                        "{other:?} is not a valid label selector operator"
                    )));
                }
            };
            requirements.push(Requirement {
                key: str_at(expression, "key").to_owned(),
                operator,
            });
        }
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(Self { requirements })
    }

    /// Reads a plain map of labels (Service.spec.selector).
    pub fn from_map(map: &Value) -> Self {
        Self {
            requirements: equalities(map),
        }
    }

    /// Whether it matches everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// The conditions.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether an object's labels satisfy it.
    pub fn matches(&self, object: &Value) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.holds(meta::label(object, &requirement.key)))
    }

    /// Whether an object satisfies it whose labels `label` looks up.
    pub fn matches_labels<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements
            .iter()
            .all(|requirement| requirement.holds(label(&requirement.key)))
    }
}

fn equalities(map: &Value) -> Vec<Requirement> {
    meta::texts(map)
        .into_iter()
        .map(|(key, value)| Requirement {
            key: key.to_owned(),
            operator: Operator::In(vec![value.to_owned()]),
        })
        .collect()
}

impl Requirement {
    /// Whether a label of this value (or none) satisfies it.
    pub fn holds(&self, value: Option<&str>) -> bool {
        let listed = |values: &[String], value: &str| values.iter().any(|item| item == value);
        let number = |value: Option<&str>| value.and_then(|value| value.parse::<i64>().ok());
        match &self.operator {
            Operator::In(values) => value.is_some_and(|value| listed(values, value)),
            Operator::NotIn(values) => value.is_none_or(|value| !listed(values, value)),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::GreaterThan(bound) => number(value).is_some_and(|number| number > *bound),
            Operator::LessThan(bound) => number(value).is_some_and(|number| number < *bound),
        }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            if index > 0 {
                f.write_str(",")?;
            }
            requirement.fmt(f)?;
        }
        Ok(())
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = &self.key;
        match &self.operator {
            Operator::In(values) if values.len() == 1 => write!(f, "{key}={}", values.join("")),
            Operator::In(values) => write!(f, "{key} in ({})", values.join(",")),
            Operator::NotIn(values) if values.len() == 1 => write!(f, "{key}!={}", values.join("")),
            Operator::NotIn(values) => write!(f, "{key} notin ({})", values.join(",")),
            Operator::Exists => f.write_str(key),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan(bound) => write!(f, "{key}>{bound}"),
            Operator::LessThan(bound) => write!(f, "{key}<{bound}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn matches(selector: &str, labels: Value) -> bool {
        let object = json!({"metadata": {"labels": labels}});
        LabelSelector::parse(selector).unwrap().matches(&object)
    }

    #[test]
    fn texts() {
        let web = || json!({"app": "web", "tier": "front", "n": "5", "empty": ""});
        let cases = [
            ("", true),
            ("app=web", true),
            ("app==web", true),
            ("app = web , tier=front", true),
            ("app=db", false),
            ("app!=db", true),
            ("missing!=db", true),
            ("app in (web, db)", true),
            ("app in (db)", false),
            ("app notin (db)", true),
            ("missing notin (db)", true),
            ("app", true),
            ("missing", false),
            ("!missing", true),
            ("! app", false),
            ("n>4", true),
            ("n<5", false),
            ("app>4", false),
            ("empty=", true),
            ("empty in (,a)", true),
            ("app=web,", true),
            ("in in (x)", false),
        ];
        for (selector, want) in cases {
            assert_eq!(matches(selector, web()), want, "{selector}");
        }
    }

    #[test]
    fn bad_texts() {
        for bad in [
            "a=b=c", "a in", "a in (", "a in (b", "=a", ",,", "a b", "a b c", "a>x", "(a)",
            "a b/c=d", "x/y/z=1", "a=b c", "a=-",
        ] {
            assert!(LabelSelector::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn objects_and_their_text() {
        let selector = LabelSelector::from_object(&json!({
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "b", "operator": "NotIn", "values": ["x", "y"]},
                {"key": "a", "operator": "Exists"},
                {"key": "z", "operator": "DoesNotExist"},
            ],
        }))
        .unwrap();
        assert_eq!(selector.to_string(), "a,app=web,b notin (x,y),!z");
        assert_eq!(
            LabelSelector::parse(&selector.to_string()).unwrap(),
            selector
        );
        assert!(selector.matches(&json!({"metadata": {"labels": {"app": "web", "a": ""}}})));
        assert!(
            LabelSelector::from_object(
                &json!({"matchExpressions": [{"key": "a", "operator": "Is"}]})
            )
            .is_err()
        );
        assert!(
            LabelSelector::from_map(&json!({"a": "b"}))
                .matches_labels(|key| (key == "a").then_some("b"))
        );
    }
}
