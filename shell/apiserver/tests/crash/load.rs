//! Clients that create, change and delete Services, each its own, and remember
//! what was acknowledged.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::{Method, Request};
use kube::client::Body;
use serde_json::{Value, json};
use tokio::sync::watch;

/// Names that one writer uses.
const NAMES: usize = 8;
pub(crate) const PATH: &str = "/api/v1/namespaces/default/services";
/// The annotation by which versions of a Service are told apart.
pub(crate) const VERSION: &str = "version";

/// What one Service may be in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Known {
    /// As it was acknowledged: its version, or that it is not there.
    Surely(Option<u64>),
    /// The answer did not come: as before, or as wanted.
    Either(Option<u64>, Option<u64>),
}

/// When the server is killed: after so many writes, and a little later.
pub(crate) struct Moment {
    pub(crate) writes: usize,
    pub(crate) then: Duration,
}

/// The clients.
pub(crate) struct Writers {
    pub(crate) known: Vec<BTreeMap<String, Known>>,
    turn: u64,
}

impl Writers {
    pub(crate) fn new(count: usize) -> Self {
        let names = |writer: usize| {
            (0..NAMES)
                .map(|name| (format!("w{writer}-{name}"), Known::Surely(None)))
                .collect()
        };
        Self {
            known: (0..count).map(names).collect(),
            turn: 0,
        }
    }

    /// Write until the moment has come, `kill`, and wait until every client
    /// has noticed. Returns how many writes were acknowledged.
    pub(crate) async fn run(
        &mut self,
        client: kube::Client,
        moment: Moment,
        kill: impl FnOnce(),
    ) -> usize {
        self.turn += 1_000_000;
        let (done, mut count) = watch::channel(0);
        let done = Arc::new(done);
        let writers: Vec<_> = self
            .known
            .drain(..)
            .enumerate()
            .map(|(number, known)| {
                let turn = self.turn + number as u64 * 100_000;
                tokio::spawn(write(client.clone(), known, turn, Arc::clone(&done)))
            })
            .collect();
        let enough = count.wait_for(|count| *count >= moment.writes);
        tokio::time::timeout(crate::LIMIT, enough)
            .await
            .expect("the server answers")
            .unwrap();
        tokio::time::sleep(moment.then).await;
        kill();
        for writer in writers {
            let known = tokio::time::timeout(crate::LIMIT, writer)
                .await
                .expect("a client hangs on a server that is gone")
                .unwrap();
            self.known.push(known);
        }
        *done.borrow()
    }
}

/// Write until a request gets no answer.
async fn write(
    client: kube::Client,
    mut known: BTreeMap<String, Known>,
    mut turn: u64,
    done: Arc<watch::Sender<usize>>,
) -> BTreeMap<String, Known> {
    let names: Vec<String> = known.keys().cloned().collect();
    loop {
        turn += 1;
        let random = turn.wrapping_mul(6_364_136_223_846_793_005) >> 33;
        let name = &names[random as usize % names.len()];
        let Some(Known::Surely(before)) = known.get(name).cloned() else {
            panic!("{name} was not looked up after the restart");
        };
        let delete = before.is_some() && random.is_multiple_of(3);
        let after = (!delete).then_some(turn);
        match send(&client, name, before, after, random).await {
            Some(201 | 200) => {
                known.insert(name.clone(), Known::Surely(after));
                done.send_modify(|done| *done += 1);
            }
            // Ranges run full, and what was asked for is taken: nothing happens.
            Some(422 | 500) => {}
            Some(code) => panic!("{name}: {code}"),
            None => {
                known.insert(name.clone(), Known::Either(before, after));
                return known;
            }
        }
    }
}

/// The code of the answer, if one came.
async fn send(
    client: &kube::Client,
    name: &str,
    before: Option<u64>,
    after: Option<u64>,
    random: u64,
) -> Option<u16> {
    let one = format!("{PATH}/{name}");
    let request = match (before, after) {
        (_, None) => Request::delete(&one).body(Body::empty()),
        (None, Some(version)) => json_request(Method::POST, PATH, &service(name, version, random)),
        (Some(_), Some(version)) => {
            json_request(Method::PUT, &one, &service(name, version, random))
        }
    };
    let answer = client.send(request.unwrap()).await.ok()?;
    Some(answer.status().as_u16())
}

fn json_request(method: Method, path: &str, body: &Value) -> http::Result<Request<Body>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/json")
        .body(Body::from(body.to_string().into_bytes()))
}

/// A Service of any type, with addresses and ports that are chosen or not.
fn service(name: &str, version: u64, random: u64) -> Value {
    let kinds = ["ClusterIP", "NodePort", "LoadBalancer", "NodePort"];
    let kind = kinds[(random >> 4) as usize % kinds.len()];
    let mut port = json!({"name": "a", "port": 80});
    if kind != "ClusterIP" && random.is_multiple_of(5) {
        port["nodePort"] = json!(30_000 + (random >> 8) % 64);
    }
    let mut spec = json!({
        "type": kind,
        "ports": [port, {"name": "b", "port": 81}],
        "ipFamilyPolicy": if (random >> 6).is_multiple_of(2) { "PreferDualStack" } else { "SingleStack" },
    });
    if kind == "LoadBalancer" {
        spec["externalTrafficPolicy"] = json!("Local");
    }
    json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "annotations": {VERSION: version.to_string()}},
        "spec": spec,
    })
}
