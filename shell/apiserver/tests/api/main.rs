//! The API over a real connection, with kube's client.

#![expect(clippy::unwrap_used, reason = "tests")]

mod access;
mod common;
mod objects;
mod reviews;
mod watching;
