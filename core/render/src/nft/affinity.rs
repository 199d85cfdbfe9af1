//! Session affinity (P13): which client had which endpoint.
//!
//! A map leads from client and frontend to the endpoint. Packets fill it: the
//! first of a translated connection, when it goes on its way, by a chain for
//! each protocol and timeout in use. Each new connection starts the timeout
//! again. Elements of endpoints that are gone are taken out by whoever commits.
//!
//! nft takes `ct original proto-dst` for a port only where it knows the
//! protocol, and leaves a match out that is implied by what follows, but not
//! across a counter: hence a rule for each protocol, with a counter.

use std::net::SocketAddr;

use portolan_model::{Family, Protocol};
use portolan_nft::{
    Chain, ChainType, Compare, Counts, CtState, CtStatus, Data, DynOp, Field, Hook, Key, MatchOp,
    Name, Rule, Set, Statement, Table, TableId, Value, Verdict,
};
use portolan_plan::{Place, Remembered};

use super::table::TRANSLATED;

/// Client and frontend to endpoint.
pub const AFFINITY: &str = "affinity";
/// Frontends by address whose clients stay.
const LEARNERS: &str = "learners";
/// Frontends on the node's own addresses whose clients stay.
const NODE_PORT_LEARNERS: &str = "nodeport_learners";
/// The chain of new connections that were translated.
const LEARN: &str = "learn";

/// How many clients are remembered; a full map stops nobody.
const MOST_CLIENTS: u32 = 1 << 20;
/// How long a client is remembered where nothing else is said, in milliseconds.
const USUAL_TIMEOUT_MS: u64 = 10_800_000;
const FILTER: i32 = 0;
/// `ct status ! confirmed`: the first packet. A connection without replies stays
/// new, and each of its packets would look for who learns.
const UNCONFIRMED: Statement = Statement::Match(
    Field::CtStatus,
    MatchOp::Ne,
    Compare::Any(CtStatus::CONFIRMED.0),
);
const PROTOCOLS: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Sctp];

/// The key behind which an endpoint is kept, as a connection begins.
const CLIENT: [Field; 4] = [Field::Saddr, Field::Daddr, Field::L4Proto, Field::Dport];

/// The map in which the timeouts of a place are found.
pub(super) fn learners(place: Place) -> &'static str {
    match place {
        Place::ClusterIp(_) | Place::External(_) => LEARNERS,
        Place::NodePort(_) => NODE_PORT_LEARNERS,
    }
}

/// The declarations.
pub(super) fn sets() -> [(&'static str, Set); 3] {
    let affinity = Set::map(CLIENT, [Field::Daddr, Field::Dport]);
    [
        (AFFINITY, affinity.dynamic(MOST_CLIENTS, USUAL_TIMEOUT_MS)),
        (
            LEARNERS,
            Set::vmap([Field::Daddr, Field::L4Proto, Field::Dport]),
        ),
        (
            NODE_PORT_LEARNERS,
            Set::vmap([Field::L4Proto, Field::Dport]),
        ),
    ]
}

/// The chains that see what was translated.
pub(super) fn chains(table: &mut Table) {
    for (name, hook) in [
        ("learn-forward", Hook::Forward),
        ("learn-input", Hook::Input),
        ("learn-output", Hook::Output),
    ] {
        let rules = vec![
            Rule::new()
                .ct_state(CtState::NEW)
                .then(TRANSLATED)
                .then(UNCONFIRMED)
                .verdict(Verdict::Jump(LEARN.into())),
        ];
        let chain = Chain::base(ChainType::Filter, hook, FILTER, rules);
        table.chains.insert(name.into(), chain);
    }
    let known = |protocol: Protocol| Rule::new().eq(Field::L4Proto, number(protocol));
    let by_address = [Field::OrigDaddr, Field::L4Proto, Field::OrigDport];
    let by_port = [Field::L4Proto, Field::OrigDport];
    let rules = PROTOCOLS.into_iter().flat_map(|protocol| {
        [
            known(protocol).vmap(by_address, LEARNERS),
            known(protocol).vmap(by_port, NODE_PORT_LEARNERS),
        ]
    });
    let rules: Vec<Rule> = rules.collect();
    table.chains.insert(LEARN.into(), Chain::regular(rules));
}

/// The chain that remembers for so long.
pub(super) fn learner(protocol: Protocol, seconds: u32) -> Name {
    format!("learn-{protocol}-{seconds}").into()
}

/// The chains of a timeout.
pub(super) fn of_timeout((_, seconds): (Family, u32)) -> impl Iterator<Item = (Name, Chain)> {
    PROTOCOLS.into_iter().map(move |protocol| {
        let rule = Rule::new()
            .eq(Field::L4Proto, number(protocol))
            .then(Statement::Counter(Counts::default()))
            .then(Statement::Dynset {
                op: DynOp::Update,
                set: AFFINITY.into(),
                key: vec![
                    Field::Saddr,
                    Field::OrigDaddr,
                    Field::L4Proto,
                    Field::OrigDport,
                ],
                data: Some(vec![Field::Daddr, Field::Dport]),
                timeout_ms: Some(u64::from(seconds) * 1000),
            });
        (learner(protocol, seconds), Chain::regular(vec![rule]))
    })
}

/// To the endpoint that the client had, if it had one.
pub(super) fn known_client() -> Rule {
    Rule::new().dnat_map(CLIENT, AFFINITY)
}

/// The map and the table of each family.
pub fn memories() -> impl Iterator<Item = (TableId, Name)> {
    let families = Family::BOTH.into_iter();
    families.map(|family| (super::table_id(family), AFFINITY.into()))
}

/// What an element of the map says.
pub fn remembered(table: &TableId, key: &Key, data: &Data) -> Option<Remembered> {
    let (Key::Exact(key), Data::Tuple(data)) = (key, data) else {
        return None;
    };
    let key = key.values(table.family, &CLIENT)?;
    let data = data.values(table.family, &[Field::Daddr, Field::Dport])?;
    let ([client, to, Value::Proto(number), Value::Port(port)], [endpoint, Value::Port(target)]) =
        (key.as_slice(), data.as_slice())
    else {
        return None;
    };
    let mut protocols = PROTOCOLS.into_iter();
    Some(Remembered {
        client: client.addr()?,
        to: SocketAddr::new(to.addr()?, *port),
        protocol: protocols.find(|protocol| protocol.number() == *number)?,
        endpoint: SocketAddr::new(endpoint.addr()?, *target),
    })
}

fn number(protocol: Protocol) -> Value {
    Value::Proto(protocol.number())
}
