//! What the server tells of its queries: CoreDNS' names, labels and buckets, so that
//! its dashboards and alerts carry over. Counting takes no lock and no memory.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use portolan_dns::Transport;

use super::metrics::DnsMetrics;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;

/// What CoreDNS calls a server at the usual port, and the zone that a block for
/// everything has.
pub(super) const SERVER: (&str, &str) = ("server", "dns://:53");
const ZONE: (&str, &str) = ("zone", ".");
pub(super) const VIEW: (&str, &str) = ("view", "");

const PROTOCOLS: [&str; 2] = ["udp", "tcp"];
/// The numbers of the address families (IANA).
const FAMILIES: [&str; 2] = ["1", "2"];
/// The types that CoreDNS tells apart, by number and name.
const TYPES: [(u16, &str); 19] = [
    (1, "A"),
    (28, "AAAA"),
    (12, "PTR"),
    (33, "SRV"),
    (16, "TXT"),
    (5, "CNAME"),
    (6, "SOA"),
    (2, "NS"),
    (15, "MX"),
    (255, "ANY"),
    (43, "DS"),
    (48, "DNSKEY"),
    (46, "RRSIG"),
    (47, "NSEC"),
    (50, "NSEC3"),
    (252, "AXFR"),
    (251, "IXFR"),
    (65, "HTTPS"),
    (0, "other"),
];
pub(super) const CODES: [&str; 14] = [
    "NOERROR",
    "FORMERR",
    "SERVFAIL",
    "NXDOMAIN",
    "NOTIMP",
    "REFUSED",
    "YXDOMAIN",
    "YXRRSET",
    "NXRRSET",
    "NOTAUTH",
    "NOTZONE",
    "BADVERS",
    "BADCOOKIE",
    "other",
];

/// Where a code stands among them.
pub(super) fn code_at(code: Option<u16>) -> usize {
    match code {
        Some(code @ 0..=10) => usize::from(code),
        Some(16) => 11,
        Some(23) => 12,
        Some(_) | None => CODES.len() - 1,
    }
}

/// Who answered: our zones, or somebody else.
const PLUGINS: [&str; 2] = ["kubernetes", "forward"];
const SIZES: [f64; 14] = [
    0.0, 100.0, 200.0, 300.0, 400.0, 511.0, 1023.0, 2047.0, 4095.0, 8291.0, 16e3, 32e3, 48e3, 64e3,
];
/// Times start at 0.25 ms and double, sixteen of them.
pub(super) const TIMES: usize = 16;
pub(super) const FIRST_TIME: f64 = 0.000_25;
/// Times until a change is answered start at 1 ms and double, twenty of them.
const PROGRAMMINGS: usize = 20;
const FIRST_PROGRAMMING: f64 = 0.001;

type Cells<const N: usize> = [AtomicU64; N];

/// Counts by upper bound, and the sum of all values in a unit of its own.
#[derive(Debug)]
struct Buckets<const N: usize> {
    counts: Cells<N>,
    above: AtomicU64,
    sum: AtomicU64,
}

impl<const N: usize> Default for Buckets<N> {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU64::new(0)),
            above: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }
}

impl<const N: usize> Buckets<N> {
    fn observe(&self, bucket: usize, value: u64) {
        add(self.counts.get(bucket).unwrap_or(&self.above), 1);
        add(&self.sum, value);
    }

    /// Bounds and counts, the count of all, and the sum in the unit of the metric.
    fn read(&self, bound: impl Fn(usize) -> f64, unit: f64) -> (Vec<(f64, u64)>, u64, f64) {
        let counts = self.counts.iter().map(read).chain([read(&self.above)]);
        let bounds = (0..N).map(bound).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        (buckets, count, read(&self.sum) as f64 * unit)
    }
}

/// The counters of one server.
#[derive(Debug)]
pub struct DnsStats {
    requests: [[Cells<{ TYPES.len() }>; 2]; 2],
    dnssec: AtomicU64,
    responses: [Cells<{ CODES.len() }>; 2],
    request_sizes: [Buckets<{ SIZES.len() }>; 2],
    response_sizes: [Buckets<{ SIZES.len() }>; 2],
    durations: Buckets<TIMES>,
    programmings: Buckets<PROGRAMMINGS>,
    refused: AtomicU64,
    limited: AtomicU64,
    /// When somebody last answered from the kept names that are answered from now, in
    /// seconds since 1970; zero while names are the cluster's own.
    kept: AtomicU64,
    writings: AtomicU64,
    failed_writings: AtomicU64,
    /// What servers that tell of themselves here have counted, one after the other.
    pub(super) served: Arc<DnsMetrics>,
}

impl Default for DnsStats {
    fn default() -> Self {
        fn zeros<const N: usize>() -> Cells<N> {
            std::array::from_fn(|_| AtomicU64::new(0))
        }
        Self {
            requests: std::array::from_fn(|_| [zeros(), zeros()]),
            dnssec: AtomicU64::new(0),
            responses: [zeros(), zeros()],
            request_sizes: Default::default(),
            response_sizes: Default::default(),
            durations: Buckets::default(),
            programmings: Buckets::default(),
            refused: AtomicU64::new(0),
            limited: AtomicU64::new(0),
            kept: AtomicU64::new(0),
            writings: AtomicU64::new(0),
            failed_writings: AtomicU64::new(0),
            served: Arc::default(),
        }
    }
}

/// One query and its reply.
pub(super) struct Exchange<'a> {
    pub(super) query: &'a [u8],
    pub(super) reply: &'a [u8],
    pub(super) client: IpAddr,
    pub(super) transport: Transport,
    pub(super) took: Duration,
}

impl DnsStats {
    /// A query was answered.
    pub(super) fn answered(&self, exchange: &Exchange<'_>) {
        let Exchange {
            query,
            reply,
            client,
            transport,
            took,
        } = *exchange;
        let protocol = match transport {
            Transport::Udp => 0,
            Transport::Tcp => 1,
        };
        let family = usize::from(client.is_ipv6());
        let rtype = portolan_dns::rtype(query).map_or(0, |rtype| rtype.0);
        let known = TYPES.iter().position(|(number, _)| *number == rtype);
        let types = self.requests.get(protocol).and_then(|of| of.get(family));
        bump(types.and_then(|types| types.get(known.unwrap_or(TYPES.len() - 1))));
        let code = code_at(portolan_dns::whole_rcode(reply));
        let plugin = usize::from(!portolan_dns::is_authoritative(reply));
        let codes = self.responses.get(plugin);
        bump(codes.and_then(|codes| codes.get(code)));
        if portolan_dns::wants_dnssec(query) {
            add(&self.dnssec, 1);
        }
        for (sizes, message) in [(&self.request_sizes, query), (&self.response_sizes, reply)] {
            if let Some(sizes) = sizes.get(protocol) {
                let length = message.len();
                let bucket = SIZES.partition_point(|bound| *bound < length as f64);
                sizes.observe(bucket, length as u64);
            }
        }
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.durations.observe(doubling(took, FIRST_TIME), nanos);
    }

    /// A change of endpoints of a headless Service can be read in answers.
    pub(crate) fn programmed(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let bucket = doubling(took, FIRST_PROGRAMMING);
        self.programmings.observe(bucket, nanos);
    }

    /// From now on names are answered that were kept so many seconds ago, or the
    /// cluster's own.
    pub(crate) fn kept_names(&self, age: Option<u64>) {
        let since = age.map_or(0, |age| seconds().saturating_sub(age).max(1));
        self.kept.store(since, Ordering::Relaxed);
    }

    /// How often names were written for the next start.
    #[cfg(test)]
    pub(super) fn writings(&self) -> u64 {
        read(&self.writings)
    }

    /// Names were written for the next start, or could not be.
    pub(super) fn names_kept(&self, done: bool) {
        let cell = if done {
            &self.writings
        } else {
            &self.failed_writings
        };
        add(cell, 1);
    }

    /// A query of a client that is not answered.
    pub(super) fn refused(&self) {
        add(&self.refused, 1);
    }

    /// A query above the rate of its client.
    pub(super) fn limited(&self) {
        add(&self.limited, 1);
    }
}

fn add(cell: &AtomicU64, value: u64) {
    cell.fetch_add(value, Ordering::Relaxed);
}

fn bump(cell: Option<&AtomicU64>) {
    if let Some(cell) = cell {
        add(cell, 1);
    }
}

/// Seconds since 1970.
fn seconds() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}

fn read(cell: &AtomicU64) -> u64 {
    cell.load(Ordering::Relaxed)
}

/// The first of the bounds `first`, twice that and so on that is not below a time.
pub(super) fn doubling(took: Duration, first: f64) -> usize {
    let ratio = took.as_secs_f64() / first;
    if ratio <= 1.0 {
        return 0;
    }
    ratio.log2().ceil() as usize
}

pub(super) fn doubled(first: f64) -> impl Fn(usize) -> f64 {
    move |index| first * f64::from(1_u32 << index.min(31))
}

/// A gauge without labels.
fn encode_gauge(mut gauge: MetricEncoder<'_>, value: u64) -> fmt::Result {
    gauge.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX))
}

/// Counters under one name.
pub(super) fn counters<'l>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    rows: impl Iterator<Item = (Vec<(&'l str, &'l str)>, u64)>,
) -> fmt::Result {
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
    for (labels, value) in rows {
        if labels.is_empty() {
            family.encode_counter::<NoLabelSet, u64, u64>(&value, None)?;
        } else {
            let mut metric = family.encode_family(&labels)?;
            metric.encode_counter::<NoLabelSet, u64, u64>(&value, None)?;
        }
    }
    Ok(())
}

/// Histograms under one name.
pub(super) fn histograms<'l>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help): (&str, &str),
    rows: impl Iterator<Item = (Vec<(&'l str, &'l str)>, (Vec<(f64, u64)>, u64, f64))>,
) -> fmt::Result {
    const NONE: Option<&HashMap<usize, Exemplar<NoLabelSet, f64>>> = None;
    let mut family = encoder.encode_descriptor(name, help, None, MetricType::Histogram)?;
    for (labels, (buckets, count, sum)) in rows {
        let mut metric = family.encode_family(&labels)?;
        metric.encode_histogram(sum, count, &buckets, NONE)?;
    }
    Ok(())
}

/// The metrics of a server that others hold too.
#[derive(Debug)]
pub(crate) struct Told(pub(crate) std::sync::Arc<DnsStats>);

impl Collector for Told {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        self.0.encode_counts(&mut encoder)?;
        self.0.encode_own(&mut encoder)?;
        self.0.encode_histograms(&mut encoder)
    }
}

impl DnsStats {
    fn encode_counts(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let of_types = PROTOCOLS
            .iter()
            .zip(&self.requests)
            .flat_map(|(proto, of)| {
                FAMILIES.iter().zip(of).flat_map(move |(family, types)| {
                    TYPES.iter().zip(types).map(move |((_, name), count)| {
                        let own = [("proto", *proto), ("family", *family), ("type", *name)];
                        ([SERVER, ZONE, VIEW].into_iter().chain(own).collect(), count)
                    })
                })
            });
        counters(
            encoder,
            (
                "coredns_dns_requests",
                "Counter of DNS requests made per zone, protocol and family",
            ),
            of_types
                .map(|(labels, count)| (labels, read(count)))
                .filter(|(_, count)| *count > 0),
        )?;
        let of_codes = PLUGINS
            .iter()
            .zip(&self.responses)
            .flat_map(|(plugin, codes)| {
                CODES.iter().zip(codes).map(move |(code, count)| {
                    let own = [("rcode", *code), ("plugin", *plugin)];
                    ([SERVER, ZONE, VIEW].into_iter().chain(own).collect(), count)
                })
            });
        counters(
            encoder,
            ("coredns_dns_responses", "Counter of response status codes"),
            of_codes
                .map(|(labels, count)| (labels, read(count)))
                .filter(|(_, count)| *count > 0),
        )?;
        let single = |cell| std::iter::once((vec![SERVER, VIEW, ZONE], read(cell)));
        counters(
            encoder,
            (
                "coredns_dns_do_requests",
                "Counter of DNS requests with DO bit set per zone",
            ),
            single(&self.dnssec),
        )
    }

    /// Those that CoreDNS does not have, and who this is.
    fn encode_own(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let counts = self.served.counts();
        for (name, help, count) in [
            (
                "portolan_dns_refused_queries",
                "Queries of clients that are not answered",
                read(&self.refused),
            ),
            (
                "portolan_dns_limited_queries",
                "Queries above the rate of their client",
                read(&self.limited),
            ),
            (
                "portolan_dns_ignored",
                "Messages that were no queries",
                counts.ignored,
            ),
            (
                "portolan_dns_held",
                "Queries that waited for the first names of the cluster",
                counts.held,
            ),
            (
                "portolan_dns_forwarded",
                "Queries for names outside the cluster that nothing was kept for",
                counts.forwarded,
            ),
            (
                "portolan_dns_forward_failures",
                "Those of them that no resolver answered",
                counts.forward_failures,
            ),
            (
                "portolan_dns_overflows",
                "Queries that failed because too many others were waiting",
                counts.overflows,
            ),
        ] {
            counters(encoder, (name, help), std::iter::once((Vec::new(), count)))?;
        }
        self.encode_kept(encoder)?;
        counters(
            encoder,
            (
                "coredns_autopath_success",
                "Counter of requests that did autopath",
            ),
            std::iter::once((vec![SERVER], counts.completed)),
        )?;
        let build = [
            ("version", env!("CARGO_PKG_VERSION")),
            ("revision", ""),
            ("goversion", ""),
        ];
        let mut family = encoder.encode_descriptor(
            "coredns_build_info",
            "A metric with a constant '1' value labeled by the version that answers as CoreDNS does",
            None,
            MetricType::Gauge,
        )?;
        family.encode_family(&build)?.encode_gauge(&1_i64)
    }

    /// Names that were kept, and whether they are answered from.
    fn encode_kept(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let about = (
            "portolan_dns_names_kept",
            "How often names were written for the next start",
        );
        let row = (Vec::new(), read(&self.writings));
        counters(encoder, about, std::iter::once(row))?;
        let about = ("portolan_dns_names_kept_failures", "How often that failed");
        let row = (Vec::new(), read(&self.failed_writings));
        counters(encoder, about, std::iter::once(row))?;
        let since = read(&self.kept);
        let age = if since == 0 {
            0
        } else {
            seconds().saturating_sub(since)
        };
        for (name, help, value) in [
            (
                "portolan_dns_answers_kept_names",
                "Whether names are answered as they were kept, because the cluster has not been listed yet",
                u64::from(since > 0),
            ),
            (
                "portolan_dns_kept_names_age_seconds",
                "How long ago these names were last known to be answered",
                age,
            ),
        ] {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            encode_gauge(gauge, value)?;
        }
        Ok(())
    }

    fn encode_histograms(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let durations = self.durations.read(doubled(FIRST_TIME), 1e-9);
        histograms(
            encoder,
            (
                "coredns_dns_request_duration_seconds",
                "Histogram of the time (in seconds) each request took per zone",
            ),
            std::iter::once((vec![SERVER, ZONE, VIEW], durations)),
        )?;
        for (name, help, sizes) in [
            (
                "coredns_dns_request_size_bytes",
                "Size of the EDNS0 UDP buffer in bytes (64K for TCP) per zone and protocol",
                &self.request_sizes,
            ),
            (
                "coredns_dns_response_size_bytes",
                "Size of the returned response in bytes",
                &self.response_sizes,
            ),
        ] {
            let bound = |index: usize| SIZES.get(index).copied().unwrap_or(f64::INFINITY);
            let rows = PROTOCOLS.iter().zip(sizes).map(|(proto, sizes)| {
                (
                    vec![SERVER, ZONE, VIEW, ("proto", *proto)],
                    sizes.read(bound, 1.0),
                )
            });
            histograms(encoder, (name, help), rows)?;
        }
        let programmings = self.programmings.read(doubled(FIRST_PROGRAMMING), 1e-9);
        let kind = vec![("service_kind", "headless_with_selector")];
        histograms(
            encoder,
            (
                "coredns_kubernetes_dns_programming_duration_seconds",
                "Histogram of the time (in seconds) it took to program a dns instance",
            ),
            std::iter::once((kind, programmings)),
        )
    }
}
