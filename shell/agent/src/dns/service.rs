//! From a query to a reply: at once where the zones know, else by waiting.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use portolan_dns::{Answer, Lookup, Name, Question, Rcode, Transfer, Transport, Zones};
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use super::complete::Completion;
use super::front::SharedFront;
use super::metrics::{Count, DnsMetrics};
use super::upstream::{Upstream, UpstreamError};

/// How long a query waits for the first sync: less than the five seconds after
/// which stub resolvers give up.
const HOLD: Duration = Duration::from_millis(4500);
/// How many queries may wait at the same time for other resolvers. Each costs a task
/// and a socket.
const MOST_WAITING: usize = 1024;
/// How many queries may wait at the same time for the first sync. Each costs a task
/// of a few kilobytes.
const MOST_HELD: usize = 4096;
/// How many tasks there may be for both: each of the above, with some that are about to
/// find out that there is no room for them.
pub(super) const MOST_TASKS: usize = MOST_WAITING + MOST_HELD + 1024;
/// Said of a query for which there is no room.
const TOO_MANY: (u16, &str) = (OTHER_ERROR, "too many queries are waiting");

// Extended DNS errors (RFC 8914 §4).
const OTHER_ERROR: u16 = 0;
const NOT_READY: u16 = 14;
const NO_REACHABLE_AUTHORITY: u16 = 22;
/// Said of a name for which nobody can be asked.
const NOBODY: (u16, &str) = (
    OTHER_ERROR,
    "no upstream resolver: only names of the cluster exist",
);

pub(super) struct Service {
    zones: Arc<ArcSwap<Zones>>,
    ready: watch::Receiver<bool>,
    /// Remembers that `ready` was true once.
    was_ready: AtomicBool,
    upstream: Option<Arc<dyn Upstream>>,
    pub(super) front: SharedFront,
    pub(super) completion: Option<Completion>,
    pub(super) metrics: Arc<DnsMetrics>,
    pub(super) hold: Duration,
    waiting: Semaphore,
    holding: Semaphore,
    turn: AtomicU64,
}

/// How a query came, and from whom.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    pub(super) address: IpAddr,
    pub(super) transport: Transport,
}

/// What completing a search list has led to.
enum Completed {
    /// This reply.
    Reply(Vec<u8>),
    /// It takes asking others.
    Later,
    /// Nothing: the reply to the first name stands.
    Nothing,
}

/// What the receiving loop is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// Send what is in the buffer.
    Send,
    /// Nothing: the message was no query.
    Ignore,
    /// Let a task of its own call [`Service::eventually`].
    Wait,
}

/// What became of a query that waited for the first sync.
enum Hold {
    /// It can be answered or forwarded.
    Over,
    /// There was no room for it to wait: a datagram is left to its sender, who asks
    /// again.
    TooMany,
    /// The names are still not known.
    TooLong,
}

impl Service {
    pub(super) fn new(
        zones: Arc<ArcSwap<Zones>>,
        ready: watch::Receiver<bool>,
        upstream: Option<Arc<dyn Upstream>>,
        metrics: Arc<DnsMetrics>,
    ) -> Self {
        Self {
            zones,
            ready,
            was_ready: AtomicBool::new(false),
            upstream,
            front: SharedFront::default(),
            completion: None,
            metrics,
            hold: HOLD,
            waiting: Semaphore::new(MOST_WAITING),
            holding: Semaphore::new(MOST_HELD),
            turn: AtomicU64::new(0),
        }
    }

    /// Lets so many queries wait for the first sync.
    #[cfg(test)]
    pub(super) fn allow_held(&mut self, most: usize) {
        self.holding = Semaphore::new(most);
    }

    /// The sockets are open.
    pub(super) fn started(&self) {
        if let Some(upstream) = &self.upstream {
            upstream.started();
        }
    }

    /// Waits until queries for the cluster's names need not wait.
    pub(super) async fn known_names(&self) {
        let mut ready = self.ready.clone();
        if ready.wait_for(|ready| *ready).await.is_err() {
            std::future::pending().await
        }
    }

    /// Answers without waiting, if that is possible.
    pub(super) fn at_once(&self, query: &[u8], client: Client, out: &mut Vec<u8>) -> Step {
        let front = self.front.load();
        let Some(rewritten) = front.rewrite(query) else {
            return self.known(query, client, out);
        };
        let step = self.known(rewritten.query(), client, out);
        if step == Step::Send {
            rewritten.restore(query, client.transport, out);
        }
        step
    }

    /// What is said to a query that would have to wait when there are too many tasks. A
    /// datagram that came before the first sync is passed over: it will come again.
    pub(super) fn too_many(&self, query: &[u8], transport: Transport, out: &mut Vec<u8>) -> Step {
        self.metrics.count(Count::Overflow);
        let early = transport == Transport::Udp && !self.is_ready();
        if early || !portolan_dns::failure(query, Rcode::ServFail, TOO_MANY, out) {
            return Step::Ignore;
        }
        self.send(transport, out)
    }

    /// The same for the name that is looked up in the end.
    fn known(&self, query: &[u8], client: Client, out: &mut Vec<u8>) -> Step {
        let transport = client.transport;
        if self.is_early(query) {
            return Step::Wait;
        }
        match self.answer(query, transport, out) {
            Answer::Reply => match self.complete(query, client, out) {
                Completed::Later => Step::Wait,
                Completed::Nothing => self.send(transport, out),
                Completed::Reply(reply) => {
                    *out = reply;
                    self.metrics.count(Count::Completed);
                    self.send(transport, out)
                }
            },
            Answer::Follow(_) if self.upstream.is_none() => self.send(transport, out),
            Answer::Forward if self.upstream.is_none() => {
                portolan_dns::failure(query, Rcode::NxDomain, NOBODY, out);
                self.send(transport, out)
            }
            Answer::Forward if self.is_kept(query, transport, out) => {
                self.metrics.replied(transport, out);
                Step::Send
            }
            Answer::Follow(_) | Answer::Forward => Step::Wait,
            Answer::Drop => {
                self.metrics.count(Count::Ignored);
                Step::Ignore
            }
        }
    }

    /// Answers from what is written down, then from the zones.
    fn answer(&self, query: &[u8], transport: Transport, out: &mut Vec<u8>) -> Answer {
        let asked = (query, transport);
        let rotation = self.rotation();
        let front = self.front.load();
        front.answer(&self.zones.load(), asked, rotation, out)
    }

    /// Answers from a reply that the upstream has kept.
    fn is_kept(&self, query: &[u8], transport: Transport, out: &mut Vec<u8>) -> bool {
        let upstream = self.upstream.as_ref();
        let is_kept = upstream.is_some_and(|upstream| upstream.at_once(query, transport, out));
        if is_kept {
            self.take_turns(out);
        }
        is_kept
    }

    /// Turns the order of the addresses that others have said, where that was asked for.
    fn take_turns(&self, reply: &mut [u8]) {
        if self.front.load().rotate {
            portolan_dns::rotate(reply, self.rotation());
        }
    }

    /// What is to be sent of a zone; nothing before the zones are known.
    pub(super) fn transfer(&self, query: &[u8], transport: Transport) -> Option<Transfer> {
        self.is_ready()
            .then(|| self.zones.load().transfer(query, transport))
    }

    /// Answers with the patience of a resolver; `None` if there is nothing to
    /// send.
    pub(super) async fn eventually(&self, query: &[u8], client: Client) -> Option<Vec<u8>> {
        let front = self.front.load_full();
        let Some(rewritten) = front.rewrite(query) else {
            return self.wait(query, client).await;
        };
        let mut reply = self.wait(rewritten.query(), client).await?;
        rewritten.restore(query, client.transport, &mut reply);
        Some(reply)
    }

    async fn wait(&self, query: &[u8], client: Client) -> Option<Vec<u8>> {
        let transport = client.transport;
        let mut out = Vec::new();
        if self.is_early(query) {
            match self.hold(query).await {
                Hold::Over => {}
                Hold::TooMany if transport == Transport::Udp => return None,
                Hold::TooMany => {
                    return self.fail(query, transport, TOO_MANY, out);
                }
                Hold::TooLong => {
                    let reason = (NOT_READY, "the names of the cluster are not known yet");
                    return self.fail(query, transport, reason, out);
                }
            }
        }
        let Ok(_slot) = self.waiting.try_acquire() else {
            self.metrics.count(Count::Overflow);
            return self.fail(query, transport, TOO_MANY, out);
        };
        let answer = self.answer(query, transport, &mut out);
        match (answer, &self.upstream) {
            (Answer::Forward, Some(upstream)) => {
                return self.forward(query, transport, upstream.as_ref(), out).await;
            }
            (Answer::Follow(target), Some(upstream)) => {
                self.follow((query, transport), &target, upstream.as_ref(), &mut out)
                    .await;
            }
            (Answer::Reply, Some(upstream)) => {
                let asked = (query, client);
                if let Some(reply) = self.complete_later(asked, upstream.as_ref(), &out).await {
                    self.metrics.count(Count::Completed);
                    out = reply;
                }
            }
            // The zones may have changed in between: the short way knows.
            (Answer::Forward | Answer::Follow(_) | Answer::Reply, None) | (Answer::Drop, _) => {
                return match self.known(query, client, &mut out) {
                    Step::Send => Some(out),
                    Step::Ignore | Step::Wait => None,
                };
            }
        }
        self.send(transport, &mut out);
        Some(out)
    }

    /// Lets a query wait for the first sync.
    async fn hold(&self, query: &[u8]) -> Hold {
        let Ok(_place) = self.holding.try_acquire() else {
            self.metrics.count(Count::Overflow);
            return Hold::TooMany;
        };
        self.metrics.count(Count::Held);
        let mut ready = self.ready.clone();
        let known = timeout(self.hold, ready.wait_for(|ready| *ready)).await;
        if matches!(known, Ok(Ok(_))) {
            return Hold::Over;
        }
        // An address that may be the cluster's is asked of others at last: they are
        // asked for it whenever the cluster has no name for it.
        let others = |zones: &Zones, question: &Question| {
            zones.covers(&question.name)
                && zones.lookup(&question.name, question.rtype) == Lookup::Outside
        };
        match portolan_dns::question(query) {
            Some(question) if others(&self.zones.load(), &question) => Hold::Over,
            Some(_) | None => Hold::TooLong,
        }
    }

    /// Whether a query is about names that are not known yet. Names that are written
    /// down, and those outside the zones, need not wait for the cluster's; which zones
    /// there will be is known before what they hold.
    fn is_early(&self, query: &[u8]) -> bool {
        if self.is_ready() {
            return false;
        }
        let Some(question) = portolan_dns::question(query) else {
            return false;
        };
        let zones = self.zones.load();
        let is_any = zones.iter().next().is_some();
        (!is_any || zones.covers(&question.name)) && !self.front.load().has_written(query)
    }

    async fn forward(
        &self,
        query: &[u8],
        transport: Transport,
        upstream: &dyn Upstream,
        mut out: Vec<u8>,
    ) -> Option<Vec<u8>> {
        self.metrics.count(Count::Forwarded);
        match upstream
            .forward(Bytes::copy_from_slice(query), transport)
            .await
        {
            Ok(reply) => {
                out.clear();
                out.extend_from_slice(&reply);
                self.take_turns(&mut out);
                portolan_dns::fit(query, transport, &mut out);
                self.metrics.replied(transport, &out);
                Some(out)
            }
            Err(error) => {
                self.metrics.count(Count::ForwardFailure);
                tracing::debug!(%error, "a query outside the zones failed");
                let reason = match error.cause() {
                    UpstreamError::NoServer => {
                        portolan_dns::failure(query, Rcode::NxDomain, NOBODY, &mut out);
                        self.send(transport, &mut out);
                        return Some(out);
                    }
                    UpstreamError::Loop => (OTHER_ERROR, "the upstream resolvers forward to here"),
                    UpstreamError::Busy(_) => (OTHER_ERROR, "too many queries are under way"),
                    UpstreamError::NoReply { .. }
                    | UpstreamError::TooLate(_)
                    | UpstreamError::Unreadable
                    | UpstreamError::Joined(_) => {
                        (NO_REACHABLE_AUTHORITY, "no upstream resolver replied")
                    }
                };
                self.fail(query, transport, reason, out)
            }
        }
    }

    /// The names that stand in a search list after the one that was asked for, if that
    /// does not exist and search lists are completed for the client.
    fn next_names(&self, query: &[u8], client: IpAddr, reply: &[u8]) -> Option<Vec<Name>> {
        let completion = self.completion.as_ref()?;
        if portolan_dns::rcode(reply) != Some(Rcode::NxDomain as u8) {
            return None;
        }
        completion.next_names(query, client)
    }

    /// Looks up what stands in the client's search list after a name that `first` says
    /// does not exist, as far as that goes without waiting.
    fn complete(&self, query: &[u8], client: Client, first: &[u8]) -> Completed {
        let Some(names) = self.next_names(query, client.address, first) else {
            return Completed::Nothing;
        };
        let mut reply = Vec::new();
        for name in names {
            let Some(asked) = portolan_dns::query_for(query, &name) else {
                continue;
            };
            match (
                self.answer(&asked, Transport::Tcp, &mut reply),
                &self.upstream,
            ) {
                (Answer::Reply, _) | (Answer::Follow(_), None) => {}
                (Answer::Forward, Some(_)) if self.is_kept(&asked, Transport::Tcp, &mut reply) => {}
                (Answer::Forward | Answer::Follow(_), Some(_)) => return Completed::Later,
                (Answer::Forward, None) | (Answer::Drop, _) => continue,
            }
            if let Some(reply) = found(query, &name, client.transport, &reply) {
                return Completed::Reply(reply);
            }
        }
        Completed::Nothing
    }

    /// The same, asking others too. If that fails, the client goes on by itself.
    async fn complete_later(
        &self,
        (query, client): (&[u8], Client),
        upstream: &dyn Upstream,
        first: &[u8],
    ) -> Option<Vec<u8>> {
        for name in self.next_names(query, client.address, first)? {
            let Some(asked) = portolan_dns::query_for(query, &name) else {
                continue;
            };
            let mut reply = Vec::new();
            // Over TCP a long answer arrives whole, and room for it is ours to judge.
            match self.answer(&asked, Transport::Tcp, &mut reply) {
                Answer::Reply => {}
                Answer::Follow(target) => {
                    let whole = (&*asked, Transport::Tcp);
                    self.follow(whole, &target, upstream, &mut reply).await;
                }
                Answer::Forward => {
                    self.metrics.count(Count::Forwarded);
                    let asked = Bytes::from(asked);
                    reply = upstream.forward(asked, Transport::Tcp).await.ok()?.to_vec();
                    self.take_turns(&mut reply);
                }
                Answer::Drop => continue,
            }
            let reply = found(query, &name, client.transport, &reply);
            if reply.is_some() {
                return reply;
            }
        }
        None
    }

    /// Completes a chain of aliases that ends outside the zones. Whatever others say
    /// of its end, the chain is the answer, and alone if they have no addresses or do
    /// not reply: so does CoreDNS, whose upstream's failures are replies without
    /// records. SERVFAIL would say that the Service is not known.
    async fn follow(
        &self,
        (query, transport): (&[u8], Transport),
        target: &Name,
        upstream: &dyn Upstream,
        reply: &mut Vec<u8>,
    ) {
        let Some(question) = portolan_dns::question(query) else {
            return;
        };
        self.metrics.count(Count::Forwarded);
        let asked = portolan_dns::query(0, target, question.rtype);
        let mut written = Vec::new();
        if self.answer(&asked, Transport::Tcp, &mut written) == Answer::Reply {
            portolan_dns::copy_answers(query, transport, &written, reply);
            return;
        }
        // Over TCP a long answer arrives whole, and room for it is ours to judge.
        match upstream.forward(Bytes::from(asked), Transport::Tcp).await {
            Ok(found) => {
                portolan_dns::copy_answers(query, transport, &found, reply);
                self.take_turns(reply);
            }
            Err(error) => {
                self.metrics.count(Count::ForwardFailure);
                tracing::debug!(%error, %target, "the target of an alias was not found");
            }
        }
    }

    fn fail(
        &self,
        query: &[u8],
        transport: Transport,
        reason: (u16, &str),
        mut out: Vec<u8>,
    ) -> Option<Vec<u8>> {
        if !portolan_dns::failure(query, Rcode::ServFail, reason, &mut out) {
            return None;
        }
        self.send(transport, &mut out);
        Some(out)
    }

    fn send(&self, transport: Transport, out: &mut [u8]) -> Step {
        if self.upstream.is_some() {
            portolan_dns::set_recursion_available(out);
        }
        self.metrics.replied(transport, out);
        Step::Send
    }

    fn is_ready(&self) -> bool {
        if self.was_ready.load(Ordering::Relaxed) {
            return true;
        }
        let ready = *self.ready.borrow();
        if ready {
            self.was_ready.store(true, Ordering::Relaxed);
        }
        ready
    }

    /// A number for the order of addresses. Not simply a counter: clients ask
    /// for A and AAAA in turn, some queries take several numbers, and each kind must
    /// meet every order. So all bits are mixed (SplitMix64).
    fn rotation(&self) -> u64 {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let mixed = turn.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// The reply to a query that follows from one for another name, if that name exists.
fn found(query: &[u8], name: &Name, transport: Transport, reply: &[u8]) -> Option<Vec<u8>> {
    let exists = portolan_dns::rcode(reply) == Some(Rcode::NoError as u8);
    exists
        .then(|| portolan_dns::completed(query, name, transport, reply))
        .flatten()
}
