//! What kubectl's own apply left in its annotation.
//!
//! Whoever goes from kubectl's own apply to this one owns what the annotation
//! says, as long as it is still so: a conflict there is one with itself. The
//! annotation then follows what is applied, so that the way back is open.

use super::conflict::Conflict;
use super::set::{FieldSet, shown};
use super::typed::Place;
use super::{Writer, bare, check, walk};
use crate::kinds::Kind;
use crate::value::{at, str_at};
use serde_json::{Map, Value};

/// kubectl's own memory of what it applied on its side.
pub(super) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The only manager to whom this applies; others ask for a name of their own.
const KUBECTL: &str = "kubectl";
/// All annotations together may not be larger.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// The conflicts that are none with kubectl itself.
pub(super) fn others(
    kind: &Kind,
    place: &Place<'_>,
    live: &Value,
    conflicts: Vec<Conflict>,
    writer: Writer<'_>,
) -> Vec<Conflict> {
    let Some(own) = own_fields(kind, place, live).filter(|_| writer.manager == KUBECTL) else {
        return conflicts;
    };
    let own: Vec<String> = own.paths().iter().map(|path| shown(path)).collect();
    conflicts
        .into_iter()
        .filter(|conflict| !own.contains(&conflict.field))
        .collect()
}

/// What the annotation says and the object still has.
fn own_fields(kind: &Kind, place: &Place<'_>, live: &Value) -> Option<FieldSet> {
    let applied: Value = serde_json::from_str(annotation(live)?).ok()?;
    if str_at(&applied, "apiVersion") != kind.api_version() {
        return None;
    }
    check::check(place, &applied).ok()?;
    let set = walk::to_set(place, &applied);
    let other = walk::compare(place, Some(&applied), Some(&bare(live)));
    Some(
        set.difference(&other.modified)
            .difference(&other.added)
            .difference(&other.removed),
    )
}

fn annotation(object: &Value) -> Option<&str> {
    // The key has dots, so it is no path.
    let annotation = at(object, "metadata.annotations").get(LAST_APPLIED)?;
    annotation.as_str().filter(|text| !text.is_empty())
}

/// Writes what kubectl applies into the annotation of an object that has one.
pub(super) fn follow(object: &mut Value, applied: &Value, writer: Writer<'_>) {
    if writer.manager != KUBECTL || annotation(object).is_none() {
        return;
    }
    let mut applied = applied.clone();
    if let Some(Value::Object(own)) = applied.pointer_mut("/metadata/annotations") {
        own.remove(LAST_APPLIED);
    }
    let Some(Value::Object(annotations)) = object.pointer_mut("/metadata/annotations") else {
        return;
    };
    annotations.insert(LAST_APPLIED.to_owned(), format!("{applied}\n").into());
    if size(annotations) > MAX_ANNOTATIONS {
        annotations.remove(LAST_APPLIED);
    }
}

fn size(annotations: &Map<String, Value>) -> usize {
    annotations
        .iter()
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum()
}
