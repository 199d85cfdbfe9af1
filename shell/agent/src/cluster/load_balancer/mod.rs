//! The controller that gives Services of type LoadBalancer their addresses.
//!
//! A loop like that of the other controllers: one task owns what is known and who
//! has what ([`portolan_plan::load_balancer`]) and decides, writes run beside it.
//! Nothing is given before all kinds have been listed once and every Service has got
//! what its status says.

mod election;
mod world;

use std::marker::PhantomData;
use std::time::{Duration, Instant};

use portolan_client::{
    ADDRESS_POOLS, Client, ENDPOINT_SLICES, IP_ADDRESS_POOLS, NAMESPACES, NODES, Resource,
    SERVICES, Writer,
};
use portolan_plan::workloads::Kind;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::carry_out::{Hands, Recorders};
use super::feed::{Feed, Report};
use super::queue::Queue;
use super::{CHANNEL_DEPTH, IN_FLIGHT, next};
use world::{Message, Task, World};

pub use election::Election;

/// Under which name events are told, and fields are owned.
const COMPONENT: &str = "portolan-load-balancer";

/// What is listed and watched: all that whoever runs this must be allowed to. Pools
/// of a kind that is not served, or may not be read, count as none.
pub const WATCHED: [&Resource; 6] = [
    &SERVICES,
    &NODES,
    &NAMESPACES,
    &ENDPOINT_SLICES,
    &ADDRESS_POOLS,
    &IP_ADDRESS_POOLS,
];

/// Gives addresses until `shutdown`. Exactly one of these runs in a cluster.
pub async fn run(client: Client, retry: (Duration, Duration), shutdown: CancellationToken) {
    let (inbox, mut messages) = mpsc::channel(CHANNEL_DEPTH);
    start(&client, &inbox);
    let components = [(Kind::Service, COMPONENT), (Kind::IpAddressPool, COMPONENT)];
    let hands = Hands {
        writer: Writer::new(client.clone(), COMPONENT),
        recorders: Recorders::new(&client, &components),
        inbox,
        tasks: PhantomData,
    };
    let mut queue = Queue::new(retry);
    let mut world = World::default();
    let mut in_flight = 0usize;
    while let Some(news) = next(&mut messages, queue.next_due(), &shutdown).await {
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
            let (step, touched) = world.decide(&task, jiff::Timestamp::now());
            if step.is_done() {
                queue.done(&task, true, now);
            } else {
                in_flight += 1;
                hands.carry_out(task, step);
            }
            add(touched, &mut queue);
        }
    }
}

fn start(client: &Client, inbox: &mpsc::Sender<Message>) {
    let feed = |resource: &Resource| Feed::of(client, resource, inbox);
    feed(&SERVICES).start(Message::Service);
    feed(&NODES).start(Message::Node);
    feed(&NAMESPACES).start(Message::Namespace);
    feed(&ENDPOINT_SLICES).start(Message::Slice);
    for (resource, wrap) in [
        (&ADDRESS_POOLS, Message::Pool as fn(_) -> _),
        (&IP_ADDRESS_POOLS, Message::MetalPool),
    ] {
        let mut pools = feed(resource);
        pools.params.optional = true;
        pools.start(wrap);
    }
}

fn take(message: Message, world: &mut World, queue: &mut Queue<Task>, in_flight: &mut usize) {
    if let Message::Report(Report::Done { task, success }) = &message {
        *in_flight = in_flight.saturating_sub(1);
        queue.done(task, *success, Instant::now());
    }
    add(world.take(message), queue);
}

fn add(touched: world::Touched, queue: &mut Queue<Task>) {
    for task in touched {
        match &task {
            // Many Services make one status.
            Task::Pool(_) => queue.add_after(task, Instant::now() + world::SOON),
            Task::Service(_) => queue.add(task),
        }
    }
}
