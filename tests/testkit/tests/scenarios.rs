//! Runs every file of `tests/scenarios`: in several arrival orders, each of
//! which must end the same and give what the file says. `BLESS=1` rewrites
//! what is expected.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::path::Path;

use anyhow::{Context, Result, ensure};
use portolan_model::Change;
use portolan_testkit::rig::Rig;
use portolan_testkit::scenario::Scenario;

/// How many arrival orders are tried beside the written one and its reverse.
const SHUFFLES: u64 = 6;

#[test]
fn every_scenario_holds_in_every_order() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scenarios");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "scn"));
    files.sort();
    assert!(files.len() >= 10, "only {} scenarios found", files.len());
    let failures: Vec<_> = files
        .iter()
        .filter_map(|path| {
            run(path)
                .err()
                .map(|error| format!("{}: {error:?}", path.display()))
        })
        .collect();
    assert!(failures.is_empty(), "{}", failures.join("\n\n"));
}

fn run(path: &Path) -> Result<()> {
    let text = std::fs::read_to_string(path)?;
    ensure!(
        text.lines().any(|line| line.starts_with("rules: ")),
        "no line says which rules it proves"
    );
    let scenario = Scenario::parse(&text)?;
    let blessed = scenario.blessed(&play(&scenario, |changes| changes)?)?;
    let reversed = scenario.blessed(&play(&scenario, |mut changes| {
        changes.reverse();
        changes
    })?)?;
    ensure!(
        blessed == reversed,
        "arrival in reverse ends differently:\n{reversed}"
    );
    for seed in 0..SHUFFLES {
        let shuffled = scenario.blessed(&play(&scenario, |changes| shuffle(changes, seed))?)?;
        ensure!(
            blessed == shuffled,
            "arrival order {seed} ends differently:\n{shuffled}"
        );
    }
    if std::env::var_os("BLESS").is_some() {
        return std::fs::write(path, blessed).context("writing what is expected");
    }
    ensure!(
        text == blessed,
        "it says\n{text}\nbut now it is (BLESS=1 accepts that)\n{blessed}"
    );
    Ok(())
}

/// Plays a scenario change by change. The first round states facts, so its
/// order is free; later rounds tell what happens then.
fn play(scenario: &Scenario, order: impl Fn(Vec<Change>) -> Vec<Change>) -> Result<Rig> {
    let mut rig = Rig::new(scenario.view.clone());
    for (index, round) in scenario.rounds.iter().enumerate() {
        let changes = if index == 0 {
            order(round.clone())
        } else {
            round.clone()
        };
        for change in changes {
            rig.apply([change])?;
        }
        rig.check()?;
    }
    Ok(rig)
}

/// A permutation by a small linear congruential generator.
fn shuffle(mut changes: Vec<Change>, seed: u64) -> Vec<Change> {
    let mut state = seed.wrapping_add(0x9e37_79b9);
    for end in (1..changes.len()).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let at = usize::try_from(state >> 33).unwrap() % (end + 1);
        changes.swap(end, at);
    }
    changes
}
