//! Which node answers for an address, and whether nodes are still there.
//!
//! **Who**: [`leader`] draws a number for each pair of node and address and takes the
//! node with the highest. Everybody who knows the same nodes finds the same leader,
//! without a word between them; a node that goes takes along only what it led, and
//! one that comes takes only what it leads.
//!
//! **Among whom**: [`Agents`] is one agent's view of the others. Each sends a small
//! sealed datagram, a [`Beat`], some times in a second to all others, and counts those
//! alive whose beats arrive:
//!
//! ```text
//!                    beat                  silence: misses × interval
//!   presumed ──────────────────► alive ◄───┐       or it says that it leaves
//!      │ (at our own start only)   │       │ beats for the time of settling,
//!      │ silence                   ▼       │ or one of who serves
//!      └───────────────────────► dead ──► returning
//!                                  ▲ beat   │ silence
//!                                  └────────┘
//! ```
//!
//! The time of settling is that of detection, and doubles with each death of the last
//! five minutes: who flaps is taken back later and later. Who serves already, since the
//! network had parted or it knew nobody, is taken back at once: to let it settle would
//! be to answer beside it.
//!
//! **Not two at once.** Each beat, and one more as soon as that is otherwise, lists whom
//! its sender counts alive, and an agent
//! counts itself ([`Agents::serving`]) by what it reads there: a node that was given
//! up gives up too, and one that returns serves only after the others have stopped
//! to serve in its place. In detail, where `voters` are the others that are alive:
//!
//! | what it hears | it serves |
//! |---|---|
//! | more than half of its voters count it alive | yes |
//! | more than half do not | no |
//! | half and half; or voters are none, but somebody is heard | as before |
//! | nobody, and it has no other member, or one | yes, after the detection time |
//! | nobody, of two members or more | no |
//!
//! Who is alive and says all the time that it does not serve, since others count it
//! dead, is passed over until it does: nobody waits for it.
//!
//! What this means when a network parts: a node that is cut off alone stops as soon as
//! the others take over (within the detection time of each other), unless the cluster
//! has two nodes only: then both go on, each for the side that it reaches. So do two
//! halves. Where only one direction is broken, the one that is not heard stops. Halves
//! that find together again both answer until their first beats have crossed, and so do
//! agents that started without knowing each other.
//!
//! Members are what the API server knows: agents whose Lease is fresh, on nodes that
//! may announce. That is the second witness: a node that is alone because all others
//! are gone serves again once their Leases have run out.
//!
//! **The seal** is HMAC-SHA256 with a key that the agents share. It is optional:
//! without it, whoever reaches the port can pretend to be any node. With it, nobody
//! can make up beats; recorded ones are refused while their sender lives (each has a
//! higher number than the one before), but can make a node that died seem alive, until
//! it is no longer a member.
//!
//! Absent on purpose: sockets, Leases, and which nodes are fit for an address: who
//! calls [`leader`] gives the nodes that are alive and fit.

mod agents;
mod beat;
mod rendezvous;
#[cfg(test)]
mod tests;

pub use agents::{Agents, Config, Output};
pub use beat::{Beat, Key, Refused};
pub use rendezvous::{Roster, leader, ranked};
