//! The laws of the ruleset language.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod sample;

use std::cell::Cell;

use portolan_nft::netlink::{Dump, encode, messages};
use portolan_nft::{
    Batch, Chain, Data, Family, Field, Name, Op, Ruleset, Set, Table, TableId, Value, Verdict, diff,
};
use proptest::prelude::*;
use proptest::test_runner::{RngSeed, TestRunner};

/// What messages tell of the tables that a batch makes.
fn decoded(batch: &Batch, limit: usize) -> Ruleset {
    let mut dump = Dump::new();
    for transaction in encode(batch, limit, 7, None) {
        for message in messages(&transaction.bytes) {
            dump.take(&message);
        }
    }
    dump.finish()
}

fn from_nothing(ruleset: &Ruleset) -> Batch {
    diff(&Ruleset::new(), ruleset)
}

#[test]
fn the_sample_survives_netlink() {
    let sample = sample::ruleset();
    let batch = from_nothing(&sample);
    assert_eq!(decoded(&batch, usize::MAX), sample);
    assert_eq!(decoded(&batch, 100), sample, "cut into many transactions");
}

#[test]
fn the_sample_is_made_of_its_difference_from_nothing() {
    let sample = sample::ruleset();
    let mut made = Ruleset::new();
    made.apply(&from_nothing(&sample)).unwrap();
    assert_eq!(made, sample);
    assert!(diff(&made, &sample).is_empty());
}

#[test]
fn every_step_of_a_batch_is_found_by_its_sequence_number() {
    let batch = from_nothing(&sample::ruleset());
    for limit in [usize::MAX, 100] {
        let mut seq = 7;
        let mut steps = Vec::new();
        for transaction in encode(&batch, limit, seq, None) {
            let all: Vec<_> = messages(&transaction.bytes).collect();
            assert_eq!(all.first().map(|message| message.seq), Some(seq));
            assert_eq!(
                all.last().map(|message| message.seq.wrapping_add(1)),
                Some(transaction.next_seq())
            );
            steps.extend(
                all.iter()
                    .filter_map(|message| transaction.step(message.seq)),
            );
            seq = transaction.next_seq();
        }
        // A long list of elements is several messages.
        steps.dedup();
        let expected: Vec<usize> = (0..batch.steps.len()).collect();
        assert_eq!(steps, expected);
    }
}

/// The part of a table whose names `wants` wants, without what packets fill.
fn part(table: &Table, wants: impl Fn(&Name, bool) -> bool) -> Table {
    let mut part = table.clone();
    part.chains
        .retain(|name, chain| wants(name, chain.base.is_some()));
    part.sets
        .retain(|name, set| !set.flags.dynamic && wants(name, false));
    part
}

fn has(table: &Table, name: &Name) -> bool {
    table.chains.contains_key(name) || table.sets.contains_key(name)
}

/// What is in both tables is switched over at once: until then nothing that goes has
/// lost anything, and from then on all that comes is whole. Says whether there was
/// anything to see.
fn switches_at_once(a: &Ruleset, b: &Ruleset) -> bool {
    let batch = diff(a, b);
    if batch.makes_anew() {
        return false;
    }
    let mut state = a.clone();
    for transaction in encode(&batch, usize::MAX, 1, None) {
        state.apply(&transaction.part(&batch)).unwrap();
        for (id, old) in &a.tables {
            let (Some(new), Some(now)) = (b.tables.get(id), state.tables.get(id)) else {
                continue;
            };
            let stays = |name: &Name, _: bool| has(old, name) && has(new, name);
            let [was, is, found] = [old, new, now].map(|table| part(table, stays));
            assert!(found == was || found == is, "{batch:#?}");
            // What hangs at a hook is led to by nobody.
            let goes = |name: &Name, base: bool| has(old, name) && !has(new, name) && !base;
            let comes = |name: &Name, base: bool| has(new, name) && !has(old, name) && !base;
            let unlike = was != is;
            assert!(
                !unlike || found == is || part(now, goes) == part(old, goes),
                "{batch:#?}"
            );
            assert!(
                !unlike || found == was || part(now, comes) == part(new, comes),
                "{batch:#?}"
            );
        }
    }
    batch.steps.iter().any(|step| step.op == Op::Commit)
}

#[test]
fn what_packets_meet_is_switched_over_at_once() {
    let seen = Cell::new(0);
    let two = (sample::random::ruleset(), sample::random::ruleset());
    let config = ProptestConfig {
        cases: 128,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x706f_7274),
        ..ProptestConfig::default()
    };
    let law = |(a, b): (Ruleset, Ruleset)| {
        seen.set(seen.get() + u32::from(switches_at_once(&a, &b)));
        Ok(())
    };
    TestRunner::new(config).run(&two, law).unwrap();
    assert!(seen.get() > 5, "{seen:?}");
}

/// However small transactions are.
#[test]
fn what_takes_the_place_of_something_comes_with_its_end() {
    let leading_to = |chain: &str| {
        let to = Data::Verdict(Verdict::Goto(chain.into()));
        let map = Set::vmap([Field::Dport]);
        let map = (1..=40_u16).fold(map, |map, port| map.with([Value::Port(port)], to.clone()));
        let table = Table {
            chains: ["a", "b"]
                .map(|name| (Name::from(name), Chain::regular([])))
                .into(),
            sets: [(Name::from("map"), map)].into(),
            ..Table::default()
        };
        Ruleset::new().with(TableId::new(Family::Ip, "t"), table)
    };
    let (a, b) = (leading_to("a"), leading_to("b"));
    let batch = diff(&a, &b);
    let mut state = a;
    for transaction in encode(&batch, 1, 1, None) {
        state.apply(&transaction.part(&batch)).unwrap();
        let sets = state.tables.values().flat_map(|table| &table.sets);
        let found: Vec<usize> = sets.map(|(_, set)| set.elements.len()).collect();
        assert_eq!(found, [40]);
    }
    assert_eq!(state, b);
}

proptest! {
    #[test]
    fn applying_the_difference_gives_the_other(a in sample::random::ruleset(), b in sample::random::ruleset()) {
        let batch = diff(&a, &b);
        let mut made = a.clone();
        made.apply(&batch).unwrap();
        prop_assert_eq!(&made, &b);
        prop_assert!(diff(&made, &b).is_empty());
    }

    #[test]
    fn the_parts_of_a_batch_are_the_batch(a in sample::random::ruleset(), b in sample::random::ruleset(), limit in prop_oneof![Just(1_usize), 1_usize..2000]) {
        let batch = diff(&a, &b);
        let mut made = a.clone();
        for transaction in encode(&batch, limit, 1, None) {
            made.apply(&transaction.part(&batch)).unwrap();
        }
        prop_assert_eq!(&made, &b);
    }

    #[test]
    fn decoding_what_was_encoded_gives_it_back(ruleset in sample::random::ruleset(), limit in 1_usize..200_000) {
        prop_assert_eq!(decoded(&from_nothing(&ruleset), limit), ruleset);
    }

    #[test]
    fn any_bytes_are_read_without_a_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0_u16..17) {
        let whole = u32::try_from(bytes.len()).unwrap().to_ne_bytes();
        if let Some(head) = bytes.first_chunk_mut::<6>() {
            head[..4].copy_from_slice(&whole);
            head[4..].copy_from_slice(&(10_u16 << 8 | kind).to_ne_bytes());
        }
        let mut dump = Dump::new();
        for message in messages(&bytes) {
            dump.take(&message);
        }
        drop(dump.finish());
    }

    #[test]
    fn broken_messages_are_read_without_a_panic(place in 0_usize..100_000, byte: u8) {
        let batch = from_nothing(&sample::ruleset());
        let mut transaction = encode(&batch, usize::MAX, 1, None).next().unwrap();
        let bytes = &mut transaction.bytes;
        let place = place % bytes.len();
        bytes[place] = byte;
        let mut dump = Dump::new();
        for message in messages(bytes) {
            dump.take(&message);
        }
        drop(dump.finish().text());
    }
}
