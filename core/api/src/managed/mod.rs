//! Who owns which field: `metadata.managedFields` and server-side apply
//! (KEP-555).
//!
//! Every write is recorded: what it adds or changes belongs to its manager,
//! what it removes belongs to nobody. An apply says all that its manager
//! wants: fields that somebody else owns with another value are conflicts,
//! fields that it owned and no longer mentions go, unless somebody else owns
//! them too.
//!
//! ```text
//!  apply: live ─┬─ merge ──► prune (was mine, is nobody's) ──► compare with live ──► conflicts?
//!      applied ─┘                                                                └─► new owners
//! ```
//! [`FieldSet`] is the set of paths; `typed` says how the schema divides an
//! object; `walk` compares, merges and removes; `entries` is the stored form.

mod check;
mod conflict;
mod entries;
mod last_applied;
#[cfg(test)]
mod laws;
mod set;
#[cfg(test)]
mod tests;
mod typed;
mod walk;

use crate::kinds::Kind;
use crate::value::{has, str_at};
use conflict::conflict;
use entries::{Identity, Managers, Owned};
use serde_json::{Map, Value, json};
use typed::Place;

pub use check::TypedError;
pub use conflict::Conflict;
pub use set::{FieldSet, SetError};

/// Whoever applies to an object that nobody has tracked finds this owner.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// Fields that the server alone writes: nobody owns them.
const UNOWNED: &[&[&str]] = &[
    &["apiVersion"],
    &["kind"],
    &["metadata", "name"],
    &["metadata", "namespace"],
    &["metadata", "creationTimestamp"],
    &["metadata", "selfLink"],
    &["metadata", "uid"],
    &["metadata", "clusterName"],
    &["metadata", "generation"],
    &["metadata", "managedFields"],
    &["metadata", "resourceVersion"],
];

/// Who writes, and when.
#[derive(Clone, Copy, Debug)]
pub struct Writer<'a> {
    /// The field manager.
    pub manager: &'a str,
    /// `status`, `scale`, or "" for the object itself.
    pub subresource: &'a str,
    /// RFC 3339, whole seconds.
    pub now: &'a str,
}

/// Why an apply did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Somebody else owns what would change.
    #[error("{}", conflict::message(.0))]
    Conflicts(Vec<Conflict>),
    /// The applied object does not fit the schema.
    #[error("failed to create typed patch object ({object}): {source}")]
    Typed {
        /// `namespace/name; group/version, Kind=kind`.
        object: String,
        /// What does not fit.
        source: TypedError,
    },
}

impl Writer<'_> {
    fn identity(&self, kind: &Kind, applies: bool) -> Identity {
        Identity {
            name: self.manager.to_owned(),
            applies,
            api_version: match applies {
                true => String::new(),
                false => kind.api_version(),
            },
            subresource: self.subresource.to_owned(),
        }
    }

    /// What this write can own: not what its door does not change.
    fn reach(&self, kind: &Kind, set: FieldSet) -> FieldSet {
        let mut set = set;
        for path in UNOWNED {
            set = set.without(path);
        }
        if let Some(metadata) = set.children.get_mut("f:metadata") {
            metadata.member = false;
            if metadata.is_empty() {
                set.children.remove("f:metadata");
            }
        }
        match self.subresource {
            "status" => {
                set.children
                    .retain(|step, _| matches!(step.as_str(), "f:status" | "f:metadata"));
                match (&kind.custom, kind.kind) {
                    (Some(_), _) => set.without(&["metadata"]),
                    (None, "Deployment") => set.without(&["metadata", "labels"]),
                    (None, "Pod") => set.without(&["metadata", "ownerReferences"]),
                    (None, _) => set,
                }
            }
            _ if kind.subresource("status").is_some() => set.without(&["status"]),
            _ => set,
        }
    }
}

/// Records who owns what after a create, update or patch of `old` to `new`.
///
/// Managed fields that the client sent count, if they can be read; an empty
/// list or one empty entry (`[{}]`) forgets all. An object without any is not tracked on update,
/// until somebody applies.
pub fn record(kind: &Kind, old: Option<&Value>, new: &mut Value, writer: Writer<'_>) {
    let place = Place::root(kind.schema());
    let before = match old {
        Some(old) if writer.subresource.is_empty() => {
            if entries::is_reset(new) {
                entries::write(new, Managers::new());
                return;
            }
            let sent = entries::try_read(new).filter(|managers| !managers.is_empty());
            sent.unwrap_or_else(|| entries::read(old))
        }
        Some(old) => entries::read(old),
        None => Managers::new(),
    };
    if old.is_some() && before.is_empty() {
        entries::write(new, before);
        return;
    }
    let empty = json!({});
    let after = updated(kind, &place, (old.unwrap_or(&empty), new), before, writer);
    entries::write(new, after);
}

fn updated(
    kind: &Kind,
    place: &Place<'_>,
    (old, new): (&Value, &Value),
    mut managers: Managers,
    writer: Writer<'_>,
) -> Managers {
    let difference = walk::compare(place, Some(&bare(old)), Some(&bare(new)));
    if difference.is_empty() {
        return managers;
    }
    let added = writer.reach(kind, difference.added);
    let modified = writer.reach(kind, difference.modified);
    let removed = writer.reach(kind, difference.removed);
    let changed = added.union(&modified);
    let own = writer.identity(kind, false);
    for (identity, owned) in &mut managers {
        if *identity != own {
            owned.set = owned.set.difference(&changed);
        }
        owned.set = owned.set.difference(&removed);
    }
    if !changed.is_empty() {
        let mine = managers.entry(own).or_default();
        mine.set = std::mem::take(&mut mine.set).union(&changed);
        mine.api_version = kind.api_version();
        mine.time = writer.now.to_owned();
    }
    entries::capped(managers)
}

/// The object without its managed fields, which nobody owns and which would
/// be long to compare.
fn bare(object: &Value) -> Value {
    let mut map = Map::new();
    for (name, value) in object.as_object().into_iter().flatten() {
        let value = match (name.as_str(), value) {
            ("metadata", Value::Object(metadata)) => Value::Object(
                metadata
                    .iter()
                    .filter(|(name, _)| *name != "managedFields")
                    .map(|(name, value)| (name.clone(), value.clone()))
                    .collect(),
            ),
            (_, value) => value.clone(),
        };
        map.insert(name.clone(), value);
    }
    Value::Object(map)
}

/// What `live` becomes when `writer` applies `applied`, with its managed
/// fields. With `force` the writer takes what others own.
///
/// # Errors
/// Fields that others own with another value, or an object that does not fit
/// its schema.
pub fn apply(
    kind: &Kind,
    live: Option<&Value>,
    applied: &Value,
    writer: Writer<'_>,
    force: bool,
) -> Result<Value, ApplyError> {
    let place = Place::root(kind.schema());
    let applied = bare(applied);
    check::check(&place, &applied).map_err(|source| ApplyError::Typed {
        object: described(kind, &applied),
        source,
    })?;
    let said = walk::to_set(&place, &applied);
    let wanted = writer.reach(kind, said.clone());
    let Some(live) = live else {
        let mut object = applied;
        let managers = Managers::from([(writer.identity(kind, true), owned(kind, wanted, writer))]);
        entries::write(&mut object, managers);
        return Ok(object);
    };
    let mut managers = entries::read(live);
    if managers.is_empty() {
        let first = Writer {
            manager: BEFORE_FIRST_APPLY,
            ..writer
        };
        managers = updated(kind, &place, (&json!({}), live), managers, first);
    }
    let bare_live = bare(live);
    let own = writer.identity(kind, true);
    let last = managers.get(&own).cloned();
    let merged = walk::merge(&place, &bare_live, &applied);
    managers.insert(own.clone(), owned(kind, wanted, writer));
    let mut object = prune(&place, merged, (&managers, &said), last.as_ref());
    let difference = walk::compare(&place, Some(&bare_live), Some(&object));
    // What this door does not change is neither a conflict nor a change.
    let changed = writer.reach(kind, difference.added.union(&difference.modified));
    let removed = writer.reach(kind, difference.removed);
    if !force {
        let conflicts = conflicts(&managers, &own, &changed);
        let conflicts = last_applied::others(kind, &place, live, conflicts, writer);
        if !conflicts.is_empty() {
            return Err(ApplyError::Conflicts(conflicts));
        }
    }
    for (identity, owned) in &mut managers {
        if *identity != own {
            owned.set = owned.set.difference(&changed).difference(&removed);
        }
    }
    if changed.is_empty() && removed.is_empty() {
        // Nothing has happened to the object, so its time stays, too; whoever
        // owns what was there already has none.
        object = bare_live;
        if let Some(mine) = managers.get_mut(&own) {
            mine.time = last.map(|last| last.time).unwrap_or_default();
        }
    }
    last_applied::follow(&mut object, &applied, writer);
    entries::write(&mut object, managers);
    Ok(object)
}

fn conflicts(managers: &Managers, own: &Identity, changed: &FieldSet) -> Vec<Conflict> {
    managers
        .iter()
        .filter(|(identity, _)| *identity != own)
        .flat_map(|(identity, owned)| conflict(identity, &owned.set.intersection(changed)))
        .collect()
}

fn owned(kind: &Kind, set: FieldSet, writer: Writer<'_>) -> Owned {
    Owned {
        set,
        api_version: kind.api_version(),
        time: writer.now.to_owned(),
    }
}

/// Takes out what the writer owned and nobody owns now. What it says keeps its
/// place even where nobody can own it: `metadata` with its name.
fn prune(
    place: &Place<'_>,
    merged: Value,
    (managers, said): (&Managers, &FieldSet),
    last: Option<&Owned>,
) -> Value {
    let Some(last) = last else {
        return merged;
    };
    let still = managers
        .values()
        .fold(said.clone(), |all, owned| all.union(&owned.set));
    let gone = walk::with_parents(place, &last.set).difference(&walk::with_parents(place, &still));
    if gone.is_empty() {
        return merged;
    }
    walk::remove(place, &merged, &gone).unwrap_or_else(|| json!({}))
}

fn described(kind: &Kind, object: &Value) -> String {
    let or_unknown = |path: &str| match has(object, path) {
        true => str_at(object, path).to_owned(),
        false => String::new(),
    };
    format!(
        "{}/{}; {}/{}, Kind={}",
        or_unknown("metadata.namespace"),
        or_unknown("metadata.name"),
        kind.group,
        kind.version,
        kind.kind
    )
}

/// Whether two objects differ in nothing but the times of their managed
/// fields: then nothing has happened.
pub fn same_but_times(old: &Value, new: &Value) -> bool {
    let timeless = |object: &Value| -> Managers {
        let mut managers = entries::read(object);
        for owned in managers.values_mut() {
            owned.time.clear();
        }
        managers
    };
    bare(old) == bare(new) && timeless(old) == timeless(new)
}

/// Whether the body of a subresource, whose type is this definition, can be applied.
///
/// # Errors
/// If it does not fit the definition.
pub fn check_body(definition: &str, object: &Value) -> Result<(), TypedError> {
    let place = Place::root(crate::schema::definitions().get(definition));
    check::check(&place, &bare(object))
}

/// The fields of an object, as whoever applied exactly this would own them.
///
/// # Errors
/// If the object does not fit its schema.
pub fn fields_of(kind: &Kind, object: &Value) -> Result<FieldSet, TypedError> {
    let place = Place::root(kind.schema());
    check::check(&place, object)?;
    Ok(walk::to_set(&place, object))
}
