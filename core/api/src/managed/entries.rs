//! `metadata.managedFields`: who owns what, as stored and as worked with.

use super::set::FieldSet;
use crate::value::{at, list_at, str_at};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Update managers that are kept apart; older ones become one, as in Kubernetes.
const MAX_UPDATERS: usize = 10;
/// The name of that one.
const ANCIENT: &str = "ancient-changes";

/// What tells one manager from another.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    pub(super) name: String,
    /// Whether it applies; otherwise it updates.
    pub(super) applies: bool,
    /// Of an updater; an applier is the same in every version.
    pub(super) api_version: String,
    pub(super) subresource: String,
}

/// What one manager owns.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) set: FieldSet,
    pub(super) api_version: String,
    /// When it last changed, RFC 3339.
    pub(super) time: String,
}

/// All managers of an object.
pub(super) type Managers = BTreeMap<Identity, Owned>;

/// Reads `metadata.managedFields`; entries that cannot be read make the whole
/// unread, as in Kubernetes.
pub(super) fn read(object: &Value) -> Managers {
    try_read(object).unwrap_or_default()
}

/// The same, `None` if an entry cannot be read.
pub(super) fn try_read(object: &Value) -> Option<Managers> {
    let mut managers = Managers::new();
    for entry in list_at(object, "metadata.managedFields") {
        let applies = match str_at(entry, "operation") {
            "Apply" => true,
            "Update" => false,
            _ => return None,
        };
        let fields = at(entry, "fieldsV1");
        let set = if fields.is_null() {
            FieldSet::default()
        } else {
            FieldSet::parse(fields).ok()?
        };
        let api_version = str_at(entry, "apiVersion").to_owned();
        if api_version.is_empty() || str_at(entry, "fieldsType") != "FieldsV1" {
            return None;
        }
        let identity = Identity {
            name: str_at(entry, "manager").to_owned(),
            applies,
            api_version: if applies {
                String::new()
            } else {
                api_version.clone()
            },
            subresource: str_at(entry, "subresource").to_owned(),
        };
        let owned = Owned {
            set,
            api_version,
            time: str_at(entry, "time").to_owned(),
        };
        managers.insert(identity, owned);
    }
    Some(managers)
}

/// Whether a client asks for all ownership to be forgotten: a list without
/// entries, or with one that is empty.
pub(super) fn is_reset(object: &Value) -> bool {
    match at(object, "metadata.managedFields")
        .as_array()
        .map(Vec::as_slice)
    {
        Some([]) => true,
        Some([only]) => only.as_object().is_some_and(Map::is_empty),
        Some(_) | None => false,
    }
}

/// Writes `metadata.managedFields`.
pub(super) fn write(object: &mut Value, managers: Managers) {
    let mut order: Vec<(&Identity, &Owned)> = managers
        .iter()
        .filter(|(_, owned)| !owned.set.is_empty())
        .collect();
    order.sort_by_key(|(identity, owned)| {
        (
            !identity.applies,
            owned.time.as_str(),
            identity.name.as_str(),
            owned.api_version.as_str(),
            identity.subresource.as_str(),
        )
    });
    let entries: Vec<Value> = order
        .into_iter()
        .map(|(identity, owned)| entry(identity, owned))
        .collect();
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        if entries.is_empty() {
            metadata.remove("managedFields");
        } else {
            metadata.insert("managedFields".to_owned(), Value::Array(entries));
        }
    }
}

fn entry(identity: &Identity, owned: &Owned) -> Value {
    let operation = if identity.applies { "Apply" } else { "Update" };
    let mut entry = json!({
        "manager": identity.name,
        "operation": operation,
        "apiVersion": owned.api_version,
        "time": owned.time,
        "fieldsType": "FieldsV1",
        "fieldsV1": owned.set.to_value(),
    });
    if let Some(map) = entry.as_object_mut() {
        if !identity.subresource.is_empty() {
            map.insert(
                "subresource".to_owned(),
                identity.subresource.as_str().into(),
            );
        }
        map.retain(|_, value| value.as_str() != Some(""));
    }
    entry
}

/// The oldest updaters put together once there are too many, those of one
/// version into one. The oldest of a version stays apart until a second joins it.
pub(super) fn capped(mut managers: Managers) -> Managers {
    let mut updaters: Vec<(String, Identity)> = managers
        .iter()
        .filter(|(identity, _)| !identity.applies)
        .map(|(identity, owned)| (owned.time.clone(), identity.clone()))
        .collect();
    updaters.sort();
    let mut count = updaters.len();
    let mut first_by_version: BTreeMap<String, Identity> = BTreeMap::new();
    for (_, identity) in updaters {
        if count <= MAX_UPDATERS {
            break;
        }
        let version = identity.api_version.clone();
        let Some(first) = first_by_version.get(&version) else {
            first_by_version.insert(version, identity);
            continue;
        };
        let ancient = Identity {
            name: ANCIENT.to_owned(),
            applies: false,
            api_version: version,
            subresource: String::new(),
        };
        if !managers.contains_key(&ancient)
            && let Some(owned) = managers.remove(first)
        {
            managers.insert(ancient.clone(), owned);
        }
        if identity == ancient {
            continue;
        }
        if let Some(joins) = managers.remove(&identity) {
            let kept = managers.entry(ancient).or_default();
            kept.set = std::mem::take(&mut kept.set).union(&joins.set);
            kept.api_version = joins.api_version;
            kept.time = joins.time;
            count -= 1;
        }
    }
    managers
}
