//! What is looked at before the zones: names that are rewritten, and names that
//! are written down.

use std::sync::Arc;

use arc_swap::ArcSwap;
use portolan_dns::upstream::{Rewrites, Rewritten};
use portolan_dns::{Answer, Transport, Zones};

/// Rewriting rules and static names. A new value holds from the next query on.
#[derive(Debug, Default)]
pub struct Front {
    /// Applied to the name of each query, and undone in its reply.
    pub rewrites: Rewrites,
    /// Asked before the cluster's zones. They fall through: what they do not have
    /// is answered as if they were not there.
    pub hosts: Zones,
}

/// A place where the current value is found.
pub type SharedFront = Arc<ArcSwap<Front>>;

impl Front {
    /// The query to answer in place of `query`, if a rule says so.
    pub(super) fn rewrite(&self, query: &[u8]) -> Option<Rewritten<'_>> {
        self.rewrites.query(query)
    }

    /// Answers from the written names, then from the zones.
    pub(super) fn answer(
        &self,
        zones: &Zones,
        (query, transport): (&[u8], Transport),
        rotation: u64,
        out: &mut Vec<u8>,
    ) -> Answer {
        if self.hosts.iter().next().is_some() {
            match self.hosts.answer(query, transport, rotation, out) {
                Answer::Forward => {}
                other @ (Answer::Reply | Answer::Follow(_) | Answer::Drop) => return other,
            }
        }
        zones.answer(query, transport, rotation, out)
    }
}
