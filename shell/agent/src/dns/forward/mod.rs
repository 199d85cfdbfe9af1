//! Forwarding: names outside the cluster, asked of other resolvers.
//!
//! ```text
//! query ─► kept reply? ─► the same question under way? ─► route ─► race of servers
//!              │                    │                                   │
//!              ▼                    ▼                                   ▼
//!            reply             its reply                 UDP (new socket each), and if cut
//!                                                        TCP; or TLS: connections shared
//! ```
//!
//! What is decided without a clock or a socket (what a reply is worth and for how
//! long, who is healthy, whose turn it is) is in `portolan_dns::upstream`.
//!
//! A question runs in a task of its own: a client that goes away does not end it,
//! since others may have joined, and its reply is kept.

mod dial;
mod race;
mod resolv_conf;
mod server;
mod settings;
mod stream;
mod tls;
mod watch;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use bytes::Bytes;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared as Joined};
use portolan_dns::upstream::{Age, Cache, Found, Key, Outcome, Received, Suffixes};
use portolan_dns::{Name, Rcode, Rtype, Transport};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};

pub use dial::{Dial, TcpFactory, UdpFactory};
pub use resolv_conf::nameservers;
pub(super) use resolv_conf::search_domains;
pub use settings::{ForwardSettings, RouteSettings, ServerSettings, TlsSettings};

use super::{Upstream, UpstreamError};
use dial::Random;
use race::Route;
pub use server::Durations;
use server::{Manner, Server};

/// The cache is cut into parts, each with a lock, so that threads seldom meet.
const CACHE_PARTS: usize = 16;

/// Forwards what it is asked, and keeps what it learns.
pub struct Forwarder {
    shared: Arc<Shared>,
}

/// What tasks of a forwarder share.
pub(super) struct Shared {
    state: ArcSwap<State>,
    flights: Mutex<HashMap<Box<[u8]>, Flight>>,
    dial: Dial,
    /// Where questions run: whoever asks may be a thread of its own.
    runtime: Handle,
    random: Arc<Random>,
    turn: AtomicU64,
    started: Instant,
    /// The server in front has begun to serve.
    serving: AtomicBool,
    /// Questions of our own that must not come back, and whether they did.
    wanderers: Mutex<HashMap<Name, Wanderer>>,
    counts: ForwardMetrics,
}

/// A question of our own that must not come back.
struct Wanderer {
    came: bool,
    waiting: Option<oneshot::Sender<()>>,
}

/// What follows from the settings.
struct State {
    settings: ForwardSettings,
    routes: Suffixes<Option<Arc<Route>>>,
    cache: Arc<[Mutex<Cache>]>,
    places: Arc<Semaphore>,
}

/// A question that is under way; whoever asks the same waits for the same.
type Flight = Joined<BoxFuture<'static, Result<Arc<Received>, Arc<UpstreamError>>>>;

/// Takes a question off the list of those under way, however it ends.
struct Landing<'a> {
    shared: &'a Shared,
    key: Key,
}

impl Drop for Landing<'_> {
    fn drop(&mut self) {
        lock(&self.shared.flights).remove(self.key.as_bytes());
    }
}

/// Counters of a forwarder.
#[derive(Debug, Default)]
struct ForwardMetrics {
    requests: AtomicU64,
    broken: AtomicU64,
    hits: AtomicU64,
    denials: AtomicU64,
    misses: AtomicU64,
    stale: AtomicU64,
    prefetched: AtomicU64,
    joined: AtomicU64,
    rejected: AtomicU64,
}

/// What a forwarder has counted since it started, and what it holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ForwardCounts {
    /// Questions for which it was looked whether something is kept.
    pub requests: u64,
    /// Questions for which all servers were down, and asked all the same.
    pub broken: u64,
    /// Positive replies that were kept.
    pub hits: u64,
    /// Negative ones.
    pub denials: u64,
    /// Questions for which nothing was kept.
    pub misses: u64,
    /// Expired replies that were given.
    pub stale: u64,
    /// Popular names that were asked for before they expired.
    pub prefetched: u64,
    /// Questions that joined one that was under way.
    pub joined: u64,
    /// Questions for which there was no place.
    pub rejected: u64,
    /// Replies that are kept.
    pub entries: u64,
    /// Those of them that say that there is nothing.
    pub denial_entries: u64,
    /// Positive and other replies that had to make room.
    pub evictions: (u64, u64),
    /// The octets they take.
    pub bytes: u64,
}

/// One server's counters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerCount {
    /// How long it took for its replies, by their codes.
    pub durations: BTreeMap<u8, Durations>,
    /// Questions by datagram.
    pub datagrams: u64,
    /// Where it is, `tls://` before it where it is asked over TLS.
    pub server: String,
    /// Questions to it.
    pub asked: u64,
    /// Those without a reply.
    pub failed: u64,
    /// Connections that were opened.
    pub dialled: u64,
    /// Questions over a connection that was there.
    pub reused: u64,
    /// Probes without a reply.
    pub probes_failed: u64,
    /// It answers.
    pub up: bool,
    /// It forwards to here and is not asked.
    pub looping: bool,
}

impl ServerCount {
    /// Adds what is counted of the same server in another place.
    pub(super) fn merge(&mut self, other: &Self) {
        for (rcode, times) in &other.durations {
            self.durations.entry(*rcode).or_default().merge(times);
        }
        self.datagrams += other.datagrams;
        self.asked += other.asked;
        self.failed += other.failed;
        self.dialled += other.dialled;
        self.reused += other.reused;
        self.probes_failed += other.probes_failed;
        self.up &= other.up;
        self.looping |= other.looping;
    }
}

impl Forwarder {
    /// A forwarder that begins with these settings; must be made within a tokio
    /// runtime, in which its questions run.
    pub fn new(settings: ForwardSettings, dial: Dial) -> Self {
        let random = Arc::new(Random::default());
        let empty = State {
            settings: ForwardSettings::default(),
            routes: Suffixes::default(),
            cache: Arc::new([]),
            places: Arc::new(Semaphore::new(0)),
        };
        let shared = Shared {
            state: ArcSwap::from_pointee(empty),
            flights: Mutex::default(),
            dial,
            runtime: Handle::current(),
            random,
            turn: AtomicU64::new(0),
            started: Instant::now(),
            serving: AtomicBool::new(false),
            wanderers: Mutex::default(),
            counts: ForwardMetrics::default(),
        };
        let this = Self {
            shared: Arc::new(shared),
        };
        this.apply(settings);
        this
    }

    /// Goes on with other settings. What is under way ends as it began; servers that
    /// stay keep their connections and what is known of their health. If whom to
    /// ask has changed, what was kept is forgotten.
    pub fn apply(&self, settings: ForwardSettings) {
        let old = self.shared.state.load_full();
        let state = self.shared.state_of(settings, &old);
        let fresh: Vec<Arc<Server>> = servers(&state)
            .filter(|server| !servers(&old).any(|known| Arc::ptr_eq(known, server)))
            .cloned()
            .collect();
        self.shared.state.store(Arc::new(state));
        if self.shared.serving.load(Ordering::Relaxed) {
            for server in &fresh {
                self.shared.look_for_loop(server);
            }
        }
    }

    /// What it has counted.
    pub fn counts(&self) -> ForwardCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counts = &self.shared.counts;
        let state = self.shared.state.load();
        let mut all = ForwardCounts {
            requests: read(&counts.requests),
            broken: read(&counts.broken),
            hits: read(&counts.hits),
            denials: read(&counts.denials),
            misses: read(&counts.misses),
            stale: read(&counts.stale),
            prefetched: read(&counts.prefetched),
            joined: read(&counts.joined),
            rejected: read(&counts.rejected),
            ..ForwardCounts::default()
        };
        for part in state.cache.iter() {
            let part = lock(part);
            all.entries += part.len() as u64;
            all.bytes += part.bytes() as u64;
            all.denial_entries += part.denials() as u64;
            all.evictions.0 += part.evicted().0;
            all.evictions.1 += part.evicted().1;
        }
        all
    }

    /// What each server has counted, one after the other as configured.
    pub fn servers(&self) -> Vec<ServerCount> {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let state = self.shared.state.load();
        servers(&state)
            .map(|server| ServerCount {
                server: server.settings.to_string(),
                durations: server.durations(),
                datagrams: read(&server.counts.datagrams),
                asked: read(&server.counts.asked),
                failed: read(&server.counts.failed),
                dialled: read(&server.counts.dialled),
                reused: read(&server.counts.reused),
                probes_failed: read(&server.counts.probes_failed),
                up: server.is_up(),
                looping: server.is_looping(),
            })
            .collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn servers(state: &State) -> impl Iterator<Item = &Arc<Server>> {
    let routes = state.routes.iter().filter_map(|(_, route)| route.as_ref());
    routes.flat_map(|route| &route.servers)
}

impl Upstream for Forwarder {
    fn at_once(&self, query: &[u8], transport: Transport, out: &mut Vec<u8>) -> bool {
        let Some(key) = Key::of(query) else {
            return false;
        };
        if key.rtype() == Rtype::HINFO && self.shared.came_back(&key) {
            let reason = (0, "a query of this server came back to it");
            return portolan_dns::failure(query, Rcode::Refused, reason, out);
        }
        let state = self.shared.state.load();
        let Some(part) = state.part(&key) else {
            return false;
        };
        let mut cache = lock(part);
        let Found::Fresh {
            reply,
            age,
            prefetch,
        } = cache.find(&key, self.shared.now())
        else {
            return false;
        };
        let written = reply.write(query, transport, age, out);
        let counter = match reply.outcome() {
            Outcome::Positive => &self.shared.counts.hits,
            Outcome::Negative | Outcome::Failure => &self.shared.counts.denials,
        };
        drop(cache);
        counter.fetch_add(1, Ordering::Relaxed);
        self.shared.counts.requests.fetch_add(1, Ordering::Relaxed);
        if prefetch {
            self.shared
                .counts
                .prefetched
                .fetch_add(1, Ordering::Relaxed);
            drop(self.shared.ask(key));
        }
        written
    }

    fn started(&self) {
        if self.shared.serving.swap(true, Ordering::Relaxed) {
            return;
        }
        let state = self.shared.state.load();
        for server in servers(&state) {
            self.shared.look_for_loop(server);
        }
    }

    fn forward(
        &self,
        query: Bytes,
        transport: Transport,
    ) -> BoxFuture<'_, Result<Bytes, UpstreamError>> {
        Box::pin(async move {
            let mut out = Vec::new();
            if self.at_once(&query, transport, &mut out) {
                return Ok(out.into());
            }
            let key = Key::of(&query).ok_or(UpstreamError::Unreadable)?;
            let (reply, age) = self.shared.answer(key).await?;
            if reply.write(&query, transport, age, &mut out) {
                Ok(out.into())
            } else {
                Err(UpstreamError::Unreadable)
            }
        })
    }
}

impl State {
    fn part(&self, key: &Key) -> Option<&Mutex<Cache>> {
        // The parts need no secret: whoever fills one of them fills a part of the
        // whole, whose bounds hold all the same.
        let sum = key.as_bytes().iter().fold(0_usize, |sum, &octet| {
            sum.wrapping_mul(31).wrapping_add(usize::from(octet))
        });
        self.cache.get(sum.checked_rem(self.cache.len())?)
    }
}

impl Shared {
    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn turn(&self) -> u64 {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    fn state_of(&self, settings: ForwardSettings, old: &State) -> State {
        let same_cache = old.settings.cache == settings.cache
            && old.settings.routes == settings.routes
            && !old.cache.is_empty();
        let limits = settings.cache.divided(CACHE_PARTS);
        let cache = if same_cache {
            Arc::clone(&old.cache)
        } else {
            (0..CACHE_PARTS)
                .map(|_| Mutex::new(Cache::new(limits, self.random.u64())))
                .collect()
        };
        let mut rows = Vec::new();
        for route in &settings.routes {
            let built = self.route_of(route, old);
            rows.push((route.domain.clone(), Some(Arc::new(built))));
            rows.extend(route.except.iter().map(|domain| (domain.clone(), None)));
        }
        let places = if old.settings.most_in_flight == settings.most_in_flight
            && !old.places.is_closed()
            && !old.cache.is_empty()
        {
            Arc::clone(&old.places)
        } else {
            Arc::new(Semaphore::new(settings.most_in_flight))
        };
        State {
            settings,
            routes: Suffixes::new(rows),
            cache,
            places,
        }
    }

    fn route_of(&self, route: &RouteSettings, old: &State) -> Route {
        let manner = Manner::of(route);
        let servers = route.servers.iter().map(|settings| {
            let known =
                servers(old).find(|known| known.settings == *settings && known.manner == manner);
            known.cloned().unwrap_or_else(|| {
                Arc::new(Server::new(
                    settings.clone(),
                    manner.clone(),
                    self.dial.clone(),
                    Arc::clone(&self.random),
                ))
            })
        });
        Route {
            servers: servers.collect(),
            policy: route.policy,
            race_after: route.race_after,
        }
    }

    /// A reply from somebody, or one that has expired where that is better.
    async fn answer(self: &Arc<Self>, key: Key) -> Result<(Arc<Received>, Age), UpstreamError> {
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        let stale = self.stale(&key);
        let Some((stale, age, failed)) = stale else {
            self.counts.misses.fetch_add(1, Ordering::Relaxed);
            let reply = self.ask(key).await.map_err(UpstreamError::Joined)?;
            return Ok((reply, Age::NEW));
        };
        let patience = self.state.load().settings.stale_after;
        if !failed {
            let flight = self.ask(key);
            if !patience.is_zero()
                && let Ok(Ok(reply)) = tokio::time::timeout(patience, flight).await
                && reply.outcome() != Outcome::Failure
            {
                return Ok((reply, Age::NEW));
            }
        }
        self.counts.stale.fetch_add(1, Ordering::Relaxed);
        Ok((stale, age))
    }

    fn stale(&self, key: &Key) -> Option<(Arc<Received>, Age, bool)> {
        let state = self.state.load();
        let mut cache = lock(state.part(key)?);
        match cache.find(key, self.now()) {
            Found::Stale { reply, age, failed } => Some((Arc::new(reply.clone()), age, failed)),
            Found::Fresh { reply, age, .. } => Some((Arc::new(reply.clone()), age, true)),
            Found::Nothing => None,
        }
    }

    /// The question, whether it is under way already or not. It goes on by itself.
    fn ask(self: &Arc<Self>, key: Key) -> Flight {
        let mut flights = lock(&self.flights);
        if let Some(flight) = flights.get(key.as_bytes()) {
            self.counts.joined.fetch_add(1, Ordering::Relaxed);
            return flight.clone();
        }
        let shared = Arc::clone(self);
        let task = self.runtime.spawn(async move {
            let landing = Landing {
                shared: &shared,
                key,
            };
            let asked = shared.ask_alone(key).await;
            drop(landing);
            asked.map(Arc::new).map_err(Arc::new)
        });
        let flight = task
            .map(|ended| ended.unwrap_or_else(|_| Err(Arc::new(UpstreamError::Unreadable))))
            .boxed()
            .shared();
        flights.insert(key.as_bytes().into(), flight.clone());
        flight
    }

    async fn ask_alone(self: &Arc<Self>, key: Key) -> Result<Received, UpstreamError> {
        let state = self.state.load_full();
        let route = state.routes.find(&key.to_name());
        let Some((_, Some(route))) = route else {
            return Err(UpstreamError::NoServer);
        };
        let Ok(permit) = Arc::clone(&state.places).try_acquire_owned() else {
            self.counts.rejected.fetch_add(1, Ordering::Relaxed);
            return Err(UpstreamError::Busy(state.settings.most_in_flight));
        };
        let asked = route.ask(self, key, permit).await;
        if let Some(part) = state.part(&key) {
            let mut cache = lock(part);
            match &asked {
                Ok(reply) => {
                    if reply.outcome() == Outcome::Failure {
                        cache.renewal_failed(&key, self.now());
                    }
                    cache.keep(&key, reply.clone(), self.now());
                }
                Err(_) => cache.renewal_failed(&key, self.now()),
            }
        }
        asked
    }

    /// Notes a name that must not come back. The receiver hears if it does; what
    /// was noted is forgotten by [`Shared::has_come_back`].
    fn expect(&self, name: &Name) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let wanderer = Wanderer {
            came: false,
            waiting: Some(sender),
        };
        lock(&self.wanderers).insert(name.clone(), wanderer);
        receiver
    }

    fn has_come_back(&self, name: &Name) -> bool {
        let noted = lock(&self.wanderers).remove(name);
        noted.is_some_and(|wanderer| wanderer.came)
    }

    /// Whether a question is one of our own.
    fn came_back(&self, key: &Key) -> bool {
        let mut wanderers = lock(&self.wanderers);
        if wanderers.is_empty() {
            return false;
        }
        let Some(wanderer) = wanderers.get_mut(&key.to_name()) else {
            return false;
        };
        wanderer.came = true;
        if let Some(waiting) = wanderer.waiting.take()
            && waiting.send(()).is_err()
        {
            tracing::debug!("a query came back when nobody waited for it any more");
        }
        true
    }
}
