//! What is read of packets and messages, whatever they are.

use portolan_netlink::Writer;
use proptest::prelude::*;

use super::*;

/// An IPv4 packet: these bytes behind a header with so many options.
fn v4(protocol: u8, fragment: u16, options: usize, behind: &[u8]) -> Vec<u8> {
    let words = u8::try_from(5 + options).expect("a length");
    let mut packet = vec![0x40 | words, 0, 0, 0, 0, 0];
    packet.extend(fragment.to_be_bytes());
    packet.extend([64, protocol, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    packet.extend(vec![1; options * 4]);
    packet.extend(behind);
    packet
}

/// An IPv6 packet whose first header behind the fixed one is `next`.
fn v6(next: u8, behind: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, next, 64];
    for last in [1, 2] {
        packet.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    packet.extend(behind);
    packet
}

const PORTS: [u8; 4] = [0x9c, 0x40, 0, 80];

#[track_caller]
fn check(packet: &[u8], protocol: u8, ports: Option<(u16, u16)>) {
    let ends = Ends::of(packet).expect("an IP packet");
    let (one, two) = if packet[0] >> 4 == 4 {
        ("10.0.0.1", "10.0.0.2")
    } else {
        ("fd00::1", "fd00::2")
    };
    assert_eq!(ends.source.to_string(), one);
    assert_eq!(ends.destination.to_string(), two);
    assert_eq!((ends.protocol, ends.ports), (protocol, ports));
}

#[test]
fn the_ends_of_a_packet() {
    let found = Some((40_000, 80));
    check(&v4(6, 0, 0, &PORTS), 6, found);
    check(&v4(17, 0x2000, 3, &PORTS), 17, found);
    check(&v4(132, 0, 0, &PORTS), 132, found);
    // Later fragments, what has no ports, and what is cut before them.
    check(&v4(6, 1, 0, &PORTS), 6, None);
    check(&v4(1, 0, 0, &PORTS), 1, None);
    check(&v4(6, 0, 0, &PORTS[..3]), 6, None);
    check(&v4(6, 0, 9, &[])[..20], 6, None);
    check(&v6(17, &PORTS), 17, found);
    let options = [&[60, 0][..], &[0; 6], &[6, 1], &[0; 14], &PORTS].concat();
    check(&v6(0, &options), 6, found);
    let first = [&[6, 0, 0, 1, 0, 0, 0, 0][..], &PORTS].concat();
    check(&v6(44, &first), 6, found);
    let later = [&[6, 0, 0, 9, 0, 0, 0, 0][..], &PORTS].concat();
    check(&v6(44, &later), 6, None);
    check(&v6(0, &[6, 200]), 6, None);
    check(&v6(58, &PORTS), 58, None);
    for odd in [&[][..], &[0x45; 19], &[0x60; 39], &[0x10; 60]] {
        assert_eq!(Ends::of(odd), None);
    }
}

fn told(group: u8, kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = Writer::default();
    let open = out.begin(4 << 8 | kind, 0, 0, [2, 0, 0, group]);
    out.attr(1, &[8, 0, 2, 0]);
    out.string(10, "why");
    out.attr(9, payload);
    out.be32(12, 7);
    out.end(open);
    out.bytes
}

#[test]
fn a_message_tells_of_a_packet() {
    let bytes = told(1, 0, &v4(6, 0, 0, &PORTS));
    let found: Vec<Logged> = messages(&bytes)
        .filter_map(|one| Logged::decode(&one))
        .collect();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].hook, found[0].prefix.as_str(), found[0].number),
        (2, "why", Some(7))
    );
    assert_eq!(found[0].ends.ports, Some((40_000, 80)));
    let other = told(1, 1, &v4(6, 0, 0, &PORTS));
    assert!(messages(&other).all(|one| Logged::decode(&one).is_none()));
}

#[test]
fn requests_name_the_group() {
    for request in join(0x2810, 9) {
        let message = messages(&request).next().expect("one message");
        assert_eq!(message.kind, 0x401);
        assert_eq!(message.body.get(..4), Some(&[0, 0, 0x28, 0x10][..]));
    }
}

proptest! {
    /// The kernel is trusted, packets are not: they come from anybody.
    #[test]
    fn no_packet_is_too_odd(bytes in proptest::collection::vec(any::<u8>(), 0..160), next in any::<u8>()) {
        std::hint::black_box(Ends::of(&bytes));
        std::hint::black_box(Ends::of(&v6(next, &bytes)));
        std::hint::black_box(Ends::of(&v4(next, 0, usize::from(next % 11), &bytes)));
        for message in messages(&bytes) {
            drop(Logged::decode(&message));
        }
        let packet = told(1, 0, &bytes);
        for message in messages(&packet) {
            drop(Logged::decode(&message));
        }
    }
}
