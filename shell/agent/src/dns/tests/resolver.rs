//! Resolvers on the loopback, good ones and others.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use portolan_dns::{Name, Rcode, Transport, id, set_id};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;

use super::super::{
    Dial, DnsSockets, ForwardSettings, Forwarder, RouteSettings, ServerSettings, Upstream,
};

/// What a resolver does with each query over UDP.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Manner {
    /// Answers.
    Good,
    /// Answers after replies with a wrong ID, a wrong question, and garbage.
    AfterForgeries,
    /// Sends replies only from another port than the one that was asked.
    FromElsewhere,
    /// Says nothing.
    Silent,
    /// Fails.
    ServFail,
    /// Answers with TC and without records; the whole answer is there over TCP.
    Cut,
    /// Refuses what has an OPT record, as servers of the last century do.
    NoEdns,
    /// The name does not exist.
    NxDomain,
    /// Answers, but respells the name.
    Respelling,
    /// Closes each connection after one reply; over UDP as `Cut`.
    OneEach,
    /// Answers with addresses of another name behind those of the one asked for.
    WithOthers,
    /// Answers with two addresses.
    Pair,
    /// Over UDP as `Cut`; over a connection as `AfterForgeries`.
    CutThenForgeries,
    /// Over UDP as `Cut`; breaks off in the middle of its reply over a connection.
    Torn,
}

pub(super) struct Resolver {
    pub(super) address: SocketAddr,
    manner: watch::Sender<Manner>,
    seen: Arc<Seen>,
}

/// What a resolver was asked.
#[derive(Default)]
struct Seen {
    asked: AtomicUsize,
    over_tcp: AtomicUsize,
    connections: AtomicUsize,
    ports: Mutex<Vec<u16>>,
    queries: Mutex<Vec<Vec<u8>>>,
}

impl Resolver {
    /// Queries over UDP.
    pub(super) fn asked(&self) -> usize {
        self.seen.asked.load(Ordering::SeqCst)
    }

    /// Queries over TCP or TLS.
    pub(super) fn asked_over_tcp(&self) -> usize {
        self.seen.over_tcp.load(Ordering::SeqCst)
    }

    /// Connections that were opened.
    pub(super) fn connections(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// The ports that queries over UDP came from.
    pub(super) fn ports(&self) -> Vec<u16> {
        self.seen.ports.lock().unwrap().clone()
    }

    /// The queries over UDP as they came.
    pub(super) fn queries(&self) -> Vec<Vec<u8>> {
        self.seen.queries.lock().unwrap().clone()
    }

    pub(super) fn change(&self, manner: Manner) {
        self.manner.send_replace(manner);
    }
}

/// The length of the question with the header.
fn question_length(query: &[u8]) -> usize {
    let mut at = 12;
    while query[at] != 0 {
        at += usize::from(query[at]) + 1;
    }
    at + 5
}

/// A forwarder that begins asks for something that only it knows; tests do not
/// count that.
fn is_loop_test(query: &[u8]) -> bool {
    let rtype = question_length(query) - 4;
    query[rtype..rtype + 2] == 13_u16.to_be_bytes()
}

/// The reply to any A question: 192.0.2.`last` for 30 seconds.
pub(super) fn reply(query: &[u8], last: u8) -> Vec<u8> {
    let mut reply = query[..question_length(query)].to_vec();
    reply[2] |= 0x80;
    reply[3] |= 0x80;
    reply[7] = 1;
    reply[11] = 0;
    reply.extend_from_slice(b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x1e\x00\x04\xc0\x00\x02");
    reply.push(last);
    reply
}

/// The same with 192.0.2.66 for `bank.example`, as an answer and in addition.
fn with_others(mut reply: Vec<u8>) -> Vec<u8> {
    let other = b"\x04bank\x07example\0\x00\x01\x00\x01\x00\x00\x00\x1e\x00\x04\xc0\x00\x02\x42";
    reply[7] = 2;
    reply[11] = 1;
    reply.extend_from_slice(other);
    reply.extend_from_slice(other);
    reply
}

/// A reply with a code, and for NXDOMAIN the SOA record that goes with it.
fn empty(query: &[u8], rcode: Rcode) -> Vec<u8> {
    let mut reply = query[..question_length(query)].to_vec();
    reply[2] |= 0x80;
    reply[3] |= rcode as u8;
    reply[11] = 0;
    if rcode == Rcode::NxDomain {
        reply[9] = 1;
        reply.extend_from_slice(b"\x00\x00\x06\x00\x01\x00\x00\x00\x1e\x00\x16\x00\x00");
        for number in [1_u32, 2, 3, 4, 30] {
            reply.extend_from_slice(&number.to_be_bytes());
        }
    }
    reply
}

pub(super) fn resolver(manner: Manner, last: u8) -> Resolver {
    let sockets =
        (0..9).find_map(|_| DnsSockets::bind_for(&[(Ipv4Addr::LOCALHOST, 0).into()], 1).ok());
    let mut sockets = sockets.unwrap();
    let udp = UdpSocket::from_std(sockets.udp.remove(0)).unwrap();
    let tcp = TcpListener::from_std(sockets.tcp.remove(0)).unwrap();
    let address = udp.local_addr().unwrap();
    let (sender, manner) = watch::channel(manner);
    let seen = Arc::new(Seen::default());
    tokio::spawn(datagrams(udp, manner.clone(), last, Arc::clone(&seen)));
    let counts = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (stream, _) = tcp.accept().await.unwrap();
            counts.connections.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(serve_stream(
                stream,
                manner.clone(),
                last,
                Arc::clone(&counts),
            ));
        }
    });
    Resolver {
        address,
        manner: sender,
        seen,
    }
}

async fn datagrams(udp: UdpSocket, manner: watch::Receiver<Manner>, last: u8, seen: Arc<Seen>) {
    let elsewhere = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    loop {
        let mut message = Vec::with_capacity(4096);
        let (_, peer) = udp.recv_buf_from(&mut message).await.unwrap();
        if is_loop_test(&message) {
            if *manner.borrow() != Manner::Silent {
                drop(udp.send_to(&empty(&message, Rcode::Refused), peer).await);
            }
            continue;
        }
        seen.asked.fetch_add(1, Ordering::SeqCst);
        seen.ports.lock().unwrap().push(peer.port());
        seen.queries.lock().unwrap().push(message.clone());
        let manner = *manner.borrow();
        let socket = if manner == Manner::FromElsewhere {
            &elsewhere
        } else {
            &udp
        };
        for reply in replies(manner, &message, last) {
            // The asker may be gone: then its socket refuses.
            drop(socket.send_to(&reply, peer).await);
        }
    }
}

/// Answers over a stream, in pairs in the reverse order where two have come.
pub(super) async fn serve_stream(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    manner: watch::Receiver<Manner>,
    last: u8,
    seen: Arc<impl CountsStream>,
) {
    loop {
        let Ok(length) = stream.read_u16().await else {
            return;
        };
        let mut message = vec![0; usize::from(length)];
        if stream.read_exact(&mut message).await.is_err() {
            return;
        }
        seen.asked();
        let manner = *manner.borrow();
        if manner == Manner::Silent {
            continue;
        }
        let all = if manner == Manner::CutThenForgeries {
            replies(Manner::AfterForgeries, &message, last)
        } else {
            vec![reply(&message, last)]
        };
        for reply in all {
            stream.write_u16(reply.len() as u16).await.unwrap();
            let half = if manner == Manner::Torn { 2 } else { 1 };
            stream
                .write_all(&reply[..reply.len() / half])
                .await
                .unwrap();
        }
        stream.flush().await.unwrap();
        if matches!(manner, Manner::OneEach | Manner::Torn) {
            return;
        }
    }
}

/// Whoever counts what comes over streams.
pub(super) trait CountsStream {
    fn asked(&self);
}

impl CountsStream for Seen {
    fn asked(&self) {
        self.over_tcp.fetch_add(1, Ordering::SeqCst);
    }
}

impl CountsStream for AtomicUsize {
    fn asked(&self) {
        self.fetch_add(1, Ordering::SeqCst);
    }
}

fn replies(manner: Manner, message: &[u8], last: u8) -> Vec<Vec<u8>> {
    let good = reply(message, last);
    match manner {
        Manner::Good | Manner::FromElsewhere => vec![good],
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
        Manner::Respelling => {
            let mut respelled = good;
            // Every letter of the first label the other way, however it was asked.
            let length = usize::from(respelled[12]);
            respelled[13..13 + length].iter_mut().for_each(|byte| {
                if byte.is_ascii_alphabetic() {
                    *byte ^= 0x20;
                }
            });
            vec![respelled]
        }
        Manner::ServFail => vec![empty(message, Rcode::ServFail)],
        Manner::NxDomain => vec![empty(message, Rcode::NxDomain)],
        Manner::NoEdns if message[11] > 0 => vec![b"\0\0\x80\x01\0\0\0\0\0\0\0\0".to_vec()]
            .into_iter()
            .map(|mut refusal| {
                set_id(&mut refusal, id(message).unwrap());
                refusal
            })
            .collect(),
        Manner::NoEdns => vec![good],
        Manner::WithOthers => vec![with_others(good)],
        Manner::Pair => {
            let mut pair = good;
            pair[7] = 2;
            let second = reply(message, last + 1);
            pair.extend_from_slice(&second[question_length(message)..]);
            vec![pair]
        }
        Manner::Cut | Manner::OneEach | Manner::CutThenForgeries | Manner::Torn => {
            let mut cut = empty(message, Rcode::NoError);
            cut[2] |= 0x02;
            vec![cut]
        }
    }
}

pub(super) const LONG: Duration = Duration::from_secs(10);
/// Enough for a slow machine, twice within the time of a whole question.
pub(super) const SHORT: Duration = Duration::from_millis(1500);

/// A route to these servers, one after the other, that never gives one up.
pub(super) fn route(servers: &[SocketAddr], attempt: Duration) -> RouteSettings {
    let servers = servers.iter().copied().map(ServerSettings::plain).collect();
    let mut route = RouteSettings::new(Name::root(), servers);
    route.policy = portolan_dns::upstream::Policy::Sequential;
    route.attempt = attempt;
    // The next one is asked when one fails.
    route.race_after = LONG;
    route.health.most_failures = 0;
    route
}

pub(super) fn settings(route: RouteSettings) -> ForwardSettings {
    ForwardSettings {
        routes: vec![route],
        ..ForwardSettings::default()
    }
}

/// A forwarder over sockets of this process that keeps nothing.
pub(super) fn without_cache(route: RouteSettings) -> ForwardSettings {
    let mut settings = settings(route);
    settings.cache.entries = 0;
    settings
}

pub(super) fn forwarder(settings: ForwardSettings) -> Arc<Forwarder> {
    Arc::new(Forwarder::new(settings, Dial::Own))
}

/// What the forwarder says to a question for addresses: the last octet of the one
/// that it found, or the code.
pub(super) async fn ask(forwarder: &Forwarder, owner: &str) -> Result<u8, u8> {
    let query = portolan_dns::query(77, &super::name(owner), portolan_dns::Rtype::A);
    let asked = forwarder.forward(query.clone().into(), Transport::Udp);
    let reply = match super::within(asked).await {
        Ok(reply) => reply,
        Err(error) => panic!("{owner}: {error}"),
    };
    assert!(portolan_dns::same_question(&query, &reply));
    match portolan_dns::rcode(&reply) {
        Some(0) => Ok(*reply.last().unwrap()),
        code => Err(code.unwrap()),
    }
}
