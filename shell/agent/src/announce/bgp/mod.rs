//! The sessions with routers.
//!
//! ```text
//!   plan::announce ──► Peers ──orders──► one task for each peer ──► its connection
//!    (routes)            ▲                  │ bgp::Session             │ a task that writes
//!                        └──── board ◄──────┘ (states, for others)     │ a task that reads
//! ```
//!
//! A session ends in one of three ways. An agent that ends leaves without a word, if
//! graceful restart is configured: the peer goes on sending to the node, whose kernel
//! still serves, and the next agent says in its OPEN that it has restarted. Else, and
//! for a peer that is gone or configured otherwise, a NOTIFICATION ends it.
//!
//! Connections are opened from here only, as MetalLB's own speaker does: nothing
//! listens at port 179, where a router on the node itself may.
//!
//! TODO-correctness: BFD (RFC 5882) is planned for a peer, but not spoken yet.

mod board;
mod connection;
mod dial;
mod route;
mod status;
mod task;

use std::collections::BTreeMap;
use std::net::IpAddr;

use portolan_client::Client;
use portolan_kernel::netns::NetNs;
use portolan_model::workloads::{ObjectKey, Peer};
use portolan_plan::announce::{Announcing, RouteKey};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{AnnounceConfig, AnnounceTold};
use board::Board;
use route::Change;
use status::Wanted;
use task::{Farewell, Order, Speaker};

/// What all sessions of a node have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Own {
    /// The node.
    pub(super) node: String,
    /// Its addresses, in the order of their use.
    pub(super) addresses: Vec<IpAddr>,
}

/// The task of a peer. It leaves when nobody can give it orders any more.
struct Running {
    peer: Peer,
    own: Own,
    orders: mpsc::UnboundedSender<Order>,
}

/// The sessions of a node.
pub(super) struct Peers {
    netns: NetNs,
    client: Client,
    told: AnnounceTold,
    tasks: TaskTracker,
    board: Board,
    wanted: watch::Sender<Wanted>,
    running: BTreeMap<ObjectKey, Running>,
}

impl Peers {
    /// No sessions yet. Statuses are written until `over`.
    pub(super) fn new(
        config: &AnnounceConfig,
        tasks: TaskTracker,
        over: CancellationToken,
    ) -> Self {
        let (wanted, nodes) = watch::channel(Wanted::new());
        let board = Board::default();
        let sessions = board.follow();
        let (client, node) = (config.client.clone(), config.node.clone());
        tasks.spawn(status::run(client, node, sessions, nodes, over));
        Self {
            netns: config.netns.clone(),
            client: config.client.clone(),
            told: config.told.clone(),
            tasks,
            board,
            wanted,
            running: BTreeMap::new(),
        }
    }

    /// Brings the sessions and what they tell in line with what is announced; `touched`
    /// are routes that may be otherwise than before.
    pub(super) fn settle<'a>(
        &mut self,
        announcing: &Announcing,
        own: &Own,
        touched: impl IntoIterator<Item = &'a RouteKey>,
    ) {
        let mut changes: BTreeMap<&ObjectKey, Vec<Change>> = BTreeMap::new();
        for key in touched {
            let change = (key.1, announcing.route(key));
            changes.entry(key.0.as_ref()).or_default().push(change);
        }
        let mut wanted = BTreeMap::new();
        for peer in announcing.ground().peers_of(&own.node) {
            wanted.insert(&peer.meta.key, peer);
        }
        self.count(announcing, wanted.keys().copied());
        self.running.retain(|key, running| {
            let farewell = match wanted.get(key) {
                None => Farewell::Deconfigured,
                Some(peer) if running.own == *own && peer.speaks_as(&running.peer) => return true,
                Some(_) => Farewell::Changed,
            };
            send(&running.orders, Order::End(farewell));
            false
        });
        for (key, peer) in wanted {
            if let Some(running) = self.running.get(key) {
                if let Some(changes) = changes.remove(key) {
                    send(&running.orders, Order::Routes(changes));
                }
                continue;
            }
            let all = announcing.routes().filter(|route| *route.0 == *key);
            let all = all.map(|route| (route.1, announcing.route(route)));
            let running = self.begin(peer, own);
            send(&running.orders, Order::Routes(all.collect()));
            self.running.insert(key.clone(), running);
        }
    }

    /// Notes which nodes should have a session with each peer.
    fn count<'a>(&self, announcing: &Announcing, peers: impl Iterator<Item = &'a ObjectKey>) {
        let nodes = peers.map(|peer| {
            let nodes = announcing.ground().nodes_of(peer);
            (peer.clone(), nodes.map(str::to_owned).collect())
        });
        let nodes: Wanted = nodes.collect();
        self.wanted.send_if_modified(|known| {
            let other = *known != nodes;
            *known = nodes;
            other
        });
    }

    fn begin(&self, peer: &Peer, own: &Own) -> Running {
        let (orders, receiver) = mpsc::unbounded_channel();
        let speaker = Speaker::new(
            peer.clone(),
            own.clone(),
            self.netns.clone(),
            self.board.clone(),
            self.told.clone(),
        );
        self.tasks.spawn(speaker.run(self.client.clone(), receiver));
        Running {
            peer: peer.clone(),
            own: own.clone(),
            orders,
        }
    }

    /// All sessions end, as they should when an agent ends.
    pub(super) fn leave(&mut self) {
        for running in std::mem::take(&mut self.running).into_values() {
            send(&running.orders, Order::End(Farewell::Restart));
        }
    }
}

fn send(orders: &mpsc::UnboundedSender<Order>, order: Order) {
    if orders.send(order).is_err() {
        tracing::warn!("the task of a BGP peer has ended");
    }
}
