//! ConfigMap: settings as keys and values.

use super::{AGE_COLUMN, BASE, Kind, NAME_COLUMN, column, schema_of};
use crate::value::map_at;
use crate::{meta, table, validate};
use jiff::Timestamp;
use serde_json::Value;

/// The row of the kinds table.
pub static KIND: Kind = Kind {
    kind: "ConfigMap",
    list_kind: "ConfigMapList",
    plural: "configmaps",
    singular: "configmap",
    short_names: &["cm"],
    definition: "io.k8s.api.core.v1.ConfigMap",
    schema: schema_of::<k8s_openapi::api::core::v1::ConfigMap>,
    columns: &[
        NAME_COLUMN,
        column("Data", "string", "Number of entries."),
        AGE_COLUMN,
    ],
    row,
    validate: validate::data::config_map,
    ..BASE
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let entries = ["data", "binaryData"]
        .iter()
        .filter_map(|path| map_at(object, path))
        .map(|map| map.len())
        .sum::<usize>();
    vec![
        meta::name(object).into(),
        entries.into(),
        table::age(object, now),
    ]
}
