//! Real neighbours for the machines of `wire/announce`: BIRD and FRR as peers of BGP
//! and BFD, and kernels that resolve addresses on a link.
//!
//! Each test makes its namespaces, without root: [`inside`] runs it again in a user
//! namespace of its own. [`Place`] is two network namespaces in it with a link between
//! them, [`segment`] several on a bridge. [`speaker`], [`path`] and [`answerer`] put a
//! machine on sockets, the plainest way: a loop that looks at them every few
//! milliseconds. [`bed`] has whole agents and an API server; [`asker`], [`flow`] and
//! [`dump`] are what a client sees of them.

pub mod answerer;
pub mod asker;
pub mod bed;
pub mod bird;
pub mod dump;
pub mod flow;
pub mod frr;
pub mod path;
pub mod place;
pub mod segment;
pub mod speaker;
mod tools;

pub use place::Place;
pub use portolan_testkit::namespace::inside;

use std::time::{Duration, Instant};

/// How long anything may take before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// How often sockets are looked at.
pub const PAUSE: Duration = Duration::from_millis(5);

/// Calls `step` until it gives something.
///
/// # Panics
/// If that takes longer than [`PATIENCE`]: `what` says what was waited for.
pub fn until<T>(what: &str, mut step: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = step() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for: {what}");
        std::thread::sleep(PAUSE);
    }
}
