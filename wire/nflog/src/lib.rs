//! Packets that rules logged, as the kernel's nfnetlink_log tells of them.
//!
//! [`join`] writes the requests that make a socket the listener of a group, and
//! [`Logged::decode`] reads what it hears: the beginning of a packet, of which
//! [`Ends`] are the addresses, the protocol and the ports. Nothing here sends.
//!
//! A group has one listener in a network namespace, and what it does not take in time
//! is lost: each message has a number, so that gaps can be counted.
//!
//! Absent on purpose: I/O, Kubernetes, and whatever else the kernel can tell of a
//! packet (its links, its mark, who sent it).
#![forbid(unsafe_code)]

mod ends;
mod message;
#[cfg(test)]
mod tests;

pub use ends::Ends;
pub use message::{Logged, join};
pub use portolan_netlink::{Message, messages};
