//! One node's loop: facts in, kernel and names out.
//!
//! ```text
//! list+watch ─► Cluster ─► plan ─► delta ─► nftables
//!                  │         └──► zone  ─► DNS sockets
//!                  └─► flows that must end ─► connection tracking
//! ```
//!
//! One task owns the cluster and the plan. It drains its queue, plans once,
//! renders what was touched, commits once. Nothing is programmed before every
//! watched kind has finished its first list, and the agent's end leaves what is
//! programmed as it is: the next agent reads it and commits the difference.

mod alone;
mod config;
mod flows;
mod gate;
mod kube_proxy;
mod names;
mod patience;
mod plane;
mod state;
mod withheld;

pub use alone::PRESENCE;
pub use config::{HEALTHZ, METRICS, NodeConfig};
pub use flows::Flows;
pub use gate::Gate;
pub use names::NamesError;
pub(crate) use names::{LOOPBACK, first_serial, frame, service_addresses};
pub use plane::{PlaneError, forget_clients};
pub use state::{NodeError, run};
