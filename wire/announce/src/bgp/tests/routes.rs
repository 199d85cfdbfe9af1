//! What a peer is told, as bytes and as counts.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use bytes::Bytes;
use ipnet::IpNet;
use rustbgpd_wire::{AsPath, Message, PathAttribute, RouteRefreshMessage, Safi, decode_message};

use super::wire::Wire;
use super::{ends, prefix};
use crate::bgp::attributes::aggregate;
use crate::bgp::rib::Untold;
use crate::bgp::{Attributes, Config, Connection, Family, Input, News, Notice, Output, Reason};

const HOP4: &str = "192.0.2.1";
const HOP6: &str = "2001:db8::1";

fn attributes(next_hop: &str) -> Arc<Attributes> {
    Arc::new(Attributes::new(next_hop.parse().unwrap()))
}

/// The attributes of the last message that an end sent.
fn last(wire: &Wire, end: usize) -> (Vec<PathAttribute>, Bytes, Bytes) {
    let mut bytes = Bytes::from(wire.sent[end].last().unwrap().clone());
    let Message::Update(update) = decode_message(&mut bytes, 4096).unwrap() else {
        panic!("no UPDATE");
    };
    let parsed = update.parse(true, false, &[]).unwrap();
    (parsed.attributes, update.nlri, update.withdrawn_routes)
}

#[test]
fn l10_a_host_route_is_told_as_bytes_say() {
    let mut wire = Wire::started(ends());
    let said = Attributes {
        med: Some(7),
        communities: vec![64_512 << 16 | 100],
        large_communities: vec![[64_512, 1, 2]],
        prepend: 1,
        local_pref: Some(300),
        ..Attributes::new(HOP4.parse().unwrap())
    };
    wire.ends[0].announce(prefix("198.51.100.7"), Arc::new(said));
    wire.flush(0);
    let bytes = wire.sent[0].last().unwrap();
    let mut expected = vec![0xff; 16];
    expected.extend_from_slice(&[0, 88, 2, 0, 0, 0, 60]);
    expected.extend_from_slice(&[0x40, 1, 1, 0]); // ORIGIN IGP
    // AS_PATH: our own AS twice, four bytes each
    expected.extend_from_slice(&[0x40, 2, 10, 2, 2, 0, 0, 0xfc, 0, 0, 0, 0xfc, 0]);
    expected.extend_from_slice(&[0x40, 3, 4, 192, 0, 2, 1]); // NEXT_HOP
    expected.extend_from_slice(&[0x80, 4, 4, 0, 0, 0, 7]); // MULTI_EXIT_DISC
    expected.extend_from_slice(&[0xc0, 8, 4, 0xfc, 0, 0, 100]); // COMMUNITIES
    // LARGE_COMMUNITY
    expected.extend_from_slice(&[0xc0, 32, 12, 0, 0, 0xfc, 0, 0, 0, 0, 1, 0, 0, 0, 2]);
    // No LOCAL_PREF to an external peer. Then 198.51.100.7/32.
    expected.extend_from_slice(&[32, 198, 51, 100, 7]);
    let attributes = expected.len() - 23 - 5;
    expected[22] = u8::try_from(attributes).unwrap();
    expected[17] = u8::try_from(expected.len()).unwrap();
    assert_eq!(*bytes, expected);
}

#[test]
fn l10_local_preference_goes_to_internal_peers_only() {
    let configs = ends().map(|config| Config {
        local_as: 64_512,
        peer_as: 64_512,
        ..config
    });
    let mut wire = Wire::started(configs);
    wire.ends[0].announce(prefix("198.51.100.7"), attributes(HOP4));
    wire.flush(0);
    let (said, nlri, _) = last(&wire, 0);
    assert_eq!(nlri[..], [32, 198, 51, 100, 7]);
    assert!(said.contains(&PathAttribute::LocalPref(100)), "{said:?}");
    let empty = PathAttribute::AsPath(AsPath {
        segments: Vec::new(),
    });
    assert!(said.contains(&empty), "{said:?}");
    let wanted = Attributes {
        local_pref: Some(500),
        prepend: 2,
        ..Attributes::clone(&attributes(HOP4))
    };
    wire.ends[0].announce(prefix("198.51.100.7"), Arc::new(wanted));
    wire.flush(0);
    let (said, ..) = last(&wire, 0);
    assert!(said.contains(&PathAttribute::LocalPref(500)), "{said:?}");
    assert!(
        said.contains(&empty),
        "who finds its own AS drops the route"
    );
}

#[test]
fn l10_ipv6_goes_in_attributes_and_is_withdrawn_there() {
    let mut wire = Wire::started(ends());
    wire.ends[0].announce(prefix("2001:db8:1::7"), attributes(HOP6));
    wire.flush(0);
    let (said, nlri, _) = last(&wire, 0);
    assert!(nlri.is_empty());
    let PathAttribute::MpReachNlri(reach) = &said[0] else {
        panic!("not the first attribute: {said:?}");
    };
    assert_eq!(reach.next_hop, HOP6.parse::<IpAddr>().unwrap());
    assert_eq!(reach.announced.len(), 1);
    assert!(
        !said
            .iter()
            .any(|one| matches!(one, PathAttribute::NextHop(_)))
    );
    assert_eq!(wire.ends[1].status().prefixes_received, 1);
    assert!(wire.ends[0].withdraw(prefix("2001:db8:1::7")));
    assert!(!wire.ends[0].withdraw(prefix("2001:db8:1::7")));
    wire.flush(0);
    let (said, ..) = last(&wire, 0);
    assert!(matches!(&said[..], [PathAttribute::MpUnreachNlri(_)]));
    assert_eq!(wire.ends[1].status().prefixes_received, 0);
}

/// RFC 8950: IPv4 with an IPv6 next hop, where both sides offer it.
#[test]
fn l10_an_ipv6_next_hop_for_ipv4_needs_both_sides() {
    let both = ends().map(|config| Config {
        extended_next_hop: true,
        ..config
    });
    let mut wire = Wire::started(both);
    wire.ends[0].announce(prefix("198.51.100.7"), attributes(HOP6));
    wire.flush(0);
    let (said, ..) = last(&wire, 0);
    assert!(matches!(&said[0], PathAttribute::MpReachNlri(reach)
        if reach.next_hop.is_ipv6() && reach.safi == Safi::Unicast));
    assert_eq!(wire.ends[1].status().prefixes_received, 1);
    wire.ends[0].withdraw(prefix("198.51.100.7"));
    wire.flush(0);
    assert_eq!(wire.ends[1].status().prefixes_received, 0);

    let [a, b] = ends();
    let one = Config {
        extended_next_hop: true,
        ..a
    };
    let mut wire = Wire::started([one, b]);
    let asked = prefix("198.51.100.7");
    wire.ends[0].announce(asked, attributes(HOP6));
    let before = wire.sent[0].len();
    wire.flush(0);
    assert_eq!(wire.sent[0].len(), before, "nothing is said");
    assert_eq!(wire.ends[0].untold(asked), Some(Untold::NextHop));
}

#[test]
fn l10_what_is_not_told_has_a_reason() {
    let [a, mut b] = ends();
    b.families = vec![Family::V4];
    let mut wire = Wire::new([a, b]);
    let (four, six) = (prefix("198.51.100.7"), prefix("2001:db8:1::7"));
    wire.ends[0].announce(four, attributes(HOP4));
    wire.ends[0].announce(six, attributes(HOP6));
    assert_eq!(wire.ends[0].untold(four), Some(Untold::NoSession));
    for end in super::wire::ENDS {
        wire.input(end, Input::Start);
    }
    wire.settle();
    assert_eq!(wire.ends[0].untold(four), None);
    assert_eq!(wire.ends[0].untold(six), Some(Untold::Family));
    assert_eq!(wire.ends[0].status().prefixes, (2, 1));
    let many = Attributes {
        communities: vec![1; 2000],
        ..Attributes::clone(&attributes(HOP4))
    };
    wire.ends[0].announce(four, Arc::new(many));
    wire.flush(0);
    assert_eq!(wire.ends[0].untold(four), Some(Untold::Attributes));
    assert_eq!(wire.ends[1].status().prefixes_received, 0, "withdrawn");
}

#[test]
fn l10_only_what_changed_is_told() {
    let mut wire = Wire::started(ends());
    wire.ends[0].announce(prefix("198.51.100.7"), attributes(HOP4));
    wire.flush(0);
    let before = wire.sent[0].len();
    wire.ends[0].announce(prefix("198.51.100.7"), attributes(HOP4));
    wire.ends[0].announce(prefix("198.51.100.8"), attributes(HOP4));
    wire.ends[0].withdraw(prefix("198.51.100.8"));
    wire.flush(0);
    assert_eq!(wire.sent[0].len(), before);
    // One prefix in place of another: the new one comes first.
    wire.ends[0].withdraw(prefix("198.51.100.7"));
    wire.ends[0].announce(prefix("198.51.100.0/24"), attributes(HOP4));
    wire.flush(0);
    let told = &wire.sent[0][before..];
    assert_eq!(told.len(), 2);
    assert!(told[0].ends_with(&[24, 198, 51, 100]));
    assert!(told[1].ends_with(&[0, 5, 32, 198, 51, 100, 7, 0, 0]));
}

#[test]
fn l10_many_prefixes_share_few_messages() {
    let mut wire = Wire::started(ends());
    let hosts: Vec<IpNet> = (0..10_000_u32)
        .map(|n| aggregate(Ipv4Addr::from_bits(0x0a00_0000 + n).into(), None))
        .collect();
    for host in &hosts {
        wire.ends[0].announce(*host, attributes(HOP4));
    }
    let before = wire.sent[0].len();
    wire.flush(0);
    // 23 bytes of header and lengths, 20 of attributes; five bytes for each prefix:
    // 810 fit into 4096.
    let messages = wire.sent[0].len() - before;
    assert_eq!(messages, 10_000_usize.div_ceil(810));
    assert_eq!(wire.ends[1].status().prefixes_received, 10_000);
    for host in &hosts {
        wire.ends[0].withdraw(*host);
    }
    let before = wire.sent[0].len();
    wire.flush(0);
    let messages = wire.sent[0].len() - before;
    assert_eq!(messages, 10_000_usize.div_ceil((4096 - 24) / 5));
    assert_eq!(wire.ends[1].status().prefixes_received, 0);
}

#[test]
fn l10_many_ipv6_prefixes_share_few_messages() {
    let mut wire = Wire::started(ends());
    let base: std::net::Ipv6Addr = "2001:db8:1::".parse().unwrap();
    for n in 0..3000_u128 {
        let host = std::net::Ipv6Addr::from_bits(base.to_bits() + n);
        wire.ends[0].announce(aggregate(host.into(), None), attributes(HOP6));
    }
    let before = wire.sent[0].len();
    wire.flush(0);
    let messages = wire.sent[0].len() - before;
    assert!(messages <= 3000_usize.div_ceil(236), "{messages}");
    assert_eq!(wire.ends[1].status().prefixes_received, 3000);
}

#[test]
fn l10_a_refresh_tells_a_family_again() {
    let mut wire = Wire::started(ends());
    wire.ends[0].announce(prefix("198.51.100.7"), attributes(HOP4));
    wire.ends[0].announce(prefix("2001:db8:1::7"), attributes(HOP6));
    wire.flush(0);
    let before = wire.sent[0].len();
    let ask = |afi, safi| {
        let message = RouteRefreshMessage {
            afi_raw: afi,
            subtype_raw: 0,
            safi_raw: safi,
            orf: None,
        };
        let message = Message::RouteRefresh(message);
        rustbgpd_wire::encode_message(&message).unwrap().to_vec()
    };
    let connection = wire.sent_on();
    wire.perform(1, vec![Output::Send(connection, ask(2, 1))]);
    wire.settle();
    assert_eq!(wire.sent[0].len(), before + 1);
    assert!(matches!(
        &last(&wire, 0).0[0],
        PathAttribute::MpReachNlri(_)
    ));
    // A family that is none of ours is nothing to tell, and no error.
    wire.perform(1, vec![Output::Send(connection, ask(1, 128))]);
    wire.settle();
    assert_eq!(wire.sent[0].len(), before + 1);
    assert_eq!(wire.up(), [true, true]);
}

#[test]
fn l10_a_peer_that_announces_too_much_is_stopped() {
    let [mut a, b] = ends();
    a.most_prefixes = Some(3);
    let mut wire = Wire::started([a, b]);
    for n in 0..3 {
        let host = aggregate(IpAddr::from([203, 0, 113, n]), None);
        wire.ends[1].announce(host, attributes("192.0.2.2"));
        wire.ends[1].announce(host, attributes("192.0.2.2"));
    }
    wire.flush(1);
    assert_eq!(wire.ends[0].status().prefixes_received, 3);
    wire.ends[1].announce(prefix("203.0.113.9"), attributes("192.0.2.2"));
    wire.flush(1);
    assert_eq!(wire.up(), [false, false]);
    let Some(News::Down(Reason::Received(notice))) = wire.news[1].last() else {
        panic!("{:?}", wire.news[1]);
    };
    assert_eq!((notice.code, notice.subcode), (6, 1));
    assert_eq!(notice.data[..], [0, 1, 1, 0, 0, 0, 3]);
    // It is tried again, each time after a longer wait.
    wire.pass(super::seconds(3600));
    let count = wire.news[0].len();
    assert!((60..300).contains(&count), "{count} in an hour");
    let notice = Notice::new(6, 1);
    assert_eq!(
        notice.to_string(),
        "Maximum Number of Prefixes Reached (6/1)"
    );
}

#[test]
fn l10_addresses_are_aggregated_by_length() {
    let cases = [
        ("192.0.2.77", None, "192.0.2.77/32"),
        ("192.0.2.77", Some(24), "192.0.2.0/24"),
        ("192.0.2.77", Some(33), "192.0.2.77/32"),
        ("192.0.2.77", Some(0), "0.0.0.0/0"),
        ("2001:db8::77", None, "2001:db8::77/128"),
        ("2001:db8::77", Some(64), "2001:db8::/64"),
    ];
    for (address, length, expected) in cases {
        let found = aggregate(address.parse().unwrap(), length);
        assert_eq!(found.to_string(), expected);
    }
}

impl Wire {
    /// The one connection that is open.
    fn sent_on(&self) -> Connection {
        Connection(self.connections_open().next().unwrap())
    }
}
