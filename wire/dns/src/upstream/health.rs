//! Whether a server is asked, and in which order several are.
//!
//! ```text
//!        failures < limit                      probe fails: the wait doubles
//!          ┌─────┐      failures = limit         ┌─────┐
//!          ▼     │ ────────────────────────►     ▼     │
//!        ┌─────────┐                           ┌─────────┐
//!   ───► │   up    │                           │  down   │
//!        └─────────┘ ◄──────────────────────── └─────────┘
//!                       any reply from it
//! ```
//!
//! A server that is down is not asked what clients ask, but for a question of our
//! own from time to time. If all are down, the way to all of them is more
//! likely to be broken than each of them: they are asked as if all were up.

use std::time::Duration;

/// When a server is given up, and how often it is looked for then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthLimits {
    /// Failures in a row after which it is down; never if zero.
    pub most_failures: u32,
    /// The wait before the first probe.
    pub first_wait: Duration,
    /// The longest wait between two.
    pub most_wait: Duration,
}

impl Default for HealthLimits {
    fn default() -> Self {
        Self {
            most_failures: 2,
            first_wait: Duration::from_millis(500),
            most_wait: Duration::from_secs(5),
        }
    }
}

/// The health of one server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Health {
    failures: u32,
    /// Since it is down: the wait before the next probe.
    wait: Option<Duration>,
}

impl Default for Health {
    /// Up until shown otherwise.
    fn default() -> Self {
        Self {
            failures: 0,
            wait: None,
        }
    }
}

impl Health {
    /// Whether it is up.
    pub fn is_up(&self) -> bool {
        self.wait.is_none()
    }

    /// It replied, whatever it said. Says whether it was down.
    pub fn replied(&mut self) -> bool {
        let was_down = !self.is_up();
        *self = Self::default();
        was_down
    }

    /// It did not reply to a client's question. Says whether it is down by this.
    pub fn failed(&mut self, limits: &HealthLimits) -> bool {
        self.failures = self.failures.saturating_add(1);
        let falls =
            self.is_up() && limits.most_failures > 0 && self.failures >= limits.most_failures;
        if falls {
            self.wait = Some(limits.first_wait);
        }
        falls
    }

    /// It did not reply to a probe.
    pub fn probe_failed(&mut self, limits: &HealthLimits) {
        self.wait = self.wait.map(|wait| (wait * 2).min(limits.most_wait));
    }

    /// How long to wait before the next probe; `None` if it is up.
    pub fn wait(&self) -> Option<Duration> {
        self.wait
    }
}

/// Which of several healthy servers is asked first: CoreDNS' policies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Any of them.
    #[default]
    Random,
    /// Each in turn.
    RoundRobin,
    /// As they are listed.
    Sequential,
}

/// The order in which servers are asked, by their places in the list: those that
/// are up by the policy, or all if none is. `turn` is a random number, or one
/// that counts queries for [`Policy::RoundRobin`].
pub fn order(policy: Policy, up: &[bool], turn: u64) -> Vec<usize> {
    let all_down = !up.contains(&true);
    let mut order: Vec<usize> = (0..up.len())
        .filter(|&at| all_down || up.get(at) == Some(&true))
        .collect();
    let count = order.len() as u64;
    match policy {
        Policy::Sequential => {}
        Policy::RoundRobin => {
            let first = turn.checked_rem(count).unwrap_or(0);
            order.rotate_left(first as usize);
        }
        Policy::Random => {
            // Fisher and Yates; each step uses up a part of the number.
            let mut left = turn;
            for end in (1..order.len()).rev() {
                let choices = end as u64 + 1;
                order.swap(end, (left % choices) as usize);
                left /= choices;
            }
        }
    }
    order
}
