//! Namespace: a room for names.

use super::{
    AGE_COLUMN, BASE, Kind, NAME_COLUMN, NameRule, Subresource, Write, column, schema_of, status_of,
};
use crate::value::{copy, set, str_at};
use crate::{meta, table, validate};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// The label that carries the namespace's own name.
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

/// The finalizer in `spec.finalizers` that stands for its contents.
pub const FINALIZER: &str = "kubernetes";

/// The row of the kinds table.
pub static KIND: Kind = Kind {
    kind: "Namespace",
    list_kind: "NamespaceList",
    plural: "namespaces",
    singular: "namespace",
    short_names: &["ns"],
    namespaced: false,
    verbs: &[
        "create", "delete", "get", "list", "patch", "update", "watch",
    ],
    subresources: &[
        Subresource {
            name: "finalize",
            group: "",
            version: "v1",
            kind: "Namespace",
            verbs: &["update"],
        },
        status_of("", "v1", "Namespace"),
    ],
    definition: "io.k8s.api.core.v1.Namespace",
    schema: schema_of::<k8s_openapi::api::core::v1::Namespace>,
    columns: &[
        NAME_COLUMN,
        column("Status", "string", "Active or Terminating."),
        AGE_COLUMN,
    ],
    row,
    defaults,
    validate: validate::data::namespace,
    prepare,
    name_rule: NameRule::Label,
    fields: |object| BTreeMap::from([("status.phase", str_at(object, "status.phase").to_owned())]),
    delete_returns_object: true,
    ..BASE
};

fn defaults(object: &mut Value) {
    let name = meta::name(object).to_owned();
    if !name.is_empty() {
        meta::set_label(object, NAME_LABEL, &name);
    }
}

fn prepare(object: &mut Value, old: Option<&Value>, write: Write) {
    match (write, old) {
        (Write::Create, _) | (_, None) => {
            set(object, "spec.finalizers", json!([FINALIZER]));
            set(object, "status", json!({"phase": "Active"}));
        }
        (Write::Update, Some(old)) => copy(old, object, "spec.finalizers"),
        (Write::Status, Some(_)) => {}
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    vec![
        meta::name(object).into(),
        str_at(object, "status.phase").into(),
        table::age(object, now),
    ]
}
