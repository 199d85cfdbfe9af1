//! A query for a name of the cluster, or for one outside whose answer is kept, is
//! answered without an allocation, from the socket to the socket: a test of its own,
//! since it counts those of the process.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::alloc::System;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use portolan_agent::dns::{
    Dial, DnsConfig, DnsGuard, DnsServer, DnsSockets, ForwardSettings, Forwarder, RouteSettings,
    ServerSettings, Upstream,
};
use portolan_dns::{Data, Name, Record, Rtype, Zone, Zones, query};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

#[global_allocator]
static COUNTED: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const QUERIES: usize = 2000;
/// Something else in the process may allocate now and then, but not always.
const ROUNDS: usize = 20;

fn name(text: &str) -> Name {
    Name::parse(text).unwrap()
}

fn zones() -> Zones {
    let mut zone = Zone::new(name("cluster.local"), 5, 1);
    let many: Vec<Record> = (0..100)
        .map(|last| Data::A(Ipv4Addr::new(10, 244, 9, last)).into())
        .collect();
    let web = name("web.default.svc.cluster.local");
    let srv = Data::Srv {
        priority: 0,
        weight: 100,
        port: 80,
        target: web.clone(),
    };
    let sets = [
        (
            "web.default.svc",
            vec![Data::A([10, 96, 7, 1].into()).into()],
        ),
        ("_http._tcp.web.default.svc", vec![srv.into()]),
        ("many.default.svc", many),
    ];
    for (owner, records) in sets {
        zone.set(&name(&format!("{owner}.cluster.local")), &records)
            .unwrap();
    }
    let mut reverse = Zone::new(name("96.10.in-addr.arpa"), 5, 1);
    let address = Name::reverse([10, 96, 7, 1].into());
    reverse.set(&address, &[Data::Ptr(web).into()]).unwrap();
    Zones::new([zone, reverse])
}

/// A, AAAA without data, SRV, PTR, many addresses, a name that does not exist, and
/// one with EDNS and a cookie.
fn queries() -> Vec<Vec<u8>> {
    let mut queries: Vec<Vec<u8>> = [
        ("web.default.svc.cluster.local", Rtype::A),
        ("web.default.svc.cluster.local", Rtype::AAAA),
        ("_http._tcp.web.default.svc.cluster.local", Rtype::SRV),
        ("1.7.96.10.in-addr.arpa", Rtype::PTR),
        ("many.default.svc.cluster.local", Rtype::A),
        ("www.example.com.default.svc.cluster.local", Rtype::A),
    ]
    .into_iter()
    .map(|(owner, rtype)| query(7, &name(owner), rtype))
    .collect();
    let mut cookie = query(7, &name("web.default.svc.cluster.local"), Rtype::A);
    cookie[11] = 1;
    cookie.extend(b"\0\x00\x29\x04\xd0\0\0\0\0\0\x0c\0\x0a\0\x08abcdefgh");
    queries.push(cookie);
    queries
}

/// A resolver that has the same address for every name, for an hour.
fn outside() -> SocketAddr {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut message = [0; 512];
        loop {
            let (_, peer) = socket.recv_from(&mut message).unwrap();
            let mut end = 12;
            while message[end] > 0 {
                end += usize::from(message[end]) + 1;
            }
            let mut reply = message[..end + 5].to_vec();
            reply[2..12].copy_from_slice(&[0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
            reply.extend(b"\xc0\x0c\0\x01\0\x01\0\0\x0e\x10\0\x04\xc0\0\x02\x07");
            socket.send_to(&reply, peer).unwrap();
        }
    });
    address
}

/// Names outside, which are asked for once and then kept.
fn forwarded() -> Vec<Vec<u8>> {
    (0..7)
        .map(|number| query(9, &name(&format!("n{number}.example.com")), Rtype::A))
        .collect()
}

#[test]
fn d3_d5_d18_d22_a_name_is_answered_without_an_allocation() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    // The port that is free for UDP may be taken for TCP.
    let bind = |_| DnsSockets::bind(&[(Ipv4Addr::LOCALHOST, 0).into()]).ok();
    let sockets = (0..9).find_map(bind).unwrap();
    let address = sockets.udp[0].local_addr().unwrap();
    let (_ready, seen) = watch::channel(true);
    let server = ServerSettings::plain(outside());
    let settings = ForwardSettings {
        routes: vec![RouteSettings::new(Name::root(), vec![server])],
        ..ForwardSettings::default()
    };
    let upstream: Arc<dyn Upstream> = Arc::new(Forwarder::new(settings, Dial::Own));
    let config = DnsConfig {
        sockets,
        zones: Arc::new(ArcSwap::from_pointee(zones())),
        ready: seen,
        upstream: Some(upstream),
        front: Default::default(),
        completion: None,
        guard: DnsGuard::default(),
        stats: Arc::default(),
    };
    let stop = CancellationToken::new();
    let _server = DnsServer::start(config, &stop).unwrap();
    let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    client.connect(address).unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    let queries = [queries(), forwarded()].concat();
    let mut reply = [0; 4096];
    let mut counts = [usize::MAX; ROUNDS];
    for count in &mut counts {
        let region = Region::new(COUNTED);
        for turn in 0..QUERIES {
            client.send(&queries[turn % queries.len()]).unwrap();
            let length = client.recv(&mut reply).unwrap();
            assert!(length > 12 && reply[2] & 0x80 != 0);
        }
        *count = region.change().allocations;
    }
    assert!(
        counts.contains(&0),
        "allocations per {QUERIES} queries: {counts:?}"
    );
    stop.cancel();
}
