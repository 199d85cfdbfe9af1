//! A batch that is too large for one transaction may be cut anywhere: in between,
//! each packet is treated as before or as after.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod policies;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use portolan_nft::interp::{self, Env, Outcome};
use portolan_nft::netlink::encode;
use portolan_nft::{Batch, CtState, CtStatus, FibType, Name, Ruleset, diff};
use portolan_plan::{NodeView, renode};
use portolan_render::nft;
use portolan_testkit::rig::Rig;
use portolan_testkit::strategy::{client, facts, knocks, packet, view};
use portolan_why::Packet;
use proptest::prelude::*;

/// What a packet may become of: refused, dropped, or where it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Refused,
    Dropped,
    To(IpAddr, u16),
}

struct World<'v> {
    view: &'v NodeView,
    slot: u32,
    /// Among how many slots the rules drew.
    slots: u32,
}

impl Env for World<'_> {
    fn numgen(&mut self, _chain: &Name, modulus: u32) -> u32 {
        self.slots = modulus;
        self.slot.checked_rem(modulus).unwrap_or_default()
    }

    fn fib(&self, address: IpAddr) -> FibType {
        let loopback = [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ];
        let ours = self.view.is_node_address(address)
            || self.view.dns_addresses.contains(&address)
            || loopback.contains(&address);
        if ours {
            FibType::Local
        } else {
            FibType::Unicast
        }
    }
}

/// What may become of a packet, whatever slot is drawn.
fn fates(ruleset: &Ruleset, view: &NodeView, packet: &Packet) -> BTreeSet<Fate> {
    let first = interp::Packet {
        saddr: packet.source,
        daddr: packet.destination,
        proto: packet.protocol.number(),
        sport: 51_234,
        dport: packet.port,
        iif: if packet.from_node { "" } else { "eth0" }.into(),
        oif: String::new(),
        mark: 0,
        ct_state: CtState::NEW,
        ct_mark: 0,
        ether: None,
        ct_status: CtStatus::default(),
    };
    let fate = |slot| {
        let slots = 1;
        let mut world = World { view, slot, slots };
        let ran = if packet.from_node {
            interp::run_outgoing(ruleset, &first, &mut world)
        } else {
            interp::run_incoming(ruleset, &first, &mut world)
        };
        let fate = match ran {
            Outcome::Accept(passed) => Fate::To(passed.packet.daddr, passed.packet.dport),
            Outcome::Drop(_) => Fate::Dropped,
            Outcome::Reject(..) => Fate::Refused,
        };
        (fate, world.slots)
    };
    let (first, slots) = fate(0);
    let others = (1..slots).map(|slot| fate(slot).0);
    std::iter::once(first).chain(others).collect()
}

/// Every state on the way, with one element per transaction; returns how many.
fn hold(
    before: &Ruleset,
    batch: &Batch,
    after: &Ruleset,
    view: &NodeView,
    packets: &[Packet],
) -> usize {
    let allowed: Vec<BTreeSet<Fate>> = packets
        .iter()
        .map(|packet| {
            let mut all = fates(before, view, packet);
            all.extend(fates(after, view, packet));
            all
        })
        .collect();
    let mut state = before.clone();
    let mut transactions = 0;
    for transaction in encode(batch, 1, 1, None) {
        let part = transaction.part(batch);
        state.apply(&part).unwrap();
        transactions += 1;
        for (packet, allowed) in packets.iter().zip(&allowed) {
            let now = fates(&state, view, packet);
            assert!(
                now.is_subset(allowed),
                "{packet:?}\nis {now:?}\nnot {allowed:?}\nafter {part:#?}"
            );
        }
    }
    assert_eq!(&state, after);
    transactions
}

fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    let asked = std::env::var_os("PROPTEST_CASES").map(|_| usual.cases);
    ProptestConfig {
        cases: asked.unwrap_or(24),
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(0x706f_7274),
        ..usual
    }
}

proptest! {
    #![proptest_config(config())]

    /// A start from nothing, the repair of what an earlier agent left, a change of
    /// many Services at once, and the end of all of them.
    #[test]
    fn p20_every_state_between_transactions_is_as_before_or_as_after(
        view in view(),
        (one, other) in (facts(16), facts(16)),
        strays in proptest::collection::vec(packet(), 3),
        clients in proptest::collection::vec(client(), 2),
    ) {
        use portolan_model::Change::Upsert;
        let mut first = Rig::new(view.clone());
        first.apply(one.iter().cloned().map(Upsert)).unwrap();
        let mut second = Rig::new(view);
        second.apply(other.into_iter().map(Upsert)).unwrap();
        // The node's own object would change the view, which is another matter.
        let view = (*first.plan.view).clone();
        renode(&mut second.plan, &second.cluster, &view, &portolan_model::Dirty::default());
        let (a, b) = (nft::image(&first.plan), nft::image(&second.plan));
        let mut packets = strays;
        for client in clients {
            packets.extend(knocks(&first.plan, client));
            packets.extend(knocks(&second.plan, client));
        }
        packets.truncate(16);
        for (from, to) in [(&Ruleset::new(), &a), (&a, &b), (&b, &a)] {
            hold(from, &diff(from, to), to, &view, &packets);
        }
        // The same by a delta: everything there was is deleted, or changes.
        let mut rig = first.clone();
        let mut dirty = portolan_model::Dirty::default();
        for fact in &one {
            dirty.merge(rig.cluster.apply(portolan_model::Change::Delete(fact.key())));
        }
        let touched = renode(&mut rig.plan, &rig.cluster, &view, &dirty);
        let batch = nft::delta(&rig.plan, &touched);
        hold(&a, &batch, &nft::image(&rig.plan), &view, &packets);
    }
}

/// A start takes effect with its last transaction.
#[test]
fn p20_a_start_takes_effect_at_once() {
    use proptest::strategy::ValueTree as _;
    let mut runner = proptest::test_runner::TestRunner::new(config());
    let (view, facts) = (view(), facts(40)).new_tree(&mut runner).unwrap().current();
    let mut rig = Rig::new(view);
    rig.apply(facts.into_iter().map(portolan_model::Change::Upsert))
        .unwrap();
    let image = nft::image(&rig.plan);
    let mut batch = Batch::new();
    for part in nft::start(&rig.plan) {
        batch.extend(part);
    }
    let mut state = Ruleset::new();
    let mut hooked = Vec::new();
    for transaction in encode(&batch, 1, 1, None) {
        state.apply(&transaction.part(&batch)).unwrap();
        let chains = state
            .tables
            .values()
            .flat_map(|table| table.chains.values());
        let rules = chains.filter(|chain| chain.base.is_some() && !chain.rules.is_empty());
        hooked.push(rules.count());
    }
    let families = image.tables.len();
    let before: Vec<_> = hooked.iter().filter(|count| **count == 0).collect();
    assert_eq!(state, image);
    assert!(hooked.len() > 100, "{hooked:?}");
    // One transaction for each family makes it effective, whole.
    let mut steps = hooked.clone();
    steps.dedup();
    assert_eq!(steps.len(), families + 1, "{steps:?}");
    assert!(!before.is_empty());
}
