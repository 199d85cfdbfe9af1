//! What the tests of several crates share.
//!
//! - [`build`]: objects of the API by a few words, taken through intake.
//! - [`scenario`]: the text format of `tests/scenarios`, read and rewritten.
//! - [`reference`]: NetworkPolicy in the plainest words.
//! - [`rig`]: a cluster, its plan and its images, kept up change by change.
//! - [`namespace`]: a test in namespaces of its own.
//! - [`packets`]: the law that holds nftables to what `why` says.
//! - [`strategy`]: random clusters, histories, views and packets.
//!
//! The laws themselves are tests of this crate: incremental equals from
//! scratch in every order, deltas add up to images, and rules do to a packet
//! what the trace says.

#![forbid(unsafe_code)]

pub mod build;
pub mod namespace;
pub mod packets;
pub mod reference;
pub mod rig;
pub mod scenario;
pub mod strategy;
mod way_back;
