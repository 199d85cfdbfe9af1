//! Writes into BGPPeers how the sessions of this node are doing.
//!
//! All agents write into one status, each its own entry: it is read, changed and
//! written back, and again if somebody else was quicker. MetalLB's peers have no place
//! for it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use portolan_api::value::{at, list_at, str_at};
use portolan_client::{BGP_PEERS, Client, RequestError, Target, Writer};
use portolan_model::workloads::ObjectKey;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::board::{ESTABLISHED, Sessions, Standing};

/// Changes within so long make one write.
const PAUSE: Duration = Duration::from_secs(1);

/// The nodes that should have a session, by peer.
pub(super) type Wanted = BTreeMap<ObjectKey, BTreeSet<String>>;

/// What one peer's status follows from.
type Cause = (Option<Standing>, BTreeSet<String>);

/// Writes what changes until `over`.
pub(super) async fn run(
    client: Client,
    node: String,
    mut sessions: watch::Receiver<Sessions>,
    mut wanted: watch::Receiver<Wanted>,
    over: CancellationToken,
) {
    let writer = Writer::new(client, super::super::COMPONENT);
    let mut written: BTreeMap<ObjectKey, Cause> = BTreeMap::new();
    loop {
        let now = sessions.borrow_and_update().clone();
        let nodes = wanted.borrow_and_update().clone();
        let keys: BTreeSet<ObjectKey> = now.keys().chain(written.keys()).cloned().collect();
        let mut again = false;
        for key in keys.into_iter().filter(|key| key.namespace.is_empty()) {
            let standing = now.get(&key).cloned();
            let cause = (standing, nodes.get(&key).cloned().unwrap_or_default());
            if written.get(&key) == Some(&cause) {
                continue;
            }
            match put(&writer, &key, &node, &cause).await {
                Ok(()) => drop(written.insert(key, cause)),
                Err(error) if error.is_not_found() => drop(written.remove(&key)),
                Err(error) => {
                    let (peer, message) = (&key.name, error.message());
                    tracing::debug!(peer, %error, message, "the status was not written");
                    again = true;
                }
            }
        }
        tokio::select! {
            () = over.cancelled() => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
        if again {
            continue;
        }
        tokio::select! {
            () = over.cancelled() => return,
            Ok(()) = sessions.changed() => {}
            Ok(()) = wanted.changed() => {}
            else => return,
        }
    }
}

async fn put(
    writer: &Writer,
    key: &ObjectKey,
    node: &str,
    (standing, wanted): &Cause,
) -> Result<(), RequestError> {
    let target = Target::one(&BGP_PEERS, None, &key.name);
    let mut peer = writer.get(target).await?;
    let Some(status) = status(&peer, node, standing.as_ref(), wanted) else {
        return Ok(());
    };
    peer["status"] = status;
    let target = target.subresource("status");
    writer.replace(target, &peer).await.map(drop)
}

/// The status of a peer with this node's entry as it is now; none if it is so already.
/// Entries of nodes that should have no session go.
fn status(
    peer: &Value,
    node: &str,
    standing: Option<&Standing>,
    wanted: &BTreeSet<String>,
) -> Option<Value> {
    let others = list_at(peer, "status.sessions").iter();
    let others = others.filter(|one| str_at(one, "node") != node);
    let others = others.filter(|one| wanted.contains(str_at(one, "node")));
    let mut sessions: Vec<Value> = others.cloned().collect();
    sessions.extend(standing.map(|standing| entry(node, standing)));
    sessions.sort_by(|a, b| str_at(a, "node").cmp(str_at(b, "node")));
    let up = |one: &&Value| str_at(one, "state") == ESTABLISHED;
    let up = sessions.iter().filter(up).count();
    let mut status = at(peer, "status").clone();
    if !status.is_object() {
        status = json!({});
    }
    status["sessionsUp"] = up.into();
    status["sessionsWanted"] = wanted.len().into();
    status["sessions"] = sessions.into();
    (*at(peer, "status") != status).then_some(status)
}

fn entry(node: &str, standing: &Standing) -> Value {
    let mut entry = json!({
        "node": node,
        "state": standing.state,
        "since": standing.since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        "prefixes": standing.prefixes,
    });
    if !standing.message.is_empty() {
        entry["message"] = standing.message.as_str().into();
    }
    entry
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn l10_each_agent_writes_its_own_entry() {
        let up = Standing {
            state: ESTABLISHED,
            since: "2026-01-02T03:04:05.6Z".parse().unwrap(),
            prefixes: 3,
            message: String::new(),
        };
        let mut peer = json!({"metadata": {"name": "tor"}});
        let all = nodes(&["n1", "n2"]);
        peer["status"] = status(&peer, "n2", Some(&up), &all).unwrap();
        let down = Standing {
            state: "Active",
            prefixes: 0,
            message: "no connection".to_owned(),
            ..up.clone()
        };
        peer["status"] = status(&peer, "n1", Some(&down), &all).unwrap();
        assert_eq!(
            peer["status"],
            json!({
                "sessionsUp": 1, "sessionsWanted": 2,
                "sessions": [
                    {
                        "node": "n1", "state": "Active", "since": "2026-01-02T03:04:05Z",
                        "prefixes": 0, "message": "no connection",
                    },
                    {
                        "node": "n2", "state": "Established",
                        "since": "2026-01-02T03:04:05Z", "prefixes": 3,
                    },
                ],
            })
        );
        // The same is not written again.
        assert_eq!(status(&peer, "n1", Some(&down), &all), None);
        // Who should have none, and who ended its own, is left out.
        peer["status"] = status(&peer, "n1", Some(&up), &nodes(&["n1"])).unwrap();
        assert_eq!(peer["status"]["sessionsUp"], 1);
        assert_eq!(peer["status"]["sessions"].as_array().unwrap().len(), 1);
        let none = status(&peer, "n1", None, &nodes(&[])).unwrap();
        assert_eq!(
            none,
            json!({"sessionsUp": 0, "sessionsWanted": 0, "sessions": []})
        );
    }
}
