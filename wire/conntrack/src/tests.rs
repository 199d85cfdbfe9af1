//! Laws of the encoding, against a writer of what the kernel answers.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portolan_netlink::{Attrs, Writer};
use proptest::prelude::*;

use crate::entry as e;
use crate::{Ends, Entry, Family, Filter, Requests, Status, Tuple, delete, dump, mark, messages};

/// An entry as the kernel tells of it in a dump (ctnetlink_fill_info), with
/// attributes among them that nobody here reads.
fn told(entry: &Entry, seq: u32) -> Vec<u8> {
    let mut out = Writer::default();
    let open = out.begin(0x100, 2, seq, [0; 4]);
    entry.original.write(&mut out, e::TUPLE_ORIG);
    entry.reply.write(&mut out, e::TUPLE_REPLY);
    out.attr(e::STATUS, &entry.status.0.to_be_bytes());
    out.within(e::PROTOINFO, |out| {
        out.within(e::PROTOINFO_TCP, |out| {
            let state = if entry.is_closed { e::CLOSED[1] } else { 3 };
            out.attr(e::PROTOINFO_TCP_STATE, &[state]);
        });
    });
    out.attr(e::TIMEOUT, &entry.timeout.to_be_bytes());
    out.attr(e::MARK, &entry.mark.to_be_bytes());
    out.attr(e::ID, &entry.id.to_be_bytes());
    out.attr(11, &1_u32.to_be_bytes());
    if entry.zone != 0 {
        out.attr(e::ZONE, &entry.zone.to_be_bytes());
    }
    out.end(open);
    out.bytes
}

fn ends() -> impl Strategy<Value = (u8, u8, Ends)> {
    prop_oneof![
        (
            prop_oneof![Just(6), Just(17), Just(132)],
            any::<u16>(),
            any::<u16>()
        )
            .prop_map(|(protocol, source, destination)| {
                let ends = Ends::Ports {
                    source,
                    destination,
                };
                (protocol, protocol, ends)
            }),
        (any::<u16>(), any::<u8>(), any::<u8>()).prop_map(|(id, kind, code)| (
            1,
            58,
            Ends::Icmp { id, kind, code }
        )),
        Just((47, 47, Ends::None)),
    ]
}

fn tuple() -> impl Strategy<Value = Tuple> {
    let addresses = prop_oneof![
        any::<[u32; 2]>().prop_map(|ends| ends.map(|bits| Ipv4Addr::from_bits(bits).into())),
        any::<[u128; 2]>().prop_map(|ends| ends.map(|bits| Ipv6Addr::from_bits(bits).into())),
    ];
    let zone = prop_oneof![3 => Just(0), 1 => any::<u16>()];
    (addresses, ends(), zone).prop_map(|([source, destination], (v4, v6, ends), zone)| {
        let source: IpAddr = source;
        Tuple {
            source,
            destination,
            protocol: if source.is_ipv4() { v4 } else { v6 },
            ends,
            zone,
        }
    })
}

fn entry() -> impl Strategy<Value = Entry> {
    let zone = prop_oneof![3 => Just(0), 1 => any::<u16>()];
    let numbers = any::<(u32, u32, u32, u32, bool)>();
    (tuple(), tuple(), numbers, zone).prop_map(
        |(original, reply, (status, mark, timeout, id, is_closed), zone)| Entry {
            original,
            reply,
            status: Status(status),
            zone,
            mark,
            timeout,
            is_closed,
            id,
        },
    )
}

/// What every entry that is understood keeps to.
fn one_family(entry: &Entry) -> bool {
    [entry.original, entry.reply]
        .iter()
        .all(|tuple| tuple.source.is_ipv4() == tuple.destination.is_ipv4())
}

/// The attributes of the request at this place, as an entry would have them.
fn asked(group: &Requests) -> Vec<(Tuple, u32, u16)> {
    messages(&group.bytes)
        .map(|message| {
            assert_eq!(message.kind, 0x102);
            assert_eq!(message.flags, 1, "a request that only failure answers");
            // The original tuple also in the place of the reply, to read it back.
            let mut body = Writer {
                bytes: message.body[4..].to_vec(),
            };
            let tuple = Attrs::new(&message.body[4..])
                .get(e::TUPLE_ORIG)
                .expect("never without a tuple: that would end everything");
            body.attr(e::TUPLE_REPLY, tuple);
            let read = Entry::read(&Attrs::new(&body.bytes)).unwrap();
            (read.original, read.id, read.zone)
        })
        .collect()
}

proptest! {
    #[test]
    fn what_the_kernel_tells_is_read(entries in prop::collection::vec(entry(), 0..8)) {
        let bytes: Vec<u8> = entries.iter().flat_map(|entry| told(entry, 9)).collect();
        let read: Vec<Entry> = messages(&bytes).filter_map(|m| Entry::decode(&m)).collect();
        prop_assert_eq!(read, entries);
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
        for message in messages(&bytes) {
            prop_assert!(Entry::decode(&message).is_none_or(|entry| one_family(&entry)));
        }
    }

    #[test]
    fn no_damage_panics(
        entry in entry(),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = told(&entry, 1);
        let place = place.index(bytes.len());
        bytes[place] = byte;
        bytes.truncate(cut.index(bytes.len() + 1));
        for message in messages(&bytes) {
            prop_assert!(Entry::decode(&message).is_none_or(|entry| one_family(&entry)));
        }
    }

    #[test]
    fn a_deletion_names_its_entry(
        entries in prop::collection::vec(entry(), 0..20),
        limit in 0_usize..1000,
    ) {
        let groups = delete(&entries, limit, u32::MAX - 3);
        let named: Vec<_> = groups.iter().flat_map(asked).collect();
        let expected: Vec<_> = entries.iter().map(|e| (e.original, e.id, e.zone)).collect();
        prop_assert_eq!(named, expected);
        for group in &groups {
            prop_assert!(group.count == 1 || group.bytes.len() <= limit);
        }
    }

    #[test]
    fn a_mark_names_its_entry_and_its_bits(
        entries in prop::collection::vec(entry(), 0..20),
        value in any::<u32>(),
        bits in any::<u32>(),
    ) {
        let groups = mark(&entries, (value, bits), 1000, 7);
        let messages: Vec<_> = groups.iter().flat_map(|group| messages(&group.bytes)).collect();
        prop_assert_eq!(messages.len(), entries.len());
        for (message, entry) in messages.iter().zip(&entries) {
            // Without the flag that makes entries.
            prop_assert_eq!((message.kind, message.flags), (0x100, 1));
            let attrs = Attrs::new(&message.body[4..]);
            prop_assert_eq!(attrs.be32(e::MARK), Some(value));
            prop_assert_eq!(attrs.be32(e::MARK_MASK), Some(bits));
            prop_assert_eq!(attrs.be16(e::ZONE).unwrap_or(0), entry.zone);
            let mut tuple = Writer::default();
            entry.original.write(&mut tuple, e::TUPLE_ORIG);
            prop_assert_eq!(attrs.get(e::TUPLE_ORIG), Attrs::new(&tuple.bytes).get(e::TUPLE_ORIG));
        }
    }

    #[test]
    fn a_dump_is_one_message(
        family in prop::option::of(prop_oneof![Just(Family::V4), Just(Family::V6)]),
        destination in prop::option::of(any::<u32>()),
        protocol in prop::option::of(any::<u8>()),
        destination_port in prop::option::of(any::<u16>()),
    ) {
        let filter = Filter {
            family,
            destination: destination.map(|bits| Ipv4Addr::from_bits(bits).into()),
            protocol,
            destination_port,
            status: Some((Status::SEEN_REPLY, Status::SEEN_REPLY)),
            mark: Some((1, 3)),
        };
        for one in filter.dumps() {
            let compares = protocol.is_some() || destination.is_some();
            prop_assert!(one.family.is_some() || !compares);
            let bytes = dump(&one, 5);
            let framed: Vec<_> = messages(&bytes).collect();
            prop_assert_eq!(framed.len(), 1);
            prop_assert_eq!(framed[0].body.len() + 16, bytes.len());
            prop_assert!(Entry::decode(&framed[0]).is_none(), "a question is no entry");
        }
    }
}

#[test]
fn translation_shows_in_the_tuples() {
    let ends = |source, destination| Ends::Ports {
        source,
        destination,
    };
    let tuple = |source: [u8; 4], destination: [u8; 4], ends| Tuple {
        source: source.into(),
        destination: destination.into(),
        protocol: 17,
        ends,
        zone: 0,
    };
    let original = tuple([10, 0, 0, 1], [10, 96, 0, 9], ends(4000, 53));
    let mut entry = Entry {
        original,
        reply: tuple([10, 96, 0, 9], [10, 0, 0, 1], ends(53, 4000)),
        status: Status(0),
        zone: 0,
        mark: 0,
        timeout: 30,
        is_closed: false,
        id: 1,
    };
    assert!(!entry.is_translated());
    entry.reply.source = [10, 0, 0, 2].into();
    assert!(entry.is_translated());
    entry.reply = tuple([10, 96, 0, 9], [10, 0, 0, 1], ends(5353, 4000));
    assert!(entry.is_translated(), "the port alone is enough");
}
