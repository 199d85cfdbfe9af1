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
//! Deliberately absent: quotas, preemption, resource-aware scheduling,
//! pod disruption budgets.

mod deployment;
mod garbage;
mod hash;
mod namespace;
mod node_life;
mod replica_set;
mod scheduler;
mod step;
mod store;
#[cfg(test)]
mod testbed;

pub use deployment::deployment;
pub use garbage::{Absent, Gc, Graph, Reference, Vertex};
pub(crate) use hash::same;
pub use namespace::{Content, NamespaceStep, namespace};
pub use node_life::{NodeTimes, lost_pods, node};
pub use replica_set::replica_set;
pub use scheduler::{Usage, schedule};
pub(crate) use step::controller_reference;
pub use step::{About, Action, Kind, Step, Tell, Write};
pub use store::Store;
