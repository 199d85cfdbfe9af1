//! Which agents' Leases are fresh: pure.
//!
//! A Lease that has not been seen to change for as long as it says has run out, but only
//! as far as the API server tells us at all. Our own Lease is the witness: who does not
//! see it change knows nothing of the others, and leaves all as it was. So the API
//! server may be away for as long as it likes, and nobody gives up an address for that;
//! and once it is back, the others have time to renew theirs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use portolan_model::workloads::ObjectKey;
use tokio::time::Instant;

/// When our own Lease was seen to change.
#[derive(Clone, Copy, Debug)]
struct Witness {
    /// Since when it changes as often as it should.
    since: Instant,
    last: Instant,
}

/// The Leases that count.
#[derive(Debug, Default)]
pub(super) struct Fresh {
    /// When each was seen to change, and for how long it counts then.
    heard: BTreeMap<ObjectKey, (Instant, Duration)>,
    witness: Option<Witness>,
}

impl Fresh {
    /// A Lease has changed. Whether it did not count before.
    pub(super) fn heard(&mut self, key: ObjectKey, duration: Duration, now: Instant) -> bool {
        self.heard.insert(key, (now, duration)).is_none()
    }

    /// A Lease is gone.
    pub(super) fn gone(&mut self, key: &ObjectKey) {
        self.heard.remove(key);
    }

    /// Whether a Lease counts.
    pub(super) fn counts(&self, key: &ObjectKey) -> bool {
        self.heard.contains_key(key)
    }

    /// Our own Lease has changed. Answers with those that have run out.
    pub(super) fn witness(
        &mut self,
        own: &ObjectKey,
        duration: Duration,
        now: Instant,
    ) -> BTreeSet<ObjectKey> {
        let before = self.witness.filter(|one| now < one.last + duration);
        let since = before.map_or(now, |one| one.since);
        self.witness = Some(Witness { since, last: now });
        let is_out = |(key, (last, duration)): &(&ObjectKey, &(Instant, Duration))| {
            *key != own && now >= *last + *duration && now >= since + *duration
        };
        let out = self.heard.iter().filter(is_out);
        let out: BTreeSet<ObjectKey> = out.map(|(key, _)| key.clone()).collect();
        self.heard.retain(|key, _| !out.contains(key));
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DURATION: Duration = Duration::from_secs(30);

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("portolan", name)
    }

    /// Both Leases were heard at the start, and ours is heard again at these seconds.
    /// Answers with when the other runs out.
    fn runs_out(times: &[u64]) -> Option<u64> {
        let start = Instant::now();
        let mut fresh = Fresh::default();
        assert!(fresh.heard(key("own"), DURATION, start));
        assert!(fresh.heard(key("other"), DURATION, start));
        assert!(fresh.witness(&key("own"), DURATION, start).is_empty());
        for seconds in times {
            let now = start + Duration::from_secs(*seconds);
            assert!(!fresh.heard(key("own"), DURATION, now));
            let out = fresh.witness(&key("own"), DURATION, now);
            assert!(fresh.counts(&key("own")));
            if !out.is_empty() {
                assert_eq!(out, [key("other")].into());
                assert!(!fresh.counts(&key("other")));
                return Some(*seconds);
            }
        }
        None
    }

    #[test]
    fn l9_a_lease_that_is_not_renewed_runs_out() {
        assert_eq!(runs_out(&[10, 20]), None);
        assert_eq!(runs_out(&[10, 20, 30, 40]), Some(30));
        assert_eq!(runs_out(&[10, 20, 29, 39, 49]), Some(39));
    }

    #[test]
    fn l9_an_api_server_that_is_away_ends_no_lease() {
        // It is back at 300, and the other has as long as its Lease says.
        assert_eq!(runs_out(&[10, 300]), None);
        assert_eq!(runs_out(&[10, 300, 310, 320]), None);
        assert_eq!(runs_out(&[10, 300, 310, 320, 330]), Some(330));
    }

    #[test]
    fn l9_a_lease_that_is_gone_does_not_count() {
        let mut fresh = Fresh::default();
        fresh.heard(key("other"), DURATION, Instant::now());
        fresh.gone(&key("other"));
        assert!(!fresh.counts(&key("other")));
    }
}
