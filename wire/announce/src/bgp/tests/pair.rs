//! Two sessions that talk to each other.

use std::sync::Arc;
use std::time::Duration;

use super::wire::{ENDS, Wire};
use super::{B, ends, seconds};
use crate::bgp::config::Restart;
use crate::bgp::fsm::State;
use crate::bgp::{
    Agreed, Attributes, Config, Connection, Family, Input, News, Notice, Output, Reason, Stop,
    tests::prefix,
};

fn types(sent: &[Vec<u8>]) -> Vec<u8> {
    sent.iter().map(|bytes| bytes[18]).collect()
}

#[test]
fn l10_two_sessions_come_up_and_agree() {
    let [mut a, b] = ends();
    a.hold_time = seconds(30);
    let mut wire = Wire::new([a, b]);
    wire.piece = 1;
    wire.input(1, Input::Start);
    wire.settle();
    // The other one has not been started: it refuses.
    assert_eq!(wire.up(), [false, false]);
    wire.input(0, Input::Start);
    wire.pass(seconds(5));
    assert_eq!(wire.up(), [true, true]);
    let agreed = wire.ends[0].agreed().unwrap();
    let expected = Agreed {
        identifier: B,
        hold_time: seconds(30),
        families: Family::ALL.to_vec(),
        four_byte_as: true,
        extended_next_hop: false,
        route_refresh: true,
        restart: None,
    };
    assert_eq!(*agreed, expected);
    assert_eq!(wire.ends[1].agreed().unwrap().hold_time, seconds(30));
    assert_eq!(wire.connections(), 1);
    // It stays up by keepalives alone.
    let since = wire.ends[0].status().up_since;
    wire.pass(seconds(1000));
    assert_eq!(wire.up(), [true, true]);
    assert_eq!(wire.ends[0].status().up_since, since);
}

/// RFC 4271 section 6.8: both connect at the same moment; the connection of the
/// end with the higher identifier stays.
#[test]
fn l10_a_collision_leaves_one_connection() {
    // Which end hears the other first, in each round.
    for order in 0..256_u32 {
        let mut wire = Wire::new(ends());
        for end in ENDS {
            wire.input(end, Input::Start);
        }
        for turn in 0..64 {
            let end = usize::from(order >> (turn % 8) & 1 == 1);
            let _ = wire.deliver(end) || wire.deliver(1 - end);
        }
        wire.settle();
        assert_eq!(wire.up(), [true, true], "order {order:08b}");
        assert_eq!(wire.connections(), 1, "order {order:08b}");
        wire.pass(seconds(600));
        let up = wire
            .news
            .each_ref()
            .map(|news| news.iter().filter(|one| matches!(one, News::Up(_))).count());
        assert_eq!(up, [1, 1], "order {order:08b}");
        assert!(
            wire.news
                .iter()
                .flatten()
                .all(|one| !matches!(one, News::Down(_)))
        );
    }
}

#[test]
fn l10_the_connection_of_the_higher_identifier_wins() {
    let mut wire = Wire::new(ends());
    for end in ENDS {
        wire.input(end, Input::Start);
    }
    // 0 opened connection 0, 1 opened connection 1; 1 has the higher identifier.
    wire.settle();
    let outputs = wire.ends[0].leave();
    let closed: Vec<_> = outputs
        .iter()
        .filter(|o| matches!(o, Output::Close(_)))
        .collect();
    assert_eq!(closed, [&Output::Close(Connection(1))]);
    let collision = Reason::Sent(Notice::new(6, 7));
    let said = wire
        .news
        .iter()
        .flatten()
        .any(|one| *one == News::Failed(collision.clone()));
    assert!(said, "{:?}", wire.news);
}

#[test]
fn l10_a_silent_peer_is_given_up_after_the_hold_time() {
    let mut wire = Wire::started(ends());
    assert_eq!(wire.up(), [true, true]);
    wire.carries = false;
    wire.pass(seconds(89));
    assert_eq!(wire.up(), [true, true]);
    wire.pass(seconds(31));
    assert_eq!(wire.up(), [false, false]);
    let expired = News::Down(Reason::Sent(Notice::new(4, 0)));
    assert!(wire.news[0].contains(&expired), "{:?}", wire.news);
    wire.carries = true;
    wire.pass(seconds(300));
    assert_eq!(wire.up(), [true, true]);
}

#[test]
fn l10_a_lost_connection_comes_back() {
    let mut wire = Wire::started(ends());
    wire.reachable = false;
    wire.cut();
    assert_eq!(wire.up(), [false, false]);
    wire.pass(seconds(300));
    assert_eq!(wire.up(), [false, false]);
    assert_eq!(wire.ends[0].status().last, Some(Reason::Unreachable));
    wire.reachable = true;
    wire.pass(seconds(5));
    assert_eq!(wire.up(), [true, true], "attempts never get rare");
}

#[test]
fn an_attempt_that_hangs_is_made_again() {
    let mut wire = Wire::new(ends());
    let first = wire.ends[0].handle(Input::Start, wire.now);
    assert_eq!(first, [Output::Connect]);
    wire.now += seconds(10);
    let again = wire.ends[0].tick(wire.now);
    assert_eq!(again, [Output::CancelConnect, Output::Connect]);
    assert_eq!(wire.ends[0].status().state, State::Connect);
}

#[test]
fn l10_a_wrong_as_is_told_and_tried_rarely() {
    let [a, mut b] = ends();
    b.peer_as = 64_999;
    // Which one it is instead.
    let notice = Notice {
        data: a.local_as.to_be_bytes().to_vec().into(),
        ..Notice::new(2, 2)
    };
    let mut wire = Wire::started([a, b]);
    wire.pass(seconds(3600));
    assert_eq!(wire.up(), [false, false]);
    let told = Reason::Sent(notice.clone());
    assert!(wire.news[1].contains(&News::Failed(told)));
    let heard = Reason::Received(notice);
    assert!(wire.news[0].contains(&News::Failed(heard.clone())));
    assert!(heard.to_string().contains("Bad Peer AS (2/2)"), "{heard}");
    let attempts = wire.news[1].len();
    assert!((60..300).contains(&attempts), "{attempts} in an hour");
}

#[test]
fn l10_a_stop_is_told_and_final() {
    let stops = [
        (Stop::Shutdown, 2),
        (Stop::Deconfigured, 3),
        (Stop::Changed, 6),
    ];
    for (stop, subcode) in stops {
        let mut wire = Wire::started(ends());
        wire.input(0, Input::Stop(stop));
        wire.settle();
        assert_eq!(
            wire.news[0].last(),
            Some(&News::Down(Reason::Stopped(stop)))
        );
        let heard = Reason::Received(Notice::new(6, subcode));
        assert!(wire.news[1].contains(&News::Down(heard)), "{:?}", wire.news);
        wire.pass(seconds(600));
        assert_eq!(wire.up(), [false, false]);
        assert_eq!(wire.ends[0].deadline(), None);
        wire.input(0, Input::Start);
        wire.pass(seconds(120));
        assert_eq!(wire.up(), [true, true]);
    }
}

#[test]
fn l10_a_broken_path_ends_the_session_at_once_and_it_tries_again() {
    let mut wire = Wire::started(ends());
    wire.input(0, Input::Stop(Stop::PathDown));
    wire.settle();
    assert_eq!(wire.up(), [false, false]);
    let heard = Reason::Received(Notice::new(6, 10));
    assert!(wire.news[1].contains(&News::Down(heard)));
    wire.pass(seconds(120));
    assert_eq!(wire.up(), [true, true]);
}

#[test]
fn a_passive_end_waits() {
    let [mut a, b] = ends();
    a.passive = true;
    let mut wire = Wire::new([a, b]);
    wire.input(0, Input::Start);
    wire.settle();
    assert_eq!(wire.ends[0].status().state, State::Active);
    wire.pass(seconds(600));
    assert_eq!(wire.connections(), 0);
    wire.input(1, Input::Start);
    wire.settle();
    assert_eq!(wire.up(), [true, true]);
    wire.cut();
    wire.pass(seconds(30));
    assert_eq!(wire.up(), [true, true]);
}

#[test]
fn no_hold_time_means_no_keepalives() {
    let configs = ends().map(|config| Config {
        hold_time: Duration::ZERO,
        ..config
    });
    let mut wire = Wire::started(configs);
    assert_eq!(wire.up(), [true, true]);
    let before = wire.sent[0].len();
    wire.carries = false;
    wire.pass(seconds(100_000));
    assert_eq!(wire.up(), [true, true]);
    assert_eq!(wire.sent[0].len(), before);
}

fn restarting(restarted: bool) -> [Config; 2] {
    ends().map(|config| Config {
        restart: Some(Restart {
            time: seconds(120),
            restarted,
        }),
        ..config
    })
}

/// RFC 4724: no NOTIFICATION at the end, R and F bits afterwards, and End-of-RIB only
/// when everything is known again.
#[test]
fn l10_a_restart_keeps_what_the_peer_knows() {
    let [a, _] = restarting(true);
    let [first, mut peer] = restarting(false);
    peer.passive = true;
    let mut wire = Wire::started([first, peer]);
    let attributes = Arc::new(Attributes::new("192.0.2.1".parse().unwrap()));
    wire.ends[0].announce(prefix("198.51.100.1"), Arc::clone(&attributes));
    wire.ends[0].complete();
    wire.flush(0);
    assert_eq!(wire.ends[1].agreed().unwrap().restart, Some(seconds(120)));
    let before = wire.sent[0].len();
    wire.replace(0, a);
    wire.settle();
    assert!(
        !types(&wire.sent[0][before..]).contains(&3),
        "no word at the end"
    );
    wire.pass(seconds(20));
    assert_eq!(wire.up(), [true, true]);
    // The peer was not ready for the first attempt.
    let before = wire.sent[0].len() - 2;
    let sent = wire.sent[0].split_off(before);
    assert_eq!(types(&sent), [1, 4], "and no End-of-RIB yet");
    let open = &sent[0];
    // Code 64, ten bytes: R with 120 s, then both families with F.
    let capability = [64, 10, 0x80, 120, 0, 1, 1, 0x80, 0, 2, 1, 0x80];
    assert!(open.windows(12).any(|w| w == capability), "{open:x?}");
    wire.ends[0].announce(prefix("198.51.100.1"), attributes);
    wire.flush(0);
    wire.ends[0].complete();
    wire.flush(0);
    let sent = wire.sent[0].split_off(before);
    let ends: Vec<&[u8]> = sent[1..].iter().map(|m| &m[19..]).collect();
    let v6: &[u8] = &[0, 0, 0, 6, 0x80, 15, 3, 0, 2, 1];
    assert_eq!(types(&sent), [2, 2, 2]);
    assert_eq!(ends, [&[0, 0, 0, 0][..], v6]);
    // The next session is not after a restart any more.
    wire.cut();
    let before = wire.sent[0].len();
    wire.pass(seconds(150));
    assert_eq!(wire.up(), [true, true]);
    let sent = wire.sent[0].split_off(before);
    let capability = [64, 10, 0x00, 120];
    assert!(sent[0].windows(4).any(|w| w == capability), "{sent:x?}");
}

/// A peer that comes again without having closed the old connection: with graceful
/// restart it is believed; without, the new connection is the one too many.
#[test]
fn l10_a_peer_that_crashed_is_taken_back() {
    let [_, b] = restarting(true);
    let mut wire = Wire::started(restarting(false));
    wire.crash(1, b);
    wire.settle();
    assert_eq!(wire.up(), [true, true]);
    assert_eq!(
        wire.news[0]
            .iter()
            .filter(|n| matches!(n, News::Up(_)))
            .count(),
        2
    );
    assert!(wire.news[0].contains(&News::Down(Reason::Lost)));

    let [_, b] = ends();
    let mut wire = Wire::started(ends());
    wire.crash(1, b);
    wire.settle();
    assert_eq!(wire.up(), [true, false]);
    let refused = Reason::Received(Notice::new(6, 7));
    assert!(
        wire.news[1].contains(&News::Failed(refused)),
        "{:?}",
        wire.news
    );
    wire.pass(seconds(300));
    assert_eq!(wire.up(), [true, true], "after the hold time");
}
