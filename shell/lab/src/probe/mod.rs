//! Probes: whether a container has started, is ready, is alive.
//!
//! What to ask ([`Spec`]) and what a run of answers means ([`Machine`]) are
//! pure; [`check`] asks once, from the node's network.
//!
//! ```text
//!             successThreshold successes in a row
//!   failing ──────────────────────────────────────► succeeding
//!           ◄──────────────────────────────────────
//!             failureThreshold failures in a row
//! ```
//! A new container begins failing for readiness and startup, succeeding for
//! liveness. gRPC probes are absent.

mod grpc;
mod run;
mod spec;

use std::time::Duration;

pub(crate) use run::connect;
pub use run::{Asker, check};
pub use spec::{Handler, Spec};

/// What a probe is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Holds the other two back until the container has started.
    Startup,
    /// Whether the container gets traffic.
    Readiness,
    /// Whether the container may live.
    Liveness,
}

impl Kind {
    /// The word that begins kubelet's events.
    pub fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Readiness => "Readiness",
            Self::Liveness => "Liveness",
        }
    }
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// As hoped.
    Success,
    /// Not as hoped, in kubelet's words.
    Failure(String),
}

/// In its first period a readiness probe that has not succeeded yet is repeated
/// this soon, so that a container with the default period of 10 s that needs
/// 50 ms to open its port does not wait for the second period.
const EAGER: Duration = Duration::from_millis(200);
/// The other probes leave a new container this much time, unless the spec says
/// how much: the same 50 ms are no sign of illness.
const SETTLE: Duration = Duration::from_secs(1);

/// What a run of answers means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    kind: Kind,
    succeeding: bool,
    in_a_row: i32,
    last: Option<bool>,
    ever: bool,
}

impl Machine {
    /// For a container that was just started.
    pub fn new(kind: Kind) -> Self {
        Self {
            kind,
            succeeding: kind == Kind::Liveness,
            in_a_row: 0,
            last: None,
            ever: false,
        }
    }

    /// The present verdict.
    pub fn succeeding(&self) -> bool {
        self.succeeding
    }

    /// Takes one answer; true if it settled the verdict (anew or again).
    pub fn take(&mut self, spec: &Spec, success: bool) -> bool {
        self.in_a_row = if self.last == Some(success) {
            self.in_a_row.saturating_add(1)
        } else {
            1
        };
        self.last = Some(success);
        self.ever |= success;
        let threshold = if success {
            spec.success_threshold
        } else {
            spec.failure_threshold
        };
        let settled = self.in_a_row >= threshold;
        if settled {
            self.succeeding = success;
        }
        settled
    }

    /// How long after the container's start the first question is asked.
    pub fn first(&self, spec: &Spec) -> Duration {
        if self.kind == Kind::Readiness || !spec.initial_delay.is_zero() {
            spec.initial_delay
        } else {
            spec.period.min(SETTLE)
        }
    }

    /// How long to wait before asking a container of that age again.
    pub fn pause(&self, spec: &Spec, age: Duration) -> Duration {
        if self.kind == Kind::Readiness && !self.ever && age < spec.initial_delay + spec.period {
            spec.period.min(EAGER)
        } else {
            spec.period
        }
    }

    /// Whether a failure is worth an event: not while the container is only
    /// being asked eagerly.
    pub fn tells(&self, spec: &Spec, age: Duration) -> bool {
        self.kind != Kind::Readiness || self.ever || age >= spec.initial_delay + spec.period
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(success_threshold: i32, failure_threshold: i32) -> Spec {
        Spec {
            handler: Handler::Exec { command: vec![] },
            initial_delay: Duration::ZERO,
            period: Duration::from_secs(10),
            timeout: Duration::from_secs(1),
            success_threshold,
            failure_threshold,
            grace: None,
        }
    }

    #[test]
    fn c16_every_edge_of_the_machine() {
        // Answers in, verdicts out: S and F are answers, + and - the verdict after each.
        for (kind, success, failure, answers, verdicts) in [
            (Kind::Readiness, 1, 3, "S", "+"),
            (Kind::Readiness, 1, 3, "F", "-"),
            (Kind::Readiness, 1, 3, "SFFF", "+++-"),
            (Kind::Readiness, 1, 3, "SFFSFFF", "++++++-"),
            (Kind::Readiness, 2, 1, "SSFSS", "-+--+"),
            (Kind::Readiness, 1, 1, "SFSF", "+-+-"),
            (Kind::Liveness, 1, 3, "FF", "++"),
            (Kind::Liveness, 1, 3, "FFF", "++-"),
            (Kind::Liveness, 1, 3, "FFSFF", "+++++"),
            (Kind::Startup, 1, 30, "FFFS", "---+"),
        ] {
            let spec = spec(success, failure);
            let mut machine = Machine::new(kind);
            let mut seen = String::new();
            for answer in answers.chars() {
                machine.take(&spec, answer == 'S');
                seen.push(if machine.succeeding() { '+' } else { '-' });
            }
            assert_eq!(seen, verdicts, "{kind:?} {success}/{failure} {answers}");
        }
    }

    #[test]
    fn a_settled_failure_is_told_apart_from_a_first_one() {
        let spec = spec(1, 2);
        let mut machine = Machine::new(Kind::Startup);
        assert!(!machine.take(&spec, false));
        assert!(
            machine.take(&spec, false),
            "now the container is to be killed"
        );
        assert!(machine.take(&spec, true));
    }

    #[test]
    fn readiness_is_asked_eagerly_until_its_first_success() {
        let spec = spec(1, 3);
        let [young, old] = [1, 11].map(Duration::from_secs);
        let mut machine = Machine::new(Kind::Readiness);
        assert_eq!(machine.first(&spec), Duration::ZERO);
        assert_eq!(machine.pause(&spec, young), EAGER);
        assert_eq!(machine.pause(&spec, old), spec.period);
        assert!(!machine.tells(&spec, young) && machine.tells(&spec, old));
        machine.take(&spec, true);
        assert_eq!(machine.pause(&spec, young), spec.period);
        assert!(machine.tells(&spec, young));
    }

    #[test]
    fn the_other_probes_leave_a_new_container_a_moment() {
        let mut spec = spec(1, 3);
        let machine = Machine::new(Kind::Liveness);
        assert_eq!(machine.first(&spec), SETTLE);
        assert_eq!(machine.pause(&spec, Duration::ZERO), spec.period);
        assert!(machine.tells(&spec, Duration::ZERO));
        spec.initial_delay = Duration::from_secs(5);
        assert_eq!(machine.first(&spec), spec.initial_delay);
    }
}
