//! What readers and watchers see: per kind, all objects and a window of the
//! latest events. Only the writer changes it, and only after the commit.
//!
//! Maps are persistent: a list takes a copy in O(1) and encodes it without a
//! lock; a continued list goes on reading the copy it began with.
//!
//! Watchers have no queues. Each remembers the revision it has sent and reads
//! on from the window; whoever falls behind the window's end is closed, so a
//! slow reader costs the writer nothing.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use imbl::OrdMap;
use tokio::sync::watch;

use super::collections::MAX_COLLECTIONS;
use super::event::Event;
use super::file::Loaded;
use super::object::{Key, KindIndex, ObjectName, Stored};

/// Events kept per kind: some minutes of a busy lab, about as many as a
/// cluster's API server keeps of a quiet kind.
pub(crate) const WINDOW_EVENTS: usize = 4096;
/// Events that one watcher takes at a time, so that the lock is short.
pub(crate) const EVENTS_PER_READ: usize = 256;
/// Old copies kept per kind for continued lists.
const OLD_SNAPSHOTS: usize = 32;

/// All objects of a kind at one moment.
pub(crate) type Objects = OrdMap<ObjectName, Arc<Stored>>;

/// A consistent copy of a kind.
#[derive(Debug, Clone)]
pub(crate) struct Snapshot {
    /// Every event up to here is in `objects`.
    pub(crate) revision: u64,
    pub(crate) objects: Objects,
}

/// What a watcher that stands at some revision gets next.
#[derive(Debug)]
pub(crate) enum Next {
    /// Events in order; then everything up to `revision` has been seen.
    Events {
        events: Vec<Arc<Event>>,
        revision: u64,
    },
    /// The window no longer reaches back that far.
    Expired {
        /// The oldest revision from which a watch can start.
        oldest: u64,
    },
}

#[derive(Debug)]
struct State {
    objects: Objects,
    window: VecDeque<Arc<Event>>,
    /// All events after this revision are in the window.
    floor: u64,
    /// Revision of the last event of this kind.
    last: u64,
    /// Copies that continued lists read, oldest first.
    kept: VecDeque<Snapshot>,
}

#[derive(Debug)]
struct KindCache {
    state: RwLock<State>,
    changed: watch::Sender<u64>,
}

impl KindCache {
    fn new(objects: Objects, revision: u64) -> Self {
        Self {
            state: RwLock::new(State {
                objects,
                window: VecDeque::new(),
                floor: revision,
                last: revision,
                kept: VecDeque::new(),
            }),
            changed: watch::Sender::new(revision),
        }
    }
}

/// The cache of all kinds.
#[derive(Debug)]
pub(crate) struct Cache {
    /// By index; made when first looked at.
    kinds: Box<[OnceLock<KindCache>]>,
    /// No kind that has never been looked at has changed after this.
    floor: u64,
    revision: AtomicU64,
}

impl Cache {
    /// What a file holds. Watches and lists of a kind go on from any version
    /// since its last change: whoever saw that has missed nothing.
    pub(crate) fn new(loaded: Loaded) -> Self {
        let cache = Self {
            kinds: (0..MAX_COLLECTIONS).map(|_| OnceLock::new()).collect(),
            floor: loaded.floor,
            revision: AtomicU64::new(loaded.revision),
        };
        let last = |kind: KindIndex| loaded.last.get(&kind).copied().unwrap_or(loaded.floor);
        for (kind, objects) in loaded.objects {
            let objects = objects.into_iter();
            let objects = objects
                .map(|(name, stored)| (name, Arc::new(stored)))
                .collect();
            if let Some(slot) = cache.kinds.get(kind) {
                slot.get_or_init(|| KindCache::new(objects, last(kind)));
            }
        }
        // Kinds of which all objects are gone.
        for kind in loaded.last.keys() {
            if let Some(slot) = cache.kinds.get(*kind) {
                slot.get_or_init(|| KindCache::new(Objects::new(), last(*kind)));
            }
        }
        cache
    }

    /// The cache of a kind; nothing has happened yet to one never touched.
    fn kind(&self, kind: KindIndex) -> Option<&KindCache> {
        let slot = self.kinds.get(kind)?;
        Some(slot.get_or_init(|| KindCache::new(Objects::new(), self.floor)))
    }

    /// The last committed revision.
    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Stored>> {
        self.read(key.kind)?.objects.get(&key.name).cloned()
    }

    /// How many objects of a kind there are.
    pub(crate) fn count(&self, kind: KindIndex) -> usize {
        self.read(kind).map_or(0, |state| state.objects.len())
    }

    pub(crate) fn snapshot(&self, kind: KindIndex) -> Snapshot {
        // Read before the lock: everything up to it has been applied to every kind.
        let revision = self.revision();
        match self.read(kind) {
            Some(state) => Snapshot {
                revision: revision.max(state.last),
                objects: state.objects.clone(),
            },
            None => Snapshot {
                revision,
                objects: Objects::new(),
            },
        }
    }

    /// Keep a snapshot for the continuation of a list.
    pub(crate) fn keep(&self, kind: KindIndex, snapshot: &Snapshot) {
        let Some(mut state) = self.write(kind) else {
            return;
        };
        if state
            .kept
            .iter()
            .any(|kept| kept.revision == snapshot.revision)
        {
            return;
        }
        if state.kept.len() >= OLD_SNAPSHOTS {
            state.kept.pop_front();
        }
        state.kept.push_back(snapshot.clone());
    }

    /// The copy that a list began with, while it is kept.
    pub(crate) fn kept(&self, kind: KindIndex, revision: u64) -> Option<Snapshot> {
        self.read(kind)?
            .kept
            .iter()
            .find(|kept| kept.revision == revision)
            .cloned()
    }

    /// The kind as it is, if it was the same at `revision`.
    pub(crate) fn unchanged_since(&self, kind: KindIndex, revision: u64) -> Option<Snapshot> {
        let state = self.read(kind)?;
        (state.last <= revision).then(|| Snapshot {
            revision,
            objects: state.objects.clone(),
        })
    }

    /// What comes after `revision`.
    pub(crate) fn after(&self, kind: KindIndex, revision: u64) -> Next {
        let committed = self.revision();
        let Some(state) = self.read(kind) else {
            return Next::Events {
                events: Vec::new(),
                revision: committed,
            };
        };
        if revision < state.floor {
            return Next::Expired {
                oldest: state.floor,
            };
        }
        let from = state
            .window
            .partition_point(|event| event.revision <= revision);
        let events: Vec<Arc<Event>> = state
            .window
            .range(from..)
            .take(EVENTS_PER_READ)
            .cloned()
            .collect();
        let more = state.window.len() - from > events.len();
        let reached = match events.last() {
            Some(event) if more => event.revision,
            Some(_) | None => committed.max(state.last).max(revision),
        };
        Next::Events {
            events,
            revision: reached,
        }
    }

    /// Tells when a kind has new events.
    pub(crate) fn subscribe(&self, kind: KindIndex) -> Option<watch::Receiver<u64>> {
        Some(self.kind(kind)?.changed.subscribe())
    }

    /// Make committed events visible; the writer's privilege.
    pub(crate) fn apply(&self, events: Vec<(Key, Arc<Event>)>, revision: u64) {
        let mut touched: Vec<KindIndex> = Vec::new();
        for (key, event) in events {
            if !touched.contains(&key.kind) {
                touched.push(key.kind);
            }
            if let Some(mut state) = self.write(key.kind) {
                state.apply(key.name, event);
            }
        }
        self.revision.store(revision, Ordering::Release);
        for kind in touched {
            if let Some(cache) = self.kind(kind) {
                cache.changed.send_replace(revision);
            }
        }
    }

    fn read(&self, kind: KindIndex) -> Option<RwLockReadGuard<'_, State>> {
        let cache = self.kind(kind)?;
        Some(cache.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, kind: KindIndex) -> Option<RwLockWriteGuard<'_, State>> {
        let cache = self.kind(kind)?;
        Some(cache.state.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn apply(&mut self, name: ObjectName, event: Arc<Event>) {
        match &event.current {
            Some(current) => {
                self.objects.insert(name, Arc::clone(current));
            }
            None => {
                self.objects.remove(&name);
            }
        }
        self.last = event.revision;
        if self.window.len() >= WINDOW_EVENTS
            && let Some(oldest) = self.window.pop_front()
        {
            self.floor = oldest.revision;
        }
        self.window.push_back(event);
    }
}
