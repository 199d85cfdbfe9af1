//! One server: asking it, and judging whether it is there.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use portolan_dns::upstream::{Ask, Health, HealthLimits, Key, Received};
use tokio::time::timeout;

use super::dial::{Dial, Random};
use super::settings::{RouteSettings, ServerSettings};
use super::stream::Stream;
use super::tls;
use crate::dns::stats::{FIRST_TIME, TIMES, doubling};

/// Connections to one server; each takes many questions at once.
const MOST_STREAMS: usize = 8;
/// The longest datagram that is read. Less is asked for; what is longer cannot be
/// read and counts as lost.
const MOST_DATAGRAM: usize = 4096;

/// How a server is asked; servers of two routes that differ here are two.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Manner {
    force_tcp: bool,
    random_case: bool,
    pub(super) attempt: Duration,
    idle: Duration,
    health: HealthLimits,
}

impl Manner {
    pub(super) fn of(route: &RouteSettings) -> Self {
        Self {
            force_tcp: route.force_tcp,
            random_case: route.random_case,
            attempt: route.attempt,
            idle: route.idle,
            health: route.health,
        }
    }
}

/// What a server has counted.
#[derive(Debug, Default)]
pub(super) struct ServerCounts {
    pub(super) asked: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) dialled: AtomicU64,
    pub(super) reused: AtomicU64,
    pub(super) probes_failed: AtomicU64,
    pub(super) datagrams: AtomicU64,
    durations: Mutex<BTreeMap<u8, Durations>>,
}

/// How long replies took.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Durations {
    /// How many took up to 0.25 ms; longer, but up to twice that; and so on. The last
    /// ones took longer than all bounds.
    pub counts: [u64; TIMES + 1],
    /// All together.
    pub sum: Duration,
}

impl Durations {
    fn observe(&mut self, took: Duration) {
        let bucket = doubling(took, FIRST_TIME).min(TIMES);
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
        self.sum += took;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.sum += other.sum;
    }
}

pub(super) struct Server {
    pub(super) settings: ServerSettings,
    pub(super) manner: Manner,
    pub(super) counts: ServerCounts,
    dial: Dial,
    random: Arc<Random>,
    health: Mutex<Health>,
    /// It sends what it is asked back to here.
    looping: AtomicBool,
    /// It does not know EDNS.
    plain: AtomicBool,
    streams: tokio::sync::Mutex<Vec<Stream>>,
}

impl Server {
    pub(super) fn new(
        settings: ServerSettings,
        manner: Manner,
        dial: Dial,
        random: Arc<Random>,
    ) -> Self {
        Self {
            settings,
            manner,
            counts: ServerCounts::default(),
            dial,
            random,
            health: Mutex::default(),
            looping: AtomicBool::new(false),
            plain: AtomicBool::new(false),
            streams: tokio::sync::Mutex::default(),
        }
    }

    /// How long it took for its replies, by their codes.
    pub(super) fn durations(&self) -> BTreeMap<u8, Durations> {
        let durations = self.counts.durations.lock();
        durations.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn took(&self, reply: &Received, took: Duration) {
        let durations = self.counts.durations.lock();
        let mut durations = durations.unwrap_or_else(PoisonError::into_inner);
        durations.entry(reply.rcode()).or_default().observe(took);
    }

    fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_up(&self) -> bool {
        self.health().is_up()
    }

    pub(super) fn is_looping(&self) -> bool {
        self.looping.load(Ordering::Relaxed)
    }

    /// Notes whether it forwards to here; says whether that is news.
    pub(super) fn set_looping(&self, looping: bool) -> bool {
        self.looping.swap(looping, Ordering::Relaxed) != looping
    }

    /// Asks on behalf of a client, and judges the server by what comes. Says also
    /// whether the server is down by this.
    pub(super) async fn question(&self, key: Key) -> (io::Result<Received>, bool) {
        self.counts.asked.fetch_add(1, Ordering::Relaxed);
        let began = Instant::now();
        let asked = timeout(self.manner.attempt, self.exchange(key)).await;
        match asked.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into())) {
            Ok(reply) => {
                self.health().replied();
                self.took(&reply, began.elapsed());
                (Ok(reply), false)
            }
            Err(error) => {
                self.counts.failed.fetch_add(1, Ordering::Relaxed);
                let fell = self.health().failed(&self.manner.health);
                (Err(error), fell)
            }
        }
    }

    /// How long to wait before it is looked for again; `None` if it is up.
    pub(super) fn wait(&self) -> Option<Duration> {
        self.health().wait()
    }

    /// Asks for nothing but a sign of life; says whether there was one.
    pub(super) async fn probe(&self, key: Key) -> bool {
        let asked = timeout(self.manner.attempt, self.exchange(key)).await;
        let replied = matches!(asked, Ok(Ok(_)));
        if replied {
            self.health().replied();
        } else {
            self.counts.probes_failed.fetch_add(1, Ordering::Relaxed);
            self.health().probe_failed(&self.manner.health);
        }
        replied
    }

    /// One question and its whole reply, whatever it takes.
    pub(super) async fn exchange(&self, key: Key) -> io::Result<Received> {
        let edns = !self.plain.load(Ordering::Relaxed);
        let mut reply = self.whole(key, edns).await?;
        if edns && is_refusal_of_edns(&reply) {
            // Asked again in the old way, and remembered if that helps (RFC 6891 §6.2.2).
            reply = self.whole(key, false).await?;
            if !is_refusal_of_edns(&reply) {
                self.plain.store(true, Ordering::Relaxed);
            }
        }
        Received::read(&reply)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the reply cannot be read"))
    }

    async fn whole(&self, key: Key, edns: bool) -> io::Result<BytesMut> {
        if self.settings.tls.is_none() && !self.manner.force_tcp {
            let reply = self.over_udp(key, edns).await?;
            if !portolan_dns::is_truncated(&reply) {
                return Ok(reply);
            }
        }
        self.over_stream(key, edns).await
    }

    async fn over_udp(&self, key: Key, edns: bool) -> io::Result<BytesMut> {
        let case = self.manner.random_case.then(|| self.random.bits());
        let ask = Ask::new(&key, self.random.id(), case, edns);
        let socket = self.dial.udp(self.settings.address).await?;
        self.counts.datagrams.fetch_add(1, Ordering::Relaxed);
        socket.send(ask.message()).await?;
        let mut reply = BytesMut::with_capacity(MOST_DATAGRAM);
        loop {
            reply.clear();
            socket.recv_buf(&mut reply).await?;
            // Late, forged or broken ones do not end the wait for the true one.
            if ask.is_answered_by(&reply) || (edns && ask.is_refused_by(&reply)) {
                return Ok(reply);
            }
        }
    }

    /// Over a connection that is there, or over a new one. One that was there may
    /// have been closed by the server in the same moment; then a new one is tried.
    async fn over_stream(&self, key: Key, edns: bool) -> io::Result<BytesMut> {
        let (stream, is_new) = self.stream().await?;
        match stream.ask(key, edns).await {
            Err(_) if !is_new => self.stream().await?.0.ask(key, edns).await,
            asked => asked,
        }
    }

    async fn stream(&self) -> io::Result<(Stream, bool)> {
        let mut streams = self.streams.lock().await;
        streams.retain(|stream| !stream.is_closed());
        let full = streams.len() >= MOST_STREAMS;
        let found = streams
            .iter()
            .find(|stream| stream.has_room())
            .or_else(|| streams.first().filter(|_| full));
        if let Some(stream) = found {
            self.counts.reused.fetch_add(1, Ordering::Relaxed);
            return Ok((stream.clone(), false));
        }
        let address = self.settings.address;
        let socket = self.dial.tcp(address).await?;
        let random = Arc::clone(&self.random);
        let stream = match &self.settings.tls {
            Some(settings) => {
                let secret = tls::connect(socket, settings, address.ip()).await?;
                Stream::start(secret, self.manner.idle, random)
            }
            None => Stream::start(socket, self.manner.idle, random),
        };
        self.counts.dialled.fetch_add(1, Ordering::Relaxed);
        streams.push(stream.clone());
        Ok((stream, true))
    }
}

/// FORMERR or NOTIMP: perhaps because of the OPT record.
fn is_refusal_of_edns(reply: &[u8]) -> bool {
    matches!(portolan_dns::rcode(reply), Some(1 | 4))
}
