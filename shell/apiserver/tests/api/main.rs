//! The API over a real connection, with kube's client.

#![expect(clippy::unwrap_used, reason = "tests")]

mod access;
mod common;
mod ending;
mod objects;
mod replay;
mod reviews;
mod watching;
