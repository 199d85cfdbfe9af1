//! A BGP speaker that announces addresses and accepts no routes.
//!
//! [`Session`] is one peer: configuration, what the peer sends and times go in;
//! bytes to send, connections to open and close, and news come out. It is made of
//!
//! - [`fsm`]: the table of RFC 4271 section 8, one connection's states and what
//!   each event does to them, as plain data;
//! - [`open`]: our OPEN, and the judgement of the peer's;
//! - [`stream`]: bytes of a connection into messages;
//! - [`received`]: what an UPDATE of the peer is worth by RFC 7606. Its routes are
//!   counted and dropped;
//! - [`rib`]: which prefixes the peer should hear of, and which it has heard of;
//!   the difference as UPDATEs that are as full as they can be.
//!
//! ```text
//!            ┌────────────────────────── any error: IdleHold ──────────────────────────┐
//!            ▼                                                                         │
//!        ┌──────┐ start  ┌─────────┐ connected ┌──────────┐ OPEN ┌─────────────┐ KEEPALIVE ┌─────────────┐
//!   ───► │ Idle ├───────►│ Connect ├──────────►│ OpenSent ├─────►│ OpenConfirm ├──────────►│ Established │
//!        └──────┘        └────▲────┘           └────┬─────┘      └─────────────┘           └─────────────┘
//!                 ConnectRetry│                     │ connection lost
//!                        ┌────┴────┐                │
//!                        │ Active  │◄───────────────┘
//!                        └─────────┘
//! ```
//!
//! Two connections may come up at once, one from each side. Each has a machine of
//! its own, and their OPENs decide which stays (section 6.8).
//!
//! **Graceful restart** (RFC 4724): we are the side that restarts. A process that
//! ends closes its connections without a word ([`Session::leave`]), the peer goes
//! on forwarding to us, since the kernel still serves, and the next process says
//! in its OPEN that it has restarted and that forwarding never stopped. End-of-RIB
//! is held back until [`Session::complete`]: before everything is known again, the
//! peer must not forget what it has not heard again.
//!
//! Messages are those of `rustbgpd-wire`, which is called in this room only.
//!
//! Absent on purpose: DelayOpen, AddPath, messages over 4096 bytes, authentication
//! (TCP-MD5 is the socket's), a table of received routes, and the timer between
//! advertisements (section 9.2.1.1): a change is announced when it is flushed.

pub mod attributes;
pub mod config;
pub mod fsm;
pub mod open;
pub mod received;
pub mod rib;
pub mod session;
pub mod stream;
#[cfg(test)]
mod tests;

pub use attributes::Attributes;
pub use config::{Config, Family};
pub use open::Agreed;
pub use session::{Connection, Input, News, Output, Reason, Session, Status, Stop};

use bytes::Bytes;
use rustbgpd_wire::{DecodeError, NotificationCode, notification};
use std::fmt;

/// A NOTIFICATION: what is wrong, by the numbers of RFC 4271 section 4.5.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// The error code.
    pub code: u8,
    /// Its subcode.
    pub subcode: u8,
    /// What the code says of it.
    pub data: Bytes,
}

impl Notice {
    /// A notice without data.
    #[must_use]
    pub const fn new(code: u8, subcode: u8) -> Self {
        Self {
            code,
            subcode,
            data: Bytes::new(),
        }
    }
}

impl fmt::Display for Notice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = NotificationCode::from_u8(self.code);
        let text = notification::description(code, self.subcode);
        write!(f, "{text} ({}/{})", self.code, self.subcode)
    }
}

impl From<&DecodeError> for Notice {
    fn from(error: &DecodeError) -> Self {
        let (code, subcode, data) = error.to_notification();
        Self {
            code: code.as_u8(),
            subcode,
            data,
        }
    }
}

/// Error codes of NOTIFICATION messages.
pub mod code {
    /// The message header.
    pub const HEADER: u8 = 1;
    /// An OPEN.
    pub const OPEN: u8 = 2;
    /// An UPDATE.
    pub const UPDATE: u8 = 3;
    /// Nothing was heard for the hold time.
    pub const HOLD_TIMER: u8 = 4;
    /// A message that does not belong there.
    pub const STATE_MACHINE: u8 = 5;
    /// The session ends without an error of the protocol.
    pub const CEASE: u8 = 6;
}
