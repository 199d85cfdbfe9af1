//! Packets through rulesets, without a kernel.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::net::IpAddr;

use portolan_nft::interp::{Env, Outcome, Packet, run, run_incoming, run_outgoing};
use portolan_nft::{
    Chain, ChainType, CtState, CtStatus, Family, FibType, Field, Hook, Key, MatchOp, Name,
    RejectKind, Rule, Ruleset, Set, Statement, Table, TableId, Tuple, Value, Verdict,
};

use ChainType::{Filter, Nat};
use Hook::{Forward, Output, Postrouting, Prerouting};

const BIT: u32 = 0x4000;
const FRONTEND: [Field; 3] = [Field::Daddr, Field::L4Proto, Field::Dport];
const SERVICE: &str = "10.96.0.1";
const NODE: &str = "172.18.0.2";
const CLIENT: &str = "10.244.1.7";
const ENDPOINTS: [&str; 3] = ["10.244.1.2", "10.244.2.2", "10.244.2.3"];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// A node with one address, where every number generator gives one number.
struct World {
    number: u32,
}

impl Env for World {
    fn numgen(&mut self, _: &Name, _: u32) -> u32 {
        self.number
    }

    fn fib(&self, addr: IpAddr) -> FibType {
        if addr == ip(NODE) || addr == ip("fd00::2") {
            FibType::Local
        } else {
            FibType::Unicast
        }
    }

    fn route(&self, packet: &Packet) -> Option<String> {
        Some(format!("to {}", packet.daddr))
    }
}

fn goto(chain: &str) -> Verdict {
    Verdict::Goto(chain.into())
}

fn jump(chain: &str) -> Verdict {
    Verdict::Jump(chain.into())
}

/// One Service with three endpoints, a node port, and one without endpoints.
fn services() -> Table {
    let tcp = Value::Proto(6);
    let front = |port| [ip(SERVICE).into(), tcp.clone(), Value::Port(port)];
    let mut table = Table::default();
    let mut put = |name: &str, set: Set| table.sets.insert(name.into(), set);
    put("services", Set::vmap(FRONTEND).with(front(80), goto("n3")));
    put(
        "refused",
        Set::vmap(FRONTEND).with(front(81), goto("refuse")),
    );
    let ports = Set::vmap([Field::L4Proto, Field::Dport]);
    put(
        "nodeports",
        ports.with([tcp.clone(), Value::Port(30080)], goto("outside")),
    );
    let key = [Field::Daddr, Field::L4Proto, Field::Dport, Field::random(1)];
    let mut endpoints = Set::map(key, [Field::Daddr, Field::Dport]);
    for (slot, endpoint) in (0..).zip(ENDPOINTS) {
        for frontend in [
            front(80),
            [ip(NODE).into(), tcp.clone(), Value::Port(30080)],
        ] {
            let [addr, proto, port] = frontend;
            let to = [ip(endpoint).into(), Value::Port(8080)];
            endpoints = endpoints.with([addr, proto, port, Value::Number(slot)], to);
        }
    }
    put("endpoints", endpoints);
    let spread = [Field::Daddr, Field::L4Proto, Field::Dport, Field::random(3)];
    let mut chain = |name: &str, chain| table.chains.insert(name.into(), chain);
    let dispatch = Rule::new().vmap(FRONTEND, "services");
    let local = Rule::new()
        .eq(Field::FibDaddrType, Value::Fib(FibType::Local))
        .vmap([Field::L4Proto, Field::Dport], "nodeports");
    chain(
        "nat-pre",
        Chain::base(Nat, Prerouting, -100, [dispatch.clone(), local]),
    );
    chain("nat-out", Chain::base(Nat, Output, -100, [dispatch]));
    chain(
        "early",
        Chain::base(
            Filter,
            Prerouting,
            -110,
            [Rule::new().vmap(FRONTEND, "refused")],
        ),
    );
    let marked = Rule::new()
        .mark_has(BIT)
        .then(Statement::Masquerade { fully_random: true });
    chain("nat-post", Chain::base(Nat, Postrouting, 100, [marked]));
    let refuse = [
        Rule::new()
            .eq(Field::L4Proto, tcp)
            .then(Statement::Reject(RejectKind::TcpReset)),
        Rule::new().then(Statement::Reject(RejectKind::PortUnreachable)),
    ];
    chain("refuse", Chain::regular(refuse));
    chain(
        "n3",
        Chain::regular([Rule::new().dnat_map(spread, "endpoints")]),
    );
    let mark = Rule::new().set_mark_bits(BIT);
    chain(
        "outside",
        Chain::regular([mark, Rule::new().verdict(goto("n3"))]),
    );
    table
}

fn of(table: Table) -> Ruleset {
    Ruleset::new().with(TableId::new(Family::Ip, "portolan"), table)
}

fn accepted(outcome: Outcome) -> portolan_nft::interp::Passed {
    match outcome {
        Outcome::Accept(passed) => passed,
        Outcome::Drop(hook) => panic!("dropped at {}", hook.name()),
        Outcome::Reject(hook, kind) => panic!("rejected at {}: {kind:?}", hook.name()),
    }
}

#[test]
fn every_slot_leads_to_its_endpoint() {
    let ruleset = of(services());
    let packet = Packet::tcp(ip(CLIENT), ip(SERVICE), 80);
    let reached: BTreeSet<IpAddr> = (0..3)
        .map(|number| {
            let passed = accepted(run_incoming(&ruleset, &packet, &mut World { number }));
            assert!(passed.dnat);
            assert_eq!(passed.masquerade, None);
            assert_eq!(passed.packet.dport, 8080);
            assert_eq!(passed.packet.ct_status, CtStatus::DNAT);
            assert_eq!(passed.packet.oif, format!("to {}", passed.packet.daddr));
            passed.packet.daddr
        })
        .collect();
    assert_eq!(reached, ENDPOINTS.map(ip).into_iter().collect());
}

#[test]
fn other_ports_protocols_and_families_pass_untouched() {
    let ruleset = of(services());
    let mut udp = Packet::tcp(ip(CLIENT), ip(SERVICE), 80);
    udp.proto = 17;
    let port = Packet::tcp(ip(CLIENT), ip(SERVICE), 82);
    let ip6 = Packet::tcp(ip("fd00::7"), ip("fd00::1"), 80);
    for packet in [udp, port, ip6] {
        let passed = accepted(run_incoming(&ruleset, &packet, &mut World { number: 0 }));
        assert!(!passed.dnat);
        assert_eq!(passed.packet.daddr, packet.daddr);
    }
}

#[test]
fn a_node_port_is_marked_and_masqueraded() {
    let ruleset = of(services());
    let packet = Packet::tcp(ip("172.18.0.1"), ip(NODE), 30080);
    let passed = accepted(run_incoming(&ruleset, &packet, &mut World { number: 1 }));
    assert_eq!(passed.packet.daddr, ip(ENDPOINTS[1]));
    assert_eq!(passed.packet.mark, BIT);
    assert_eq!(passed.masquerade, Some(true));
    // The table says nothing of node ports that the node itself sends to.
    let own = accepted(run_outgoing(&ruleset, &packet, &mut World { number: 1 }));
    assert!(!own.dnat);
}

#[test]
fn what_the_node_sends_goes_through_output() {
    let ruleset = of(services());
    let packet = Packet::tcp(ip(NODE), ip(SERVICE), 80);
    let passed = accepted(run_outgoing(&ruleset, &packet, &mut World { number: 2 }));
    assert_eq!(passed.packet.daddr, ip(ENDPOINTS[2]));
}

#[test]
fn a_frontend_without_endpoints_rejects_before_translation() {
    let ruleset = of(services());
    let packet = Packet::tcp(ip(CLIENT), ip(SERVICE), 81);
    let outcome = run_incoming(&ruleset, &packet, &mut World { number: 0 });
    assert_eq!(outcome, Outcome::Reject(Prerouting, RejectKind::TcpReset));
}

#[test]
fn only_packets_that_begin_a_connection_are_translated() {
    let ruleset = of(services());
    for state in [
        CtState::ESTABLISHED,
        CtState::INVALID,
        CtState::UNTRACKED,
        CtState::RELATED,
    ] {
        let mut packet = Packet::tcp(ip(CLIENT), ip(SERVICE), 80);
        packet.ct_state = state;
        let passed = accepted(run_incoming(&ruleset, &packet, &mut World { number: 0 }));
        assert!(!passed.dnat, "{state:?}");
    }
}

/// The mark of a packet after one filter chain, where each rule that is reached
/// sets a bit of its own.
fn mark_after(table: Table) -> u32 {
    let packet = Packet::tcp(ip(CLIENT), ip(SERVICE), 80);
    accepted(run(
        &of(table),
        &packet,
        &[Forward],
        &mut World { number: 0 },
    ))
    .packet
    .mark
}

#[test]
fn jump_returns_and_goto_does_not() {
    let bit = |bit| Rule::new().set_mark_bits(bit);
    let to = |verdict| Rule::new().verdict(verdict);
    let rows = [
        (
            vec![bit(1), to(jump("a")), bit(2)],
            vec![bit(16)],
            1 | 2 | 16,
        ),
        (vec![bit(1), to(goto("a")), bit(2)], vec![bit(16)], 1 | 16),
        (
            vec![to(jump("a")), bit(2)],
            vec![to(Verdict::Return), bit(16)],
            2,
        ),
        (
            vec![to(jump("a")), bit(2)],
            vec![to(Verdict::Accept), bit(16)],
            0,
        ),
        (
            vec![to(jump("a")), bit(2)],
            vec![to(goto("b")), bit(16)],
            2 | 32,
        ),
        (
            vec![to(goto("a")), bit(2)],
            vec![to(jump("b")), bit(16)],
            16 | 32,
        ),
        (vec![to(Verdict::Continue), bit(2)], vec![], 2),
        (vec![to(Verdict::Return), bit(2)], vec![], 0),
    ];
    for (base, a, mark) in rows {
        let mut table = Table::default();
        table
            .chains
            .insert("base".into(), Chain::base(Filter, Forward, 0, base.clone()));
        table.chains.insert("a".into(), Chain::regular(a.clone()));
        table.chains.insert("b".into(), Chain::regular([bit(32)]));
        assert_eq!(mark_after(table), mark, "{base:?} {a:?}");
    }
}

#[test]
fn base_chains_run_by_priority_and_accept_ends_only_one() {
    let mut table = Table::default();
    let last = Rule::new().mark_has(1).set_mark_bits(2);
    table
        .chains
        .insert("a".into(), Chain::base(Filter, Forward, 10, [last]));
    let first = [
        Rule::new().set_mark_bits(1),
        Rule::new().verdict(Verdict::Accept),
    ];
    table
        .chains
        .insert("b".into(), Chain::base(Filter, Forward, -10, first));
    assert_eq!(mark_after(table), 3);
}

#[test]
fn a_drop_names_its_hook() {
    let mut table = Table::default();
    let drop = Rule::new().ct_state(CtState::NEW).verdict(Verdict::Drop);
    table
        .chains
        .insert("a".into(), Chain::base(Filter, Forward, 0, [drop]));
    let packet = Packet::tcp(ip(CLIENT), ip(SERVICE), 80);
    let outcome = run_incoming(&of(table), &packet, &mut World { number: 0 });
    assert_eq!(outcome, Outcome::Drop(Forward));
}

#[test]
fn notrack_before_conntrack_keeps_a_packet_from_translation() {
    let mut table = services();
    let dns = Rule::new()
        .eq(Field::Daddr, ip(SERVICE))
        .then(Statement::Notrack);
    table
        .chains
        .insert("raw".into(), Chain::base(Filter, Prerouting, -300, [dns]));
    let packet = Packet::tcp(ip(CLIENT), ip(SERVICE), 80);
    let passed = accepted(run_incoming(&of(table), &packet, &mut World { number: 0 }));
    assert!(passed.notrack && !passed.dnat);
}

#[test]
fn matches_compare_as_written() {
    let packet = Packet {
        iif: "eth0".into(),
        mark: 0x41,
        ct_mark: 0x80,
        ct_status: CtStatus::SNAT,
        ..Packet::tcp(ip(CLIENT), ip(SERVICE), 80)
    };
    let net = |text: &str| text.parse().unwrap();
    let rows = [
        (Rule::new().eq(Field::Saddr, ip(CLIENT)), true),
        (Rule::new().ne(Field::Saddr, ip(CLIENT)), false),
        (
            Rule::new().net(Field::Saddr, MatchOp::Eq, net("10.244.0.0/16")),
            true,
        ),
        (
            Rule::new().net(Field::Saddr, MatchOp::Ne, net("10.244.0.0/16")),
            false,
        ),
        (
            Rule::new().net(Field::Saddr, MatchOp::Eq, net("10.244.2.0/23")),
            false,
        ),
        (
            Rule::new().net(Field::Saddr, MatchOp::Eq, net("0.0.0.0/0")),
            true,
        ),
        (Rule::new().eq(Field::Sport, Value::Port(40_000)), true),
        (
            Rule::new().eq(Field::IifName, Value::Iface("eth0".into())),
            true,
        ),
        (
            Rule::new().eq(Field::OifName, Value::Iface("eth0".into())),
            false,
        ),
        (Rule::new().mark_has(0x40), true),
        (Rule::new().mark_has(0x42), false),
        (Rule::new().ct_mark_has(0x80), true),
        (Rule::new().ct_mark_has(0x40), false),
        (
            Rule::new().ct_state(CtState::NEW.or(CtState::INVALID)),
            true,
        ),
        (Rule::new().ct_state(CtState::ESTABLISHED), false),
        (
            Rule::new().eq(Field::CtStatus, Value::CtStatus(CtStatus::SNAT)),
            true,
        ),
        (
            Rule::new().eq(Field::FibDaddrType, Value::Fib(FibType::Local)),
            false,
        ),
    ];
    for (rule, matches) in rows {
        let mut table = Table::default();
        let rule = rule.verdict(Verdict::Drop);
        table
            .chains
            .insert("a".into(), Chain::base(Filter, Forward, 0, [rule.clone()]));
        let outcome = run(&of(table), &packet, &[Forward], &mut World { number: 0 });
        assert_eq!(
            outcome == Outcome::Drop(Forward),
            matches,
            "{}",
            rule.text(Family::Ip)
        );
    }
}

#[test]
fn ranges_are_inclusive_in_every_field() {
    let corner = |addr: &str, port| Tuple::from([ip(addr).into(), Value::Port(port)]);
    let range = Key::range(corner("10.0.0.10", 80), corner("10.0.0.20", 90));
    let mut table = Table::default();
    table.sets.insert(
        "r".into(),
        Set::set([Field::Daddr, Field::Dport])
            .interval()
            .with(range, ()),
    );
    let rule = Rule::new()
        .lookup([Field::Daddr, Field::Dport], "r")
        .verdict(Verdict::Drop);
    table
        .chains
        .insert("a".into(), Chain::base(Filter, Forward, 0, [rule]));
    let ruleset = of(table);
    let rows = [
        ("10.0.0.10", 80, true),
        ("10.0.0.20", 90, true),
        ("10.0.0.15", 85, true),
        ("10.0.0.9", 85, false),
        ("10.0.0.21", 85, false),
        ("10.0.0.15", 79, false),
        ("10.0.0.15", 91, false),
    ];
    for (addr, port, inside) in rows {
        let packet = Packet::tcp(ip(CLIENT), ip(addr), port);
        let outcome = run(&ruleset, &packet, &[Forward], &mut World { number: 0 });
        assert_eq!(outcome == Outcome::Drop(Forward), inside, "{addr}:{port}");
    }
}

#[test]
fn a_loop_of_chains_ends() {
    let mut table = Table::default();
    let round = Chain::regular([Rule::new().verdict(jump("a"))]);
    table.chains.insert("a".into(), round);
    let start = Chain::base(Filter, Forward, 0, [Rule::new().verdict(goto("a"))]);
    table.chains.insert("b".into(), start);
    let packet = Packet::tcp(ip(CLIENT), ip(SERVICE), 80);
    let outcome = run(&of(table), &packet, &[Forward], &mut World { number: 0 });
    assert_eq!(outcome, Outcome::Drop(Forward));
}

#[test]
fn who_brought_a_packet_is_kept_with_its_connection() {
    const NEIGHBOUR: [u8; 6] = [2, 0, 0, 0, 0, 7];
    let remember = Statement::SetCtMark {
        and: !0xff,
        or: 0x21,
    };
    let brought = Rule::new()
        .eq(Field::EtherSaddr, Value::Ether(NEIGHBOUR))
        .then(remember);
    let kept = Rule::new()
        .mark_is(Field::CtMark, 0xff, 0x21)
        .then(Statement::KeepSource);
    let all = Rule::new().then(Statement::Masquerade {
        fully_random: false,
    });
    let mut table = Table::default();
    let chains = [
        ("pre", Chain::base(Filter, Prerouting, -150, [brought])),
        ("post", Chain::base(Nat, Postrouting, 90, [kept])),
        ("others", Chain::base(Nat, Postrouting, 100, [all])),
    ];
    for (name, chain) in chains {
        table.chains.insert(name.into(), chain);
    }
    let rows = [
        (Some(NEIGHBOUR), 0x121, None),
        (Some([2; 6]), 0x100, Some(false)),
        (None, 0x100, Some(false)),
    ];
    for (ether, ct_mark, masquerade) in rows {
        let packet = Packet {
            ether,
            ct_mark: 0x100,
            ..Packet::tcp(ip(CLIENT), ip(SERVICE), 80)
        };
        let passed = accepted(run_incoming(
            &of(table.clone()),
            &packet,
            &mut World { number: 0 },
        ));
        assert_eq!(passed.packet.ct_mark, ct_mark);
        assert_eq!(passed.masquerade, masquerade);
    }
}
