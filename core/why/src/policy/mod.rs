//! Why a connection is let through or not, as far as NetworkPolicies and
//! ClusterNetworkPolicies decide.
//!
//! The verdict is the plan's own ([`Policies::allows`](portolan_plan::policy::Policies::allows));
//! here the rule is found that it follows from, or the rule that comes nearest to
//! allowing what nothing allows. A property test holds both to each other.
//!
//! Each direction has its judge: the source's node judges egress, the destination's
//! node ingress, both by the addresses after a Service's was translated.

mod check;
mod json;
mod judge;
mod lint;
mod matrix;
mod miss;
mod show;
#[cfg(test)]
mod tests;
mod world;

pub use check::{Check, Hidden, Hop, check};
pub use judge::{Cause, Judgement, Near, RuleAt, To, about, judge, key, named};
pub use lint::lint;
pub use matrix::{Asked, Group, Matrix, matrix};
pub use miss::{Miss, What};
pub use world::{Who, World};
