//! The way back of connections whose clients keep their address under
//! `externalTrafficPolicy: Cluster` (see [`portolan_plan::Replies`]): who of the other
//! nodes takes part, by which way each is reached, and what they are told of this one.
//!
//! Nodes tell each other by Leases. A node's word has the Ethernet addresses of its
//! links, the ranges of its pods, and to which nodes it sends answers back: those whose
//! Ethernet addresses, rule and route its kernel holds. A client keeps its address only
//! on the way to a node that has said so and renews its Lease; else it is masqueraded
//! as ever. The other way round a node goes on sending answers back for as long as
//! there is a Lease, however old: the rules of a node whose agent is away go on too.
//!
//! ```text
//!  others' Leases ─┐                ┌─► rules and routes, one for each neighbour
//!  links, routes ──┼─► what is so ──┼─► Replies ─► node's loop ─► nftables
//!  what it holds ──┘                └─► own Lease  ◄── what nftables holds ──┘
//! ```
//!
//! The numbers of neighbours stand in marks of connections that live on, so an agent
//! that starts takes them from the routes that it finds.

mod hand;
mod outside;
mod paths;
mod said;
mod state;

pub(crate) use hand::Hand;
pub use outside::{LABEL, seen_in};

use std::time::Duration;

/// How often a Lease is renewed, as kubelets renew those of nodes.
const RENEW: Duration = Duration::from_secs(10);
/// After so long without renewal a node is not relied on.
const LEASE: Duration = Duration::from_secs(40);
/// How often links and routes are looked at.
const LOOK: Duration = Duration::from_secs(5);

/// Whether clients keep their addresses, and how nodes tell each other of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplyPath {
    /// Whether it is wanted.
    pub on: bool,
    /// The namespace of the Leases.
    pub namespace: String,
    /// The bits of marks that say where a connection came in.
    pub mask: u32,
}

impl Default for ReplyPath {
    /// Off.
    fn default() -> Self {
        Self {
            on: false,
            namespace: "kube-system".to_owned(),
            mask: portolan_plan::REPLY_MASK,
        }
    }
}
