//! Who answers for an address, and to whom it is told.
//!
//! An address that stands for a service belongs to no network card: one node of
//! the link answers for it ([`l2`]). Each part is a machine without a clock or a
//! socket: bytes, decisions and times go in, and bytes, deadlines and news come
//! out. A time is a [`Duration`](std::time::Duration) since any fixed start.
//!
//! Absent on purpose: I/O, Kubernetes, the allocation of addresses.
#![forbid(unsafe_code)]

pub mod l2;
