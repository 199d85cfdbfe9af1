//! BFD for one hop and for several (RFC 5880, RFC 5881, RFC 5883): whether the path to
//! a neighbour carries packets, told within a second.
//!
//! [`Session`] is one neighbour, in asynchronous mode and the active role. Packets
//! that arrive and times go in; packets to send and changes of state come out.
//!
//! ```text
//!              the neighbour says that it is…
//!              AdminDown   Down   Init   Up      …or nothing for the detection time
//!   Down       Down        Init   Up     Down    Down
//!   Init       Down        Init   Up     Up      Down
//!   Up         Down        Down   Up     Up      Down
//! ```
//!
//! The socket sends from a port of 49152 to 65535 to port 3784 with a TTL of 255, and
//! tells which TTL a packet arrived with (RFC 5881 sections 4 and 5): others than 255
//! come from somewhere else and are dropped. Over several hops it is port 4784, and as
//! much less as there may be hops ([`Config::least_ttl`]).
//!
//! Absent: authentication (a packet that has it is dropped; on one hop the TTL is
//! what keeps others out), demand mode of our own (the neighbour's is obeyed), the
//! echo function. The Control Plane Independent bit is not set: when
//! this process ends, the neighbour sees the path end too, and RFC 5882 section
//! 4.3.2 tells it that a graceful restart may be the reason.

mod packet;
mod session;
#[cfg(test)]
mod tests;

pub use packet::{Diagnostic, Packet, State};
pub use session::{Config, Output, Session, TTL, next};
