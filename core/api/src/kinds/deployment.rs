//! Deployment: pods of one template, replaced step by step.

use super::{
    AGE_COLUMN, BASE, Generation, Kind, NAME_COLUMN, SCALE, Write, column, schema_of, status_of,
    wide,
};
use crate::selector::LabelSelector;
use crate::value::{
    at, at_mut, copy, has, int_at, remove, set, set_default, set_default_text, str_at,
};
use crate::{defaults, meta, table, validate};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The row of the kinds table.
pub static KIND: Kind = Kind {
    group: "apps",
    kind: "Deployment",
    list_kind: "DeploymentList",
    plural: "deployments",
    singular: "deployment",
    short_names: &["deploy"],
    categories: &["all"],
    subresources: &[SCALE, status_of("apps", "v1", "Deployment")],
    definition: "io.k8s.api.apps.v1.Deployment",
    schema: |generator| {
        schema_of::<k8s_openapi::api::apps::v1::Deployment>(generator);
        schema_of::<k8s_openapi::api::autoscaling::v1::Scale>(generator);
    },
    columns: &[
        NAME_COLUMN,
        column("Ready", "string", "Pods that are ready, of those wanted."),
        column("Up-to-date", "string", "Pods of the current template."),
        column(
            "Available",
            "string",
            "Pods that have been ready long enough.",
        ),
        AGE_COLUMN,
        wide("Containers", "string", "Names of the containers."),
        wide("Images", "string", "Images of the containers."),
        wide("Selector", "string", "Labels of its pods."),
    ],
    row,
    defaults,
    validate: validate::workload::deployment,
    validate_status: validate::workload::deployment_status,
    prepare,
    generation: Generation::Spec,
    ..BASE
};

fn defaults(object: &mut Value) {
    set_default(object, "spec.replicas", 1);
    set_default_text(object, "spec.strategy.type", "RollingUpdate");
    if str_at(object, "spec.strategy.type") == "RollingUpdate" {
        set_default(object, "spec.strategy.rollingUpdate.maxUnavailable", "25%");
        set_default(object, "spec.strategy.rollingUpdate.maxSurge", "25%");
    }
    set_default(object, "spec.revisionHistoryLimit", 10);
    set_default(object, "spec.progressDeadlineSeconds", 600);
    template_defaults(object);
}

/// Defaults of `spec.template`.
pub(crate) fn template_defaults(object: &mut Value) {
    if let Some(template) = at_mut(object, "spec.template").filter(|template| template.is_object())
    {
        defaults::template(template);
    }
}

pub(crate) fn prepare(object: &mut Value, old: Option<&Value>, write: Write) {
    if (write, old.is_some()) == (Write::Create, false) {
        drop(remove(object, "status"));
        let status = empty_status(str_at(object, "kind"));
        set(object, "status", status);
    }
    if let (Write::Status, Some(old), "Deployment") = (write, old, str_at(object, "kind")) {
        copy(old, object, "metadata.labels");
    }
}

/// A status of nothing yet. Go's types never leave these members out, and
/// strict clients insist on them.
fn empty_status(kind: &str) -> Value {
    match kind {
        "ReplicaSet" => json!({"replicas": 0}),
        "StatefulSet" => json!({"replicas": 0, "availableReplicas": 0}),
        "DaemonSet" => json!({
            "currentNumberScheduled": 0, "numberMisscheduled": 0,
            "desiredNumberScheduled": 0, "numberReady": 0,
        }),
        "Ingress" => json!({"loadBalancer": {}}),
        _ => json!({}),
    }
}

fn row(object: &Value, now: Timestamp) -> Vec<Value> {
    let count = |path: &str| int_at(object, path).unwrap_or(0);
    let (containers, images) = table::containers_and_images(at(object, "spec.template.spec"));
    vec![
        meta::name(object).into(),
        format!(
            "{}/{}",
            count("status.readyReplicas"),
            count("spec.replicas")
        )
        .into(),
        count("status.updatedReplicas").into(),
        count("status.availableReplicas").into(),
        table::age(object, now),
        containers,
        images,
        selector_cell(object),
    ]
}

/// The selector of a workload as one text.
pub(crate) fn selector_cell(object: &Value) -> Value {
    match LabelSelector::from_object(at(object, "spec.selector")) {
        Ok(selector) if has(object, "spec.selector") => table::or_none(&selector.to_string()),
        Ok(_) => "<none>".into(),
        Err(_) => "<error>".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_and_cells() {
        let mut object = json!({"metadata": {"name": "web", "creationTimestamp": "2024-05-01T09:00:00Z"},
            "spec": {"selector": {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "t", "operator": "In", "values": ["a", "b"]}]},
                "template": {"spec": {"containers": [{"name": "a", "image": "nginx"}, {"name": "b", "image": "busybox"}]}}}});
        (KIND.defaults)(&mut object);
        assert_eq!(object["spec"]["replicas"], 1);
        assert_eq!(
            object["spec"]["strategy"],
            json!({"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}})
        );
        assert_eq!(
            object["spec"]["template"]["spec"]["restartPolicy"],
            "Always"
        );
        object["status"] = json!({"readyReplicas": 1, "updatedReplicas": 1});
        let now = "2024-05-01T10:00:00Z".parse().unwrap();
        assert_eq!(
            Value::Array(row(&object, now)),
            json!([
                "web",
                "1/1",
                1,
                0,
                "60m",
                "a,b",
                "nginx,busybox",
                "app=web,t in (a,b)"
            ])
        );
    }

    #[test]
    fn recreate_has_no_rolling_update() {
        let mut object = json!({"spec": {"strategy": {"type": "Recreate"}}});
        (KIND.defaults)(&mut object);
        assert_eq!(object["spec"]["strategy"], json!({"type": "Recreate"}));
    }

    #[test]
    fn the_generation_grows_with_the_spec_only() {
        let mut object = json!({"metadata": {"name": "web"}, "spec": {"replicas": 1}});
        KIND.prepare_create(&mut object);
        assert_eq!(meta::generation(&object), 1);
        let mut labelled = object.clone();
        meta::set_label(&mut labelled, "a", "b");
        KIND.prepare_update(&mut labelled, &object);
        assert_eq!(meta::generation(&labelled), 1);
        let mut scaled = labelled.clone();
        scaled["spec"]["replicas"] = json!(2);
        scaled["status"] = json!({"replicas": 7});
        KIND.prepare_update(&mut scaled, &labelled);
        assert_eq!(meta::generation(&scaled), 2);
        assert_eq!(scaled["status"], json!({}), "status is another door");
        let mut relabelled = labelled.clone();
        meta::set_label(&mut relabelled, "a", "c");
        KIND.prepare_status(&mut relabelled, &labelled);
        assert_eq!(meta::labels(&relabelled), meta::labels(&labelled));
    }
}
