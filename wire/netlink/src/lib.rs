//! Netlink's messages as bytes: written, framed, and read without trust.
//!
//! What the netfilter subsystems have in common: a [`Writer`] puts messages and
//! nested attributes into one buffer, [`messages`] finds them in an answer, and
//! [`Attrs`] reads attributes. What the messages mean is their crate's business.
#![forbid(unsafe_code)]

mod attr;
mod message;

pub use attr::{Attrs, Open, Writer};
pub use message::{Message, messages};
