//! Who is answered, how often, and what is told of it.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use portolan_dns::{Rtype, query, rcode, whole_rcode};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::guard::{Clients, DnsGuard};
use super::super::stats::Told;
use super::{Lab, client, name, receive, until, within};

const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

fn guarded(guard: DnsGuard) -> Lab {
    Lab::start_guarded(&[LOOPBACK], None, true, (|_| {}, guard))
}

fn ranges(text: &str) -> Vec<IpNet> {
    vec![text.parse().unwrap()]
}

fn asking(rtype: Rtype) -> Vec<u8> {
    query(7, &name("web.default.svc.cluster.local"), rtype)
}

/// Everything that is told, in the text format of Prometheus.
fn told(lab: &Lab) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Told(Arc::clone(&lab.stats))));
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    text
}

#[tokio::test]
async fn only_clients_of_the_networks_are_answered() {
    let clients = Arc::new(ArcSwap::from_pointee(Clients::Within(ranges(
        "10.244.0.0/16",
    ))));
    let lab = guarded(DnsGuard {
        clients: Arc::clone(&clients),
        ..DnsGuard::default()
    });
    let text = lab.dig("web.default.svc.cluster.local A").await;
    assert!(text.contains("status: REFUSED"), "{text}");
    assert!(text.contains("EDE: 18 (Prohibited)"), "{text}");
    let text = lab.dig("+tcp web.default.svc.cluster.local A").await;
    assert!(text.contains("status: REFUSED"), "{text}");
    // A reply is not answered, whoever sent it.
    let socket = client(lab.address).await;
    let mut reply = asking(Rtype::A);
    reply[2] |= 0x80;
    socket.send(&reply).await.unwrap();

    clients.store(Arc::new(Clients::Within(ranges("127.0.0.0/8"))));
    let text = lab.dig("web.default.svc.cluster.local A").await;
    assert!(text.contains("10.96.7.1"), "{text}");
    socket.send(&asking(Rtype::A)).await.unwrap();
    let answer = receive(&socket).await;
    assert_eq!(rcode(&answer), Some(0), "the reply of before had none");
    assert!(told(&lab).contains("portolan_dns_refused_queries_total 2"));
}

/// Asks again and again until a reply has this code. Some are dropped.
async fn asked_until(server: SocketAddr, asked: &[u8], code: u16) -> Vec<u8> {
    let socket = client(server).await;
    let work = async {
        loop {
            socket.send(asked).await.unwrap();
            let mut reply = Vec::with_capacity(4096);
            let pause = std::time::Duration::from_millis(20);
            if let Ok(Ok(_)) = tokio::time::timeout(pause, socket.recv_buf(&mut reply)).await
                && whole_rcode(&reply) == Some(code)
            {
                return reply;
            }
        }
    };
    within(work).await
}

#[tokio::test]
async fn d18_who_asks_too_often_is_not_answered_for_a_while() {
    let lab = guarded(DnsGuard {
        rate: NonZeroU32::new(5),
        ..DnsGuard::default()
    });
    let socket = client(lab.address).await;
    let limited = || {
        let text = told(&lab);
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("portolan_dns_limited_queries_total "));
        line.and_then(|count| count.parse::<u64>().ok()).unwrap()
    };
    while limited() == 0 {
        socket.send(&asking(Rtype::A)).await.unwrap();
    }
    // Who speaks of cookies is asked to show the one that it is given.
    let cookie = |octets: &[u8]| {
        let mut asked = asking(Rtype::A);
        asked[11] = 1;
        asked.extend(b"\x00\x00\x29\x04\xd0\x00\x00\x00\x00");
        asked.extend((octets.len() as u16 + 4).to_be_bytes());
        asked.extend([0, 10]);
        asked.extend((octets.len() as u16).to_be_bytes());
        asked.extend(octets);
        asked
    };
    let told_so = asked_until(lab.address, &cookie(&[7; 8]), 23).await;
    // Who shows it is told, whatever it asks.
    let shown = cookie(&told_so[told_so.len() - 24..]);
    asked_until(lab.address, &shown, 5).await;
    // A connection is told.
    let mut stream = within(tokio::net::TcpStream::connect(lab.address))
        .await
        .unwrap();
    let asked = asking(Rtype::A);
    let framed = [&(asked.len() as u16).to_be_bytes()[..], &asked].concat();
    let mut refused = false;
    while !refused {
        stream.write_all(&framed).await.unwrap();
        let length = within(stream.read_u16()).await.unwrap();
        let mut reply = vec![0; usize::from(length)];
        within(stream.read_exact(&mut reply)).await.unwrap();
        refused = rcode(&reply) == Some(5);
    }
}

#[tokio::test]
async fn d17_zones_are_sent_to_those_who_may_have_them() {
    let lab = guarded(DnsGuard {
        transfers: ranges("127.0.0.0/8"),
        ..DnsGuard::default()
    });
    let text = lab.dig("cluster.local AXFR").await;
    assert!(
        text.contains("web.default.svc.cluster.local. 5\tIN A\t10.96.7.1")
            || text.contains("10.96.7.1"),
        "{text}"
    );
    assert!(text.contains("XFR size: "), "{text}");
    assert_eq!(text.matches("\tSOA\t").count(), 2, "{text}");
    let text = lab.dig("cluster.local IXFR=1").await;
    assert!(text.contains("10.96.7.1"), "{text}");
    let text = lab.dig("example.com AXFR").await;
    assert!(text.contains("Transfer failed"), "{text}");
    // By datagram the version alone: the rest is fetched over TCP (RFC 1995 §2).
    let text = lab.dig("+notcp cluster.local IXFR=1").await;
    assert!(text.contains("(UDP)"), "{text}");
    assert_eq!(text.matches("\tSOA\t").count(), 1, "{text}");
    assert!(!text.contains("10.96.7.1"), "{text}");

    let closed = guarded(DnsGuard::default());
    let text = closed.dig("+notcp cluster.local IXFR=1").await;
    assert!(!text.contains("\tSOA\t"), "{text}");
    let text = closed.dig("cluster.local AXFR").await;
    assert!(text.contains("Transfer failed"), "{text}");
    assert!(!text.contains("10.96.7.1"), "{text}");
}

#[tokio::test]
async fn d18_dig_gets_a_cookie_that_is_known_again_and_the_servers_name() {
    let lab = guarded(DnsGuard {
        name: "node-1".into(),
        ..DnsGuard::default()
    });
    let text = lab
        .dig("+cookie +nsid web.default.svc.cluster.local A")
        .await;
    assert!(text.contains("(good)"), "{text}");
    assert!(
        text.contains("NSID: 6e 6f 64 65 2d 31 (\"node-1\")"),
        "{text}"
    );
    assert!(text.contains("10.96.7.1"), "{text}");
    let text = lab.dig("+tcp +cookie nope.cluster.local A").await;
    assert!(text.contains("(good)"), "{text}");
    // A query for a cookie alone has no question (RFC 7873 §5.4).
    let text = lab.dig("+cookie +header-only +ednsopt=3 .").await;
    assert!(text.contains("status: NOERROR"), "{text}");
    assert!(text.contains("QUERY: 0, ANSWER: 0"), "{text}");
    assert!(text.contains("(good)"), "{text}");
    let text = lab
        .dig("+edns=1 +noednsneg web.default.svc.cluster.local A")
        .await;
    assert!(text.contains("status: BADVERS"), "{text}");
    let text = lab
        .dig("+ednsopt=65001:00ff +padding=128 web.default.svc.cluster.local A")
        .await;
    assert!(text.contains("10.96.7.1"), "{text}");
}

#[tokio::test]
async fn queries_are_counted_by_corednss_names() {
    let lab = guarded(DnsGuard::default());
    for words in [
        "web.default.svc.cluster.local A",
        "web.default.svc.cluster.local AAAA",
        "+tcp +dnssec nope.cluster.local A",
    ] {
        lab.dig(words).await;
    }
    let lines = [
        "coredns_dns_requests_total{server=\"dns://:53\",zone=\".\",view=\"\",proto=\"udp\",family=\"1\",type=\"A\"} 1",
        "coredns_dns_requests_total{server=\"dns://:53\",zone=\".\",view=\"\",proto=\"udp\",family=\"1\",type=\"AAAA\"} 1",
        "coredns_dns_requests_total{server=\"dns://:53\",zone=\".\",view=\"\",proto=\"tcp\",family=\"1\",type=\"A\"} 1",
        "coredns_dns_responses_total{server=\"dns://:53\",zone=\".\",view=\"\",rcode=\"NOERROR\",plugin=\"kubernetes\"} 2",
        "coredns_dns_responses_total{server=\"dns://:53\",zone=\".\",view=\"\",rcode=\"NXDOMAIN\",plugin=\"kubernetes\"} 1",
        "coredns_dns_do_requests_total{server=\"dns://:53\",view=\"\",zone=\".\"} 1",
        "coredns_dns_request_duration_seconds_count{server=\"dns://:53\",zone=\".\",view=\"\"} 3",
        "coredns_dns_request_size_bytes_count{server=\"dns://:53\",zone=\".\",view=\"\",proto=\"udp\"} 2",
        "coredns_dns_response_size_bytes_bucket{le=\"0.0\",server=\"dns://:53\",zone=\".\",view=\"\",proto=\"tcp\"} 0",
        "coredns_dns_response_size_bytes_bucket{le=\"+Inf\",server=\"dns://:53\",zone=\".\",view=\"\",proto=\"tcp\"} 1",
        "coredns_kubernetes_dns_programming_duration_seconds_count{service_kind=\"headless_with_selector\"} 0",
    ];
    until("the queries are counted", || {
        told(&lab).lines().any(|found| found == lines[4])
    })
    .await;
    let text = told(&lab);
    for line in lines {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    assert!(text.contains("coredns_build_info{"));
}
