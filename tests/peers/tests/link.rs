//! Kernels that resolve addresses which a machine of ours owns.

use std::net::{IpAddr, UdpSocket};

use portolan_announce::l2::Mac;
use portolan_peers::answerer::Answerer;
use portolan_peers::place::{OUR_MAC, THEIR_MAC, THEIRS};
use portolan_peers::{Place, inside, until};

const ADDRESSES: [&str; 2] = ["192.0.2.10", "2001:db8::12:3456"];
const OTHER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 9];

/// Makes the neighbour's kernel look for an address: it must ask before it can send.
fn look_for(place: &Place, address: IpAddr) {
    let sent = place.theirs.run(|| -> std::io::Result<usize> {
        let any: IpAddr = match address {
            IpAddr::V4(_) => [0, 0, 0, 0].into(),
            IpAddr::V6(_) => [0_u16; 8].into(),
        };
        UdpSocket::bind((any, 0))?.send_to(b"x", (address, 9))
    });
    sent.expect("the namespace").expect("a datagram");
}

/// The link-layer address that the neighbour's kernel knows for an address.
fn known(place: &Place, address: &str) -> Option<String> {
    let said = place
        .there(&["ip", "neigh", "show", "to", address])
        .expect("ip");
    let words: Vec<&str> = said.split_whitespace().collect();
    let at = words.iter().position(|word| *word == "lladdr")?;
    words.get(at + 1).map(|word| (*word).to_owned())
}

#[test]
fn l8_a_kernel_finds_the_owner_of_an_address() {
    if !inside("l8_a_kernel_finds_the_owner_of_an_address") {
        return;
    }
    let place = Place::new().unwrap();
    let mut owner = Answerer::start(&place.ours, place.link, OUR_MAC).unwrap();
    for address in ADDRESSES {
        let parsed: IpAddr = address.parse().unwrap();
        // Nobody answers before it is owned.
        look_for(&place, parsed);
        until("the question", || (owner.step().unwrap() > 0).then_some(()));
        assert_eq!(known(&place, address), None);
        owner.own(parsed).unwrap();
        let mac = until("an answer", || {
            look_for(&place, parsed);
            owner.step().unwrap();
            known(&place, address)
        });
        assert_eq!(mac, Mac(OUR_MAC).to_string());
    }
    assert_eq!(owner.conflicts, []);
}

/// A take-over: the announcement alone moves what the kernel knows.
#[test]
fn l8_a_kernel_follows_a_takeover() {
    if !inside("l8_a_kernel_follows_a_takeover") {
        return;
    }
    let place = Place::new().unwrap();
    let mut first = Answerer::start(&place.ours, place.link, OUR_MAC).unwrap();
    for address in ADDRESSES {
        let parsed: IpAddr = address.parse().unwrap();
        first.own(parsed).unwrap();
        until("the first owner", || {
            look_for(&place, parsed);
            first.step().unwrap();
            known(&place, address)
        });
        assert!(first.link.release(parsed));
        let mut second = Answerer::start(&place.ours, place.link, OTHER_MAC).unwrap();
        second.own(parsed).unwrap();
        let expected = Mac(OTHER_MAC).to_string();
        until("the second owner", || {
            second.step().unwrap();
            (known(&place, address)? == expected).then_some(())
        });
    }
}

/// Who tries to take an owned address finds it taken.
#[test]
fn l8_an_owned_address_is_defended() {
    if !inside("l8_an_owned_address_is_defended") {
        return;
    }
    let place = Place::new().unwrap();
    let mut owner = Answerer::start(&place.ours, place.link, OUR_MAC).unwrap();
    let [four, six] = ADDRESSES;
    owner.own(six.parse().unwrap()).unwrap();
    owner.own(four.parse().unwrap()).unwrap();
    until("the announcements", || {
        owner.step().unwrap();
        owner.link.deadline()
    });
    let whole = format!("{six}/64");
    place
        .there(&["ip", "-6", "address", "add", &whole, "dev", THEIRS])
        .unwrap();
    until("a duplicate that is found", || {
        owner.step().unwrap();
        let said = place
            .there(&["ip", "-6", "address", "show", "dev", THEIRS])
            .unwrap();
        said.contains("dadfailed").then_some(())
    });
    // IPv4 of the kernel does not ask before: its announcement is a claim.
    let whole = format!("{four}/24");
    place
        .there(&["ip", "address", "add", &whole, "dev", THEIRS])
        .unwrap();
    let claim = until("a claim that is noticed", || {
        owner.step().unwrap();
        place.there(&["ip", "neigh", "flush", "all"]).unwrap();
        // From the claimed address, the kernel asks for one of ours.
        let sent = place
            .theirs
            .run(|| UdpSocket::bind((four, 0))?.send_to(b"x", ("192.0.2.1", 9)));
        drop(sent);
        owner.conflicts.first().copied()
    });
    assert_eq!(claim.address, four.parse::<IpAddr>().unwrap());
    assert_eq!(claim.mac, Mac(THEIR_MAC));
}

/// The filter leaves out what is not about addresses.
#[test]
fn other_frames_are_not_heard() {
    if !inside("other_frames_are_not_heard") {
        return;
    }
    let place = Place::new().unwrap();
    let mut owner = Answerer::start(&place.ours, place.link, OUR_MAC).unwrap();
    let ours: IpAddr = "192.0.2.1".parse().unwrap();
    // The kernels know each other before anything is counted.
    until("the kernels to know each other", || {
        look_for(&place, ours);
        known(&place, "192.0.2.1")
    });
    let neighbours = place.there(&[
        "ip",
        "neigh",
        "replace",
        "192.0.2.1",
        "lladdr",
        &Mac(OUR_MAC).to_string(),
        "nud",
        "permanent",
        "dev",
        THEIRS,
    ]);
    neighbours.unwrap();
    while owner.step().unwrap() > 0 {}
    for _ in 0..100 {
        look_for(&place, ours);
    }
    // What is asked last arrives last: all before it have been looked at.
    let mut count = 0;
    let last: IpAddr = "192.0.2.77".parse().unwrap();
    look_for(&place, last);
    until("the last question", || {
        count += owner.step().unwrap();
        (count > 0).then_some(())
    });
    assert!(count < 50, "{count} frames of 100 datagrams came through");
}
