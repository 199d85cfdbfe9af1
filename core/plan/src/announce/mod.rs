//! Who tells others of load balancers' addresses, and how (L4, L8, L9, L10).
//!
//! An address of a pool is of no use before the network knows where it is. One node of
//! a link answers for it, or routers are told that it is behind the nodes:
//!
//! ```text
//!   Service ──► its addresses ──► the pool of each ──► announcements that take both
//!                                                        │                  │
//!                                       nodes with a link for it     nodes with a peer
//!                                          (one of them answers)     (each tells its own)
//! ```
//!
//! [`account`] says of one address who may announce it, and of everybody else why not:
//! `portolan lb explain` prints it. [`Announcing`] is what one node makes of the
//! accounts: for which addresses it is among those that may answer, and which routes
//! it tells which peer. Services are looked at one by one, and what they touch is
//! answered, so a change costs what it concerns.
//!
//! A pool of our own that no announcement is about is announced on every link that
//! has a subnet with the address in it: in a network at home nothing else is wanted.
//! MetalLB's pools are announced only where an object says so, as its users expect.
//!
//! Deliberately absent: who of several nodes answers, since only the agents know who of
//! them is alive; nodes' own addresses, which need no announcement.

mod account;
mod announcing;
mod ground;
#[cfg(test)]
mod laws;
mod mute;
mod report;
mod shared;
#[cfg(test)]
mod testbed;
#[cfg(test)]
mod tests;

pub use account::{Account, Links, OnLinks, Route, ToPeers, Told, account};
pub use announcing::{Announcing, Candidates, RouteKey, Touched};
pub use ground::{Facts, Ground, Standing};
pub use mute::{Mute, Unsaid};
pub use report::{About, Fault, Report, Reports, Subject, reports};
pub use shared::Shared;

/// Links that are left out where an announcement names none, by the beginnings of
/// their names: those that MetalLB leaves out as well, and those of pods here. Behind
/// them are containers, and no neighbours that would ask.
pub const LEFT_OUT: [&str; 12] = [
    "docker",
    "cbr",
    "dummy",
    "virbr",
    "lxcbr",
    "veth",
    "cali",
    "tunl",
    "flannel",
    "kube-ipvs",
    "cni",
    "nodelocaldns",
];
