//! A typed language for nftables rulesets.
//!
//! A [`Ruleset`] is a value: tables of chains, rules, sets and maps, as nft's own
//! syntax has them. The same value can be
//!
//! - printed, byte for byte as `nft list ruleset` of nft 1.0.6 prints it ([`Ruleset::text`]);
//! - compared with another one, which gives a [`Batch`] of operations ([`diff`]), and
//!   changed by a batch ([`Ruleset::apply`]);
//! - written as netlink messages and read from them ([`netlink`]);
//! - run: a packet is sent through its hooks ([`interp`]), without a kernel.
//!
//! The language is that of nft's statements, not that of the kernel's registers:
//! nft aborts for every user of a machine when it lists a rule it cannot turn back
//! into a statement, so a value of these types always has a text. Registers exist
//! only inside [`netlink`].
//!
//! Elements are kept as the kernel sees them (register-padded bytes), because one
//! map may hold a hundred thousand: see [`Tuple`]. An element change is never a
//! change of the set: batches carry elements of their own, so that the cost of an
//! update is the number of changed elements.
//!
//! Absent on purpose: Kubernetes, I/O, handles (a changed chain is flushed and
//! written again inside the same transaction, so no handle is ever needed), and
//! everything of nftables that nobody here uses.
#![forbid(unsafe_code)]

mod batch;
mod diff;
mod field;
pub mod hash;
pub mod interp;
pub mod netlink;
pub mod order;
mod outline;
mod rule;
mod set;
mod table;
mod text;
mod value;

pub use batch::{ApplyError, Batch, Op, Step};
pub use diff::{diff, diff_into};
pub use field::{Field, Jhash, Numgen};
pub use outline::{Digest, Outline};
pub use rule::{Compare, Counts, DnatTo, DynOp, MatchOp, RejectKind, Rule, Statement, Verdict};
pub use set::{Data, Key, Set, SetData, SetFlags, Shape};
pub use table::{Base, Chain, ChainType, Family, Hook, Name, Ruleset, Table, TableId};
pub use value::{CtState, CtStatus, FibType, Tuple, Value};
