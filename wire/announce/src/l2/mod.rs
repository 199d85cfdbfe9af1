//! Answering for addresses on one link: ARP for IPv4, neighbour discovery for
//! IPv6.
//!
//! [`Link`] is the machine: it holds the addresses that this node owns on a
//! link, turns a frame into the frames that answer it, and repeats who owns an
//! address after a take-over, until every cache has heard it:
//!
//! ```text
//!   own ──► at once ──► 0.1 s ──► 1 s ──► 5 s ──► 20 s ──► each minute, up to 5 min ──► quiet
//!    ▲                                                                           │
//!    └───────────────── release: nothing is sent nor answered any more ◄─────────┘
//! ```
//!
//! Only requests for owned addresses are answered: requests and probes of ARP,
//! solicitations of either form. Whatever is malformed, or comes on another VLAN,
//! is as if it had not come. Who claims an owned address from another station is
//! reported, and answered by one announcement in ten seconds at most (RFC 5227
//! section 2.4, its second way): two that both believe to be the owner must not
//! keep each other busy.
//!
//! Absent on purpose: sockets, joining of groups ([`Link::groups`] says which),
//! resolving the addresses of others, and who owns what
//! ([`crate::election`]).

pub mod arp;
pub mod ethernet;
mod link;
pub mod ndp;
#[cfg(test)]
mod tests;

pub use ethernet::Mac;
pub use link::{Conflict, Heard, Link};
