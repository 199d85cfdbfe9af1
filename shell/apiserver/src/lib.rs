//! The embedded Kubernetes API server: kubectl, kube-rs and the agents speak
//! to it over TLS and cannot tell it from a cluster's.
//!
//! One request goes through the modules in this order: `listen` (connection,
//! `tls`) → `dispatch` → `request` (what is asked) → `auth` → `rest` (one file
//! per verb) → `store` (one writer, one file, and the cache that readers and
//! watchers see).
//!
//! What is decided about objects (defaults, validation, patches, tables) is in
//! `portolan-api`, and which address or port a Service gets is decided by
//! `portolan_plan::allocate`; this crate owns the clock, the sockets, the file
//! and the randomness.
//!
//! Deliberately absent: webhooks, aggregation, RBAC objects, several replicas,
//! answers in protobuf (clients that write it also read JSON).

#![forbid(unsafe_code)]

mod config;
mod pods;
mod server;

mod listen;
mod tls;

mod dispatch;
mod registry;
mod request;

mod auth;
mod identity;
mod limits;

mod answer;
mod negotiate;

mod documents;
mod health;
mod metrics;

mod context;
mod custom;

mod rest;
mod select;
mod streams;

mod allocator;

mod store;

mod bootstrap;
mod janitor;
mod service_ips;

pub use config::{Config, OpenError, ServeError};
pub use pods::{
    AttachRequest, ConnectHost, ConnectNodeRequest, ConnectRequest, Connection, ContainerTarget,
    ExecRequest, Exit, Input, LogError, LogOptions, LogRequest, LogStream, Output, PodBackend,
    Process, StreamError, Streams, TerminalSize,
};
pub use server::{Server, cluster_dns};
