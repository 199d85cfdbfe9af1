//! Server-side tables (`meta.k8s.io/v1` Table) and metadata-only objects.
//!
//! A client asks with `Accept: application/json;as=Table;v=v1;g=meta.k8s.io`
//! (or `as=PartialObjectMetadata[List]`) and gets columns and cells instead of
//! objects, so that every kubectl prints what the server knows to print.

use crate::kinds::{Column, Kind};
use crate::value::{at, str_at};
use crate::{meta, value};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

/// What a row carries beside its cells (`includeObject` of the request).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Include {
    /// Nothing.
    None,
    /// The object's metadata, which kubectl asks for.
    #[default]
    Metadata,
    /// The whole object.
    Object,
}

impl Include {
    /// Reads the query parameter; an unknown word is the default.
    pub fn parse(text: &str) -> Self {
        match text {
            "None" => Self::None,
            "Object" => Self::Object,
            _ => Self::Metadata,
        }
    }
}

/// How to print a table.
#[derive(Clone, Debug)]
pub struct Options {
    /// What each row carries.
    pub include: Include,
    /// The time that ages are counted to.
    pub now: Timestamp,
    /// Whether to leave the column definitions out (later events of a watch).
    pub headless: bool,
}

/// A Table of objects of one kind; `list_metadata` is that of the list
/// (resourceVersion, continue, remainingItemCount) or of the one object.
pub fn table<'a>(
    kind: &Kind,
    objects: impl IntoIterator<Item = &'a Value>,
    list_metadata: Map<String, Value>,
    options: &Options,
) -> Value {
    let rows: Vec<Value> = objects
        .into_iter()
        .map(|object| row(kind, object, options))
        .collect();
    let columns: Vec<Value> = match options.headless {
        true => Vec::new(),
        false => column_definitions(kind),
    };
    json!({
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_metadata,
        "columnDefinitions": columns,
        "rows": rows,
    })
}

/// The list metadata of a table of one object.
pub fn metadata_of(object: &Value) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert(
        "resourceVersion".to_owned(),
        meta::resource_version(object).into(),
    );
    map
}

fn column_definitions(kind: &Kind) -> Vec<Value> {
    match &kind.custom {
        Some(definition) => definition.columns().to_vec(),
        None => kind.columns.iter().map(definition).collect(),
    }
}

fn definition(column: &Column) -> Value {
    json!({
        "name": column.name,
        "type": column.kind,
        "format": column.format,
        "description": column.description,
        "priority": column.priority,
    })
}

fn row(kind: &Kind, object: &Value, options: &Options) -> Value {
    let mut row = Map::new();
    row.insert("cells".to_owned(), kind.cells(object, options.now).into());
    if let Some(conditions) = finished(object) {
        row.insert("conditions".to_owned(), conditions);
    }
    match options.include {
        Include::None => {}
        Include::Metadata => drop(row.insert("object".to_owned(), partial_metadata(object))),
        Include::Object => drop(row.insert("object".to_owned(), object.clone())),
    }
    Value::Object(row)
}

/// Clients may hide pods that have run to their end.
fn finished(object: &Value) -> Option<Value> {
    let (reason, message) = match (str_at(object, "kind"), str_at(object, "status.phase")) {
        ("Pod", "Succeeded") => ("Succeeded", "The pod has completed successfully."),
        ("Pod", "Failed") => ("Failed", "The pod failed."),
        _ => return None,
    };
    Some(json!([{"type": "Completed", "status": "True", "reason": reason, "message": message}]))
}

/// The object's metadata alone, as PartialObjectMetadata.
pub fn partial_metadata(object: &Value) -> Value {
    json!({
        "kind": "PartialObjectMetadata",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": at(object, "metadata"),
    })
}

/// A PartialObjectMetadataList.
pub fn partial_metadata_list<'a>(
    objects: impl IntoIterator<Item = &'a Value>,
    list_metadata: Map<String, Value>,
) -> Value {
    let items: Vec<Value> = objects.into_iter().map(partial_metadata).collect();
    json!({
        "kind": "PartialObjectMetadataList",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_metadata,
        "items": items,
    })
}

/// The cells of a kind with no columns of its own.
pub fn name_and_age(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![meta::name(object).into(), age(object, now)]
}

/// The age cell of an object.
pub fn age(object: &Value, now: Timestamp) -> Value {
    since(meta::creation_timestamp(object), now).into()
}

/// How long ago an RFC 3339 time was, in kubectl's short form.
pub fn since(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(time) => human_duration(now.as_second() - time.as_second()),
        Err(_) => "<unknown>".to_owned(),
    }
}

/// `5s`, `2m30s`, `15m`, `3h5m`, `2d4h`, `40d`, `3y20d`: as short as the
/// reader needs, exactly as apimachinery's `HumanDuration`.
pub fn human_duration(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let pair = |big: i64, big_unit: &str, small: i64, small_unit: &str| match small {
        0 => format!("{big}{big_unit}"),
        _ => format!("{big}{big_unit}{small}{small_unit}"),
    };
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..120 => format!("{seconds}s"),
        120..600 => pair(seconds / MINUTE, "m", seconds % MINUTE, "s"),
        600..10_800 => format!("{}m", seconds / MINUTE),
        10_800..28_800 => pair(seconds / HOUR, "h", seconds % HOUR / MINUTE, "m"),
        28_800..172_800 => format!("{}h", seconds / HOUR),
        172_800..691_200 => pair(seconds / DAY, "d", seconds % DAY / HOUR, "h"),
        691_200..63_072_000 => format!("{}d", seconds / DAY),
        63_072_000..252_288_000 => pair(seconds / YEAR, "y", seconds % YEAR / DAY, "d"),
        252_288_000.. => format!("{}y", seconds / YEAR),
    }
}

/// A text cell, with `<none>` for what is empty.
pub(crate) fn or_none(text: &str) -> Value {
    match text {
        "" => "<none>".into(),
        _ => text.into(),
    }
}

/// `a=b,c=d`, or `<none>`: how tables show a map of labels.
pub(crate) fn label_list(map: &Value) -> Value {
    let pairs: Vec<String> = meta::texts(map)
        .into_iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    or_none(&pairs.join(","))
}

/// The names and the images of the containers of a pod template: two wide
/// columns of the workload kinds.
pub(crate) fn containers_and_images(pod_spec: &Value) -> (Value, Value) {
    let join = |field: &str| -> Value {
        let parts: Vec<&str> = value::list_at(pod_spec, "containers")
            .iter()
            .map(|container| str_at(container, field))
            .collect();
        parts.join(",").into()
    };
    (join("name"), join("image"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_kubectls() {
        let cases = [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (150, "2m30s"),
            (599, "9m59s"),
            (600, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_100, "3h5m"),
            (28_800, "8h"),
            (172_799, "47h"),
            (172_800, "2d"),
            (180_000, "2d2h"),
            (691_200, "8d"),
            (63_072_000, "2y"),
            (64_800_000, "2y20d"),
            (252_288_000, "8y"),
            (-1, "0s"),
            (-5, "<invalid>"),
        ];
        for (seconds, text) in cases {
            assert_eq!(human_duration(seconds), text, "{seconds}");
        }
    }
}
