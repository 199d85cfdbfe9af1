//! A flood of names that nobody knows, from the socket to the resolver outside: a test of
//! its own, since it leaves others little of the machine.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use portolan_agent::dns::{
    Dial, DnsConfig, DnsGuard, DnsServer, DnsSockets, ForwardSettings, Forwarder, RouteSettings,
    ServerSettings, Upstream,
};
use portolan_dns::{Data, Name, Rtype, Zone, Zones, query, same_question};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const FLOOD: u32 = 100_000;
/// How long anything may take.
const PATIENCE: Duration = Duration::from_secs(60);

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn zones() -> Zones {
    let mut zone = Zone::new(name("cluster.local"), 5, 1);
    let web = Data::A([10, 96, 7, 1].into());
    let owner = name("web.default.svc.cluster.local");
    zone.set(&owner, &[web.into()]).unwrap();
    Zones::new([zone])
}

/// A resolver that says nothing until it is told to; then it has 192.0.2.7 for every
/// name.
fn outside(socket: UdpSocket, speaks: Arc<AtomicBool>) {
    std::thread::spawn(move || {
        let mut message = [0; 512];
        loop {
            let (_, peer) = socket.recv_from(&mut message).unwrap();
            if !speaks.load(Ordering::Relaxed) {
                continue;
            }
            let mut end = 12;
            while message[end] > 0 {
                end += usize::from(message[end]) + 1;
            }
            let mut reply = message[..end + 5].to_vec();
            reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            reply.extend(b"\xc0\x0c\0\x01\0\x01\0\0\0\x1e\0\x04\xc0\0\x02\x07");
            // Whoever asked may have given up.
            drop(socket.send_to(&reply, peer));
        }
    });
}

/// A reply to a question over this socket, asked again while none comes: in a flood the
/// kernel drops datagrams of everybody.
fn persistent(socket: &UdpSocket, message: &[u8]) -> Vec<u8> {
    let end = Instant::now() + PATIENCE;
    let mut reply = [0; 4096];
    loop {
        assert!(Instant::now() < end, "no reply within a flood");
        socket.send(message).unwrap();
        let length = socket.recv(&mut reply).unwrap_or(0);
        if same_question(message, &reply[..length]) {
            return reply[..length].to_vec();
        }
    }
}

/// 100 000 names that nobody knows, as fast as a thread can send, while the resolver
/// outside says nothing: names of the cluster are answered all the while, what waits is
/// bounded, and afterwards all is as before.
#[test]
fn d22_a_hundred_thousand_random_names_hold_up_nobody() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    let (resolver, speaks) = (
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(),
        Arc::default(),
    );
    let server = ServerSettings::plain(resolver.local_addr().unwrap());
    outside(resolver, Arc::clone(&speaks));
    let settings = ForwardSettings {
        routes: vec![RouteSettings::new(Name::root(), vec![server])],
        most_in_flight: 200,
        ..ForwardSettings::default()
    };
    let forwarder = Arc::new(Forwarder::new(settings, Dial::Own));
    let sockets = DnsSockets::bind(&[(Ipv4Addr::LOCALHOST, 0).into()]).unwrap();
    let address = sockets.udp[0].local_addr().unwrap();
    let (_ready, seen) = watch::channel(true);
    let config = DnsConfig {
        sockets,
        zones: Arc::new(ArcSwap::from_pointee(zones())),
        ready: seen,
        upstream: Some(Arc::clone(&forwarder) as Arc<dyn Upstream>),
        front: Default::default(),
        guard: DnsGuard::default(),
        completion: None,
        stats: Arc::default(),
    };
    let stop = CancellationToken::new();
    let server = DnsServer::start(config, &stop).unwrap();
    let flood = std::thread::spawn(move || {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        socket.connect(address).unwrap();
        for number in 0..FLOOD {
            let owner = name(&format!("r{number}.example"));
            // A full buffer is the server's way of saying no.
            drop(socket.send(&query(number as u16, &owner, Rtype::A)));
        }
    });
    let own = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    own.connect(address).unwrap();
    own.set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let web = name("web.default.svc.cluster.local");
    let mut answered = 0_u16;
    while !flood.is_finished() || answered < 50 {
        answered = answered.wrapping_add(1);
        let reply = persistent(&own, &query(answered, &web, Rtype::A));
        assert_eq!(reply[reply.len() - 4..], [10, 96, 7, 1]);
    }
    flood.join().unwrap();
    let (counts, forwarded) = (server.metrics().counts(), forwarder.counts());
    assert_eq!(forwarded.entries, 0, "silence is not kept");
    assert!(
        counts.overflows + forwarded.rejected > 0,
        "nobody was turned away: {counts:?} {forwarded:?}"
    );
    speaks.store(true, Ordering::Relaxed);
    let end = Instant::now() + PATIENCE;
    let www = query(1, &name("www.example"), Rtype::A);
    while !persistent(&own, &www).ends_with(&[192, 0, 2, 7]) {
        assert!(Instant::now() < end, "names outside are not answered again");
    }
    stop.cancel();
}
