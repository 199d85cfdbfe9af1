//! The Kubernetes API language as pure values.
//!
//! What a Kubernetes API server knows about its kinds, without the server:
//! which kinds there are, how an object is defaulted, validated, prepared for
//! storage, patched, selected, printed as a table row and described to
//! clients. Every function takes values and returns values; the server around
//! it adds storage, allocation and the network, the agent adds a watch.
//!
//! Objects are [`serde_json::Value`]s, so that no field is lost that this
//! crate does not know. Where a decision needs only a few fields, [`lean`] has
//! typed views of them.
//!
//! One row in [`kinds`] and one file beside it make a kind appear in
//! discovery, REST, tables, validation and OpenAPI.
//!
//! Kinds of CustomResourceDefinitions are made by [`custom`] and used like
//! those of the table.
//!
//! Deliberately absent: clocks (a `now` argument where an age is printed),
//! allocation of addresses and ports, storage, evaluation of expressions (an
//! engine is passed in), and conversion by webhooks.
#![forbid(unsafe_code)]

pub mod cause;
pub mod status;

pub mod meta;
pub mod value;

pub mod custom;
pub mod kinds;
pub mod lean;
pub mod scale;
pub mod shipped;

pub mod defaults;
pub mod validate;

pub mod managed;
pub mod patch;
pub mod selector;

pub mod schema;

pub mod dns_configuration;

pub mod discovery;
pub mod fields;
pub mod openapi;

pub mod protobuf;

pub mod table;
pub mod yaml;

pub use cause::{Cause, CauseReason};
pub use kinds::Kind;
pub use status::Status;

/// The project's API group, and the prefix of its labels and annotations.
pub const GROUP: &str = "portolan.dev";
