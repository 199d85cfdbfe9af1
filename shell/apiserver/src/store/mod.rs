//! All state: one writer, one file, and the cache that everybody reads.
//!
//! ```text
//! requests ──► queue ──► writer thread: check condition, number, encode
//!    ▲                        │ one transaction for all that waited
//!    │                        ▼
//!    │                   state.redb (fsync)
//!    │                        │ only then
//!    └──── acknowledged ◄── cache ──► lists, watches
//! ```

mod cache;
mod collections;
mod event;
mod file;
mod object;
mod writer;

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

pub(crate) use cache::{Cache, Next, Objects, Snapshot};
pub(crate) use event::{Event, EventType, Form, line};
pub(crate) use object::{Collection, Key, KindIndex, ObjectName, Stored, revision_of};
pub(crate) use writer::{Change, Condition, Hold, Write, WriteError};

use crate::OpenError;
use collections::Collections;

/// Writes that may wait; more make their clients wait.
const QUEUE: usize = 1024;

/// The store. Dropping the last handle ends the writer.
#[derive(Debug)]
pub(crate) struct Store {
    collections: Arc<Collections>,
    cache: Arc<Cache>,
    queue: mpsc::Sender<writer::Job>,
}

impl Store {
    /// Open the file and load everything. Blocks.
    pub(crate) fn open(path: &Path, collections: Vec<Collection>) -> Result<Self, OpenError> {
        let collections = Arc::new(Collections::new(collections));
        let (file, loaded) = file::StateFile::open(path, &collections)?;
        let cache = Arc::new(Cache::new(loaded));
        let (queue, jobs) = mpsc::channel(QUEUE);
        let writer = writer::Writer::new(file, Arc::clone(&collections), Arc::clone(&cache));
        std::thread::Builder::new()
            .name("state-writer".to_owned())
            .spawn(move || writer.run(jobs))
            .map_err(|source| OpenError::DataDir {
                path: path.to_owned(),
                source,
            })?;
        Ok(Self {
            collections,
            cache,
            queue,
        })
    }

    /// The index of the collection of this name, which may be new. `None` when
    /// there are too many.
    pub(crate) fn collection(&self, name: &str) -> Option<KindIndex> {
        self.collections.index(name)
    }

    pub(crate) fn cache(&self) -> &Cache {
        &self.cache
    }

    /// The cache, for whoever follows it as long as the server lives.
    pub(crate) fn shared_cache(&self) -> Arc<Cache> {
        Arc::clone(&self.cache)
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Stored>> {
        self.cache.get(key)
    }

    /// Do one write; returns when it is on disk and visible.
    pub(crate) async fn write(&self, write: Write) -> Result<Arc<Stored>, WriteError> {
        self.transact(vec![write], None).await
    }

    /// Do several writes of different objects, all or none; returns what the
    /// first one left. `hold` is kept until they are done, even if the caller
    /// no longer waits.
    pub(crate) async fn transact(
        &self,
        writes: Vec<Write>,
        hold: Option<Hold>,
    ) -> Result<Arc<Stored>, WriteError> {
        let (reply, answer) = oneshot::channel();
        let job = writer::Job {
            writes: writes.into_iter().map(writer::Prepared::from).collect(),
            hold,
            reply,
        };
        if self.queue.send(job).await.is_err() {
            return Err(WriteError::Closed);
        }
        answer.await.unwrap_or(Err(WriteError::Closed))
    }

    /// Write an object if its key is free.
    pub(crate) async fn create(
        &self,
        key: Key,
        value: Value,
        namespace: Option<Key>,
    ) -> Result<Arc<Stored>, WriteError> {
        self.write(Write {
            key,
            condition: Condition::Absent,
            change: Change::Put(value),
            namespace,
        })
        .await
    }

    /// Replace the version `revision` of an object.
    pub(crate) async fn replace(
        &self,
        key: Key,
        value: Value,
        revision: u64,
    ) -> Result<Arc<Stored>, WriteError> {
        self.write(Write {
            key,
            condition: Condition::Revision(revision),
            change: Change::Put(value),
            namespace: None,
        })
        .await
    }

    /// Remove the version `revision` of an object; returns it as it was last.
    pub(crate) async fn remove(&self, key: Key, revision: u64) -> Result<Arc<Stored>, WriteError> {
        self.write(Write {
            key,
            condition: Condition::Revision(revision),
            change: Change::Delete,
            namespace: None,
        })
        .await
    }
}

#[cfg(test)]
mod tests;
