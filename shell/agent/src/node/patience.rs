//! How soon our tables are compared after somebody else changed the ruleset.
//!
//! The generation of the ruleset says that something changed, not what. To find
//! out, our tables are read, which costs what they hold. So software that changes
//! its own tables all the time must not make us read ours all the time: each
//! comparison that finds nothing doubles the wait before the next one, and a
//! difference, or a calm, makes it short again. Whoever changes our tables again
//! and again is answered each time, within a second, but not as often as we look.

use std::time::Duration;

use tokio::time::Instant;

/// The shortest wait between two comparisons: that of looking.
pub(super) const SHORTEST: Duration = Duration::from_millis(200);
/// The longest one while nothing is found.
const LONGEST: Duration = Duration::from_secs(5);
/// The wait between two repairs of a fight.
const FIGHT: Duration = Duration::from_millis(700);
/// So many repairs without a calm are a fight.
const BLOWS: u32 = 10;

/// What was found lately.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    wait: Duration,
    /// The end of the last comparison; none before the first.
    compared: Option<Instant>,
    /// When somebody's change was last pending.
    pending: Option<Instant>,
    /// Differences found without a calm between them.
    blows: u32,
}

impl Patience {
    pub(super) fn new() -> Self {
        Self {
            wait: SHORTEST,
            compared: None,
            pending: None,
            blows: 0,
        }
    }

    /// Somebody changed the ruleset: when our tables should be compared. `missing`
    /// says that one of them is known to be gone.
    pub(super) fn due(&mut self, now: Instant, missing: bool) -> Instant {
        // Twice the wait without a change is a calm.
        let calm = (self.wait * 2).max(FIGHT * 2);
        let before = self.pending.replace(now);
        if before.is_some_and(|before| now.saturating_duration_since(before) > calm) {
            self.wait = SHORTEST;
            self.blows = 0;
        }
        let Some(compared) = self.compared else {
            return now;
        };
        let wait = if self.blows >= BLOWS {
            FIGHT
        } else if missing {
            Duration::ZERO
        } else {
            self.wait
        };
        compared + wait
    }

    /// Our tables were compared after a foreign change.
    pub(super) fn compared(&mut self, now: Instant, different: bool) {
        self.compared = Some(now);
        if different {
            self.blows = self.blows.saturating_add(1);
            self.wait = SHORTEST;
        } else {
            self.blows = 0;
            self.wait = (self.wait * 2).min(LONGEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Somebody changes the ruleset every 50 ms for a minute; how often our tables
    /// are compared, and the longest time that a change waited.
    fn minute(different: bool, missing: bool) -> (u32, Duration) {
        let start = Instant::now();
        let (mut patience, mut count, mut longest) = (Patience::new(), 0, Duration::ZERO);
        let mut since = None;
        for step in 0..1200 {
            let now = start + Duration::from_millis(50) * step;
            let since_when = *since.get_or_insert(now);
            if patience.due(now, missing) <= now {
                patience.compared(now, different);
                longest = longest.max(now - since_when);
                since = None;
                count += 1;
            }
        }
        (count, longest)
    }

    #[test]
    fn noise_of_others_is_met_with_patience() {
        let (count, longest) = minute(false, false);
        assert!(count <= 20, "{count}");
        assert!(longest <= LONGEST, "{longest:?}");
    }

    #[test]
    fn a_fight_is_answered_within_a_second_and_not_more_often() {
        for missing in [false, true] {
            let (count, longest) = minute(true, missing);
            assert!((60..=100).contains(&count), "{count}");
            assert!(longest <= FIGHT, "{longest:?}");
        }
    }

    #[test]
    fn a_calm_makes_the_wait_short_again() {
        let start = Instant::now();
        let mut patience = Patience::new();
        let mut now = start;
        for _ in 0..10 {
            patience.compared(now, false);
            now += Duration::from_millis(100);
        }
        assert!(patience.due(now, false) > now + Duration::from_secs(4));
        assert!(
            patience.due(now, true) <= now,
            "a table that is gone waits for nothing"
        );
        let later = now + LONGEST * 3;
        assert!(patience.due(later, false) <= later);
        patience.compared(later, true);
        assert_eq!(patience.due(later, false), later + SHORTEST);
    }
}
