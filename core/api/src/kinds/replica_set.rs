//! ReplicaSet: so many pods of one template.

use super::deployment::{prepare, selector_cell, template_defaults};
use super::{
    AGE_COLUMN, BASE, Generation, Kind, NAME_COLUMN, SCALE, column, schema_of, status_of, wide,
};
use crate::value::{at, int_at, set_default};
use crate::{meta, table, validate};
use jiff::Timestamp;
use serde_json::Value;
use std::collections::BTreeMap;

/// The row of the kinds table.
pub static KIND: Kind = Kind {
    group: "apps",
    kind: "ReplicaSet",
    list_kind: "ReplicaSetList",
    plural: "replicasets",
    singular: "replicaset",
    short_names: &["rs"],
    categories: &["all"],
    subresources: &[SCALE, status_of("apps", "v1", "ReplicaSet")],
    definition: "io.k8s.api.apps.v1.ReplicaSet",
    schema: schema_of::<k8s_openapi::api::apps::v1::ReplicaSet>,
    columns: &[
        NAME_COLUMN,
        column("Desired", "integer", "Pods that are wanted."),
        column("Current", "integer", "Pods that there are."),
        column("Ready", "integer", "Pods that are ready."),
        AGE_COLUMN,
        wide("Containers", "string", "Names of the containers."),
        wide("Images", "string", "Images of the containers."),
        wide("Selector", "string", "Labels of its pods."),
    ],
    row,
    defaults: |object| {
        set_default(object, "spec.replicas", 1);
        template_defaults(object);
    },
    validate: validate::workload::replica_set,
    prepare,
    generation: Generation::Spec,
    fields: |object| {
        let replicas = int_at(object, "status.replicas").unwrap_or(0);
        BTreeMap::from([("status.replicas", replicas.to_string())])
    },
    ..BASE
};

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let count = |path: &str| int_at(object, path).unwrap_or(0);
    let (containers, images) = table::containers_and_images(at(object, "spec.template.spec"));
    vec![
        meta::name(object).into(),
        count("spec.replicas").into(),
        count("status.replicas").into(),
        count("status.readyReplicas").into(),
        table::age(object, now),
        containers,
        images,
        selector_cell(object),
    ]
}
