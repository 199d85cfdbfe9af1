//! ControllerRevision: one state that a StatefulSet or DaemonSet has had.

use super::{AGE_COLUMN, BASE, Kind, NAME_COLUMN, column, schema_of};
use crate::cause::Cause;
use crate::value::{at, int_at, list_at, str_at};
use crate::{meta, table};
use jiff::Timestamp;
use serde_json::Value;

/// The row of the kinds table.
pub static KIND: Kind = Kind {
    group: "apps",
    kind: "ControllerRevision",
    list_kind: "ControllerRevisionList",
    plural: "controllerrevisions",
    singular: "controllerrevision",
    definition: "io.k8s.api.apps.v1.ControllerRevision",
    schema: schema_of::<k8s_openapi::api::apps::v1::ControllerRevision>,
    columns: &[
        NAME_COLUMN,
        column(
            "Controller",
            "string",
            "The workload that it is a state of.",
        ),
        column("Revision", "string", "Its number."),
        AGE_COLUMN,
    ],
    row,
    validate,
    ..BASE
};

fn validate(object: &Value, old: Option<&Value>) -> Vec<Cause> {
    let mut causes = Vec::new();
    if int_at(object, "revision").unwrap_or(0) < 0 {
        let message = "must be greater than or equal to 0";
        causes.push(Cause::invalid("revision", at(object, "revision"), message));
    }
    if at(object, "data").is_null() {
        causes.push(Cause::required("data", "data is mandatory"));
    }
    if let Some(old) = old
        && at(old, "data") != at(object, "data")
    {
        causes.push(Cause::invalid(
            "data",
            at(object, "data"),
            "field is immutable",
        ));
    }
    causes
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let controller = list_at(object, "metadata.ownerReferences")
        .iter()
        .find(|owner| at(owner, "controller") == &Value::Bool(true));
    let controller = controller.map_or_else(String::new, |owner| {
        let (group, _) = super::split_api_version(str_at(owner, "apiVersion"));
        let kind = str_at(owner, "kind").to_lowercase();
        format!("{kind}.{group}/{}", str_at(owner, "name"))
    });
    vec![
        meta::name(object).into(),
        table::or_none(&controller),
        int_at(object, "revision").unwrap_or(0).to_string().into(),
        table::age(object, now),
    ]
}
