//! Broken headers, messages where they do not belong, and malformed UPDATEs.

use super::wire::Wire;
use super::{ends, opened, seconds};
use crate::bgp::fsm::State;
use crate::bgp::received;
use crate::bgp::stream::Stream;
use crate::bgp::{Config, Connection, Input, News, Notice, Output, Reason};

fn message(kind: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(19 + body.len()).unwrap().to_be_bytes();
    [&[0xff; 16][..], &length, &[kind], body].concat()
}

/// An UPDATE with these path attributes and the prefix 203.0.113.0/24.
fn update(attributes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(attributes.len()).unwrap().to_be_bytes();
    let body = [&[0, 0][..], &length, attributes, &[24, 203, 0, 113]].concat();
    message(2, &body)
}

const ORIGIN: [u8; 4] = [0x40, 1, 1, 0];
const PATH: [u8; 9] = [0x40, 2, 6, 2, 1, 0xfa, 0x56, 0xea, 0x00];
const HOP: [u8; 7] = [0x40, 3, 4, 192, 0, 2, 2];

fn with(extra: &[u8]) -> Vec<u8> {
    update(&[&ORIGIN[..], &PATH, &HOP, extra].concat())
}

/// An established session of the first end, and its connection.
fn established() -> (Wire, Connection) {
    let wire = Wire::started(ends());
    let connection = Connection(wire.connections_open().next().unwrap());
    (wire, connection)
}

#[test]
fn l10_broken_headers_are_told() {
    let mut short_marker = message(4, &[]);
    short_marker[3] = 0;
    let mut long = message(4, &[]);
    long[16..18].copy_from_slice(&4097_u16.to_be_bytes());
    let mut tiny = message(4, &[]);
    tiny[17] = 18;
    let cases: [(&str, Vec<u8>, u8, &[u8]); 8] = [
        ("marker", short_marker, 1, &[]),
        ("too long", long, 2, &[0x10, 0x01]),
        ("too short", tiny, 2, &[0, 18]),
        ("type", message(9, &[]), 3, &[9]),
        ("KEEPALIVE with a body", message(4, &[0]), 2, &[0, 20]),
        ("UPDATE without a body", message(2, &[]), 2, &[0, 19]),
        (
            "NOTIFICATION without a subcode",
            message(3, &[6]),
            2,
            &[0, 20],
        ),
        (
            "ROUTE-REFRESH without a family",
            message(5, &[0, 1]),
            2,
            &[0, 21],
        ),
    ];
    for (what, bytes, subcode, data) in cases {
        let (mut wire, connection) = established();
        wire.input(0, Input::Received(connection, &bytes));
        wire.settle();
        let Some(News::Down(Reason::Sent(notice))) = wire.news[0].last() else {
            panic!("{what}: {:?}", wire.news[0]);
        };
        assert_eq!((notice.code, notice.subcode), (1, subcode), "{what}");
        assert_eq!(notice.data[..], *data, "{what}");
        let heard = News::Down(Reason::Received(notice.clone()));
        assert!(wire.news[1].contains(&heard), "{what}");
    }
}

#[test]
fn l10_an_open_of_another_version_is_told_ours() {
    let mut session = opened(&ends()[0]);
    let now = seconds(1);
    let open = message(1, &[5, 0xfc, 0, 0, 90, 192, 0, 2, 2, 0]);
    let outputs = session.handle(Input::Received(Connection(1), &open), now);
    let told = message(3, &[2, 1, 0, 4]);
    assert_eq!(outputs[0], Output::Send(Connection(1), told));
    assert_eq!(outputs[1], Output::Close(Connection(1)));
}

/// RFC 6608: the subcode says in which state a message was out of place.
#[test]
fn l10_messages_out_of_place_are_told() {
    let open = message(1, &[4, 0xfc, 1, 0, 90, 192, 0, 2, 2, 0]);
    let config = Config {
        peer_as: 0xfc01,
        ..ends()[0].clone()
    };
    let misplaced: [(&[Vec<u8>], u8); 6] = [
        (&[message(4, &[])], 1),
        (&[with(&[])], 1),
        (&[message(5, &[0, 1, 0, 1])], 1),
        (&[open.clone(), open.clone()], 2),
        (&[open.clone(), with(&[])], 2),
        (&[open.clone(), message(4, &[]), open.clone()], 3),
    ];
    for (messages, subcode) in misplaced {
        let mut session = opened(&config);
        let now = seconds(1);
        let all = messages.concat();
        let outputs = session.handle(Input::Received(Connection(1), &all), now);
        let told = Output::Send(Connection(1), message(3, &[5, subcode]));
        assert!(outputs.contains(&told), "{subcode}: {outputs:?}");
        assert!(outputs.contains(&Output::Close(Connection(1))));
        assert_eq!(session.status().state, State::Idle);
    }
}

#[test]
fn a_notification_is_not_answered() {
    for notification in [
        message(3, &[2, 1, 0, 4]),
        message(3, &[6, 4]),
        message(3, &[99, 99]),
    ] {
        let mut session = opened(&ends()[0]);
        let now = seconds(1);
        let outputs = session.handle(Input::Received(Connection(1), &notification), now);
        assert!(
            !outputs.iter().any(|one| matches!(one, Output::Send(..))),
            "{outputs:?}"
        );
        assert_eq!(session.status().state, State::Idle);
        assert!(session.deadline().is_some(), "it is tried again");
    }
}

/// RFC 7606: malformed attributes make routes withdrawn, and the session stays.
#[test]
fn l10_malformed_updates_count_as_withdrawals() {
    let cases: [(&str, Vec<u8>); 9] = [
        (
            "ORIGIN of another value",
            update(&[&[0x40, 1, 1, 9][..], &PATH, &HOP].concat()),
        ),
        (
            "ORIGIN of two bytes",
            update(&[&[0x40, 1, 2, 0, 0][..], &PATH, &HOP].concat()),
        ),
        (
            "ORIGIN that is optional",
            update(&[&[0xc0, 1, 1, 0][..], &PATH, &HOP].concat()),
        ),
        ("no ORIGIN", update(&[&PATH[..], &HOP].concat())),
        ("no AS_PATH", update(&[&ORIGIN[..], &HOP].concat())),
        (
            "AS_PATH whose segment is cut",
            update(&[&ORIGIN[..], &[0x40, 2, 6, 2, 9, 0, 0, 0, 1], &HOP].concat()),
        ),
        ("no NEXT_HOP", update(&[&ORIGIN[..], &PATH].concat())),
        ("MED of three bytes", with(&[0x80, 4, 3, 0, 0, 1])),
        ("COMMUNITIES of three bytes", with(&[0xc0, 8, 3, 0, 0, 1])),
    ];
    for (what, bytes) in cases {
        let (mut wire, connection) = established();
        wire.perform(1, vec![Output::Send(connection, with(&[]))]);
        wire.settle();
        assert_eq!(wire.ends[0].status().prefixes_received, 1);
        wire.perform(1, vec![Output::Send(connection, bytes)]);
        wire.settle();
        assert_eq!(wire.up(), [true, true], "{what}");
        let status = wire.ends[0].status();
        assert_eq!(status.prefixes_received, 0, "{what}");
        assert_eq!(
            (status.updates_received, status.updates_malformed),
            (2, 1),
            "{what}"
        );
        let last = wire.news[0].last();
        assert!(
            matches!(last, Some(News::Malformed(n)) if n.code == 3),
            "{what}: {last:?}"
        );
    }
}

/// RFC 7606: some attributes are left out, and the route counts.
#[test]
fn l10_attributes_that_do_not_matter_are_discarded() {
    let cases: [(&str, Vec<u8>); 3] = [
        ("ATOMIC_AGGREGATE with a value", with(&[0x40, 6, 1, 0])),
        (
            "AGGREGATOR of five bytes",
            with(&[0xc0, 7, 5, 0, 0, 0, 1, 1]),
        ),
        (
            "LOCAL_PREF of an external peer",
            with(&[0x40, 5, 3, 0, 0, 1]),
        ),
    ];
    let agreed = Wire::started(ends()).ends[0].agreed().unwrap().clone();
    for (what, bytes) in cases {
        let mut stream = Stream::default();
        stream.push(&bytes);
        let Some(rustbgpd_wire::Message::Update(update)) = stream.next_message().unwrap() else {
            panic!("{what}");
        };
        let judged = received::judge(&update, &agreed, false).expect(what);
        assert_eq!(judged.discarded, 1, "{what}");
        assert_eq!((judged.announced.len(), judged.fault), (1, None), "{what}");
    }
}

/// RFC 7606: where the prefixes themselves cannot be told, the session ends.
#[test]
fn l10_updates_that_cannot_be_read_end_the_session() {
    let long_prefix = message(2, &[0, 0, 0, 0, 33, 1, 2, 3, 4, 5]);
    let cut_prefix = message(2, &[0, 0, 0, 0, 24, 1]);
    let lengths = message(2, &[0, 9, 0, 0]);
    // An IPv6 next hop of five bytes.
    let reach = [0x80, 14, 10, 0, 2, 1, 5, 1, 2, 3, 4, 5, 0];
    let cases: [(&str, Vec<u8>, u8); 4] = [
        ("a prefix of 33 bits", long_prefix, 10),
        ("a prefix that is cut", cut_prefix, 10),
        ("lengths that do not fit", lengths, 1),
        ("MP_REACH_NLRI", with(&reach), 9),
    ];
    for (what, bytes, subcode) in cases {
        let (mut wire, connection) = established();
        wire.perform(1, vec![Output::Send(connection, bytes)]);
        wire.settle();
        assert_eq!(wire.up(), [false, false], "{what}");
        let Some(News::Down(Reason::Sent(notice))) = wire.news[0].last() else {
            panic!("{what}: {:?}", wire.news[0]);
        };
        assert_eq!((notice.code, notice.subcode), (3, subcode), "{what}");
    }
    let text = Notice::new(3, 10).to_string();
    assert_eq!(text, "Invalid Network Field (3/10)");
}

#[test]
fn the_end_of_rib_is_no_route() {
    let (mut wire, connection) = established();
    for end in [
        message(2, &[0, 0, 0, 0]),
        message(2, &[0, 0, 0, 6, 0x80, 15, 3, 0, 2, 1]),
    ] {
        wire.perform(1, vec![Output::Send(connection, end.clone())]);
        wire.settle();
        let agreed = wire.ends[0].agreed().unwrap();
        let mut stream = Stream::default();
        stream.push(&end);
        let Some(rustbgpd_wire::Message::Update(update)) = stream.next_message().unwrap() else {
            panic!("no UPDATE");
        };
        let judged = received::judge(&update, agreed, false).unwrap();
        assert!(judged.end_of_rib.is_some());
        assert!(judged.announced.is_empty() && judged.withdrawn.is_empty());
    }
    assert_eq!(wire.up(), [true, true]);
    assert_eq!(wire.ends[0].status().prefixes_received, 0);
}
