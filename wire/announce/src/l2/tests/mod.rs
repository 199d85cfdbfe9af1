//! What goes in and what must come out, as bytes written by hand.

mod laws;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use super::ethernet::{self, Frame, Mac};
use super::{Conflict, Heard, Link, arp, ndp};

const US: Mac = Mac([2, 0, 0, 0, 0, 1]);
const THEM: Mac = Mac([2, 0, 0, 0, 0, 2]);
const OWNED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const OWNED6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x12, 0x3456);
const NOW: Duration = Duration::from_secs(100);

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter_map(|b| char::from(b).to_digit(16))
        .map(|d| u8::try_from(d).unwrap())
        .collect();
    digits
        .chunks(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect()
}

/// A link that owns both addresses and has said all it had to say.
fn quiet() -> Link {
    let mut link = Link::new(US);
    assert!(link.own(OWNED.into(), Duration::ZERO));
    assert!(link.own(OWNED6.into(), Duration::ZERO));
    assert_eq!(link.announce(Duration::from_secs(1000), 10).len(), 3);
    assert_eq!(link.deadline(), None);
    link
}

fn only(heard: Heard) -> Vec<u8> {
    assert_eq!(heard.conflict, None);
    assert_eq!(heard.frames.len(), 1, "{heard:?}");
    heard.frames.into_iter().next().unwrap()
}

const NOTHING: Heard = Heard {
    frames: Vec::new(),
    conflict: None,
    answered: None,
};

/// Who has 192.0.2.10, asked by 192.0.2.99 at 02:…:02.
const WHO_HAS: &str = "ffffffffffff 020000000002 0806
    0001 0800 06 04 0001 020000000002 c0000263 000000000000 c000020a";

#[test]
fn l8_a_request_for_an_owned_address_is_answered() {
    let reply = only(quiet().receive(&hex(WHO_HAS), NOW));
    let expected = hex("020000000002 020000000001 0806
        0001 0800 06 04 0002 020000000001 c000020a 020000000002 c0000263
        000000000000000000000000000000000000");
    assert_eq!(reply, expected);
}

#[test]
fn l8_a_request_to_this_station_alone_is_answered() {
    let mut bytes = hex(WHO_HAS);
    bytes[..6].copy_from_slice(&US.0);
    assert_eq!(quiet().receive(&bytes, NOW).frames.len(), 1);
    bytes[..6].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    assert_eq!(quiet().receive(&bytes, NOW), NOTHING, "to somebody else");
}

#[test]
fn l8_a_probe_is_answered() {
    let mut bytes = hex(WHO_HAS);
    bytes[28..32].fill(0);
    let reply = only(quiet().receive(&bytes, NOW));
    let packet = arp::of(&Frame::parse(&reply).unwrap(), THEM).unwrap();
    assert_eq!(packet.sender, OWNED);
    assert_eq!(packet.target, Ipv4Addr::UNSPECIFIED);
}

#[test]
fn l8_nothing_is_answered_for_an_address_of_others() {
    let mut link = Link::new(US);
    assert_eq!(link.receive(&hex(WHO_HAS), NOW), NOTHING);
    link.own(IpAddr::from([192, 0, 2, 11]), NOW);
    assert_eq!(link.receive(&hex(WHO_HAS), NOW), NOTHING);
    link.own(OWNED.into(), NOW);
    assert_eq!(link.receive(&hex(WHO_HAS), NOW).frames.len(), 1);
    assert!(link.release(OWNED.into()));
    assert!(!link.release(OWNED.into()));
    assert_eq!(link.receive(&hex(WHO_HAS), NOW), NOTHING);
}

/// Each is a request that is not quite one: what was changed, where, to what.
#[test]
fn l8_malformed_requests_are_not_answered() {
    let changes: [(&str, usize, &[u8]); 12] = [
        ("hardware", 14, &[0, 6]),
        ("protocol", 16, &[0x86, 0xdd]),
        ("length of hardware addresses", 18, &[8]),
        ("length of addresses", 19, &[16]),
        ("operation: a reply", 20, &[0, 2]),
        ("operation: RARP", 20, &[0, 3]),
        ("sender: a group", 22, &[3, 0, 0, 0, 0, 2]),
        ("sender: no station", 22, &[0; 6]),
        ("sender: everybody", 28, &[255; 4]),
        ("sender: a group of IPv4", 28, &[224, 0, 0, 1]),
        ("sender: ourselves", 22, &US.0),
        ("EtherType", 12, &[8, 0]),
    ];
    for (what, at, bytes) in changes {
        let mut frame = hex(WHO_HAS);
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        assert_eq!(quiet().receive(&frame, NOW), NOTHING, "{what}");
    }
    let whole = hex(WHO_HAS);
    for length in 0..whole.len() {
        let heard = quiet().receive(&whole[..length], NOW);
        assert_eq!(heard, NOTHING, "{length} bytes");
    }
}

#[test]
fn a_vlan_is_another_link() {
    let plain = hex(WHO_HAS);
    let tagged = |id: u8| [&plain[..12], &[0x81, 0, 0x60, id], &plain[12..]].concat();
    assert_eq!(quiet().receive(&tagged(7), NOW), NOTHING);
    let priority_only = quiet().receive(&tagged(0), NOW);
    assert_eq!(priority_only.frames.len(), 1);
}

#[test]
fn frames_with_a_length_in_place_of_a_type_are_none() {
    let mut frame = hex(WHO_HAS);
    frame[12..14].copy_from_slice(&[0, 38]);
    assert_eq!(Frame::parse(&frame), None);
}

#[test]
fn l8_a_takeover_is_announced_in_both_forms() {
    let mut link = Link::new(US);
    link.own(OWNED.into(), NOW);
    assert_eq!(link.deadline(), Some(NOW));
    let frames = link.announce(NOW, 10);
    let tail = "000000000000000000000000000000000000";
    let request = format!(
        "ffffffffffff 020000000001 0806
        0001 0800 06 04 0001 020000000001 c000020a 000000000000 c000020a {tail}"
    );
    let reply = format!(
        "ffffffffffff 020000000001 0806
        0001 0800 06 04 0002 020000000001 c000020a 020000000001 c000020a {tail}"
    );
    assert_eq!(frames, [hex(&request), hex(&reply)]);
}

#[test]
fn l8_announcements_repeat_often_first_and_rarely_later() {
    let mut link = Link::new(US);
    link.own(OWNED6.into(), NOW);
    let mut times = Vec::new();
    while let Some(due) = link.deadline() {
        let just_before = due.checked_sub(Duration::from_millis(1)).unwrap();
        assert_eq!(link.announce(just_before, 10), Vec::<Vec<u8>>::new());
        assert_eq!(link.announce(due, 10).len(), 1);
        times.push((due - NOW).as_millis());
    }
    let expected = [
        0, 100, 1000, 5000, 20_000, 60_000, 120_000, 180_000, 240_000, 300_000,
    ];
    assert_eq!(times, expected);
}

#[test]
fn l8_nothing_is_announced_after_release() {
    let mut link = Link::new(US);
    link.own(OWNED.into(), NOW);
    link.own(OWNED6.into(), NOW);
    assert_eq!(link.announce(NOW, 10).len(), 3);
    assert!(link.release(OWNED.into()));
    assert!(link.release(OWNED6.into()));
    assert_eq!(link.deadline(), None);
    assert!(link.announce(NOW + Duration::from_secs(500), 10).is_empty());
    assert_eq!(link.groups().count(), 0);
}

#[test]
fn a_late_caller_announces_once_and_a_takeover_of_many_is_spread() {
    let mut link = Link::new(US);
    for last in 0..100 {
        assert!(link.own(IpAddr::from([192, 0, 2, last]), NOW));
        assert!(!link.own(IpAddr::from([192, 0, 2, last]), NOW), "twice");
    }
    let late = NOW + Duration::from_secs(3);
    assert_eq!(link.announce(late, 30).len(), 60);
    assert_eq!(link.deadline(), Some(NOW), "the rest is still due");
    assert_eq!(link.announce(late, 1000).len(), 140);
    assert_eq!(link.deadline(), Some(NOW + Duration::from_secs(5)));
}

#[test]
fn a_new_link_layer_address_is_announced() {
    let mut link = quiet();
    link.set_mac(US, NOW);
    assert_eq!(link.deadline(), None, "it is the same");
    link.set_mac(THEM, NOW);
    let frames = link.announce(NOW, 10);
    assert_eq!(frames.len(), 3);
    assert!(
        frames
            .iter()
            .all(|f| Frame::parse(f).unwrap().source == THEM)
    );
    for nobody in [
        "224.0.0.1",
        "255.255.255.255",
        "0.0.0.0",
        "127.0.0.1",
        "ff02::1",
        "::",
        "::1",
    ] {
        assert!(!quiet().own(nobody.parse().unwrap(), NOW), "{nobody}");
    }
}

/// RFC 5227 section 2.4: one announcement in ten seconds, and no answer to it.
#[test]
fn a_claim_of_an_owned_address_is_reported_and_rarely_disputed() {
    let mut link = quiet();
    let mut claim = hex(WHO_HAS);
    claim[28..32].copy_from_slice(&OWNED.octets());
    let conflict = Some(Conflict {
        address: OWNED.into(),
        mac: THEM,
    });
    let first = link.receive(&claim, NOW);
    assert_eq!((first.frames.len(), first.conflict), (2, conflict));
    let again = link.receive(&claim, NOW + Duration::from_secs(9));
    assert_eq!((again.frames.len(), again.conflict), (0, conflict));
    let later = link.receive(&claim, NOW + Duration::from_secs(10));
    assert_eq!((later.frames.len(), later.conflict), (2, conflict));
    let advertisement = ndp::announcement(OWNED6, THEM);
    let sixth = link.receive(&advertisement, NOW);
    assert_eq!(sixth.frames, [ndp::announcement(OWNED6, US)]);
    assert_eq!(sixth.conflict.unwrap().address, IpAddr::from(OWNED6));
}

/// A solicitation for 2001:db8::12:3456 by fe80::2, its checksum computed apart.
const SOLICITATION: &str = "3333ff123456 020000000002 86dd
    6000000000203afffe800000000000000000000000000002ff0200000000000000000001ff123456
    8700e2900000000020010db80000000000000000001234560101020000000002";

/// The same address, tried by somebody who has none yet.
const TRIAL: &str = "3333ff123456 020000000002 86dd
    6000000000183aff00000000000000000000000000000000ff0200000000000000000001ff123456
    8700e41e0000000020010db8000000000000000000123456";

#[test]
fn l8_a_solicitation_is_answered_to_who_asked() {
    let answer = only(quiet().receive(&hex(SOLICITATION), NOW));
    let expected = hex("020000000002 020000000001 86dd
        6000000000203aff20010db8000000000000000000123456fe800000000000000000000000000002
        880050dd6000000020010db80000000000000000001234560201020000000001");
    assert_eq!(answer, expected);
}

#[test]
fn l8_an_address_that_is_being_tried_is_defended_before_all_nodes() {
    let answer = only(quiet().receive(&hex(TRIAL), NOW));
    let expected = hex("333300000001 020000000001 86dd
        6000000000203aff20010db8000000000000000000123456ff020000000000000000000000000001
        8800905c2000000020010db80000000000000000001234560201020000000001");
    assert_eq!(answer, expected);
}

#[test]
fn a_solicitation_to_the_address_alone_is_answered_to_the_station_it_came_from() {
    let message = ndp::Message {
        source: "fe80::2".parse().unwrap(),
        destination: OWNED6,
        target: OWNED6,
        kind: ndp::Kind::Solicitation,
        mac: None,
    };
    let frame = |m: &ndp::Message| ethernet::frame(US, THEM, ethernet::IPV6, &m.bytes());
    let answer = only(quiet().receive(&frame(&message), NOW));
    assert_eq!(Frame::parse(&answer).unwrap().destination, THEM);
    let elsewhere = ndp::Message {
        destination: "2001:db8::1".parse().unwrap(),
        ..message
    };
    assert_eq!(quiet().receive(&frame(&elsewhere), NOW), NOTHING);
}

/// Makes the checksum right again, so that it is not what is found wrong.
fn sum_again(frame: &mut [u8]) {
    frame[56..58].fill(0);
    let length = frame.len() - 54;
    let mut sum = u32::try_from(length).unwrap() + 58;
    for pair in frame[22..].chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).unwrap();
    frame[56..58].copy_from_slice(&sum.to_be_bytes());
}

#[test]
fn the_checksum_of_the_test_is_that_of_the_sample() {
    let mut frame = hex(SOLICITATION);
    sum_again(&mut frame);
    assert_eq!(frame, hex(SOLICITATION));
}

/// Each is a solicitation that a router may have forwarded, that is damaged, or
/// that breaks RFC 4861 section 7.1.1.
#[test]
fn l8_invalid_solicitations_are_not_answered() {
    let changes: [(&str, usize, u8); 9] = [
        ("version", 14, 0x40),
        ("next header", 20, 0),
        ("hop limit", 21, 254),
        ("type", 54, 133),
        ("code", 55, 1),
        ("checksum", 56, 0xe3),
        ("target", 62, 0xff),
        ("option of no length", 79, 0),
        ("option that is cut", 79, 2),
    ];
    for (what, at, byte) in changes {
        let mut frame = hex(SOLICITATION);
        frame[at] = byte;
        if what != "checksum" {
            sum_again(&mut frame);
        }
        assert_eq!(quiet().receive(&frame, NOW), NOTHING, "{what}");
    }
    let whole = hex(SOLICITATION);
    for length in 0..whole.len() {
        let heard = quiet().receive(&whole[..length], NOW);
        assert_eq!(heard, NOTHING, "{length} bytes");
    }
}

#[test]
fn rules_about_addresses_of_messages_hold() {
    let valid = ndp::Message {
        source: "fe80::2".parse().unwrap(),
        destination: ndp::solicited_node(OWNED6),
        target: OWNED6,
        kind: ndp::Kind::Solicitation,
        mac: Some(THEM),
    };
    assert_eq!(ndp::Message::parse(&valid.bytes()), Some(valid));
    let group: Ipv6Addr = "ff02::1".parse().unwrap();
    let none = Ipv6Addr::UNSPECIFIED;
    let told = ndp::Kind::Advertisement {
        solicited: true,
        overrides: false,
    };
    let invalid = [
        ndp::Message {
            target: group,
            ..valid
        },
        ndp::Message {
            source: group,
            ..valid
        },
        ndp::Message {
            source: none,
            ..valid
        },
        ndp::Message {
            source: none,
            mac: None,
            destination: OWNED6,
            ..valid
        },
        ndp::Message {
            mac: Some(Mac::BROADCAST),
            ..valid
        },
        ndp::Message {
            mac: Some(Mac::ZERO),
            ..valid
        },
        ndp::Message {
            kind: told,
            ..valid
        },
        ndp::Message {
            kind: told,
            source: none,
            destination: OWNED6,
            ..valid
        },
    ];
    for message in invalid {
        assert_eq!(ndp::Message::parse(&message.bytes()), None, "{message:?}");
    }
}

#[test]
fn groups_are_shared_by_addresses_that_end_alike() {
    let mut link = Link::new(US);
    let other: Ipv6Addr = "2001:db8:9::12:3456".parse().unwrap();
    link.own(OWNED6.into(), NOW);
    link.own(other.into(), NOW);
    link.own(OWNED.into(), NOW);
    let group: Ipv6Addr = "ff02::1:ff12:3456".parse().unwrap();
    assert_eq!(link.groups().collect::<Vec<_>>(), [group]);
    assert_eq!(
        ndp::group_mac(group),
        Mac([0x33, 0x33, 0xff, 0x12, 0x34, 0x56])
    );
    link.release(other.into());
    assert_eq!(link.groups().collect::<Vec<_>>(), [group]);
    assert!(link.needs(group));
    link.release(OWNED6.into());
    assert_eq!(link.groups().count(), 0);
    assert!(!link.needs(group));
}

#[test]
fn what_we_sent_ourselves_is_no_conflict() {
    let mut link = quiet();
    for frame in arp::announcement(OWNED, US) {
        assert_eq!(link.receive(&frame, NOW), NOTHING);
    }
    assert_eq!(link.receive(&ndp::announcement(OWNED6, US), NOW), NOTHING);
}
