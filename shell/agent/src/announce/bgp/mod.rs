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
//! Beside a session, BFD may look after the path to its peer ([`path`]). A path that is
//! broken ends the session at once.

mod board;
mod config;
mod connection;
mod dial;
mod fault;
mod goodbye;
mod path;
mod route;
mod status;
mod task;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use portolan_client::{Client, Recorder};
use portolan_kernel::netns::NetNs;
use portolan_model::workloads::{ObjectKey, Peer};
use portolan_plan::announce::{Announcing, RouteKey};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::{AnnounceConfig, AnnounceTold};
pub use goodbye::{Farewelled, end_sessions};
pub(super) use status::says_gone;

use board::Board;
use path::Paths;
use route::Change;
use status::{Want, Wanted};
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

/// What the tasks of all peers have in common.
#[derive(Clone)]
struct Common {
    netns: NetNs,
    client: Client,
    recorder: Recorder,
    told: AnnounceTold,
    paths: Paths,
    board: Board,
}

/// The sessions of a node.
pub(super) struct Peers {
    common: Common,
    tasks: TaskTracker,
    wanted: watch::Sender<Wanted>,
    running: BTreeMap<ObjectKey, Running>,
}

impl Peers {
    /// No sessions yet. Statuses are written until `over`.
    pub(super) fn new(
        config: &AnnounceConfig,
        recorder: Recorder,
        tasks: TaskTracker,
        over: CancellationToken,
    ) -> Self {
        let (wanted, nodes) = watch::channel(Wanted::default());
        let common = Common {
            netns: config.netns.clone(),
            client: config.client.clone(),
            recorder,
            told: config.told.clone(),
            paths: Paths::new(config.netns.clone(), config.told.clone()),
            board: Board::default(),
        };
        let sessions = common.board.follow();
        let (client, node) = (config.client.clone(), config.node.clone());
        tasks.spawn(status::run(client, node, sessions, nodes, over));
        Self {
            common,
            tasks,
            wanted,
            running: BTreeMap::new(),
        }
    }

    /// Brings the sessions and what they tell in line with what is announced; `touched`
    /// are routes that may be otherwise than before, `stale` the peers whose status says
    /// that this node's agent is gone.
    pub(super) fn settle<'a>(
        &mut self,
        announcing: &Announcing,
        own: &Own,
        touched: impl IntoIterator<Item = &'a RouteKey>,
        stale: &BTreeSet<ObjectKey>,
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
        self.count(announcing, own, stale);
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
            if let Some(running) = self.running.get_mut(key) {
                if running.peer.bfd != peer.bfd {
                    running.peer = peer.clone();
                    send(&running.orders, Order::Watch(peer.bfd));
                }
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

    /// Notes what the statuses of all peers follow from, besides the sessions.
    fn count(&self, announcing: &Announcing, own: &Own, stale: &BTreeSet<ObjectKey>) {
        let ground = announcing.ground();
        let there = ground.standing().filter(|(_, one)| one.links.is_some());
        let mut there = there.map(|(node, _)| node.to_owned());
        // One of the agents that are there looks after the entries of those that are not.
        let keeps = there.by_ref().next().is_some_and(|first| first == own.node);
        let there = match keeps {
            true => std::iter::once(own.node.clone()).chain(there).collect(),
            false => BTreeSet::new(),
        };
        let own_peers = ground.peers().filter(|(peer, _)| peer.is_own());
        let peers = own_peers.map(|(peer, nodes)| {
            let key = peer.meta.key.clone();
            let nodes = nodes.map(str::to_owned).collect();
            let (faults, stale) = (peer.faults.clone(), stale.contains(&key));
            let want = Want {
                nodes,
                faults,
                stale,
            };
            (key, want)
        });
        let wanted = Wanted {
            peers: peers.collect(),
            there: keeps.then_some(there),
        };
        self.wanted.send_if_modified(|known| {
            let other = *known != wanted;
            *known = wanted;
            other
        });
    }

    fn begin(&self, peer: &Peer, own: &Own) -> Running {
        let (orders, receiver) = mpsc::unbounded_channel();
        let speaker = Speaker::new(peer.clone(), own.clone(), self.common.clone());
        self.tasks.spawn(speaker.run(receiver));
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
