//! A ruleset that uses everything the language has, in both families.

pub(crate) mod random;

use std::net::IpAddr;

use ipnet::IpNet;
use portolan_nft::{
    Chain, ChainType, Compare, Counts, CtState, CtStatus, Data, DnatTo, DynOp, Family, FibType,
    Field, Hook, Key, MatchOp, Name, RejectKind, Rule, Ruleset, Set, Statement, Table, TableId,
    Tuple, Value, Verdict,
};

const TCP: Value = Value::Proto(6);
const FRONTEND: [Field; 3] = [Field::Daddr, Field::L4Proto, Field::Dport];
const BIT: u32 = 0x4000;

/// Addresses of a family: the n-th of network 10.0.net.0 or fd00:net::.
pub(crate) fn addr(family: Family, net: u8, n: u8) -> IpAddr {
    match family {
        Family::Ip => IpAddr::from([10, 0, net, n]),
        Family::Ip6 => IpAddr::from([0xfd00, u16::from(net), 0, 0, 0, 0, 0, u16::from(n)]),
    }
}

/// The range of such a network.
pub(crate) fn net(family: Family, net: u8) -> IpNet {
    let len = match family {
        Family::Ip => 24,
        Family::Ip6 => 64,
    };
    IpNet::new(addr(family, net, 0), len).unwrap()
}

/// A network as a key of an interval set of addresses.
pub(crate) fn range(net: IpNet) -> Key {
    let [first, last] = [net.network(), net.broadcast()].map(|addr| Tuple::from([addr.into()]));
    Key::range(first, last)
}

/// The chain that spreads over `count` endpoints.
pub(crate) fn spread(count: u32) -> Chain {
    let key = [
        Field::Daddr,
        Field::L4Proto,
        Field::Dport,
        Field::random(count),
    ];
    Chain::regular([Rule::new().dnat_map(key, "endpoints")])
}

/// An element of `services`.
pub(crate) fn service(family: Family, n: u8, port: u16, verdict: Verdict) -> (Key, Data) {
    let key = [addr(family, 96, n).into(), TCP, Value::Port(port)];
    (key.into(), verdict.into())
}

/// An element of `endpoints`.
pub(crate) fn endpoint(family: Family, n: u8, port: u16, slot: u32, to: u8) -> (Key, Data) {
    let key = [
        addr(family, 96, n).into(),
        TCP,
        Value::Port(port),
        Value::Number(slot),
    ];
    let data = [addr(family, 244, to).into(), Value::Port(8080)];
    (key.into(), data.into())
}

pub(crate) fn table(family: Family) -> Table {
    let mut table = Table {
        comment: Some("tables have comments".into()),
        ..Table::default()
    };
    sets(family, &mut table);
    more_sets(family, &mut table);
    small_sets(family, &mut table);
    bases(family, &mut table);
    let mut chain = |name: &str, chain| table.chains.insert(name.into(), chain);
    chain("n1", spread(1));
    chain("n3", spread(3).comment("three endpoints"));
    chain("tag", Chain::regular([Rule::new().set_mark_bits(BIT)]));
    chain("statements", Chain::regular(statements(family)));
    chain("learn", Chain::regular(learn(family)));
    chain("empty", Chain::regular([]));
    table
}

fn sets(family: Family, table: &mut Table) {
    let mut put = |name: &str, set: Set| table.sets.insert(Name::from(name), set);
    let mut services = Set::vmap(FRONTEND);
    let goto = |chain: &str| Verdict::Goto(chain.into());
    services.elements.extend([
        service(family, 1, 443, goto("n1")),
        service(family, 10, 53, goto("n3")),
        service(family, 10, 9153, Verdict::Drop),
    ]);
    put("services", services);
    let mut endpoints = Set::map(
        [Field::Daddr, Field::L4Proto, Field::Dport, Field::random(1)],
        [Field::Daddr, Field::Dport],
    );
    endpoints.elements.extend([
        endpoint(family, 1, 443, 0, 2),
        endpoint(family, 10, 53, 0, 3),
        endpoint(family, 10, 53, 1, 4),
        endpoint(family, 10, 53, 2, 5),
    ]);
    put("endpoints", endpoints);
    let ports = Set::vmap([Field::L4Proto, Field::Dport]).comment("node ports");
    put(
        "nodeports",
        ports.with([TCP, Value::Port(30080)], Verdict::Jump("tag".into())),
    );
}

/// Ranges, and sets that rules fill.
fn more_sets(family: Family, table: &mut Table) {
    let mut put = |name: &str, set: Set| table.sets.insert(Name::from(name), set);
    let pods = Set::set([Field::Saddr]).interval();
    let edge = addr(family, 99, 9);
    put(
        "pods",
        pods.with(range(net(family, 1)), ())
            .with(range(net(family, 2)), ())
            .with([addr(family, 4, 7).into()], ())
            .with(
                Key::range([addr(family, 99, 1).into()].into(), [edge.into()].into()),
                (),
            ),
    );
    let peers = Set::set([Field::Saddr, Field::Daddr, Field::L4Proto, Field::Dport]).interval();
    let corner = |host: u8, port| {
        let [saddr, daddr] = [addr(family, 1, host), addr(family, 96, 1)];
        Tuple::from([saddr.into(), daddr.into(), TCP, Value::Port(port)])
    };
    put(
        "peers",
        peers.with(Key::range(corner(0, 80), corner(255, 90)), ()),
    );
    let mut affinity = Set::map([Field::Saddr], [Field::Daddr]).dynamic(65_535, 10_800_000);
    affinity.comment = Some("learned".into());
    put("affinity", affinity);
    let homes = Set::map([Field::Saddr, Field::Dport], [Field::Daddr]);
    let visitor = [addr(family, 1, 1).into(), Value::Port(25)];
    put("homes", homes.with(visitor, [addr(family, 2, 2).into()]));
    put("clients", Set::set([Field::Saddr]).dynamic(100, 90_500));
    let frontend = [Field::Saddr, Field::Daddr, Field::L4Proto, Field::Dport];
    let stuck = Set::map(frontend, [Field::Daddr, Field::Dport]);
    put("stuck", stuck.dynamic(65_535, 10_800_000));
}

/// Sets of every other field.
fn small_sets(family: Family, table: &mut Table) {
    let mut put = |name: &str, set: Set| table.sets.insert(Name::from(name), set);
    let links = Set::set([Field::IifName]).with([Value::Iface("eth0".into())], ());
    put("links", links.with([Value::Iface("lo".into())], ()));
    let protocols = Set::set([Field::L4Proto])
        .with([TCP], ())
        .with([Value::Proto(17)], ());
    put("protocols", protocols.with([Value::Proto(132)], ()));
    let mut ports = Set::set([Field::Dport]);
    ports.size = Some(100);
    for port in [1, 80, 443, 8080, 9090, 65_535, 256] {
        ports = ports.with([Value::Port(port)], ());
    }
    put("ports", ports);
    let marks = Set::map([Field::Daddr], [Field::Mark]);
    put(
        "marks",
        marks.with([addr(family, 1, 1).into()], [Value::Mark(BIT)]),
    );
    let kinds = Set::set([Field::FibDaddrType, Field::Daddr]);
    put(
        "kinds",
        kinds.with([Value::Fib(FibType::Local), addr(family, 0, 1).into()], ()),
    );
}

/// Some packets are told of.
fn logged() -> Rule {
    let (rate, burst) = (100, 200);
    let limited = Rule::new().then(Statement::Limit { rate, burst });
    limited.then(Statement::Log { group: 10_256 })
}

fn bases(family: Family, table: &mut Table) {
    use ChainType::{Filter, Nat};
    use Hook::{Forward, Input, Output, Postrouting, Prerouting};
    let mut base = |name: &str, kind, hook, priority, rules: Vec<Rule>| {
        table
            .chains
            .insert(name.into(), Chain::base(kind, hook, priority, rules));
    };
    let dispatch = || Rule::new().vmap(FRONTEND, "services");
    let node_port = Rule::new()
        .eq(Field::FibDaddrType, Value::Fib(FibType::Local))
        .vmap([Field::L4Proto, Field::Dport], "nodeports");
    base(
        "nat-prerouting",
        Nat,
        Prerouting,
        -100,
        vec![dispatch(), node_port],
    );
    base("nat-output", Nat, Output, -110, vec![dispatch()]);
    base("nat-postrouting", Nat, Postrouting, 100, sources());
    let dns = [addr(family, 96, 10).into(), Value::Port(53)];
    let [resolver, port] = dns;
    let raw = Rule::new()
        .eq(Field::Daddr, resolver)
        .eq(Field::L4Proto, Value::Proto(17))
        .eq(Field::Dport, port)
        .then(Statement::Notrack);
    base("raw", Filter, Prerouting, -300, vec![raw]);
    base("who-brought-it", Filter, Prerouting, -150, neighbours());
    let refuse = |kind| Statement::Reject(kind);
    base(
        "filter-forward",
        Filter,
        Forward,
        0,
        vec![
            logged(),
            Rule::new().then(Statement::Limit { rate: 7, burst: 5 }),
            Rule::new()
                .ct_state(CtState::INVALID)
                .verdict(Verdict::Drop),
            Rule::new()
                .ct_state(CtState::ESTABLISHED.or(CtState::RELATED))
                .verdict(Verdict::Accept),
            Rule::new()
                .eq(Field::L4Proto, TCP)
                .then(refuse(RejectKind::TcpReset)),
            Rule::new().then(refuse(RejectKind::AdminProhibited)),
        ],
    );
    base(
        "filter-input",
        Filter,
        Input,
        5,
        vec![Rule::new().then(refuse(RejectKind::PortUnreachable))],
    );
    base("late", Filter, Output, 11, vec![]);
}

/// What becomes of sources.
fn sources() -> Vec<Rule> {
    let masquerade = |fully_random| Statement::Masquerade { fully_random };
    vec![
        Rule::new().mark_has(BIT).then(masquerade(true)),
        Rule::new().ct_mark_has(BIT).verdict(Verdict::Drop),
        Rule::new()
            .mark_is(Field::CtMark, 0xff00, 0x200)
            .then(Statement::KeepSource),
        Rule::new()
            .lookup([Field::Saddr], "pods")
            .then(masquerade(false)),
    ]
}

/// By whom a packet came is kept with its connection.
fn neighbours() -> Vec<Rule> {
    let neighbour = Value::Ether([2, 0x42, 0xac, 18, 0, 3]);
    let remember = Statement::SetCtMark {
        and: !0xff00,
        or: 0x200,
    };
    vec![
        Rule::new()
            .ct_state(CtState::NEW)
            .eq(Field::EtherSaddr, neighbour.clone())
            .then(remember),
        Rule::new()
            .ne(Field::EtherSaddr, neighbour)
            .then(Statement::SetCtMark {
                and: !0xff00,
                or: 0,
            }),
    ]
}

fn counted(rule: Rule) -> Rule {
    rule.then(Statement::Counter(Counts::default()))
}

fn statements(family: Family) -> Vec<Rule> {
    let rule = Rule::new;
    let any = |field, op, bits| Statement::Match(field, op, Compare::Any(bits));
    let cleared = Compare::Masked {
        mask: BIT,
        value: 0,
    };
    let wide = match family {
        Family::Ip => "172.16.0.0/12",
        Family::Ip6 => "fd00:a::/45",
    };
    let wide: IpNet = wide.parse().unwrap();
    let empty = Name::from("empty");
    let alone = IpNet::from(addr(family, 3, 1)).prefix_len();
    let alone = Compare::Prefix(addr(family, 3, 1).into(), alone);
    let mut rules = vec![
        counted(rule().then(Statement::Match(Field::Saddr, MatchOp::Eq, alone))),
        counted(rule().net(Field::Saddr, MatchOp::Eq, net(family, 3))),
        rule()
            .net(Field::Daddr, MatchOp::Ne, wide)
            .verdict(Verdict::Return)
            .comment("not ours"),
        rule()
            .ne(Field::Saddr, addr(family, 3, 3))
            .verdict(Verdict::Continue),
        rule()
            .then(Statement::Match(Field::Mark, MatchOp::Ne, cleared))
            .verdict(Verdict::Accept),
        rule()
            .ne(Field::Mark, Value::Mark(7))
            .verdict(Verdict::Drop),
        rule()
            .eq(Field::IifName, Value::Iface("lo".into()))
            .verdict(Verdict::Jump(empty.clone())),
        rule()
            .ne(Field::OifName, Value::Iface("eth0".into()))
            .verdict(Verdict::Goto(empty)),
        counted(rule().then(any(Field::CtState, MatchOp::Ne, CtState::NEW.0))),
        counted(rule().then(any(Field::CtStatus, MatchOp::Eq, CtStatus::DNAT.0))),
        rule().then(Statement::SetMark { and: !BIT, or: 0 }),
        rule().then(Statement::SetMark {
            and: 0xffff_0000,
            or: 3,
        }),
    ];
    rules.extend(lookups());
    rules
}

fn lookups() -> Vec<Rule> {
    let rule = Rule::new;
    let peer = [Field::Saddr, Field::Daddr, Field::L4Proto, Field::Dport];
    let http = Value::Port(80);
    vec![
        counted(rule().lookup([Field::IifName], "links")),
        counted(rule().not_in([Field::Saddr], "pods")),
        counted(rule().lookup(peer, "peers")),
        counted(rule().lookup([Field::FibDaddrType, Field::Daddr], "kinds")),
        counted(rule().lookup([Field::Dport], "ports")),
        counted(
            rule()
                .eq(Field::L4Proto, TCP)
                .lookup([Field::Sport], "ports"),
        ),
        counted(
            rule()
                .ne(Field::L4Proto, TCP)
                .eq(Field::Dport, http.clone()),
        ),
        counted(rule().eq(Field::L4Proto, TCP)).eq(Field::Dport, http),
    ]
}

fn learn(family: Family) -> Vec<Rule> {
    let client = vec![Field::Saddr];
    let to = |addr: IpAddr, port| Statement::Dnat(DnatTo::Value(addr.into(), port));
    let mut rules = vec![
        Rule::new().then(Statement::Dynset {
            op: DynOp::Update,
            set: "affinity".into(),
            key: vec![Field::Saddr],
            data: Some(vec![Field::Daddr]),
            timeout_ms: Some(30_000),
        }),
        Rule::new().then(Statement::Dynset {
            op: DynOp::Add,
            set: "clients".into(),
            key: client.clone(),
            data: None,
            timeout_ms: None,
        }),
        Rule::new().then(Statement::Dynset {
            op: DynOp::Delete,
            set: "clients".into(),
            key: client,
            data: None,
            timeout_ms: None,
        }),
        Rule::new().then(Statement::Dnat(DnatTo::Map {
            key: vec![Field::Saddr, Field::Dport],
            map: "homes".into(),
            port: false,
        })),
        Rule::new().then(Statement::Dnat(DnatTo::Map {
            key: vec![Field::Saddr],
            map: "affinity".into(),
            port: false,
        })),
        Rule::new()
            .eq(Field::L4Proto, TCP)
            .then(to(IpAddr::from([10, 0, 0, 1]), Some(80))),
        Rule::new().then(to(IpAddr::from([10, 0, 0, 1]), None)),
    ];
    // nft 1.0.6 aborts when it loads these for IPv6.
    if family == Family::Ip {
        rules.extend(stuck());
    }
    rules
}

/// A client that stays with an address and port.
fn stuck() -> [Rule; 2] {
    [
        // nft takes `proto-dst` for a port only where it knows the protocol.
        counted(Rule::new().eq(Field::L4Proto, TCP)).then(Statement::Dynset {
            op: DynOp::Update,
            set: "stuck".into(),
            key: vec![
                Field::Saddr,
                Field::OrigDaddr,
                Field::L4Proto,
                Field::OrigDport,
            ],
            data: Some(vec![Field::Daddr, Field::Dport]),
            timeout_ms: Some(10_800_000),
        }),
        Rule::new().dnat_map(
            [Field::Saddr, Field::Daddr, Field::L4Proto, Field::Dport],
            "stuck",
        ),
    ]
}

/// The whole.
pub(crate) fn ruleset() -> Ruleset {
    let mut ruleset = Ruleset::new();
    for family in [Family::Ip, Family::Ip6] {
        let mut table = table(family);
        if family == Family::Ip6 {
            for chain in table.chains.values_mut() {
                for statement in chain.rules.iter_mut().flat_map(|rule| &mut rule.statements) {
                    if let Statement::Dnat(DnatTo::Value(to, _)) = statement {
                        *to = Value::from(addr(family, 0, 1));
                    }
                }
            }
        }
        ruleset = ruleset.with(TableId::new(family, "portolan"), table);
    }
    ruleset
}
