//! Queries of any bytes: none panics, makes a reply that cannot be read, is answered
//! with more than its asker takes, or starts a transfer without end.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use portolan_dns::{
    Answer, CookieSecret, Data, Identity, Name, Rcode, Record, Transport, Zone, Zones, adorn,
};

static ZONES: LazyLock<Zones> = LazyLock::new(|| {
    let name = |text: &str| Name::parse(text).expect("a name");
    let mut zone = Zone::new(name("cluster.local"), 5, 7);
    let many: Vec<Record> = (0..200)
        .map(|last| Data::A(Ipv4Addr::new(10, 244, 9, last)).into())
        .collect();
    let sets = [
        ("web.prod.svc", vec![Data::A(Ipv4Addr::new(10, 96, 0, 7)).into()]),
        ("many.prod.svc", many),
        (
            "_http._tcp.web.prod.svc",
            vec![Record::from(Data::Srv {
                priority: 0,
                weight: 100,
                port: 80,
                target: name("web.prod.svc.cluster.local"),
            })],
        ),
        (
            "in.prod.svc",
            vec![Data::Cname(name("web.prod.svc.cluster.local")).into()],
        ),
        (
            "loop.prod.svc",
            vec![Data::Cname(name("loop.prod.svc.cluster.local")).into()],
        ),
    ];
    for (owner, records) in sets {
        zone.set(&name(&format!("{owner}.cluster.local")), &records)
            .expect("in the zone");
    }
    zone.set_spelling(&name("prod.pod.cluster.local"))
        .expect("in the zone");
    Zones::new([zone])
});

/// What a client may get in a datagram: what plain DNS allows, or what its own EDNS record
/// grants, wherever that lies.
fn most(query: &[u8]) -> usize {
    let sizes = query.windows(5).filter_map(|window| match window {
        [0, 0, 41, high, low] => Some(usize::from(u16::from_be_bytes([*high, *low]))),
        _ => None,
    });
    sizes.max().unwrap_or_default().max(512)
}

fuzz_target!(|bytes: &[u8]| {
    let Some((&first, query)) = bytes.split_first() else {
        return;
    };
    let transport = if first & 1 == 0 { Transport::Udp } else { Transport::Tcp };
    let client: IpAddr = [10, 244, 1, 7].into();
    let identity = Identity::new("node-1", CookieSecret::new([first; 16]));
    let mut out = Vec::new();
    match ZONES.answer(query, transport, u64::from(first), &mut out) {
        Answer::Reply | Answer::Follow(_) => {
            adorn(query, client, 1_800_000_000, &identity, &mut out);
            assert_eq!(query[2] & 0x80, 0, "a reply was answered");
            assert_eq!(out[..2], query[..2], "the query's ID");
            if transport == Transport::Udp {
                assert!(out.len() <= most(query), "more than was asked for");
            }
        }
        Answer::Forward | Answer::Drop => {}
    }
    portolan_dns::failure(query, Rcode::ServFail, (0, "no"), &mut out);
    if portolan_dns::is_transfer(query) {
        let mut transfer = ZONES.transfer(query, transport);
        let mut rounds = 0;
        while transfer.next(query, transport, &mut out) {
            rounds += 1;
            assert!(rounds < 1000, "a transfer without end");
        }
    }
});
