//! The API over a real connection, with kube's client.

#![expect(clippy::unwrap_used, reason = "tests")]

mod access;
mod apply;
mod common;
mod ending;
mod objects;
mod owning;
mod patching;
mod replay;
mod reviews;
mod watching;
