//! What should be: every decision about packets and names, with its reason.
//!
//! A feature a user can name is one file here. [`node`] plans one node from
//! scratch and [`renode`] again after a change; both fold the same per-key
//! functions, so they cannot differ. Nothing is decided after this crate:
//! renderers turn a [`NodePlan`] into images without knowing Kubernetes.
//!
//! Decisions never fail. Bad input was reported at intake; an endpoint that is
//! left out, a packet that is refused, carries its [`Reason`] as data.
//!
//! Deliberately absent: rules, maps, zones (they are `render`'s), and anything
//! that depends on the order in which changes arrived.

#![forbid(unsafe_code)]

mod affinity;
pub mod allocate;
pub mod announce;
mod balance;
pub mod conntrack;
pub mod endpoints;
mod frontend;
mod health;
pub mod load_balancer;
mod masquerade;
mod names;
mod node;
mod outer;
pub mod policy;
mod reason;
mod replies;
mod services;
pub mod slices;
mod usable;
mod view;
pub mod workloads;

pub use affinity::{Remembered, is_stale};
pub use balance::{Balance, CLIENT_SEED, MOST_SLOTS, TABLE_SIZES};
pub use frontend::{
    Decision, Draw, Forward, Frontend, Lane, Masquerade, Outlying, Place, Selection, Shape, Target,
    Verdict,
};
pub use health::{Health, health};
pub use names::{NamedEndpoint, NamedPort, Names, dashed, names};
pub use node::{NodePlan, Touched, node, renode};
pub use reason::{Policy, Reason};
pub use replies::{Neighbour, REPLY_MASK, Replies};
pub use services::{Owner, claims, decide, owner};
pub use usable::{Chosen, Usable, usable};
pub use view::{
    CUT_BIT, DNS_PORT, DNS_TTL, Deny, Detector, LinkName, NodePortAddresses, NodePorts, NodeView,
    OpenNodePorts, PodNames, of_family,
};
