//! The loop itself.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portolan_client::facts::{Facts, facts};
use portolan_kernel::conntrack::ConntrackError;
use portolan_kernel::release::Release;
use portolan_model::{Change, Cluster, Dirty, Fact, Kind, Problem};
use portolan_plan::conntrack::Scope;
use portolan_plan::policy::Review;
use portolan_plan::{NodePlan, NodeView, Touched, renode};
use portolan_render::nft as render;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::alone::Alone;
use super::config::NodeConfig;
use super::flows::Flows;
use super::gate::Keeper;
use super::kube_proxy::KubeProxy;
use super::names::{Names, NamesError};
use super::patience::{Patience, SHORTEST};
use super::plane::{Plane, PlaneError};
use crate::drops::{Asks, Drops};
use crate::health::Health;
use crate::localhost::Localhost;
use crate::metrics::{Cause, Metrics, Triggers};
use crate::replies::Hand;

/// How often the ruleset's generation is looked at: foreign changes are found
/// by polling, since one subscriber to notifications makes a bulk commit ten
/// times slower.
const LOOK: Duration = SHORTEST;
/// After so long without a change all flows are judged, and ports that could not be
/// had are tried again.
const QUIET: Duration = Duration::from_secs(60);
/// The first wait before a failed commit is tried again; it doubles.
const RETRY: Duration = Duration::from_millis(50);
/// How often it is looked for clients to be forgotten.
const LOOKS: u8 = 2;
/// The oldest Linux that takes our rules: reject in prerouting is of 5.9, ranges in
/// concatenations of 5.6; 5.10 is the first one after both that is still maintained.
const OLDEST: Release = Release {
    major: 5,
    minor: 10,
};
/// The longest wait before a failed commit is tried again.
const RETRY_LIMIT: Duration = Duration::from_secs(5);

/// Why a node's agent ended.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// The kernel lacks what the rules are made of.
    #[error("Linux {found} is too old for the agent of node {node}: it needs {OLDEST} or newer")]
    Kernel {
        /// The node.
        node: String,
        /// The kernel that runs.
        found: Release,
    },
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
    /// Names are answered at the cluster's DNS address.
    cluster_dns: bool,
    cluster: Cluster,
    plan: NodePlan,
    view: NodeView,
    plane: Plane,
    flows: Flows,
    keeper: Keeper,
    names: Names,
    health: Health,
    /// What the watcher of dropped packets wants to know.
    asks: Asks,
    _drops: Drops,
    kube_proxy: KubeProxy,
    localhost: Localhost,
    /// Whose answers go where.
    way_back: Hand,
    /// Kinds whose first list has not arrived yet.
    awaited: Vec<Kind>,
    /// Kinds that may not be read.
    forbidden: BTreeSet<Kind>,
    /// What changed since the last round of planning.
    dirty: Dirty,
    /// When the whole image is compared with the kernel, and why.
    repair: Option<Due>,
    /// Somebody else changed the ruleset since our tables were compared.
    suspect: bool,
    patience: Patience,
    metrics: Metrics,
    /// Changes of endpoints that are on their way.
    triggers: Triggers,
    /// How often it is still looked for clients to be forgotten: once after a
    /// commit, and once more for those who were under way meanwhile.
    forget: u8,
    /// Judge all flows after the next comparison, whatever it finds.
    judge_all: bool,
    /// The kernel took all that was planned.
    holds: bool,
    /// The cluster was planned already.
    planned: bool,
    /// The DNS server does not stand as the plan wants it.
    names_failed: bool,
    retry: Duration,
    quiet_since: Instant,
}

/// A comparison of the whole image.
#[derive(Debug, Clone, Copy)]
struct Due {
    at: Instant,
    cause: Cause,
}

/// Runs a node's agent until `shutdown`. What is in the kernel stays there.
///
/// # Errors
/// Only when the agent cannot start at all; later failures are retried.
pub async fn run(mut config: NodeConfig, shutdown: CancellationToken) -> Result<(), NodeError> {
    let node = config.given.node.to_string();
    is_new_enough(&node)?;
    let refused = |cause| NodeError::Plane {
        node: node.clone(),
        cause,
    };
    let plane = Plane::open(&config.netns).map_err(refused)?;
    let metrics = Metrics::new().telling(config.dns_told.clone(), config.announce_told.clone());
    let (drops, asks) = Drops::start(&mut config, &metrics);
    let cuts = drops.cuts.clone();
    let flows = Flows::telling(&config.netns, &node, metrics.clone(), cuts);
    let flows = flows.map_err(|cause| NodeError::Flows {
        node: node.clone(),
        cause,
    })?;
    let kube_proxy = KubeProxy::open(&config.netns, &node, config.replace_kube_proxy);
    let kube_proxy = kube_proxy.map_err(|cause| refused(PlaneError::Open(cause)))?;
    let localhost = Localhost::new(&config.netns, &node);
    let names = Names::open(&config, Arc::clone(&metrics.dns));
    let names = names.map_err(|cause| NodeError::Names { node, cause })?;
    let _alone = Alone::start(&config.netns, &config.given.node);
    let health = Health::start(&config, &metrics, &drops);
    let way_back = Hand::start(&config, &shutdown);
    let wanted = config.wanted();
    let awaited = wanted.kinds.clone();
    let stream = facts(config.kube, wanted, shutdown.clone());
    let mut state = State {
        plan: NodePlan::empty(config.given.clone()),
        cluster: Cluster::default(),
        view: config.given.clone(),
        given: config.given,
        cluster_dns: config.cluster_dns,
        plane,
        flows,
        keeper: Keeper::new(config.gate.clone(), config.policies),
        names,
        health,
        asks,
        _drops: drops,
        kube_proxy,
        localhost,
        way_back,
        awaited,
        forbidden: BTreeSet::new(),
        dirty: Dirty::default(),
        repair: Some(Due {
            at: Instant::now(),
            cause: Cause::Start,
        }),
        suspect: false,
        patience: Patience::new(),
        metrics,
        triggers: Triggers::default(),
        forget: LOOKS,
        judge_all: true,
        holds: false,
        planned: false,
        names_failed: false,
        retry: RETRY,
        quiet_since: Instant::now(),
    };
    if let Err(error) = state.names.resume().await {
        let error = &error as &dyn std::error::Error;
        tracing::warn!(node = %state.given.node, error, "names are not answered yet");
    }
    let ended = state.work(stream, &shutdown).await;
    state.names.stop().await;
    ended
}

/// Whether the kernel takes our rules.
fn is_new_enough(node: &str) -> Result<(), NodeError> {
    match Release::running() {
        Ok(Some(found)) if found < OLDEST => Err(NodeError::Kernel {
            node: node.to_owned(),
            found,
        }),
        Ok(_) | Err(_) => Ok(()),
    }
}

impl State {
    async fn work(
        &mut self,
        mut stream: mpsc::Receiver<Facts>,
        shutdown: &CancellationToken,
    ) -> Result<(), NodeError> {
        let gate = self.keeper.gate();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asks = std::mem::take(&mut self.asks);
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Ok(()),
                () = at(self.due()) => {
                    self.mend();
                    self.forget_clients();
                    self.catch_up().await;
                }
                () = gate.called() => {
                    for change in self.keeper.take() {
                        let dirty = self.cluster.apply(change);
                        self.dirty.merge(dirty);
                    }
                    self.round().await;
                }
                _ = look.tick() => self.look().await,
                () = self.way_back.changed() => self.round().await,
                ask = asks.next() => ask.answer(&self.plan, &self.cluster),
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
            }
            if !self.is_waiting() && !self.is_lost() {
                self.keeper.open(&self.plan.policies);
                if self.planned && self.holds {
                    self.way_back.tell(&self.plan);
                }
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
            self.listed(*kind, facts.forbidden);
        }
        let (services, slices) = counted(&facts.change);
        self.metrics.came(services, slices, SystemTime::now());
        if let Some((family, at)) = facts.triggered.filter(|_| self.awaited.is_empty()) {
            self.triggers.add(family, at);
        }
        if let (Some((_, at)), Change::Upsert(Fact::Slice(slice))) =
            (facts.triggered, &facts.change)
            && slice.headless
            && self.awaited.is_empty()
        {
            self.names.triggered(at);
        }
        let dirty = self.cluster.apply(facts.change);
        self.dirty.merge(dirty);
    }

    /// Remembers what may not be read: policies that are not known hold for nobody, and
    /// that must be seen.
    fn listed(&mut self, kind: Kind, forbidden: bool) {
        if kind == Kind::ServiceCidr || self.forbidden.contains(&kind) == forbidden {
            return;
        }
        let node = &self.given.node;
        if forbidden {
            self.forbidden.insert(kind);
            tracing::warn!(%node, ?kind, "may not be read: policies that need it are not enforced; allow the agent to list and watch it");
        } else {
            self.forbidden.remove(&kind);
            tracing::info!(%node, ?kind, "may be read now");
        }
        self.metrics.forbidden(self.forbidden.len());
    }

    fn tell(&self, problem: &Problem) {
        tracing::warn!(node = %self.given.node, %problem, "an object could not be used in full");
    }

    /// Plans what is dirty, and brings kernel and names there.
    async fn round(&mut self) {
        if self.is_waiting() {
            return;
        }
        let began = Instant::now();
        self.observe();
        let mut dirty = std::mem::take(&mut self.dirty);
        let whole = self.due().is_some_and(|at| at <= began);
        if dirty.is_empty() && *self.plan.view == self.view && !whole {
            return;
        }
        let touched = if std::mem::replace(&mut self.planned, true) {
            let touched = renode(&mut self.plan, &self.cluster, &self.view, &dirty);
            self.metrics.planned(&self.plan, &touched);
            touched
        } else {
            // The first round renders whole images: what is dirty and what it touched
            // is of no use, and as large as the cluster.
            dirty = Dirty::default();
            self.plan = portolan_plan::node(&self.cluster, &self.view);
            self.metrics.planned_anew(&self.plan);
            Touched::default()
        };
        // What the kernel holds is not known after a failure: the change goes with
        // the comparison, and that judges all flows.
        let whole = whole || self.is_lost();
        let (scope, review) = if whole {
            Default::default()
        } else {
            let review = Review::of(&self.plan.policies, &touched.policies);
            let scope = Scope::of(&self.plan, &self.cluster, &dirty, &touched);
            (scope, review)
        };
        drop(dirty);
        if touched.may_forget(&self.plan) {
            self.forget = LOOKS;
        }
        self.quiet_since = Instant::now();
        self.holds = false;
        if whole {
            if self.due().is_some_and(|at| at <= began) {
                self.mend();
            }
        } else {
            let delta = render::delta(&self.plan, &touched);
            match tokio::task::block_in_place(|| self.plane.commit(&delta)) {
                Ok(()) => {
                    self.holds = true;
                    self.metrics
                        .synced(began.elapsed(), None, SystemTime::now());
                    self.metrics
                        .programmed(&mut self.triggers, SystemTime::now());
                    self.flows.order(scope, review, &self.plan, &self.cluster);
                    self.health.changed(&self.plan, &touched.health);
                    self.localhost.follow(&self.plan, &touched);
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
        if self.is_lost() {
            return;
        }
        if self.forget == 0 {
            self.retry = RETRY;
            return;
        }
        match tokio::task::block_in_place(|| self.plane.forget_clients(&self.plan)) {
            Ok(count) => {
                self.forget -= 1;
                tracing::debug!(node = %self.given.node, count, "clients forgotten");
            }
            Err(error) => {
                self.metrics.cleanup_failed();
                self.failed(&error);
            }
        }
    }

    /// Publishes names; a failure is tried again with the next look.
    async fn publish(&mut self, touched: &Touched) {
        let done = self.names.publish(&self.plan, touched, self.holds).await;
        self.names_failed = done.is_err();
        if let Err(error) = done {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(node = %self.given.node, error, "names are not answered");
        }
    }

    /// Publishes what waits for the kernel, if it has taken that meanwhile, and tries
    /// again what failed.
    async fn catch_up(&mut self) {
        let may = self.planned && self.names.are_withheld();
        if self.names_failed || may {
            self.publish(&Touched::default()).await;
        }
    }

    /// Looks at the own Node object, the ServiceCIDRs and the address of the
    /// cluster's names. A Node object that is gone is remembered.
    fn observe(&mut self) {
        self.way_back.show(&mut self.given);
        self.given = self.given.with_node(&self.cluster);
        let mut view = self.given.with_ranges(&self.cluster);
        if self.cluster_dns && view.dns_addresses.is_empty() {
            view.dns_addresses = super::names::service_addresses(&self.cluster);
        }
        // Without pods every address would be unknown.
        view.close_unknown_pods &= !self.forbidden.contains(&Kind::Pod);
        self.view = view;
    }

    /// Whether nothing may be planned yet.
    fn is_waiting(&self) -> bool {
        !self.awaited.is_empty() || self.way_back.is_awaited()
    }

    /// When the whole image is to be compared, if it is.
    fn due(&self) -> Option<Instant> {
        self.repair.filter(|_| !self.is_waiting()).map(|due| due.at)
    }

    /// Whether what the kernel holds is not known: nothing can be committed but the
    /// difference to the whole image.
    fn is_lost(&self) -> bool {
        let causes = [Cause::Failed, Cause::Start];
        self.repair.is_some_and(|due| causes.contains(&due.cause))
    }

    /// Compares the whole image by then, unless that is due earlier or after a failure.
    fn order_repair(&mut self, cause: Cause, at: Instant) {
        if !self.is_lost() && self.repair.is_none_or(|due| at < due.at) {
            self.repair = Some(Due { at, cause });
        }
    }

    /// Compares the whole image and commits the difference.
    fn mend(&mut self) {
        let Some(Due { cause, .. }) = self.repair else {
            return;
        };
        let began = Instant::now();
        let foreign = std::mem::take(&mut self.suspect);
        match tokio::task::block_in_place(|| self.plane.repair(&self.plan)) {
            Ok(steps) => {
                self.repair = None;
                self.holds = true;
                let took = began.elapsed();
                self.metrics.synced(took, Some(cause), SystemTime::now());
                self.metrics.repaired(cause, steps);
                self.metrics
                    .programmed(&mut self.triggers, SystemTime::now());
                if foreign {
                    self.patience.compared(Instant::now(), steps > 0);
                }
                self.judge_all |= steps > 0;
                self.keep_up();
                let cause = cause.word();
                if steps > 0 && cause != Cause::Start.word() {
                    tracing::info!(node = %self.given.node, cause, steps, "the kernel did not hold the plan, and does again");
                } else {
                    tracing::debug!(node = %self.given.node, cause, steps, "the kernel holds the plan");
                }
            }
            Err(error) => self.failed(&error),
        }
    }

    /// The kernel holds the plan: brings to it in whole what goes with it.
    fn keep_up(&mut self) {
        self.health.holds(&self.plan);
        self.localhost.follow_all(&self.plan);
        // Ours decide from here on.
        tokio::task::block_in_place(|| self.kube_proxy.look());
        if std::mem::take(&mut self.judge_all) {
            let (scope, review) = (Scope::everything(), Review::everything());
            self.flows.order(scope, review, &self.plan, &self.cluster);
        }
    }

    /// The kernel refused something: the whole image is compared soon, and later the
    /// more often this happens in turn. Facts are taken in meanwhile.
    fn failed(&mut self, error: &PlaneError) {
        self.repair = Some(Due {
            at: Instant::now() + self.retry,
            cause: Cause::Failed,
        });
        self.retry = (self.retry * 2).min(RETRY_LIMIT);
        self.health.failed();
        self.metrics.failed();
        self.judge_all = true;
        let error = error as &dyn std::error::Error;
        tracing::warn!(node = %self.given.node, error, "the kernel refused; comparing in whole");
    }

    /// Between changes: finds what others did, and tries again what failed.
    async fn look(&mut self) {
        if self.is_waiting() {
            return;
        }
        let now = Instant::now();
        if self.quiet_since.elapsed() >= QUIET && self.repair.is_none() {
            self.quiet_since = now;
            self.judge_all = true;
            // That our tables are as they were, their generation says.
            self.keep_up();
        }
        match tokio::task::block_in_place(|| self.plane.is_foreign()) {
            Ok(foreign) => {
                if foreign {
                    self.metrics.foreign();
                }
                self.suspect |= foreign;
            }
            Err(error) if !self.is_lost() => self.failed(&error),
            Err(_) => {}
        }
        if self.suspect && !self.is_lost() {
            match tokio::task::block_in_place(|| self.plane.is_missing()) {
                Ok(missing) => {
                    let at = self.patience.due(now, missing);
                    self.order_repair(Cause::Foreign, at);
                }
                Err(error) => self.failed(&error),
            }
        }
        self.forget_clients();
        self.catch_up().await;
    }
}

/// How many Services and EndpointSlices a change is about.
fn counted(change: &Change) -> (usize, usize) {
    let (kind, count) = match change {
        Change::Upsert(fact) => (fact.key().kind(), 1),
        Change::Delete(key) => (key.kind(), 1),
        Change::Replace(kind, facts) => (*kind, facts.len()),
        Change::Attach(_) | Change::Detach(..) => return (0, 0),
    };
    match kind {
        Kind::Service => (count, 0),
        Kind::Slice => (0, count),
        Kind::Node
        | Kind::Namespace
        | Kind::ServiceCidr
        | Kind::Pod
        | Kind::Policy
        | Kind::ClusterPolicy => (0, 0),
    }
}

/// Then, or never.
async fn at(due: Option<Instant>) {
    match due {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
