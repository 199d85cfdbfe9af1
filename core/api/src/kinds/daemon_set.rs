//! DaemonSet: one pod on every node that suits it.

use super::deployment::{prepare, selector_cell, template_defaults};
use super::{AGE_COLUMN, BASE, Generation, Kind, NAME_COLUMN, column, schema_of, status_of, wide};
use crate::value::{at, int_at, map_at, set_default, set_default_text, str_at};
use crate::{meta, table, validate};
use jiff::Timestamp;
use serde_json::Value;

/// The row of the kinds table.
pub static KIND: Kind = Kind {
    group: "apps",
    kind: "DaemonSet",
    list_kind: "DaemonSetList",
    plural: "daemonsets",
    singular: "daemonset",
    short_names: &["ds"],
    categories: &["all"],
    subresources: &[status_of("apps", "v1", "DaemonSet")],
    definition: "io.k8s.api.apps.v1.DaemonSet",
    schema: schema_of::<k8s_openapi::api::apps::v1::DaemonSet>,
    columns: &[
        NAME_COLUMN,
        column("Desired", "integer", "Nodes that should run a pod of it."),
        column("Current", "integer", "Nodes that run one and should."),
        column("Ready", "integer", "Pods that are ready."),
        column("Up-to-date", "integer", "Pods of the current template."),
        column(
            "Available",
            "integer",
            "Pods that have been ready long enough.",
        ),
        column("Node Selector", "string", "Labels of the nodes that suit."),
        AGE_COLUMN,
        wide("Containers", "string", "Names of the containers."),
        wide("Images", "string", "Images of the containers."),
        wide("Selector", "string", "Labels of its pods."),
    ],
    row,
    defaults,
    validate: validate::daemon_set::daemon_set,
    validate_status: validate::daemon_set::status,
    prepare,
    generation: Generation::Spec,
    ..BASE
};

fn defaults(object: &mut Value) {
    set_default_text(object, "spec.updateStrategy.type", "RollingUpdate");
    if str_at(object, "spec.updateStrategy.type") == "RollingUpdate" {
        let rolling = "spec.updateStrategy.rollingUpdate";
        set_default(object, &format!("{rolling}.maxUnavailable"), 1);
        set_default(object, &format!("{rolling}.maxSurge"), 0);
    }
    set_default(object, "spec.revisionHistoryLimit", 10);
    template_defaults(object);
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let count = |path: &str| int_at(object, path).unwrap_or(0);
    let (containers, images) = table::containers_and_images(at(object, "spec.template.spec"));
    vec![
        meta::name(object).into(),
        count("status.desiredNumberScheduled").into(),
        count("status.currentNumberScheduled").into(),
        count("status.numberReady").into(),
        count("status.updatedNumberScheduled").into(),
        count("status.numberAvailable").into(),
        node_selector(object),
        table::age(object, now),
        containers,
        images,
        selector_cell(object),
    ]
}

fn node_selector(object: &Value) -> Value {
    let labels = map_at(object, "spec.template.spec.nodeSelector");
    let pairs: Vec<String> = labels
        .into_iter()
        .flatten()
        .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or_default()))
        .collect();
    table::or_none(&pairs.join(","))
}
