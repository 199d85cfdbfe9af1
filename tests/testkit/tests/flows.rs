//! Which flows end, by what changed and by everything there is.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use portolan_model::{Dirty, Family, Protocol};
use portolan_plan::conntrack::{Flow, Judge, Scope};
use portolan_plan::{Frontend, NodePlan, Place, Verdict, renode};
use portolan_testkit::rig::Rig;
use portolan_testkit::strategy::{changes, view};
use proptest::prelude::*;

/// Where a client sends that means this frontend.
fn aim(plan: &NodePlan, frontend: Frontend) -> Option<SocketAddr> {
    let address = match frontend.place {
        Place::ClusterIp(address) | Place::External(address) => Some(address),
        Place::NodePort(family) => plan
            .view
            .node_addresses
            .iter()
            .copied()
            .find(|address| Family::of(*address) == family),
    };
    address.map(|address| SocketAddr::new(address, frontend.port))
}

/// A flow to each endpoint that any client's packets may be sent to now.
fn flows(plan: &NodePlan) -> Vec<Flow> {
    let mut flows = Vec::new();
    for (frontend, decision) in &plan.frontends {
        let Some(to) = aim(plan, *frontend) else {
            continue;
        };
        for (_, verdict) in frontend.lanes(decision) {
            let Verdict::Forward(forward) = verdict else {
                continue;
            };
            flows.extend(forward.targets.iter().map(|target| Flow {
                protocol: frontend.protocol,
                to,
                answers_from: SocketAddr::new(target.address, target.port),
                zoned: false,
            }));
        }
    }
    flows
}

/// Takes away what must end, and says whether that was anything.
fn end(flows: &mut BTreeSet<Flow>, rig: &Rig, scope: &Scope) -> usize {
    let own: BTreeSet<IpAddr> = rig.plan.view.node_addresses.iter().copied().collect();
    let mut judge = Judge::new(&rig.plan, &rig.cluster, scope, &own);
    let before = flows.len();
    flows.retain(|flow| judge.judge(flow).is_none());
    before - flows.len()
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 192,
        failure_persistence: None,
        rng_seed: proptest::test_runner::RngSeed::Fixed(0x706f_7274),
        ..ProptestConfig::default()
    })]

    /// After each change, judging what it touched leaves nothing that judging
    /// everything would end; TCP is never ended, and a flow to where the plan
    /// sends packets now is never ended.
    #[test]
    fn p17_p18_what_a_change_touched_is_all_that_is_stale(
        view in view(),
        history in changes(40),
    ) {
        let mut rig = Rig::new(view);
        let mut open = BTreeSet::new();
        for change in history {
            let mut dirty = Dirty::default();
            dirty.merge(rig.cluster.apply(change));
            let view = rig.given_view.observed(&rig.cluster);
            let touched = renode(&mut rig.plan, &rig.cluster, &view, &dirty);
            let scope = Scope::of(&rig.plan, &rig.cluster, &dirty, &touched);
            let tcp = |open: &BTreeSet<Flow>| {
                open.iter().filter(|flow| flow.protocol == Protocol::Tcp).count()
            };
            let tcp_before = tcp(&open);
            end(&mut open, &rig, &scope);
            prop_assert_eq!(end(&mut open.clone(), &rig, &Scope::everything()), 0);
            prop_assert_eq!(tcp(&open), tcp_before);
            let now: BTreeSet<Flow> = flows(&rig.plan).into_iter().collect();
            prop_assert_eq!(end(&mut now.clone(), &rig, &Scope::everything()), 0);
            open.extend(now);
        }
    }
}
