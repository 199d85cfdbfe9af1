//! How long to wait before trying again.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::Duration;

/// Exponential back-off with jitter.
///
/// Each call of [`Backoff::next_delay`] doubles the delay up to the limit;
/// half of the delay is random, so that many clients of one restarted server
/// do not return in step.
#[derive(Clone, Debug)]
pub struct Backoff {
    base: Duration,
    limit: Duration,
    failures: u32,
}

impl Backoff {
    /// A back-off that starts at `base` and never exceeds `limit`.
    pub fn new(base: Duration, limit: Duration) -> Self {
        Self {
            base,
            limit,
            failures: 0,
        }
    }

    /// The delay before the next attempt.
    pub fn next_delay(&mut self) -> Duration {
        let full = delay(self.base, self.limit, self.failures);
        self.failures = self.failures.saturating_add(1);
        let half = full / 2;
        half + half.mul_f64(random_fraction())
    }

    /// How many attempts have failed since the last success.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// An attempt succeeded: start over.
    pub fn reset(&mut self) {
        self.failures = 0;
    }
}

/// A time between nothing and `limit`, so that many do not do the same at once.
pub(crate) fn spread(limit: Duration) -> Duration {
    limit.mul_f64(random_fraction())
}

/// `base · 2^failures`, at most `limit`.
fn delay(base: Duration, limit: Duration, failures: u32) -> Duration {
    let factor = 1u32.checked_shl(failures.min(31)).unwrap_or(u32::MAX);
    base.checked_mul(factor).unwrap_or(limit).min(limit)
}

/// A number in 0..1; the hasher's random keys are the standard library's only
/// source of randomness, and jitter needs no better one.
fn random_fraction() -> f64 {
    let bits = RandomState::new().build_hasher().finish() >> 11;
    bits as f64 / (1u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_the_limit() {
        let base = Duration::from_millis(5);
        let limit = Duration::from_secs(1000);
        assert_eq!(delay(base, limit, 0), base);
        assert_eq!(delay(base, limit, 3), Duration::from_millis(40));
        assert_eq!(delay(base, limit, 30), limit);
        assert_eq!(delay(base, limit, 4000), limit);
    }

    #[test]
    fn jitter_keeps_at_least_half() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(1));
        for _ in 0..4 {
            let full = delay(backoff.base, backoff.limit, backoff.failures());
            let got = backoff.next_delay();
            assert!(got >= full / 2 && got <= full, "{got:?} of {full:?}");
        }
        backoff.reset();
        assert_eq!(backoff.failures(), 0);
    }
}
