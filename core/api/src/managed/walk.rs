//! The four walks over typed values that ownership needs: which fields an
//! object has, how two differ, one laid over another, and fields taken out.

use super::set::FieldSet;
use super::typed::{Element, Ownership, Place};
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// The fields of an object. Whatever cannot be divided is owned whole:
/// [`super::check`] refuses it where somebody applies it.
pub(super) fn to_set(place: &Place<'_>, value: &Value) -> FieldSet {
    let mut set = FieldSet::default();
    let Some(parts) = parts(place, value) else {
        set.member = true;
        return set;
    };
    for (step, (below, value)) in parts {
        let mut child = to_set(&below, &value);
        // An element is always a member, a field of a type only by itself.
        child.member |= !step.starts_with("f:") || below.entry || is_nothing(&value);
        set.put(step, child);
    }
    set
}

fn is_nothing(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(Map::is_empty)
}

fn is_empty(value: Option<&Value>) -> bool {
    match value {
        None | Some(Value::Null) => true,
        Some(Value::Object(map)) => map.is_empty(),
        Some(Value::Array(list)) => list.is_empty(),
        Some(Value::Bool(_) | Value::Number(_) | Value::String(_)) => false,
    }
}

/// How two versions of an object differ.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Comparison {
    pub(super) added: FieldSet,
    pub(super) modified: FieldSet,
    pub(super) removed: FieldSet,
}

impl Comparison {
    fn leaf(old: Option<&Value>, new: Option<&Value>) -> Self {
        let mut comparison = Self::default();
        match (old, new) {
            (None, Some(_)) => comparison.added = FieldSet::leaf(),
            (Some(_), None) => comparison.removed = FieldSet::leaf(),
            (Some(_), Some(_)) => comparison.modified = FieldSet::leaf(),
            (None, None) => {}
        }
        comparison
    }

    fn put(&mut self, step: &str, below: Self) {
        self.added.put(step.to_owned(), below.added);
        self.modified.put(step.to_owned(), below.modified);
        self.removed.put(step.to_owned(), below.removed);
    }

    /// Whether nothing differs.
    pub(super) fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }
}

/// Children of a value by step, or nothing if it is owned whole.
type Parts<'a, 'v> = BTreeMap<String, (Place<'a>, Cow<'v, Value>)>;

/// What a value is made of. Whatever cannot be divided is owned whole: this
/// is asked of stored objects, too, which may be older than a rule.
fn parts<'a, 'v>(place: &Place<'a>, value: &'v Value) -> Option<Parts<'a, 'v>> {
    let ownership = place.ownership(value);
    match (&ownership, value) {
        (Ownership::Fields, Value::Object(map)) => Some(
            map.iter()
                .map(|(name, value)| {
                    let below = place.field(name).unwrap_or(Place::untyped());
                    (super::set::field(name), (below, Cow::Borrowed(value)))
                })
                .collect(),
        ),
        (Ownership::Keyed(_) | Ownership::Set, Value::Array(list)) => {
            let elements = place.elements(&ownership, list).ok()?;
            Some(
                elements
                    .into_iter()
                    .map(|element| {
                        let part = element.part();
                        (element.step, part)
                    })
                    .collect(),
            )
        }
        _ => None,
    }
}

/// What of `old` is other in `new`.
pub(super) fn compare(place: &Place<'_>, old: Option<&Value>, new: Option<&Value>) -> Comparison {
    if old == new {
        return Comparison::default();
    }
    if is_empty(old) && is_empty(new) {
        return Comparison::leaf(old, new);
    }
    let divide = |value: Option<&'_ Value>| value.filter(|value| !value.is_null()).is_some();
    let old_parts = old.and_then(|old| parts(place, old));
    let new_parts = new.and_then(|new| parts(place, new));
    if (divide(old) && old_parts.is_none()) || (divide(new) && new_parts.is_none()) {
        return Comparison::leaf(old, new);
    }
    let (old_parts, new_parts) = (old_parts.unwrap_or_default(), new_parts.unwrap_or_default());
    let steps: BTreeSet<&String> = old_parts.keys().chain(new_parts.keys()).collect();
    let mut comparison = Comparison::default();
    for step in steps {
        let (before, after) = (old_parts.get(step), new_parts.get(step));
        let Some((below, _)) = after.or(before) else {
            continue;
        };
        let (before, after) = (before.map(|part| &*part.1), after.map(|part| &*part.1));
        let mut part = compare(below, before, after);
        if before.is_none() && below.is_always_there(step) {
            part.added.member = part.added.children.is_empty() && part.added.member;
        }
        comparison.put(step, part);
    }
    comparison.added.member = old.is_none();
    comparison.removed.member = new.is_none();
    comparison
}

/// `applied` laid over `live`.
pub(super) fn merge(place: &Place<'_>, live: &Value, applied: &Value) -> Value {
    match (live, applied, place.ownership(applied)) {
        (Value::Object(live), Value::Object(applied), Ownership::Fields) => {
            let mut merged = live.clone();
            for (name, value) in applied {
                let below = place.field(name).unwrap_or(Place::untyped());
                let value = match live.get(name) {
                    Some(live) => merge(&below, live, value),
                    None => value.clone(),
                };
                merged.insert(name.clone(), value);
            }
            Value::Object(merged)
        }
        (
            Value::Array(live),
            Value::Array(applied),
            ownership @ (Ownership::Keyed(_) | Ownership::Set),
        ) => merge_lists(place, &ownership, live, applied),
        _ => applied.clone(),
    }
}

/// Elements of both in an order that keeps that of each, the applied one first.
fn merge_lists(
    place: &Place<'_>,
    ownership: &Ownership<'_>,
    live: &[Value],
    applied: &[Value],
) -> Value {
    let both = place
        .elements(ownership, live)
        .and_then(|live| Ok((live, place.elements(ownership, applied)?)));
    let Ok((live, applied)) = both else {
        return Value::Array(applied.to_vec());
    };
    let wanted: BTreeSet<&str> = applied
        .iter()
        .map(|element| element.step.as_str())
        .collect();
    let by_step: BTreeMap<&str, &Element<'_, '_>> = live
        .iter()
        .map(|element| (element.step.as_str(), element))
        .collect();
    let mut merged = Vec::new();
    let mut live_left = live.iter().peekable();
    for element in &applied {
        // Those of live that nobody applies stay where they were.
        while let Some(kept) = live_left.next_if(|kept| !wanted.contains(kept.step.as_str())) {
            merged.extend(kept.values.iter().map(|value| (*value).clone()));
        }
        // One takes the place of several.
        let known = by_step.get(element.step.as_str());
        let known = known.and_then(|live| live.single());
        for value in &element.values {
            merged.push(match known {
                Some((below, live)) => merge(&below, live, value),
                None => (*value).clone(),
            });
        }
        live_left.next_if(|kept| wanted.contains(kept.step.as_str()));
    }
    for kept in live_left {
        if !wanted.contains(kept.step.as_str()) {
            merged.extend(kept.values.iter().map(|value| (*value).clone()));
        }
    }
    Value::Array(merged)
}

/// The value without the members of the set; `None` if nothing is left.
pub(super) fn remove(place: &Place<'_>, value: &Value, set: &FieldSet) -> Option<Value> {
    if set.children.is_empty() {
        return Some(value.clone());
    }
    let ownership = place.ownership(value);
    match (&ownership, value) {
        (Ownership::Fields, Value::Object(map)) => {
            let mut left = Map::new();
            for (name, value) in map {
                let below = place.field(name).unwrap_or(Place::untyped());
                let kept = keep(&below, value, set.children.get(&super::set::field(name)));
                if let Some(kept) = kept {
                    left.insert(name.clone(), kept);
                }
            }
            (!left.is_empty()).then_some(Value::Object(left))
        }
        (Ownership::Keyed(_) | Ownership::Set, Value::Array(list)) => {
            let Ok(elements) = place.elements(&ownership, list) else {
                return Some(value.clone());
            };
            let left: Vec<Value> = elements
                .into_iter()
                .flat_map(|element| {
                    let set = set.children.get(&element.step);
                    let values = element.values.into_iter();
                    values.filter_map(move |value| keep(&element.place, value, set))
                })
                .collect();
            (!left.is_empty()).then_some(Value::Array(left))
        }
        _ => Some(value.clone()),
    }
}

fn keep(place: &Place<'_>, value: &Value, set: Option<&FieldSet>) -> Option<Value> {
    match set {
        None => Some(value.clone()),
        Some(set) if set.member => None,
        Some(set) => remove(place, value, set),
    }
}

/// The set with every field of a type that has members below it.
pub(super) fn with_parents(place: &Place<'_>, set: &FieldSet) -> FieldSet {
    let mut whole = FieldSet {
        member: set.member,
        children: BTreeMap::new(),
    };
    for (step, child) in &set.children {
        let (below, named) = match step.strip_prefix("f:") {
            Some(name) => {
                let below = place.field(name).unwrap_or(Place::untyped());
                (below, !below.entry)
            }
            None => (place.items(), false),
        };
        let mut child = with_parents(&below, child);
        child.member |= named;
        whole.children.insert(step.clone(), child);
    }
    whole
}
