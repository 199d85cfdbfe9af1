//! What is looked at before the zones: names that are rewritten, and names that
//! are written down.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use portolan_dns::upstream::{Rewrites, Rewritten};
use portolan_dns::{Answer, Lookup, Rtype, Transport, Zones};

/// Rewriting rules and static names. A new value holds from the next query on.
#[derive(Debug, Default)]
pub struct Front {
    /// Applied to the name of each query, and undone in its reply.
    pub rewrites: Rewrites,
    /// Asked before the cluster's zones. They fall through: what they do not have
    /// is answered as if they were not there.
    pub hosts: Zones,
    /// The addresses in replies of others come in turn.
    pub rotate: bool,
    /// How many entries the written names have, each way.
    pub written: usize,
    /// When they were read, if there are any.
    pub read_at: Option<SystemTime>,
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
        if self.has_written(query) {
            return self.hosts.answer(query, transport, rotation, out);
        }
        zones.answer(query, transport, rotation, out)
    }

    /// Whether the name of a query is written down. Whole zones are none of this.
    pub(super) fn has_written(&self, query: &[u8]) -> bool {
        if self.hosts.iter().next().is_none() {
            return false;
        }
        portolan_dns::question(query).is_some_and(|question| {
            let transfer = matches!(question.rtype, Rtype::AXFR | Rtype::IXFR);
            !transfer && self.hosts.lookup(&question.name, question.rtype) != Lookup::Outside
        })
    }
}
