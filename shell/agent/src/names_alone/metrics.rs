//! What is counted, as Prometheus reads it, by CoreDNS' names where it has them.

use std::sync::Arc;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use crate::dns::{DnsMetrics, DnsStats, Forwarder, Told};

/// A text that is written row by row.
#[derive(Default)]
struct Text(String);

impl Text {
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        // The family of a counter is named without its suffix.
        let family = name.strip_suffix("_total").unwrap_or(name);
        self.write(format_args!(
            "# HELP {family} {help}\n# TYPE {family} {kind}\n"
        ));
    }

    fn write(&mut self, text: std::fmt::Arguments<'_>) {
        self.0.push_str(&text.to_string());
    }

    /// A metric with one value.
    fn single(&mut self, name: &str, kind: &str, help: &str, value: u64) {
        self.metric(name, kind, help);
        self.write(format_args!("{name} {value}\n"));
    }
}

/// Everything that is counted.
pub(super) fn text(stats: &Arc<DnsStats>, dns: &DnsMetrics, forwarder: &Forwarder) -> String {
    let mut out = Text::default();
    let counts = dns.counts();
    let version = env!("CARGO_PKG_VERSION");
    let name = "coredns_build_info";
    out.metric(
        name,
        "gauge",
        "A metric with a constant '1' value labeled by version.",
    );
    out.write(format_args!("{name}{{version=\"portolan {version}\"}} 1\n"));
    out.single(
        "portolan_dns_ignored_total",
        "counter",
        "Messages that were no queries.",
        counts.ignored,
    );
    out.single(
        "portolan_dns_held_total",
        "counter",
        "Queries that waited for the first names of the cluster.",
        counts.held,
    );
    out.single(
        "portolan_dns_forwarded_total",
        "counter",
        "Queries for names outside the cluster that nothing was kept for.",
        counts.forwarded,
    );
    out.single(
        "portolan_dns_forward_failures_total",
        "counter",
        "Those of them that no resolver answered.",
        counts.forward_failures,
    );
    out.single(
        "portolan_dns_overflows_total",
        "counter",
        "Queries that failed because too many others were waiting.",
        counts.overflows,
    );
    cache(&mut out, forwarder);
    servers(&mut out, forwarder);
    out.0.push_str(&of_queries(stats));
    out.0
}

fn cache(out: &mut Text, forwarder: &Forwarder) {
    let counts = forwarder.counts();
    let name = "coredns_cache_hits_total";
    out.metric(name, "counter", "The count of cache hits.");
    out.write(format_args!("{name}{{type=\"success\"}} {}\n", counts.hits));
    out.write(format_args!(
        "{name}{{type=\"denial\"}} {}\n",
        counts.denials
    ));
    out.single(
        "coredns_cache_misses_total",
        "counter",
        "The count of cache misses.",
        counts.misses,
    );
    out.single(
        "coredns_cache_entries",
        "gauge",
        "The number of elements in the cache.",
        counts.entries,
    );
    out.single(
        "coredns_cache_prefetch_total",
        "counter",
        "The number of times the cache has prefetched a cached item.",
        counts.prefetched,
    );
    out.single(
        "coredns_cache_served_stale_total",
        "counter",
        "The number of requests served from stale cache entries.",
        counts.stale,
    );
    out.single(
        "coredns_forward_max_concurrent_rejects_total",
        "counter",
        "Counter of the number of queries rejected because the concurrent queries were at maximum.",
        counts.rejected,
    );
    out.single(
        "portolan_dns_cache_bytes",
        "gauge",
        "The memory that the cache takes.",
        counts.bytes,
    );
    out.single(
        "portolan_dns_joined_total",
        "counter",
        "Queries that joined one for the same that was under way.",
        counts.joined,
    );
}

fn servers(out: &mut Text, forwarder: &Forwarder) {
    type Value = fn(&crate::dns::ServerCount) -> u64;
    let rows: [(&str, &str, &str, Value); 7] = [
        (
            "portolan_dns_upstream_requests_total",
            "counter",
            "Queries to a resolver.",
            |s| s.asked,
        ),
        (
            "portolan_dns_upstream_failures_total",
            "counter",
            "Those without a reply.",
            |s| s.failed,
        ),
        (
            "portolan_dns_upstream_up",
            "gauge",
            "Whether a resolver replies.",
            |s| u64::from(s.up),
        ),
        (
            "portolan_dns_upstream_looping",
            "gauge",
            "Whether a resolver sends queries back here, and is not asked.",
            |s| u64::from(s.looping),
        ),
        (
            "coredns_proxy_conn_cache_hits_total",
            "counter",
            "Counter of connection cache hits per upstream and protocol.",
            |s| s.reused,
        ),
        (
            "coredns_proxy_conn_cache_misses_total",
            "counter",
            "Counter of connection cache misses per upstream and protocol.",
            |s| s.dialled,
        ),
        (
            "coredns_proxy_healthcheck_failures_total",
            "counter",
            "Counter of the number of failed healthchecks.",
            |s| s.probes_failed,
        ),
    ];
    let all = forwarder.servers();
    for (name, kind, help, value) in rows {
        out.metric(name, kind, help);
        for server in &all {
            let to = &server.server;
            out.write(format_args!(
                "{name}{{proxy_name=\"forward\",to=\"{to}\"}} {}\n",
                value(server)
            ));
        }
    }
}

/// What is counted of queries, and the mark at the end of everything.
fn of_queries(stats: &Arc<DnsStats>) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Told(Arc::clone(stats))));
    let mut text = String::new();
    if let Err(error) = encode(&mut text, &registry) {
        tracing::warn!(%error, "the counters of queries cannot be written");
    }
    text
}
