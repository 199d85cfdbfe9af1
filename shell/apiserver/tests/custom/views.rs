//! Events are one collection with two names: core/v1 and events.k8s.io/v1.

use crate::common::Lab;
use serde_json::{Value, json};

const CORE: &str = "/api/v1/namespaces/default/events";
const VIEW: &str = "/apis/events.k8s.io/v1/namespaces/default/events";

fn core(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Event", "metadata": {"name": name}, "type": "Normal",
        "involvedObject": {"kind": "Pod", "name": "p", "namespace": "default"}, "message": "up", "reason": "Started", "count": 1})
}

fn view(name: &str) -> Value {
    json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {"name": name},
        "eventTime": "2026-01-01T00:00:00.000000Z", "reportingController": "example.com/c", "reportingInstance": "c-1",
        "action": "Start", "reason": "Started", "type": "Normal", "note": "up", "regarding": {"kind": "Job", "name": "j", "namespace": "default"}})
}

#[tokio::test]
async fn an_event_has_two_forms_and_one_life() {
    let lab = Lab::start().await;
    let mut watch = lab.watch(&format!("{VIEW}?watch=1")).await;
    lab.post(CORE, &core("a")).await.expect(201);
    let event = watch.next().await.unwrap();
    assert_eq!(event["object"]["apiVersion"], "events.k8s.io/v1");
    assert_eq!(event["object"]["note"], "up");
    let made = lab.post(VIEW, &view("b")).await.expect(201);
    assert_eq!(made["note"], "up");
    let seen = lab.get(&format!("{CORE}/b")).await.expect(200);
    assert_eq!(seen["apiVersion"], "v1");
    assert_eq!(seen["message"], "up");
    assert_eq!(seen["involvedObject"]["name"], "j");
    assert_eq!(seen["reportingComponent"], "example.com/c");
    assert_eq!(seen["metadata"]["uid"], made["metadata"]["uid"]);
    let patch = json!({"series": {"count": 2, "lastObservedTime": "2026-01-01T00:01:00.000000Z"}});
    let patched = lab.merge(&format!("{VIEW}/b"), &patch).await.expect(200);
    assert_eq!(patched["series"]["count"], 2);
    let list = lab
        .get(&format!("{VIEW}?fieldSelector=regarding.kind%3DJob"))
        .await
        .expect(200);
    assert_eq!(list["kind"], "EventList");
    assert_eq!(list["apiVersion"], "events.k8s.io/v1");
    assert_eq!(list["items"].as_array().unwrap().len(), 1);
    assert_eq!(list["items"][0]["regarding"]["name"], "j");
    let refused = lab
        .get(&format!("{VIEW}?fieldSelector=involvedObject.kind%3DJob"))
        .await
        .expect(400);
    assert!(
        refused["message"]
            .as_str()
            .unwrap()
            .contains("field label not supported")
    );
    lab.delete(&format!("{VIEW}/a")).await.expect(200);
    lab.get(&format!("{CORE}/a")).await.expect(404);
}

#[tokio::test]
async fn what_an_event_lacks_is_told() {
    let lab = Lab::start().await;
    let mut event = view("a");
    event.as_object_mut().unwrap().remove("action");
    let refused = lab.post(VIEW, &event).await.expect(422);
    assert_eq!(
        refused["message"],
        "Event.events.k8s.io \"a\" is invalid: action: Required value"
    );
}
