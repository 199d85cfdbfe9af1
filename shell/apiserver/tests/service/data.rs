//! Neighbours of the Service whose refusals clients know by heart: ConfigMaps,
//! Secrets, Pods and templates.

use super::{V4, cluster, refused, warned};
use serde_json::{Value, json};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";
const SECRETS: &str = "/api/v1/namespaces/default/secrets";
const PODS: &str = "/api/v1/namespaces/default/pods";
const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";

fn object(kind: &str, fields: &Value) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "web"}});
    super::merge(&mut object, fields);
    object
}

#[tokio::test]
async fn what_is_immutable_stays() {
    let lab = cluster(&[V4]).await;
    let text = "Forbidden: field is immutable when `immutable` is set";
    for (collection, kind, data) in [
        (CONFIG_MAPS, "ConfigMap", json!({"a": "b"})),
        (SECRETS, "Secret", json!({"a": "Yg=="})),
    ] {
        let made = object(kind, &json!({"data": data, "immutable": true}));
        lab.post(collection, &made).await.expect(201);
        let path = format!("{collection}/web");
        let got = lab.merge(&path, &json!({"data": {"a": "Yw=="}})).await;
        refused(&got, &[&format!("FieldValueForbidden data: {text}")]);
        let got = lab
            .merge(&path, &json!({"immutable": false, "data": null}))
            .await;
        refused(
            &got,
            &[
                &format!("FieldValueForbidden immutable: {text}"),
                &format!("FieldValueForbidden data: {text}"),
            ],
        );
        let got = lab.put(&path, &object(kind, &json!({"data": data}))).await;
        refused(&got, &[&format!("FieldValueForbidden immutable: {text}")]);
        // What is around the data may change.
        let label = json!({"metadata": {"labels": {"a": "b"}}});
        let labelled = lab.merge(&path, &label).await;
        labelled.expect(200);
        assert!(warned(&labelled).is_empty());
    }
    let got = lab
        .merge(
            &format!("{CONFIG_MAPS}/web"),
            &json!({"binaryData": {"c": "Yg=="}}),
        )
        .await;
    refused(&got, &[&format!("FieldValueForbidden binaryData: {text}")]);
}

#[tokio::test]
async fn sizes_and_keys() {
    let lab = cluster(&[V4]).await;
    let size = 1024 * 1024;
    let big = object("ConfigMap", &json!({"data": {"a": "x".repeat(size + 1)}}));
    refused(
        &lab.post(CONFIG_MAPS, &big).await,
        &["FieldValueTooLong []: Too long: may not be more than 1048576 bytes"],
    );
    // What counts is the data, not its base64.
    let full = "A".repeat((size - 1) / 3 * 4);
    lab.post(
        CONFIG_MAPS,
        &object("ConfigMap", &json!({"binaryData": {"a": full}})),
    )
    .await
    .expect(201);
    lab.post(SECRETS, &object("Secret", &json!({"data": {"a": full}})))
        .await
        .expect(201);
    let over = object(
        "Secret",
        &json!({"metadata": {"name": "over"}, "data": {"a": format!("{full}AAAA")}}),
    );
    refused(
        &lab.post(SECRETS, &over).await,
        &["FieldValueTooLong data: Too long: may not be more than 1048576 bytes"],
    );
    let twice = object(
        "ConfigMap",
        &json!({"metadata": {"name": "twice"}, "data": {"a": "b"}, "binaryData": {"a": "Yg=="}}),
    );
    refused(
        &lab.post(CONFIG_MAPS, &twice).await,
        &[
            "FieldValueInvalid data[a]: Invalid value: \"a\": duplicate of key present in binaryData",
            "FieldValueInvalid binaryData[a]: Invalid value: \"a\": duplicate of key present in data",
        ],
    );
}

#[tokio::test]
async fn secrets_keep_their_type_and_its_promise() {
    let lab = cluster(&[V4]).await;
    let tls = json!({"type": "kubernetes.io/tls", "data": {"tls.crt": "YQ=="}});
    let missing = "FieldValueRequired data[tls.key]: Required value";
    refused(
        &lab.post(SECRETS, &object("Secret", &tls)).await,
        &[missing],
    );
    let good = json!({"type": "kubernetes.io/tls", "stringData": {"tls.crt": "a", "tls.key": "b"}});
    lab.post(SECRETS, &object("Secret", &good))
        .await
        .expect(201);
    let path = format!("{SECRETS}/web");
    let got = lab.merge(&path, &json!({"data": {"tls.key": null}})).await;
    refused(&got, &[missing]);
    let got = lab.merge(&path, &json!({"type": "Opaque"})).await;
    refused(
        &got,
        &["FieldValueInvalid type: Invalid value: \"Opaque\": field is immutable"],
    );
}

#[tokio::test]
async fn pod_updates() {
    let lab = cluster(&[V4]).await;
    let pod = object(
        "Pod",
        &json!({"spec": {"containers": [{"name": "main", "image": "a"}]}}),
    );
    lab.post(PODS, &pod).await.expect(201);
    let path = format!("{PODS}/web");
    let got = lab
        .merge(&path, &json!({"spec": {"hostNetwork": true}}))
        .await
        .expect(422);
    let cause = &got["details"]["causes"][0];
    assert_eq!(
        (&cause["reason"], &cause["field"]),
        (&json!("FieldValueForbidden"), &json!("spec"))
    );
    let text = "Forbidden: pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)";
    assert!(
        cause["message"].as_str().unwrap().starts_with(text),
        "{cause}"
    );
    let containers = json!([{"name": "main", "image": "a"}, {"name": "more", "image": "a"}]);
    let got = lab
        .merge(&path, &json!({"spec": {"containers": containers}}))
        .await;
    refused(
        &got,
        &[
            "FieldValueForbidden spec.containers: Forbidden: pod updates may not add or remove containers",
        ],
    );
    let containers = json!([{"name": "main", "image": "b"}]);
    lab.merge(
        &path,
        &json!({"spec": {"containers": containers, "activeDeadlineSeconds": 5}}),
    )
    .await
    .expect(200);
    let gone = lab.delete(&path).await.expect(200);
    assert_eq!(gone["kind"], "Pod");
}

#[tokio::test]
async fn templates_are_no_pods() {
    let lab = cluster(&[V4]).await;
    let container = json!({"name": "main", "image": "a", "ports": [{"containerPort": 80}], "resources": {"limits": {"cpu": "1"}}});
    let deployment = |label: &str| {
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": label}}, "spec": {"hostNetwork": true, "containers": [container]}}}})
    };
    let made = lab.post(DEPLOYMENTS, &deployment("web")).await.expect(201);
    let got = &made["spec"]["template"]["spec"]["containers"][0];
    assert!(got["resources"]["requests"].is_null());
    let pod = object(
        "Pod",
        &json!({"spec": {"hostNetwork": true, "containers": [container]}}),
    );
    let got = lab.post(PODS, &pod).await.expect(201)["spec"]["containers"][0].clone();
    assert_eq!(got["ports"][0]["hostPort"], 80);
    assert_eq!(got["resources"]["requests"]["cpu"], "1");
    let mut other = deployment("other");
    other["metadata"]["name"] = json!("other");
    refused(
        &lab.post(DEPLOYMENTS, &other).await,
        &[
            "FieldValueInvalid spec.template.metadata.labels: Invalid value: {\"app\":\"other\"}: `selector` does not match template `labels`",
        ],
    );
    let mut odd = deployment("a b");
    odd["metadata"]["name"] = json!("odd");
    let got = lab.post(DEPLOYMENTS, &odd).await.expect(422);
    let fields: Vec<&Value> = got["details"]["causes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|cause| &cause["field"])
        .collect();
    assert!(
        fields.contains(&&json!("spec.template.labels")),
        "{fields:?}"
    );
}
