//! Labels, and the selectors that policies find pods and namespaces by.

use std::fmt;
use std::sync::Arc;

use crate::text::{Interner, Text};

/// The labels of an object, in the order of their keys. Objects with the same labels
/// may share them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Labels(Arc<[(Text, Text)]>);

impl Default for Labels {
    fn default() -> Self {
        Self(Arc::new([]))
    }
}

impl<'t> FromIterator<(&'t str, &'t str)> for Labels {
    fn from_iter<I: IntoIterator<Item = (&'t str, &'t str)>>(pairs: I) -> Self {
        let texts = pairs
            .into_iter()
            .map(|(key, value)| (key.into(), value.into()));
        let mut pairs: Vec<(Text, Text)> = texts.collect();
        pairs.sort_unstable();
        pairs.dedup_by(|(later, _), (former, _)| later == former);
        Self(pairs.into())
    }
}

impl Labels {
    /// The value of a label.
    pub fn get(&self, key: &str) -> Option<&Text> {
        let index = self.0.binary_search_by(|(own, _)| (**own).cmp(key)).ok()?;
        self.0.get(index).map(|(_, value)| value)
    }

    /// Keys and values, by key.
    pub fn iter(&self) -> impl Iterator<Item = &(Text, Text)> {
        self.0.iter()
    }

    /// Replaces keys and values by the copies that `texts` holds.
    pub fn share(&mut self, texts: &mut Interner) {
        let mut pairs = self.0.to_vec();
        for (key, value) in &mut pairs {
            texts.share(key);
            texts.share(value);
        }
        self.0 = pairs.into();
    }
}

/// What a selector asks of one label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ask {
    /// It has one of these values, which are sorted. `matchLabels` asks for one.
    In(Vec<Text>),
    /// It has none of these values, which are sorted, or is not there.
    NotIn(Vec<Text>),
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl Ask {
    /// Whether a label with this value, or none, is as asked.
    fn holds(&self, value: Option<&Text>) -> bool {
        match self {
            Self::In(values) => value.is_some_and(|value| values.binary_search(value).is_ok()),
            Self::NotIn(values) => value.is_none_or(|value| values.binary_search(value).is_err()),
            Self::Exists => value.is_some(),
            Self::DoesNotExist => value.is_none(),
        }
    }
}

impl Ask {
    /// What it asks of a label, as kubectl takes it after `-l`.
    pub fn of(&self, key: &str) -> String {
        let listed = |values: &[Text]| {
            let values: Vec<&str> = values.iter().map(|value| &**value).collect();
            values.join(",")
        };
        match self {
            Self::In(values) if values.len() == 1 => format!("{key}={}", listed(values)),
            Self::In(values) => format!("{key} in ({})", listed(values)),
            Self::NotIn(values) if values.len() == 1 => format!("{key}!={}", listed(values)),
            Self::NotIn(values) => format!("{key} notin ({})", listed(values)),
            Self::Exists => key.to_owned(),
            Self::DoesNotExist => format!("!{key}"),
        }
    }
}

/// A label selector. One without any requirement matches everything (N6).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LabelSelector(Vec<(Text, Ask)>);

impl LabelSelector {
    /// A selector of all these requirements; those that are said twice count once.
    pub fn new(mut requirements: Vec<(Text, Ask)>) -> Self {
        for (_, ask) in &mut requirements {
            if let Ask::In(values) | Ask::NotIn(values) = ask {
                values.sort_unstable();
                values.dedup();
            }
        }
        requirements.sort_unstable();
        requirements.dedup();
        Self(requirements)
    }

    /// What it requires, by label.
    pub fn requirements(&self) -> &[(Text, Ask)] {
        &self.0
    }

    /// Whether these labels meet all requirements.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.0.iter().all(|(key, ask)| ask.holds(labels.get(key)))
    }

    /// The requirements that these labels do not meet.
    pub fn unmet<'s>(&'s self, labels: &'s Labels) -> impl Iterator<Item = &'s (Text, Ask)> {
        let unmet = |(key, ask): &&(Text, Ask)| !ask.holds(labels.get(key));
        self.0.iter().filter(unmet)
    }

    /// A label that whatever matches must have, with the values of which it must
    /// have one: where to look for what matches.
    pub fn anchor(&self) -> Option<(&Text, &[Text])> {
        self.0.iter().find_map(|(key, ask)| match ask {
            Ask::In(values) => Some((key, values.as_slice())),
            Ask::NotIn(_) | Ask::Exists | Ask::DoesNotExist => None,
        })
    }
}

/// As kubectl takes it after `-l`; empty for everything.
impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let asks: Vec<String> = self.0.iter().map(|(key, ask)| ask.of(key)).collect();
        f.write_str(&asks.join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().copied().collect()
    }

    #[test]
    fn n6_an_empty_selector_matches_everything() {
        assert!(LabelSelector::default().matches(&labels(&[])));
        assert!(LabelSelector::default().matches(&labels(&[("app", "web")])));
    }

    #[test]
    fn every_requirement_must_hold() {
        let values = |texts: &[&str]| texts.iter().map(|text| Text::from(*text)).collect();
        let selector = LabelSelector::new(vec![
            ("tier".into(), Ask::In(values(&["b", "a"]))),
            ("app".into(), Ask::In(values(&["web"]))),
            ("old".into(), Ask::DoesNotExist),
            ("zone".into(), Ask::NotIn(values(&["z", "y"]))),
            ("owner".into(), Ask::Exists),
        ]);
        let good = [("app", "web"), ("owner", ""), ("tier", "a")];
        assert!(selector.matches(&labels(&good)));
        for (key, value) in [("tier", "c"), ("app", "db"), ("old", ""), ("zone", "y")] {
            let others = good.iter().filter(|(name, _)| *name != key);
            let bad: Labels = others.copied().chain([(key, value)]).collect();
            assert!(!selector.matches(&bad), "{key}={value}");
        }
        assert!(selector.matches(&labels(&[good.as_slice(), &[("zone", "x")]].concat())));
        assert!(!selector.matches(&labels(&good[..1])));
        let unmet: Vec<String> = selector
            .unmet(&labels(&[("app", "db"), ("owner", "")]))
            .map(|(key, ask)| ask.of(key))
            .collect();
        assert_eq!(unmet, ["app=web", "tier in (a,b)"]);
        assert_eq!(
            selector.to_string(),
            "app=web,old,owner,tier in (a,b),zone notin (y,z)".replace("old,", "!old,")
        );
        assert_eq!(selector.anchor().map(|(key, _)| &**key), Some("app"));
    }
}
