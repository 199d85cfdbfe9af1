//! What happens to each query before and after it is answered: who may ask and how
//! often, the options of the reply, counting and logging.

use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use portolan_dns::{
    CookieSecret, Identity, Rcode, Rtype, Standing, Transfer, Transport, adorn, bad_cookie,
    cookie_query,
};

use super::guard::{DnsGuard, Rates};
use super::log;
use super::service::{Client, Service, Step};
use super::stats::{DnsStats, Exchange};
use super::tcp::Limits;

/// Extended error 18, "Prohibited" (RFC 8914 §4.19).
const PROHIBITED: (u16, &str) = (18, "this server answers the node and its pods");
const TOO_MANY: (u16, &str) = (18, "too many queries of this client");

/// The way to the answers.
pub(super) struct Door {
    pub(super) service: Arc<Service>,
    /// What connections are allowed.
    pub(super) streams: Limits,
    guard: DnsGuard,
    rates: Option<Rates>,
    /// How often a client above its rate is told so by datagram.
    warnings: Option<Rates>,
    identity: Identity,
    stats: Arc<DnsStats>,
    started: Instant,
    /// Counts queries towards the next one that is logged.
    turn: AtomicU32,
}

/// A moment by the clocks that are needed: read once for many queries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    at: Instant,
    /// Since 1970.
    seconds: u32,
}

impl Now {
    pub(super) fn read() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            at: Instant::now(),
            // Cookies count in 32 bits (RFC 9018 §4.3).
            seconds: since.map_or(0, |since| since.as_secs() as u32),
        }
    }
}

/// Whose query it is, how it came, and when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker {
    pub(super) peer: SocketAddr,
    pub(super) transport: Transport,
    pub(super) now: Now,
}

impl Asker {
    fn client(&self) -> Client {
        Client {
            address: self.peer.ip(),
            transport: self.transport,
        }
    }
}

impl Door {
    pub(super) fn new(service: Service, guard: DnsGuard, stats: Arc<DnsStats>) -> Self {
        // The library's own keys come from the operating system.
        let keys = [RandomState::new(), RandomState::new()].map(|key| key.hash_one(0_u8));
        let mut secret = [0; 16];
        for (place, octet) in secret
            .iter_mut()
            .zip(keys.iter().flat_map(|key| key.to_le_bytes()))
        {
            *place = octet;
        }
        Self {
            service: Arc::new(service),
            streams: Limits::default(),
            rates: guard.rate.map(Rates::new),
            warnings: guard.rate.map(Rates::new),
            identity: Identity::new(&guard.name, CookieSecret::new(secret)),
            guard,
            stats,
            started: Instant::now(),
            turn: AtomicU32::new(0),
        }
    }

    /// Answers without waiting, if that is possible.
    pub(super) fn at_once(&self, query: &[u8], asker: Asker, out: &mut Vec<u8>) -> Step {
        let step = match self.stop(query, asker, out) {
            Some(step) => step,
            None if cookie_query(
                query,
                asker.peer.ip(),
                asker.now.seconds,
                &self.identity,
                out,
            ) =>
            {
                Step::Send
            }
            None => {
                let step = self.service.at_once(query, asker.client(), out);
                if step == Step::Send {
                    self.version(query, asker, out);
                }
                step
            }
        };
        if step == Step::Send {
            self.finish(query, asker, Duration::ZERO, out);
        }
        step
    }

    /// What is said when there are too many tasks for one more that waits.
    pub(super) fn too_many(&self, query: &[u8], asker: Asker, out: &mut Vec<u8>) -> Step {
        let step = self.service.too_many(query, asker.transport, out);
        if step == Step::Send {
            self.finish(query, asker, Duration::ZERO, out);
        }
        step
    }

    /// Answers with the patience of a resolver; none if there is nothing to send.
    pub(super) async fn eventually(&self, query: &[u8], asker: Asker) -> Option<Vec<u8>> {
        let mut reply = self.service.eventually(query, asker.client()).await?;
        self.finish(query, asker, asker.now.at.elapsed(), &mut reply);
        Some(reply)
    }

    /// The zone that a query asks for, if its client may have it.
    pub(super) fn transfer(&self, query: &[u8], asker: Asker) -> Option<Transfer> {
        if !portolan_dns::is_transfer(query) || !self.guard.may_transfer(asker.peer.ip()) {
            return None;
        }
        self.service.transfer(query, asker.transport)
    }

    /// A zone that is asked for by datagram is refused, but who asks for what has
    /// changed in it (IXFR) is told its version, and comes back over TCP if it has
    /// another one (RFC 1995 §2).
    fn version(&self, query: &[u8], asker: Asker, out: &mut Vec<u8>) {
        if asker.transport == Transport::Udp
            && portolan_dns::rcode(out) == Some(Rcode::Refused as u8)
            && portolan_dns::rtype(query) == Some(Rtype::IXFR)
            && let Some(mut transfer) = self.transfer(query, asker)
        {
            // One message, whatever it says.
            let _more = transfer.next(query, asker.transport, out);
        }
    }

    /// Counts a message of a transfer.
    pub(super) fn transferred(&self, query: &[u8], asker: Asker, reply: &mut Vec<u8>) {
        self.finish(query, asker, asker.now.at.elapsed(), reply);
    }

    /// Those whose queries are not answered, and those above their rate.
    fn stop(&self, query: &[u8], asker: Asker, out: &mut Vec<u8>) -> Option<Step> {
        let client = asker.peer.ip();
        let mut answer = |reason| {
            if portolan_dns::failure(query, Rcode::Refused, reason, out) {
                Step::Send
            } else {
                Step::Ignore
            }
        };
        if !self.guard.clients.load().allow(client) {
            let step = answer(PROHIBITED);
            if step == Step::Send {
                self.stats.refused();
            }
            return Some(step);
        }
        let since = asker.now.at.saturating_duration_since(self.started);
        // The first second of all is spent, so that zero is long ago.
        let at = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        if !self.rates.as_ref()?.is_too_many(client, at) {
            return None;
        }
        self.stats.limited();
        Some(match asker.transport {
            Transport::Tcp => answer(TOO_MANY),
            Transport::Udp => self.warn(query, asker, at, out),
        })
    }

    /// What a client above its rate is told by datagram. Who forges addresses gets
    /// nothing for it. Who speaks of cookies is asked to show the one that it has in
    /// the reply, and who has shown it is not forged; neither too often.
    fn warn(&self, query: &[u8], asker: Asker, at: u64, out: &mut Vec<u8>) -> Step {
        let client = asker.peer.ip();
        let written = match self.identity.standing(query, client, asker.now.seconds) {
            Standing::Known => portolan_dns::failure(query, Rcode::Refused, TOO_MANY, out),
            Standing::Unknown => bad_cookie(query, out),
        };
        let may = |warnings: &Rates| !warnings.is_too_many(client, at);
        let written = written && self.warnings.as_ref().is_some_and(may);
        if written { Step::Send } else { Step::Ignore }
    }

    fn finish(&self, query: &[u8], asker: Asker, took: Duration, reply: &mut Vec<u8>) {
        let client = asker.peer.ip();
        adorn(query, client, asker.now.seconds, &self.identity, reply);
        let exchange = Exchange {
            query,
            reply,
            client,
            transport: asker.transport,
            took,
        };
        self.stats.answered(&exchange);
        if let Some(one_in) = self.guard.log_one_in {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            if turn % one_in == 0 {
                // What was answered at once is timed only here.
                let took = took.max(asker.now.at.elapsed());
                log::query(asker.peer, &Exchange { took, ..exchange });
            }
        }
    }
}
