//! What is to be looked at, when.
//!
//! A key is handed out to one worker at a time. Added again meanwhile, it
//! comes back afterwards. A key whose work failed comes back after a delay
//! that doubles with each failure.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use portolan_client::Backoff;

/// A queue without duplicates, with delays.
pub(super) struct Queue<K> {
    ready: BTreeSet<K>,
    later: BTreeSet<(Instant, K)>,
    due: BTreeMap<K, Instant>,
    /// Keys that are handed out, and whether they were added again.
    running: BTreeMap<K, bool>,
    failures: BTreeMap<K, Backoff>,
    retry: (Duration, Duration),
}

impl<K: Ord + Clone> Queue<K> {
    /// A queue with the first and the longest delay after failures.
    pub(super) fn new(retry: (Duration, Duration)) -> Self {
        Self {
            ready: BTreeSet::new(),
            later: BTreeSet::new(),
            due: BTreeMap::new(),
            running: BTreeMap::new(),
            failures: BTreeMap::new(),
            retry,
        }
    }

    /// Look at this key now.
    pub(super) fn add(&mut self, key: K) {
        match self.running.get_mut(&key) {
            Some(again) => *again = true,
            None => {
                self.ready.insert(key);
            }
        }
    }

    /// Look at this key then, or earlier if that was already asked for.
    pub(super) fn add_after(&mut self, key: K, at: Instant) {
        if let Some(due) = self.due.get(&key) {
            if *due <= at {
                return;
            }
            self.later.remove(&(*due, key.clone()));
        }
        self.due.insert(key.clone(), at);
        self.later.insert((at, key));
    }

    /// When the next delayed key is due.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }

    /// Hands out a key.
    pub(super) fn pop(&mut self, now: Instant) -> Option<K> {
        while let Some((at, _)) = self.later.first() {
            if *at > now {
                break;
            }
            if let Some((_, key)) = self.later.pop_first() {
                self.due.remove(&key);
                self.add(key);
            }
        }
        let key = self.ready.pop_first()?;
        self.running.insert(key.clone(), false);
        Some(key)
    }

    /// A key that was handed out is back.
    pub(super) fn done(&mut self, key: &K, success: bool, now: Instant) {
        let again = self.running.remove(key).unwrap_or(false);
        if success {
            self.failures.remove(key);
            if again {
                self.add(key.clone());
            }
        } else {
            let (first, longest) = self.retry;
            let delay = self
                .failures
                .entry(key.clone())
                .or_insert_with(|| Backoff::new(first, longest))
                .next_delay();
            self.add_after(key.clone(), now + delay);
        }
    }

    /// Forgets a key's failures, for keys that are no more.
    #[cfg(test)]
    fn is_idle(&self) -> bool {
        self.ready.is_empty() && self.later.is_empty() && self.running.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RETRY: (Duration, Duration) = (Duration::from_millis(5), Duration::from_secs(1000));

    #[test]
    fn a_key_is_handed_out_once_and_comes_back_if_added_meanwhile() {
        let now = Instant::now();
        let mut queue = Queue::new(RETRY);
        queue.add("a");
        queue.add("a");
        assert_eq!(queue.pop(now), Some("a"));
        queue.add("a");
        assert_eq!(queue.pop(now), None, "it is being worked on");
        queue.done(&"a", true, now);
        assert_eq!(queue.pop(now), Some("a"));
        queue.done(&"a", true, now);
        assert!(queue.is_idle());
    }

    #[test]
    fn failures_come_back_later_and_later() {
        let mut now = Instant::now();
        let mut queue = Queue::new(RETRY);
        queue.add("a");
        let mut waits = Vec::new();
        for _ in 0..6 {
            assert_eq!(queue.pop(now), Some("a"));
            queue.done(&"a", false, now);
            let due = queue.next_due().unwrap();
            waits.push(due - now);
            now = due;
        }
        assert!(waits[0] <= Duration::from_millis(5));
        assert!(waits[5] >= Duration::from_millis(80), "{waits:?}");
        assert_eq!(queue.pop(now), Some("a"));
        queue.done(&"a", true, now);
        assert!(queue.is_idle());
    }

    #[test]
    fn the_earlier_of_two_times_counts() {
        let now = Instant::now();
        let mut queue = Queue::new(RETRY);
        queue.add_after("a", now + Duration::from_secs(9));
        queue.add_after("a", now + Duration::from_secs(2));
        queue.add_after("a", now + Duration::from_secs(5));
        assert_eq!(queue.next_due(), Some(now + Duration::from_secs(2)));
        assert_eq!(queue.pop(now + Duration::from_secs(3)), Some("a"));
        queue.done(&"a", true, now);
        assert!(queue.is_idle());
    }
}
