//! The controllers of a cluster, as one loop.
//!
//! ```text
//!  watches ──► Feed ──► World (stores) ──► dirty keys ──► Queue
//!                         ▲                                 │ one at a time per key
//!                         │ answers                         ▼
//!                      API server ◄── writes ── decide (pure, in plan) ──► Step
//! ```
//!
//! One task owns the stores and the queue and decides; writes run as tasks of
//! their own and send the server's answers back into the stores, so that the
//! next decision never knows less than what was written. A key whose writes
//! failed comes back later and later, as in client-go.
//!
//! The addresses of load balancers are a loop like this one beside it, which real
//! clusters may have too ([`load_balancer`]).
//!
//! Garbage collection and the deletion of namespaces walk all kinds that the
//! server serves and are loops of their own beside it.
//!
//! Deliberately absent: leader election, but for load balancers. Exactly one of
//! these runs against the embedded API server; real clusters have their own
//! controllers.

pub(crate) mod absorb;
mod carry_out;
mod decide;
pub(crate) mod feed;
mod garbage;
pub mod load_balancer;
mod namespaces;
mod queue;
mod touch;
mod world;

use std::marker::PhantomData;
use std::time::{Duration, Instant};

use portolan_client::{Client, Writer};
use portolan_plan::workloads::{Kind, NodeTimes};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use carry_out::Hands;
use feed::{Message, Report};
use queue::Queue;
use world::{Task, World};

/// Messages waiting for the loop.
const CHANNEL_DEPTH: usize = 4096;
/// Messages taken in before the next round of decisions.
const DRAIN: usize = 1024;
/// Keys whose writes may be under way at once.
const IN_FLIGHT: usize = 64;

/// How the controllers behave.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// First and longest wait before failed writes are tried again.
    pub retry: (Duration, Duration),
    /// When silent nodes and their pods are given up.
    pub node_times: NodeTimes,
    /// How long pods outlive a Node object that is gone.
    pub orphan_grace: Duration,
    /// How often the served kinds are looked at again.
    pub discovery_interval: Duration,
}

impl Default for ClusterConfig {
    fn default() -> Self {
        Self {
            // client-go's defaults.
            retry: (Duration::from_millis(5), Duration::from_secs(1000)),
            node_times: NodeTimes::default(),
            orphan_grace: Duration::from_secs(10),
            discovery_interval: Duration::from_secs(30),
        }
    }
}

/// The names under which events are told: those of Kubernetes' own controllers.
const COMPONENTS: &[(Kind, &str)] = &[
    (Kind::Deployment, "deployment-controller"),
    (Kind::ReplicaSet, "replicaset-controller"),
    (Kind::StatefulSet, "statefulset-controller"),
    (Kind::DaemonSet, "daemonset-controller"),
    (Kind::Pod, "default-scheduler"),
    (Kind::Node, "node-controller"),
    (Kind::Endpoints, "endpoint-slice-mirroring-controller"),
    (Kind::Service, "endpoint-slice-controller"),
];

/// Runs the controllers until `shutdown`.
pub async fn run(client: Client, config: ClusterConfig, shutdown: CancellationToken) {
    let beside = TaskTracker::new();
    beside.spawn(garbage::run(
        client.clone(),
        config.clone(),
        shutdown.clone(),
    ));
    beside.spawn(namespaces::run(
        client.clone(),
        config.clone(),
        shutdown.clone(),
    ));
    let (retry, stop) = (config.retry, shutdown.clone());
    beside.spawn(load_balancer::run(client.clone(), retry, stop));
    beside.close();
    workloads(client, config, &shutdown).await;
    beside.wait().await;
}

/// The loop over the kinds that hang together: nodes, pods, what makes pods,
/// and what stands before them.
async fn workloads(client: Client, config: ClusterConfig, shutdown: &CancellationToken) {
    let (inbox, mut messages) = mpsc::channel(CHANNEL_DEPTH);
    feed::start(&client, &inbox);
    let hands = Hands {
        writer: Writer::new(client.clone(), "portolan-controllers"),
        recorders: carry_out::Recorders::new(&client, COMPONENTS),
        inbox,
        tasks: PhantomData,
    };
    let mut queue = Queue::new(config.retry);
    let mut world = World::new(config);
    let mut in_flight = 0usize;
    while let Some(news) = next(&mut messages, queue.next_due(), shutdown).await {
        for message in news {
            take(message, &mut world, &mut queue, &mut in_flight);
        }
        if !world.is_listed() {
            continue;
        }
        let now = Instant::now();
        while in_flight < IN_FLIGHT
            && let Some(task) = queue.pop(now)
        {
            let step = decide::decide(&mut world, &task, jiff::Timestamp::now());
            if let Some(after) = step.again {
                queue.add_after(task.clone(), now + after);
            }
            if step.is_done() {
                let again = world.succeeded(&task);
                queue.done(&task, true, now);
                if again {
                    queue.add(task);
                }
            } else {
                in_flight += 1;
                hands.carry_out(task, step);
            }
        }
    }
}

fn take(message: Message, world: &mut World, queue: &mut Queue<Task>, in_flight: &mut usize) {
    let now = Instant::now();
    if let Message::Report(Report::Done { task, success }) = &message {
        *in_flight = in_flight.saturating_sub(1);
        let again = *success && world.succeeded(task);
        queue.done(task, *success, now);
        if again {
            queue.add(task.clone());
        }
    }
    for (task, after) in world.take(message) {
        match after {
            None => queue.add(task),
            Some(after) => queue.add_after(task, now + after),
        }
    }
}

/// What a loop hears next: some messages, or none because something is due. Nothing once
/// it is over.
async fn next<M>(
    messages: &mut mpsc::Receiver<M>,
    due: Option<Instant>,
    shutdown: &CancellationToken,
) -> Option<Vec<M>> {
    let mut news = Vec::new();
    tokio::select! {
        biased;
        () = shutdown.cancelled() => None,
        heard = messages.recv_many(&mut news, DRAIN) => (heard > 0).then_some(news),
        () = sleep_until(due) => Some(Vec::new()),
    }
}

/// Sleeps until then, or for ever.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}
