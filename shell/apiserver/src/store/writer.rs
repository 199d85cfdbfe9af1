//! The one thread that changes state.
//!
//! It takes everything that waits, up to a bound, checks each write against
//! the state as the writes before it leave it, commits them in one
//! transaction, then makes them visible and answers. Writes that came while it
//! was in fsync form the next group.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::cache::Cache;
use super::event::Event;
use super::file::{Row, StateFile};
use super::object::{Collection, Key, Stored};

/// Writes in one transaction; bounds how long the first of them waits.
const GROUP: usize = 512;

/// What must hold for a write to happen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Condition {
    /// No object has the key.
    Absent,
    /// The object is there in this version.
    Revision(u64),
}

/// What a write does.
#[derive(Debug)]
pub(crate) enum Change {
    Put(Value),
    Delete,
}

/// One write.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) key: Key,
    pub(crate) condition: Condition,
    pub(crate) change: Change,
    /// A namespace that must exist and not be going away. Checked here and not
    /// before, so that nothing is born into a namespace after its end.
    pub(crate) namespace: Option<Key>,
}

/// Why a write did not happen.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum WriteError {
    /// Somebody made it first.
    #[error("the object exists already")]
    Exists,
    /// The object is gone.
    #[error("the object does not exist")]
    Missing,
    /// The object has another version by now.
    #[error("the object has changed")]
    Conflict,
    /// The namespace does not exist.
    #[error("the namespace does not exist")]
    NoNamespace,
    /// The namespace is being deleted.
    #[error("the namespace is being terminated")]
    Terminating,
    /// The file refused.
    #[error("cannot write the state file: {0}")]
    File(Arc<redb::Error>),
    /// The server is going down.
    #[error("the store is closed")]
    Closed,
}

/// Where the answer to a write goes.
type Reply = oneshot::Sender<Result<Arc<Stored>, WriteError>>;

/// A write and who waits for it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) write: Write,
    pub(super) reply: Reply,
}

pub(super) struct Writer {
    file: StateFile,
    collections: Vec<Collection>,
    cache: Arc<Cache>,
}

/// A group on its way to the file.
#[derive(Default)]
struct Group {
    revision: u64,
    /// State of the keys that the group has touched so far.
    overlay: HashMap<Key, Option<Arc<Stored>>>,
    events: Vec<(Key, Arc<Event>)>,
    answers: Vec<(Reply, Arc<Stored>)>,
}

impl Writer {
    pub(super) fn new(file: StateFile, collections: Vec<Collection>, cache: Arc<Cache>) -> Self {
        Self {
            file,
            collections,
            cache,
        }
    }

    pub(super) fn run(self, mut jobs: mpsc::Receiver<Job>) {
        let mut waiting = Vec::with_capacity(GROUP);
        while jobs.blocking_recv_many(&mut waiting, GROUP) > 0 {
            self.group(waiting.drain(..));
        }
    }

    fn group(&self, jobs: impl Iterator<Item = Job>) {
        let mut group = Group {
            revision: self.cache.revision(),
            ..Group::default()
        };
        for Job { write, reply } in jobs {
            match self.step(&mut group, write) {
                Ok(stored) => group.answers.push((reply, stored)),
                Err(error) => answer(reply, Err(error)),
            }
        }
        if group.events.is_empty() {
            return;
        }
        let rows: Vec<Row<'_>> = group
            .events
            .iter()
            .map(|(key, event)| (key, event.current.as_ref().map(|stored| &stored.json[..])))
            .collect();
        match self.file.commit(&self.collections, &rows, group.revision) {
            Ok(()) => {
                self.cache.apply(group.events, group.revision);
                for (reply, stored) in group.answers {
                    answer(reply, Ok(stored));
                }
            }
            Err(error) => {
                tracing::error!(%error, "cannot write the state file");
                let error = Arc::new(error);
                for (reply, _) in group.answers {
                    answer(reply, Err(WriteError::File(Arc::clone(&error))));
                }
            }
        }
    }

    fn step(&self, group: &mut Group, write: Write) -> Result<Arc<Stored>, WriteError> {
        let current = self.look(group, &write.key);
        match (write.condition, &current) {
            (Condition::Absent, Some(_)) => return Err(WriteError::Exists),
            (Condition::Revision(_), None) => return Err(WriteError::Missing),
            (Condition::Revision(wanted), Some(stored)) if stored.revision != wanted => {
                return Err(WriteError::Conflict);
            }
            (Condition::Absent, None) | (Condition::Revision(_), Some(_)) => {}
        }
        if let Some(namespace) = &write.namespace {
            match self.look(group, namespace) {
                None => return Err(WriteError::NoNamespace),
                Some(stored) if stored.deleting => return Err(WriteError::Terminating),
                Some(_) => {}
            }
        }
        let Some(collection) = self.collections.get(write.key.kind) else {
            return Err(WriteError::Missing);
        };
        let revision = group.revision + 1;
        let next = match write.change {
            Change::Put(value) => Some(Arc::new(Stored::encode(collection, value, revision))),
            Change::Delete => None,
        };
        let Some(result) = next.clone().or_else(|| current.clone()) else {
            return Err(WriteError::Missing);
        };
        group.revision = revision;
        group.overlay.insert(write.key.clone(), next.clone());
        let event = Event::new(revision, write.key.name.clone(), current, next);
        group.events.push((write.key, Arc::new(event)));
        Ok(result)
    }

    fn look(&self, group: &Group, key: &Key) -> Option<Arc<Stored>> {
        match group.overlay.get(key) {
            Some(stored) => stored.clone(),
            None => self.cache.get(key),
        }
    }
}

/// A client that no longer waits loses only the answer.
fn answer(reply: Reply, result: Result<Arc<Stored>, WriteError>) {
    if reply.send(result).is_err() {
        tracing::trace!("nobody waits for a finished write");
    }
}
