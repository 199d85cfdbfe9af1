//! How long a container that keeps failing waits: 10 s, doubling to 5 min,
//! forgotten after 10 min of peace. As kubelet's `flowcontrol.Backoff`.

use jiff::{SignedDuration, Timestamp};

/// The first delay.
const FIRST: SignedDuration = SignedDuration::from_secs(10);
/// The longest delay.
const LONGEST: SignedDuration = SignedDuration::from_secs(300);
/// After so long without a failure the next one is a first one.
const FORGET: SignedDuration = SignedDuration::from_secs(600);

/// Failures of one thing, and what they cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Backoff {
    current: Option<(SignedDuration, Timestamp)>,
}

impl Backoff {
    /// Until when to wait after a failure at `failed`; the first costs nothing.
    pub(super) fn until(&self, failed: Timestamp) -> Timestamp {
        match self.current {
            Some((delay, since)) if failed.duration_since(since) <= FORGET => {
                failed.checked_add(delay).unwrap_or(failed)
            }
            Some(_) | None => failed,
        }
    }

    /// The delay that [`Backoff::until`] speaks of.
    pub(super) fn delay(&self) -> SignedDuration {
        self.current.map(|(delay, _)| delay).unwrap_or_default()
    }

    /// Tried again after a failure at `failed`: the next one costs more.
    pub(super) fn next(&mut self, failed: Timestamp, now: Timestamp) {
        let delay = match self.current {
            Some((delay, since)) if failed.duration_since(since) <= FORGET => {
                (delay * 2).min(LONGEST)
            }
            Some(_) | None => FIRST,
        };
        self.current = Some((delay, now));
    }
}

/// `10s`, `1m20s`: how Go writes a duration of whole seconds.
pub(super) fn go_duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    match (seconds / 60, seconds % 60) {
        (0, seconds) => format!("{seconds}s"),
        (minutes, seconds) => format!("{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_and_are_forgotten() {
        let mut backoff = Backoff::default();
        let mut now = Timestamp::UNIX_EPOCH;
        let second = SignedDuration::from_secs(1);
        let mut waits = Vec::new();
        for _ in 0..8 {
            let failed = now + second;
            let until = backoff.until(failed);
            waits.push(until.duration_since(failed).as_secs());
            backoff.next(failed, until);
            now = until;
        }
        assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
        let failed = now + FORGET + second;
        assert_eq!(backoff.until(failed), failed);
        backoff.next(failed, failed);
        assert_eq!(backoff.delay(), FIRST);
    }

    #[test]
    fn durations_read_as_in_go() {
        for (seconds, text) in [(10, "10s"), (80, "1m20s"), (300, "5m0s"), (0, "0s")] {
            assert_eq!(go_duration(SignedDuration::from_secs(seconds)), text);
        }
    }
}
