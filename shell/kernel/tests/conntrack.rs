//! Connection tracking of a real kernel: what is asked for comes, and what is
//! ended is exactly the entry that was meant.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};

use portolan_conntrack::{Entry, Family, Filter, Status};
use portolan_kernel::conntrack::Conntrack;
use portolan_kernel::netns::NetNs;
use portolan_netns::namespace::{inside, nft};

const UDP: u8 = 17;
const LOCALHOST: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// Rules that need connection tracking, so that the namespace has it, and that
/// translate one destination.
const RULES: &str = "
    table inet t {
        chain out { type filter hook output priority 0; ct state new accept; }
        chain nat {
            type nat hook output priority -100;
            meta nfproto ipv4 udp dport 999 dnat ip to 127.0.0.1:1001
        }
    }";

/// A namespace that tracks connections.
fn tracked() -> (NetNs, Conntrack) {
    let ns = NetNs::create().expect("a namespace");
    ns.run(|| nft(&["-f", "-"], RULES)).expect("rules");
    let conntrack = Conntrack::open(&ns).expect("connection tracking");
    (ns, conntrack)
}

/// Sends a datagram and leaves.
fn send(ns: &NetNs, from: SocketAddr, to: SocketAddr) {
    ns.run(|| {
        let socket = UdpSocket::bind(from)?;
        // Nobody needs to listen: the entry is what counts.
        socket.send_to(b"x", to)
    })
    .expect("a thread")
    .expect("a datagram");
}

fn all(conntrack: &mut Conntrack, filter: &Filter) -> Vec<Entry> {
    let mut entries = conntrack
        .pick(filter, |entry| Some(*entry))
        .expect("a dump");
    entries.sort();
    entries
}

fn destinations(entries: &[Entry]) -> Vec<SocketAddr> {
    entries.iter().filter_map(|e| e.original.to()).collect()
}

#[test]
fn a_filter_gives_what_it_asks_for() {
    if !inside("a_filter_gives_what_it_asks_for") {
        return;
    }
    let (ns, mut conntrack) = tracked();
    assert_eq!(all(&mut conntrack, &Filter::default()), []);
    for host in LOCALHOST {
        for port in [1001, 1002] {
            send(&ns, (host, 4000).into(), (host, port).into());
        }
    }
    let [v4, v6] = LOCALHOST;
    ns.run(|| {
        let listener = TcpListener::bind((v4, 1001))?;
        TcpStream::connect(listener.local_addr()?)
    })
    .expect("a thread")
    .expect("a connection");
    let udp = Filter {
        protocol: Some(UDP),
        ..Filter::default()
    };
    assert_eq!(all(&mut conntrack, &Filter::default()).len(), 5);
    assert_eq!(all(&mut conntrack, &udp).len(), 4);
    let of_v6 = Filter {
        family: Some(Family::V6),
        ..udp
    };
    let there = [(v6, 1001).into(), (v6, 1002).into()];
    assert_eq!(destinations(&all(&mut conntrack, &of_v6)), there);
    let at_port = Filter {
        destination_port: Some(1002),
        ..udp
    };
    let there = [(v4, 1002).into(), (v6, 1002).into()];
    assert_eq!(destinations(&all(&mut conntrack, &at_port)), there);
    let one = Filter {
        destination: Some(v4),
        ..at_port
    };
    assert_eq!(
        destinations(&all(&mut conntrack, &one)),
        [(v4, 1002).into()]
    );
    let one = Filter {
        destination: Some(v6),
        ..at_port
    };
    let there = destinations(&all(&mut conntrack, &one));
    assert_eq!(
        there,
        [(v6, 1002).into()],
        "the kernel's own filter would leave it out"
    );
    let answered = Filter {
        status: Some((Status::SEEN_REPLY, Status::SEEN_REPLY)),
        ..Filter::default()
    };
    let seen = all(&mut conntrack, &answered);
    assert!(seen.iter().all(|e| e.status.has(Status::SEEN_REPLY)));
    assert_eq!(seen.len(), 1, "the TCP connection");
}

#[test]
fn a_translation_shows() {
    if !inside("a_translation_shows") {
        return;
    }
    let (ns, mut conntrack) = tracked();
    let [v4, _] = LOCALHOST;
    send(&ns, (v4, 4000).into(), (v4, 999).into());
    let [entry] = all(&mut conntrack, &Filter::default())[..] else {
        panic!("one entry");
    };
    assert_eq!(entry.original.to(), Some((v4, 999).into()));
    assert_eq!(entry.original.from(), Some((v4, 4000).into()));
    assert_eq!(entry.reply.from(), Some((v4, 1001).into()));
    assert!(entry.is_translated());
    assert!(entry.status.has(Status::DESTINATION_TRANSLATED));
    assert!(entry.timeout > 0);
    assert!(conntrack.own_addresses().expect("addresses").contains(&v4));
}

#[test]
fn p17_an_entry_with_the_tuple_of_one_that_is_gone_stays() {
    if !inside("p17_an_entry_with_the_tuple_of_one_that_is_gone_stays") {
        return;
    }
    let (ns, mut conntrack) = tracked();
    let [v4, _] = LOCALHOST;
    let again = || send(&ns, (v4, 4000).into(), (v4, 1001).into());
    again();
    let old = all(&mut conntrack, &Filter::default());
    assert_eq!(conntrack.delete(&old).expect("a deletion"), 1);
    assert_eq!(all(&mut conntrack, &Filter::default()), []);
    assert_eq!(conntrack.delete(&old).expect("nothing to do"), 0);
    again();
    let new = all(&mut conntrack, &Filter::default());
    assert_eq!(new[0].original, old[0].original);
    // The kernel makes ids of the memory where an entry lies, which may be the same.
    if new[0].id != old[0].id {
        assert_eq!(conntrack.delete(&old).expect("nothing to do"), 0);
        assert_eq!(all(&mut conntrack, &Filter::default()).len(), 1);
    }
    let other = Entry {
        id: new[0].id.wrapping_add(1),
        ..new[0]
    };
    assert_eq!(conntrack.delete(&[other]).expect("nothing to do"), 0);
    assert_eq!(all(&mut conntrack, &Filter::default()).len(), 1);
}

#[test]
fn many_entries_come_and_go() {
    if !inside("many_entries_come_and_go") {
        return;
    }
    const COUNT: u16 = 3000;
    let (ns, mut conntrack) = tracked();
    let [v4, _] = LOCALHOST;
    ns.run(|| {
        let socket = UdpSocket::bind((v4, 4000))?;
        (0..COUNT).try_for_each(|n| socket.send_to(b"x", (v4, 10_000 + n)).map(drop))
    })
    .expect("a thread")
    .expect("datagrams");
    let mut entries = all(&mut conntrack, &Filter::default());
    entries.dedup();
    assert_eq!(entries.len(), usize::from(COUNT));
    let (odd, even): (Vec<Entry>, Vec<Entry>) = entries
        .iter()
        .partition(|e| e.original.to().is_some_and(|to| to.port() % 2 == 1));
    assert_eq!(conntrack.delete(&odd).expect("a deletion"), odd.len());
    let left = destinations(&all(&mut conntrack, &Filter::default()));
    assert_eq!(left, destinations(&even));
}

#[test]
fn bits_of_a_mark_are_set_and_the_others_stay() {
    if !inside("bits_of_a_mark_are_set_and_the_others_stay") {
        return;
    }
    let (ns, mut conntrack) = tracked();
    for (place, address) in LOCALHOST.into_iter().enumerate() {
        send(&ns, (address, 4000).into(), (address, 1001).into());
        send(&ns, (address, 4000).into(), (address, 1002).into());
        let entries = || {
            let mut conntrack = Conntrack::open(&ns).expect("conntrack");
            let mut entries = all(&mut conntrack, &Filter::default());
            entries.retain(|entry| entry.original.source == address);
            entries.sort_by_key(|entry| entry.original.to().map(|to| to.port()));
            entries
        };
        let marks = || entries().iter().map(|entry| entry.mark).collect::<Vec<_>>();
        assert_eq!(marks(), [0, 0], "{place}");
        let one = &entries()[..1];
        for (value, mask, expected) in [
            (0x2000_0001, 0x2000_0001, 0x2000_0001),
            (0, 1, 0x2000_0000),
            (0x10, 0x10, 0x2000_0010),
            (0, 0x2000_0000, 0x10),
        ] {
            assert_eq!(conntrack.mark(one, (value, mask)).expect("a mark"), 1);
            assert_eq!(marks(), [expected, 0], "only the one, only the bits");
            let marked = Filter {
                mark: Some((0x2000_0000, 0x2000_0000)),
                ..Filter::default()
            };
            let found = all(&mut conntrack, &marked).len();
            assert_eq!(found, usize::from(expected & 0x2000_0000 != 0));
        }
        conntrack.delete(one).expect("a deletion");
        assert_eq!(conntrack.mark(one, (1, 1)).expect("nothing to do"), 0);
        assert_eq!(entries().len(), 1, "none is made");
    }
}
