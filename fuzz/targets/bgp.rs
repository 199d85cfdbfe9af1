//! What a BGP peer sends, before and after a session is up: no bytes panic, nothing
//! that is sent is too long, a connection is closed once at most, and afterwards the
//! session still comes up with a sane peer.
#![no_main]

use std::net::Ipv4Addr;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use portolan_announce::bgp::{Config, Connection, Input, Output, Session};

const NOW: Duration = Duration::from_secs(100);
const LATER: Duration = Duration::from_secs(1000);

fn sessions() -> [Session; 2] {
    let ours = Config {
        most_prefixes: Some(100),
        extended_next_hop: true,
        passive: true,
        ..Config::new(64_512, 64_513, Ipv4Addr::new(192, 0, 2, 1))
    };
    let theirs = Config {
        local_as: 64_513,
        peer_as: 64_512,
        identifier: Ipv4Addr::new(192, 0, 2, 2),
        passive: false,
        ..ours.clone()
    };
    [Session::new(ours, 1), Session::new(theirs, 2)]
}

/// Lets both talk on this connection until they rest.
fn talk(sessions: &mut [Session; 2], connection: Connection, now: Duration) {
    let [ours, theirs] = sessions;
    let mut to_us = theirs.handle(Input::Connected(connection), now);
    let mut to_them = ours.handle(Input::Accepted(connection), now);
    while !to_us.is_empty() || !to_them.is_empty() {
        let arrive = |session: &mut Session, outputs: Vec<Output>| {
            let mut answers = Vec::new();
            for output in outputs {
                if let Output::Send(connection, bytes) = output {
                    answers.extend(session.handle(Input::Received(connection, &bytes), now));
                }
            }
            answers
        };
        let answers = arrive(theirs, std::mem::take(&mut to_them));
        to_them = arrive(ours, std::mem::take(&mut to_us));
        to_us = answers;
    }
}

fuzz_target!(|bytes: &[u8]| {
    let Some((choice, bytes)) = bytes.split_first() else {
        return;
    };
    let mut sessions = sessions();
    let first = Connection(1);
    assert!(sessions[0].handle(Input::Start, NOW).is_empty());
    assert_eq!(sessions[1].handle(Input::Start, NOW), [Output::Connect]);
    if choice & 1 == 1 {
        talk(&mut sessions, first, NOW);
        assert!(sessions[0].agreed().is_some());
    } else {
        let _open = sessions[0].handle(Input::Accepted(first), NOW);
    }
    let mut closed = 0;
    for piece in bytes.chunks(usize::from(choice >> 1) + 1) {
        for output in sessions[0].handle(Input::Received(first, piece), NOW) {
            match output {
                Output::Send(_, bytes) => assert!(bytes.len() <= 4096),
                Output::Close(connection) => {
                    assert_eq!(connection, first);
                    closed += 1;
                }
                Output::Connect => panic!("a passive end connects"),
                Output::CancelConnect | Output::News(_) => {}
            }
        }
    }
    assert!(closed <= 1);
    let _lost = sessions[0].handle(Input::Closed(first), NOW);
    let _waited = sessions[0].tick(LATER);
    let [_, mut theirs] = self::sessions();
    assert_eq!(theirs.handle(Input::Start, LATER), [Output::Connect]);
    sessions[1] = theirs;
    talk(&mut sessions, Connection(2), LATER);
    assert!(sessions[0].agreed().is_some(), "{:?}", sessions[0].status());
});
