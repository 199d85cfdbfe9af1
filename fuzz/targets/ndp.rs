//! Frames with neighbour discovery, whose checksum is made right so that what is behind
//! it is reached: no bytes panic, and whatever is answered is valid and about an address
//! that is owned.
#![no_main]

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use portolan_announce::l2::ethernet::{self, Frame, Mac};
use portolan_announce::l2::{Link, ndp};

const US: Mac = Mac([2, 0, 0, 0, 0, 1]);
const OWNED: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0x12, 0x3456);

/// Writes the lengths and the checksum that belong to a packet.
fn mend(packet: &mut [u8]) {
    let Some(length) = packet.len().checked_sub(40).filter(|length| *length >= 4) else {
        return;
    };
    let low = u16::try_from(length).unwrap_or(u16::MAX);
    packet[4..6].copy_from_slice(&low.to_be_bytes());
    packet[42..44].fill(0);
    let words = packet[8..].chunks(2);
    let words = words.map(|w| u32::from(w[0]) << 8 | w.get(1).map_or(0, |b| u32::from(*b)));
    let mut sum = words.sum::<u32>() + u32::from(low) + 58;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let sum = !u16::try_from(sum).unwrap_or(0);
    packet[42..44].copy_from_slice(&sum.to_be_bytes());
}

fn check(link: &mut Link, packet: &[u8]) {
    let group = ndp::group_mac(ndp::solicited_node(OWNED));
    let frame = ethernet::frame(group, Mac([2; 6]), ethernet::IPV6, packet);
    let heard = link.receive(&frame, Duration::from_secs(9));
    for answer in heard.frames {
        let frame = Frame::parse(&answer).expect("a frame");
        let message = ndp::Message::parse(frame.payload).expect("a valid message");
        assert_eq!((message.source, message.target), (OWNED, OWNED));
        assert_eq!((frame.source, message.mac), (US, Some(US)));
    }
    if let Some(message) = ndp::Message::parse(packet) {
        let again = ndp::Message::parse(&message.bytes());
        assert_eq!(again, Some(message));
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut link = Link::new(US);
    link.own(IpAddr::V6(OWNED), Duration::ZERO);
    check(&mut link, bytes);
    let mut packet = bytes.to_vec();
    mend(&mut packet);
    check(&mut link, &packet);
});
