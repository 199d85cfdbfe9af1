//! Server-side apply and managed fields, over the wire.

use crate::common::{Got, Lab, request};
use http::Method;
use serde_json::{Value, json};

const SERVICES: &str = "/api/v1/namespaces/default/services";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

async fn apply(lab: &Lab, path: &str, manager: &str, more: &str, config: &Value) -> Got {
    let path = format!("{path}?fieldManager={manager}{more}");
    let headers = [("content-type", "application/apply-patch+yaml")];
    request(&lab.client, Method::PATCH, &path, Some(config), &headers).await
}

fn service(spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec})
}

fn deployment(replicas: u8) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "a", "image": "nginx"}]}}}})
}

fn owner<'a>(object: &'a Value, manager: &str) -> &'a Value {
    object["metadata"]["managedFields"]
        .as_array()
        .unwrap()
        .iter()
        .find(|entry| entry["manager"] == manager)
        .unwrap_or_else(|| panic!("no {manager}: {object}"))
}

#[tokio::test]
async fn apply_makes_and_changes_and_takes_back() {
    let lab = Lab::start().await;
    let path = format!("{SERVICES}/web");
    let config = service(
        json!({"selector": {"app": "web"}, "ports": [{"port": 80, "name": "http"}, {"port": 81, "name": "more"}]}),
    );
    let made = apply(&lab, &path, "me", "", &config).await.expect(201);
    assert!(made["spec"]["clusterIP"].is_string());
    assert_eq!(owner(&made, "me")["operation"], "Apply");
    // The same again changes nothing, not even the version.
    let again = apply(&lab, &path, "me", "", &config).await.expect(200);
    assert_eq!(again, made);
    let less =
        service(json!({"selector": {"app": "web"}, "ports": [{"port": 80, "name": "http"}]}));
    let after = apply(&lab, &path, "me", "", &less).await.expect(200);
    assert_eq!(after["spec"]["ports"].as_array().unwrap().len(), 1);
    assert_eq!(after["spec"]["clusterIP"], made["spec"]["clusterIP"]);
    let dry = apply(&lab, &path, "me", "&dryRun=All", &config)
        .await
        .expect(200);
    assert_eq!(dry["spec"]["ports"].as_array().unwrap().len(), 2);
    assert_eq!(lab.get(&path).await.expect(200), after);
}

#[tokio::test]
async fn conflicts_say_whose_the_field_is() {
    let lab = Lab::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    let agent = [("user-agent", "kubectl/v1.32.4 (linux/amd64)")];
    request(
        &lab.client,
        Method::POST,
        DEPLOYMENTS,
        Some(&deployment(1)),
        &agent,
    )
    .await
    .expect(201);
    let refused = apply(&lab, &path, "me", "", &deployment(3))
        .await
        .expect(409);
    assert_eq!(
        refused["message"],
        "Apply failed with 1 conflict: conflict with \"kubectl\" using apps/v1: .spec.replicas"
    );
    assert_eq!(
        refused["details"]["causes"],
        json!([{"reason": "FieldManagerConflict", "message": "conflict with \"kubectl\" using apps/v1", "field": ".spec.replicas"}])
    );
    let forced = apply(&lab, &path, "me", "&force=true", &deployment(3))
        .await
        .expect(200);
    assert_eq!(forced["spec"]["replicas"], 3);
    // A scale takes the field again, through its own door.
    let scale = json!({"spec": {"replicas": 5}});
    lab.merge(&format!("{path}/scale?fieldManager=scaler"), &scale)
        .await
        .expect(200);
    let scaled = lab.get(&path).await.expect(200);
    assert_eq!(owner(&scaled, "scaler")["subresource"], "scale");
    assert_eq!(
        owner(&scaled, "scaler")["fieldsV1"],
        json!({"f:spec": {"f:replicas": {}}})
    );
    let refused = apply(&lab, &path, "me", "", &deployment(3))
        .await
        .expect(409);
    assert_eq!(
        refused["message"],
        "Apply failed with 1 conflict: conflict with \"scaler\" with subresource \"scale\" using apps/v1: .spec.replicas"
    );
}

#[tokio::test]
async fn status_is_applied_through_its_own_door() {
    let lab = Lab::start().await;
    let path = format!("{SERVICES}/web");
    let mut config = service(json!({"type": "LoadBalancer", "ports": [{"port": 80}]}));
    config["status"] = json!({"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}});
    let made = apply(&lab, &path, "me", "", &config).await.expect(201);
    assert_eq!(made["status"], json!({"loadBalancer": {}}));
    assert!(owner(&made, "me")["fieldsV1"].get("f:status").is_none());
    config.as_object_mut().unwrap().remove("spec");
    let after = apply(&lab, &format!("{path}/status"), "lb", "", &config)
        .await
        .expect(200);
    assert_eq!(
        after["status"]["loadBalancer"]["ingress"][0]["ip"],
        "192.0.2.1"
    );
    assert_eq!(owner(&after, "lb")["subresource"], "status");
    assert_eq!(after["spec"], made["spec"]);
}

#[tokio::test]
async fn what_is_wrong_with_an_apply() {
    let lab = Lab::start().await;
    let path = format!("{SERVICES}/web");
    let good = service(json!({"ports": [{"port": 80}]}));
    let headers = [("content-type", "application/apply-patch+yaml")];
    let refused = request(&lab.client, Method::PATCH, &path, Some(&good), &headers)
        .await
        .expect(422);
    assert_eq!(
        refused["message"],
        "PatchOptions.meta.k8s.io \"\" is invalid: fieldManager: Required value: is required for apply patch"
    );
    let with = |edit: &dyn Fn(&mut Value)| {
        let mut config = good.clone();
        edit(&mut config);
        config
    };
    let cases = [
        (
            with(&|c| c["metadata"]["managedFields"] = json!([])),
            400,
            "metadata.managedFields must be nil",
        ),
        (
            with(&|c| c["metadata"]["name"] = json!("other")),
            400,
            "the name of the object (other) does not match the name on the URL (web)",
        ),
        (
            with(&|c| c["kind"] = json!("Pod")),
            400,
            "invalid object type",
        ),
        (
            with(&|c| c["spec"]["foo"] = json!(1)),
            500,
            "failed to create typed patch object (default/web; /v1, Kind=Service): .spec.foo: field not declared in schema",
        ),
        (
            with(&|c| c["spec"]["ports"] = json!([{"port": 80}, {"port": 80}])),
            500,
            "duplicate entries for key [port=80,protocol=\"TCP\"]",
        ),
        (
            with(&|c| c["metadata"]["resourceVersion"] = json!("1")),
            409,
            "Operation cannot be fulfilled on services \"web\"",
        ),
        (
            with(&|c| c["spec"]["ports"] = json!([{"port": 0}])),
            422,
            "Service \"web\" is invalid",
        ),
    ];
    for (config, code, text) in cases {
        let message = apply(&lab, &path, "me", "", &config).await.expect(code)["message"].clone();
        assert!(message.as_str().unwrap().contains(text), "{message}");
    }
}

#[tokio::test]
async fn force_and_formats_belong_to_apply_alone() {
    let lab = Lab::start().await;
    let path = format!("{SERVICES}/web");
    let good = service(json!({"ports": [{"port": 80}]}));
    lab.post(SERVICES, &good).await.expect(201);
    let merge = lab
        .merge(&format!("{path}?force=true"), &json!({}))
        .await
        .expect(422);
    assert!(
        merge["message"]
            .as_str()
            .unwrap()
            .contains("force: Forbidden: may not be specified for non-apply patch")
    );
    let odd = request(
        &lab.client,
        Method::PATCH,
        &path,
        Some(&good),
        &[("content-type", "application/x")],
    )
    .await
    .expect(415);
    assert!(
        odd["message"]
            .as_str()
            .unwrap()
            .contains("application/apply-patch+yaml")
    );
}

#[tokio::test]
async fn yaml_is_applied_and_writes_are_recorded() {
    let lab = Lab::start().await;
    let made = lab
        .post(
            &format!("{SERVICES}?fieldManager=maker"),
            &service(json!({"ports": [{"port": 80}]})),
        )
        .await
        .expect(201);
    let fields = &owner(&made, "maker")["fieldsV1"];
    assert!(
        fields["f:spec"]["f:ports"]["k:{\"port\":80,\"protocol\":\"TCP\"}"]["f:targetPort"]
            .is_object(),
        "{fields}"
    );
    assert!(
        fields["f:spec"].get("f:clusterIP").is_none(),
        "allocated, not written"
    );
    let yaml = "apiVersion: v1\nkind: Service\nmetadata: {name: web, labels: {a: b}}\n";
    let wanted = http::Request::patch(format!("{SERVICES}/web?fieldManager=yaml"))
        .header("content-type", "application/apply-patch+yaml")
        .body(kube::client::Body::from(yaml.as_bytes().to_vec()))
        .unwrap();
    assert_eq!(lab.client.send(wanted).await.unwrap().status(), 200);
    let after = lab.get(&format!("{SERVICES}/web")).await.expect(200);
    assert_eq!(
        owner(&after, "yaml")["fieldsV1"],
        json!({"f:metadata": {"f:labels": {"f:a": {}}}})
    );
    // A PUT of what was read changes nothing.
    assert_eq!(
        lab.put(&format!("{SERVICES}/web"), &after)
            .await
            .expect(200),
        after
    );
}

#[tokio::test]
async fn a_scale_is_applied_too() {
    let lab = Lab::start().await;
    let path = format!("{DEPLOYMENTS}/web");
    let scale = |replicas: i32| json!({"apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": {"name": "web"}, "spec": {"replicas": replicas}});
    let to = format!("{path}/scale");
    assert_eq!(
        apply(&lab, &to, "scaler", "", &scale(2)).await.code,
        404,
        "a Scale makes nothing"
    );
    apply(&lab, &path, "me", "", &deployment(1))
        .await
        .expect(201);
    let conflict = apply(&lab, &to, "scaler", "", &scale(2)).await.expect(409);
    assert_eq!(conflict["details"]["causes"][0]["field"], ".spec.replicas");
    let scaled = apply(&lab, &to, "scaler", "&force=true", &scale(2))
        .await
        .expect(200);
    assert_eq!(
        (&scaled["kind"], &scaled["spec"]["replicas"]),
        (&json!("Scale"), &json!(2))
    );
    let after = lab.get(&path).await.expect(200);
    assert_eq!(after["spec"]["replicas"], 2);
    let entry = owner(&after, "scaler");
    assert_eq!(entry["subresource"], "scale");
    assert_eq!(entry["fieldsV1"], json!({"f:spec": {"f:replicas": {}}}));
    assert!(owner(&after, "me")["fieldsV1"]["f:spec"]["f:replicas"].is_null());
    // Now the number is the scaler's.
    apply(&lab, &path, "me", "", &deployment(3))
        .await
        .expect(409);
    apply(&lab, &to, "scaler", "", &scale(-1)).await.expect(422);
    apply(&lab, &to, "scaler", "", &deployment(1))
        .await
        .expect(400);
}
