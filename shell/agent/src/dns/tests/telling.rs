//! What is told of forwarding, the cache and the file, by CoreDNS' names.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use portolan_dns::Zones;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;

use super::super::{Dial, DnsTold, Forwarder, Front, SharedFront, Upstream};
use super::resolver::{LONG, Manner, resolver, route, settings};
use super::{Lab, name};

/// Everything that is told, in the text format of Prometheus.
fn told(of: &DnsTold) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(of.clone()));
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    text
}

/// What is told after five queries for three names, one of which does not exist, in
/// the order of CoreDNS' labels.
fn lines(to: SocketAddr, gone: SocketAddr) -> Vec<String> {
    let cache = "server=\"dns://:53\"";
    let rest = "zones=\".\",view=\"\"";
    vec![
        format!("coredns_cache_entries{{{cache},type=\"success\",{rest}}} 2.0"),
        format!("coredns_cache_entries{{{cache},type=\"denial\",{rest}}} 1.0"),
        format!("coredns_cache_hits_total{{{cache},type=\"success\",{rest}}} 1"),
        format!("coredns_cache_hits_total{{{cache},type=\"denial\",{rest}}} 1"),
        format!("coredns_cache_requests_total{{{cache},{rest}}} 5"),
        format!("coredns_cache_misses_total{{{cache},{rest}}} 3"),
        format!("coredns_cache_prefetch_total{{{cache},{rest}}} 0"),
        format!("coredns_cache_served_stale_total{{{cache},{rest}}} 0"),
        format!("coredns_cache_evictions_total{{{cache},type=\"success\",{rest}}} 0"),
        "coredns_forward_max_concurrent_rejects_total 0".to_owned(),
        "coredns_forward_healthcheck_broken_total 0".to_owned(),
        // One server of two routes is told of once.
        format!(
            "coredns_proxy_request_duration_seconds_count{{proxy_name=\"forward\",to=\"{to}\",rcode=\"NOERROR\"}} 2"
        ),
        format!(
            "coredns_proxy_request_duration_seconds_count{{proxy_name=\"forward\",to=\"{gone}\",rcode=\"NXDOMAIN\"}} 1"
        ),
        format!(
            "coredns_proxy_request_duration_seconds_bucket{{le=\"+Inf\",proxy_name=\"forward\",to=\"{to}\",rcode=\"NOERROR\"}} 2"
        ),
        format!("coredns_proxy_healthcheck_failures_total{{proxy_name=\"forward\",to=\"{to}\"}} 0"),
        format!(
            "coredns_proxy_conn_cache_hits_total{{proxy_name=\"forward\",to=\"{to}\",proto=\"tcp\"}} 0"
        ),
        format!("portolan_dns_upstream_up{{proxy_name=\"forward\",to=\"{to}\"}} 1.0"),
        "coredns_hosts_entries 3.0".to_owned(),
        "coredns_hosts_reload_timestamp_seconds 1800000000.0".to_owned(),
        "coredns_reload_failed_total 0".to_owned(),
    ]
}

#[tokio::test]
async fn d22_forwarding_and_the_cache_are_told_by_corednss_names() {
    let (server, other) = (resolver(Manner::Good, 7), resolver(Manner::NxDomain, 8));
    let mut settings = settings(route(&[server.address], LONG));
    for (domain, address) in [
        ("other.example", other.address),
        ("b.example", server.address),
    ] {
        let mut second = route(&[address], LONG);
        second.domain = name(domain);
        settings.routes.push(second);
    }
    settings.cache.entries = 16 * 16;
    let forwarder = Arc::new(Forwarder::new(settings, Dial::Own));
    let front = SharedFront::default();
    front.store(Arc::new(Front {
        hosts: Zones::default(),
        written: 3,
        read_at: Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)),
        ..Front::default()
    }));
    let of = DnsTold {
        forwarder: Arc::clone(&forwarder),
        front,
        failed_reloads: Arc::default(),
    };
    let lab = Lab::start(Some(forwarder as Arc<dyn Upstream>));
    for asked in [
        "www.example.com",
        "www.example.com",
        "a.other.example",
        "a.other.example",
        "c.b.example",
    ] {
        lab.dig(&format!("{asked} A")).await;
    }
    let text = told(&of);
    let gone = other.address;
    for line in lines(server.address, gone) {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    // A datagram is a connection of its own; the test for loops needed one as well.
    let udp = format!(
        "coredns_proxy_conn_cache_misses_total{{proxy_name=\"forward\",to=\"{gone}\",proto=\"udp\"}} "
    );
    assert!(text.contains(&udp), "{text}");
    let labels: Vec<&str> = text
        .lines()
        .filter_map(|line| line.rsplit_once(' ').map(|(labels, _)| labels))
        .filter(|labels| !labels.starts_with('#'))
        .collect();
    let once: std::collections::BTreeSet<&&str> = labels.iter().collect();
    assert_eq!(labels.len(), once.len(), "{text}");
}

#[tokio::test]
async fn d22_servers_that_are_all_down_are_told_of() {
    let server = resolver(Manner::Silent, 7);
    let mut route = route(&[server.address], Duration::from_millis(20));
    route.health.most_failures = 1;
    let forwarder = Arc::new(Forwarder::new(settings(route), Dial::Own));
    let of = DnsTold {
        forwarder: Arc::clone(&forwarder),
        front: SharedFront::default(),
        failed_reloads: Arc::default(),
    };
    let lab = Lab::start(Some(forwarder as Arc<dyn Upstream>));
    for number in 0..2 {
        lab.dig(&format!("{number}.example.com A")).await;
    }
    let text = told(&of);
    let broken = "coredns_forward_healthcheck_broken_total ";
    let count = text.lines().find_map(|line| line.strip_prefix(broken));
    assert!(count.is_some_and(|count| count != "0"), "{text}");
    let up = format!(
        "upstream_up{{proxy_name=\"forward\",to=\"{}\"}} 0.0",
        server.address
    );
    assert!(text.contains(&up), "{text}");
    assert!(
        !text.contains("coredns_hosts_reload_timestamp_seconds"),
        "{text}"
    );
}
