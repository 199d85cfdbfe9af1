//! The loop itself.

use std::time::Duration;

use portolan_client::facts::{Facts, facts};
use portolan_kernel::conntrack::ConntrackError;
use portolan_model::{Change, Cluster, Dirty, Kind, Problem};
use portolan_plan::conntrack::Scope;
use portolan_plan::{NodePlan, NodeView, Touched, renode};
use portolan_render::nft as render;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::alone::Alone;
use super::config::NodeConfig;
use super::flows::Flows;
use super::names::{Names, NamesError};
use super::plane::{Plane, PlaneError};
use crate::health::Health;

/// How often the ruleset's generation is looked at: foreign changes are found
/// by polling, since one subscriber to notifications makes a bulk commit ten
/// times slower.
const LOOK: Duration = Duration::from_millis(200);
/// After so long without a change our tables are compared in whole.
const QUIET: Duration = Duration::from_secs(60);
/// The first wait before a failed commit is tried again; it doubles.
const RETRY: Duration = Duration::from_millis(50);
/// How often it is looked for clients to be forgotten.
const LOOKS: u8 = 2;
/// The longest wait before a failed commit is tried again.
const RETRY_LIMIT: Duration = Duration::from_secs(5);

/// Why a node's agent ended.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The kernel's side could not be opened.
    #[error("start the agent of node {node}")]
    Plane {
        /// The node.
        node: String,
        /// What failed.
        #[source]
        cause: PlaneError,
    },
    /// Connection tracking could not be opened.
    #[error("start the flows of node {node}")]
    Flows {
        /// The node.
        node: String,
        /// What failed.
        #[source]
        cause: ConntrackError,
    },
    /// The names' side could not be opened.
    #[error("start the names of node {node}")]
    Names {
        /// The node.
        node: String,
        /// What failed.
        #[source]
        cause: NamesError,
    },
    /// The stream of facts ended, which it never does by itself.
    #[error("the watch of the API server ended")]
    FactsEnded,
}

/// Everything that one node's loop owns.
struct State {
    /// The configured view, with what the Node object last said.
    given: NodeView,
    cluster: Cluster,
    plan: NodePlan,
    view: NodeView,
    plane: Plane,
    flows: Flows,
    names: Names,
    health: Health,
    /// Kinds whose first list has not arrived yet.
    awaited: Vec<Kind>,
    /// What changed since the last round of planning.
    dirty: Dirty,
    /// Set after an error and at start: compare the whole image.
    repair: bool,
    /// How often it is still looked for clients to be forgotten: once after a
    /// commit, and once more for those who were under way meanwhile.
    forget: u8,
    /// Judge all flows after the next comparison, whatever it finds.
    judge_all: bool,
    /// The DNS server does not stand as the plan wants it.
    names_failed: bool,
    retry: Duration,
    quiet_since: Instant,
}

/// Runs a node's agent until `shutdown`. What is in the kernel stays there.
///
/// # Errors
/// Only when the agent cannot start at all; later failures are retried.
pub async fn run(config: NodeConfig, shutdown: CancellationToken) -> Result<(), NodeError> {
    let node = config.given.node.to_string();
    let plane = Plane::open(&config.netns).map_err(|cause| NodeError::Plane {
        node: node.clone(),
        cause,
    })?;
    let flows = Flows::start(&config.netns, &node).map_err(|cause| NodeError::Flows {
        node: node.clone(),
        cause,
    })?;
    let names = Names::open(&config).map_err(|cause| NodeError::Names { node, cause })?;
    let _alone = Alone::start(&config.netns, &config.given.node);
    let stream = facts(config.kube, shutdown.clone());
    let mut state = State {
        plan: NodePlan::empty(config.given.clone()),
        cluster: Cluster::default(),
        view: config.given.clone(),
        given: config.given,
        plane,
        flows,
        names,
        health: Health::start(&config.netns, config.healthz),
        awaited: Kind::ALL.to_vec(),
        dirty: Dirty::default(),
        repair: true,
        forget: LOOKS,
        judge_all: true,
        names_failed: false,
        retry: RETRY,
        quiet_since: Instant::now(),
    };
    state.work(stream, &shutdown).await
}

impl State {
    async fn work(
        &mut self,
        mut stream: mpsc::Receiver<Facts>,
        shutdown: &CancellationToken,
    ) -> Result<(), NodeError> {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                first = stream.recv() => {
                    let Some(first) = first else {
                        return if shutdown.is_cancelled() { Ok(()) } else { Err(NodeError::FactsEnded) };
                    };
                    self.take(first);
                    while let Ok(next) = stream.try_recv() {
                        self.take(next);
                    }
                    self.round().await;
                }
                _ = look.tick() => self.look().await,
            }
        }
    }

    /// Takes one change into the cluster.
    fn take(&mut self, facts: Facts) {
        for problem in &facts.problems {
            self.tell(problem);
        }
        if let Change::Replace(kind, _) = &facts.change {
            self.awaited.retain(|awaited| awaited != kind);
        }
        let dirty = self.cluster.apply(facts.change);
        self.dirty.merge(dirty);
    }

    fn tell(&self, problem: &Problem) {
        tracing::warn!(node = %self.given.node, %problem, "an object could not be used in full");
    }

    /// Plans what is dirty, and brings kernel and names there.
    async fn round(&mut self) {
        if !self.awaited.is_empty() {
            return;
        }
        self.observe();
        let dirty = std::mem::take(&mut self.dirty);
        if dirty.is_empty() && *self.plan.view == self.view && !self.repair {
            return;
        }
        let mut touched = renode(&mut self.plan, &self.cluster, &self.view, &dirty);
        // A repair judges all flows.
        let scope = if self.repair {
            Scope::default()
        } else {
            Scope::of(&self.plan, &self.cluster, &dirty, &touched)
        };
        drop(dirty);
        if touched.may_forget(&self.plan) {
            self.forget = LOOKS;
        }
        if !self.names.is_published() {
            // The first round renders whole images: what it touched is of no
            // use, and as large as the cluster.
            touched = Touched::default();
        }
        self.quiet_since = Instant::now();
        if self.repair {
            self.mend().await;
        } else {
            let delta = render::delta(&self.plan, &touched);
            match tokio::task::block_in_place(|| self.plane.commit(&delta)) {
                Ok(()) => {
                    self.flows.order(scope, &self.plan, &self.cluster);
                    self.health.changed(&self.plan, &touched.health);
                }
                Err(error) => self.failed(&error),
            }
        }
        self.forget_clients();
        // The name follows the kernel: what resolves also connects.
        self.publish(&touched).await;
    }

    /// Forgets the clients of endpoints that are gone.
    fn forget_clients(&mut self) {
        if self.forget == 0 || self.repair {
            return;
        }
        match tokio::task::block_in_place(|| self.plane.forget_clients(&self.plan)) {
            Ok(count) => {
                self.forget -= 1;
                tracing::debug!(node = %self.given.node, count, "clients forgotten");
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Publishes names; a failure is tried again with the next look.
    async fn publish(&mut self, touched: &Touched) {
        let done = self.names.publish(&self.plan, touched).await;
        self.names_failed = done.is_err();
        if let Err(error) = done {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(node = %self.given.node, error, "names are not answered");
        }
    }

    /// Looks at the own Node object, the ServiceCIDRs and the address of the
    /// cluster's names. A Node object that is gone is remembered.
    fn observe(&mut self) {
        self.given = self.given.with_node(&self.cluster);
        let mut view = self.given.with_ranges(&self.cluster);
        if view.dns_addresses.is_empty() {
            view.dns_addresses = super::names::service_addresses(&self.cluster);
        }
        self.view = view;
    }

    /// Compares the whole image and commits the difference.
    async fn mend(&mut self) {
        match tokio::task::block_in_place(|| self.plane.repair(&self.plan)) {
            Ok(steps) => {
                self.repair = false;
                self.retry = RETRY;
                self.health.holds(&self.plan);
                if steps > 0 || self.judge_all {
                    self.judge_all = false;
                    let everything = Scope::everything();
                    self.flows.order(everything, &self.plan, &self.cluster);
                }
                tracing::debug!(node = %self.given.node, steps, "the kernel holds the plan");
            }
            Err(error) => {
                self.failed(&error);
                tokio::time::sleep(self.retry).await;
                self.retry = (self.retry * 2).min(RETRY_LIMIT);
            }
        }
    }

    fn failed(&mut self, error: &PlaneError) {
        self.repair = true;
        self.health.failed();
        self.judge_all = true;
        let error = error as &dyn std::error::Error;
        tracing::warn!(node = %self.given.node, error, "the kernel refused; comparing in whole");
    }

    /// Between changes: tries again what failed, and finds what others did.
    async fn look(&mut self) {
        if !self.awaited.is_empty() {
            return;
        }
        if self.quiet_since.elapsed() >= QUIET {
            self.quiet_since = Instant::now();
            self.repair = true;
            self.judge_all = true;
        }
        match tokio::task::block_in_place(|| self.plane.is_foreign()) {
            Ok(foreign) => self.repair |= foreign,
            Err(error) => self.failed(&error),
        }
        if self.repair {
            self.mend().await;
        }
        self.forget_clients();
        if self.names_failed {
            self.publish(&Touched::default()).await;
        }
    }
}
