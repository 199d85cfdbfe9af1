//! The nftables plane: what the kernel holds, made equal to what it should.
//!
//! A change is a delta, committed as it is. At start, after an error and when
//! somebody else changed the ruleset, the whole image is compared with what the
//! kernel really holds, and the difference is committed.

use std::collections::BTreeMap;

use portolan_kernel::netns::NetNs;
use portolan_kernel::nft::{CommitError, Nft, OpenError, ReadError};
use portolan_nft::{Batch, Ruleset, Table, TableId, diff_into};
use portolan_plan::{NodePlan, is_stale};
use portolan_render::nft as render;

/// A namespace's nftables, as far as they are ours.
pub(crate) struct Plane {
    nft: Nft,
    /// The ruleset's generation when it was last looked at, and how many commits
    /// were ours then: each of ours moves it on by one, and more is others' doing.
    seen: Option<(u32, u32)>,
}

/// Why the plane does not stand.
#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    /// No netlink socket.
    #[error("open nftables in the node's namespace")]
    Open(#[source] OpenError),
    /// Our tables could not be read.
    #[error("read our tables from the kernel")]
    Read(#[source] ReadError),
    /// A commit was refused as a whole.
    #[error("commit to nftables")]
    Commit(#[source] CommitError),
}

impl Plane {
    /// Opens the nftables of a namespace.
    pub(crate) fn open(netns: &NetNs) -> Result<Self, PlaneError> {
        let nft = Nft::open(netns).map_err(PlaneError::Open)?;
        Ok(Self { nft, seen: None })
    }

    /// Commits a delta.
    pub(crate) fn commit(&mut self, delta: &Batch) -> Result<(), PlaneError> {
        if delta.is_empty() {
            return Ok(());
        }
        self.nft.commit(delta).map_err(PlaneError::Commit)
    }

    /// Compares what the kernel holds with the plan and commits the difference;
    /// returns how many operations that took.
    ///
    /// Only where both differ they are compared element by element: mostly they are
    /// equal, and whole images are the largest thing that an agent could hold.
    pub(crate) fn repair(&mut self, plan: &NodePlan) -> Result<usize, PlaneError> {
        // What others do from here on is seen by the next look.
        self.is_foreign()?;
        let wanted = render::outlines(plan);
        let mut held = BTreeMap::new();
        for id in wanted.keys() {
            if let Some(outline) = self.nft.outline(id).map_err(PlaneError::Read)? {
                held.insert(id.clone(), outline);
            }
        }
        let steps = if held == wanted {
            0
        } else if held.is_empty() {
            self.make(plan)?
        } else {
            drop((held, wanted));
            self.mend(plan)?
        };
        Ok(steps)
    }

    /// Makes our tables where there are none.
    fn make(&mut self, plan: &NodePlan) -> Result<usize, PlaneError> {
        let mut steps = 0;
        for batch in render::start(plan) {
            steps += batch.steps.len();
            self.nft.commit(&batch).map_err(PlaneError::Commit)?;
        }
        Ok(steps)
    }

    /// Makes ours what is there.
    fn mend(&mut self, plan: &NodePlan) -> Result<usize, PlaneError> {
        let wanted = render::image(plan);
        let mut held = Ruleset::new();
        for id in wanted.tables.keys() {
            if let Some(table) = self.nft.read(id).map_err(PlaneError::Read)? {
                tell_layout(id, &table);
                held = held.with(id.clone(), table);
            }
        }
        let difference = diff_into(&held, wanted);
        drop(held);
        let done = if difference.makes_anew() {
            self.nft.commit_at_once(&difference)
        } else {
            self.nft.commit(&difference)
        };
        done.map_err(PlaneError::Commit)?;
        Ok(difference.steps.len())
    }

    /// Forgets the clients whose endpoint is none any more (P13); returns how many.
    pub(crate) fn forget_clients(&mut self, plan: &NodePlan) -> Result<usize, PlaneError> {
        forget_clients(&mut self.nft, plan)
    }

    /// Whether somebody else changed the ruleset since it was last looked at.
    pub(crate) fn is_foreign(&mut self) -> Result<bool, PlaneError> {
        let now = self.nft.generation().map_err(PlaneError::Read)?;
        let ours = self.nft.commits();
        let before = self.seen.replace((now, ours));
        Ok(before.is_none_or(|(generation, commits)| {
            generation.wrapping_add(ours.wrapping_sub(commits)) != now
        }))
    }

    /// Whether one of our tables is gone.
    pub(crate) fn is_missing(&mut self) -> Result<bool, PlaneError> {
        for id in render::tables() {
            if !self.nft.exists(&id).map_err(PlaneError::Read)? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// Tells of a table that an agent of another version has left. Whatever it is, it
/// becomes ours by the difference.
fn tell_layout(id: &TableId, table: &Table) {
    let ours = render::LAYOUT;
    match render::layout(table) {
        Some(found) if found == ours => {}
        Some(found) => {
            tracing::info!(table = %id, found, ours, "the table has another version's layout");
        }
        None => tracing::info!(table = %id, ours, "the table does not say its layout"),
    }
}

/// Takes the clients whose endpoint is none any more (P13) out of the kernel's
/// memory; returns how many. It costs what is remembered.
///
/// # Errors
/// If the kernel does not answer or refuses.
pub fn forget_clients(nft: &mut Nft, plan: &NodePlan) -> Result<usize, PlaneError> {
    let mut count = 0;
    for (table, map) in render::memories() {
        let learned = nft.learned(&table, &map).map_err(PlaneError::Read)?;
        let stale: Vec<_> = learned
            .into_iter()
            .filter(|(key, data)| {
                render::remembered(&table, key, data)
                    .is_none_or(|remembered| is_stale(plan, &remembered))
            })
            .map(|(key, _)| key)
            .collect();
        count += stale.len();
        nft.forget(&table, &map, stale)
            .map_err(PlaneError::Commit)?;
    }
    Ok(count)
}
