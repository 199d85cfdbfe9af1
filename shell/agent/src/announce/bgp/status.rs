//! Writes into BGPPeers how the sessions of this node are doing.
//!
//! All agents write into one status, each its own entry: it is read, changed and
//! written back, and again if somebody else was quicker. One of them looks after the
//! entries of nodes whose agents are gone: what they wrote last is not so any more.
//! MetalLB's peers have no place for it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;
use portolan_api::value::{at, list_at, str_at};
use portolan_client::{BGP_PEERS, Client, RequestError, Target, Writer};
use portolan_model::workloads::ObjectKey;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::board::{ESTABLISHED, Sessions, Standing};

/// Changes within so long make one write.
const PAUSE: Duration = Duration::from_secs(1);
/// The state of a session whose agent is gone.
const GONE: &str = "Unknown";
/// A condition names so many sessions that are not up.
const NAMED: usize = 5;

/// What the status of a peer follows from, besides the session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Want {
    /// The nodes that should have a session.
    pub(super) nodes: BTreeSet<String>,
    /// Why nobody can have one.
    pub(super) faults: Vec<String>,
    /// Whether the status says that the agent of this node is gone.
    pub(super) stale: bool,
}

/// What the statuses of all peers follow from, besides the sessions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    pub(super) peers: BTreeMap<ObjectKey, Want>,
    /// The nodes whose agents are there, if this one looks after the others' entries.
    pub(super) there: Option<BTreeSet<String>>,
}

/// What one peer's status follows from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Cause {
    standing: Option<Standing>,
    want: Want,
    there: Option<BTreeSet<String>>,
}

/// Whether a status says that the agent of a node is gone.
pub(in super::super) fn says_gone(status: &Value, node: &str) -> bool {
    let sessions = list_at(status, "sessions").iter();
    let mut own = sessions.filter(|one| str_at(one, "node") == node);
    own.any(|one| str_at(one, "state") == GONE)
}

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
        let wanted_now = wanted.borrow_and_update().clone();
        let mut again = false;
        for (key, cause) in causes(&now, &wanted_now, written.keys()) {
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

/// The peers whose status this node has a part in, and what that follows from.
fn causes<'a>(
    sessions: &'a Sessions,
    wanted: &'a Wanted,
    written: impl Iterator<Item = &'a ObjectKey>,
) -> BTreeMap<ObjectKey, Cause> {
    let mut keys: BTreeSet<&ObjectKey> = sessions.keys().chain(written).collect();
    if wanted.there.is_some() {
        keys.extend(wanted.peers.keys());
    }
    let own = keys.into_iter().filter(|key| key.namespace.is_empty());
    own.map(|key| {
        let cause = Cause {
            standing: sessions.get(key).cloned(),
            want: wanted.peers.get(key).cloned().unwrap_or_default(),
            there: wanted.there.clone(),
        };
        (key.clone(), cause)
    })
    .collect()
}

async fn put(
    writer: &Writer,
    key: &ObjectKey,
    node: &str,
    cause: &Cause,
) -> Result<(), RequestError> {
    let target = Target::one(&BGP_PEERS, None, &key.name);
    let mut peer = writer.get(target).await?;
    let Some(status) = status(&peer, node, cause, Timestamp::now()) else {
        return Ok(());
    };
    peer["status"] = status;
    let target = target.subresource("status");
    writer.replace(target, &peer).await.map(drop)
}

/// The status of a peer with this node's entry as it is now; none if it is so already.
/// Entries of nodes that should have no session go.
fn status(peer: &Value, node: &str, cause: &Cause, now: Timestamp) -> Option<Value> {
    let wanted = &cause.want.nodes;
    let others = list_at(peer, "status.sessions").iter();
    let others = others.filter(|one| str_at(one, "node") != node);
    let others = others.filter(|one| wanted.contains(str_at(one, "node")));
    let mut sessions: Vec<Value> = others
        .map(|one| match &cause.there {
            Some(there) if !there.contains(str_at(one, "node")) => gone(one, now),
            Some(_) | None => one.clone(),
        })
        .collect();
    sessions.extend(
        cause
            .standing
            .as_ref()
            .map(|standing| entry(node, standing)),
    );
    sessions.sort_by(|a, b| str_at(a, "node").cmp(str_at(b, "node")));
    let up = sessions.iter().filter(|one| is_up(one)).count();
    let mut status = at(peer, "status").clone();
    if !status.is_object() {
        status = json!({});
    }
    status["conditions"] = conditions(peer, &cause.want, &sessions, now);
    status["sessionsUp"] = up.into();
    status["sessionsWanted"] = wanted.len().into();
    status["sessions"] = sessions.into();
    (*at(peer, "status") != status).then_some(status)
}

fn is_up(entry: &Value) -> bool {
    str_at(entry, "state") == ESTABLISHED
}

fn text(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn entry(node: &str, standing: &Standing) -> Value {
    let mut entry = json!({
        "node": node,
        "state": standing.state,
        "since": text(standing.since),
        "prefixes": standing.prefixes,
    });
    if let Some(path) = standing.path {
        entry["bfd"] = path.into();
    }
    if !standing.message().is_empty() {
        entry["message"] = standing.message().into();
    }
    if let Some((fault, at)) = &standing.last {
        entry["lastError"] = fault.as_str().into();
        entry["lastErrorTime"] = text(*at).into();
    }
    entry
}

/// An entry whose agent is gone: what it said last is not known to be so.
fn gone(entry: &Value, now: Timestamp) -> Value {
    if str_at(entry, "state") == GONE {
        return entry.clone();
    }
    let mut gone = json!({
        "node": entry["node"],
        "state": GONE,
        "since": text(now),
        "prefixes": 0,
        "message": "no agent announces there any more",
    });
    for field in ["lastError", "lastErrorTime"] {
        if !entry[field].is_null() {
            gone[field] = entry[field].clone();
        }
    }
    gone
}

/// The conditions of a peer: whether all sessions are up, and what is the matter.
fn conditions(peer: &Value, want: &Want, sessions: &[Value], now: Timestamp) -> Value {
    let up = sessions.iter().filter(|one| is_up(one)).count();
    let all = want.nodes.len();
    let (is_so, reason, message) = if !want.faults.is_empty() {
        ("False", "Invalid", want.faults.join("; "))
    } else if want.nodes.is_empty() {
        let why = "no node has the labels that it asks for";
        ("False", "NoNodes", why.to_owned())
    } else if up == all {
        ("True", ESTABLISHED, format!("{up} of {all} sessions"))
    } else {
        let why = format!("{up} of {all} sessions{}", down(want, sessions));
        ("False", "SessionsDown", why)
    };
    let mut all = list_at(peer, "status.conditions").to_vec();
    let before = all.iter().position(|one| str_at(one, "type") == READY);
    let before = before.map(|at| all.swap_remove(at));
    let same = before.filter(|before| str_at(before, "status") == is_so);
    let since = same.as_ref().map(|same| str_at(same, "lastTransitionTime"));
    let mut ready = json!({
        "type": READY, "status": is_so, "reason": reason, "message": message,
        "lastTransitionTime": since.map_or_else(|| text(now), str::to_owned),
    });
    let generation = at(peer, "metadata.generation");
    if !generation.is_null() {
        ready["observedGeneration"] = generation.clone();
    }
    all.push(ready);
    all.sort_by(|a, b| str_at(a, "type").cmp(str_at(b, "type")));
    all.into()
}

/// The condition that says whether all is as it should be.
const READY: &str = "Ready";

/// Which sessions are not up, and why.
fn down(want: &Want, sessions: &[Value]) -> String {
    let mut text = String::new();
    let entry = |node: &str| sessions.iter().find(|one| str_at(one, "node") == node);
    let nodes = want.nodes.iter().map(|node| (node, entry(node)));
    let mut down = nodes.filter(|(_, entry)| !entry.is_some_and(is_up));
    for (node, entry) in down.by_ref().take(NAMED) {
        let why = match entry {
            None => "no agent has told",
            Some(entry) if str_at(entry, "message").is_empty() => str_at(entry, "state"),
            Some(entry) => str_at(entry, "message"),
        };
        let sign = if text.is_empty() { ": " } else { "; " };
        text += &format!("{sign}{node}: {why}");
    }
    match down.count() {
        0 => text,
        more => format!("{text}; and {more} more"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn at_(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn cause(standing: Option<&Standing>, names: &[&str]) -> Cause {
        Cause {
            standing: standing.cloned(),
            want: Want {
                nodes: nodes(names),
                ..Want::default()
            },
            there: None,
        }
    }

    fn up() -> Standing {
        Standing {
            state: ESTABLISHED,
            since: at_("2026-01-02T03:04:05.6Z"),
            path: None,
            prefixes: 3,
            last: None,
        }
    }

    #[test]
    fn l10_each_agent_writes_its_own_entry() {
        let now = at_("2026-01-02T03:04:06Z");
        let mut peer = json!({"metadata": {"name": "tor"}});
        let all = ["n1", "n2"];
        peer["status"] = status(&peer, "n2", &cause(Some(&up()), &all), now).unwrap();
        let down = Standing {
            state: "Active",
            prefixes: 0,
            path: Some("Down"),
            last: Some(("no connection".to_owned(), at_("2026-01-02T03:04:04Z"))),
            ..up()
        };
        peer["status"] = status(&peer, "n1", &cause(Some(&down), &all), now).unwrap();
        assert_eq!(
            peer["status"],
            json!({
                "sessionsUp": 1, "sessionsWanted": 2,
                "sessions": [
                    {
                        "node": "n1", "state": "Active", "since": "2026-01-02T03:04:05Z",
                        "prefixes": 0, "message": "no connection", "bfd": "Down",
                        "lastError": "no connection", "lastErrorTime": "2026-01-02T03:04:04Z",
                    },
                    {
                        "node": "n2", "state": "Established",
                        "since": "2026-01-02T03:04:05Z", "prefixes": 3,
                    },
                ],
                "conditions": [{
                    "type": "Ready", "status": "False", "reason": "SessionsDown",
                    "message": "1 of 2 sessions: n1: no connection",
                    "lastTransitionTime": "2026-01-02T03:04:06Z",
                }],
            })
        );
        // The same is not written again, whatever the time.
        let later = at_("2026-01-02T04:00:00Z");
        assert_eq!(status(&peer, "n1", &cause(Some(&down), &all), later), None);
        // Who should have none, and who ended its own, is left out.
        peer["status"] = status(&peer, "n1", &cause(Some(&up()), &["n1"]), later).unwrap();
        assert_eq!(peer["status"]["sessionsUp"], 1);
        assert_eq!(peer["status"]["sessions"].as_array().unwrap().len(), 1);
        let ready = &peer["status"]["conditions"][0];
        assert_eq!(
            (&ready["status"], &ready["reason"]),
            (&json!("True"), &json!("Established"))
        );
        assert_eq!(ready["lastTransitionTime"], "2026-01-02T04:00:00Z");
        let none = status(&peer, "n1", &cause(None, &[]), later).unwrap();
        assert_eq!(none["sessions"], json!([]));
        assert_eq!(none["conditions"][0]["reason"], "NoNodes");
    }

    #[test]
    fn l10_an_entry_whose_agent_is_gone_does_not_stay() {
        let now = at_("2026-01-02T03:04:06Z");
        let all = ["n1", "n2"];
        let mut peer = json!({"metadata": {"name": "tor", "generation": 4}});
        for node in all {
            peer["status"] = status(&peer, node, &cause(Some(&up()), &all), now).unwrap();
        }
        assert!(!says_gone(&peer["status"], "n2"));
        let keeper = Cause {
            there: Some(nodes(&["n1"])),
            ..cause(Some(&up()), &all)
        };
        peer["status"] = status(&peer, "n1", &keeper, now).unwrap();
        assert!(says_gone(&peer["status"], "n2") && !says_gone(&peer["status"], "n1"));
        assert_eq!(peer["status"]["sessionsUp"], 1);
        let ready = &peer["status"]["conditions"][0];
        assert_eq!(
            ready["message"],
            "1 of 2 sessions: n2: no agent announces there any more"
        );
        assert_eq!(ready["observedGeneration"], 4);
        assert_eq!(
            status(&peer, "n1", &keeper, at_("2026-01-02T04:00:00Z")),
            None
        );
        // It is back, and says so.
        let back = status(&peer, "n2", &cause(Some(&up()), &all), now).unwrap();
        assert_eq!(back["sessionsUp"], 2);
    }

    #[test]
    fn l10_the_keeper_writes_of_peers_that_nobody_speaks_with() {
        let key = |name: &str| ObjectKey::new("", name);
        let mut wanted = Wanted::default();
        for name in ["tor", "odd"] {
            wanted.peers.insert(key(name), Want::default());
        }
        wanted
            .peers
            .insert(ObjectKey::new("metallb-system", "tor"), Want::default());
        let sessions: Sessions = [(key("tor"), up())].into();
        let none = std::iter::empty;
        let of = |wanted: &Wanted| {
            causes(&sessions, wanted, none())
                .into_keys()
                .collect::<Vec<_>>()
        };
        assert_eq!(of(&wanted), [key("tor")]);
        wanted.there = Some(nodes(&["n1"]));
        assert_eq!(of(&wanted), [key("odd"), key("tor")]);
        let mut odd = cause(None, &[]);
        odd.want.faults = vec!["peerASN is missing".to_owned()];
        let peer = json!({"metadata": {"name": "odd"}});
        let status = status(&peer, "n1", &odd, at_("2026-01-02T03:04:06Z")).unwrap();
        assert_eq!(status["conditions"][0]["reason"], "Invalid");
        assert_eq!(status["conditions"][0]["message"], "peerASN is missing");
    }
}
