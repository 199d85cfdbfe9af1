//! Discovery and OpenAPI know custom resources as they are now.

use crate::common::{Lab, request};
use crate::{DEFINITIONS, backups, certificates, define};
use http::Method;
use serde_json::{Value, json};

#[tokio::test]
async fn discovery_lists_groups_versions_and_resources() {
    let lab = Lab::start().await;
    assert_eq!(lab.get("/apis/storage.example.com").await.code, 404);
    define(&lab, &backups()).await;
    define(&lab, &certificates()).await;
    let list = lab.get("/apis/storage.example.com/v1").await.expect(200);
    let names: Vec<&str> = list["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, ["backups", "backups/status", "backups/scale"]);
    assert_eq!(list["resources"][0]["shortNames"], json!(["bk"]));
    assert_eq!(
        list["resources"][0]["categories"],
        json!(["all", "storage"])
    );
    let group = lab.get("/apis/pki.example.com").await.expect(200);
    let versions: Vec<&str> = group["versions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["version"].as_str().unwrap())
        .collect();
    assert_eq!(versions, ["v1", "v1beta1", "v1alpha1"]);
    assert_eq!(group["preferredVersion"]["version"], "v1");
    let accept = [(
        "accept",
        "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
    )];
    let aggregated = request(&lab.client, Method::GET, "/apis", None, &accept)
        .await
        .expect(200);
    let found = aggregated["items"]
        .as_array()
        .unwrap()
        .iter()
        .find(|item| item["metadata"]["name"] == "storage.example.com")
        .unwrap();
    let resource = &found["versions"][0]["resources"][0];
    assert_eq!(resource["responseKind"]["kind"], "Backup");
    assert_eq!(resource["scope"], "Namespaced");
    assert_eq!(resource["subresources"].as_array().unwrap().len(), 2);
}

async fn hash(lab: &Lab) -> Value {
    let index = lab.get("/openapi/v3").await.expect(200);
    index["paths"]["apis/storage.example.com/v1"]["serverRelativeURL"].clone()
}

#[tokio::test]
async fn openapi_has_the_schema_and_changes_with_it() {
    let lab = Lab::start().await;
    let before = lab.get("/openapi/v2").await;
    assert_eq!(hash(&lab).await, Value::Null);
    let defined = define(&lab, &backups()).await;
    let first = hash(&lab).await;
    let document = lab
        .get("/openapi/v3/apis/storage.example.com/v1")
        .await
        .expect(200);
    let schemas = &document["components"]["schemas"];
    let backup = &schemas["com.example.storage.v1.Backup"];
    assert_eq!(
        backup["x-kubernetes-group-version-kind"][0]["kind"],
        "Backup"
    );
    assert_eq!(
        backup["properties"]["spec"]["properties"]["schedule"]["description"],
        "When it runs, as cron writes it."
    );
    assert_eq!(
        backup["properties"]["metadata"]["allOf"][0]["$ref"],
        "#/components/schemas/io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    );
    assert!(schemas["io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"].is_object());
    assert!(schemas["com.example.storage.v1.BackupList"].is_object());
    let path = "/apis/storage.example.com/v1/namespaces/{namespace}/backups/{name}";
    let patch = &document["paths"][path]["patch"];
    assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Backup");
    assert_eq!(
        patch["operationId"],
        "patchStorageExampleComV1NamespacedBackup"
    );
    assert!(
        patch["requestBody"]["content"]
            .get("application/strategic-merge-patch+json")
            .is_none()
    );

    let v2 = lab.get("/openapi/v2").await;
    assert_ne!(v2.headers.get("etag"), before.headers.get("etag"));
    let definitions = v2.expect(200)["definitions"].clone();
    assert!(definitions["com.example.storage.v1.Backup"].is_object());

    let mut changed = defined.clone();
    changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
        ["schedule"]["description"] = json!("Other words.");
    lab.put(
        &format!("{DEFINITIONS}/backups.storage.example.com"),
        &changed,
    )
    .await
    .expect(200);
    tokio::time::timeout(crate::common::DEADLINE, async {
        while hash(&lab).await == first {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
}
