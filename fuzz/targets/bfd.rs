//! BFD packets, one after another: no bytes panic, what is sent is valid, and the
//! session comes up with a sane neighbour afterwards.
#![no_main]

use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use portolan_announce::bfd::{Config, Output, Packet, Session, State};

fn packets(outputs: Vec<Output>) -> Vec<[u8; 24]> {
    let packets = outputs.into_iter().filter_map(|output| match output {
        Output::Send(bytes) => Some(bytes),
        Output::Changed(..) => None,
    });
    packets
        .inspect(|bytes| assert!(Packet::parse(bytes).is_some()))
        .collect()
}

fuzz_target!(|bytes: &[u8]| {
    let mut now = Duration::from_secs(1);
    let mut ours = Session::new(Config::new(7), 1, now);
    for packet in bytes.chunks(24) {
        if let Some(read) = Packet::parse(packet) {
            assert_eq!(Packet::parse(&read.bytes()), Some(read));
        }
        packets(ours.receive(packet, 255, now));
        now += Duration::from_millis(40);
        packets(ours.tick(now));
    }
    let mut theirs = Session::new(Config::new(9), 2, now);
    for _ in 0..1000 {
        now += Duration::from_millis(10);
        let mut to_them = packets(ours.tick(now));
        let mut to_us = packets(theirs.tick(now));
        while !to_them.is_empty() || !to_us.is_empty() {
            let answers = |session: &mut Session, list: Vec<[u8; 24]>| -> Vec<[u8; 24]> {
                let outputs = list.iter().flat_map(|one| session.receive(one, 255, now));
                packets(outputs.collect())
            };
            let from_them = answers(&mut theirs, to_them);
            to_them = answers(&mut ours, to_us);
            to_us = from_them;
        }
    }
    assert_eq!((ours.state().0, theirs.state().0), (State::Up, State::Up));
});
