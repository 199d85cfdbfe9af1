//! Laws over random zones, names and bytes.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use domain::base::Rtype as Type;
use portolan_dns::{Answer, Data, Lookup, Name, Record, Rtype, Transport, Zone, Zones};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use support::{cluster, name, query, reply_to};

/// Names of few labels from a small alphabet, so that they meet each other.
fn owner() -> impl Strategy<Value = Name> {
    let label = prop_oneof![
        "[ab]",
        "[ab]{2}",
        Just("x.y".to_owned()),
        Just("c".repeat(63))
    ];
    vec(label, 0..4).prop_map(|labels| {
        let labels = labels
            .into_iter()
            .chain(["zone".to_owned(), "test".to_owned()]);
        Name::from_labels(labels).unwrap()
    })
}

fn record() -> impl Strategy<Value = Record> {
    let elsewhere = Just(name("some.where.else"));
    let target = prop_oneof![owner(), elsewhere, Just(Name::root())];
    let data = prop_oneof![
        4 => any::<[u8; 4]>().prop_map(|octets| Data::A(octets.into())),
        2 => any::<[u8; 16]>().prop_map(|octets| Data::Aaaa(octets.into())),
        2 => (any::<[u16; 2]>(), 0_u16..3, target.clone()).prop_map(|([weight, port], priority, target)| {
            Data::Srv { priority, weight, port, target }
        }),
        1 => target.clone().prop_map(Data::Ptr),
        1 => target.prop_map(Data::Ns),
        1 => vec(vec(any::<u8>(), 0..300), 1..3)
            .prop_map(|texts| Data::Txt(texts.into_iter().map(|mut text| { text.truncate(255); text }).collect())),
    ];
    (proptest::option::weighted(0.1, 0_u32..10), data).prop_map(|(ttl, data)| Record { ttl, data })
}

/// What a record set looks like after it has gone through a zone: sorted,
/// without duplicates, one TTL per type.
fn normal(records: &[Record]) -> BTreeSet<Record> {
    let smallest = |rtype: Rtype| {
        records
            .iter()
            .filter(|r| r.data.rtype() == rtype)
            .filter_map(|r| r.ttl)
            .min()
    };
    records
        .iter()
        .map(|r| Record {
            ttl: smallest(r.data.rtype()),
            data: r.data.clone(),
        })
        .collect()
}

fn zone_of(sets: &BTreeMap<Name, Vec<Record>>) -> Zone {
    let mut zone = Zone::new(name("zone.test"), 5, 0);
    for (owner, records) in sets {
        zone.set(owner, records).unwrap();
    }
    zone
}

/// The same answer by a plain map: does the name exist, and what has it?
fn model(sets: &BTreeMap<Name, Vec<Record>>, owner: &Name, rtype: Rtype) -> Lookup {
    let below = sets.keys().any(|name| name.is_within(owner));
    match sets.get(owner) {
        None if !below && *owner != name("zone.test") => Lookup::NoName,
        None => Lookup::NoData,
        Some(records) => {
            let found: Vec<_> = normal(records)
                .into_iter()
                .filter(|r| r.data.rtype() == rtype)
                .collect();
            if found.is_empty() {
                Lookup::NoData
            } else {
                Lookup::Records(found)
            }
        }
    }
}

fn sorted(lookup: Lookup) -> Lookup {
    match lookup {
        Lookup::Records(mut records) => {
            records.sort();
            Lookup::Records(records)
        }
        other @ (Lookup::Outside | Lookup::NoName | Lookup::NoData) => other,
    }
}

const TYPES: [Rtype; 6] = [
    Rtype::A,
    Rtype::AAAA,
    Rtype::SRV,
    Rtype::PTR,
    Rtype::TXT,
    Rtype::CNAME,
];

proptest! {
    /// D18: no bytes make the reader panic, and a reply is a readable message.
    #[test]
    fn d18_any_bytes_are_survived(
        bytes in vec(any::<u8>(), 0..600),
        limit in any::<bool>(),
        rotation in any::<u64>(),
    ) {
        let transport = if limit { Transport::Udp } else { Transport::Tcp };
        survive(&bytes, transport, rotation)?;
    }

    /// The same for bytes that begin as a query does.
    #[test]
    fn d18_damaged_queries_are_survived(
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in proptest::option::of(any::<prop::sample::Index>()),
        which in 0_usize..6,
        edns in proptest::option::of(any::<u16>()),
    ) {
        let (owner, rtype) = [
            ("web.prod.svc.cluster.local", Type::A),
            ("many.prod.svc.cluster.local", Type::A),
            ("_sql._tcp.db.prod.svc.cluster.local", Type::SRV),
            ("out.prod.svc.cluster.local", Type::A),
            ("cluster.local", Type::SOA),
            ("nope.cluster.local", Type::TXT),
        ][which];
        let mut bytes = query(owner, rtype, edns);
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        survive(&bytes, Transport::Udp, 1)?;
    }

    /// D4–D6: after any changes in any order the zone knows what a plain map
    /// knows, and equals the zone that was made of the outcome at once.
    #[test]
    fn d4_d5_d6_changes_in_any_order_end_the_same(
        steps in vec((owner(), proptest::option::weighted(0.7, vec(record(), 0..4))), 0..24),
        asked in vec(owner(), 8),
    ) {
        let mut zone = zone_of(&BTreeMap::new());
        let mut sets = BTreeMap::new();
        let mut snapshots = Vec::new();
        for (owner, change) in steps {
            snapshots.push((zone.clone(), zone.entries()));
            match change {
                Some(records) => {
                    zone.set(&owner, &records).unwrap();
                    sets.insert(owner, records);
                }
                None => {
                    zone.remove(&owner).unwrap();
                    sets.remove(&owner);
                }
            }
        }
        let at_once = zone_of(&sets);
        prop_assert!(zone == at_once, "{zone:?}\n{at_once:?}");
        for (snapshot, entries) in snapshots {
            prop_assert_eq!(snapshot.entries(), entries, "a snapshot never changes");
        }
        let zones = Zones::new([zone]);
        for owner in asked.iter().chain(sets.keys()) {
            for rtype in TYPES {
                let found = sorted(zones.lookup(owner, rtype));
                prop_assert_eq!(found, model(&sets, owner, rtype), "{} {}", owner, rtype);
            }
        }
    }

    /// D8: records that are taken and given leave what setting the outcome leaves.
    #[test]
    fn d8_records_that_come_and_go_leave_what_setting_all_leaves(
        (owner, other) in (owner(), owner()),
        first in vec(record(), 0..12),
        steps in vec((vec(record(), 0..3), any::<u16>()), 1..6),
        with_ttls: bool,
    ) {
        let plain = |records: Vec<Record>| -> Vec<Record> {
            let ttl = |record: &Record| record.ttl.filter(|_| with_ttls);
            records.into_iter().map(|record| Record { ttl: ttl(&record), ..record }).collect()
        };
        let mut zone = zone_of(&BTreeMap::from([(other, plain(vec![]))]));
        zone.amend(&owner, &[], &plain(first)).unwrap();
        for (given, mask) in steps {
            let before = zone.get(&owner).unwrap_or_default();
            let of_mask = |at: usize| mask >> (at % 16) & 1 == 1;
            let (mut taken, mut left) = (Vec::new(), Vec::new());
            for (at, record) in before.into_iter().enumerate() {
                if of_mask(at) { taken.push(record) } else { left.push(record) }
            }
            let mut given = plain(given);
            // One that is taken and given stays.
            given.extend(taken.first().filter(|_| of_mask(15)).cloned());
            left.extend(given.iter().cloned());
            let mut all_anew = zone.clone();
            if left.is_empty() {
                all_anew.remove(&owner).unwrap();
            } else {
                all_anew.set(&owner, &left).unwrap();
            }
            let was = zone.clone();
            let changed = zone.amend(&owner, &taken, &given).unwrap();
            prop_assert!(zone == all_anew, "{zone:?}\n{all_anew:?}");
            prop_assert!(changed || zone == was);
        }
    }

    /// D3, D8: what the `domain` crate reads in a reply is what was set.
    #[test]
    fn d3_d8_replies_carry_the_records(
        sets in btree_map(owner(), vec(record(), 1..5), 1..6),
        rotation in any::<u64>(),
    ) {
        let zones = Zones::new([zone_of(&sets)]);
        for (owner, records) in &sets {
            for (rtype, theirs) in [(Rtype::A, Type::A), (Rtype::AAAA, Type::AAAA), (Rtype::SRV, Type::SRV)] {
                let asked = query(&owner.to_string(), theirs, None);
                let reply = reply_to(&zones, &asked, Transport::Tcp, rotation);
                let mut found = reply.answers();
                found.sort();
                let mut expected: Vec<String> = normal(records)
                    .into_iter()
                    .filter(|r| r.data.rtype() == rtype)
                    .map(|r| text(owner, &r))
                    .collect();
                expected.sort();
                prop_assert_eq!(found, expected);
            }
        }
    }

    /// A name survives being written and read.
    #[test]
    fn d1_names_are_read_as_they_are_written(labels in vec(vec(any::<u8>(), 1..12), 0..6)) {
        let name = Name::from_labels(&labels).unwrap();
        prop_assert_eq!(Name::parse(&name.to_string()), Ok(name.clone()));
        let labels: Vec<Vec<u8>> = labels.iter().map(|l| l.to_ascii_lowercase()).collect();
        prop_assert_eq!(name.labels().collect::<Vec<_>>(), labels);
    }

    /// Any text is a name or an error.
    #[test]
    fn d21_any_text_is_survived(text in "\\PC{0,300}") {
        if let Ok(name) = Name::parse(&text) {
            prop_assert!(name.as_wire().len() <= 255);
        }
    }
}

/// `owner ttl type data` as the support module prints what it read.
fn text(owner: &Name, record: &Record) -> String {
    let data = match &record.data {
        Data::A(v4) => v4.to_string(),
        Data::Aaaa(v6) => v6.to_string(),
        Data::Srv {
            priority,
            weight,
            port,
            target,
        } => {
            format!("{priority} {weight} {port} {target}")
        }
        Data::Ptr(target) | Data::Cname(target) | Data::Ns(target) => target.to_string(),
        Data::Txt(_) => String::new(),
    };
    let ttl = record.ttl.unwrap_or(5);
    let text = format!("{owner} {ttl} {} {data}", record.data.rtype());
    text.split(' ')
        .map(|word| word.trim_end_matches('.'))
        .collect::<Vec<_>>()
        .join(" ")
}

fn survive(bytes: &[u8], transport: Transport, rotation: u64) -> Result<(), TestCaseError> {
    let zones = cluster();
    let mut out = Vec::new();
    match zones.answer(bytes, transport, rotation, &mut out) {
        Answer::Reply | Answer::Follow(_) => {
            let message = domain::base::Message::from_octets(out.clone()).unwrap();
            prop_assert!(message.header().qr());
            prop_assert_eq!(message.header().id().to_be_bytes(), [bytes[0], bytes[1]]);
            prop_assert!(out.len() >= 12);
            let sections = message.sections();
            prop_assert!(sections.is_ok());
            let (_, answer, authority, additional) = sections.unwrap();
            for section in [answer, authority, additional] {
                for record in section {
                    prop_assert!(record.is_ok());
                }
            }
        }
        Answer::Forward | Answer::Drop => {}
    }
    // The forwarder's helpers meet the same bytes.
    let mut reply = Vec::new();
    portolan_dns::failure(bytes, portolan_dns::Rcode::ServFail, (0, "no"), &mut reply);
    prop_assert!(!portolan_dns::same_question(bytes, bytes) || bytes[2] & 0x80 != 0);
    let good = query("out.prod.svc.cluster.local", Type::A, Some(1232));
    let mut reply = Vec::new();
    zones.answer(&good, Transport::Udp, 0, &mut reply);
    let before = reply.clone();
    if !portolan_dns::copy_answers(&good, transport, bytes, &mut reply) {
        prop_assert_eq!(&before, &reply);
    }
    portolan_dns::fit(bytes, transport, &mut reply);
    portolan_dns::set_id(&mut reply, 1);
    Ok(())
}
