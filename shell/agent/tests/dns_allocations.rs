//! A query for a name of the cluster is answered without an allocation, from the
//! socket to the socket: a test of its own, since it counts those of the process.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails the test")]

use std::alloc::System;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use portolan_agent::dns::{DnsConfig, DnsGuard, DnsServer, DnsSockets};
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

#[test]
fn d3_d5_d18_a_name_is_answered_without_an_allocation() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _inside = runtime.enter();
    // The port that is free for UDP may be taken for TCP.
    let bind = |_| DnsSockets::bind(&[(Ipv4Addr::LOCALHOST, 0).into()]).ok();
    let sockets = (0..9).find_map(bind).unwrap();
    let address = sockets.udp[0].local_addr().unwrap();
    let (_ready, seen) = watch::channel(true);
    let config = DnsConfig {
        sockets,
        zones: Arc::new(ArcSwap::from_pointee(zones())),
        ready: seen,
        upstream: None,
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
    let queries = queries();
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
