//! Slots, shares and tables.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use portolan_model::Algorithm;
use proptest::prelude::*;

use super::*;

fn target(number: u32) -> Target {
    Target {
        address: IpAddr::V4(Ipv4Addr::from_bits(0x0af4_0000 + number)),
        port: 8080,
        local: false,
    }
}

fn targets(numbers: impl IntoIterator<Item = u32>) -> Vec<Target> {
    numbers.into_iter().map(target).collect()
}

/// Whose each slot is.
fn table(algorithm: Algorithm, targets: &[Target], weights: &[u16]) -> Vec<Target> {
    let balance = balance(algorithm, targets, weights.to_vec());
    let slots = balance.and_then(|balance| balance.slots.clone());
    match slots {
        Some(slots) => slots.iter().map(|at| targets[usize::from(*at)]).collect(),
        None => targets.to_vec(),
    }
}

fn counts(table: &[Target]) -> BTreeMap<Target, usize> {
    let mut counts = BTreeMap::new();
    for target in table {
        *counts.entry(*target).or_default() += 1;
    }
    counts
}

#[test]
fn the_usual_choice_costs_nothing() {
    let all = targets(0..5);
    assert_eq!(balance(Algorithm::Random, &all, Vec::new()), None);
    assert_eq!(balance(Algorithm::Random, &all, vec![3; 5]), None);
    let turns = balance(Algorithm::RoundRobin, &all, Vec::new()).unwrap();
    assert_eq!((turns.weights.len(), &turns.slots), (0, &None));
}

/// How many slots are another's, those that only one of both has among them.
fn moved(before: &[Target], after: &[Target]) -> usize {
    let both = before.iter().zip(after);
    let same = both.filter(|(before, after)| before == after).count();
    before.len().max(after.len()) - same
}

#[test]
fn each_of_many_has_one_slot_whatever_the_algorithm() {
    for count in [17, 18, 100, 1000] {
        let all = targets(0..count);
        let seats = table(Algorithm::Random, &all, &[]);
        assert_eq!(seats, table(Algorithm::RoundRobin, &all, &[4]));
        assert_eq!(counts(&seats), all.iter().map(|one| (*one, 1)).collect());
    }
}

#[test]
fn one_of_many_that_changes_moves_few_others() {
    let before = targets(0..100);
    let seats = |all: &[Target]| table(Algorithm::Random, all, &[]);
    let (mut replaced, mut gone) = (0, 0);
    for leaver in 0..100 {
        let rest = || (0..100).filter(move |number| *number != leaver);
        // The one that comes is the last by its address: all behind the leaver move up.
        let after = targets(rest().chain([200]));
        replaced += moved(&seats(&before), &seats(&after));
        gone += moved(&seats(&before), &seats(&targets(rest())));
    }
    assert!(replaced < 100 * 10, "{replaced} slots for 100 replacements");
    assert!(gone < 100 * 15, "{gone} slots for 100 that left");
}

#[test]
fn turns_are_mixed_by_weight() {
    let all = targets(0..3);
    let taken = table(Algorithm::RoundRobin, &all, &[50, 10, 10]);
    let places = |taken: &[Target]| {
        let place = |target| all.iter().position(|found| found == target);
        taken.iter().filter_map(place).collect::<Vec<_>>()
    };
    assert_eq!(places(&taken), [0, 0, 1, 0, 2, 0, 0]);
    // None gets anything where others have a weight, and all alike where none has.
    assert_eq!(places(&table(Algorithm::Random, &all, &[0, 1, 1])), [1, 2]);
    assert_eq!(
        places(&table(Algorithm::Random, &all, &[0, 0, 0])),
        [0, 1, 2]
    );
}

#[test]
fn many_slots_are_scaled_down_and_nobody_is_forgotten() {
    let slots = shares(&[65_535, 65_534, 1]);
    assert!(slots.iter().sum::<u32>() <= 1002, "{slots:?}");
    assert_eq!(slots[2], 1);
    assert!(slots[0].abs_diff(slots[1]) <= 1);
}

#[test]
fn tables_grow_in_coarse_steps() {
    let size = |count: u32| table(Algorithm::Maglev, &targets(0..count), &[]).len();
    assert_eq!(
        [1, 3, 4, 12, 13, 51].map(size),
        [61, 61, 251, 251, 1021, 1021]
    );
    assert_eq!(size(5000), 65_521);
}

/// What nodes of other versions make of the same endpoints, for ever.
#[test]
fn a_table_is_what_it_always_was() {
    let all = targets(1..=3);
    let balance = balance(Algorithm::Maglev, &all, Vec::new()).unwrap();
    let text: String = balance
        .slots
        .iter()
        .flat_map(|slots| slots.iter())
        .map(ToString::to_string)
        .collect();
    assert_eq!(
        text,
        "2221200122222222221101000011002111210000110021122110001000211"
    );
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(0x706f_7274),
        ..ProptestConfig::default()
    })]

    /// Nobody has more than its share and a slot for each turn.
    #[test]
    fn a_table_is_even(numbers in proptest::collection::btree_set(0_u32..65_536, 1..120)) {
        let all = targets(numbers);
        let table = table(Algorithm::Maglev, &all, &[]);
        let counts = counts(&table);
        prop_assert_eq!(counts.len(), all.len());
        let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
        prop_assert!(most - least <= 1, "{} to {}", least, most);
    }

    /// The clients of one that goes have to move; of the others at most as many
    /// again and a tenth do, as long as the size stays.
    #[test]
    fn one_that_goes_moves_few(
        numbers in proptest::collection::btree_set(0_u32..65_536, 2..100),
        which in any::<prop::sample::Index>(),
    ) {
        let all = targets(numbers);
        let gone = all[which.index(all.len())];
        let left: Vec<Target> = all.iter().copied().filter(|target| *target != gone).collect();
        let (before, after) = (table(Algorithm::Maglev, &all, &[]), table(Algorithm::Maglev, &left, &[]));
        prop_assume!(before.len() == after.len());
        let pairs = || before.iter().zip(&after);
        let had = before.iter().filter(|target| **target == gone).count();
        let others = pairs().filter(|(old, new)| **old != gone && old != new).count();
        prop_assert!(others <= had + before.len() / 10, "{} of {} beside {}", others, before.len(), had);
    }

    /// Shares of slots are the shares of weights, in all three ways.
    #[test]
    fn weights_are_shares(weights in proptest::collection::vec(0_u16..20, 2..20)) {
        let total: usize = weights.iter().map(|weight| usize::from(*weight)).sum();
        prop_assume!(total > 0);
        let all = targets(0..u32::try_from(weights.len()).unwrap());
        for algorithm in Algorithm::ALL {
            let table = table(algorithm, &all, &weights);
            let counts = counts(&table);
            for (target, weight) in all.iter().zip(&weights) {
                let wanted = usize::from(*weight) * table.len();
                let got = counts.get(target).copied().unwrap_or(0) * total;
                let slack = if algorithm == Algorithm::Maglev { 2 * total } else { 0 };
                prop_assert!(wanted.abs_diff(got) <= slack, "{algorithm}: {got} for {wanted}");
            }
        }
    }
}
