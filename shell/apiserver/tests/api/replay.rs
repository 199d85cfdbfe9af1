//! The law of list and watch: from every point that a list has shown, the
//! events of a watch lead to the same state, whatever was selected.

use std::collections::BTreeMap;

use crate::common::Lab;
use proptest::prelude::*;
use serde_json::{Value, json};

const PATH: &str = "/api/v1/namespaces/default/configmaps";
/// Made last, selected by every selection: a watch that has it has everything.
const END: &str = "zz-end";
/// All objects, and those that enter and leave a selection.
const SELECTIONS: &[&str] = &[
    "",
    "&labelSelector=on%3Dyes",
    "&fieldSelector=metadata.name!%3Da",
];

/// One thing done to one of a few objects.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Put { name: u8, on: bool },
    Delete { name: u8 },
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        3 => (0u8..5, any::<bool>()).prop_map(|(name, on)| Deed::Put { name, on }),
        1 => (0u8..5).prop_map(|name| Deed::Delete { name }),
    ]
}

fn name_of(name: u8) -> String {
    char::from(b'a' + name).to_string()
}

fn object(name: &str, on: bool, step: usize) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"on": if on { "yes" } else { "no" }}},
        "data": {"step": step.to_string()}})
}

async fn act(lab: &Lab, deed: Deed, step: usize) {
    match deed {
        Deed::Put { name, on } => {
            let name = name_of(name);
            let path = format!("{PATH}/{name}");
            let body = object(&name, on, step);
            if lab.put(&path, &body).await.code == 404 {
                lab.post(PATH, &body).await.expect(201);
            }
        }
        Deed::Delete { name } => {
            let got = lab.delete(&format!("{PATH}/{}", name_of(name))).await;
            assert!(matches!(got.code, 200 | 404), "{}", got.code);
        }
    }
}

type State = BTreeMap<String, Value>;

/// The objects of a list and its version.
async fn list(lab: &Lab, selection: &str) -> (State, String) {
    let list = lab
        .get(&format!("{PATH}?limit=500{selection}"))
        .await
        .expect(200);
    let items = list["items"].as_array().unwrap();
    let state = items
        .iter()
        .map(|item| {
            (
                item["metadata"]["name"].as_str().unwrap().to_owned(),
                item.clone(),
            )
        })
        .collect();
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    (state, version.to_owned())
}

/// The state after every event up to the end mark.
async fn follow(lab: &Lab, mut state: State, version: &str, selection: &str) -> State {
    let path = format!("{PATH}?watch=1&resourceVersion={version}{selection}");
    let mut events = lab.watch(&path).await;
    while !state.contains_key(END) {
        let event = events.next().await.expect("the watch ended early");
        let object = &event["object"];
        let name = object["metadata"]["name"].as_str().unwrap().to_owned();
        let known = match event["type"].as_str().unwrap() {
            "ADDED" => state.insert(name, object.clone()).is_none(),
            "MODIFIED" => state.insert(name, object.clone()).is_some(),
            "DELETED" => state.remove(&name).is_some(),
            other => panic!("{other}: {event}"),
        };
        assert!(known, "an event that does not fit the state: {event}");
    }
    state
}

async fn replay(deeds: Vec<Deed>) {
    let lab = Lab::start().await;
    let mut points = Vec::new();
    for (step, deed) in deeds.into_iter().enumerate() {
        for selection in SELECTIONS {
            points.push((*selection, list(&lab, selection).await));
        }
        act(&lab, deed, step).await;
    }
    lab.post(PATH, &object(END, true, 0)).await.expect(201);
    let mut last = BTreeMap::new();
    for selection in SELECTIONS {
        last.insert(*selection, list(&lab, selection).await.0);
    }
    for (selection, (state, version)) in points {
        let reached = follow(&lab, state, &version, selection).await;
        assert_eq!(
            reached, last[selection],
            "from {version} with {selection:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn list_and_watch_replay_to_the_same_state_from_every_point(
        deeds in proptest::collection::vec(deed(), 1..25)
    ) {
        tokio::runtime::Runtime::new().unwrap().block_on(replay(deeds));
    }
}
