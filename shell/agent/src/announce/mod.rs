//! The loop that tells the network where load balancers' addresses are.
//!
//! ```text
//!   API server ──► World (stores) ──► plan::announce ──► candidates of each address
//!                                                              │
//!   other agents ◄──UDP──► heart (who is alive) ──────────► Ledger: what this node owns
//!                                                              │
//!   the node's links ──► survey ──► Lease (tells the others)   ▼
//!                            └────────────────────────────► one task for each link
//!
//!   routes of this node ───────────────────────────────────► one task for each BGP peer
//! ```
//!
//! One task owns what is known and decides who answers; the heart, each link, each
//! peer, the survey and the Lease are tasks of their own, which it tells and which tell it. What
//! they do on the wire is decided by the machines of `portolan_announce`.
//!
//! Nothing is answered for before every kind has been listed once and the others have
//! had time to tell of themselves, so that a start takes no address away from anybody
//! and agents that start together know each other. While the API server is away, all stays as it
//! was, but that nodes that die are replaced. At the end the others are told, and take
//! over at once.

mod bgp;
mod fresh;
mod heart;
mod kept;
mod lease;
mod ledger;
mod link;
mod links;
mod report;
mod survey;
mod told;
mod world;

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use portolan_announce::election::Key;
use portolan_client::{Client, Recorder, Resource};
use portolan_kernel::netns::NetNs;
use portolan_plan::announce::Reports;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use bgp::Peers;
use heart::{Alive, Members};
use ledger::Ledger;
use links::LinkTasks;
use world::{Message, World};

pub use bgp::{Farewelled, end_sessions};
pub use told::AnnounceTold;

/// The port of heartbeats: next to that of MetalLB's memberlist, which may still run.
pub const HEARTBEAT_PORT: u16 = 7947;
/// Under which name events are told, and fields are owned.
const COMPONENT: &str = "portolan-announcer";
/// Messages waiting for the loop.
const CHANNEL_DEPTH: usize = 4096;
/// Messages taken in before the next round of decisions.
const DRAIN: usize = 1024;
/// Between this node's Lease and its first heartbeat. Agents that start together, each
/// with a Lease that is about to be written, know each other by then: longer than it
/// takes to give up a node that is silent, so that one that is slower is not missed.
const SETTLING: Duration = Duration::from_secs(1);
/// How long the tasks may take to say goodbye.
const FAREWELL: Duration = Duration::from_secs(2);

/// What an agent that announces needs to know.
#[derive(Clone)]
pub struct AnnounceConfig {
    /// Its node.
    pub node: String,
    /// Where the node's links are.
    pub netns: NetNs,
    /// The API server.
    pub client: Client,
    /// The namespace of the agents' Leases.
    pub namespace: String,
    /// The port of heartbeats, the same on all nodes.
    pub heartbeat_port: u16,
    /// What seals heartbeats, the same on all nodes.
    pub heartbeat_key: Option<Vec<u8>>,
    /// Where it is counted what is announced.
    pub told: AnnounceTold,
}

/// What is listed and watched: all that whoever runs this must be allowed to, besides
/// the Leases of its namespace. Kinds that are not served, or may not be read, count as
/// empty where they are custom ones.
pub const WATCHED: [&Resource; 13] = world::WATCHED;

/// Announces until `shutdown`.
pub async fn run(config: AnnounceConfig, shutdown: CancellationToken) {
    let (inbox, messages) = mpsc::channel(CHANNEL_DEPTH);
    world::start(&config.client, &config.namespace, &inbox);
    let tasks = TaskTracker::new();
    // The tasks end after the loop has let everything go.
    let over = CancellationToken::new();
    // Who hears from the beginning misses nothing.
    let (found, links) = watch::channel(Vec::new());
    tasks.spawn(survey::run(config.netns.clone(), found, over.clone()));
    let (reports, to_say) = watch::channel(Reports::new());
    let (client, node) = (config.client.clone(), config.node.clone());
    tasks.spawn(report::run(client, node, to_say, over.clone()));
    let recorder = Recorder::new(config.client.clone(), COMPONENT, &config.node);
    let mut speaking = Speaking {
        reports,
        world: World::new(&config.node),
        ledger: Ledger::new(&config.node),
        links: LinkTasks::new(config.netns.clone(), tasks.clone(), config.told.clone()),
        peers: Peers::new(&config, recorder.clone(), tasks.clone(), over.clone()),
        recorder,
        among: false,
        lease: watch::channel(false),
        settled_at: None,
        held: false,
        members: None,
        tasks: tasks.clone(),
        over: over.clone(),
        config,
    };
    speaking.work(messages, links, &shutdown).await;
    speaking.links.release_all();
    speaking.peers.leave();
    over.cancel();
    tasks.close();
    drop(speaking);
    if tokio::time::timeout(FAREWELL, tasks.wait()).await.is_err() {
        tracing::warn!("announcing has not ended in time");
    }
}

/// All that the loop owns.
struct Speaking {
    config: AnnounceConfig,
    world: World,
    ledger: Ledger,
    links: LinkTasks,
    peers: Peers,
    recorder: Recorder,
    /// What is to be said on the objects that all this follows from.
    reports: watch::Sender<Reports>,
    /// Whether this node has been among those that announce.
    among: bool,
    /// Whether the Lease of this start is written.
    lease: (watch::Sender<bool>, watch::Receiver<bool>),
    /// Whether somebody is there who writes it.
    held: bool,
    /// When heartbeats may begin, as soon as that is known.
    settled_at: Option<Instant>,
    /// To whom heartbeats go; none before they began.
    members: Option<watch::Sender<Members>>,
    tasks: TaskTracker,
    over: CancellationToken,
}

impl Speaking {
    async fn work(
        &mut self,
        mut messages: mpsc::Receiver<Message>,
        mut links: watch::Receiver<Vec<survey::Found>>,
        shutdown: &CancellationToken,
    ) {
        let (alive, mut heard) = watch::channel(Alive::default());
        loop {
            let settled_at = self.settled_at.filter(|_| self.members.is_none());
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return,
                Ok(()) = heard.changed() => {
                    let alive = heard.borrow_and_update().clone();
                    self.ledger.set_alive(alive);
                }
                Ok(()) = links.changed() => {
                    let found = links.borrow_and_update().clone();
                    let new = self.links.set(&found);
                    self.ledger.begin(&new);
                }
                () = sleep_until(settled_at) => {}
                Ok(()) = self.lease.1.changed() => {}
                message = messages.recv() => {
                    let Some(message) = message else { return };
                    self.world.take(message, Instant::now());
                    for _ in 1..DRAIN {
                        let Ok(message) = messages.try_recv() else { break };
                        self.world.take(message, Instant::now());
                    }
                }
            }
            if self.world.is_listed() {
                self.settle(&alive, &links);
            }
        }
    }

    /// Brings everything in line with what is known now.
    fn settle(
        &mut self,
        alive: &watch::Sender<Alive>,
        links: &watch::Receiver<Vec<survey::Found>>,
    ) {
        let touched = self.world.settle();
        let members = self.world.members();
        match &self.members {
            Some(sender) => {
                sender.send_if_modified(|known| {
                    let other = *known != members;
                    known.clone_from(&members);
                    other
                });
            }
            None => self.begin(members, alive, links),
        }
        let moves = self
            .ledger
            .settle(&self.world.announcing, touched.addresses);
        for address in &moves.taken {
            self.config.told.owns(*address, true);
            self.tell(*address);
        }
        for address in &moves.given_up {
            self.config.told.owns(*address, false);
        }
        self.links.carry_out(moves.orders);
        let reports = self.world.reports();
        self.reports.send_if_modified(|known| {
            let other = *known != reports;
            *known = reports;
            other
        });
        // Before this node is among those that announce, it has no routes: a peer that
        // kept those of an earlier agent must not be told that this is all.
        self.among |= self.world.is_among_speakers();
        let own = self.world.own();
        if let Some(own) = own.filter(|_| self.among) {
            let announcing = &self.world.announcing;
            let stale = self.world.stale();
            self.peers.settle(announcing, &own, &touched.routes, stale);
        }
    }

    /// The Lease, once it is known where this node is; and the first heartbeat, once the
    /// others had time to read that, and this node their Leases.
    fn begin(
        &mut self,
        members: Members,
        alive: &watch::Sender<Alive>,
        links: &watch::Receiver<Vec<survey::Found>>,
    ) {
        let own = self.world.own();
        let Some(address) = own.and_then(|own| own.addresses.first().copied()) else {
            // With an address it begins anew, and does not run in circles until then.
            self.settled_at = None;
            return;
        };
        let at = SocketAddr::new(address, self.config.heartbeat_port);
        if !std::mem::replace(&mut self.held, true) {
            self.hold(at, links);
        }
        let now = Instant::now();
        let is_known = *self.lease.1.borrow() && self.world.is_among_speakers();
        if self.settled_at.is_none() && is_known {
            self.settled_at = Some(now + SETTLING);
        }
        if self.settled_at.is_none_or(|at| now < at) {
            return;
        }
        let (sender, receiver) = watch::channel(members);
        let heart = heart::Heart {
            node: self.config.node.clone(),
            netns: self.config.netns.clone(),
            at,
            key: self.config.heartbeat_key.as_deref().map(Key::new),
            group: self.config.namespace.clone(),
        };
        self.tasks
            .spawn(heart.beat(receiver, alive.clone(), self.over.clone()));
        self.members = Some(sender);
    }

    /// Writes the Lease of this node, again and again.
    fn hold(&self, at: SocketAddr, links: &watch::Receiver<Vec<survey::Found>>) {
        let lease = lease::Holder {
            client: self.config.client.clone(),
            namespace: self.config.namespace.clone(),
            node: self.config.node.clone(),
            heartbeats_at: at,
            written: self.lease.0.clone(),
        };
        self.tasks
            .spawn(lease.hold(links.clone(), self.over.clone()));
    }

    /// Says on the Services of an address that this node answers for it, in MetalLB's
    /// words.
    fn tell(&self, address: IpAddr) {
        let node = &self.config.node;
        tracing::info!(%address, node, "answers for an address");
        for about in self.world.services_of(address) {
            self.recorder.tell(
                &about,
                portolan_client::Severity::Normal,
                "nodeAssigned",
                &format!("announcing from node {node:?} with protocol \"layer2\""),
            );
        }
    }
}

/// Sleeps until then, or for ever.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
