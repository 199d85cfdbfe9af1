//! Which changes make an agent look through the clients it remembers.

use std::net::{IpAddr, SocketAddr};

use portolan_model::Cluster;
use portolan_plan::{NodePlan, Place, Remembered, Verdict, is_stale, renode};
use portolan_testkit::strategy::{changes, view};
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

/// What clients of every kind may be remembered with.
fn memories(plan: &NodePlan) -> Vec<Remembered> {
    let clients: Vec<IpAddr> = ["10.244.1.1", "203.0.113.7", "172.18.0.2"]
        .map(|text| text.parse().expect("an address"))
        .into();
    let mut all = Vec::new();
    for (frontend, decision) in &plan.frontends {
        let to = match frontend.place {
            Place::ClusterIp(address) | Place::External(address) => vec![address],
            Place::NodePort(family) => plan
                .view
                .node_port_ranges(family)
                .iter()
                .map(|range| range.addr())
                .collect(),
        };
        for (_, verdict) in frontend.lanes(decision) {
            let Verdict::Forward(forward) = verdict else {
                continue;
            };
            for (target, client) in forward
                .targets
                .iter()
                .flat_map(|target| clients.iter().map(move |client| (target, *client)))
            {
                all.extend(to.iter().map(|address| Remembered {
                    client,
                    to: SocketAddr::new(*address, frontend.port),
                    protocol: frontend.protocol,
                    endpoint: SocketAddr::new(target.address, target.port),
                }));
            }
        }
    }
    all.retain(|memory| !is_stale(plan, memory));
    all
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 128,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x706f_7274),
        ..ProptestConfig::default()
    })]

    /// A change after which somebody must be forgotten says so; and most changes
    /// do not, since a look costs as much as there are clients.
    #[test]
    fn p13_no_client_of_an_endpoint_that_went_is_overlooked(
        view in view(),
        history in changes(40),
    ) {
        let mut cluster = Cluster::default();
        let mut plan = NodePlan::empty(view.clone());
        for change in history {
            let before = memories(&plan);
            let dirty = cluster.apply(change);
            let view = view.observed(&cluster);
            let touched = renode(&mut plan, &cluster, &view, &dirty);
            let stale = before.iter().find(|memory| is_stale(&plan, memory));
            prop_assert!(stale.is_none() || touched.may_forget(&plan), "{stale:?}");
            if touched.view.is_none() && touched.frontends.is_empty() {
                prop_assert!(!touched.may_forget(&plan));
            }
        }
    }
}
