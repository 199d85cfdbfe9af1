//! What the server does with its own zones.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use portolan_dns::{Rtype, query, rcode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::super::DnsSockets;
use super::{Lab, client, name, receive, until, v4, within};

/// What `dig` is asked, the status of the reply, and what else it prints.
const ASKED: [(&str, &str, &[&str]); 12] = [
    (
        "web.default.svc.cluster.local A",
        "NOERROR",
        &["A\t10.96.7.1", "flags: qr aa rd;"],
    ),
    (
        "WEB.default.svc.CLUSTER.local A",
        "NOERROR",
        &[";WEB.default.svc.CLUSTER.local."],
    ),
    (
        "both.default.svc.cluster.local AAAA",
        "NOERROR",
        &["AAAA\tfd00::7"],
    ),
    (
        "web.default.svc.cluster.local AAAA",
        "NOERROR",
        &[
            "ANSWER: 0",
            "AUTHORITY: 1",
            "SOA\tns.dns.cluster.local. hostmaster.cluster.local. ",
        ],
    ),
    (
        "default.svc.cluster.local A",
        "NOERROR",
        &["ANSWER: 0", "SOA\t"],
    ),
    (
        "nope.default.svc.cluster.local A",
        "NXDOMAIN",
        &["flags: qr aa rd;", "SOA\t"],
    ),
    (
        "web.default.svc.cluster.local ANY",
        "NOERROR",
        &["HINFO\t\"RFC8482\" \"\""],
    ),
    (
        "cluster.local NS",
        "NOERROR",
        &["NS\tns.dns.cluster.local.", "A\t10.96.0.10"],
    ),
    ("CH version.bind TXT", "REFUSED", &["ANSWER: 0"]),
    (
        "+edns=1 +noednsneg web.default.svc.cluster.local A",
        "BADVERS",
        &[],
    ),
    ("+opcode=4 web.default.svc.cluster.local A", "NOTIMP", &[]),
    (
        "+noedns web.default.svc.cluster.local A",
        "NOERROR",
        &["ADDITIONAL: 0"],
    ),
];

#[tokio::test]
async fn d1_d3_d4_d5_d6_dig_reads_every_kind_of_answer() {
    let lab = Lab::start(None);
    for transport in ["+notcp", "+tcp"] {
        for (words, status, expected) in ASKED {
            let output = lab.dig(&format!("{transport} {words}")).await;
            assert!(
                output.contains(&format!("status: {status},")),
                "{words}\n{output}"
            );
            assert!(
                !output.to_lowercase().contains("malformed"),
                "{words}\n{output}"
            );
            for part in expected {
                assert!(output.contains(part), "{words}: {part}\n{output}");
            }
        }
    }
    let counts = lab.counts();
    assert_eq!((counts.udp[0], counts.udp[3]), (9, 1), "{counts:?}");
    assert!(counts.tcp[0] >= 9, "{counts:?}");
}

#[tokio::test]
async fn d18_a_cut_answer_is_fetched_over_tcp() {
    let lab = Lab::start(None);
    let many = "many.default.svc.cluster.local A +noall +answer +comments";
    let cut = lab.dig(&format!("+ignore +bufsize=600 {many}")).await;
    assert!(cut.contains("flags: qr aa tc rd;"), "{cut}");
    let whole = lab.dig(&format!("+bufsize=600 {many}")).await;
    assert!(whole.contains("ANSWER: 256,"), "{whole}");
    let large = lab.dig(&format!("+ignore +bufsize=8192 {many}")).await;
    assert!(
        large.contains("flags: qr aa rd;") && large.contains("ANSWER: 256,"),
        "{large}"
    );
}

#[tokio::test]
async fn d18_both_orders_of_two_addresses_are_seen_by_each_kind_of_client() {
    let lab = Lab::start(None);
    let socket = client(lab.address).await;
    let mut firsts = BTreeSet::new();
    for id in 0..64 {
        // As stub resolvers do: a question for A, one for AAAA, and so on.
        for rtype in [Rtype::A, Rtype::AAAA] {
            socket
                .send(&query(id, &name("db.default.svc.cluster.local"), rtype))
                .await
                .unwrap();
            let reply = receive(&socket).await;
            if rtype == Rtype::A {
                let first_record = 12 + 30 + 4 + 12;
                firsts.insert(reply[first_record..first_record + 4].to_vec());
            }
        }
    }
    assert_eq!(firsts.len(), 2, "{firsts:?}");
}

#[tokio::test]
async fn d19_a_search_list_ends_in_nxdomain_and_finds_short_names() {
    let lab = Lab::start(None);
    let search = "+search +ndots=5 +domain=default.svc.cluster.local +showsearch";
    let found = lab.dig(&format!("{search} web A")).await;
    assert!(
        found.contains("web.default.svc.cluster.local. 5 IN\tA\t10.96.7.1"),
        "{found}"
    );
    // What every walk through a search list ends with.
    for last in ["wbe.", "web.defualt.", "www.example.com."] {
        let output = lab.dig(&format!("{last} A")).await;
        assert!(output.contains("status: NXDOMAIN,"), "{output}");
        assert!(
            output.contains("AUTHORITY: 0"),
            "nobody is to keep it: {output}"
        );
        assert!(output.contains("no upstream resolver"), "{output}");
    }
}

#[tokio::test]
async fn d20_before_the_first_sync_a_query_is_held_and_then_answered() {
    let lab = Lab::start_with(None, false, |_| {});
    let socket = client(lab.address).await;
    let new = name("new.default.svc.cluster.local");
    socket.send(&query(7, &new, Rtype::A)).await.unwrap();
    socket.send(b"\0").await.unwrap();
    until("the query is held", || lab.counts().held == 1).await;
    assert!(socket.try_recv(&mut [0; 512]).is_err(), "nothing yet");

    let mut zones = (**lab.zones.load()).clone();
    zones
        .zone_of_mut(&new)
        .unwrap()
        .set(&new, &[v4("10.96.7.9")])
        .unwrap();
    lab.zones.store(Arc::new(zones));
    lab.ready.send(true).unwrap();
    let reply = receive(&socket).await;
    assert_eq!(rcode(&reply), Some(0));
    assert!(reply.ends_with(&[10, 96, 7, 9]));
    assert_eq!(lab.counts().ignored, 1);
}

#[tokio::test]
async fn d20_a_query_that_was_held_too_long_is_a_failure_and_never_nxdomain() {
    let lab = Lab::start_with(None, false, |service| {
        service.hold = Duration::from_millis(50)
    });
    for transport in ["+notcp", "+tcp"] {
        let output = lab
            .dig(&format!("{transport} nope.default.svc.cluster.local A"))
            .await;
        assert!(output.contains("status: SERVFAIL,"), "{output}");
        assert!(output.contains("EDE: 14 (Not Ready)"), "{output}");
    }
}

#[tokio::test]
async fn d18_a_published_change_is_in_the_next_answer() {
    let lab = Lab::start(None);
    let owner = name("web.default.svc.cluster.local");
    let socket = client(lab.address).await;
    for last in 0..50 {
        let mut zones = (**lab.zones.load()).clone();
        let address = v4(&format!("10.96.8.{last}"));
        zones
            .zone_of_mut(&owner)
            .unwrap()
            .set(&owner, &[address])
            .unwrap();
        lab.zones.store(Arc::new(zones));
        socket.send(&query(1, &owner, Rtype::A)).await.unwrap();
        assert!(receive(&socket).await.ends_with(&[10, 96, 8, last]));
    }
}

#[tokio::test]
async fn d18_many_queries_share_a_connection_even_after_its_half_close() {
    let lab = Lab::start(None);
    let mut stream = tokio::net::TcpStream::connect(lab.address).await.unwrap();
    let mut sent = Vec::new();
    for id in 0..500_u16 {
        let message = query(id, &name("web.default.svc.cluster.local"), Rtype::A);
        sent.extend_from_slice(&(message.len() as u16).to_be_bytes());
        sent.extend_from_slice(&message);
    }
    stream.write_all(&sent).await.unwrap();
    stream.shutdown().await.unwrap();
    for id in 0..500_u16 {
        let length = within(stream.read_u16()).await.unwrap();
        let mut reply = vec![0; usize::from(length)];
        within(stream.read_exact(&mut reply)).await.unwrap();
        assert_eq!(reply[..2], id.to_be_bytes());
    }
    assert_eq!(
        within(stream.read(&mut [0; 1])).await.unwrap(),
        0,
        "then it closes"
    );
    assert_eq!(lab.counts().tcp[0], 500);
}

#[tokio::test]
async fn d18_garbage_is_ignored_or_refused_and_the_server_lives_on() {
    let lab = Lab::start(None);
    let socket = client(lab.address).await;
    let good = query(1, &name("web.default.svc.cluster.local"), Rtype::A);
    for cut in 0..good.len() {
        socket.send(&good[..cut]).await.unwrap();
        let mut garbage = good.clone();
        garbage[cut] ^= 0xff;
        socket.send(&garbage).await.unwrap();
    }
    socket.send(&vec![0xff; 9000]).await.unwrap();
    let mut stream = tokio::net::TcpStream::connect(lab.address).await.unwrap();
    stream.write_all(&[0, 3, 1, 2, 3]).await.unwrap();
    assert_eq!(
        within(stream.read(&mut [0; 1])).await.unwrap(),
        0,
        "closed without a word"
    );
    let output = lab.dig("web.default.svc.cluster.local A +short").await;
    assert_eq!(output, "10.96.7.1\n");
}

#[tokio::test]
async fn d3_the_server_is_there_in_both_families() {
    let loopbacks: [SocketAddr; 2] = [
        (Ipv4Addr::LOCALHOST, 0).into(),
        (Ipv6Addr::LOCALHOST, 0).into(),
    ];
    let lab = Lab::start_at(&loopbacks, None, true, |_| {});
    assert_eq!(lab.server.addresses().len(), 2);
    for &address in lab.server.addresses() {
        let socket = client(address).await;
        let asked = query(1, &name("web.default.svc.cluster.local"), Rtype::A);
        socket.send(&asked).await.unwrap();
        assert!(receive(&socket).await.ends_with(&[10, 96, 7, 1]));
    }
}

#[test]
fn sockets_that_cannot_be_bound_name_the_address() {
    let taken = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = taken.local_addr().unwrap();
    let error = DnsSockets::bind(&[address]).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("cannot listen for DNS at {address}/UDP")
    );
}

#[tokio::test]
async fn stopping_frees_the_port_and_leaves_no_task() {
    let lab = Lab::start(None);
    let stream = tokio::net::TcpStream::connect(lab.address).await.unwrap();
    lab.stop.cancel();
    within(lab.server.stopped()).await;
    drop(stream);
    DnsSockets::bind(&[lab.address]).unwrap();
}

#[tokio::test]
async fn d20_too_many_held_queries_are_left_to_ask_again() {
    let lab = Lab::start_with(None, false, |service| service.allow_held(2));
    let socket = client(lab.address).await;
    let web = name("web.default.svc.cluster.local");
    for id in 0..3 {
        socket.send(&query(id, &web, Rtype::A)).await.unwrap();
    }
    until("one too many", || lab.counts().overflows == 1).await;
    assert_eq!(lab.counts().held, 2);
    // Who asks by a connection is told.
    let told = lab.dig("+tcp web.default.svc.cluster.local A").await;
    assert!(
        told.contains("status: SERVFAIL,") && told.contains("too many queries are waiting"),
        "{told}"
    );
    lab.ready.send(true).unwrap();
    for _ in 0..2 {
        assert!(receive(&socket).await.ends_with(&[10, 96, 7, 1]));
    }
    assert_eq!(lab.counts().udp[2], 0, "no datagram said SERVFAIL");
}
