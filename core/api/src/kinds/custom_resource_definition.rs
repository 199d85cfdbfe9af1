//! CustomResourceDefinition: a kind that clients bring along.

use super::{BASE, Column, Generation, Kind, NAME_COLUMN, Write, schema_of, status_of};
use crate::custom::{CLEANUP_FINALIZER, crd, names};
use crate::meta;
use crate::value::{
    bool_at, list_at, remove, set, set_default, set_default_text, str_at, strings_at,
};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The row of the kinds table.
pub static KIND: Kind = Kind {
    group: "apiextensions.k8s.io",
    kind: "CustomResourceDefinition",
    list_kind: "CustomResourceDefinitionList",
    plural: "customresourcedefinitions",
    singular: "customresourcedefinition",
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    namespaced: false,
    subresources: &[status_of(
        "apiextensions.k8s.io",
        "v1",
        "CustomResourceDefinition",
    )],
    definition: "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1.CustomResourceDefinition",
    schema: schema_of::<
        k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    >,
    columns: &[
        NAME_COLUMN,
        Column {
            name: "Created At",
            kind: "date",
            format: "",
            priority: 0,
            description: "When the definition was created.",
        },
    ],
    row,
    defaults,
    validate: crd::validate,
    validate_status: crd::validate_status,
    prepare,
    generation: Generation::Spec,
    warnings,
    deleting,
    unconditional_update: false,
    ..BASE
};

fn row(object: &Value, _now: Timestamp) -> Vec<Value> {
    vec![
        meta::name(object).into(),
        meta::creation_timestamp(object).into(),
    ]
}

fn defaults(object: &mut Value) {
    let kind = str_at(object, "spec.names.kind").to_owned();
    if !kind.is_empty() {
        set_default_text(object, "spec.names.singular", &kind.to_lowercase());
        set_default_text(object, "spec.names.listKind", &format!("{kind}List"));
    }
    set_default_text(object, "spec.conversion.strategy", "None");
    let service = "spec.conversion.webhook.clientConfig.service";
    if !str_at(object, &format!("{service}.name")).is_empty() {
        set_default(object, &format!("{service}.port"), 443);
    }
}

fn prepare(object: &mut Value, old: Option<&Value>, write: Write) {
    if write == Write::Status {
        return;
    }
    if old.is_none() {
        let status = json!({
            // Kubernetes has null here for a moment, on which `kubectl wait` fails.
            "conditions": [],
            "acceptedNames": {"plural": "", "kind": ""},
            "storedVersions": [],
        });
        set(object, "status", status);
    }
    // False is the only value of v1, and not said.
    if !bool_at(object, "spec.preserveUnknownFields") {
        drop(remove(object, "spec.preserveUnknownFields"));
    }
    let mut stored: Vec<String> = strings_at(object, "status.storedVersions")
        .into_iter()
        .map(str::to_owned)
        .collect();
    for version in list_at(object, "spec.versions") {
        let name = str_at(version, "name");
        if bool_at(version, "storage") && !stored.iter().any(|stored| stored == name) {
            stored.push(name.to_owned());
        }
    }
    set(object, "status.storedVersions", stored);
}

fn warnings(object: &Value, _old: Option<&Value>) -> Vec<String> {
    let mut warnings = Vec::new();
    if str_at(object, "spec.conversion.strategy") == "Webhook" {
        warnings.push(
            "spec.conversion.strategy: webhooks are not called by this server; versions differ in apiVersion only"
                .to_owned(),
        );
    }
    warnings
}

/// The objects go first, then the definition.
fn deleting(object: &mut Value, now: &str) {
    if meta::deletion_timestamp(object).is_some() {
        return;
    }
    let mut finalizers: Vec<String> = meta::finalizers(object)
        .into_iter()
        .map(str::to_owned)
        .collect();
    if !finalizers.iter().any(|one| one == CLEANUP_FINALIZER) {
        finalizers.push(CLEANUP_FINALIZER.to_owned());
    }
    let texts: Vec<&str> = finalizers.iter().map(String::as_str).collect();
    meta::set_finalizers(object, &texts);
    let condition = names::Condition {
        name: "Terminating",
        status: "True",
        reason: "InstanceDeletionPending",
        message: "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon",
    };
    names::set_condition(object, condition, now);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_completed_and_the_storage_version_is_noted() {
        let mut object = json!({"metadata": {"name": "as.example.com"}, "spec": {"group": "example.com",
            "names": {"kind": "Alpha", "plural": "alphas"}, "preserveUnknownFields": false,
            "versions": [{"name": "v1", "served": true, "storage": true}]}});
        KIND.default(&mut object);
        KIND.prepare_create(&mut object);
        assert_eq!(object["spec"]["names"]["singular"], "alpha");
        assert_eq!(object["spec"]["names"]["listKind"], "AlphaList");
        assert_eq!(object["spec"]["conversion"], json!({"strategy": "None"}));
        assert_eq!(object["status"]["storedVersions"], json!(["v1"]));
        assert!(object["spec"].get("preserveUnknownFields").is_none());
        let mut new = object.clone();
        new["spec"]["versions"] = json!([{"name": "v2", "served": true, "storage": true}, {"name": "v1", "served": true, "storage": false}]);
        KIND.prepare_update(&mut new, &object);
        assert_eq!(new["status"]["storedVersions"], json!(["v1", "v2"]));
        assert_eq!(meta::generation(&new), 2);
    }

    #[test]
    fn deletion_waits_for_the_objects() {
        let mut object = json!({"metadata": {"name": "as.example.com"}});
        KIND.begin_deletion(&mut object, "t");
        assert_eq!(meta::finalizers(&object), [CLEANUP_FINALIZER]);
        assert!(names::is_true(&object, "Terminating"));
    }
}
