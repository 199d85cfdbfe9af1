//! Names outside the zones, seen from a client of the server, with resolvers that
//! misbehave.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use portolan_dns::{Rtype, Zone, query, same_question};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UdpSocket;

use super::super::{Front, Upstream, nameservers};
use super::resolver::{LONG, Manner, SHORT, forwarder, resolver, route, settings, without_cache};
use super::{Lab, client, name, receive, within};

/// An upstream that keeps nothing, with so much patience for each server.
fn upstream(servers: &[SocketAddr], attempt: Duration) -> Arc<dyn Upstream> {
    forwarder(without_cache(route(servers, attempt)))
}

#[tokio::test]
async fn d22_names_outside_the_zones_are_forwarded() {
    let server = resolver(Manner::Good, 7);
    let lab = Lab::start(Some(upstream(&[server.address], LONG)));
    let output = lab.dig("www.example.com A").await;
    assert!(
        output.contains("A\t192.0.2.7") && output.contains("flags: qr rd ra;"),
        "{output}"
    );
    let own = lab.dig("web.default.svc.cluster.local A").await;
    assert!(
        own.contains("flags: qr aa rd ra;"),
        "recursion is available: {own}"
    );
    let unknown = lab.dig("nope.svc.cluster.local A").await;
    assert!(unknown.contains("status: NXDOMAIN,"), "{unknown}");
    assert_eq!(
        server.asked(),
        1,
        "nobody else is asked about our own names"
    );
    assert_eq!(lab.counts().forwarded, 1);
}

#[tokio::test]
async fn d22_only_the_reply_to_the_question_counts() {
    let server = resolver(Manner::AfterForgeries, 7);
    let lab = Lab::start(Some(upstream(&[server.address], LONG)));
    for _ in 0..20 {
        let socket = client(lab.address).await;
        let asked = query(99, &name("www.example.com"), Rtype::A);
        socket.send(&asked).await.unwrap();
        let reply = receive(&socket).await;
        assert!(same_question(&asked, &reply), "the ID of the query");
        assert!(reply.ends_with(&[192, 0, 2, 7]));
    }
}

#[tokio::test]
async fn d22_the_next_server_is_asked_when_one_fails() {
    let nobody = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let closed = nobody.local_addr().unwrap();
    drop(nobody);
    let silent = resolver(Manner::Silent, 1);
    let failing = resolver(Manner::ServFail, 1);
    let good = resolver(Manner::Good, 7);
    for first in [closed, silent.address, failing.address] {
        let lab = Lab::start(Some(upstream(&[first, good.address], SHORT)));
        let output = lab.dig("www.example.com A +short").await;
        assert_eq!(output, "192.0.2.7\n", "{first}");
    }
    assert_eq!((silent.asked(), failing.asked()), (1, 1));
}

#[tokio::test]
async fn d22_without_a_reply_the_failure_is_explained() {
    let silent = resolver(Manner::Silent, 1);
    let lab = Lab::start(Some(upstream(&[silent.address], SHORT)));
    let output = lab.dig("www.example.com A").await;
    assert!(output.contains("status: SERVFAIL,"), "{output}");
    assert!(
        output.contains("EDE: 22 (No Reachable Authority): (no upstream resolver replied)"),
        "{output}"
    );
    assert_eq!(lab.counts().forward_failures, 1);
    // A server's own failure is handed on as it is.
    let failing = resolver(Manner::ServFail, 1);
    let lab = Lab::start(Some(upstream(&[failing.address], SHORT)));
    let output = lab.dig("www.example.com A").await;
    assert!(
        output.contains("status: SERVFAIL,") && !output.contains("EDE"),
        "{output}"
    );
    assert_eq!(failing.asked(), 1);
}

#[tokio::test]
async fn d22_a_cut_reply_is_whole_over_tcp() {
    let server = resolver(Manner::Cut, 7);
    let lab = Lab::start(Some(upstream(&[server.address], LONG)));
    for words in ["www.example.com A", "+tcp www.example.com A"] {
        let whole = lab.dig(words).await;
        assert!(
            whole.contains("A\t192.0.2.7") && whole.contains("flags: qr rd ra;"),
            "{whole}"
        );
    }
    assert_eq!((server.asked(), server.asked_over_tcp()), (2, 2));
}

#[tokio::test]
async fn d22_one_slow_name_does_not_hold_up_the_others_of_a_connection() {
    let silent = resolver(Manner::Silent, 1);
    let lab = Lab::start(Some(upstream(&[silent.address], LONG)));
    let mut stream = tokio::net::TcpStream::connect(lab.address).await.unwrap();
    for (number, owner) in [
        (1, "slow.example.com"),
        (2, "web.default.svc.cluster.local"),
    ] {
        let message = query(number, &name(owner), Rtype::A);
        stream.write_u16(message.len() as u16).await.unwrap();
        stream.write_all(&message).await.unwrap();
    }
    within(stream.read_u16()).await.unwrap();
    assert_eq!(within(stream.read_u16()).await.unwrap(), 2);
}

#[tokio::test]
async fn d13_an_alias_out_of_the_cluster_brings_its_addresses() {
    let server = resolver(Manner::Good, 7);
    let lab = Lab::start(Some(upstream(&[server.address], LONG)));
    let output = lab
        .dig("out.default.svc.cluster.local A +noall +answer")
        .await;
    assert!(output.contains("CNAME\twww.example.com."), "{output}");
    assert!(
        output.contains("www.example.com.\t30\tIN\tA\t192.0.2.7"),
        "{output}"
    );
    // Without anybody to ask, the alias alone is the answer.
    let lab = Lab::start(None);
    let output = lab.dig("out.default.svc.cluster.local A").await;
    assert!(
        output.contains("ANSWER: 1,") && output.contains("status: NOERROR"),
        "{output}"
    );
}

/// Whatever becomes of the name outside, a Service that is another name is one: the alias
/// is the answer, as for CoreDNS.
#[tokio::test]
async fn d13_an_alias_whose_target_fails_is_the_answer_alone() {
    for manner in [Manner::ServFail, Manner::Silent, Manner::NxDomain] {
        let server = resolver(manner, 7);
        let lab = Lab::start(Some(upstream(&[server.address], SHORT)));
        for words in ["A", "AAAA", "A +tcp"] {
            let output = lab
                .dig(&format!("out.default.svc.cluster.local {words}"))
                .await;
            assert!(
                output.contains("status: NOERROR,") && output.contains("ANSWER: 1, AUTHORITY: 0"),
                "{output}"
            );
            assert!(output.contains("CNAME\twww.example.com."), "{output}");
            assert!(output.contains("flags: qr aa rd ra;"), "{output}");
        }
        assert!(server.asked() > 0);
        // The target itself is the server's to fail.
        let output = lab.dig("www.example.com A").await;
        let status = if manner == Manner::NxDomain {
            "NXDOMAIN"
        } else {
            "SERVFAIL"
        };
        assert!(output.contains(&format!("status: {status},")), "{output}");
    }
}

/// The first address of a name, asked so often, and how often the server was asked.
async fn first_addresses(rotate: bool, cached: bool, owner: &str) -> (BTreeSet<String>, usize) {
    let server = resolver(Manner::Pair, 7);
    let route = route(&[server.address], LONG);
    let settings = if cached {
        settings(route)
    } else {
        without_cache(route)
    };
    let lab = Lab::start(Some(forwarder(settings)));
    lab.front.store(Arc::new(Front {
        rotate,
        ..Front::default()
    }));
    let mut first = BTreeSet::new();
    for _ in 0..16 {
        let output = lab.dig(&format!("{owner} A +short")).await;
        let lines: Vec<&str> = output.lines().collect();
        let addresses: Vec<_> = lines
            .iter()
            .filter(|line| line.starts_with("192."))
            .collect();
        assert_eq!(addresses.len(), 2, "{output}");
        first.insert((*addresses[0]).to_owned());
        let alias = lines.iter().position(|line| line.ends_with('.'));
        assert!(alias.is_none_or(|at| at == 0), "{output}");
    }
    (first, server.asked())
}

#[tokio::test]
async fn d18_d22_addresses_of_others_come_in_turn_where_that_was_asked_for() {
    let both = BTreeSet::from(["192.0.2.7".to_owned(), "192.0.2.8".to_owned()]);
    for owner in ["www.example.com", "out.default.svc.cluster.local"] {
        for cached in [true, false] {
            let (first, asked) = first_addresses(true, cached, owner).await;
            assert_eq!(first, both, "{owner} {cached}");
            assert_eq!(asked == 1, cached, "{owner}");
        }
        let (first, _) = first_addresses(false, true, owner).await;
        assert_eq!(first.len(), 1, "as they came: {owner}");
    }
}

#[test]
fn d22_resolv_conf_names_the_servers() {
    let text = "# made by hand\nsearch example.com\nnameserver 192.0.2.1 # one\n nameserver\t2001:db8::1\n\
        nameserver nonsense\n;nameserver 192.0.2.9\nnameserver fe80::1%3\nnameserver 192.0.2.4\noptions edns0\n";
    let servers = nameservers(text);
    let expected: Vec<SocketAddr> = ["192.0.2.1:53", "[2001:db8::1]:53", "[fe80::1%3]:53"]
        .map(|a| a.parse().unwrap())
        .to_vec();
    assert_eq!(servers, expected);
    assert_eq!(nameservers(""), []);
}

#[tokio::test]
async fn d20_d22_only_names_of_the_cluster_wait_for_the_first_sync() {
    let server = resolver(Manner::Good, 7);
    let upstream = upstream(&[server.address], LONG);
    let lab = Lab::start_with(Some(upstream), false, |service| {
        service.hold = Duration::from_millis(50);
    });
    // A wide zone of addresses, as the cluster has it.
    let mut zones = (**lab.zones.load()).clone();
    zones.insert(Zone::new(name("in-addr.arpa"), 5, 1).falling_through());
    zones.insert(Zone::new(name("96.10.in-addr.arpa"), 5, 1));
    lab.zones.store(Arc::new(zones));

    let outside = lab.dig("www.example.com A").await;
    assert!(outside.contains("A\t192.0.2.7"), "{outside}");
    assert_eq!(lab.counts().held, 0);
    // What may be an endpoint's address is asked of others when nobody knows it.
    let address = lab.dig("7.2.0.192.in-addr.arpa A").await;
    assert!(address.contains("status: NOERROR,"), "{address}");
    assert_eq!((lab.counts().held, server.asked()), (1, 2));
    // The cluster's own names are nobody else's business.
    for own in ["web.default.svc.cluster.local", "1.7.96.10.in-addr.arpa"] {
        let output = lab.dig(&format!("{own} A")).await;
        assert!(output.contains("status: SERVFAIL,"), "{output}");
        assert!(output.contains("EDE: 14 (Not Ready)"), "{output}");
    }
    assert_eq!((lab.counts().held, server.asked()), (3, 2));
}
