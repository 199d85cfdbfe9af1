//! What is told of forwarding, of the cache, and of the configuration: CoreDNS' names
//! and labels, so that its dashboards and alerts carry over.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::UNIX_EPOCH;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use super::forward::{Forwarder, ServerCount};
use super::front::SharedFront;
use super::stats::{
    CODES, FIRST_TIME, SERVER, TIMES, VIEW, code_at, counters, doubled, histograms,
};

/// What CoreDNS calls the zones of a cache for everything.
const ZONES: (&str, &str) = ("zones", ".");
const SUCCESS: (&str, &str) = ("type", "success");
const DENIAL: (&str, &str) = ("type", "denial");
/// Who asks others.
const FORWARD: (&str, &str) = ("proxy_name", "forward");

type Labels<'l> = Vec<(&'l str, &'l str)>;

/// Everything that follows from the configuration file and is counted.
#[derive(Clone)]
pub struct DnsTold {
    pub(super) forwarder: Arc<Forwarder>,
    pub(super) front: SharedFront,
    /// How often the file could not be read again.
    pub(super) failed_reloads: Arc<AtomicU64>,
}

impl fmt::Debug for DnsTold {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("DnsTold").finish_non_exhaustive()
    }
}

impl Collector for DnsTold {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        self.cache(&mut encoder)?;
        self.forwarding(&mut encoder)?;
        self.servers(&mut encoder)?;
        self.files(&mut encoder)
    }
}

/// Gauges under one name.
fn gauges<'l>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    rows: impl Iterator<Item = (Labels<'l>, f64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
    for (labels, value) in rows {
        if labels.is_empty() {
            family.encode_gauge(&value)?;
        } else {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
    }
    Ok(())
}

/// One counter without labels.
fn counter(encoder: &mut DescriptorEncoder<'_>, about: (&str, &str), value: u64) -> fmt::Result {
    let mut family = encoder.encode_descriptor(about.0, about.1, None, MetricType::Counter)?;
    family.encode_counter::<NoLabelSet, u64, u64>(&value, None)
}

impl DnsTold {
    fn cache(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.forwarder.counts();
        let by_type = |success: u64, denial: u64| {
            [(SUCCESS, success), (DENIAL, denial)]
                .map(|(kind, count)| (vec![SERVER, kind, ZONES, VIEW], count))
                .into_iter()
        };
        let single = |count: u64| std::iter::once((vec![SERVER, ZONES, VIEW], count));
        let about = (
            "coredns_cache_entries",
            "The number of elements in the cache",
        );
        let entries = by_type(
            counts.entries - counts.denial_entries,
            counts.denial_entries,
        );
        let entries = entries.map(|(labels, count)| (labels, count as f64));
        gauges(encoder, about, entries)?;
        let about = ("coredns_cache_hits", "The count of cache hits");
        counters(
            encoder,
            about,
            by_type(counts.hits + counts.stale, counts.denials),
        )?;
        let about = ("coredns_cache_evictions", "The count of cache evictions");
        let (success, denial) = counts.evictions;
        counters(encoder, about, by_type(success, denial))?;
        for (name, help, count) in [
            (
                "coredns_cache_requests",
                "The count of cache requests",
                counts.requests,
            ),
            (
                "coredns_cache_misses",
                "The count of cache misses. Deprecated, derive misses from cache hits/requests counters",
                counts.misses,
            ),
            (
                "coredns_cache_prefetch",
                "The number of times the cache has prefetched a cached item",
                counts.prefetched,
            ),
            (
                "coredns_cache_served_stale",
                "The number of requests served from stale cache entries",
                counts.stale,
            ),
        ] {
            counters(encoder, (name, help), single(count))?;
        }
        let about = (
            "portolan_dns_cache_bytes",
            "The memory that the cache takes",
        );
        gauges(
            encoder,
            about,
            std::iter::once((Vec::new(), counts.bytes as f64)),
        )
    }

    fn forwarding(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.forwarder.counts();
        for (name, help, count) in [
            (
                "coredns_forward_max_concurrent_rejects",
                "Counter of the number of queries rejected because the concurrent queries were at maximum",
                counts.rejected,
            ),
            (
                "coredns_forward_healthcheck_broken",
                "Counter of the number of complete failures of the healthchecks",
                counts.broken,
            ),
            (
                "portolan_dns_joined",
                "Queries that joined one for the same that was under way",
                counts.joined,
            ),
        ] {
            counter(encoder, (name, help), count)?;
        }
        Ok(())
    }

    fn servers(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        // One server may stand in several routes: it is told of once.
        let mut all: BTreeMap<String, ServerCount> = BTreeMap::new();
        for one in self.forwarder.servers() {
            match all.get_mut(&one.server) {
                Some(known) => known.merge(&one),
                None => drop(all.insert(one.server.clone(), one)),
            }
        }
        let all: Vec<ServerCount> = all.into_values().collect();
        durations(encoder, &all)?;
        type Value = fn(&ServerCount) -> u64;
        let rows: [(&str, &str, Value); 3] = [
            (
                "coredns_proxy_healthcheck_failures",
                "Counter of the number of failed healthchecks",
                |server| server.probes_failed,
            ),
            (
                "portolan_dns_upstream_requests",
                "Queries to a resolver",
                |server| server.asked,
            ),
            (
                "portolan_dns_upstream_failures",
                "Those without a reply",
                |server| server.failed,
            ),
        ];
        for (name, help, value) in rows {
            let of = |server| (of_server(server).to_vec(), value(server));
            counters(encoder, (name, help), all.iter().map(of))?;
        }
        connections(encoder, &all)?;
        type State = fn(&ServerCount) -> bool;
        let states: [(&str, &str, State); 2] = [
            (
                "portolan_dns_upstream_up",
                "Whether a resolver replies",
                |server| server.up,
            ),
            (
                "portolan_dns_upstream_looping",
                "Whether a resolver sends queries back here, and is not asked",
                |server| server.looping,
            ),
        ];
        for (name, help, value) in states {
            let of = |server| {
                (
                    of_server(server).to_vec(),
                    f64::from(u8::from(value(server))),
                )
            };
            gauges(encoder, (name, help), all.iter().map(of))?;
        }
        Ok(())
    }

    fn files(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let front = self.front.load();
        let about = (
            "coredns_hosts_entries",
            "The combined number of entries in hosts and Corefile",
        );
        let count = front.written as f64;
        gauges(encoder, about, std::iter::once((Vec::new(), count)))?;
        let read = front
            .read_at
            .and_then(|at| at.duration_since(UNIX_EPOCH).ok());
        if let Some(since) = read {
            let about = (
                "coredns_hosts_reload_timestamp_seconds",
                "The timestamp of the last reload of hosts file",
            );
            let at = since.as_secs_f64();
            gauges(encoder, about, std::iter::once((Vec::new(), at)))?;
        }
        let about = (
            "coredns_reload_failed",
            "Counter of the number of failed reload attempts",
        );
        counter(encoder, about, self.failed_reloads.load(Ordering::Relaxed))
    }
}

fn of_server(server: &ServerCount) -> [(&str, &str); 2] {
    [FORWARD, ("to", &server.server)]
}

/// How long servers took for their replies, by what they said.
fn durations(encoder: &mut DescriptorEncoder<'_>, all: &[ServerCount]) -> fmt::Result {
    let rows = all.iter().flat_map(|server| {
        server.durations.iter().map(|(rcode, times)| {
            let code = CODES.get(code_at(Some(u16::from(*rcode))));
            let mut labels = of_server(server).to_vec();
            labels.push(("rcode", code.copied().unwrap_or("other")));
            let bounds = (0..TIMES).map(doubled(FIRST_TIME)).chain([f64::INFINITY]);
            let buckets = bounds.zip(times.counts.iter().copied()).collect();
            let count = times.counts.iter().sum();
            (labels, (buckets, count, times.sum.as_secs_f64()))
        })
    });
    let about = (
        "coredns_proxy_request_duration_seconds",
        "Histogram of the time each request took",
    );
    histograms(encoder, about, rows)
}

/// Connections that were there, and those that were opened. Each datagram has a socket
/// of its own.
fn connections(encoder: &mut DescriptorEncoder<'_>, all: &[ServerCount]) -> fmt::Result {
    let stream = |server: &ServerCount| match server.server.starts_with("tls://") {
        true => "tcp-tls",
        false => "tcp",
    };
    let row = |server, proto, count| {
        let mut labels: Labels<'_> = of_server(server).to_vec();
        labels.push(("proto", proto));
        (labels, count)
    };
    let hits = all
        .iter()
        .map(|server| row(server, stream(server), server.reused));
    let about = (
        "coredns_proxy_conn_cache_hits",
        "Counter of connection cache hits per upstream and protocol",
    );
    counters(encoder, about, hits)?;
    let misses = all.iter().flat_map(|server| {
        let datagrams = (server.datagrams > 0).then(|| row(server, "udp", server.datagrams));
        [row(server, stream(server), server.dialled)]
            .into_iter()
            .chain(datagrams)
    });
    let about = (
        "coredns_proxy_conn_cache_misses",
        "Counter of connection cache misses per upstream and protocol",
    );
    counters(encoder, about, misses)
}
