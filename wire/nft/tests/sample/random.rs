//! Random rulesets that the kernel takes: everything named is there, chains lead
//! only to later ones, and no statement needs a special hook.

use std::net::IpAddr;

use portolan_nft::{
    Chain, ChainType, Compare, Counts, CtState, Data, Family, Field, Hook, Key, MatchOp, Name,
    Rule, Ruleset, Set, Statement, Table, TableId, Tuple, Value, Verdict,
};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::addr;

const CHAINS: [&str; 4] = ["c1", "c2", "c3", "c4"];
const BASES: [&str; 3] = ["b1", "b2", "b3"];
const PAIR: [Field; 2] = [Field::Daddr, Field::Dport];
const SLOT: [Field; 3] = [Field::Daddr, Field::Dport, Field::random(1)];

fn host(family: Family) -> impl Strategy<Value = IpAddr> {
    (0_u8..3, 0_u8..4).prop_map(move |(net, host)| addr(family, net, host))
}

fn port() -> impl Strategy<Value = Value> {
    prop_oneof![Just(1_u16), Just(53), Just(80), Just(256), Just(65_535)].prop_map(Value::Port)
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        Just(Verdict::Accept),
        Just(Verdict::Drop),
        Just(Verdict::Return),
        Just(Verdict::Continue),
        (0..CHAINS.len()).prop_map(|place| Verdict::Jump(CHAINS[place].into())),
        (0..CHAINS.len()).prop_map(|place| Verdict::Goto(CHAINS[place].into())),
    ]
}

fn pair_key(family: Family) -> impl Strategy<Value = Key> {
    (host(family), port()).prop_map(|(host, port)| Key::from([host.into(), port]))
}

fn slot_key(family: Family) -> impl Strategy<Value = Key> {
    (host(family), port(), 0_u32..4)
        .prop_map(|(host, port, slot)| Key::from([host.into(), port, Value::Number(slot)]))
}

/// Disjoint ranges of addresses: the n-th covers some of ten.
fn ranges(family: Family) -> impl Strategy<Value = Vec<Key>> {
    vec((any::<bool>(), 0_u8..4, 0_u8..6), 8).prop_map(move |rows| {
        let mut keys = Vec::new();
        for (place, (there, skip, len)) in (0_u8..).zip(rows) {
            let first = place * 10 + skip;
            let end = |host| Tuple::from([addr(family, 7, host).into()]);
            if there {
                keys.push(Key::range(end(first), end(first + len)));
            }
        }
        keys
    })
}

fn size() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![3 => Just(None), 1 => Just(Some(1000))]
}

type Parts = (Vec<(Key, Data)>, Option<u32>);

fn filled(set: Set, (elements, size): Parts) -> Set {
    Set {
        size,
        elements: elements.into_iter().collect(),
        ..set
    }
}

fn set(family: Family) -> impl Strategy<Value = (Name, Set)> {
    let pair = move || vec((pair_key(family), Just(Data::None)), 0..8);
    let plain = (pair(), size()).prop_map(|parts| ("pairs", filled(Set::set(PAIR), parts)));
    let led = vec((pair_key(family), verdict().prop_map(Data::from)), 0..8);
    let vmap = (led, size()).prop_map(|parts| ("ways", filled(Set::vmap(PAIR), parts)));
    let to = (host(family), port()).prop_map(|(host, port)| Data::from([host.into(), port]));
    let slots = vec((slot_key(family), to), 0..12);
    let map = (slots, size()).prop_map(|parts| ("slots", filled(Set::map(SLOT, PAIR), parts)));
    let hosts = ranges(family).prop_map(|keys| {
        let elements = keys.into_iter().map(|key| (key, Data::None)).collect();
        (
            "ranges",
            filled(Set::set([Field::Saddr]).interval(), (elements, None)),
        )
    });
    prop_oneof![plain, vmap, map, hosts].prop_map(|(name, set)| (Name::from(name), set))
}

fn statement(family: Family) -> impl Strategy<Value = Statement> {
    let bits = prop_oneof![Just(0x4000_u32), Just(1), Just(0xff00)];
    let op = prop_oneof![Just(MatchOp::Eq), Just(MatchOp::Ne)];
    let lookup = |key: &[Field], set: &str| (key.to_vec(), Name::from(set));
    let looked = prop_oneof![
        Just(lookup(&PAIR, "pairs")),
        Just(lookup(&[Field::Saddr], "ranges")),
    ];
    prop_oneof![
        (host(family), op.clone()).prop_map(|(host, op)| {
            Statement::Match(Field::Saddr, op, Compare::Value(host.into()))
        }),
        (bits.clone(), op.clone()).prop_map(|(mask, op)| {
            Statement::Match(Field::Mark, op, Compare::Masked { mask, value: mask })
        }),
        op.clone()
            .prop_map(|op| { Statement::Match(Field::CtState, op, Compare::Any(CtState::NEW.0)) }),
        bits.clone().prop_map(|bits| Statement::SetCtMark {
            and: !bits,
            or: bits
        }),
        (any::<[u8; 6]>(), op.clone()).prop_map(|(octets, op)| {
            Statement::Match(Field::EtherSaddr, op, Compare::Value(Value::Ether(octets)))
        }),
        bits.prop_map(|bits| Statement::SetMark {
            and: !bits,
            or: bits
        }),
        (looked, op).prop_map(|((key, set), op)| Statement::Lookup { key, op, set }),
        Just(Statement::Vmap {
            key: PAIR.to_vec(),
            map: "ways".into()
        }),
        Just(Statement::Counter(Counts::default())),
        (1_u32..1000, 1_u32..1000).prop_map(|(rate, burst)| Statement::Limit { rate, burst }),
        any::<u16>().prop_map(|group| Statement::Log { group }),
    ]
}

fn rule(family: Family) -> impl Strategy<Value = Rule> {
    let comment = prop_oneof![4 => Just(None), 1 => Just(Some("why".to_owned()))];
    (
        vec(statement(family), 1..4),
        proptest::option::of(verdict()),
        comment,
    )
        .prop_map(|(mut statements, verdict, comment)| {
            statements.extend(verdict.map(Statement::Verdict));
            Rule {
                statements,
                comment,
            }
        })
}

/// A chain may lead only to later ones; a verdict map counts as leading to all, so
/// only base chains look into it.
fn allowed(table: &Table, place: Option<usize>, rule: &Rule) -> bool {
    rule.statements.iter().all(|statement| {
        let names = statement
            .set()
            .is_none_or(|set| table.sets.contains_key(set));
        let leads = if let Statement::Verdict(verdict) = statement {
            verdict.chain().is_none_or(|chain| {
                let later = CHAINS.iter().position(|name| *name == &**chain) > place;
                later && table.chains.contains_key(chain)
            })
        } else {
            place.is_none() || !matches!(statement, Statement::Vmap { .. })
        };
        names && leads
    })
}

fn table(family: Family) -> impl Strategy<Value = Table> {
    let chain = |names: &'static [&'static str]| {
        btree_map(
            proptest::sample::select(names),
            vec(rule(family), 0..4),
            0..=names.len(),
        )
    };
    let sets = vec(set(family), 0..5);
    let comment = prop_oneof![5 => Just(None), 1 => Just(Some("of the table".to_owned()))];
    let bases = (chain(&BASES), proptest::sample::select(&[-150, 0, 7][..]));
    (comment, sets, chain(&CHAINS), bases).prop_map(|(comment, sets, chains, (bases, priority))| {
        let mut table = Table {
            comment,
            sets: sets.into_iter().collect(),
            ..Table::default()
        };
        let regular = || Chain::regular([]);
        table
            .chains
            .extend(chains.keys().map(|name| (Name::from(*name), regular())));
        let there: Vec<Name> = table.chains.keys().cloned().collect();
        for set in table.sets.values_mut() {
            set.elements
                .retain(|_, data| data.chain().is_none_or(|chain| there.contains(chain)));
        }
        for (name, rules) in chains {
            let place = CHAINS.iter().position(|chain| *chain == name);
            let rules: Vec<Rule> = rules
                .into_iter()
                .filter(|rule| allowed(&table, place, rule))
                .collect();
            table.chains.insert(name.into(), Chain::regular(rules));
        }
        for (name, rules) in bases {
            let rules: Vec<Rule> = rules
                .into_iter()
                .filter(|rule| allowed(&table, None, rule))
                .collect();
            let chain = Chain::base(ChainType::Filter, Hook::Forward, priority, rules);
            table.chains.insert(name.into(), chain);
        }
        table
    })
}

/// A ruleset of up to two tables.
pub(crate) fn ruleset() -> impl Strategy<Value = Ruleset> {
    let one = |family| proptest::option::weighted(0.9, table(family));
    (one(Family::Ip), one(Family::Ip6)).prop_map(|(ip, ip6)| {
        let mut ruleset = Ruleset::new();
        for (family, table) in [(Family::Ip, ip), (Family::Ip6, ip6)] {
            if let Some(table) = table {
                ruleset = ruleset.with(TableId::new(family, "portolan"), table);
            }
        }
        ruleset
    })
}
