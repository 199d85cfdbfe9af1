//! How the sessions are doing, for others to read.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use portolan_announce::bgp::Status;
use portolan_announce::bgp::fsm::State;
use portolan_model::workloads::ObjectKey;
use tokio::sync::watch;

use super::fault::Fault;

/// How one session is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Standing {
    /// A state of RFC 4271, such as `Established`.
    pub(super) state: &'static str,
    /// Since when it is in it.
    pub(super) since: Timestamp,
    /// What BFD says of the path: a state of RFC 5880, if it is used and there was a
    /// session.
    pub(super) path: Option<&'static str>,
    /// How many prefixes the peer was told.
    pub(super) prefixes: usize,
    /// What was last the matter with it, and when.
    pub(super) last: Option<(String, Timestamp)>,
}

impl Standing {
    /// Why it is not established; empty while it is.
    pub(super) fn message(&self) -> &str {
        match &self.last {
            Some((text, _)) if self.state != ESTABLISHED => text,
            _ => "",
        }
    }
}

/// All sessions of a node, by their peers.
pub(super) type Sessions = BTreeMap<ObjectKey, Standing>;

/// Where the tasks of peers write how they are doing.
#[derive(Clone, Debug)]
pub(super) struct Board {
    sessions: Arc<watch::Sender<Sessions>>,
}

impl Default for Board {
    fn default() -> Self {
        let (sessions, _) = watch::channel(Sessions::new());
        Self {
            sessions: Arc::new(sessions),
        }
    }
}

impl Board {
    /// A session is so now, and what was last the matter with it.
    pub(super) fn set(
        &self,
        peer: &ObjectKey,
        status: &Status,
        path: Option<&'static str>,
        last: Option<&(Fault, Timestamp)>,
    ) {
        let state = name(status.state);
        self.sessions.send_if_modified(|sessions| {
            let before = sessions.get(peer);
            let since = before.filter(|before| before.state == state);
            let standing = Standing {
                state,
                since: since.map_or_else(Timestamp::now, |before| before.since),
                path,
                prefixes: status.prefixes.1,
                last: last.map(|(fault, at)| (fault.text.clone(), *at)),
            };
            let other = before != Some(&standing);
            sessions.insert(peer.clone(), standing);
            other
        });
    }

    /// A session has ended.
    pub(super) fn remove(&self, peer: &ObjectKey) {
        self.sessions
            .send_if_modified(|sessions| sessions.remove(peer).is_some());
    }

    /// Hears of every change.
    pub(super) fn follow(&self) -> watch::Receiver<Sessions> {
        self.sessions.subscribe()
    }
}

/// The name of a state in RFC 4271.
fn name(state: State) -> &'static str {
    match state {
        State::Idle => "Idle",
        State::Connect => "Connect",
        State::Active => "Active",
        State::OpenSent => "OpenSent",
        State::OpenConfirm => "OpenConfirm",
        State::Established => "Established",
    }
}

/// The state in which routes are exchanged.
pub(super) const ESTABLISHED: &str = "Established";
