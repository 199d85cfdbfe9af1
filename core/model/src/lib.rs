//! What we know of the cluster: facts, indexed, and how they change.
//!
//! The API's objects enter through [`intake`], which turns each into a lean
//! fact and a list of [`Problem`]s, so that one bad object never blocks the
//! rest. [`Cluster::apply`] takes one [`Change`] in and answers with what is
//! [`Dirty`]: the keys that have to be planned again, and no others.
//!
//! The maps are persistent, so a reader's snapshot is a cheap `clone`, and
//! strings that repeat per endpoint are kept once: an agent holds the facts of
//! ten thousand Services in a few megabytes.
//!
//! Deliberately absent: the clock, watches, and any opinion about what the
//! facts mean. Which endpoints a Service may use is `plan`'s business.

#![forbid(unsafe_code)]

mod algorithm;
mod attached;
mod change;
mod cluster;
mod cluster_policies;
mod cluster_policy;
mod fact;
mod fill;
pub mod intake;
mod key;
mod labels;
mod pods;
mod policy;
mod problem;
mod text;
pub mod workloads;

pub use algorithm::{Algorithm, NoAlgorithm};
pub use attached::{Attachment, Uid};
pub use change::{Change, Dirty};
pub use cluster::Cluster;
pub use cluster_policy::{Action, ClusterPolicy, ClusterRule, Subject, Tier};
pub use fact::{
    Affinity, Conditions, Endpoint, Fact, Hints, Key, Kind, NamedPort, Namespace, Node,
    NodeAddress, Outer, Pod, Publication, Service, ServiceCidr, ServicePort, Slice, SlicePort,
    Spread, TrafficPolicy,
};
pub use fill::by_turns;
pub use key::{Family, PodKey, PolicyKey, Protocol, ServiceKey, SliceKey};
pub use labels::{Ask, LabelSelector, Labels};
pub use policy::{Block, Direction, NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule, PortMatch};
pub use problem::Problem;
pub use text::{Interner, Text};
