//! Packets that rules logged, told by the kernel. The test runs itself again under
//! `unshare -Urn`: rootless, in a user and network namespace of its own.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::time::Duration;

use portolan_kernel::netns::NetNs;
use portolan_kernel::nflog::{Listener, NflogError};
use portolan_kernel::nft::Nft;
use portolan_netns::namespace::inside;
use portolan_nft::{
    Chain, ChainType, Counts, Family, Field, Hook, Rule, Ruleset, Statement, Table, TableId, Value,
    Verdict, diff,
};

const GROUP: u16 = 10_256;
/// Longer than any machine needs.
const PATIENCE: Duration = Duration::from_secs(30);

/// Drops what is sent to port 9 of localhost, and tells of it.
fn ruleset() -> Ruleset {
    let table = TableId::new(Family::Ip, "t");
    let to = |rule: Rule| {
        rule.eq(Field::L4Proto, Value::Proto(17))
            .eq(Field::Dport, Value::Port(9))
    };
    let rules = [
        to(Rule::new()).then(Statement::Log { group: GROUP }),
        to(Rule::new())
            .then(Statement::Counter(Counts::default()))
            .verdict(Verdict::Drop),
    ];
    let chain = Chain::base(ChainType::Filter, Hook::Output, 0, rules);
    let mut made = Table::default();
    made.chains.insert("out".into(), chain);
    Ruleset::new().with(table, made)
}

async fn hears() {
    let here = NetNs::current().unwrap();
    let mut listener = Listener::open(&here, GROUP).unwrap();
    assert!(matches!(
        Listener::open(&here, GROUP),
        Err(NflogError::Join { group: GROUP, .. })
    ));
    let mut kernel = Nft::open_here().unwrap();
    kernel.commit(&diff(&Ruleset::new(), &ruleset())).unwrap();
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    for _ in 0..3 {
        // Dropped on its way out: the sender is told so.
        assert!(socket.send_to(b"hello", (Ipv4Addr::LOCALHOST, 9)).is_err());
    }
    let mut packets = Vec::new();
    while packets.len() < 3 {
        let heard = tokio::time::timeout(PATIENCE, listener.hear()).await;
        let heard = heard.expect("packets are told of").unwrap();
        assert_eq!(heard.lost, 0);
        packets.extend(heard.packets);
    }
    let from = socket.local_addr().unwrap();
    for packet in packets {
        assert_eq!(packet.ends.source, from.ip());
        assert_eq!(packet.ends.ports, Some((from.port(), 9)));
        assert_eq!((packet.ends.protocol, packet.hook), (17, 3));
    }
    let id = TableId::new(Family::Ip, "t");
    let counted = kernel.counted(&id, &"out".into()).unwrap().unwrap();
    assert_eq!(counted.packets, 3);
    assert!(kernel.counted(&id, &"none".into()).unwrap().is_none());
    // A group is free again without its listener.
    drop(listener);
    drop(Listener::open(&here, GROUP).unwrap());
}

#[test]
fn n18_what_is_dropped_is_told_and_counted() {
    if !inside("n18_what_is_dropped_is_told_and_counted") {
        return;
    }
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    assert!(up.unwrap().success());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(hears());
}
