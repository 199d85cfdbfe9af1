//! Replies that are kept: bounded in number and in octets, each for as long as
//! it says itself within the configured limits.
//!
//! What is asked again while it is kept has a mark; a new entry takes the place
//! of the oldest one without a mark (the "clock" way), so that a flood of random
//! names pushes out other random names and not what everybody asks.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;

use super::ask::Key;
use super::received::{Age, Outcome, Received};

/// What an entry costs beside its key and its reply: its places in the map and
/// in the queue.
const OVERHEAD: usize = 160;
/// The longest that a failure is kept (RFC 9520 §3.2).
const MOST_FAILURE: u32 = 300;

/// What is kept, and for how long. TTLs are in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How many replies; none are kept if it is zero.
    pub entries: usize,
    /// How many octets they may take, with what keeping them takes.
    pub bytes: usize,
    /// The most that a TTL of a positive reply counts for.
    pub most_ttl: u32,
    /// The least likewise.
    pub least_ttl: u32,
    /// The most that a TTL of a negative reply counts for.
    pub most_negative_ttl: u32,
    /// The least likewise.
    pub least_negative_ttl: u32,
    /// For how long SERVFAIL is kept; not at all if zero.
    pub failure_ttl: u32,
    /// Asking again for popular names before they expire.
    pub prefetch: Option<Prefetch>,
    /// What may be given after it has expired.
    pub stale: Option<Stale>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 10_000,
            bytes: 16 << 20,
            most_ttl: 3600,
            least_ttl: 0,
            most_negative_ttl: 1800,
            least_negative_ttl: 0,
            failure_ttl: 5,
            prefetch: None,
            stale: None,
        }
    }
}

/// Which names are asked for again before they expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefetch {
    /// Those that were asked for at least so often
    pub queries: u32,
    /// without a longer pause than this in between,
    pub pause: Duration,
    /// once less than this share of their time is left, in percent.
    pub percent: u8,
}

/// Which positive replies are given after they have expired (RFC 8767).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stale {
    /// For how long after they expired.
    pub most: Duration,
    /// With which TTL, in seconds.
    pub ttl: u32,
    /// For how long it is not tried to renew one after that has failed.
    pub rest: Duration,
}

/// What a cache knows.
#[derive(Debug)]
pub enum Found<'a> {
    /// Nothing.
    Nothing,
    /// A reply that holds.
    Fresh {
        /// The reply.
        reply: &'a Received,
        /// How to show its TTLs.
        age: Age,
        /// Ask for it again now, so that it never expires. Said once in a while.
        prefetch: bool,
    },
    /// A reply that has expired, better than none.
    Stale {
        /// The reply.
        reply: &'a Received,
        /// How to show its TTLs.
        age: Age,
        /// Renewing it failed a short while ago.
        failed: bool,
    },
}

#[derive(Debug)]
struct Entry {
    reply: Received,
    came: Duration,
    /// In seconds.
    ttl: u32,
    marked: bool,
    queries: u32,
    last: Duration,
    prefetched: bool,
    /// When renewing it failed last.
    failed: Option<Duration>,
}

/// A cache. It belongs to one caller at a time; whoever has several threads has
/// several of these, each for a part of the keys.
#[derive(Debug)]
pub struct Cache {
    limits: Limits,
    /// Looked up and never iterated, so its order is nobody's.
    entries: HashMap<Arc<[u8]>, Entry, FixedState>,
    queue: VecDeque<Arc<[u8]>>,
    bytes: usize,
    /// How many positive and other replies had to make room.
    evicted: (u64, u64),
}

impl Cache {
    /// An empty cache. `seed` is a random number, so that nobody can choose names
    /// that collide.
    pub fn new(limits: Limits, seed: u64) -> Self {
        Self {
            limits,
            entries: HashMap::with_hasher(FixedState::with_seed(seed)),
            queue: VecDeque::new(),
            bytes: 0,
            evicted: (0, 0),
        }
    }

    /// How many replies it has.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// How many of them say that there is nothing. Looks at each.
    pub fn denials(&self) -> usize {
        let denies = |entry: &&Entry| entry.reply.outcome() != Outcome::Positive;
        self.entries.values().filter(denies).count()
    }

    /// How many positive replies, and how many others, had to make room for others.
    pub fn evicted(&self) -> (u64, u64) {
        self.evicted
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many octets they take.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What it knows of a question at a moment.
    pub fn find(&mut self, key: &Key, now: Duration) -> Found<'_> {
        let limits = self.limits;
        let Some(entry) = self.entries.get_mut(key.as_bytes()) else {
            return Found::Nothing;
        };
        let seconds = now.saturating_sub(entry.came).as_secs();
        let seconds = u32::try_from(seconds).unwrap_or(u32::MAX);
        if seconds >= entry.ttl {
            let over = Duration::from_secs(u64::from(seconds - entry.ttl));
            return match limits.stale {
                Some(stale) if over < stale.most && entry.reply.outcome() == Outcome::Positive => {
                    entry.marked = true;
                    let failed = entry.failed;
                    Found::Stale {
                        reply: &entry.reply,
                        age: Age::Stale(stale.ttl),
                        failed: failed.is_some_and(|at| now.saturating_sub(at) < stale.rest),
                    }
                }
                Some(_) | None => Found::Nothing,
            };
        }
        entry.marked = true;
        let prefetch = limits.prefetch.is_some_and(|prefetch| {
            let paused = now.saturating_sub(entry.last) > prefetch.pause;
            entry.queries = if paused {
                1
            } else {
                entry.queries.saturating_add(1)
            };
            entry.last = now;
            let left = u64::from(entry.ttl - seconds) * 100;
            let late = left < u64::from(entry.ttl) * u64::from(prefetch.percent);
            late && entry.queries >= prefetch.queries
                && !std::mem::replace(&mut entry.prefetched, true)
        });
        let (least, most) = limits.ttls(entry.reply.outcome());
        Found::Fresh {
            reply: &entry.reply,
            age: Age::Fresh {
                seconds,
                least,
                most,
            },
            prefetch,
        }
    }

    /// Keeps a reply, unless it says that it may not be kept. A failure does not
    /// take the place of a positive reply that may still be given when stale.
    pub fn keep(&mut self, key: &Key, reply: Received, now: Duration) {
        let Some(ttl) = self.limits.lifetime(&reply) else {
            return;
        };
        let size = key.as_bytes().len() + reply.size() + OVERHEAD;
        if size > self.limits.bytes || self.limits.entries == 0 {
            return;
        }
        let fails = reply.outcome() == Outcome::Failure;
        if fails
            && matches!(
                self.find(key, now),
                Found::Stale { .. } | Found::Fresh { .. }
            )
        {
            return;
        }
        let old = self.entries.get(key.as_bytes());
        let (queries, last) = old.map_or((0, now), |old| (old.queries, old.last));
        let entry = Entry {
            reply,
            came: now,
            ttl,
            // Asked for before and again: it was worth its place.
            marked: old.is_some(),
            queries,
            last,
            prefetched: false,
            failed: None,
        };
        if let Some(old) = self.entries.get_mut(key.as_bytes()) {
            self.bytes = self.bytes + size - cost(key.as_bytes(), &old.reply);
            *old = entry;
        } else {
            let shared: Arc<[u8]> = Arc::from(key.as_bytes());
            self.bytes += size;
            self.entries.insert(Arc::clone(&shared), entry);
            self.queue.push_back(shared);
        }
        while self.entries.len() > self.limits.entries || self.bytes > self.limits.bytes {
            if !self.evict(now) {
                return;
            }
        }
    }

    /// Notes that a new reply in place of an expired one could not be had.
    pub fn renewal_failed(&mut self, key: &Key, now: Duration) {
        if let Some(entry) = self.entries.get_mut(key.as_bytes()) {
            entry.failed = Some(now);
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.queue.clear();
        self.bytes = 0;
    }

    /// Makes room: the oldest entry goes, or, if it has a mark and may still be
    /// given, to the end of the queue without it. Each call removes one entry and
    /// each step a mark, so all steps together are as many as there were queries.
    fn evict(&mut self, now: Duration) -> bool {
        while let Some(key) = self.queue.pop_front() {
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            let kept = self.limits.stale.map_or(Duration::ZERO, |stale| stale.most);
            let end = entry.came + Duration::from_secs(u64::from(entry.ttl)) + kept;
            if std::mem::take(&mut entry.marked) && now < end {
                self.queue.push_back(key);
                continue;
            }
            if let Some(entry) = self.entries.remove(&key) {
                match entry.reply.outcome() {
                    Outcome::Positive => self.evicted.0 += 1,
                    Outcome::Negative | Outcome::Failure => self.evicted.1 += 1,
                }
                self.bytes -= cost(&key, &entry.reply);
            }
            return true;
        }
        false
    }
}

fn cost(key: &[u8], reply: &Received) -> usize {
    key.len() + reply.size() + OVERHEAD
}

impl Limits {
    fn ttls(&self, outcome: Outcome) -> (u32, u32) {
        match outcome {
            Outcome::Positive | Outcome::Failure => (self.least_ttl, self.most_ttl),
            Outcome::Negative => (self.least_negative_ttl, self.most_negative_ttl),
        }
    }

    /// For how many seconds a reply is kept.
    fn lifetime(&self, reply: &Received) -> Option<u32> {
        const SERVFAIL: u8 = 2;
        if reply.is_truncated() {
            return None;
        }
        let (least, most) = self.ttls(reply.outcome());
        let ttl = match reply.outcome() {
            Outcome::Positive | Outcome::Negative => reply.ttl()?.min(most).max(least),
            Outcome::Failure if reply.rcode() == SERVFAIL => self.failure_ttl.min(MOST_FAILURE),
            Outcome::Failure => 0,
        };
        (ttl > 0).then_some(ttl)
    }

    /// The limits of each of `parts` caches that share these.
    pub fn divided(self, parts: usize) -> Self {
        Self {
            entries: self.entries.div_ceil(parts.max(1)),
            bytes: self.bytes / parts.max(1),
            ..self
        }
    }
}
