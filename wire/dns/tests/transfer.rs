//! D22's neighbour: a whole zone for those who may have it (RFC 5936, RFC 1995).

#![expect(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod support;

use std::collections::BTreeSet;

use domain::base::Rtype as Type;
use portolan_dns::{Data, Transport, Zones, is_transfer};
use support::{Reply, SOA, address, cluster, name, query};

/// All messages of a transfer.
fn messages(zones: &Zones, asked: &[u8], transport: Transport) -> Vec<Reply> {
    assert!(is_transfer(asked));
    let mut transfer = zones.transfer(asked, transport);
    let mut all = Vec::new();
    loop {
        let mut raw = Vec::new();
        let more = transfer.next(asked, transport, &mut raw);
        all.push(Reply {
            message: domain::base::Message::from_octets(raw.clone()).unwrap(),
            raw,
        });
        if !more {
            return all;
        }
    }
}

fn records(messages: &[Reply]) -> Vec<String> {
    messages.iter().flat_map(Reply::answers).collect()
}

#[test]
fn d17_a_zone_is_transferred_whole_between_two_soas() {
    let zones = cluster();
    let asked = query("Cluster.Local", Type::AXFR, Some(1232));
    let messages = messages(&zones, &asked, Transport::Tcp);
    let records = records(&messages);
    assert!(
        records[0].to_lowercase().starts_with(&SOA.to_lowercase()),
        "{}",
        records[0]
    );
    assert_eq!(records.first(), records.last());
    let all: BTreeSet<&String> = records.iter().collect();
    assert_eq!(all.len(), records.len() - 1, "nothing twice but the SOA");
    let kept: usize = zones
        .zone(&name("cluster.local"))
        .unwrap()
        .entries()
        .iter()
        .map(|(_, records)| records.len())
        .sum();
    assert_eq!(records.len(), kept + 3, "two SOAs and the NS besides");
    for one in [
        "web.prod.svc.cluster.local 5 A 10.96.7.1",
        "out.prod.svc.cluster.local 5 CNAME www.example.com",
        "_sql._tcp.db.prod.svc.cluster.local 5 SRV 0 100 5432 db-0.db.prod.svc.cluster.local",
    ] {
        assert!(records.iter().any(|record| record == one), "{one}");
    }
    for message in &messages {
        assert_eq!(message.status(), "NOERROR aa rd");
    }
}

#[test]
fn d17_a_large_zone_needs_many_messages_and_misses_nothing() {
    let mut zones = cluster();
    let zone = zones.zone_mut(&name("cluster.local")).unwrap();
    for number in 0..5000 {
        let owner = name(&format!("svc-{number}.prod.svc.cluster.local"));
        let record = address(&format!("10.1.{}.{}", number / 256, number % 256));
        zone.set(&owner, &[record]).unwrap();
    }
    let text = Data::Txt(vec![vec![b'x'; 255]; 200]);
    zone.set(&name("text.prod.svc.cluster.local"), &[text.into()])
        .unwrap();
    // Never fits into a message with anything else, or at all.
    let huge = Data::Txt(vec![vec![b'y'; 255]; 255]);
    zone.set(&name("huge.prod.svc.cluster.local"), &[huge.into()])
        .unwrap();
    let asked = query("cluster.local", Type::AXFR, None);
    let messages = messages(&zones, &asked, Transport::Tcp);
    assert!(messages.len() > 10, "{}", messages.len());
    let records = records(&messages);
    assert_eq!(records.first(), records.last());
    let services = records.iter().filter(|r| r.starts_with("svc-")).count();
    assert_eq!(services, 5000);
    assert!(records.iter().any(|r| r.starts_with("text.")));
}

#[test]
fn d17_ixfr_is_the_whole_or_the_version_alone() {
    let zones = cluster();
    let serial = zones.zone(&name("cluster.local")).unwrap().serial();
    let asking = |serial: u32| {
        let mut asked = query("cluster.local", Type::IXFR, None);
        asked[9] = 1;
        asked.extend(b"\xc0\x0c\x00\x06\x00\x01\x00\x00\x00\x05\x00\x16\x00\x00");
        for number in [serial, 1, 2, 3, 4] {
            asked.extend(number.to_be_bytes());
        }
        asked
    };
    let newest = messages(&zones, &asking(serial), Transport::Tcp);
    assert_eq!(records(&newest).len(), 1);
    let newer = messages(&zones, &asking(serial.wrapping_add(3)), Transport::Tcp);
    assert_eq!(
        records(&newer).len(),
        1,
        "as many as RFC 1995 has for a newer one"
    );
    let older = messages(&zones, &asking(serial - 1), Transport::Tcp);
    assert!(records(&older).len() > 10);
    let datagram = messages(&zones, &asking(serial - 1), Transport::Udp);
    assert_eq!(records(&datagram).len(), 1);
    assert!(records(&datagram)[0].starts_with(SOA));
}

#[test]
fn d17_only_the_top_of_a_zone_is_transferred() {
    let zones = cluster();
    for nowhere in ["svc.cluster.local", "example.com", "."] {
        let asked = query(nowhere, Type::AXFR, None);
        let [reply] = &messages(&zones, &asked, Transport::Tcp)[..] else {
            panic!("one message");
        };
        assert_eq!(reply.status(), "NOTAUTH rd");
    }
    assert!(!is_transfer(&query("cluster.local", Type::SOA, None)));
    assert!(!is_transfer(&[0; 5]));
}
