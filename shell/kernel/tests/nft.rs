//! The ruleset language against the kernel and against Debian's `nft`.
//!
//! Each test runs itself again under `unshare -Urn`: rootless, in a user and
//! network namespace of its own. Tried on Linux 6.18 with nft 1.0.6.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../wire/nft/tests/sample/mod.rs"]
mod sample;

use std::cell::RefCell;

use portolan_kernel::nft::Nft;
use portolan_netns::namespace::{inside, nft};
use portolan_nft::{Batch, Family, Op, Outline, Rule, Ruleset, TableId, Verdict, diff};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

fn read(nft: &mut Nft, wanted: &Ruleset) -> Ruleset {
    let mut found = Ruleset::new();
    for id in wanted.tables.keys() {
        if let Some(table) = nft.read(id).unwrap() {
            found = found.with(id.clone(), table);
        }
    }
    found
}

/// Fails with the lines that differ.
fn assert_same_text(listed: &str, ours: &str) {
    let differ: Vec<String> = listed
        .lines()
        .zip(ours.lines())
        .filter(|(listed, ours)| listed != ours)
        .map(|(listed, ours)| format!("nft  {listed}\nours {ours}"))
        .collect();
    assert!(listed == ours, "{}\n{listed}", differ.join("\n"));
}

fn commit(kernel: &mut Nft, from: &Ruleset, to: &Ruleset) {
    kernel.commit(&diff(from, to)).unwrap_or_else(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        panic!(
            "{error}: {cause:?}\n-- from\n{}-- to\n{}",
            from.text(),
            to.text()
        )
    });
}

#[test]
fn what_is_committed_is_read_and_listed_and_loads_again() {
    if !inside("what_is_committed_is_read_and_listed_and_loads_again") {
        return;
    }
    let sample = sample::ruleset();
    let mut kernel = Nft::open_here().unwrap();
    commit(&mut kernel, &Ruleset::new(), &sample);
    assert_eq!(read(&mut kernel, &sample), sample);
    let listing = nft(&["list", "ruleset"], "");
    assert_same_text(&listing, &sample.text());
    // A listing is loaded where the table is not: nft 1.0.6 forgets that `th dport`
    // in a map of the kernel is raw, and then refuses every dnat by that map.
    commit(&mut kernel, &sample, &Ruleset::new());
    nft(&["-c", "-f", "-"], &listing);
}

#[test]
fn committing_twice_commits_nothing() {
    if !inside("committing_twice_commits_nothing") {
        return;
    }
    let sample = sample::ruleset();
    let mut kernel = Nft::open_here().unwrap();
    commit(&mut kernel, &Ruleset::new(), &sample);
    let before = kernel.generation().unwrap();
    let difference = diff(&read(&mut kernel, &sample), &sample);
    assert_eq!(difference, Batch::new());
    kernel.commit(&difference).unwrap();
    assert_eq!(kernel.generation().unwrap(), before);
}

#[test]
fn an_outline_is_that_of_what_is_held() {
    if !inside("an_outline_is_that_of_what_is_held") {
        return;
    }
    let sample = sample::ruleset();
    let mut kernel = Nft::open_here().unwrap();
    let absent = sample.tables.keys().next().unwrap();
    assert_eq!(kernel.outline(absent).unwrap(), None);
    commit(&mut kernel, &Ruleset::new(), &sample);
    for (id, table) in &sample.tables {
        let outline = kernel.outline(id).unwrap();
        assert_eq!(outline, Some(Outline::of(table.clone())), "{id}");
        let mut less = table.clone();
        let mut sets = less.sets.values_mut();
        let Some(set) = sets.find(|set| !set.flags.dynamic && !set.elements.is_empty()) else {
            continue;
        };
        set.elements.pop_first();
        assert_ne!(outline, Some(Outline::of(less)), "{id}");
    }
}

#[test]
fn many_transactions_give_the_same_as_one() {
    if !inside("many_transactions_give_the_same_as_one") {
        return;
    }
    let sample = sample::ruleset();
    let mut kernel = Nft::open_here().unwrap();
    kernel.limit(1000);
    let before = kernel.generation().unwrap();
    commit(&mut kernel, &Ruleset::new(), &sample);
    let transactions = kernel.generation().unwrap() - before;
    assert!(transactions > 10, "{transactions}");
    assert_eq!(read(&mut kernel, &sample), sample);
}

/// `diff` leads the kernel from any ruleset to any other, and `nft` can list it.
#[test]
fn the_kernel_follows_every_difference() {
    if !inside("the_kernel_follows_every_difference") {
        return;
    }
    let mut runner = TestRunner::new_with_rng(
        Config {
            cases: 128,
            failure_persistence: None,
            ..Config::default()
        },
        TestRng::deterministic_rng(RngAlgorithm::ChaCha),
    );
    let pairs = (sample::random::ruleset(), sample::random::ruleset());
    let kernel = RefCell::new(Nft::open_here().unwrap());
    runner
        .run(&pairs, |(a, b)| {
            let mut kernel = kernel.borrow_mut();
            let both: Ruleset = sample::ruleset();
            let old = read(&mut kernel, &both);
            commit(&mut kernel, &old, &Ruleset::new());
            commit(&mut kernel, &Ruleset::new(), &a);
            assert_same_text(&nft(&["list", "ruleset"], ""), &a.text());
            commit(&mut kernel, &a, &b);
            assert_eq!(read(&mut kernel, &both), b, "{}", a.text());
            nft(&["list", "ruleset"], "");
            Ok(())
        })
        .unwrap();
}

#[test]
fn a_refusal_names_the_operation_and_changes_nothing() {
    if !inside("a_refusal_names_the_operation_and_changes_nothing") {
        return;
    }
    let sample = sample::ruleset();
    let mut kernel = Nft::open_here().unwrap();
    commit(&mut kernel, &Ruleset::new(), &sample);
    let id = TableId::new(Family::Ip, "portolan");
    let mut batch = Batch::new();
    batch.push(
        &id,
        Op::DeleteSet {
            set: "clients".into(),
        },
    );
    batch.push(
        &id,
        Op::AddRule {
            chain: "raw".into(),
            rule: Rule::new().set_mark_bits(1),
        },
    );
    batch.push(
        &id,
        Op::DeleteChain {
            chain: "nowhere".into(),
        },
    );
    let error = kernel.commit(&batch).unwrap_err();
    let text = "nftables refused to delete set ip portolan clients (and 1 more)";
    assert_eq!(error.to_string(), text);
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("busy"), "{cause}");
    assert_eq!(read(&mut kernel, &sample), sample);
}

/// More refusals than the socket has room for: some are lost, that there were any
/// is not, and the next answers are those of the next question.
#[test]
fn p21_answers_that_overrun_the_socket_are_a_refusal() {
    if !inside("p21_answers_that_overrun_the_socket_are_a_refusal") {
        return;
    }
    let sample = sample::ruleset();
    let mut kernel = Nft::open_here().unwrap();
    commit(&mut kernel, &Ruleset::new(), &sample);
    let id = TableId::new(Family::Ip, "portolan");
    let mut batch = Batch::new();
    for number in 0..1000 {
        let chain = format!("nowhere-{number}").into();
        batch.push(&id, Op::DeleteChain { chain });
    }
    let refused = |kernel: &mut Nft| kernel.commit(&batch).unwrap_err().to_string();
    let all = "nftables refused to delete chain ip portolan nowhere-0 (and 999 more)";
    assert_eq!(refused(&mut kernel), all);
    kernel.hold(8192).unwrap();
    for _ in 0..3 {
        let said = refused(&mut kernel);
        let begins = "nftables refused to delete chain ip portolan nowhere-0 (and ";
        assert!(said.starts_with(begins) && said != all, "{said}");
        // Nothing is left over for what is asked next, nor lost of it.
        assert_eq!(read(&mut kernel, &sample), sample);
        commit(&mut kernel, &sample, &Ruleset::new());
        commit(&mut kernel, &Ruleset::new(), &sample);
    }
}

#[test]
fn foreign_rules_are_seen_and_replaced() {
    if !inside("foreign_rules_are_seen_and_replaced") {
        return;
    }
    let sample = sample::ruleset();
    let mut kernel = Nft::open_here().unwrap();
    commit(&mut kernel, &Ruleset::new(), &sample);
    let before = kernel.generation().unwrap();
    nft(
        &["-f", "-"],
        "add rule ip portolan empty ip ttl 5 limit rate 5/second log drop\n",
    );
    nft(
        &["-f", "-"],
        "add set ip portolan other { type ipv4_addr . inet_service; }\n",
    );
    assert_ne!(kernel.generation().unwrap(), before);
    let found = read(&mut kernel, &sample);
    assert_ne!(found, sample);
    commit(&mut kernel, &found, &sample);
    assert_eq!(read(&mut kernel, &sample), sample);
    assert_same_text(&nft(&["list", "ruleset"], ""), &sample.text());
}

#[test]
fn a_table_that_is_not_there_is_none() {
    if !inside("a_table_that_is_not_there_is_none") {
        return;
    }
    let mut kernel = Nft::open_here().unwrap();
    assert_eq!(
        kernel.read(&TableId::new(Family::Ip6, "portolan")).unwrap(),
        None
    );
}

/// Ten thousand frontends with five endpoints each, without root.
#[test]
fn a_big_ruleset_fits_without_root() {
    if !inside("a_big_ruleset_fits_without_root") {
        return;
    }
    let mut big = Ruleset::new();
    let family = Family::Ip;
    let mut table = sample::table(family);
    for (name, host) in [("services", 200_u8), ("endpoints", 201)] {
        let set = table.sets.get_mut(name).unwrap();
        for number in 0..10_000_u16 {
            let elements: Vec<_> = match name {
                "services" => {
                    vec![sample::service(
                        family,
                        host,
                        number,
                        Verdict::Goto("n3".into()),
                    )]
                }
                _ => (0..5)
                    .map(|slot| sample::endpoint(family, host, number, slot, 9))
                    .collect(),
            };
            set.elements.extend(elements);
        }
    }
    big = big.with(TableId::new(family, "portolan"), table);
    let mut kernel = Nft::open_here().unwrap();
    commit(&mut kernel, &Ruleset::new(), &big);
    assert!(
        read(&mut kernel, &big) == big,
        "what was read differs from what was committed"
    );
}
