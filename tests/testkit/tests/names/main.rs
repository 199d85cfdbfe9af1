//! Names and addresses of random clusters: the server's answers equal those of an
//! obviously simple reference, also after any history of changes, and names lead to
//! addresses that lead back.

#![expect(clippy::unwrap_used, reason = "a helper that fails fails the test")]

mod coverage;
mod many;
mod pods;
mod pointers;
mod reference;
mod wire;
mod worlds;

use std::collections::BTreeSet;

use portolan_dns::{Answer, Transport, Zone, Zones};
use portolan_model::{Change, Cluster, Dirty, Fact};
use portolan_plan::{NodePlan, NodeView, node, renode};
use portolan_render::zone;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use reference::{Expected, Reference, TYPES};

/// What plain DNS allows in a datagram (RFC 1035 §4.2.1).
const PLAIN_UDP: usize = 512;

/// The same sequence for every machine: a failure is one for everybody.
fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(0x6e61_6d65),
        ..ProptestConfig::default()
    }
}

/// The zones of facts, made at once.
fn zones_of(facts: &[Fact], view: &NodeView) -> Zones {
    let mut cluster = Cluster::default();
    for fact in facts {
        cluster.apply(Change::Upsert(fact.clone()));
    }
    zone::image(&node(&cluster, &view.observed(&cluster)), 1)
}

/// The zones as the agent keeps them, change by change.
struct Kept {
    cluster: Cluster,
    view: NodeView,
    plan: NodePlan,
    zones: Zones,
}

impl Kept {
    fn new(view: &NodeView) -> Self {
        let plan = NodePlan::empty(view.clone());
        Self {
            cluster: Cluster::default(),
            view: view.clone(),
            zones: zone::image(&plan, 1),
            plan,
        }
    }

    /// Takes changes in together, as one round of the agent does.
    fn apply(&mut self, changes: &[Change]) {
        let mut dirty = Dirty::default();
        for change in changes {
            dirty.merge(self.cluster.apply(change.clone()));
        }
        let view = self.view.observed(&self.cluster);
        let touched = renode(&mut self.plan, &self.cluster, &view, &dirty);
        zone::delta(&self.plan, &touched, &mut self.zones);
    }
}

/// Every name that exists, from the namespace's own to those of addresses.
fn known(reference: &Reference) -> BTreeSet<String> {
    let lines = &reference.lines;
    let written = lines.iter().flat_map(|line| [&line.owner, &line.data]);
    let written = written.chain(&reference.bare).chain(&reference.origins);
    // Of many addresses some stand for all.
    let written = written.chain(reference.single.iter().step_by(7));
    // Data is a name, an address, or an SRV record, whose target is an owner too.
    let mut all: BTreeSet<String> = written
        .filter(|name| !name.contains([' ', ':', '"']) && !name.is_empty())
        .cloned()
        .collect();
    for service in reference.parts.keys() {
        for label in ["west-1a", "EAST", "far", "nowhere"] {
            for manner in ["pin", "prefer", "other"] {
                let name = format!("{label}.{manner}._zone.{service}");
                all.insert(name.to_lowercase());
            }
        }
    }
    for top in &reference.spelling {
        for label in [
            "10-0-0-7",
            "fd00--7",
            "10-0-0",
            "10-0-0-777",
            "a-b-c-d",
            "-",
        ] {
            all.insert(format!("{label}.{top}"));
        }
    }
    let above = all.iter().flat_map(|name| {
        let dots = name.match_indices('.').skip(1).take(3);
        dots.map(|(at, _)| name[at + 1..].to_owned())
    });
    let above: Vec<String> = above.collect();
    all.extend(above);
    all
}

/// Names that differ in one label: changed, taken away, or added. Of long names some
/// labels stand for all.
fn near(name: &str) -> BTreeSet<String> {
    let labels: Vec<&str> = name.split('.').collect();
    let count = labels.len();
    let mut all = BTreeSet::new();
    for (at, label) in labels.iter().enumerate() {
        if at > 4 && at + 3 < count {
            continue;
        }
        let mut vary = |change: &dyn Fn(&mut Vec<String>)| {
            let mut labels: Vec<String> = labels.iter().map(|label| (*label).to_owned()).collect();
            change(&mut labels);
            if !labels.is_empty() && labels.iter().all(|label| !label.is_empty()) {
                all.insert(labels.join("."));
            }
        };
        vary(&|labels| drop(labels.remove(at)));
        vary(&|labels| labels[at].push('x'));
        vary(&|labels| labels[at].truncate(label.len() - 1));
        vary(&|labels| labels.insert(at, "x".to_owned()));
        vary(&|labels| labels.insert(at, labels[at].clone()));
    }
    all.insert(format!("_tcp.{name}"));
    all.insert(format!("_http._tcp.{name}"));
    all.insert(format!("10-244-1-1.{name}"));
    all.remove(name);
    all
}

/// The questions to ask of a cluster: every type of names that exist, and a type in
/// turn of those that nearly do.
fn questions(reference: &Reference) -> BTreeSet<(String, &'static str)> {
    let mut all = BTreeSet::new();
    for name in known(reference) {
        for rtype in TYPES {
            all.insert((name.clone(), rtype));
        }
        for (turn, other) in near(&name).into_iter().enumerate() {
            all.insert((other, TYPES[turn % TYPES.len()]));
        }
    }
    all
}

/// Holds one answer to what it must be; over both transports.
fn check(zones: &Zones, reference: &Reference, name: &str, rtype: &str) {
    let expected = reference.answer(name, rtype);
    let Some(said) = wire::ask(zones, name, rtype, Transport::Tcp) else {
        assert_eq!(expected, Expected::Elsewhere, "{name} {rtype}");
        return;
    };
    let about = format!("{name} {rtype}: {said:#?}\nexpected {expected:#?}");
    let (code, lines, soa, outside) = match &expected {
        Expected::Elsewhere => panic!("must be left to others: {about}"),
        Expected::NoName { soa } => ("NXDOMAIN", BTreeSet::new(), Some(soa), false),
        Expected::NoData { soa } => ("NOERROR", BTreeSet::new(), Some(soa), false),
        Expected::Records { lines, outside } => ("NOERROR", lines.clone(), None, *outside),
    };
    assert_eq!(said.code, code, "{about}");
    assert_eq!(said.answers, lines, "{about}");
    assert_eq!(matches!(said.answer, Answer::Follow(_)), outside, "{about}");
    let authority: BTreeSet<String> = soa.map(|zone| reference.soa(zone)).into_iter().collect();
    assert_eq!(said.authority, authority, "{about}");
    assert!(!said.truncated, "{about}");
    let glue = reference.glue(&lines);
    assert_eq!(said.additional, glue, "{about}");
    // In a datagram the same, or less and marked as such; what is added may be left out.
    let short = wire::ask(zones, name, rtype, Transport::Udp).unwrap();
    assert!(short.length <= PLAIN_UDP, "{about}");
    assert_eq!(short.code, said.code, "{about}");
    assert!(short.truncated || short.answers == said.answers, "{about}");
    assert!(short.answers.is_subset(&said.answers), "{about}");
    assert!(short.additional.is_subset(&said.additional), "{about}");
}

proptest! {
    #![proptest_config(config(48))]

    /// Whatever happened, names mean what the specification says of what is there now.
    #[test]
    fn d1_d17_answers_equal_the_reference_after_any_history(
        (first, later) in (worlds::view(), worlds::view()),
        history in worlds::history(),
        at_once in 1_usize..5,
    ) {
        let mut kept = Kept::new(&first);
        let mut facts = Vec::new();
        for (round, changes) in history.chunks(at_once).enumerate() {
            changes.iter().for_each(|change| worlds::replay(&mut facts, change));
            if round == 3 {
                kept.view = later.clone();
            }
            kept.apply(changes);
            prop_assert!(kept.zones == zones_of(&facts, &kept.view), "after round {round}");
        }
        let reference = Reference::new(&facts, &kept.view);
        for (name, rtype) in questions(&reference) {
            check(&kept.zones, &reference, &name, rtype);
        }
    }

    /// Each address of a Service, and of an endpoint with a name of its own, has that
    /// name; and each name that an address has leads to that address.
    #[test]
    fn d12_names_and_addresses_lead_to_each_other(
        view in worlds::view(),
        history in worlds::history(),
    ) {
        let mut facts = Vec::new();
        history.iter().for_each(|change| worlds::replay(&mut facts, change));
        let zones = zones_of(&facts, &view);
        let own = |name: &str, rtype| {
            let said = wire::ask(&zones, name, rtype, Transport::Tcp);
            let lines = said.map(|said| said.answers).unwrap_or_default();
            let data = lines.iter().filter_map(|line| {
                let words: Vec<&str> = line.split(' ').collect();
                (words[0] == name && words[2] == rtype).then(|| words[3].to_owned())
            });
            data.collect::<BTreeSet<String>>()
        };
        let back_of = |name: &str| -> BTreeSet<String> {
            let addresses = own(name, "A").into_iter().chain(own(name, "AAAA"));
            addresses.map(|address| reference::reverse(address.parse().unwrap())).collect()
        };
        let (mut there, mut back) = (BTreeSet::new(), BTreeSet::new());
        for (owner, _) in zones.iter().flat_map(Zone::entries) {
            let name = owner.to_string().trim_end_matches('.').to_owned();
            for target in own(&name, "PTR") {
                prop_assert!(back_of(&target).contains(&name), "{name} -> {target}");
                back.insert((target, name.clone()));
            }
            if reference::leads_back(&facts, &view, &name) {
                for reverse in back_of(&name) {
                    // A Service's address has that one's name, not an endpoint's.
                    let called = own(&reverse, "PTR");
                    if called.iter().any(|other| reference::is_service(&facts, &view, other))
                        && !reference::is_service(&facts, &view, &name)
                    {
                        continue;
                    }
                    prop_assert!(own(&reverse, "PTR").contains(&name), "{name} -> {reverse}");
                    there.insert((name.clone(), reverse));
                }
            }
        }
        prop_assert_eq!(there, back);
    }
}
