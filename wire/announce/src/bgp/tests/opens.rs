//! What the peer's OPEN is worth (RFC 4271 section 6.2, RFC 5492, 6286, 6793, 8950).

use std::net::Ipv4Addr;

use rustbgpd_wire::{Afi, Capability, OpenMessage, Safi};

use super::{A, B, ends, seconds};
use crate::bgp::config::Restart;
use crate::bgp::{Config, Family, open};

/// The OPEN that the second of two ends sends to the first.
fn theirs() -> (Config, OpenMessage) {
    let [ours, theirs] = ends();
    (ours, open::ours(&theirs, false))
}

#[test]
fn l10_our_open_is_as_the_bytes_say() {
    let [_, b] = ends();
    let config = Config {
        families: vec![Family::V4],
        extended_next_hop: true,
        restart: Some(Restart {
            time: seconds(100_000),
            restarted: true,
        }),
        ..b
    };
    let open = open::ours(&config, true);
    let bytes = rustbgpd_wire::encode_message(&rustbgpd_wire::Message::Open(open)).unwrap();
    let mut expected = vec![0xff; 16];
    // Version 4, AS_TRANS, 90 seconds, 192.0.2.2.
    expected.extend_from_slice(&[0, 0, 1, 4, 0x5b, 0xa0, 0, 90, 192, 0, 2, 2, 0]);
    expected.extend_from_slice(&[2, 0]);
    expected.extend_from_slice(&[1, 4, 0, 1, 0, 1]); // IPv4 unicast
    expected.extend_from_slice(&[2, 0]); // route refresh
    expected.extend_from_slice(&[5, 6, 0, 1, 0, 1, 0, 2]); // IPv4 over IPv6 next hops
    expected.extend_from_slice(&[64, 6, 0x8f, 0xff, 0, 1, 1, 0x80]); // restarted, 4095 s
    expected.extend_from_slice(&[65, 4, 0xfa, 0x56, 0xea, 0x00]); // AS 4200000000
    let length = u8::try_from(expected.len()).unwrap();
    expected[17] = length;
    expected[28] = length - 29;
    expected[30] = length - 31;
    assert_eq!(bytes[..], expected);
}

#[test]
fn l10_opens_are_judged() {
    type Change = fn(&mut OpenMessage);
    let without =
        |code: u8| move |open: &mut OpenMessage| open.capabilities.retain(|c| c.code() != code);
    let four = without(65);
    let refused: [(&str, Change, u8); 9] = [
        ("another AS", |o| set_as(o, 64_513), 2),
        ("AS 0", |o| set_as(o, 0), 2),
        (
            "an AS that differs from the capability",
            |o| o.my_as = 64_512,
            2,
        ),
        (
            "AS_TRANS alone",
            |o| o.capabilities.retain(|c| c.code() != 65),
            2,
        ),
        (
            "no identifier",
            |o| o.bgp_identifier = Ipv4Addr::UNSPECIFIED,
            3,
        ),
        ("a hold time of 1", |o| o.hold_time = 1, 6),
        ("a hold time of 2", |o| o.hold_time = 2, 6),
        (
            "another family",
            |o| {
                o.capabilities.retain(|c| c.code() != 1);
                let (afi, safi) = (Afi::L2Vpn, Safi::Evpn);
                o.capabilities.push(Capability::MultiProtocol { afi, safi });
            },
            7,
        ),
        (
            "a family that nobody knows",
            |o| {
                o.capabilities.retain(|c| c.code() != 1);
                let data = bytes::Bytes::from_static(&[0x40, 0, 0, 1]);
                o.capabilities.push(Capability::Unknown { code: 1, data });
            },
            7,
        ),
    ];
    for (what, change, subcode) in refused {
        let (config, mut open) = theirs();
        change(&mut open);
        let notice = open::judge(&open, &config).expect_err(what);
        assert_eq!((notice.code, notice.subcode), (2, subcode), "{what}");
        if subcode == 7 {
            assert_eq!(notice.data[..], [1, 4, 0, 1, 0, 1, 1, 4, 0, 2, 0, 1]);
        }
    }
    // An identifier may be shared by two autonomous systems, not within one.
    let (mut config, mut open) = theirs();
    open.bgp_identifier = A;
    assert!(open::judge(&open, &config).is_ok());
    config.local_as = config.peer_as;
    let notice = open::judge(&open, &config).unwrap_err();
    assert_eq!((notice.code, notice.subcode), (2, 3));
    // Two-byte speakers are as good.
    let (mut config, mut open) = theirs();
    config.peer_as = 64_513;
    open.my_as = 64_513;
    four(&mut open);
    assert!(!open::judge(&open, &config).unwrap().four_byte_as);
}

fn set_as(open: &mut OpenMessage, asn: u16) {
    open.my_as = asn;
    for one in &mut open.capabilities {
        if let Capability::FourOctetAs { asn: said } = one {
            *said = asn.into();
        }
    }
}

#[test]
fn what_both_support_is_agreed() {
    let (config, mut open) = theirs();
    open.capabilities.retain(|c| !matches!(c.code(), 1 | 2));
    open.hold_time = 0;
    let agreed = open::judge(&open, &config).unwrap();
    assert_eq!(
        agreed.families,
        [Family::V4],
        "who says none has IPv4 unicast"
    );
    assert_eq!(agreed.hold_time, seconds(0));
    assert_eq!(agreed.identifier, B);
    assert!(!agreed.route_refresh);
    let restart = Some(Restart {
        time: seconds(60),
        restarted: false,
    });
    for (ours, theirs, expected) in [
        (None, restart, None),
        (restart, None, None),
        (restart, restart, Some(seconds(60))),
    ] {
        let [mut a, mut b] = ends();
        (a.restart, b.restart) = (ours, theirs);
        let agreed = open::judge(&open::ours(&b, false), &a).unwrap();
        assert_eq!(agreed.restart, expected);
    }
}

#[test]
fn hold_times_that_cannot_be_said_are_not() {
    for (asked, said) in [(0, 0), (1, 3), (3, 3), (90, 90), (70_000, 65_535)] {
        let [mut a, _] = ends();
        a.hold_time = seconds(asked);
        assert_eq!(open::ours(&a, false).hold_time, said);
    }
    let [mut a, _] = ends();
    a.hold_time = std::time::Duration::from_millis(200);
    assert_eq!(open::ours(&a, false).hold_time, 3, "never is another wish");
}
