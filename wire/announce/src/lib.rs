//! Who answers for an address, and to whom it is told.
//!
//! An address that stands for a service belongs to no network card. Either one
//! node of the link answers for it ([`l2`], and [`election`] says which), or
//! routers are told by which nodes it is reached ([`bgp`], and [`bfd`] notices a
//! broken path sooner). Each is a machine without a clock or a socket: bytes,
//! decisions and times go in, and bytes, deadlines and news come out. A time is a
//! [`Duration`](std::time::Duration) since any fixed start.
//!
//! Absent on purpose: I/O, Kubernetes, the allocation of addresses, routes that
//! others announce (they are counted and dropped).
#![forbid(unsafe_code)]

pub mod bfd;
pub mod bgp;
pub mod election;
pub mod l2;
mod random;
