//! What conntrack cannot place, before the rules of random clusters.

use std::net::IpAddr;

use portolan_model::{Family, Protocol};
use portolan_nft::interp::{Env, Outcome, Packet, run};
use portolan_nft::{CtState, FibType, Hook, Name};
use portolan_plan::Verdict;
use portolan_testkit::rig::Rig;
use portolan_testkit::strategy::{changes, view};
use proptest::prelude::*;

struct Elsewhere;

impl Env for Elsewhere {
    fn numgen(&mut self, _: &Name, _: u32) -> u32 {
        0
    }

    fn fib(&self, _: IpAddr) -> FibType {
        FibType::Unicast
    }
}

fn outsider(family: Family, last: u8) -> IpAddr {
    match family {
        Family::V4 => IpAddr::from([203, 0, 113, last]),
        Family::V6 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into()]),
    }
}

/// On its way through the node, or from it, or to it.
const WAYS: [Hook; 3] = [Hook::Forward, Hook::Output, Hook::Input];

fn passes(rig: &Rig, packet: &Packet, way: Hook) -> bool {
    let outcome = run(&rig.ruleset, packet, &[way], &mut Elsewhere);
    matches!(outcome, Outcome::Accept(_))
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 128,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(0x706f_7274),
        ..ProptestConfig::default()
    })]

    /// From any endpoint that connections are sent to, whatever cannot be placed
    /// goes no further, and what can be does; nobody else's packets are dropped.
    #[test]
    fn p18_only_strays_of_endpoints_are_dropped(view in view(), history in changes(40)) {
        let mut rig = Rig::new(view);
        rig.apply(history).unwrap();
        for (frontend, decision) in &rig.plan.frontends {
            for (_, verdict) in frontend.lanes(decision) {
                let Verdict::Forward(forward) = verdict else {
                    continue;
                };
                for target in &forward.targets {
                    let mut packet = Packet::tcp(
                        target.address,
                        outsider(frontend.family(), 1),
                        40_000,
                    );
                    packet.proto = frontend.protocol.number();
                    packet.sport = target.port;
                    for way in WAYS {
                        packet.ct_state = CtState::INVALID;
                        let lives = frontend.protocol == Protocol::Udp;
                        prop_assert_eq!(passes(&rig, &packet, way), lives, "{:?}", packet);
                        packet.ct_state = CtState::ESTABLISHED;
                        prop_assert!(passes(&rig, &packet, way));
                    }
                }
            }
        }
        for family in Family::BOTH {
            for state in [CtState::INVALID, CtState::ESTABLISHED] {
                let mut packet = Packet::tcp(outsider(family, 1), outsider(family, 2), 443);
                packet.ct_state = state;
                for way in WAYS {
                    prop_assert!(passes(&rig, &packet, way));
                }
            }
        }
    }
}
