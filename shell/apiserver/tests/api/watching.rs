//! Watches: every change once, in order, for those whom it concerns.

use crate::common::{DEADLINE, Lab, open};
use futures::TryStreamExt as _;
use http::Method;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::runtime::watcher::{self, Event};
use serde_json::{Value, json};

const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

fn config_map(name: &str, app: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"app": app}}})
}

fn pair(kind: &str, name: &str) -> (String, String) {
    (kind.to_owned(), name.to_owned())
}

async fn revision(lab: &Lab) -> String {
    let list = lab.get(CONFIG_MAPS).await.expect(200);
    list["metadata"]["resourceVersion"]
        .as_str()
        .unwrap()
        .to_owned()
}

#[tokio::test]
async fn objects_enter_and_leave_the_selection() {
    let lab = Lab::start().await;
    lab.post(CONFIG_MAPS, &config_map("there", "web"))
        .await
        .expect(201);
    let mut watch = lab
        .watch(&format!("{CONFIG_MAPS}?watch=1&labelSelector=app%3Dweb"))
        .await;
    assert_eq!(watch.event().await, pair("ADDED", "there"));
    lab.post(CONFIG_MAPS, &config_map("a", "other"))
        .await
        .expect(201);
    let path = format!("{CONFIG_MAPS}/a");
    lab.merge(&path, &json!({"metadata": {"labels": {"app": "web"}}}))
        .await
        .expect(200);
    assert_eq!(watch.event().await, pair("ADDED", "a"));
    lab.merge(&path, &json!({"data": {"k": "v"}}))
        .await
        .expect(200);
    assert_eq!(watch.event().await, pair("MODIFIED", "a"));
    let left = lab
        .merge(&path, &json!({"metadata": {"labels": {"app": "other"}}}))
        .await
        .expect(200);
    let event = watch.next().await.unwrap();
    assert_eq!(event["type"], "DELETED");
    assert_eq!(
        event["object"]["metadata"]["labels"]["app"], "web",
        "as it was when it was selected"
    );
    assert_eq!(
        event["object"]["metadata"]["resourceVersion"],
        left["metadata"]["resourceVersion"]
    );
    lab.delete(&path).await.expect(200);
    lab.delete(&format!("{CONFIG_MAPS}/there"))
        .await
        .expect(200);
    assert_eq!(watch.event().await, pair("DELETED", "there"));
}

#[tokio::test]
async fn a_watch_starts_at_any_version_of_the_window() {
    let lab = Lab::start().await;
    let start = revision(&lab).await;
    for name in ["a", "b"] {
        lab.post(CONFIG_MAPS, &config_map(name, "x"))
            .await
            .expect(201);
    }
    lab.delete(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    let mut watch = lab
        .watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={start}"))
        .await;
    for expected in [pair("ADDED", "a"), pair("ADDED", "b"), pair("DELETED", "a")] {
        assert_eq!(watch.event().await, expected);
    }
    let mut one = lab
        .watch(&format!(
            "{CONFIG_MAPS}?watch=1&resourceVersion={start}&fieldSelector=metadata.name%3Db"
        ))
        .await;
    assert_eq!(one.event().await, pair("ADDED", "b"));
}

#[tokio::test]
async fn a_version_that_is_too_old_is_expired_in_the_stream() {
    let lab = Lab::start().await;
    lab.post(CONFIG_MAPS, &config_map("a", "x"))
        .await
        .expect(201);
    // The window begins anew when the server does.
    let dir = lab.stop().await;
    let lab = Lab::start_in(dir).await;
    lab.get(&format!("{CONFIG_MAPS}/a")).await.expect(200);
    let mut watch = lab
        .watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion=1"))
        .await;
    let error = watch.next().await.unwrap();
    assert_eq!(error["type"], "ERROR");
    assert_eq!(
        (&error["object"]["code"], &error["object"]["reason"]),
        (&json!(410), &json!("Expired"))
    );
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn bookmarks_come_and_a_timeout_ends_the_watch() {
    let lab = Lab::start().await;
    let path = format!(
        "{CONFIG_MAPS}?watch=1&allowWatchBookmarks=true&resourceVersion={}&timeoutSeconds=1",
        revision(&lab).await
    );
    let mut watch = lab.watch(&path).await;
    // A write of another kind moves the bookmark on.
    let pod = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "n"}});
    lab.post("/api/v1/namespaces", &pod).await.expect(201);
    let bookmark = loop {
        let event = watch.next().await.unwrap();
        assert_eq!(event["type"], "BOOKMARK");
        if event["object"]["metadata"]["resourceVersion"] == revision(&lab).await.as_str() {
            break event;
        }
    };
    assert_eq!(bookmark["object"]["kind"], "ConfigMap");
    while watch.next().await.is_some() {}
}

#[tokio::test]
async fn a_streaming_list_says_where_it_ends() {
    let lab = Lab::start().await;
    lab.post(CONFIG_MAPS, &config_map("a", "x"))
        .await
        .expect(201);
    let base = format!("{CONFIG_MAPS}?watch=1&allowWatchBookmarks=true&sendInitialEvents=true");
    lab.get(&base).await.expect(422);
    let mut watch = lab
        .watch(&format!(
            "{base}&resourceVersionMatch=NotOlderThan&labelSelector=app"
        ))
        .await;
    assert_eq!(watch.next().await.unwrap()["type"], "ADDED");
    let mark = watch.next().await.unwrap();
    assert_eq!(mark["type"], "BOOKMARK");
    assert_eq!(
        mark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
}

#[tokio::test]
async fn shutdown_ends_watches() {
    let lab = Lab::start().await;
    let mut watch = lab
        .watch(&format!("{CONFIG_MAPS}?watch=1&labelSelector=none"))
        .await;
    lab.shut_down();
    assert_eq!(watch.next().await, None);
    let dir = lab.stop().await;
    drop(open(dir.path()).await);
}

#[tokio::test]
async fn tables_and_metadata_are_watched_too() {
    let lab = Lab::start().await;
    let cases = [
        ("Table", "application/json;as=Table;v=v1;g=meta.k8s.io"),
        (
            "PartialObjectMetadata",
            "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io",
        ),
    ];
    for (kind, accept) in cases {
        let path = format!(
            "{CONFIG_MAPS}?watch=1&resourceVersion={}&timeoutSeconds=1",
            revision(&lab).await
        );
        let name = kind.to_lowercase();
        lab.post(CONFIG_MAPS, &config_map(&name, "x"))
            .await
            .expect(201);
        lab.delete(&format!("{CONFIG_MAPS}/{name}"))
            .await
            .expect(200);
        let got =
            crate::common::request(&lab.client, Method::GET, &path, None, &[("accept", accept)])
                .await;
        let text = String::from_utf8(got.body.to_vec()).unwrap();
        let events: Vec<Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(events.len(), 2, "{text}");
        assert_eq!(
            (&events[0]["type"], &events[1]["type"]),
            (&json!("ADDED"), &json!("DELETED"))
        );
        assert_eq!(events[0]["object"]["kind"], kind);
        if kind == "Table" {
            assert!(
                !events[0]["object"]["columnDefinitions"]
                    .as_array()
                    .unwrap()
                    .is_empty()
            );
            assert_eq!(events[1]["object"]["columnDefinitions"], json!([]));
            assert_eq!(events[1]["object"]["rows"][0]["cells"][0], name);
        }
    }
}

/// kube's own watcher, in both of its ways to begin.
#[tokio::test]
async fn the_watcher_of_kube_follows() {
    let lab = Lab::start().await;
    for streaming in [false, true] {
        let name = format!("w-{streaming}");
        lab.post(CONFIG_MAPS, &config_map(&name, "w"))
            .await
            .expect(201);
        let api: Api<ConfigMap> = Api::namespaced(lab.client.clone(), "default");
        let mut config = watcher::Config::default().labels("app=w");
        if streaming {
            config = config.streaming_lists();
        }
        let mut events = std::pin::pin!(watcher::watcher(api, config));
        let mut seen = Vec::new();
        tokio::time::timeout(DEADLINE, async {
            while let Some(event) = events.try_next().await.unwrap() {
                match event {
                    Event::Init => {}
                    Event::InitApply(object) => seen.push(object.metadata.name.unwrap()),
                    Event::InitDone => {
                        assert!(seen.contains(&name));
                        lab.delete(&format!("{CONFIG_MAPS}/{name}"))
                            .await
                            .expect(200);
                    }
                    Event::Apply(object) => panic!("{object:?}"),
                    Event::Delete(object) => {
                        assert_eq!(object.metadata.name.as_deref(), Some(name.as_str()));
                        break;
                    }
                }
            }
        })
        .await
        .unwrap();
    }
}
