//! Who owns what after a history of applies and updates, over the wire.

use crate::common::{Got, Lab, request};
use http::Method;
use serde_json::{Value, json};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

async fn apply(lab: &Lab, path: &str, query: &str, config: &Value) -> Got {
    let path = format!("{path}?{query}");
    let headers = [("content-type", "application/apply-patch+yaml")];
    request(&lab.client, Method::PATCH, &path, Some(config), &headers).await
}

fn service(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec})
}

fn deployment(replicas: u8, image: &str) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": image}]}}}})
}

fn entry<'a>(object: &'a Value, manager: &str) -> Option<&'a Value> {
    let entries = object["metadata"]["managedFields"].as_array();
    let mut entries = entries.into_iter().flatten();
    entries.find(|entry| entry["manager"] == manager)
}

#[tokio::test]
async fn what_a_get_shows_can_be_applied_with_its_status() {
    let lab = Lab::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    apply(&lab, &path, "fieldManager=me", &deployment(1, "nginx"))
        .await
        .expect(201);
    let status = json!({"status": {"observedGeneration": 1, "replicas": 1}});
    lab.merge(&format!("{path}/status?fieldManager=controller"), &status)
        .await
        .expect(200);
    let before = lab.get(&path).await.expect(200);
    let mut shown = deployment(1, "nginx");
    shown["status"] = json!({"observedGeneration": 7, "replicas": 9});
    let after = apply(&lab, &path, "fieldManager=me", &shown)
        .await
        .expect(200);
    assert_eq!(after, before, "status is the controller's: nothing changes");
}

#[tokio::test]
async fn conflicts_come_in_the_order_of_kubernetes() {
    let lab = Lab::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    lab.post(
        &format!("{DEPLOYMENTS}?fieldManager=maker"),
        &deployment(1, "nginx"),
    )
    .await
    .expect(201);
    let mut other = deployment(2, "redis");
    lab.merge(
        &format!("{path}?fieldManager=pauser"),
        &json!({"spec": {"minReadySeconds": 5}}),
    )
    .await
    .expect(200);
    other["spec"]["minReadySeconds"] = json!(6);
    let refused = apply(&lab, &path, "fieldManager=me", &other)
        .await
        .expect(409);
    assert_eq!(
        refused["message"],
        "Apply failed with 3 conflicts: conflicts with \"maker\" using apps/v1:\n- .spec.replicas\n- .spec.template.spec.containers[name=\"a\"].image\nconflicts with \"pauser\" using apps/v1:\n- .spec.minReadySeconds"
    );
    let causes = refused["details"]["causes"].as_array().unwrap();
    assert!(
        causes
            .iter()
            .all(|cause| cause["reason"] == "FieldManagerConflict")
    );
    let fields: Vec<&Value> = causes.iter().map(|cause| &cause["field"]).collect();
    assert_eq!(
        fields,
        [
            ".spec.replicas",
            ".spec.template.spec.containers[name=\"a\"].image",
            ".spec.minReadySeconds"
        ]
    );
}

#[tokio::test]
async fn kubectl_goes_from_its_own_apply_to_this_one() {
    let lab = Lab::start().await;
    let path = format!("{SERVICES}/web");
    let two = service(json!({"ports": [{"port": 80, "name": "a"}, {"port": 81, "name": "b"}]}));
    let mut made = two.clone();
    made["metadata"]["annotations"] = json!({LAST_APPLIED: two.to_string()});
    lab.post(
        &format!("{SERVICES}?fieldManager=kubectl-client-side-apply"),
        &made,
    )
    .await
    .expect(201);
    let one = service(json!({"ports": [{"port": 80, "name": "a"}]}));
    let applied = apply(&lab, &path, "fieldManager=kubectl", &one)
        .await
        .expect(200);
    // The annotation follows, or client-side apply could not go on.
    let said = applied["metadata"]["annotations"][LAST_APPLIED].as_str();
    let said: Value = serde_json::from_str(said.unwrap()).unwrap();
    assert_eq!(said["spec"], one["spec"]);
    // kubectl then makes its old entry an applied one, by a JSON patch.
    let mut entries: Vec<Value> = applied["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["manager"] != "kubectl")
        .cloned()
        .collect();
    for entry in &mut entries {
        entry["manager"] = json!("kubectl");
        entry["operation"] = json!("Apply");
    }
    let upgrade = json!([
        {"op": "replace", "path": "/metadata/managedFields", "value": entries},
        {"op": "replace", "path": "/metadata/resourceVersion", "value": applied["metadata"]["resourceVersion"]},
    ]);
    let headers = [("content-type", "application/json-patch+json")];
    let upgraded = request(&lab.client, Method::PATCH, &path, Some(&upgrade), &headers)
        .await
        .expect(200);
    assert_eq!(entry(&upgraded, "kubectl").unwrap()["operation"], "Apply");
    assert_eq!(entry(&upgraded, "kubectl-client-side-apply"), None);
    let after = apply(&lab, &path, "fieldManager=kubectl", &one)
        .await
        .expect(200);
    assert_eq!(after["spec"]["ports"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn fields_go_with_their_last_owner() {
    let lab = Lab::start().await;
    let path = format!("{SERVICES}/web");
    let full = service(json!({"ports": [{"port": 80}], "externalIPs": ["192.0.2.1"]}));
    let less = service(json!({"ports": [{"port": 80}]}));
    for manager in ["a", "b"] {
        apply(&lab, &path, &format!("fieldManager={manager}"), &full).await;
    }
    let without_a = apply(&lab, &path, "fieldManager=a", &less)
        .await
        .expect(200);
    assert_eq!(without_a["spec"]["externalIPs"], json!(["192.0.2.1"]));
    let without_b = apply(&lab, &path, "fieldManager=b", &less)
        .await
        .expect(200);
    assert!(without_b["spec"].get("externalIPs").is_none());
}

#[tokio::test]
async fn an_apply_of_nothing_says_what_it_makes() {
    let lab = Lab::start().await;
    let path = format!("{SERVICES}/web");
    let good = service(json!({"ports": [{"port": 80}]}));
    let with = |edit: &dyn Fn(&mut Value)| {
        let mut config = good.clone();
        edit(&mut config);
        config
    };
    let cases = [
        (
            with(&|c| c["metadata"]["uid"] = json!("x")),
            409,
            "Operation cannot be fulfilled on services \"web\": uid mismatch: the provided object specified uid x, and no existing object was found",
        ),
        (
            with(&|c| drop(c["metadata"].as_object_mut().unwrap().remove("name"))),
            400,
            "the name of the object (web based on URL) was undeterminable: name must be provided",
        ),
        (
            with(&|c| c["kind"] = json!("Pod")),
            400,
            "invalid object type: /v1, Kind=Pod",
        ),
        (
            with(&|c| c["apiVersion"] = json!("v2")),
            400,
            "invalid object type: /v2, Kind=Service",
        ),
        (
            with(&|c| drop(c.as_object_mut().unwrap().remove("kind"))),
            400,
            "invalid object type: /v1, Kind=",
        ),
        (
            with(&|c| c["metadata"]["namespace"] = json!("other")),
            400,
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        (
            with(&|c| c["spec"]["ports"] = json!("none")),
            500,
            "failed to create typed patch object (default/web; /v1, Kind=Service): .spec.ports: expected list, got &{none}",
        ),
    ];
    for (config, code, text) in cases {
        let status = apply(&lab, &path, "fieldManager=me", &config)
            .await
            .expect(code);
        assert_eq!(status["message"], text);
    }
    let made = apply(&lab, &path, "fieldManager=me", &good)
        .await
        .expect(201);
    // The uid of the object is welcome, another is not.
    let own = with(&|c| c["metadata"]["uid"] = made["metadata"]["uid"].clone());
    apply(&lab, &path, "fieldManager=me", &own)
        .await
        .expect(200);
    let other = with(&|c| c["metadata"]["uid"] = json!("x"));
    let status = apply(&lab, &path, "fieldManager=me", &other)
        .await
        .expect(422);
    assert_eq!(
        status["message"],
        "Service \"web\" is invalid: metadata.uid: Invalid value: \"x\": field is immutable"
    );
}

#[tokio::test]
async fn a_scale_shares_the_replicas_with_its_object() {
    let lab = Lab::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    let to = format!("{path}/scale");
    lab.post(
        &format!("{DEPLOYMENTS}?fieldManager=maker"),
        &deployment(1, "nginx"),
    )
    .await
    .expect(201);
    let scale = |replicas: Value| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": replicas}});
    let refused = apply(&lab, &to, "fieldManager=hpa", &scale(json!(4)))
        .await
        .expect(409);
    assert_eq!(
        refused["message"],
        "Apply failed with 1 conflict: conflict with \"maker\" using autoscaling/v1: .spec.replicas"
    );
    apply(&lab, &to, "fieldManager=hpa&force=true", &scale(json!(4)))
        .await
        .expect(200);
    let before = lab.get(&path).await.expect(200);
    assert_eq!(entry(&before, "hpa").unwrap()["apiVersion"], "apps/v1");
    apply(&lab, &to, "fieldManager=hpa", &scale(json!(4)))
        .await
        .expect(200);
    assert_eq!(lab.get(&path).await.expect(200), before, "the same again");
    let status = apply(&lab, &to, "fieldManager=hpa", &scale(json!("x")))
        .await
        .expect(500);
    assert_eq!(
        status["message"],
        "failed to create typed patch object (default/web; autoscaling/v1, Kind=Scale): .spec.replicas: expected numeric (int or float), got string"
    );
}

#[tokio::test]
async fn labels_go_and_the_name_stays() {
    let lab = Lab::start().await;
    let path = format!("{SERVICES}/web");
    let plain = service(json!({"ports": [{"port": 80}]}));
    let mut labelled = plain.clone();
    labelled["metadata"]["labels"] = json!({"a": "b"});
    let made = apply(&lab, &path, "fieldManager=me", &labelled)
        .await
        .expect(201);
    let after = apply(&lab, &path, "fieldManager=me", &plain)
        .await
        .expect(200);
    assert!(after["metadata"].get("labels").is_none());
    assert_eq!(after["metadata"]["uid"], made["metadata"]["uid"]);
    // An empty map is nothing, however often it is applied.
    let mut empty = plain.clone();
    empty["metadata"]["labels"] = json!({});
    let once = apply(&lab, &path, "fieldManager=me", &empty)
        .await
        .expect(200);
    let again = apply(&lab, &path, "fieldManager=me", &empty)
        .await
        .expect(200);
    assert_eq!(again, once);
    assert!(again["metadata"].get("labels").is_none());
}
