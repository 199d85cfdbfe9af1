//! Packets that policies deny, told of: as flows for whoever asks, as events on the
//! pods, and as counters.
//!
//! ```text
//!  kernel ──log group──► listener ──0.2 s──► join ──► board (flows)   ─► GET /flows/dropped
//!         (100 a second)                      ▲  ├──► events on pods
//!                                             │  └──► counters by policy
//!                                    the node's loop: its plan and cluster
//! ```
//!
//! A rule logs before it drops, and no more than some packets a second, so a flood
//! costs little; the kernel counts them all, and what was not told is the difference.
//! Connections that are cut are told of once, by whoever cuts them ([`Cuts`]).
//! Why a packet was dropped is asked of the plan as it is when the packet is told of:
//! the log says which packet it was, and the plan what denies it.

mod board;
mod counts;
mod events;
mod join;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portolan_kernel::netns::NetNs;
use portolan_kernel::nflog::{Ends, Heard, Listener};
use portolan_kernel::nft::Nft;
use portolan_model::{Cluster, Family};
use portolan_plan::NodePlan;
use portolan_render::nft::{DENIED, tables};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};

pub(crate) use board::Board;
pub(crate) use counts::Denied;

use crate::metrics::Metrics;
use crate::node::NodeConfig;
use events::Events;
use join::{Flow, Seen, joined};

/// The group of nfnetlink_log at which packets that policies deny are told of.
const LOG_GROUP: u16 = 10_256;

/// How long packets are gathered, so that those of one flow are told of once.
const GATHERED: Duration = Duration::from_millis(200);
/// So many flows are told of at once; what is more is only counted.
const MOST: usize = 256;
/// How often the kernel's counters are read.
const COUNTED: Duration = Duration::from_secs(2);
/// The pause after the listener failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Cut connections that wait to be told of, in messages; what is more is not told.
const CUTS: usize = 16;

/// Where to tell of connections that policies cut; nowhere by default.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cuts(Option<mpsc::Sender<Vec<Ends>>>);

impl Cuts {
    /// Tells of these, each from who began it to whom it reaches.
    pub(crate) fn tell(&self, connections: impl Iterator<Item = Ends>) {
        let Some(sender) = &self.0 else { return };
        let connections: Vec<Ends> = connections.take(MOST).collect();
        if !connections.is_empty() {
            // Where so many wait, most of them are not told either.
            drop(sender.try_send(connections));
        }
    }
}

/// A question to the node's loop: what it knows.
#[derive(Debug)]
pub(crate) struct Ask(oneshot::Sender<(NodePlan, Cluster)>);

impl Ask {
    /// Answers it. A clone is cheap, and is given back soon.
    pub(crate) fn answer(self, plan: &NodePlan, cluster: &Cluster) {
        // Who asked may have gone.
        drop(self.0.send((plan.clone(), cluster.clone())));
    }
}

/// The questions to the node's loop; none ever where nobody watches.
#[derive(Debug, Default)]
pub(crate) struct Asks(Option<mpsc::Receiver<Ask>>);

impl Asks {
    /// The next one.
    pub(crate) async fn next(&mut self) -> Ask {
        match &mut self.0 {
            Some(asks) => match asks.recv().await {
                Some(ask) => ask,
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }
}

/// The watcher of one node. It ends with this handle.
#[derive(Debug, Default)]
pub(crate) struct Drops {
    /// Where flows are told; none where nobody watches.
    pub(crate) board: Option<Arc<Board>>,
    /// Where to tell of connections that policies cut.
    pub(crate) cuts: Cuts,
    worker: Option<JoinHandle<()>>,
}

impl Drop for Drops {
    fn drop(&mut self) {
        if let Some(worker) = &self.worker {
            worker.abort();
        }
    }
}

impl Drops {
    /// Watches, if that is wanted and the kernel can tell, and has the rules log.
    pub(crate) fn start(config: &mut NodeConfig, metrics: &Metrics) -> (Self, Asks) {
        config.given.policy_log = None;
        if !config.policies || !config.policy_log {
            return Default::default();
        }
        let node = &config.given.node;
        let listener = match Listener::open(&config.netns, LOG_GROUP) {
            Ok(listener) => listener,
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(%node, error, "packets that policies deny are not told of");
                return Default::default();
            }
        };
        let (ask, asks) = mpsc::channel(1);
        let (cut, cuts) = mpsc::channel(CUTS);
        let board = Arc::new(Board::new(node));
        let worker = Worker {
            listener,
            cuts,
            netns: config.netns.clone(),
            ask,
            board: Arc::clone(&board),
            counts: metrics.denied.clone(),
            events: Events::new(config.kube.clone(), node),
            pending: BTreeMap::new(),
        };
        let worker = tokio::spawn(worker.work());
        config.given.policy_log = Some(LOG_GROUP);
        let drops = Self {
            board: Some(board),
            cuts: Cuts(Some(cut)),
            worker: Some(worker),
        };
        (drops, Asks(Some(asks)))
    }
}

struct Worker {
    listener: Listener,
    cuts: mpsc::Receiver<Vec<Ends>>,
    netns: NetNs,
    ask: mpsc::Sender<Ask>,
    board: Arc<Board>,
    counts: Denied,
    events: Events,
    /// What is gathered.
    pending: BTreeMap<Flow, Seen>,
}

impl Worker {
    async fn work(mut self) {
        let counting = tokio::spawn(count(
            self.netns.clone(),
            Arc::clone(&self.board),
            self.counts.clone(),
        ));
        // The other task ends with this one.
        let _counting = EndsWithIt(counting);
        loop {
            if let Err(error) = self.hear().await {
                tracing::debug!(%error, "what policies deny was not heard");
                sleep(PAUSE).await;
                continue;
            }
            let mut until = std::pin::pin!(sleep(GATHERED));
            loop {
                tokio::select! {
                    () = &mut until => break,
                    heard = self.hear() => if heard.is_err() { break },
                }
            }
            self.tell().await;
        }
    }

    /// Waits for packets that were dropped, or connections that were cut.
    async fn hear(&mut self) -> std::io::Result<()> {
        tokio::select! {
            heard = self.listener.hear() => self.take(heard?),
            Some(connections) = self.cuts.recv() => self.take_cut(&connections),
        }
        Ok(())
    }

    fn take_cut(&mut self, connections: &[Ends]) {
        let now = SystemTime::now();
        for ends in connections {
            if self.pending.len() < MOST {
                let seen = Seen::cut(ends, now);
                self.pending.entry(Flow::cut(ends)).or_insert(seen);
            }
        }
    }

    fn take(&mut self, heard: Heard) {
        let now = SystemTime::now();
        for packet in heard.packets {
            let flow = Flow::of(&packet);
            let room = self.pending.len() < MOST;
            if let Some(seen) = self.pending.get_mut(&flow) {
                seen.packets += 1;
            } else if room {
                self.pending.insert(flow, Seen::new(&packet, now));
            }
        }
    }

    /// Tells of what was gathered.
    async fn tell(&mut self) {
        let flows = std::mem::take(&mut self.pending);
        let (answer, answered) = oneshot::channel();
        if self.ask.send(Ask(answer)).await.is_err() {
            return;
        }
        let Ok((plan, cluster)) = answered.await else {
            return;
        };
        let told = tokio::task::spawn_blocking(move || joined(&plan, &cluster, flows));
        let Ok(told) = told.await else { return };
        for one in &told {
            self.counts.denied(one);
        }
        self.board.put(&told);
        self.events.tell(&told).await;
    }
}

/// A task that ends with its owner.
struct EndsWithIt(JoinHandle<()>);

impl Drop for EndsWithIt {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reads now and then how many packets the kernel dropped.
async fn count(netns: NetNs, board: Arc<Board>, counts: Denied) {
    let mut tick = interval(COUNTED);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut nft = None;
    let mut before = [0; 2];
    loop {
        tick.tick().await;
        let mut own: Option<Nft> = nft.take();
        let netns = netns.clone();
        let read = tokio::task::spawn_blocking(move || {
            if own.is_none() {
                own = Nft::open(&netns).ok();
            }
            let found = tables().map(|table| {
                let counted = own.as_mut()?.counted(&table, &DENIED.into());
                Some(counted.ok()?.map_or(0, |counts| counts.packets))
            });
            (own, found)
        });
        let Ok((own, found)) = read.await else { return };
        nft = own;
        for ((family, found), before) in Family::BOTH.into_iter().zip(found).zip(&mut before) {
            let Some(found) = found else { continue };
            // A counter that is smaller than it was has begun anew.
            let more = found.checked_sub(*before).unwrap_or(found);
            *before = found;
            counts.dropped(family, more);
            board.dropped(more);
        }
    }
}
