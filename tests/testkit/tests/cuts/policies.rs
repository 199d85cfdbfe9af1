//! The same for who may reach whom.
//!
//! What a change switches over is one transaction, so that each connection is judged as
//! before or as after, whatever changed at once. Where even that is too large for one,
//! an end of a connection is still judged as before or as after by each tier; both ends
//! together may then be as after some of the changes and not yet after the others.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::ops::Range;

use portolan_model::{Change, Fact, Family, Key, Kind, Protocol, Text, Tier};
use portolan_nft::interp::{Env, Outcome, Packet, run};
use portolan_nft::netlink::encode;
use portolan_nft::{Batch, FibType, Hook, Name, Rule, Ruleset, diff};
use portolan_plan::NodeView;
use portolan_render::nft;
use portolan_testkit::rig::Rig;
use portolan_testkit::strategy::{POLICY_PORTS, THIS_NODE, anybody, policy_change};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::TestRunner;

use super::config;

/// A view of which all pods are known, or one that closes addresses of others (N16).
fn view(closed: bool) -> NodeView {
    let ranges = ["10.244.1.0/24", "fd00:10:244:1::/64"];
    NodeView {
        node: THIS_NODE.into(),
        dns_addresses: ["10.96.0.10", "fd00:10:96::10"]
            .iter()
            .filter_map(|text| text.parse().ok())
            .collect(),
        node_pod_cidrs: ranges.iter().filter_map(|text| text.parse().ok()).collect(),
        close_unknown_pods: closed,
        ..NodeView::default()
    }
}

/// The first packet of a connection. ICMP has no ports.
#[derive(Clone, Debug)]
struct Knock {
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    port: u16,
}

/// Somebody who knocks: the sender and the receiver are among those who are there.
type Who = (Index, Index, (u8, u16));

fn who() -> impl Strategy<Value = Who> {
    let protocols = select(&[Protocol::Tcp, Protocol::Udp, Protocol::Sctp][..]);
    let ports = (protocols, select(&POLICY_PORTS[..]));
    let at = prop_oneof![
        12 => ports.prop_map(|(protocol, port)| (protocol.number(), port)),
        1 => Just((1, 0)),
    ];
    (any::<Index>(), any::<Index>(), at)
}

/// Connections among pods of any of these clusters, and others.
fn knocks<'r>(
    rigs: impl IntoIterator<Item = &'r Rig>,
    others: &[IpAddr],
    whos: &[Who],
) -> Vec<Knock> {
    let mut ends: BTreeSet<IpAddr> = others.iter().copied().collect();
    for rig in rigs {
        ends.extend(rig.cluster.pods().flat_map(|pod| pod.addresses.clone()));
    }
    let ends: Vec<IpAddr> = ends.into_iter().collect();
    let one = |(from, to, (protocol, port)): &Who| {
        let from = *from.get(&ends);
        let same = |to: &IpAddr| Family::of(*to) == Family::of(from);
        let family: Vec<IpAddr> = ends.iter().copied().filter(same).collect();
        Knock {
            from,
            to: *to.get(&family),
            protocol: *protocol,
            port: *port,
        }
    };
    whos.iter().map(one).collect()
}

/// Where a connection is judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spot {
    /// On its way to another pod or the outside, by both ends.
    Through,
    /// The same by who sends alone.
    Egress,
    /// The same by who gets it alone.
    Ingress,
    /// On its way to the node itself.
    Input,
}

const WHOLE: &[Spot] = &[Spot::Through, Spot::Input];
const EACH_END: &[Spot] = &[Spot::Egress, Spot::Ingress, Spot::Input];

impl Spot {
    fn hook(self) -> Hook {
        match self {
            Self::Through | Self::Egress | Self::Ingress => Hook::Forward,
            Self::Input => Hook::Input,
        }
    }

    /// The chain that has no say.
    fn silent(self) -> Option<&'static str> {
        match self {
            Self::Through | Self::Input => None,
            Self::Egress => Some("policy-ingress"),
            Self::Ingress => Some("policy-egress"),
        }
    }
}

/// The rules draw no numbers here, and ask for no routes.
struct Nowhere;

impl Env for Nowhere {
    fn numgen(&mut self, _chain: &Name, _modulus: u32) -> u32 {
        0
    }

    fn fib(&self, _address: IpAddr) -> FibType {
        FibType::Unicast
    }
}

/// Which of the connections are let through at each of the spots.
fn verdicts(ruleset: &mut Ruleset, knocks: &[Knock], spots: &[Spot]) -> Vec<bool> {
    let mut all = Vec::new();
    for spot in spots {
        let mut taken: Vec<Vec<Rule>> = Vec::new();
        for table in ruleset.tables.values_mut() {
            let chain = spot.silent().and_then(|name| table.chains.get_mut(name));
            taken.push(chain.map_or_else(Vec::new, |chain| std::mem::take(&mut chain.rules)));
        }
        for knock in knocks {
            let packet = Packet {
                proto: knock.protocol,
                ..Packet::tcp(knock.from, knock.to, knock.port)
            };
            let outcome = run(ruleset, &packet, &[spot.hook()], &mut Nowhere);
            all.push(matches!(outcome, Outcome::Accept(_)));
        }
        for (table, rules) in ruleset.tables.values_mut().zip(taken) {
            let chain = spot.silent().and_then(|name| table.chains.get_mut(name));
            if let Some(chain) = chain {
                chain.rules = rules;
            }
        }
    }
    all
}

/// What was seen, so that nothing is proven of nothing.
#[derive(Debug, Default)]
struct Seen {
    /// Connections that were let through and are not any more, and the other way round.
    closed: Cell<usize>,
    opened: Cell<usize>,
    /// Those that were and are let through, and those that neither were nor are.
    kept: Cell<usize>,
    out: Cell<usize>,
    /// States between two transactions.
    between: Cell<usize>,
}

impl Seen {
    fn count(&self, before: bool, after: bool) {
        let counter = match (before, after) {
            (true, false) => &self.closed,
            (false, true) => &self.opened,
            (true, true) => &self.kept,
            (false, false) => &self.out,
        };
        counter.set(counter.get() + 1);
    }

    fn is_enough(&self) {
        let all = [
            &self.closed,
            &self.opened,
            &self.kept,
            &self.out,
            &self.between,
        ];
        assert!(all.iter().all(|count| count.get() > 20), "{self:?}");
    }
}

/// How a batch is cut.
#[derive(Clone, Copy)]
enum Cut {
    /// Where it says so.
    Commits,
    /// Anywhere.
    Anywhere,
}

struct Law<'s> {
    knocks: &'s [Knock],
    cut: Cut,
    seen: &'s Seen,
}

impl Law<'_> {
    /// Every state on the way from one image to another.
    fn hold(&self, before: &Ruleset, batch: &Batch, after: &Ruleset) {
        let (limit, spots) = match self.cut {
            Cut::Commits => (usize::MAX, WHOLE),
            Cut::Anywhere => (1, EACH_END),
        };
        let [was, is] = [before, after].map(|all| verdicts(&mut all.clone(), self.knocks, spots));
        for (was, is) in was.iter().zip(&is) {
            self.seen.count(*was, *is);
        }
        let mut state = before.clone();
        for transaction in encode(batch, limit, 1, None) {
            let part = transaction.part(batch);
            state.apply(&part).unwrap();
            let now = verdicts(&mut state, self.knocks, spots);
            for (place, now) in now.iter().enumerate() {
                let (was, is) = (was[place], is[place]);
                let knock = &self.knocks[place % self.knocks.len()];
                let spot = spots[place / self.knocks.len()];
                assert!(
                    *now == was || *now == is,
                    "{knock:?} at {spot:?} was {was}, becomes {is}, and is {now} after {part:?}"
                );
            }
            self.seen.between.set(self.seen.between.get() + 1);
        }
        assert_eq!(&state, after);
    }
}

/// These changes as far as they are about one tier, whose policies have names of their own.
fn of_tier(tier: Tier, changes: &[Change]) -> Vec<Change> {
    let named = |name: &Text| Text::from(format!("{tier:?}-{name}").to_lowercase().as_str());
    let one = |change: &Change| match (tier, change) {
        (
            Tier::NetworkPolicy,
            Change::Upsert(Fact::Policy(_))
            | Change::Delete(Key::Policy(_))
            | Change::Replace(Kind::Policy, _),
        ) => Some(change.clone()),
        (Tier::Admin | Tier::Baseline, Change::Upsert(Fact::ClusterPolicy(policy))) => {
            let mut policy = (**policy).clone();
            policy.name = named(&policy.name);
            policy.tier = tier;
            Some(Change::Upsert(Fact::ClusterPolicy(policy.into())))
        }
        (Tier::Admin | Tier::Baseline, Change::Delete(Key::ClusterPolicy(name))) => {
            Some(Change::Delete(Key::ClusterPolicy(named(name))))
        }
        _ => None,
    };
    changes.iter().filter_map(one).collect()
}

/// Whether a change is about who is governed or spoken to, not about policies.
fn is_of_whom(change: &Change) -> bool {
    matches!(
        change,
        Change::Upsert(Fact::Pod(_) | Fact::Namespace(_))
            | Change::Delete(Key::Pod(_) | Key::Namespace(_))
            | Change::Attach(_)
            | Change::Detach(..)
    )
}

/// A random cluster, what happens to it, and who knocks.
#[derive(Clone, Debug)]
struct World {
    history: Vec<Change>,
    steps: Vec<Vec<Change>>,
    /// Whether addresses of unknown pods are closed, before and after.
    closed: [bool; 2],
    others: Vec<IpAddr>,
    whos: Vec<Who>,
}

fn world(
    history: Range<usize>,
    steps: Range<usize>,
    at_once: Range<usize>,
) -> impl Strategy<Value = World> {
    let history = vec(policy_change(), history);
    let steps = vec(vec(policy_change(), at_once), steps);
    let knocking = (vec(anybody(), 3), vec(who(), 48));
    (history, steps, any::<[bool; 2]>(), knocking).prop_map(
        |(history, steps, closed, (others, whos))| World {
            history,
            steps,
            closed,
            others,
            whos,
        },
    )
}

impl World {
    /// The cluster before anything happens: what `which` wants of its history.
    fn rig(&self, which: impl Fn(&&Change) -> bool) -> Rig {
        let mut rig = Rig::new(view(self.closed[0]));
        let history = self.history.iter().filter(which).cloned();
        rig.apply(history).unwrap();
        rig
    }

    fn knocks<'r>(&self, rigs: impl IntoIterator<Item = &'r Rig>) -> Vec<Knock> {
        knocks(rigs, &self.others, &self.whos)
    }
}

/// Holds a law in random worlds, in which there must be something to see.
fn everywhere(worlds: impl Strategy<Value = World>, law: impl Fn(&World, &Seen)) {
    let seen = Seen::default();
    let law = |world: World| {
        law(&world, &seen);
        Ok(())
    };
    TestRunner::new(config()).run(&worlds, law).unwrap();
    seen.is_enough();
}

/// Any changes at once, and what an agent finds that starts again: a connection is
/// judged as before until it is judged as after.
#[test]
fn n15_n16_n19_whatever_changes_at_once_each_connection_is_judged_as_before_or_as_after() {
    let cut = Cut::Commits;
    everywhere(world(20..60, 1..4, 1..12), |world, seen| {
        let mut rig = world.rig(|_| true);
        let first = rig.clone();
        for step in &world.steps {
            let before = rig.clone();
            let batch = rig.step(step.iter().cloned()).unwrap();
            let knocks = &world.knocks([&before, &rig]);
            Law { knocks, cut, seen }.hold(&before.ruleset, &batch, &rig.ruleset);
        }
        rig.look(view(world.closed[1])).unwrap();
        let knocks = &world.knocks([&first, &rig]);
        let (a, b) = (nft::image(&first.plan), nft::image(&rig.plan));
        for (from, to) in [(&Ruleset::new(), &a), (&a, &b), (&b, &a)] {
            Law { knocks, cut, seen }.hold(from, &diff(from, to), to);
        }
    });
}

/// Policies of one tier come, change and go, many at once, with a transaction for each
/// element.
#[test]
fn n15_n19_policies_change_in_any_number_of_transactions() {
    let cut = Cut::Anywhere;
    everywhere(world(20..60, 2..3, 1..40), |world, seen| {
        let mut rig = world.rig(|_| true);
        let knocks = &world.knocks([&rig]);
        let tiers = Tier::ALL.into_iter();
        for (tier, step) in tiers.flat_map(|tier| world.steps.iter().map(move |step| (tier, step)))
        {
            let before = rig.ruleset.clone();
            let batch = rig.step(of_tier(tier, step)).unwrap();
            let after = &rig.ruleset;
            let law = Law { knocks, cut, seen };
            law.hold(&before, &batch, after);
            law.hold(after, &diff(after, &before), &before);
        }
    });
}

/// The addresses of the pod that a change is about.
fn own<'r>(change: &Change, rigs: impl IntoIterator<Item = &'r Rig>) -> BTreeSet<IpAddr> {
    let key = match change {
        Change::Upsert(Fact::Pod(pod)) => &pod.key,
        Change::Delete(Key::Pod(key)) | Change::Detach(key, _) => key,
        Change::Attach(attachment) => &attachment.pod,
        Change::Upsert(_) | Change::Delete(_) | Change::Replace(..) => return BTreeSet::new(),
    };
    let pods = rigs.into_iter().filter_map(|rig| rig.cluster.pod(key));
    pods.flat_map(|pod| pod.addresses.clone()).collect()
}

/// A pod or a namespace comes, changes and goes among NetworkPolicies, with a
/// transaction for each element. What a pod would send to another address of its own is
/// left out, of which both ends change.
#[test]
fn n15_n16_a_pod_changes_in_any_number_of_transactions() {
    let cut = Cut::Anywhere;
    let is_plain = |change: &&Change| {
        let policies = of_tier(Tier::NetworkPolicy, std::slice::from_ref(*change));
        is_of_whom(change) || !policies.is_empty()
    };
    everywhere(world(30..90, 1..16, 1..2), |world, seen| {
        let mut rig = world.rig(is_plain);
        for step in world.steps.iter().flatten().filter(|step| is_of_whom(step)) {
            let before = rig.clone();
            let batch = rig.step([step.clone()]).unwrap();
            let own = own(step, [&before, &rig]);
            let mut knocks = world.knocks([&before, &rig]);
            knocks.retain(|knock| !own.contains(&knock.from) || !own.contains(&knock.to));
            let knocks = &knocks;
            Law { knocks, cut, seen }.hold(&before.ruleset, &batch, &rig.ruleset);
        }
    });
}
