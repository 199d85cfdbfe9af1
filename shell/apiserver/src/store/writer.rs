//! The one thread that changes state.
//!
//! It takes everything that waits, up to a bound, checks each job against
//! the state as the jobs before it leave it, commits them in one transaction,
//! then makes them visible and answers. Jobs that came while it was in fsync
//! form the next group. The writes of one job happen all or not at all.

use std::any::Any;
use std::collections::HashMap;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::cache::Cache;
use super::collections::Collections;
use super::event::Event;
use super::file::{Row, StateFile};
use super::object::{Draft, Key, Stored};

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

/// Something to keep until a job is done, whether or not anybody still waits
/// for it: dropped once readers see the writes, or they have failed.
pub(crate) type Hold = Box<dyn Any + Send>;

/// What a write does.
#[derive(Debug)]
pub(crate) enum Change {
    Put(Value),
    Delete,
    /// Nothing: only the condition counts, for what else is written with it.
    Keep,
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

/// A write whose object is encoded.
#[derive(Debug)]
pub(super) struct Prepared {
    key: Key,
    condition: Condition,
    step: Step,
    namespace: Option<Key>,
}

/// A change, encoded.
#[derive(Debug)]
enum Step {
    Put(Draft),
    Delete,
    Keep,
}

impl From<Write> for Prepared {
    fn from(write: Write) -> Self {
        Self {
            key: write.key,
            condition: write.condition,
            step: match write.change {
                Change::Put(value) => Step::Put(Draft::new(value)),
                Change::Delete => Step::Delete,
                Change::Keep => Step::Keep,
            },
            namespace: write.namespace,
        }
    }
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
    /// A write that goes with the first one of its job cannot be done.
    #[error("an object that goes with it has changed")]
    Companion,
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

/// Writes that belong together, and who waits for the first of them.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) writes: Vec<Prepared>,
    pub(super) hold: Option<Hold>,
    pub(super) reply: Reply,
}

pub(super) struct Writer {
    file: StateFile,
    collections: Arc<Collections>,
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
    holds: Vec<Hold>,
}

impl Writer {
    pub(super) fn new(file: StateFile, collections: Arc<Collections>, cache: Arc<Cache>) -> Self {
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
        for Job {
            writes,
            hold,
            reply,
        } in jobs
        {
            match self.job(&mut group, writes) {
                Ok(stored) => {
                    group.answers.push((reply, stored));
                    group.holds.extend(hold);
                }
                Err(error) => {
                    drop(hold);
                    answer(reply, Err(error));
                }
            }
        }
        if group.events.is_empty() {
            return;
        }
        let rows: Vec<Row<'_>> = group
            .events
            .iter()
            .map(|(key, event)| (key, event.revision, event.current.as_deref()))
            .collect();
        match self.file.commit(&self.collections, &rows, group.revision) {
            Ok(()) => {
                self.cache.apply(group.events, group.revision);
                drop(group.holds);
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

    /// All writes of a job, or none; returns what the first one left.
    fn job(&self, group: &mut Group, writes: Vec<Prepared>) -> Result<Arc<Stored>, WriteError> {
        let mut checked = Vec::with_capacity(writes.len());
        for write in writes {
            let current = self.check(group, &write).map_err(|error| {
                if checked.is_empty() {
                    error
                } else {
                    WriteError::Companion
                }
            })?;
            checked.push((write, current));
        }
        let mut first = None;
        for (write, current) in checked {
            let left = Self::step(group, write, current);
            first = first.or(left);
        }
        first.ok_or(WriteError::Missing)
    }

    /// Whether a write may happen; what it changes.
    fn check(&self, group: &Group, write: &Prepared) -> Result<Option<Arc<Stored>>, WriteError> {
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
        match self.collections.get(write.key.kind) {
            None => Err(WriteError::Missing),
            Some(_) => Ok(current),
        }
    }

    fn step(
        group: &mut Group,
        write: Prepared,
        current: Option<Arc<Stored>>,
    ) -> Option<Arc<Stored>> {
        let revision = group.revision + 1;
        let next = match write.step {
            Step::Put(draft) => Some(Arc::new(draft.finish(revision))),
            Step::Delete => None,
            Step::Keep => return current,
        };
        let result = next.clone().or_else(|| current.clone());
        group.revision = revision;
        group.overlay.insert(write.key.clone(), next.clone());
        let event = Event::new(revision, write.key.name.clone(), current, next);
        group.events.push((write.key, Arc::new(event)));
        result
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
