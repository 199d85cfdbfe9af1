//! Netlink messages of nf_tables: batches to the kernel, dumps from it.
//!
//! [`encode`] makes transactions of a [`Batch`](crate::Batch), [`Request`] asks for
//! dumps, and [`Dump`] puts the answers together into a [`Ruleset`](crate::Ruleset).
//! Nothing here sends: a transaction is bytes for one `sendmsg`.
//!
//! Statements become expressions over registers in `lower`, and are found again
//! in them by `raise`; `udata` writes what only the `nft` program reads.

mod consts;
mod dump;
mod encode;
mod expr;
mod foreign;
mod lower;
mod raise;
mod set;
mod udata;

pub use dump::{Dump, Request};
pub use encode::{Transaction, encode};
pub use foreign::{Foreign, Lead};
use portolan_netlink as attr;
pub use portolan_netlink::{Message, messages};
