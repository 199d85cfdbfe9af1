//! The host's side of the lab, and the lab's handle on it.
//!
//! The broker is the original process, still in the host's namespaces, with one
//! thread and one poll loop ([`serve`]). It makes sockets of the host when the
//! lab asks and hands them over; it never reads or writes what goes through
//! them. It asks the lab to stop when it gets Ctrl-C or TERM, and exits with
//! the lab's exit code. The lab talks to it through [`Broker`].
//!
//! What it will do is deliberately little: listen where it is told to, and
//! connect to the host's own resolvers. The lab has no other way out.

mod client;
mod serve;
mod wire;

pub use client::{Broker, BrokerError};
pub(crate) use serve::serve;

/// The port on which resolvers are asked, the only one that the broker
/// connects to.
pub const DNS_PORT: u16 = 53;
