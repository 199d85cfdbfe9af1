//! List, watch and write against any Kubernetes API server.
//!
//! Everything in Portolan but the embedded API server speaks to the cluster
//! through this room. It sits on kube's HTTP client and adds what an agent
//! with little memory needs:
//!
//! * [`watch()`] reads a kind into whatever type the caller deserialises (lean
//!   views, bare metadata, raw JSON), pages the first list, resumes where a
//!   connection broke, and announces a relist so that it can be swapped in
//!   whole. Nothing is cached here.
//! * A kind that the server does not serve counts as an empty first list and
//!   is looked for again.
//! * [`facts::facts()`] turns the kinds the data plane and DNS need into one ordered
//!   stream of [`portolan_model::Change`].
//! * [`Writer`] is the few verbs that controllers need, over raw JSON, so that
//!   no field a newer server knows is lost on the way back.
//!
//! Deliberately absent: informer caches and work queues (the loops in
//! `shell/agent` own their state) and typed objects.

mod backoff;
mod connect;
mod discovery;
pub mod facts;
mod recorder;
mod resource;
mod watch;
mod write;

pub use backoff::Backoff;
pub use connect::{
    ConnectError, from_kubeconfig_file, from_kubeconfig_text, from_service_account, infer,
    server_url,
};
pub use discovery::{Served, discover};
pub use kube::Client;
pub use recorder::{Recorder, Regarding, Severity};
pub use resource::{
    ADDRESS_POOLS, BFD_PROFILES, BGP_ADVERTISEMENTS, BGP_ANNOUNCEMENTS, BGP_PEERS, COMMUNITIES,
    CONFIG_MAPS, CONTROLLER_REVISIONS, DAEMON_SETS, DEPLOYMENTS, ENDPOINT_SLICES, ENDPOINTS,
    EVENTS, IP_ADDRESS_POOLS, L2_ADVERTISEMENTS, L2_ANNOUNCEMENTS, LEASES, METALLB_BGP_PEERS,
    NAMESPACES, NETWORK_POLICIES, NODES, PODS, REPLICA_SETS, Resource, SECRETS, SERVICE_CIDRS,
    SERVICES, STATEFUL_SETS,
};
pub use watch::{Event, Metadata, Params, Versioned, watch, watch_metadata};
pub use write::{Deletion, PatchBody, Propagation, RequestError, Target, Writer};
