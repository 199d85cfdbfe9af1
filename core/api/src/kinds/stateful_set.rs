//! StatefulSet: pods with names of their own, made and replaced in order.

use super::deployment::{prepare, template_defaults};
use super::{
    AGE_COLUMN, BASE, Generation, Kind, NAME_COLUMN, SCALE, column, schema_of, status_of, wide,
};
use crate::value::{at, at_mut, int_at, set_default, set_default_text, str_at};
use crate::{meta, table, validate};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The row of the kinds table.
pub static KIND: Kind = Kind {
    group: "apps",
    kind: "StatefulSet",
    list_kind: "StatefulSetList",
    plural: "statefulsets",
    singular: "statefulset",
    short_names: &["sts"],
    categories: &["all"],
    subresources: &[SCALE, status_of("apps", "v1", "StatefulSet")],
    definition: "io.k8s.api.apps.v1.StatefulSet",
    schema: schema_of::<k8s_openapi::api::apps::v1::StatefulSet>,
    columns: &[
        NAME_COLUMN,
        column("Ready", "string", "Pods that are ready, of those wanted."),
        AGE_COLUMN,
        wide("Containers", "string", "Names of the containers."),
        wide("Images", "string", "Images of the containers."),
    ],
    row,
    defaults,
    validate: validate::stateful_set::stateful_set,
    validate_status: validate::stateful_set::status,
    prepare,
    generation: Generation::Spec,
    ..BASE
};

fn defaults(object: &mut Value) {
    set_default_text(object, "spec.podManagementPolicy", "OrderedReady");
    set_default_text(object, "spec.updateStrategy.type", "RollingUpdate");
    if str_at(object, "spec.updateStrategy.type") == "RollingUpdate" {
        set_default(object, "spec.updateStrategy.rollingUpdate.partition", 0);
    }
    let policy = "spec.persistentVolumeClaimRetentionPolicy";
    set_default_text(object, &format!("{policy}.whenDeleted"), "Retain");
    set_default_text(object, &format!("{policy}.whenScaled"), "Retain");
    set_default(object, "spec.replicas", 1);
    set_default(object, "spec.revisionHistoryLimit", 10);
    template_defaults(object);
    if let Some(Value::Array(claims)) = at_mut(object, "spec.volumeClaimTemplates") {
        for claim in claims.iter_mut().filter(|claim| claim.is_object()) {
            set_default_text(claim, "apiVersion", "v1");
            set_default_text(claim, "kind", "PersistentVolumeClaim");
            set_default_text(claim, "spec.volumeMode", "Filesystem");
            set_default(claim, "status", json!({"phase": "Pending"}));
        }
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let count = |path: &str| int_at(object, path).unwrap_or(0);
    let (containers, images) = table::containers_and_images(at(object, "spec.template.spec"));
    let ready = format!(
        "{}/{}",
        count("status.readyReplicas"),
        count("spec.replicas")
    );
    vec![
        meta::name(object).into(),
        ready.into(),
        table::age(object, now),
        containers,
        images,
    ]
}
