//! The loops: `node` runs on each node (data plane and DNS), `announce` tells the
//! network where load balancers' addresses are, `cluster` runs the controllers of a
//! cluster.

pub mod announce;
pub mod cleanup;
pub mod cluster;
pub mod dns;
mod drops;
pub mod gate_socket;
mod health;
mod localhost;
mod metrics;
pub mod names_alone;
pub mod node;
pub mod replies;
