//! Rendered rulesets of random clusters, in the real kernel and before Debian's
//! `nft`: every delta is taken, what is read back is the image, `nft` lists it as
//! we print it, and its listing loads again.

use std::cell::RefCell;

use portolan_kernel::nft::Nft;
use portolan_model::Family;
use portolan_netns::namespace::{inside, nft};
use portolan_nft::{Ruleset, diff};
use portolan_plan::renode;
use portolan_render::nft as render;
use portolan_testkit::rig::Rig;
use portolan_testkit::strategy::{changes, view};
use proptest::test_runner::{Config, RngSeed, TestRunner};

fn read(kernel: &mut Nft, like: &Ruleset) -> Ruleset {
    let tables = like.tables.keys();
    let found = tables.filter_map(|id| Some((id.clone(), kernel.read(id).expect("read")?)));
    Ruleset {
        tables: found.collect(),
    }
}

/// The lines that differ between a listing of nft and our text.
fn differences(listed: &str, ours: &str) -> Vec<String> {
    let lines = listed.lines().zip(ours.lines());
    let mut differ: Vec<String> = lines
        .filter(|(listed, ours)| listed != ours)
        .map(|(listed, ours)| format!("nft  {listed}\nours {ours}"))
        .collect();
    if listed.lines().count() != ours.lines().count() {
        differ.push("not of the same length".to_owned());
    }
    differ
}

#[test]
fn the_kernel_takes_every_delta_and_nft_lists_the_image() {
    if !inside("the_kernel_takes_every_delta_and_nft_lists_the_image") {
        return;
    }
    let mut runner = TestRunner::new(Config {
        cases: 48,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x706f_7274),
        ..Config::default()
    });
    let kernel = RefCell::new(Nft::open_here().expect("nftables"));
    runner
        .run(&(view(), changes(40)), |(view, history)| {
            let mut kernel = kernel.borrow_mut();
            let mut rig = Rig::new(view);
            let before = read(&mut kernel, &rig.ruleset);
            let fresh = diff(&before, &rig.ruleset);
            kernel.commit(&fresh).expect("the empty image");
            for change in history {
                let dirty = rig.cluster.apply(change);
                let view = rig.given_view.observed(&rig.cluster);
                let touched = renode(&mut rig.plan, &rig.cluster, &view, &dirty);
                let delta = render::delta(&rig.plan, &touched);
                kernel.commit(&delta).unwrap_or_else(|error| {
                    let cause = std::error::Error::source(&error).map(ToString::to_string);
                    panic!("{error}: {cause:?}\n{delta:#?}")
                });
            }
            let image = render::image(&rig.plan);
            assert!(read(&mut kernel, &image) == image, "{}", image.text());
            let empty = Ruleset::new();
            kernel.commit(&diff(&image, &empty)).expect("delete");
            kernel.commit(&diff(&empty, &image)).expect("from scratch");
            let listing = nft(&["list", "ruleset"], "");
            let differ = differences(&listing, &image.text());
            assert!(differ.is_empty(), "{}", differ.join("\n"));
            // In a ruleset that is flushed first: nft 1.0.6 takes the ports in the
            // data of a map that is already there for a header of their own, and
            // refuses the rules that look into it.
            let mut text = "flush ruleset\n".to_owned();
            for family in Family::BOTH {
                // It aborts on the rules that learn of IPv6 clients (P13).
                let learns = rig.plan.timeouts.keys().any(|(of, _)| *of == Family::V6);
                if family == Family::V4 || !learns {
                    let name = if family == Family::V4 { "ip" } else { "ip6" };
                    text.push_str(&nft(&["list", "table", name, render::TABLE], ""));
                }
            }
            nft(&["-c", "-f", "-"], &text);
            Ok(())
        })
        .expect("the law");
}
