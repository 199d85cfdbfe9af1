//! Names outside the zones, with resolvers that misbehave.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use portolan_dns::{Rcode, Rtype, id, query, same_question, set_id};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};

use super::super::{DnsSockets, HostUpstream, Upstream, nameservers};
use super::{Lab, client, name, receive, within};

/// What a resolver does with each query over UDP.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    /// Answers.
    Good,
    /// Answers after replies with a wrong ID, a wrong question, and garbage.
    AfterForgeries,
    /// Says nothing.
    Silent,
    /// Fails.
    ServFail,
    /// Answers with TC and without records; the whole answer is there over TCP.
    Cut,
}

struct Resolver {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Resolver {
    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// The reply to any A question: 192.0.2.`last`.
fn reply(query: &[u8], last: u8) -> Vec<u8> {
    let question = query.len() - opt_length(query);
    let mut reply = query[..question].to_vec();
    reply[2] |= 0x80;
    reply[3] |= 0x80;
    reply[7] = 1;
    reply[11] = 0;
    reply.extend_from_slice(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x1e\x00\x04\xc0\x00\x02");
    reply.push(last);
    reply
}

/// The length of the OPT record that `dig` puts at the end.
fn opt_length(query: &[u8]) -> usize {
    if query[11] == 0 { 0 } else { 11 }
}

fn resolver(manner: Manner, last: u8) -> Resolver {
    let sockets = (0..9).find_map(|_| DnsSockets::bind(&[(Ipv4Addr::LOCALHOST, 0).into()]).ok());
    let mut sockets = sockets.unwrap();
    let udp = UdpSocket::from_std(sockets.udp.remove(0)).unwrap();
    let tcp = TcpListener::from_std(sockets.tcp.remove(0)).unwrap();
    let address = udp.local_addr().unwrap();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        loop {
            let mut message = Vec::with_capacity(4096);
            let (_, peer) = udp.recv_buf_from(&mut message).await.unwrap();
            count.fetch_add(1, Ordering::Relaxed);
            for reply in replies(manner, &message, last) {
                udp.send_to(&reply, peer).await.unwrap();
            }
        }
    });
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = tcp.accept().await.unwrap();
            let length = stream.read_u16().await.unwrap();
            let mut message = vec![0; usize::from(length)];
            stream.read_exact(&mut message).await.unwrap();
            let reply = reply(&message, last);
            stream.write_u16(reply.len() as u16).await.unwrap();
            stream.write_all(&reply).await.unwrap();
        }
    });
    Resolver { address, asked }
}

fn replies(manner: Manner, message: &[u8], last: u8) -> Vec<Vec<u8>> {
    let good = reply(message, last);
    match manner {
        Manner::Good => vec![good],
        Manner::Silent => vec![],
        Manner::AfterForgeries => {
            let mut other_id = reply(message, 66);
            set_id(&mut other_id, id(message).unwrap().wrapping_add(1));
            let mut other_name = reply(message, 66);
            other_name[13] ^= 1;
            let mut respelled = good;
            respelled[13].make_ascii_uppercase();
            vec![
                other_id,
                other_name,
                b"garbage".to_vec(),
                vec![],
                message.to_vec(),
                respelled,
            ]
        }
        Manner::ServFail => {
            let mut failure = message.to_vec();
            failure[2] |= 0x80;
            failure[3] |= Rcode::ServFail as u8;
            vec![failure]
        }
        Manner::Cut => {
            let mut cut = message.to_vec();
            cut[2] |= 0x82;
            vec![cut]
        }
    }
}

/// An upstream over sockets of this process, with little patience.
fn upstream(servers: &[SocketAddr], attempt: Duration) -> Arc<dyn Upstream> {
    let udp = |server| {
        let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect(server)?;
        Ok(socket)
    };
    let tcp = |server| std::net::TcpStream::connect(server);
    let mut upstream = HostUpstream::new(servers.to_vec(), Arc::new(udp), Arc::new(tcp));
    upstream.attempt = attempt;
    Arc::new(upstream)
}

const LONG: Duration = Duration::from_secs(10);
const SHORT: Duration = Duration::from_millis(400);

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
        for _ in 0..2 {
            let output = lab.dig("www.example.com A +short").await;
            assert_eq!(output, "192.0.2.7\n", "{first}");
        }
    }
    assert_eq!(
        (silent.asked(), failing.asked()),
        (1, 1),
        "the good one is remembered"
    );
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
    let cut = lab.dig("+ignore www.example.com A").await;
    assert!(
        cut.contains("flags: qr tc rd ra;") || cut.contains("flags: qr tc rd;"),
        "{cut}"
    );
    let whole = lab.dig("www.example.com A").await;
    assert!(
        whole.contains("A\t192.0.2.7") && whole.contains("(TCP)"),
        "{whole}"
    );
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
