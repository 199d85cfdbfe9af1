//! CustomResourceDefinitions and their objects, over a real connection, with
//! definitions such as operators bring along.

#![expect(clippy::unwrap_used, reason = "tests")]

#[path = "../api/common.rs"]
#[expect(dead_code, reason = "shared with tests that use more of it")]
mod common;

mod cluster_policies;
mod definitions;
mod documents;
mod objects;
mod shipped;
mod versions;
mod views;

use common::{DEADLINE, Lab};
use serde_json::Value;

const DEFINITIONS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";

/// The definition in a file.
fn parse(text: &str) -> Value {
    portolan_api::yaml::parse(text).unwrap().remove(0)
}

fn backups() -> Value {
    parse(include_str!("definitions/backups.yaml"))
}

fn certificates() -> Value {
    parse(include_str!("definitions/certificates.yaml"))
}

fn policies() -> Value {
    parse(include_str!("definitions/policies.yaml"))
}

/// Whether a condition has a status.
fn says(object: &Value, condition: &str, status: &str) -> bool {
    object["status"]["conditions"]
        .as_array()
        .is_some_and(|list| {
            list.iter()
                .any(|one| one["type"] == condition && one["status"] == status)
        })
}

/// Make a definition and wait until it is established, as `kubectl wait` does.
async fn define(lab: &Lab, definition: &Value) -> Value {
    lab.post(DEFINITIONS, definition).await.expect(201);
    let name = definition["metadata"]["name"].as_str().unwrap();
    until(lab, name, |object| says(object, "Established", "True")).await
}

/// Watch one definition until it is as wanted.
async fn until(lab: &Lab, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let path = format!("{DEFINITIONS}?watch=1&fieldSelector=metadata.name%3D{name}");
    let mut watch = lab.watch(&path).await;
    tokio::time::timeout(DEADLINE, async {
        loop {
            let event = watch.next().await.unwrap();
            if wanted(&event["object"]) {
                return event["object"].clone();
            }
        }
    })
    .await
    .unwrap()
}
