//! Tests against the real kernel: packets, crashes, and what is left behind.
//!
//! Each test makes namespaces of its own; nothing here needs root, and nothing
//! skips in silence.
//!
//! For packets: a [`world`] of the lab's own nodes and pods, whose rules are made
//! of [`facts`]; [`talk`] is what its servers and clients say; [`journey`] is what
//! the plan says will become of a packet, against which both are held; [`raw`] is
//! what no ordinary client says. The
//! [`town`] is such a world with a Service of every kind.

pub mod namespace;
pub mod processes;

pub mod facts;
pub mod journey;
pub mod raw;
pub mod sender;
pub mod talk;
pub mod town;
pub mod world;
