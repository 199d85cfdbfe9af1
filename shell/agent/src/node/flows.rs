//! The flows plane: tracked flows, ended where the plan says so (P17).
//!
//! A worker of its own does this, beside the loop, on a snapshot: a listing of a
//! large table takes longer than a change may wait. Orders that come while it
//! works are merged into the next run; between two runs it rests nine times as
//! long as the last one took, so that a storm of changes costs a tenth of a core
//! at most and the last order is never lost. A failed run is an order again.
//!
//! Runs follow commits: rules that are not in the kernel yet would make new stale
//! entries.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use portolan_conntrack::{Entry, Family as WireFamily, Filter};
use portolan_kernel::conntrack::{Conntrack, ConntrackError};
use portolan_kernel::netns::NetNs;
use portolan_kernel::nflog::Ends;
use portolan_model::{Cluster, Family, Protocol};
use portolan_plan::NodePlan;
use portolan_plan::conntrack::{Flow, Judge, Question, Scope};
use portolan_plan::policy::{Connection, Review, Turn};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::drops::Cuts;
use crate::metrics::Metrics;

/// How many times as long as a run took nothing is done after it.
const REST: u32 = 9;
/// The shortest rest.
const REST_MIN: Duration = Duration::from_millis(50);
/// The longest one: a client must not wait longer for its new endpoint.
const REST_MAX: Duration = Duration::from_secs(5);
/// How long is waited after a run that failed; it doubles.
const RETRY: Duration = Duration::from_secs(1);
/// The longest wait after a run that failed.
const RETRY_LIMIT: Duration = Duration::from_secs(60);

/// How often policies look once more at connections that they judged.
const AGAIN: u8 = 1;

/// What is to be judged, and by what.
#[derive(Debug)]
struct Order {
    scope: Scope,
    /// Whose connections are judged by policies.
    review: Review,
    /// How often policies judge them once more: a packet that the old rules let through
    /// may begin a connection a moment after the new ones are there.
    again: u8,
    plan: NodePlan,
    cluster: Cluster,
}

/// Where orders wait. The newest plan counts, for all of them.
#[derive(Debug, Default)]
struct Desk {
    order: Mutex<Option<Order>>,
    called: Notify,
}

/// What a run needs.
#[derive(Debug)]
struct Worker {
    conntrack: Conntrack,
    metrics: Metrics,
    cuts: Cuts,
}

/// The worker of one node. It ends with this handle.
#[derive(Debug)]
pub struct Flows {
    desk: Arc<Desk>,
    worker: JoinHandle<()>,
}

impl Flows {
    /// Opens the connection tracking of a namespace and waits for orders.
    ///
    /// # Errors
    /// If the kernel gives no socket.
    pub fn start(netns: &NetNs, node: &str) -> Result<Self, ConntrackError> {
        Self::telling(netns, node, Metrics::new(), Cuts::default())
    }

    /// As [`Flows::start`], telling what is done.
    pub(crate) fn telling(
        netns: &NetNs,
        node: &str,
        metrics: Metrics,
        cuts: Cuts,
    ) -> Result<Self, ConntrackError> {
        let worker = Worker {
            conntrack: Conntrack::open(netns)?,
            metrics,
            cuts,
        };
        let desk = Arc::new(Desk::default());
        let worker = tokio::spawn(work(worker, Arc::clone(&desk), node.to_owned()));
        Ok(Self { desk, worker })
    }

    /// Orders flows to be judged by this plan: those in a scope by what serves, and
    /// those of a review by policies, where these cut; unless there can be none.
    pub fn order(&self, scope: Scope, review: Review, plan: &NodePlan, cluster: &Cluster) {
        let review = match plan.policies.cut_bit {
            Some(_) => review,
            None => Review::default(),
        };
        if scope.questions(plan).is_empty() && review.is_empty() {
            return;
        }
        self.desk.put(Order {
            scope,
            review,
            again: AGAIN,
            plan: plan.clone(),
            cluster: cluster.clone(),
        });
    }
}

impl Drop for Flows {
    fn drop(&mut self) {
        self.worker.abort();
    }
}

impl Desk {
    fn lock(&self) -> MutexGuard<'_, Option<Order>> {
        self.order.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A newer order, which takes in the one that waits.
    fn put(&self, mut order: Order) {
        let mut waiting = self.lock();
        if let Some(older) = waiting.take() {
            order.scope.merge(older.scope);
            order.review.merge(older.review);
        }
        *waiting = Some(order);
        self.called.notify_one();
    }

    /// Whether a newer order waits.
    fn is_overtaken(&self) -> bool {
        self.lock().is_some()
    }

    /// Keeps what policies must judge once more of an order that is done.
    fn once_more(&self, done: Order) {
        // Whom a newer order overtook is in it, whatever was done already.
        let again = if self.is_overtaken() {
            Some(AGAIN)
        } else {
            done.again.checked_sub(1)
        };
        if let Some(again) = again
            && !done.review.is_empty()
        {
            self.put_back(Order {
                scope: Scope::default(),
                again,
                ..done
            });
        }
    }

    /// An order that failed, which gives way to a newer one.
    fn put_back(&self, failed: Order) {
        let mut waiting = self.lock();
        match waiting.as_mut() {
            Some(newer) => {
                newer.scope.merge(failed.scope);
                newer.review.merge(failed.review);
            }
            None => *waiting = Some(failed),
        }
        self.called.notify_one();
    }
}

async fn work(mut worker: Worker, desk: Arc<Desk>, node: String) {
    let mut retry = RETRY;
    loop {
        desk.called.notified().await;
        let Some(order) = desk.lock().take() else {
            continue;
        };
        let own = Arc::clone(&desk);
        let run = tokio::task::spawn_blocking(move || {
            let started = Instant::now();
            let done = worker.reconcile(&order, &own);
            (worker, order, done, started.elapsed())
        });
        let Ok((returned, order, done, took)) = run.await else {
            // The runtime ends, or a run panicked: nothing is left to work with.
            return;
        };
        worker = returned;
        worker.metrics.flows_judged(took);
        let rest = match done {
            Ok(ended) => {
                // Snapshots must not outlive their use.
                desk.once_more(order);
                retry = RETRY;
                tracing::debug!(node, ended, ?took, "flows were judged");
                (took * REST).clamp(REST_MIN, REST_MAX)
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(node, error, "stale flows could not be ended");
                desk.put_back(order);
                let rest = retry;
                retry = (retry * 2).min(RETRY_LIMIT);
                rest
            }
        };
        tokio::time::sleep(rest).await;
    }
}

impl Worker {
    /// Judges every flow of an order and ends what is stale; how many that were.
    fn reconcile(&mut self, order: &Order, desk: &Desk) -> Result<usize, ConntrackError> {
        let Order {
            scope,
            plan,
            cluster,
            ..
        } = order;
        self.review(order, desk)?;
        let own: BTreeSet<IpAddr> = if scope.needs_own_addresses(plan) {
            self.conntrack.own_addresses()?
        } else {
            BTreeSet::new()
        };
        let mut judge = Judge::new(plan, cluster, scope, &own);
        let mut ended = 0;
        for question in scope.questions(plan) {
            let stale = self.conntrack.pick(&filter(&question), |entry| {
                judge.judge(&flow(entry)?).map(|_| *entry)
            })?;
            for family in Family::BOTH {
                let stale = stale.iter().copied();
                let stale = stale.filter(|entry| Family::of(entry.original.source) == family);
                let gone = self.conntrack.delete(&stale.collect::<Vec<_>>())?;
                self.metrics.flows_ended(family, gone);
                ended += gone;
            }
        }
        Ok(ended)
    }
}

impl Worker {
    /// Cuts connections that policies do not allow, and lets those go on that they
    /// allow again.
    fn review(&mut self, order: &Order, desk: &Desk) -> Result<(), ConntrackError> {
        let Order { review, plan, .. } = order;
        let Some(bit) = plan.policies.cut_bit.filter(|_| !review.is_empty()) else {
            return Ok(());
        };
        let own = self.conntrack.own_addresses()?;
        // Without an isolated pod there is only what was cut before.
        let none = plan.policies.isolated.is_empty();
        for family in review.families() {
            let filter = Filter {
                family: Some(wire_family(family)),
                mark: none.then_some((bit, bit)),
                ..Filter::default()
            };
            let turned: Vec<(Turn, Entry)> = self.conntrack.pick(&filter, |entry| {
                let connection = connection(entry, bit)?;
                let turn = review.judge(&plan.policies, &own, &connection)?;
                Some((turn, *entry))
            })?;
            // What began under newer rules is not judged by older ones: the newer order
            // takes this one in.
            if desk.is_overtaken() {
                return Ok(());
            }
            for (turn, value) in [(Turn::Cut, bit), (Turn::Restore, 0)] {
                let these = turned.iter().filter(|(own, _)| *own == turn);
                let these: Vec<Entry> = these.map(|(_, entry)| *entry).collect();
                let count = self.conntrack.mark(&these, (value, bit))?;
                self.metrics.connections_turned(family, turn, count);
                if turn == Turn::Cut {
                    let open = these.iter().filter(|entry| !entry.is_closed);
                    self.cuts.tell(open.map(ends));
                }
            }
        }
        Ok(())
    }
}

/// What policies are about in an entry; nothing of what a switch below us tracks.
fn connection(entry: &Entry, bit: u32) -> Option<Connection> {
    let zoned = entry.zone != 0 || entry.original.zone != 0 || entry.reply.zone != 0;
    let protocols = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];
    let protocol = protocols
        .into_iter()
        .find(|protocol| protocol.number() == entry.original.protocol);
    let to = protocol.and_then(|protocol| Some((protocol, entry.reply.from()?.port())));
    (!zoned).then_some(Connection {
        source: entry.original.source,
        destination: entry.reply.source,
        to,
        is_cut: entry.mark & bit != 0,
    })
}

/// From who began it to whom it reaches.
fn ends(entry: &Entry) -> Ends {
    let ports = entry.original.from().zip(entry.reply.from());
    Ends {
        source: entry.original.source,
        destination: entry.reply.source,
        protocol: entry.original.protocol,
        ports: ports.map(|(from, to)| (from.port(), to.port())),
    }
}

fn wire_family(family: Family) -> WireFamily {
    match family {
        Family::V4 => WireFamily::V4,
        Family::V6 => WireFamily::V6,
    }
}

fn filter(question: &Question) -> Filter {
    Filter {
        family: question.family.map(wire_family),
        destination: question.address,
        protocol: Some(question.protocol.number()),
        destination_port: question.port,
        ..Filter::default()
    }
}

fn flow(entry: &Entry) -> Option<Flow> {
    let protocols = [Protocol::Udp, Protocol::Sctp];
    Some(Flow {
        protocol: protocols
            .into_iter()
            .find(|protocol| protocol.number() == entry.original.protocol)?,
        to: entry.original.to()?,
        answers_from: entry.reply.from()?,
        zoned: entry.zone != 0 || entry.original.zone != 0 || entry.reply.zone != 0,
    })
}

#[cfg(test)]
mod tests {
    use portolan_plan::NodeView;

    use super::*;

    fn order(node: &str, scope: Scope) -> Order {
        Order {
            scope,
            review: Review::default(),
            again: 0,
            plan: NodePlan::empty(NodeView {
                node: node.into(),
                ..NodeView::default()
            }),
            cluster: Cluster::default(),
        }
    }

    #[test]
    fn p17_no_order_is_lost_and_the_newest_plan_counts() {
        let desk = Desk::default();
        desk.put(order("old", Scope::everything()));
        desk.put(order("new", Scope::default()));
        let failed = desk.lock().take().unwrap();
        assert_eq!(failed.scope, Scope::everything());
        assert_eq!(&*failed.plan.view.node, "new");
        desk.put(order("newest", Scope::default()));
        desk.put_back(failed);
        let next = desk.lock().take().unwrap();
        assert_eq!(next.scope, Scope::everything());
        assert_eq!(&*next.plan.view.node, "newest");
        desk.put_back(next);
        assert!(desk.lock().is_some());
    }
}
