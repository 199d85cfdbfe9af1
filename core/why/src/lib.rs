//! Why a packet goes where it goes.
//!
//! [`trace`] reads the plan, whose decisions carry their reasons, and adds the
//! names that the cluster knows. It is no second implementation of the data
//! plane: the tests run random packets through the rendered nftables rules and
//! hold those to what is said here.
//!
//! [`doctor`] walks the checklist of what can be wrong with a Service; [`policy`] tells
//! which rule lets a connection through, or comes nearest to it.
//!
//! A [`Trace`] is data; [`std::fmt::Display`] writes it for people and
//! [`Trace::json`] for programs.

#![forbid(unsafe_code)]

pub mod doctor;
mod json;
pub mod policy;
mod show;
mod trace;

pub use trace::{Candidate, Client, Found, Outcome, Packet, Source, Trace, trace};
