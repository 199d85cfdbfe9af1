//! A cluster with everything that is derived from it, kept up change by change.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use portolan_dns::Zones;
use portolan_model::{Change, Cluster, Dirty};
use portolan_nft::{Batch, Outline, Ruleset};
use portolan_plan::{NodePlan, NodeView, node, renode};
use portolan_render::{nft, zone};

/// Facts, plan and images of one node.
#[derive(Debug, Clone)]
pub struct Rig {
    /// The facts.
    pub cluster: Cluster,
    /// The view without what the Node object says.
    pub given_view: NodeView,
    /// The plan, whose view is the observed one.
    pub plan: NodePlan,
    /// The nftables image, built up by deltas.
    pub ruleset: Ruleset,
    /// The DNS image, built up by deltas.
    pub zones: Zones,
}

impl Rig {
    /// A rig that knows nothing.
    pub fn new(view: NodeView) -> Self {
        let plan = NodePlan::empty(view.clone());
        let (ruleset, zones) = (nft::image(&plan), zone::image(&plan, 1));
        Self {
            cluster: Cluster::default(),
            given_view: view,
            plan,
            ruleset,
            zones,
        }
    }

    /// Takes changes in as the agent does: drain, plan once, render once.
    pub fn apply(&mut self, changes: impl IntoIterator<Item = Change>) -> Result<()> {
        self.step(changes).map(|_| ())
    }

    /// The same; what the kernel is told.
    pub fn step(&mut self, changes: impl IntoIterator<Item = Change>) -> Result<Batch> {
        let mut dirty = Dirty::default();
        for change in changes {
            dirty.merge(self.cluster.apply(change));
        }
        let view = self.given_view.observed(&self.cluster);
        let touched = renode(&mut self.plan, &self.cluster, &view, &dirty);
        let batch = nft::delta(&self.plan, &touched);
        if let Err(error) = self.ruleset.apply(&batch) {
            bail!("the kernel would refuse the batch: {error:?}\n{batch:#?}");
        }
        zone::delta(&self.plan, &touched, &mut self.zones);
        Ok(batch)
    }

    /// Changes the configured part of the view.
    pub fn look(&mut self, view: NodeView) -> Result<()> {
        self.given_view = view;
        self.apply([])
    }

    /// The laws: what was built up equals what is made from scratch.
    pub fn check(&self) -> Result<()> {
        let view = self.given_view.observed(&self.cluster);
        let plan = node(&self.cluster, &view);
        ensure!(
            self.plan == plan,
            "renode differs from node:\n{:#?}\n{plan:#?}",
            self.plan
        );
        let ruleset = nft::image(&plan);
        ensure!(
            self.ruleset == ruleset,
            "deltas differ from image, which would need {:#?}",
            portolan_nft::diff(&self.ruleset, &ruleset)
        );
        let mut started = Ruleset::new();
        for batch in nft::start(&plan) {
            if let Err(error) = started.apply(&batch) {
                bail!("the kernel would refuse to start: {error:?}");
            }
        }
        ensure!(started == ruleset, "a start differs from the image");
        let outlines: BTreeMap<_, _> = ruleset
            .tables
            .into_iter()
            .map(|(id, table)| (id, Outline::of(table)))
            .collect();
        ensure!(
            nft::outlines(&plan) == outlines,
            "outlines differ from those of the image"
        );
        let zones = zone::image(&plan, 1);
        ensure!(
            self.zones == zones,
            "zone deltas differ from image:\n{:?}\n{zones:?}",
            self.zones
        );
        Ok(())
    }
}
