//! Custom resources: validation, defaults, pruning, subresources, tables,
//! selection, patches.

use crate::common::{Lab, request};
use crate::{backups, define, policies};
use http::Method;
use serde_json::{Value, json};

const BACKUPS: &str = "/apis/storage.example.com/v1/namespaces/default/backups";
const POLICIES: &str = "/apis/policy.example.com/v1/clusterpolicies";

fn backup(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "storage.example.com/v1", "kind": "Backup", "metadata": {"name": name}, "spec": spec})
}

fn policy(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "policy.example.com/v1", "kind": "ClusterPolicy", "metadata": {"name": name}, "spec": spec})
}

async fn lab() -> Lab {
    let lab = Lab::start().await;
    define(&lab, &backups()).await;
    lab
}

#[tokio::test]
async fn defaults_are_filled_and_unknown_fields_dropped() {
    let lab = lab().await;
    let mut object = backup(
        "a",
        json!({"schedule": "0 3 * * *", "extra": {"x": 1}, "targets": [{"name": "n", "zone": 1}], "labels": {"any": "x"}}),
    );
    object["status"] = json!({"copies": 3});
    let got = lab.post(BACKUPS, &object).await;
    let warnings: Vec<&str> = got
        .headers
        .get_all("warning")
        .iter()
        .map(|value| value.to_str().unwrap())
        .collect();
    assert_eq!(
        warnings,
        [
            "299 - \"unknown field \\\"spec.extra\\\"\"",
            "299 - \"unknown field \\\"spec.targets[0].zone\\\"\""
        ]
    );
    let made = got.expect(201);
    assert_eq!(
        made["spec"],
        json!({"schedule": "0 3 * * *", "copies": 1, "limit": 10, "volume": "data", "class": "fast",
            "targets": [{"name": "n", "port": 443}], "labels": {"any": "x"}})
    );
    assert_eq!(made["metadata"]["generation"], 1);
    assert!(made.get("status").is_none(), "status is written elsewhere");

    let strict = format!("{BACKUPS}?fieldValidation=Strict");
    let refused = lab.post(&strict, &object).await.expect(400);
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.contains("strict decoding error: unknown field \"spec.extra\", unknown field \"spec.targets[0].zone\""),
        "{message}"
    );
    let ignore = format!("{BACKUPS}?fieldValidation=Ignore");
    object["metadata"]["name"] = json!("b");
    let got = lab.post(&ignore, &object).await;
    assert!(got.headers.get("warning").is_none());
    got.expect(201);
}

#[tokio::test]
async fn what_breaks_the_schema_is_told_field_by_field() {
    let lab = lab().await;
    let cases = [
        (json!({}), "spec.schedule: Required value"),
        (
            json!({"schedule": "now"}),
            "spec.schedule: Invalid value: \"now\": spec.schedule in body should match",
        ),
        (
            json!({"schedule": "0 3 * * *", "copies": 11}),
            "spec.copies: Invalid value: 11: spec.copies in body should be less than or equal to 10",
        ),
        (
            json!({"schedule": "0 3 * * *", "copies": "two"}),
            "spec.copies: Invalid value: \"string\": spec.copies in body must be of type integer: \"string\"",
        ),
        (
            json!({"schedule": "0 3 * * *", "class": "best"}),
            "spec.class: Unsupported value: \"best\": supported values: \"fast\", \"slow\"",
        ),
        (
            json!({"schedule": "0 3 * * *", "targets": [{"name": "a"}, {"name": "a"}]}),
            "spec.targets[1]: Duplicate value: {\"name\":\"a\"}",
        ),
        (
            json!({"schedule": "0 3 * * *", "volume": "a-name-that-is-far-too-long"}),
            "spec.volume: Too long: may not be more than 20 bytes",
        ),
    ];
    for (spec, text) in cases {
        let status = lab.post(BACKUPS, &backup("a", spec)).await.expect(422);
        let message = status["message"].as_str().unwrap();
        assert!(
            message.starts_with("Backup.storage.example.com \"a\" is invalid: "),
            "{message}"
        );
        assert!(message.contains(text), "{message}");
    }
    let status = lab
        .post(
            BACKUPS,
            &backup("a", json!({"schedule": "0 3 * * *", "copies": 11})),
        )
        .await
        .expect(422);
    let cause = &status["details"]["causes"][0];
    assert_eq!(cause["field"], "spec.copies");
    assert_eq!(cause["reason"], "FieldValueInvalid");
}

#[tokio::test]
async fn status_and_spec_are_written_apart() {
    let lab = lab().await;
    let path = format!("{BACKUPS}/a");
    let made = lab
        .post(BACKUPS, &backup("a", json!({"schedule": "0 3 * * *"})))
        .await
        .expect(201);
    let mut change = made.clone();
    change["spec"]["copies"] = json!(5);
    change["metadata"]["labels"] = json!({"a": "b"});
    change["status"] = json!({"copies": 2, "selector": "app=x"});
    let status = lab
        .put(&format!("{path}/status"), &change)
        .await
        .expect(200);
    assert_eq!(status["spec"]["copies"], 1);
    assert_eq!(status["status"]["copies"], 2);
    assert!(status["metadata"].get("labels").is_none());
    assert_eq!(status["metadata"]["generation"], 1);
    let patch = json!({"spec": {"copies": 3}, "status": {"copies": 9}});
    let changed = lab.merge(&path, &patch).await.expect(200);
    assert_eq!(changed["spec"]["copies"], 3);
    assert_eq!(changed["status"]["copies"], 2);
    assert_eq!(changed["metadata"]["generation"], 2);
    let labelled = json!({"metadata": {"labels": {"a": "b"}}});
    let labelled = lab.merge(&path, &labelled).await.expect(200);
    assert_eq!(labelled["metadata"]["generation"], 2);
}

#[tokio::test]
async fn scale_reads_and_writes_where_the_definition_says() {
    let lab = lab().await;
    let path = format!("{BACKUPS}/a");
    lab.post(BACKUPS, &backup("a", json!({"schedule": "0 3 * * *"})))
        .await
        .expect(201);
    let status = json!({"status": {"copies": 1, "selector": "app=x"}});
    lab.merge(&format!("{path}/status"), &status)
        .await
        .expect(200);
    let mut scale = lab.get(&format!("{path}/scale")).await.expect(200);
    assert_eq!(scale["spec"], json!({"replicas": 1}));
    assert_eq!(scale["status"], json!({"replicas": 1, "selector": "app=x"}));
    scale["spec"]["replicas"] = json!(4);
    lab.put(&format!("{path}/scale"), &scale).await.expect(200);
    let object = lab.get(&path).await.expect(200);
    assert_eq!(object["spec"]["copies"], 4);
    let much = json!({"spec": {"replicas": 40}});
    let refused = lab.merge(&format!("{path}/scale"), &much).await.expect(422);
    assert!(refused["message"].as_str().unwrap().contains("spec.copies"));
}

#[tokio::test]
async fn tables_have_the_definition_s_columns() {
    let lab = lab().await;
    lab.post(BACKUPS, &backup("a", json!({"schedule": "0 3 * * *"})))
        .await
        .expect(201);
    let ready = json!({"status": {"conditions": [{"type": "Ready", "status": "True"}]}});
    lab.merge(&format!("{BACKUPS}/a/status"), &ready)
        .await
        .expect(200);
    let accept = [("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")];
    let table = request(&lab.client, Method::GET, BACKUPS, None, &accept)
        .await
        .expect(200);
    let names: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|column| column["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["Name", "Schedule", "Copies", "Ready", "Class", "Age"]
    );
    let cells = table["rows"][0]["cells"].as_array().unwrap();
    assert_eq!(
        cells[..5],
        [
            json!("a"),
            json!("0 3 * * *"),
            json!(1),
            json!("True"),
            json!("fast")
        ]
    );
    assert!(cells[5].as_str().unwrap().ends_with('s'));
}

#[tokio::test]
async fn fields_that_the_definition_names_can_be_selected_by() {
    let lab = lab().await;
    for (name, class) in [("a", "fast"), ("b", "slow")] {
        let spec = json!({"schedule": "0 3 * * *", "class": class});
        lab.post(BACKUPS, &backup(name, spec)).await.expect(201);
    }
    let list = lab
        .get(&format!("{BACKUPS}?fieldSelector=spec.class%3Dslow"))
        .await
        .expect(200);
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert_eq!(list["items"][0]["metadata"]["name"], "b");
    assert_eq!(list["kind"], "BackupList");
    let refused = lab
        .get(&format!("{BACKUPS}?fieldSelector=spec.copies%3D1"))
        .await
        .expect(400);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("field label not supported: spec.copies"),
        "{refused}"
    );
    let mut watch = lab
        .watch(&format!(
            "{BACKUPS}?watch=1&fieldSelector=spec.class%3Dslow"
        ))
        .await;
    assert_eq!(watch.event().await, ("ADDED".to_owned(), "b".to_owned()));
    let fast = json!({"spec": {"class": "fast"}});
    lab.merge(&format!("{BACKUPS}/b"), &fast).await.expect(200);
    assert_eq!(watch.event().await, ("DELETED".to_owned(), "b".to_owned()));
}

#[tokio::test]
async fn strategic_merge_patches_are_for_built_in_kinds() {
    let lab = lab().await;
    lab.post(BACKUPS, &backup("a", json!({"schedule": "0 3 * * *"})))
        .await
        .expect(201);
    let headers = [("content-type", "application/strategic-merge-patch+json")];
    let patch = json!({"spec": {"copies": 2}});
    let path = format!("{BACKUPS}/a");
    let refused = request(&lab.client, Method::PATCH, &path, Some(&patch), &headers)
        .await
        .expect(415);
    assert!(
        refused["message"].as_str().unwrap().starts_with(
            "the body of the request was in an unknown format - accepted media types include: application/json-patch+json, application/merge-patch+json"
        ),
        "{refused}"
    );
    let headers = [("content-type", "application/json-patch+json")];
    let patch = json!([{"op": "replace", "path": "/spec/copies", "value": 2}]);
    let patched = request(&lab.client, Method::PATCH, &path, Some(&patch), &headers)
        .await
        .expect(200);
    assert_eq!(patched["spec"]["copies"], 2);
}

#[tokio::test]
async fn lists_of_an_apply_are_merged_by_their_keys() {
    let lab = lab().await;
    let path = |manager: &str| format!("{BACKUPS}/a?fieldManager={manager}");
    let headers = [("content-type", "application/apply-patch+yaml")];
    for (manager, target) in [("one", "x"), ("two", "y")] {
        let object = backup(
            "a",
            json!({"schedule": "0 3 * * *", "targets": [{"name": target}]}),
        );
        let got = request(
            &lab.client,
            Method::PATCH,
            &path(manager),
            Some(&object),
            &headers,
        )
        .await;
        assert!(matches!(got.code, 200 | 201), "{}", got.json());
    }
    let object = lab.get(&format!("{BACKUPS}/a")).await.expect(200);
    let names: Vec<&str> = object["spec"]["targets"]
        .as_array()
        .unwrap()
        .iter()
        .map(|target| target["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["x", "y"]);
    let other = backup("a", json!({"schedule": "1 3 * * *"}));
    let conflict = request(
        &lab.client,
        Method::PATCH,
        &path("three"),
        Some(&other),
        &headers,
    )
    .await
    .expect(409);
    assert!(
        conflict["message"]
            .as_str()
            .unwrap()
            .contains(".spec.schedule"),
        "{conflict}"
    );
}

#[tokio::test]
async fn open_schemas_keep_what_they_do_not_know() {
    let lab = Lab::start().await;
    define(&lab, &policies()).await;
    let spec = json!({"settings": {"deep": {"er": [1, null]}}, "note": null,
        "template": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"any": 1}}});
    let made = lab
        .post(POLICIES, &policy("a", spec.clone()))
        .await
        .expect(201);
    assert_eq!(made["spec"], spec);
    assert!(made["metadata"].get("namespace").is_none());
    for limit in [json!(5), json!("50%")] {
        let name = format!("p{}", limit.to_string().len());
        lab.post(POLICIES, &policy(&name, json!({"limit": limit})))
            .await
            .expect(201);
    }
    let refused = lab
        .post(POLICIES, &policy("b", json!({"limit": 1, "settings": {}})))
        .await
        .expect(422);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("<nil>: Invalid value: \"\": \"spec\" must validate one and only one schema (oneOf). Found 2 valid alternatives"),
        "{refused}"
    );
    let nameless = json!({"settings": {}, "template": {"kind": "Pod"}});
    let refused = lab.post(POLICIES, &policy("b", nameless)).await.expect(422);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("spec.template.apiVersion: Required value: must not be empty"),
        "{refused}"
    );
}

#[tokio::test]
async fn rules_of_the_definition_are_asked() {
    let lab = lab().await;
    let spec = json!({"schedule": "0 3 * * *", "copies": 3, "limit": 2});
    let refused = lab.post(BACKUPS, &backup("a", spec)).await.expect(422);
    assert_eq!(
        refused["message"],
        "Backup.storage.example.com \"a\" is invalid: spec: Invalid value: \"object\": more copies than the limit"
    );
    lab.post(BACKUPS, &backup("a", json!({"schedule": "0 3 * * *"})))
        .await
        .expect(201);
    let volume = json!({"spec": {"volume": "other"}});
    let refused = lab
        .merge(&format!("{BACKUPS}/a"), &volume)
        .await
        .expect(422);
    assert_eq!(
        refused["message"],
        "Backup.storage.example.com \"a\" is invalid: spec: Invalid value: \"object\": the volume stays data"
    );
    let both = json!({"schedule": "0 3 * * *", "copies": 11, "class": "best"});
    let refused = lab.post(BACKUPS, &backup("b", both)).await.expect(422);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("some validation rules were not checked because the object was invalid"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_rule_that_is_none_is_refused() {
    let lab = Lab::start().await;
    let mut wrong = backups();
    wrong["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["x-kubernetes-validations"] =
        json!([{"rule": "self.copies >"}]);
    let refused = lab.post(crate::DEFINITIONS, &wrong).await.expect(422);
    let message = refused["message"].as_str().unwrap();
    assert!(
        message.contains("spec.validation.openAPIV3Schema.properties[spec].x-kubernetes-validations[0].rule: Invalid value: \"self.copies >\": compilation failed: "),
        "{message}"
    );
}
