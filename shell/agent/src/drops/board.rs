//! The last flows that were dropped, for whoever asks.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::join::Told;

/// So many flows are kept.
const KEPT: usize = 1024;
/// The longest that somebody may wait for the next one.
const WAIT: Duration = Duration::from_secs(25);

/// The last flows, each with a number.
#[derive(Debug)]
pub(crate) struct Board {
    node: String,
    /// When it was begun: numbers begin anew then.
    since: jiff::Timestamp,
    kept: Mutex<Kept>,
    called: Notify,
}

#[derive(Debug, Default)]
struct Kept {
    flows: VecDeque<Value>,
    /// The number of the last one; the first is 1.
    last: u64,
    /// Packets that were told of.
    told: u64,
    /// Packets that the kernel dropped.
    dropped: u64,
}

impl Board {
    pub(super) fn new(node: &str) -> Self {
        Self {
            node: node.to_owned(),
            since: jiff::Timestamp::now(),
            kept: Mutex::default(),
            called: Notify::new(),
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn put(&self, told: &[Told]) {
        let mut kept = self.kept();
        for one in told {
            kept.last += 1;
            kept.told += u64::from(one.packets);
            let mut flow = one.json(&self.node);
            flow["number"] = kept.last.into();
            if kept.flows.len() >= KEPT {
                kept.flows.pop_front();
            }
            kept.flows.push_back(flow);
        }
        drop(kept);
        self.called.notify_waiters();
    }

    /// So many packets more were dropped.
    pub(super) fn dropped(&self, packets: u64) {
        self.kept().dropped += packets;
    }

    /// The flows after a number; if there are none, waits for the next one so long.
    pub(crate) async fn after(&self, number: u64, wait: Duration) -> Value {
        let next = async {
            loop {
                let called = self.called.notified();
                let mut called = std::pin::pin!(called);
                // From here on a call is not missed.
                called.as_mut().enable();
                if self.kept().last > number {
                    return;
                }
                called.await;
            }
        };
        // Nothing within that time is an answer too.
        drop(timeout(wait.min(WAIT), next).await);
        let kept = self.kept();
        let later = |flow: &&Value| flow["number"].as_u64().is_some_and(|own| own > number);
        let items: Vec<&Value> = kept.flows.iter().filter(later).collect();
        json!({
            "node": self.node,
            "since": self.since.to_string(),
            "last": kept.last,
            "told": kept.told,
            "dropped": kept.dropped.max(kept.told),
            "items": items,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::join::tests::one;
    use super::*;

    /// Longer than any machine needs.
    const PATIENCE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn n18_who_asks_gets_what_came_since_and_may_wait_for_it() {
        let board = std::sync::Arc::new(Board::new("n"));
        let nothing = board.after(0, Duration::ZERO).await;
        assert_eq!(
            (&nothing["last"], &nothing["items"]),
            (&json!(0), &json!([]))
        );
        board.put(&one());
        board.dropped(5);
        let first = board.after(0, WAIT).await;
        assert_eq!((&first["last"], &first["told"]), (&json!(1), &json!(1)));
        assert_eq!(first["dropped"], 5);
        assert_eq!(first["items"][0]["number"], 1);
        assert_eq!(first["items"][0]["node"], "n");
        // Somebody waits, and is answered by what comes.
        let asked = std::sync::Arc::clone(&board);
        let waits = tokio::spawn(async move { asked.after(1, WAIT).await });
        tokio::task::yield_now().await;
        board.put(&one());
        let next = timeout(PATIENCE, waits).await.expect("an answer");
        let next = next.expect("no panic");
        assert_eq!(next["items"].as_array().map(Vec::len), Some(1));
        assert_eq!(next["items"][0]["number"], 2);
    }

    #[test]
    fn n18_only_the_last_flows_are_kept() {
        let board = Board::new("n");
        for _ in 0..KEPT + 3 {
            board.put(&one());
        }
        let kept = board.kept();
        assert_eq!(kept.flows.len(), KEPT);
        assert_eq!(
            kept.flows.front().map(|flow| &flow["number"]),
            Some(&json!(4))
        );
    }
}
