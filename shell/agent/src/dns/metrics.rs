//! What the server counts, for whoever exports it.

use std::sync::atomic::{AtomicU64, Ordering};

use portolan_dns::Transport;

/// The reply codes that are counted one by one, by their number; the last
/// column is for all others.
const CODES: usize = 7;

/// Counters of one server; reading them does not stop it.
#[derive(Debug, Default)]
pub struct DnsMetrics {
    udp: [AtomicU64; CODES],
    tcp: [AtomicU64; CODES],
    ignored: AtomicU64,
    held: AtomicU64,
    forwarded: AtomicU64,
    forward_failures: AtomicU64,
    overflows: AtomicU64,
    completed: AtomicU64,
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DnsCounts {
    /// Replies over UDP by the number of their code; the last one: any other.
    pub udp: [u64; CODES],
    /// Replies over TCP likewise.
    pub tcp: [u64; CODES],
    /// Messages that were no queries.
    pub ignored: u64,
    /// Queries that waited for the first sync.
    pub held: u64,
    /// Queries for names outside the zones.
    pub forwarded: u64,
    /// Those of them that no resolver answered.
    pub forward_failures: u64,
    /// Queries that failed because too many others were waiting.
    pub overflows: u64,
    /// Queries whose search list was completed.
    pub completed: u64,
}

/// An event that has a counter of its own.
#[derive(Debug, Clone, Copy)]
pub(super) enum Count {
    Ignored,
    Held,
    Forwarded,
    ForwardFailure,
    Overflow,
    Completed,
}

impl DnsMetrics {
    /// The counters as they are now.
    pub fn counts(&self) -> DnsCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        DnsCounts {
            udp: self.udp.each_ref().map(read),
            tcp: self.tcp.each_ref().map(read),
            ignored: read(&self.ignored),
            held: read(&self.held),
            forwarded: read(&self.forwarded),
            forward_failures: read(&self.forward_failures),
            overflows: read(&self.overflows),
            completed: read(&self.completed),
        }
    }

    pub(super) fn replied(&self, transport: Transport, reply: &[u8]) {
        let codes = match transport {
            Transport::Udp => &self.udp,
            Transport::Tcp => &self.tcp,
        };
        let code = portolan_dns::rcode(reply).map_or(CODES, usize::from);
        if let Some(counter) = codes.get(code.min(CODES - 1)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn count(&self, event: Count) {
        let counter = match event {
            Count::Ignored => &self.ignored,
            Count::Held => &self.held,
            Count::Forwarded => &self.forwarded,
            Count::ForwardFailure => &self.forward_failures,
            Count::Overflow => &self.overflows,
            Count::Completed => &self.completed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}
