//! Definitions that the server is started with.

use crate::common::Lab;
use crate::{DEFINITIONS, backups};
use serde_json::json;

const POOLS: &str = "/apis/portolan.dev/v1alpha1/addresspools";

#[tokio::test]
async fn shipped_kinds_are_served_from_the_first_request() {
    let lab = Lab::start_with(|config| {
        config.definitions = portolan_api::shipped::definitions().unwrap();
    })
    .await;
    let pool = json!({
        "apiVersion": "portolan.dev/v1alpha1", "kind": "AddressPool",
        "metadata": {"name": "lab"}, "spec": {"addresses": ["192.0.2.0/28"]},
    });
    let made = lab.post(POOLS, &pool).await.expect(201);
    assert_eq!(made["spec"]["autoAssign"], true);
    let status = json!({"status": {"used": 1, "free": 15}});
    let path = format!("{POOLS}/lab/status");
    let changed = lab.merge(&path, &status).await.expect(200);
    assert_eq!(changed["status"]["free"], 15);
    let mut wrong = pool;
    wrong["metadata"]["name"] = "other".into();
    wrong["spec"]["addresses"] = json!(["home"]);
    let refused = lab.post(POOLS, &wrong).await.expect(422);
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("spec.addresses[0]"), "{message}");
    for kind in ["l2announcements", "bgppeers", "bgpannouncements"] {
        lab.get(&format!("/apis/portolan.dev/v1alpha1/{kind}"))
            .await
            .expect(200);
    }
}

#[tokio::test]
async fn a_newer_program_brings_its_own_definition() {
    let path = format!("{DEFINITIONS}/backups.storage.example.com");
    let lab = Lab::start_with(|config| config.definitions = vec![backups()]).await;
    let before = lab.get(&path).await.expect(200);
    let mut newer = backups();
    let spec = &mut newer["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["properties"]["tier"] = json!({"type": "string"});
    let lab = Lab::start_in_with(lab.stop().await, |config| config.definitions = vec![newer]).await;
    let after = lab.get(&path).await.expect(200);
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    let made = lab
        .post(
            "/apis/storage.example.com/v1/namespaces/default/backups",
            &json!({
                "apiVersion": "storage.example.com/v1", "kind": "Backup", "metadata": {"name": "a"},
                "spec": {"schedule": "0 3 * * *", "tier": "gold"},
            }),
        )
        .await
        .expect(201);
    assert_eq!(made["spec"]["tier"], "gold");
}
