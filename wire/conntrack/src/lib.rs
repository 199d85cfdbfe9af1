//! Connection tracking as values, and as the kernel's messages of it.
//!
//! An [`Entry`] is one connection that the kernel follows: the tuple of its
//! first packet, and the tuple by which answers are known. The two differ where
//! addresses are translated: then answers do not come from where the first
//! packet went to.
//!
//! [`dump`] asks for the entries that pass a [`Filter`], [`messages`] and
//! [`Entry::decode`] read the answers, and [`delete`] writes the requests that
//! end entries. Nothing here sends.
//!
//! A deletion names an entry by its tuple *and* by its id: between a look and a
//! deletion the entry may be gone and another one may have its tuple. There is
//! no other deletion: one without a tuple would end everything there is.
//!
//! Absent on purpose: I/O, Kubernetes, events, expectations, and what protocols
//! remember of a connection beyond its tuples.
#![forbid(unsafe_code)]

mod entry;
mod message;
#[cfg(test)]
mod tests;

pub use entry::{Ends, Entry, Status, Tuple};
pub use message::{Family, Filter, Requests, delete, dump, mark};
pub use portolan_netlink::{Message, messages};
