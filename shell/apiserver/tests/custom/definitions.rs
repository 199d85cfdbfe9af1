//! The life of a definition: names, conditions, restart, deletion.

use crate::common::{DEADLINE, Lab};
use crate::{DEFINITIONS, backups, certificates, define, policies, says, until};
use serde_json::{Value, json};

const BACKUPS: &str = "/apis/storage.example.com/v1/namespaces/default/backups";

fn backup(name: &str) -> Value {
    json!({"apiVersion": "storage.example.com/v1", "kind": "Backup", "metadata": {"name": name},
        "spec": {"schedule": "0 3 * * *"}})
}

#[tokio::test]
async fn a_definition_gets_its_names_and_is_established() {
    let lab = Lab::start().await;
    let made = lab.post(DEFINITIONS, &backups()).await.expect(201);
    assert_eq!(made["spec"]["names"]["listKind"], "BackupList");
    assert_eq!(made["spec"]["conversion"], json!({"strategy": "None"}));
    assert_eq!(made["status"]["storedVersions"], json!(["v1"]));
    let established = until(&lab, "backups.storage.example.com", |object| {
        says(object, "Established", "True")
    })
    .await;
    assert!(says(&established, "NamesAccepted", "True"));
    let reasons: Vec<&str> = established["status"]["conditions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["reason"].as_str().unwrap())
        .collect();
    assert_eq!(reasons, ["NoConflicts", "InitialNamesAccepted"]);
    assert_eq!(
        established["status"]["acceptedNames"]["shortNames"],
        json!(["bk"])
    );
    // Established means that it is there.
    lab.post(BACKUPS, &backup("a")).await.expect(201);
}

#[tokio::test]
async fn what_is_wrong_with_a_definition_is_said() {
    let lab = Lab::start().await;
    let mut wrong = backups();
    wrong["metadata"]["name"] = json!("x.y");
    wrong["spec"]["versions"][0]["storage"] = json!(false);
    let status = lab.post(DEFINITIONS, &wrong).await.expect(422);
    let message = status["message"].as_str().unwrap();
    assert!(
        message.starts_with("CustomResourceDefinition.apiextensions.k8s.io \"x.y\" is invalid: "),
        "{message}"
    );
    assert!(message.contains("must be spec.names.plural+\".\"+spec.group"));
    assert!(message.contains("must have exactly one version marked as storage version"));
}

#[tokio::test]
async fn a_taken_name_is_not_accepted_until_it_is_free() {
    let lab = Lab::start().await;
    define(&lab, &backups()).await;
    let mut other = backups();
    other["metadata"]["name"] = json!("copies.storage.example.com");
    other["spec"]["names"] = json!({"plural": "copies", "kind": "Backup"});
    lab.post(DEFINITIONS, &other).await.expect(201);
    let refused = until(&lab, "copies.storage.example.com", |object| {
        says(object, "NamesAccepted", "False")
    })
    .await;
    assert!(says(&refused, "Established", "False"));
    assert_eq!(
        refused["status"]["conditions"][0]["reason"],
        "ListKindConflict"
    );
    let path = "/apis/storage.example.com/v1/namespaces/default/copies";
    lab.get(path).await.expect(404);
    lab.delete(&format!("{DEFINITIONS}/backups.storage.example.com"))
        .await
        .expect(200);
    until(&lab, "copies.storage.example.com", |object| {
        says(object, "Established", "True")
    })
    .await;
    lab.get(path).await.expect(200);
}

#[tokio::test]
async fn deletion_takes_the_objects_and_then_the_kind() {
    let lab = Lab::start().await;
    define(&lab, &backups()).await;
    let mut held = backup("held");
    held["metadata"]["finalizers"] = json!(["example.com/hold"]);
    lab.post(BACKUPS, &held).await.expect(201);
    lab.post(BACKUPS, &backup("free")).await.expect(201);
    let mut objects = lab.watch(&format!("{BACKUPS}?watch=1")).await;
    for name in ["free", "held"] {
        assert_eq!(objects.event().await, ("ADDED".to_owned(), name.to_owned()));
    }
    let path = format!("{DEFINITIONS}/backups.storage.example.com");
    let ending = lab.delete(&path).await.expect(200);
    assert!(says(&ending, "Terminating", "True"));
    assert_eq!(
        ending["metadata"]["finalizers"],
        json!(["customresourcecleanup.apiextensions.k8s.io"])
    );
    assert_eq!(
        objects.event().await,
        ("DELETED".to_owned(), "free".to_owned())
    );
    assert_eq!(
        objects.event().await,
        ("MODIFIED".to_owned(), "held".to_owned())
    );
    let refused = lab.post(BACKUPS, &backup("late")).await.expect(405);
    assert_eq!(
        refused["message"],
        "create not allowed while custom resource definition is terminating"
    );
    let free = json!({"metadata": {"finalizers": null}});
    lab.merge(&format!("{BACKUPS}/held"), &free)
        .await
        .expect(200);
    assert_eq!(
        objects.event().await,
        ("DELETED".to_owned(), "held".to_owned())
    );
    // The kind goes, and with it the watch.
    assert_eq!(objects.next().await, None);
    gone(&lab, &path).await;
    lab.get(BACKUPS).await.expect(404);
    // The same definition again finds nothing of the old one.
    define(&lab, &backups()).await;
    let list = lab.get(BACKUPS).await.expect(200);
    assert_eq!(list["items"], json!([]));
}

/// Wait until there is nothing at a path.
async fn gone(lab: &Lab, path: &str) {
    tokio::time::timeout(DEADLINE, async {
        while lab.get(path).await.code != 404 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn objects_and_kinds_survive_a_restart() {
    let lab = Lab::start().await;
    for definition in [backups(), certificates(), policies()] {
        define(&lab, &definition).await;
    }
    let made = lab.post(BACKUPS, &backup("a")).await.expect(201);
    let lab = Lab::start_in(lab.stop().await).await;
    let found = lab.get(&format!("{BACKUPS}/a")).await.expect(200);
    assert_eq!(found, made);
    lab.get("/apis/policy.example.com/v1/clusterpolicies")
        .await
        .expect(200);
}

#[tokio::test]
async fn a_changed_schema_is_that_of_the_next_request() {
    let lab = Lab::start().await;
    let defined = define(&lab, &backups()).await;
    lab.post(BACKUPS, &backup("old")).await.expect(201);
    let mut watch = lab
        .watch(&format!("{BACKUPS}?watch=1&resourceVersion=0"))
        .await;
    watch.event().await;
    let mut changed = defined.clone();
    let spec =
        &mut changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"];
    spec["properties"]["tier"] = json!({"type": "string", "default": "gold"});
    spec["properties"].as_object_mut().unwrap().remove("labels");
    lab.put(
        &format!("{DEFINITIONS}/backups.storage.example.com"),
        &changed,
    )
    .await
    .expect(200);
    // Watches of the old form end, so that clients list anew.
    while watch.next().await.is_some() {}
    // What was stored before has the new default when it is read.
    let old = lab.get(&format!("{BACKUPS}/old")).await.expect(200);
    assert_eq!(old["spec"]["tier"], "gold");
    let listed = lab.get(BACKUPS).await.expect(200);
    assert_eq!(listed["items"][0]["spec"]["tier"], "gold");
}

#[tokio::test]
async fn many_definitions_are_established_and_stay_served() {
    let lab = Lab::start().await;
    let name = |index: usize| format!("kinds{index}.many{}.example.com", index % 7);
    for index in 0..60 {
        let mut one = backups();
        one["metadata"]["name"] = json!(name(index));
        one["spec"]["group"] = json!(format!("many{}.example.com", index % 7));
        one["spec"]["names"] =
            json!({"plural": format!("kinds{index}"), "kind": format!("Kind{index}")});
        lab.post(DEFINITIONS, &one).await.expect(201);
    }
    for index in 0..60 {
        until(&lab, &name(index), |object| {
            says(object, "Established", "True")
        })
        .await;
        let path = format!(
            "/apis/many{}.example.com/v1/namespaces/default/kinds{index}",
            index % 7
        );
        lab.get(&path).await.expect(200);
    }
}
