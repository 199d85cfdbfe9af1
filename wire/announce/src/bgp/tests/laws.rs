//! Laws: whatever happens on the wire, the two find together again, and whatever a
//! peer sends, nothing breaks.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipnet::IpNet;
use proptest::prelude::*;

use super::wire::{ENDS, Wire};
use super::{ends, opened, seconds};
use crate::bgp::attributes::aggregate;
use crate::bgp::stream::Stream;
use crate::bgp::{Attributes, Connection, Input, Output};

/// What may befall the two.
#[derive(Clone, Debug)]
enum Step {
    Announce(usize, u8, u8),
    Withdraw(usize, u8),
    Flush(usize),
    Cut,
    Silence(bool),
    Reach(bool),
    Crash(usize),
    Pass(u64),
    Bytes(usize, Vec<u8>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let end = 0..2_usize;
    let one = prop_oneof![
        4 => (end.clone(), any::<u8>(), 0..3_u8).prop_map(|(e, p, a)| Step::Announce(e, p, a)),
        2 => (end.clone(), any::<u8>()).prop_map(|(e, p)| Step::Withdraw(e, p)),
        3 => end.clone().prop_map(Step::Flush),
        1 => Just(Step::Cut),
        1 => any::<bool>().prop_map(Step::Silence),
        1 => any::<bool>().prop_map(Step::Reach),
        1 => end.clone().prop_map(Step::Crash),
        3 => (0..200_u64).prop_map(Step::Pass),
        1 => (end, prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(e, b)| Step::Bytes(e, b)),
    ];
    prop::collection::vec(one, 0..40)
}

fn host(n: u8) -> (IpNet, &'static str) {
    match n % 2 {
        0 => (aggregate([203, 0, 113, n].into(), None), "192.0.2.9"),
        _ => {
            let address = std::net::Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, n.into());
            (aggregate(address.into(), None), "2001:db8::9")
        }
    }
}

fn attributes(hop: &str, n: u8) -> Arc<Attributes> {
    Arc::new(Attributes {
        med: Some(n.into()),
        ..Attributes::new(hop.parse().unwrap())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Once the wire is sound again, both come up, and each was told exactly what
    /// the other wants it to know.
    #[test]
    fn l10_the_peer_ends_up_knowing_what_it_should(steps in steps()) {
        let mut wire = Wire::started(ends());
        let mut wanted: [BTreeMap<IpNet, Arc<Attributes>>; 2] = Default::default();
        for step in steps {
            match step {
                Step::Announce(end, n, med) => {
                    let (prefix, hop) = host(n);
                    let attributes = attributes(hop, med);
                    wire.ends[end].announce(prefix, Arc::clone(&attributes));
                    wanted[end].insert(prefix, attributes);
                }
                Step::Withdraw(end, n) => {
                    let known = wanted[end].remove(&host(n).0).is_some();
                    prop_assert_eq!(wire.ends[end].withdraw(host(n).0), known);
                }
                Step::Flush(end) => wire.flush(end),
                Step::Cut => wire.cut(),
                Step::Silence(silent) => wire.carries = !silent,
                Step::Reach(reachable) => wire.reachable = reachable,
                Step::Crash(end) => {
                    wire.crash(end, ends()[end].clone());
                    for (prefix, attributes) in &wanted[end] {
                        wire.ends[end].announce(*prefix, Arc::clone(attributes));
                    }
                }
                Step::Pass(time) => wire.pass(seconds(time)),
                Step::Bytes(end, bytes) => {
                    let connection = wire.connections_open().next();
                    if let Some(connection) = connection {
                        wire.input(end, Input::Received(Connection(connection), &bytes));
                    }
                }
            }
        }
        wire.carries = true;
        wire.reachable = true;
        wire.pass(seconds(1000));
        for end in ENDS {
            wire.flush(end);
        }
        prop_assert_eq!(wire.up(), [true, true]);
        prop_assert_eq!(wire.connections(), 1);
        for end in ENDS {
            let told: BTreeMap<IpNet, Arc<Attributes>> = wire.ends[end]
                .told()
                .map(|(prefix, attributes)| (prefix, Arc::new(attributes.clone())))
                .collect();
            prop_assert_eq!(&told, &wanted[end]);
            let heard = wire.ends[1 - end].status().prefixes_received;
            prop_assert_eq!(heard, wanted[end].len());
        }
    }
}

/// Real messages of a session, to be damaged.
fn samples() -> Vec<Vec<u8>> {
    let mut wire = Wire::started(ends());
    for n in 0..8 {
        let (prefix, hop) = host(n);
        wire.ends[0].announce(prefix, attributes(hop, n % 2));
    }
    wire.flush(0);
    for n in 0..4 {
        wire.ends[0].withdraw(host(n).0);
    }
    wire.flush(0);
    wire.input(0, Input::Stop(crate::bgp::Stop::Shutdown));
    wire.sent[0].clone()
}

proptest! {
    #[test]
    fn damaged_messages_break_nothing(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        pieces in 1..50_usize,
    ) {
        let samples = samples();
        let mut bytes = samples[which.index(samples.len())].clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let mut wire = Wire::started(ends());
        let connection = Connection(wire.connections_open().next().unwrap());
        for piece in bytes.chunks(pieces) {
            if wire.ends[1].agreed().is_some() {
                wire.input(1, Input::Received(connection, piece));
            }
        }
        wire.settle();
        wire.pass(seconds(300));
        prop_assert_eq!(wire.up(), [true, true]);
    }

    #[test]
    fn no_bytes_break_a_new_connection(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut session = opened(&ends()[0]);
        let outputs = session.handle(Input::Received(Connection(1), &bytes), seconds(1));
        let closes = outputs.iter().filter(|one| matches!(one, Output::Close(_))).count();
        prop_assert!(closes <= 1);
    }

    /// However a stream is cut, the same messages come out.
    #[test]
    fn pieces_of_a_stream_do_not_matter(piece in 1..200_usize) {
        let all = samples().concat();
        let mut stream = Stream::default();
        let mut count = 0;
        for bytes in all.chunks(piece) {
            stream.push(bytes);
            while let Some(_message) = stream.next_message().expect("our own messages") {
                count += 1;
            }
        }
        prop_assert_eq!(count, samples().len());
    }
}
