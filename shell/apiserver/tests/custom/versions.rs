//! One stored kind, served in several group-versions.

use crate::common::Lab;
use crate::{certificates, define};
use serde_json::{Value, json};

fn path(version: &str) -> String {
    format!("/apis/pki.example.com/{version}/namespaces/default/certificates")
}

fn certificate(version: &str) -> Value {
    json!({"apiVersion": format!("pki.example.com/{version}"), "kind": "Certificate",
        "metadata": {"name": "a"}, "spec": {"dnsNames": ["a.example"]}})
}

#[tokio::test]
async fn an_object_is_seen_in_the_version_asked_for() {
    let lab = Lab::start().await;
    define(&lab, &certificates()).await;
    let got = lab.post(&path("v1alpha1"), &certificate("v1alpha1")).await;
    assert_eq!(
        got.headers.get("warning").unwrap(),
        "299 - \"pki.example.com/v1alpha1 Certificate goes away; use v1\""
    );
    let made = got.expect(201);
    assert_eq!(made["apiVersion"], "pki.example.com/v1alpha1");
    for version in ["v1alpha1", "v1beta1", "v1"] {
        let api_version = format!("pki.example.com/{version}");
        let one = lab.get(&format!("{}/a", path(version))).await.expect(200);
        assert_eq!(one["apiVersion"], api_version);
        assert_eq!(one["metadata"]["uid"], made["metadata"]["uid"]);
        let list = lab.get(&path(version)).await.expect(200);
        assert_eq!(list["apiVersion"], api_version);
        let warned = lab
            .get(&path(version))
            .await
            .headers
            .contains_key("warning");
        assert_eq!(warned, version == "v1alpha1", "{version}");
        assert_eq!(list["items"][0]["apiVersion"], api_version);
        let mut watch = lab.watch(&format!("{}?watch=1", path(version))).await;
        let event = watch.next().await.unwrap();
        assert_eq!(event["object"]["apiVersion"], api_version);
    }
    let other = lab
        .post(&path("v1"), &certificate("v1beta1"))
        .await
        .expect(400);
    assert!(
        other["message"].as_str().unwrap().contains("v1beta1"),
        "{other}"
    );
    // The same object again, in another version, changes nothing.
    let mut same = certificate("v1beta1");
    same["metadata"] = made["metadata"].clone();
    let put = lab
        .put(&format!("{}/a", path("v1beta1")), &same)
        .await
        .expect(200);
    assert_eq!(
        put["metadata"]["generation"],
        made["metadata"]["generation"]
    );
}

#[tokio::test]
async fn a_version_that_is_no_longer_served_is_gone() {
    let lab = Lab::start().await;
    let defined = define(&lab, &certificates()).await;
    lab.post(&path("v1"), &certificate("v1")).await.expect(201);
    let mut changed = defined.clone();
    changed["spec"]["versions"][0]["served"] = json!(false);
    let definition = format!("{}/certificates.pki.example.com", crate::DEFINITIONS);
    lab.put(&definition, &changed).await.expect(200);
    tokio::time::timeout(crate::common::DEADLINE, async {
        while lab.get(&path("v1alpha1")).await.code != 404 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
    lab.get(&format!("{}/a", path("v1"))).await.expect(200);
}
