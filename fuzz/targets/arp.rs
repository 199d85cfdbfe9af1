//! Frames with ARP: no bytes panic, and whatever is answered is a valid reply about
//! an address that is owned.
#![no_main]

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use portolan_announce::l2::ethernet::{self, Frame, Mac};
use portolan_announce::l2::{Link, arp};

const US: Mac = Mac([2, 0, 0, 0, 0, 1]);
const OWNED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

fn check(link: &mut Link, bytes: &[u8]) {
    let heard = link.receive(bytes, Duration::from_secs(9));
    for answer in heard.frames {
        let frame = Frame::parse(&answer).expect("a frame");
        let packet = arp::Packet::parse(frame.payload).expect("a packet");
        assert_eq!((frame.source, packet.sender_mac), (US, US));
        assert_eq!(packet.sender, OWNED);
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut link = Link::new(US);
    link.own(IpAddr::V4(OWNED), Duration::ZERO);
    check(&mut link, bytes);
    let whole = ethernet::frame(Mac::BROADCAST, Mac([2; 6]), ethernet::ARP, bytes);
    check(&mut link, &whole);
    if let Some(packet) = arp::Packet::parse(bytes) {
        assert_eq!(arp::Packet::parse(&packet.bytes()), Some(packet));
    }
});
