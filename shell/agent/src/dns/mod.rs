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
//! - **Without any resolver** (a lab on a machine that is not connected) names
//!   outside the zones do not exist: NXDOMAIN, without SOA, so that nobody keeps
//!   it, and with an extended error. There SERVFAIL would be the other choice,
//!   but each search list ends outside the zones: a mistyped `wbe` is at last
//!   looked up as `wbe.`, and musl (Alpine, busybox) waits five seconds on
//!   SERVFAIL and REFUSED and then reports a temporary failure, where the user
//!   wants to read at once that there is no such name (D19).

mod configured;
mod door;
mod forward;
mod front;
mod guard;
mod kept;
mod log;
mod metrics;
mod service;
mod sockets;
mod stats;
mod tcp;
mod udp;
mod upstream;

#[cfg(test)]
mod tests;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use portolan_dns::Zones;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub use configured::{Configured, ConvertError, LoadError, check as check_configuration};
pub use forward::{
    Dial, ForwardCounts, ForwardSettings, Forwarder, RouteSettings, ServerCount, ServerSettings,
    TcpFactory, TlsSettings, UdpFactory, nameservers,
};
pub use front::{Front, SharedFront};
pub use guard::{Clients, DnsGuard};
pub use kept::KeepConfig;
pub(crate) use kept::{Keeper, Kept};
pub use metrics::{DnsCounts, DnsMetrics};
pub use sockets::{BindError, DnsSockets};
pub use stats::DnsStats;
pub(crate) use stats::Told;
pub use upstream::{Upstream, UpstreamError};

use door::Door;
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
    /// Who is answered.
    pub guard: DnsGuard,
    /// Where queries are counted.
    pub stats: Arc<DnsStats>,
}

/// A running server. It stops when the token that it was started with is
/// cancelled, or when this handle is dropped.
pub struct DnsServer {
    metrics: Arc<DnsMetrics>,
    tasks: TaskTracker,
    addresses: Vec<SocketAddr>,
    _stop: DropGuard,
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
            guard,
            stats,
        } = config;
        let metrics = Arc::new(DnsMetrics::default());
        let mut service = Service::new(zones, ready, upstream, metrics);
        service.front = front;
        Self::serve(sockets, Door::new(service, guard, stats), shutdown)
    }

    fn serve(sockets: DnsSockets, door: Door, shutdown: &CancellationToken) -> io::Result<Self> {
        let stop = shutdown.child_token();
        let tasks = TaskTracker::new();
        let door = Arc::new(door);
        let metrics = Arc::clone(&door.service.metrics);
        let mut addresses = Vec::new();
        for socket in sockets.udp.iter().take(sockets.tcp.len()) {
            addresses.push(socket.local_addr()?);
        }
        let mut listeners = Vec::new();
        for listener in sockets.tcp {
            listener.set_nonblocking(true)?;
            listeners.push(tokio::net::TcpListener::from_std(listener)?);
        }
        udp::start(&door, sockets.udp, addresses.len(), (&tasks, &stop))?;
        let slots = tcp::slots();
        for listener in listeners {
            let slots = Arc::clone(&slots);
            let run = tcp::serve(
                Arc::clone(&door),
                listener,
                slots,
                tasks.clone(),
                stop.clone(),
            );
            tasks.spawn(run);
        }
        tasks.close();
        door.service.started();
        Ok(Self {
            metrics,
            tasks,
            addresses,
            _stop: stop.drop_guard(),
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

    /// Waits until everything has stopped, after the token was cancelled.
    pub async fn stopped(&self) {
        self.tasks.wait().await;
    }
}
