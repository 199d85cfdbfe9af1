//! The cluster's DNS server on a node.
//!
//! It answers at the cluster DNS address itself, from a snapshot of the zones
//! that the node's loop publishes: no DNS pods, no translation on the way, no
//! cache of the own zones. What a query means is decided in `portolan_dns`;
//! here are the sockets, the waiting and the forwarding.
//!
//! ```text
//! UDP datagram ─┐            ┌─ reply at once, in the receiving loop
//! TCP message ──┴─► Service ─┤
//!                            └─ wait (a task each, bounded): for the first sync,
//!                               or for a resolver of the host
//! ```
//!
//! - **Before the first sync** a query is held, not failed: a stub resolver
//!   asks again after five seconds at the earliest, and a zone is there within a
//!   fraction of one. What is still unanswered shortly before that gets
//!   SERVFAIL, never NXDOMAIN (D20). Names outside the zones, and written ones, do
//!   not wait: which zones there will be is known at once. Nobody waits where names
//!   were kept by an earlier process (`kept`).
//! - **Names outside the zones** go to other resolvers (`forward`), by a file
//!   (`configured`), after rewriting and written names (`front`). If these do not
//!   reply, SERVFAIL says so, with the reason as an extended error.
//! - **Search lists** are completed for pods whose namespace is known, where that was
//!   asked for (`complete`): who would ask for four names in turn asks for one.
//! - **Without any resolver** (a lab on a machine that is not connected) names
//!   outside the zones do not exist: NXDOMAIN, without SOA, so that nobody keeps
//!   it, and with an extended error. There SERVFAIL would be the other choice,
//!   but each search list ends outside the zones: a mistyped `wbe` is at last
//!   looked up as `wbe.`, and musl (Alpine, busybox) waits five seconds on
//!   SERVFAIL and REFUSED and then reports a temporary failure, where the user
//!   wants to read at once that there is no such name (D19).

mod complete;
mod configured;
mod door;
mod forward;
mod front;
mod guard;
mod heirs;
mod kept;
mod log;
mod metrics;
mod service;
mod sockets;
mod stats;
mod tcp;
mod told;
mod udp;
mod upstream;

#[cfg(test)]
mod tests;

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use portolan_dns::Zones;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use complete::{ClientPods, Completion};
pub use configured::{Configured, ConvertError, LoadError, check as check_configuration};
pub use forward::{
    Dial, Durations, ForwardCounts, ForwardSettings, Forwarder, RouteSettings, ServerCount,
    ServerSettings, TcpFactory, TlsSettings, UdpFactory, nameservers,
};
pub use front::{Front, SharedFront};
pub use guard::{Clients, DnsGuard};
pub use heirs::HandOver;
pub use kept::KeepConfig;
pub(crate) use kept::{Keeper, Kept};
pub use metrics::{DnsCounts, DnsMetrics};
pub use sockets::{BindError, DnsSockets};
pub use stats::DnsStats;
pub(crate) use stats::Told;
pub use told::DnsTold;
pub use upstream::{Upstream, UpstreamError};

use door::Door;
use heirs::{Estate, Heirs};
use service::Service;

/// What a server needs to know.
pub struct DnsConfig {
    /// Where it listens; see [`DnsSockets::bind`].
    pub sockets: DnsSockets,
    /// What it answers from; a new snapshot holds from the next query on.
    pub zones: Arc<ArcSwap<Zones>>,
    /// Turns true with the first complete zones. Turning false again means
    /// nothing: last known names are better than none.
    pub ready: watch::Receiver<bool>,
    /// Who answers for names outside the zones, if anybody.
    pub upstream: Option<Arc<dyn Upstream>>,
    /// What is looked at before the zones.
    pub front: SharedFront,
    /// Completion of search lists, if that is asked for.
    pub completion: Option<Completion>,
    /// Who is answered.
    pub guard: DnsGuard,
    /// Where queries are counted.
    pub stats: Arc<DnsStats>,
}

/// How long queries that wait for others, and open connections, may take once the server
/// leaves.
const LEAVING: Duration = Duration::from_secs(5);

/// A running server. It stops when the token that it was started with is
/// cancelled, or when this handle is dropped.
pub struct DnsServer {
    metrics: Arc<DnsMetrics>,
    tasks: TaskTracker,
    addresses: Vec<SocketAddr>,
    heirs: Arc<Heirs>,
    stop: DropGuard,
    abort: DropGuard,
}

impl DnsServer {
    /// Starts serving; must be called within a tokio runtime.
    pub fn start(config: DnsConfig, shutdown: &CancellationToken) -> io::Result<Self> {
        let DnsConfig {
            sockets,
            zones,
            ready,
            upstream,
            front,
            completion,
            guard,
            stats,
        } = config;
        let metrics = Arc::clone(&stats.served);
        let mut service = Service::new(zones, ready, upstream, metrics);
        service.front = front;
        service.completion = completion;
        Self::serve(sockets, Door::new(service, guard, stats), shutdown)
    }

    fn serve(sockets: DnsSockets, door: Door, shutdown: &CancellationToken) -> io::Result<Self> {
        let (stop, abort) = (shutdown.child_token(), CancellationToken::new());
        let tasks = TaskTracker::new();
        let door = Arc::new(door);
        let heirs = Arc::new(Heirs::new(sockets.were_taken()));
        let metrics = Arc::clone(&door.service.metrics);
        let each = sockets.tcp.len();
        let mut addresses = Vec::new();
        for socket in sockets.udp.iter().take(each) {
            addresses.push(socket.local_addr()?);
        }
        let (mut estates, mut before) = (Vec::new(), Vec::new());
        for (index, (ties, tcp)) in sockets.ties.into_iter().zip(&sockets.tcp).enumerate() {
            let udp: Vec<_> = sockets.udp.iter().skip(index).step_by(each).collect();
            if let Some(offer) = ties.offer {
                estates.push(Estate::new(index, offer, &udp, tcp)?);
            }
            before.extend(ties.before);
        }
        heirs.start(estates, (&tasks, &stop))?;
        let opening = Opening {
            door,
            heirs: Arc::clone(&heirs),
            udp: sockets.udp,
            tcp: sockets.tcp,
            tasks: tasks.clone(),
            stop: stop.clone(),
            abort: abort.clone(),
        };
        if before.is_empty() {
            opening.open()?;
        } else {
            tasks.spawn(opening.after(before));
        }
        tasks.close();
        Ok(Self {
            metrics,
            tasks,
            addresses,
            heirs,
            stop: stop.drop_guard(),
            abort: abort.drop_guard(),
        })
    }

    /// What the server has counted.
    pub fn metrics(&self) -> Arc<DnsMetrics> {
        Arc::clone(&self.metrics)
    }

    /// The addresses at which it takes datagrams.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.addresses
    }

    /// Stops as soon as another process answers at the same sockets, or none does in
    /// time, and waits for that.
    pub async fn leave(self, hand_over: &HandOver) {
        self.heirs.wait(hand_over).await;
        let Self {
            stop, tasks, abort, ..
        } = self;
        drop(stop);
        finish(&tasks, abort).await;
    }

    /// Waits until everything has stopped, after the token was cancelled: what has been
    /// asked is answered first.
    pub async fn stopped(self) {
        let Self { tasks, abort, .. } = self;
        finish(&tasks, abort).await;
    }
}

/// A server that has its sockets and does not read from them yet.
struct Opening {
    door: Arc<Door>,
    heirs: Arc<Heirs>,
    udp: Vec<UdpSocket>,
    tcp: Vec<TcpListener>,
    tasks: TaskTracker,
    stop: CancellationToken,
    abort: CancellationToken,
}

impl Opening {
    /// Begins to answer.
    fn open(self) -> io::Result<()> {
        let ends = udp::Ends {
            tasks: &self.tasks,
            stop: &self.stop,
            abort: &self.abort,
        };
        udp::start(&self.door, &self.heirs, (self.udp, self.tcp.len()), &ends)?;
        let acceptor = tcp::Acceptor {
            door: Arc::clone(&self.door),
            slots: Arc::new(Semaphore::new(self.door.streams.most)),
            heirs: self.heirs,
            tasks: self.tasks.clone(),
            stop: self.stop,
            abort: self.abort,
        };
        for listener in self.tcp {
            listener.set_nonblocking(true)?;
            let listener = tokio::net::TcpListener::from_std(listener)?;
            self.tasks.spawn(acceptor.clone().serve(listener));
        }
        self.door.service.started();
        Ok(())
    }

    /// Leaves queries to the process before this one until the names are known here,
    /// or that process has ended; tells it then, for as long as this one answers.
    async fn after(self, before: Vec<UnixStream>) {
        let stop = self.stop.clone();
        let mut lines = match heirs::lines(before) {
            Ok(lines) => lines,
            Err(error) => {
                tracing::warn!(%error, "the process before this one is not told");
                Vec::new()
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = self.door.service.known_names() => {}
            () = heirs::ended(&mut lines) => {}
        }
        if let Err(error) = self.open() {
            tracing::error!(%error, "names are not answered");
            return;
        }
        tracing::info!("names are answered here too, until the process before this one ends");
        heirs::answer(&mut lines).await;
        stop.cancelled().await;
    }
}

/// Lets tasks finish, but not for ever.
async fn finish(tasks: &TaskTracker, abort: DropGuard) {
    if tokio::time::timeout(LEAVING, tasks.wait()).await.is_err() {
        drop(abort);
        tasks.wait().await;
    }
}
