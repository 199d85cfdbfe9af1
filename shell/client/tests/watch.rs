//! The watch against a scripted server.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::{Stream, StreamExt};
use http::{Request, Response};
use kube::client::Body;
use portolan_client::facts::Wanted;
use portolan_client::{Client, Event, PODS, Params, Versioned, watch};
use portolan_model::{Change, Kind};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

/// What the server answers, in order; afterwards watches stay open.
struct Script {
    answers: VecDeque<(u16, Vec<Value>)>,
    asked: Vec<String>,
}

/// A client whose server follows the script, and the script.
fn scripted(answers: Vec<(u16, Vec<Value>)>) -> (Client, Arc<Mutex<Script>>) {
    let script = Arc::new(Mutex::new(Script {
        answers: answers.into(),
        asked: Vec::new(),
    }));
    let shared = Arc::clone(&script);
    let service = tower::service_fn(move |request: Request<Body>| {
        let shared = Arc::clone(&shared);
        async move {
            let answer = {
                let mut script = shared.lock().expect("not poisoned");
                script.asked.push(request.uri().to_string());
                script.answers.pop_front()
            };
            let Some((status, lines)) = answer else {
                return std::future::pending().await;
            };
            let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
            let response = Response::builder()
                .status(status)
                .body(Body::from(text.into_bytes()));
            Ok::<_, std::io::Error>(response.expect("a response"))
        }
    });
    (Client::new(service, "default"), script)
}

fn pod(name: &str, version: u64) -> Value {
    json!({"metadata": {"name": name, "resourceVersion": version.to_string()}})
}

fn page(version: u64, next: &str, items: Vec<Value>) -> (u16, Vec<Value>) {
    let metadata = json!({"resourceVersion": version.to_string(), "continue": next});
    (200, vec![json!({"metadata": metadata, "items": items})])
}

fn happened(kind: &str, object: &Value) -> Value {
    json!({"type": kind, "object": object})
}

fn status(code: u16, reason: &str) -> Value {
    json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
        "message": reason, "reason": reason, "code": code})
}

/// The next events as short words.
async fn words(
    events: &mut (impl Stream<Item = Event<Value>> + Unpin),
    count: usize,
) -> Vec<String> {
    let name = |v: &Value| v["metadata"]["name"].as_str().unwrap_or("?").to_owned();
    let mut words = Vec::new();
    for _ in 0..count {
        let event = tokio::time::timeout(Duration::from_secs(20), events.next()).await;
        words.push(match event.expect("in time").expect("never ends") {
            Event::Init => "init".to_owned(),
            Event::InitItem(object) => format!("item {}", name(&object)),
            Event::InitDone {
                resource_version, ..
            } => format!("done {resource_version}"),
            Event::Upsert(object) => format!("is {}", name(&object)),
            Event::Delete(object) => format!("gone {}", name(&object)),
        });
    }
    words
}

#[tokio::test]
async fn a_list_is_read_page_by_page_and_then_watched() {
    let (client, script) = scripted(vec![
        page(7, "next", vec![pod("a", 1)]),
        page(7, "", vec![pod("b", 2)]),
        (
            200,
            vec![
                happened("ADDED", &pod("c", 8)),
                happened("DELETED", &pod("a", 9)),
            ],
        ),
    ]);
    let mut events = watch::<Value>(client, PODS.clone(), Params::all());
    assert_eq!(
        words(&mut events, 6).await,
        ["init", "item a", "item b", "done 7", "is c", "gone a"]
    );
    // The connection ended: the watch goes on from the last version.
    tokio::time::timeout(Duration::from_secs(20), async {
        while script.lock().expect("not poisoned").asked.len() < 4 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .expect("asks again");
    let asked = script.lock().expect("not poisoned").asked.clone();
    assert!(asked[1].contains("continue=next"), "{asked:?}");
    assert!(asked[2].contains("watch=true") && asked[2].contains("resourceVersion=7"));
    assert!(asked[3].contains("resourceVersion=9"), "{asked:?}");
}

#[tokio::test]
async fn a_version_that_is_too_old_leads_to_a_new_list() {
    let (client, _) = scripted(vec![
        page(7, "", vec![pod("a", 1)]),
        (200, vec![happened("ERROR", &status(410, "Expired"))]),
        page(50, "", vec![pod("b", 40)]),
    ]);
    let mut events = watch::<Value>(client, PODS.clone(), Params::all());
    assert_eq!(
        words(&mut events, 6).await,
        ["init", "item a", "done 7", "init", "item b", "done 50"]
    );
}

#[tokio::test]
async fn a_list_that_breaks_in_the_middle_starts_again() {
    let (client, _) = scripted(vec![
        page(7, "next", vec![pod("a", 1)]),
        (500, vec![status(500, "InternalError")]),
        page(8, "next", vec![pod("a", 1)]),
        (410, vec![status(410, "Expired")]),
        page(9, "", vec![pod("a", 1), pod("b", 9)]),
    ]);
    let mut events = watch::<Value>(client, PODS.clone(), Params::all());
    assert_eq!(
        words(&mut events, 8).await,
        [
            "init", "item a", "init", "item a", "init", "item a", "item b", "done 9"
        ]
    );
}

#[tokio::test]
async fn a_kind_that_is_not_served_is_empty_and_looked_for_again() {
    let missing = || (404, vec![status(404, "NotFound")]);
    let (client, _) = scripted(vec![missing(), missing(), page(3, "", vec![pod("a", 1)])]);
    let mut events = watch::<Value>(client, PODS.clone(), Params::all());
    assert_eq!(
        words(&mut events, 5).await,
        ["init", "done ", "init", "item a", "done 3"]
    );
}

#[tokio::test]
async fn a_kind_that_may_not_be_read_is_done_without_only_if_it_is_optional() {
    let forbidden = || (403, vec![status(403, "Forbidden")]);
    let script = || vec![forbidden(), forbidden(), page(3, "", vec![pod("a", 1)])];
    let params = Params {
        optional: true,
        ..Params::all()
    };
    let mut events = watch::<Value>(scripted(script()).0, PODS.clone(), params);
    assert_eq!(
        words(&mut events, 5).await,
        ["init", "done ", "init", "item a", "done 3"]
    );
    let mut events = watch::<Value>(scripted(script()).0, PODS.clone(), Params::all());
    assert_eq!(words(&mut events, 3).await, ["init", "item a", "done 3"]);
}

/// What may not be read is told apart from what there is none of, until it may.
#[tokio::test]
async fn what_may_not_be_read_is_told_as_such() {
    let forbidden = (403, vec![status(403, "Forbidden")]);
    let (client, _) = scripted(vec![forbidden, page(3, "", Vec::new())]);
    let wanted = Wanted {
        kinds: vec![Kind::Policy],
        optional: vec![Kind::Policy],
        ..Wanted::default()
    };
    let mut facts = portolan_client::facts::facts(client, wanted, CancellationToken::new());
    for expected in [true, false] {
        let next = tokio::time::timeout(Duration::from_secs(30), facts.recv()).await;
        let facts = next.expect("in time").expect("never ends");
        assert_eq!(facts.change, Change::Replace(Kind::Policy, Vec::new()));
        assert_eq!(facts.forbidden, expected);
    }
}

#[tokio::test]
async fn every_kind_of_fact_is_replaced_once_even_where_nothing_is_served() {
    let missing = || (404, vec![status(404, "NotFound")]);
    let (client, _) = scripted(Kind::ALL_AND_PODS.map(|_| missing()).into());
    let mut facts =
        portolan_client::facts::facts(client, &Kind::ALL_AND_PODS, CancellationToken::new());
    let mut listed = Vec::new();
    for _ in Kind::ALL_AND_PODS {
        let next = tokio::time::timeout(Duration::from_secs(20), facts.recv()).await;
        let facts = next.expect("in time").expect("never ends");
        assert_eq!(facts.problems, []);
        let Change::Replace(kind, all) = facts.change else {
            panic!("{:?}", facts.change);
        };
        assert!(all.is_empty());
        listed.push(kind);
    }
    listed.sort();
    assert_eq!(listed, Kind::ALL_AND_PODS);
}

#[test]
fn a_raw_object_tells_its_version() {
    assert_eq!(Versioned::resource_version(&pod("a", 5)), Some("5"));
    assert_eq!(Versioned::resource_version(&json!({})), None);
}
