//! Names without a data plane: the cluster's DNS as a Deployment, in place of CoreDNS.
//!
//! ```text
//! list+watch ─► Cluster ─► plan (names) ─► zones ─► sockets
//! ```
//!
//! It answers at given addresses, tells how it is where CoreDNS does (`/health`,
//! `/ready`, `/metrics`), and needs to read Services, EndpointSlices and Namespaces;
//! pods only where their names are to be verified.

mod web;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use kube::Client;
use portolan_client::facts::{Facts, Wanted, facts};
use portolan_dns::Zones;
use portolan_model::{Change, Cluster, Dirty, Fact, Kind};
use portolan_plan::{NodePlan, NodeView, PodNames, renode};
use portolan_render::zone;
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::dns::{
    BindError, ClientPods, Clients, Completion, Configured, DnsConfig, DnsGuard, DnsServer,
    DnsSockets, DnsStats, HandOver, KeepConfig, Keeper, Kept, Told, Upstream,
};
use crate::metrics::process::Process;
use crate::node::{first_serial, frame, service_addresses};

/// What is watched.
pub const KINDS: [Kind; 3] = [Kind::Service, Kind::Slice, Kind::Namespace];

/// What is watched if the names of pods are verified, or search lists completed.
pub const KINDS_AND_PODS: [Kind; 4] = [Kind::Service, Kind::Slice, Kind::Namespace, Kind::Pod];

/// What a server of names alone is told.
pub struct NamesConfig {
    /// The domain, the mode of pods' names and the TTL; nothing else of it counts.
    pub view: NodeView,
    /// The API server.
    pub kube: Client,
    /// Where names are answered, over UDP and TCP.
    pub listen: Vec<SocketAddr>,
    /// The configuration file.
    pub configured: Configured,
    /// Reads the file again when notified.
    pub again: Arc<Notify>,
    /// Who is answered and how often, and what is logged.
    pub guard: DnsGuard,
    /// Where the names that were answered are kept for the next start, if anywhere.
    pub keep: Option<KeepConfig>,
    /// Where `/health` is answered.
    pub health: Option<SocketAddr>,
    /// How long names are still answered after the order to stop.
    pub lameduck: Duration,
    /// How it leaves after that.
    pub hand_over: HandOver,
    /// Where `/ready` is answered.
    pub ready: Option<SocketAddr>,
    /// Where `/metrics` is answered.
    pub metrics: Option<SocketAddr>,
}

/// Why it ended.
#[derive(Debug, thiserror::Error)]
pub enum NamesAloneError {
    /// A socket for names cannot be had.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A place where it tells how it is cannot be had.
    #[error("listen on {address} for /{what}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// For what.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The server cannot start.
    #[error("start the DNS server")]
    Start(#[source] io::Error),
    /// The stream of facts ended, which it never does by itself.
    #[error("the watch of the API server ended")]
    FactsEnded,
}

/// A server that has been started: its addresses are known and its sockets open.
pub struct NamesAlone {
    kinds: &'static [Kind],
    view: NodeView,
    kube: Client,
    published: Arc<ArcSwap<Zones>>,
    ready: watch::Sender<bool>,
    stats: Arc<DnsStats>,
    keeper: Option<Keeper>,
    leaving: Arc<AtomicBool>,
    lameduck: Duration,
    hand_over: HandOver,
    server: DnsServer,
    clients: Option<Arc<ClientPods>>,
    places: Vec<(&'static str, SocketAddr)>,
    stop: CancellationToken,
}

impl NamesAlone {
    /// Opens every socket and begins to answer: queries are held until the first
    /// names are known.
    ///
    /// # Errors
    /// If a socket cannot be had.
    pub fn start(config: NamesConfig) -> Result<Self, NamesAloneError> {
        let sockets = DnsSockets::bind(&config.listen)?;
        let is_heir = sockets.were_taken().contains(&true);
        let stop = CancellationToken::new();
        let (ready, seen) = watch::channel(false);
        let published = Arc::new(ArcSwap::from_pointee(frame(&config.view)));
        let forwarder = config.configured.forwarder();
        let stats = Arc::new(DnsStats::default());
        let mut keeper = None;
        if let Some(keep) = &config.keep {
            let (opened, kept) = Keeper::open(keep, &config.view, &stats);
            keeper = Some(opened);
            if let Some(kept) = kept {
                published.store(Arc::new(kept.zones));
                ready.send_replace(true);
            }
        }
        let clients = Arc::<ClientPods>::default();
        let completes = config.configured.search().is_some();
        let dns = DnsConfig {
            sockets,
            zones: Arc::clone(&published),
            ready: seen.clone(),
            upstream: Some(Arc::clone(&forwarder) as Arc<dyn Upstream>),
            front: config.configured.front(),
            completion: completion(&config, &clients),
            guard: config.guard,
            stats: Arc::clone(&stats),
        };
        let server = DnsServer::start(dns, &stop).map_err(NamesAloneError::Start)?;
        let leaving = Arc::new(AtomicBool::new(false));
        let state = web::State {
            ready: seen,
            leaving: Arc::clone(&leaving),
            registry: Arc::new(registry(&stats, &config.configured)),
        };
        let mut places = Vec::new();
        for (what, address) in [
            ("health", config.health),
            ("ready", config.ready),
            ("metrics", config.metrics),
        ] {
            let Some(address) = address else { continue };
            let at = web::serve(address, what, state.clone(), &stop, is_heir);
            let at = at.map_err(|source| NamesAloneError::Listen {
                address,
                what,
                source,
            })?;
            places.push((what, at));
        }
        tokio::spawn(config.configured.follow(config.again, stop.clone()));
        Ok(Self {
            kinds: kinds(config.view.pod_names, completes),
            view: config.view,
            kube: config.kube,
            published,
            ready,
            stats,
            keeper,
            leaving,
            lameduck: config.lameduck,
            hand_over: config.hand_over,
            server,
            clients: completes.then_some(clients),
            places,
            stop,
        })
    }

    /// Where names are answered.
    pub fn addresses(&self) -> &[SocketAddr] {
        self.server.addresses()
    }

    /// Where it tells how it is: `health`, `ready` and `metrics`.
    pub fn places(&self) -> &[(&'static str, SocketAddr)] {
        &self.places
    }

    /// Follows the cluster until `shutdown`.
    ///
    /// # Errors
    /// If the stream of facts ends.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), NamesAloneError> {
        let wanted = Wanted {
            optional: Vec::new(),
            kinds: self.kinds.to_vec(),
            pods_of: None,
            zones: self.view.zonal_names,
        };
        let stream = facts(self.kube.clone(), wanted, self.stop.clone());
        let mut names = Names {
            plan: NodePlan::empty(self.view.clone()),
            view: self.view.clone(),
            cluster: Cluster::default(),
            dirty: Dirty::default(),
            awaited: self.kinds.to_vec(),
            zones: None,
            clients: self.clients.clone(),
            triggers: Vec::new(),
        };
        let followed = self.follow(&mut names, stream, &shutdown).await;
        self.leaving.store(true, Ordering::Relaxed);
        if let Some(keeper) = self.keeper.take() {
            keeper.stop().await;
        }
        if followed.is_ok() && !self.lameduck.is_zero() {
            tracing::info!(
                seconds = self.lameduck.as_secs(),
                "names are still answered"
            );
            tokio::select! {
                () = tokio::time::sleep(self.lameduck) => {}
                () = self.hand_over.hurry.cancelled() => {}
            }
            self.hand_over.grace = Duration::ZERO;
        }
        self.server.leave(&self.hand_over).await;
        self.stop.cancel();
        followed
    }

    async fn follow(
        &self,
        names: &mut Names,
        mut stream: mpsc::Receiver<Facts>,
        shutdown: &CancellationToken,
    ) -> Result<(), NamesAloneError> {
        loop {
            let first = tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                first = stream.recv() => first.ok_or(NamesAloneError::FactsEnded)?,
            };
            names.take(first);
            while let Ok(next) = stream.try_recv() {
                names.take(next);
            }
            let first = names.zones.is_none();
            if let Some(zones) = names.round() {
                if let Some(keeper) = &self.keeper {
                    keeper.keep(Kept {
                        zones: zones.clone(),
                        addresses: Vec::new(),
                        clients: Clients::Everybody,
                    });
                }
                self.published.store(Arc::new(zones));
                self.ready.send_replace(true);
                let now = SystemTime::now();
                for at in names.triggers.drain(..) {
                    if let Ok(took) = now.duration_since(at) {
                        self.stats.programmed(took);
                    }
                }
                if first {
                    self.stats.kept_names(None);
                    tracing::info!("the names of the cluster are known");
                }
            }
        }
    }
}

/// What is watched.
fn kinds(pods: PodNames, completes: bool) -> &'static [Kind] {
    match pods {
        PodNames::Disabled | PodNames::Insecure if !completes => &KINDS,
        PodNames::Disabled | PodNames::Insecure | PodNames::Verified => &KINDS_AND_PODS,
    }
}

/// Everything that is counted.
fn registry(stats: &Arc<DnsStats>, configured: &Configured) -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Told(Arc::clone(stats))));
    registry.register_collector(Box::new(configured.told()));
    registry.register_collector(Box::new(Process));
    registry
}

/// Completion of search lists, if the file asks for it.
fn completion(config: &NamesConfig, clients: &Arc<ClientPods>) -> Option<Completion> {
    let search = config.configured.search()?;
    Completion::new(Arc::clone(clients), &config.view.cluster_domain, search)
}

/// What is known, and what follows.
struct Names {
    plan: NodePlan,
    view: NodeView,
    cluster: Cluster,
    dirty: Dirty,
    /// Kinds whose first list has not arrived yet.
    awaited: Vec<Kind>,
    zones: Option<Zones>,
    /// Where clients are, if their search lists are completed.
    clients: Option<Arc<ClientPods>>,
    /// When changes of endpoints that have names were asked for that no answer tells yet.
    triggers: Vec<SystemTime>,
}

impl Names {
    fn take(&mut self, facts: Facts) {
        for problem in &facts.problems {
            tracing::warn!(%problem, "an object could not be used in full");
        }
        if let Change::Replace(kind, _) = &facts.change {
            self.awaited.retain(|awaited| awaited != kind);
        }
        if let (Some((_, at)), Change::Upsert(Fact::Slice(slice))) =
            (facts.triggered, &facts.change)
            && slice.headless
            && self.awaited.is_empty()
        {
            self.triggers.push(at);
        }
        let dirty = self.cluster.apply(facts.change);
        self.dirty.merge(dirty);
    }

    /// The zones after what changed; a clone of them is a few pointers.
    fn round(&mut self) -> Option<Zones> {
        if !self.awaited.is_empty() {
            return None;
        }
        // The name of the zones' server leads to the Service that clients ask (D17).
        self.view.dns_addresses = service_addresses(&self.cluster);
        let dirty = std::mem::take(&mut self.dirty);
        let touched = renode(&mut self.plan, &self.cluster, &self.view, &dirty);
        if let Some(clients) = &self.clients {
            clients.follow(&self.plan, self.zones.is_some().then_some(&touched));
        }
        match &mut self.zones {
            Some(zones) => zone::delta(&self.plan, &touched, zones),
            None => self.zones = Some(zone::image(&self.plan, first_serial())),
        }
        self.zones.clone()
    }
}
