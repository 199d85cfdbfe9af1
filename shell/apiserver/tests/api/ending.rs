//! The end of a server: requests in flight finish, nothing acknowledged is lost.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::{Lab, request};
use http::{Method, Request};
use kube::client::Body;
use serde_json::json;

const PATH: &str = "/api/v1/namespaces/default/configmaps";
const WRITERS: usize = 8;
/// The server is told to end after so many writes.
const ENOUGH: usize = 100;

/// Write until the server refuses; the names that it acknowledged.
async fn write(client: kube::Client, writer: usize, done: Arc<AtomicUsize>) -> Vec<String> {
    let mut acknowledged = Vec::new();
    loop {
        let name = format!("w{writer}-{}", acknowledged.len());
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
        let wanted = Request::post(PATH)
            .header("content-type", "application/json")
            .body(Body::from(object.to_string().into_bytes()))
            .unwrap();
        match client.send(wanted).await {
            Ok(answer) if answer.status() == 201 => acknowledged.push(name),
            Ok(_) | Err(_) => return acknowledged,
        }
        done.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn what_was_acknowledged_while_the_server_ended_is_there() {
    let lab = Lab::start().await;
    let done = Arc::new(AtomicUsize::new(0));
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| tokio::spawn(write(lab.client.clone(), writer, Arc::clone(&done))))
        .collect();
    while done.load(Ordering::Relaxed) < ENOUGH {
        tokio::task::yield_now().await;
    }
    lab.shut_down();
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.extend(writer.await.unwrap());
    }
    assert!(acknowledged.len() >= ENOUGH);
    let lab = Lab::start_in(lab.stop().await).await;
    for name in acknowledged {
        let path = format!("{PATH}/{name}");
        let got = request(&lab.client, Method::GET, &path, None, &[]).await;
        assert_eq!(got.code, 200, "{name} is lost");
    }
}
