//! What controllers write: desired minus observed, as values.
//!
//! A cluster's controllers are planes whose kernel is the API server. Each is
//! a function from facts (and the time) to a [`Step`]: the writes that bring
//! the server closer to what is wanted, what to tell the user, and when to
//! look again. `shell/agent` keeps the facts in [`Store`]s and carries the
//! writes out; nothing is decided there.
//!
//! A step need not reach the goal. Every write comes back as a change of the
//! facts, which asks for the next step.
//!
//! Deliberately absent: quotas, preemption, preferences of the scheduler
//! (what a pod *requires* of nodes and neighbours counts, what it prefers does
//! not), persistent volumes, pod disruption budgets.

mod claim;
mod daemon_set;
mod deployment;
mod garbage;
mod hash;
mod history;
#[cfg(test)]
mod laggard;
mod namespace;
mod node_life;
mod pods;
mod replica_set;
mod scheduler;
mod stateful_set;
mod status;
mod step;
mod store;
#[cfg(test)]
mod testbed;

pub use daemon_set::daemon_set;
pub use deployment::deployment;
pub use garbage::{Absent, Gc, Graph, Reference, Vertex};
pub(crate) use hash::same;
pub use namespace::{Content, Emptying, NamespaceStep, namespace, namespace_status};
pub use node_life::{NodeTimes, lost_pods, node};
pub use replica_set::replica_set;
pub use scheduler::{Usage, schedule};
pub use stateful_set::stateful_set;
pub(crate) use step::controller_reference;
pub use step::{About, Action, Blame, Kind, Step, Tell, Write};
pub use store::Store;
