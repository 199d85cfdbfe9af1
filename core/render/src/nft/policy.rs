//! NetworkPolicies and ClusterNetworkPolicies: who may reach this node's pods, and whom
//! they may reach.
//!
//! Judged after translation and before masquerade: at forward for other pods and the
//! outside, at input for the node itself and for who answers names on it (N17, N21).
//! What the node itself sends passes no such hook, which lets probes through (N12).
//!
//! A new packet meets the same few rules whatever the number of policies, pods and
//! peers: its pod leads to the chain of its set, its port to that of the peers there,
//! and these are looked up in a set of addresses and one of ranges for each of the three
//! things that may become of them. Each end has a base chain of its own, since to accept
//! is to leave that one only: a chain accepts or drops to decide, and returns to leave
//! it to the next tier (N19).
//!
//! What becomes of peers is in sets, not in verdict maps: the kernel walks through all
//! elements of a verdict map for each way that leads there, whenever a chain is added.
//!
//! Without a pod that policies are about nothing of this is there.

use std::collections::BTreeSet;
use std::net::IpAddr;

use portolan_model::{Action, Direction, Family, Tier};
use portolan_nft::{
    Batch, Chain, ChainType, CtState, Data, Field, Hook, Key, Name, Rule, Ruleset, Set, Table,
    Tuple, Value, Verdict, diff,
};
use portolan_plan::policy::{
    Closed, Door, Frame, Isolation, Level, PeersId, Policies, PolicySet, SetId, Step,
    TouchedPolicies, Way,
};

use portolan_plan::NodeView;

use super::{denied, family_of, table_id};

/// Pods that policies are about, each paired with itself (N12).
const ITSELF: &str = "policy_self";

/// Ranges of this node's pods whose addresses are closed until a pod is known to have
/// them (N16).
const CLOSED: &str = "policy_closed";
/// The addresses that pods of this node are known to have. This is a map that leads
/// on, and is looked up last, so that an address opens after its pod is isolated.
const HERE: &str = "policy_here";
/// The chains of packets from and to such ranges.
pub(super) const UNKNOWN: [(&str, Field); 2] = [
    ("policy-from-known", Field::Saddr),
    ("policy-to-known", Field::Daddr),
];

/// The chain of what no rule allows.
pub(super) const OTHERS: &str = "policy-others";

/// What pods send is judged before what they get.
const EGRESS: i32 = 0;
const INGRESS: i32 = 1;

/// ICMPv6. What neighbours say to each other (RFC 4861) is not for policies, and the
/// kernel tracks nothing of it but the rest of ICMPv6.
const ICMP_V6: u8 = 58;

/// Puts everything into the tables.
pub(super) fn put(view: &NodeView, policies: &Policies, ruleset: &mut Ruleset) {
    let mut part = Part { ruleset };
    if has_hooks(policies) {
        part.hooks(policies.closed(), policies.cut_bit);
    }
    if policies.closed().is_some() {
        for address in policies.here() {
            part.here(address);
        }
    }
    for (address, isolation) in &policies.isolated {
        part.isolated(*address, isolation);
    }
    for (id, set) in policies.sets() {
        part.set(*id, set);
    }
    for (id, peers) in policies.peers() {
        part.peers(*id, &peers.frame);
        for pod in peers.pods() {
            part.peer((*id, &peers.frame), pod);
        }
    }
    for (id, door, level) in policies.doors() {
        if let Some(set) = policies.set(id) {
            part.door((id, set), door, level);
        }
    }
    denied::put(view, ruleset);
}

/// Whether anything is to be judged.
fn has_hooks(policies: &Policies) -> bool {
    policies.sets().next().is_some() || policies.closed().is_some()
}

/// What a round changed: what there was of it, and what there is now.
pub(super) fn delta(
    (before_view, view): (&NodeView, &NodeView),
    policies: &Policies,
    touched: &TouchedPolicies,
) -> Batch {
    if *touched == TouchedPolicies::default() && denied::are_alike(before_view, view) {
        return Batch::new();
    }
    let [mut before, mut after] = [(), ()].map(|()| empty());
    let was = Part {
        ruleset: &mut before,
    };
    let is = Part {
        ruleset: &mut after,
    };
    compare(policies, touched, was, is);
    denied::put(before_view, &mut before);
    denied::put(view, &mut after);
    diff(&before, &after)
}

fn compare(policies: &Policies, touched: &TouchedPolicies, mut was: Part<'_>, mut is: Part<'_>) {
    let came = touched.sets.values().filter(|before| before.is_none());
    let gone = touched.sets.values().flatten().count();
    let closed = policies.closed();
    let was_closed = touched.closed.as_ref().map_or(closed, Option::as_ref);
    if policies.sets().len() + gone > came.count() || was_closed.is_some() {
        was.hooks(was_closed, touched.cut_bit.unwrap_or(policies.cut_bit));
    }
    if has_hooks(policies) {
        is.hooks(closed, policies.cut_bit);
    }
    known(policies, touched, (was_closed, &mut was), (closed, &mut is));
    for (address, before) in &touched.isolated {
        if let Some(before) = before {
            was.isolated(*address, before);
        }
        if let Some(after) = policies.isolated.get(address) {
            is.isolated(*address, after);
        }
    }
    for (id, before) in &touched.sets {
        if let Some(before) = before {
            was.set(*id, before);
        }
        if let Some(after) = policies.set(*id) {
            is.set(*id, after);
        }
    }
    for (id, before) in &touched.peers.peers {
        if let Some(before) = before {
            was.peers(*id, before);
        }
        if let Some(after) = policies.peers().get(id) {
            is.peers(*id, &after.frame);
        }
    }
    for ((id, address), before) in &touched.peers.pods {
        let after = policies.peers().get(id);
        let frame = after.map(|peers| &peers.frame);
        let coming = touched.peers.peers.get(id);
        // Those of peers that come or go are told with them.
        if let (Some(frame), None) = (frame, coming) {
            was.members(*id, frame);
            is.members(*id, frame);
        }
        let gone = coming.and_then(Option::as_ref);
        if let (Some(step), Some(frame)) = (before, gone.or(frame)) {
            was.peer((*id, frame), (*address, *step));
        }
        if let Some((step, frame)) = after.and_then(|peers| peers.step(*address)).zip(frame) {
            is.peer((*id, frame), (*address, step));
        }
    }
    for ((id, door), before) in &touched.peers.doors {
        let after = policies.set(*id);
        let coming = touched.sets.get(id);
        if let (Some(set), None) = (after, coming) {
            was.doors(*id, set);
            is.doors(*id, set);
        }
        let gone = coming.and_then(Option::as_ref);
        if let (Some(level), Some(set)) = (before, gone.or(after)) {
            was.door((*id, set), *door, *level);
        }
        if let (Some(level), Some(set)) = (policies.door(*id, *door), after) {
            is.door((*id, set), *door, level);
        }
    }
}

/// The addresses that are known: all of them where closing began or ended.
fn known(
    policies: &Policies,
    touched: &TouchedPolicies,
    (was_closed, was): (Option<&Closed>, &mut Part<'_>),
    (closed, is): (Option<&Closed>, &mut Part<'_>),
) {
    let before = |address: &IpAddr| touched.here.get(address).copied();
    let all = (was_closed.is_some() != closed.is_some()).then(|| policies.here());
    let all = all.into_iter().flatten();
    let addresses: BTreeSet<IpAddr> = all.chain(touched.here.keys().copied()).collect();
    for address in addresses {
        let here = policies.is_here(address);
        if was_closed.is_some() && before(&address).unwrap_or(here) {
            was.here(address);
        }
        if closed.is_some() && here {
            is.here(address);
        }
    }
}

fn empty() -> Ruleset {
    let mut ruleset = Ruleset::new();
    for family in Family::BOTH {
        ruleset.tables.insert(table_id(family), Table::default());
    }
    ruleset
}

/// Tables to which parts are added.
struct Part<'r> {
    ruleset: &'r mut Ruleset,
}

impl Part<'_> {
    fn table(&mut self, family: Family) -> &mut Table {
        self.ruleset.tables.entry(table_id(family)).or_default()
    }

    fn element(&mut self, family: Family, set: &str, key: Key, data: Data) {
        if let Some(set) = self.table(family).sets.get_mut(set) {
            set.elements.insert(key, data);
        }
    }

    /// The chains at the hooks, and what they look up.
    fn hooks(&mut self, closed: Option<&Closed>, cut_bit: Option<u32>) {
        for family in Family::BOTH {
            let unknown = closed.map(|ranges| self.closed(family, ranges).map(Some));
            let unknown = unknown.unwrap_or_default();
            let table = self.table(family);
            let mut base = |name: &str, (hook, priority), rules: Vec<Rule>| {
                let chain = Chain::base(ChainType::Filter, hook, priority, rules);
                table.chains.insert(name.into(), chain);
            };
            let known = Rule::new()
                .ct_state(CtState::ESTABLISHED.or(CtState::RELATED))
                .verdict(Verdict::Accept);
            let tiers = |direction| {
                Tier::ALL
                    .map(|tier| Rule::new().vmap([own_end(direction)], pods_of(direction, tier)))
            };
            // What is no longer allowed is marked by who looks through connections.
            let cut = || cut_bit.map(|bit| Rule::new().ct_mark_has(bit).verdict(Verdict::Drop));
            let [no_sender, no_receiver] = unknown;
            let forward = |direction, unknown: Option<Rule>| {
                let rules = cut().into_iter().chain([known.clone()]);
                let rules = rules.chain(tiers(direction));
                rules.chain(unknown).collect()
            };
            let hook = (Hook::Forward, EGRESS);
            let egress = forward(Direction::Egress, no_sender.clone());
            base("policy-egress", hook, egress);
            let hook = (Hook::Forward, INGRESS);
            base(
                "policy-ingress",
                hook,
                forward(Direction::Ingress, no_receiver),
            );
            let neighbours = Rule::new()
                .ct_state(CtState::UNTRACKED)
                .eq(Field::L4Proto, Value::Proto(ICMP_V6))
                .verdict(Verdict::Accept);
            let neighbours = (family == Family::V6).then_some(neighbours);
            let input = cut().into_iter().chain([known]).chain(neighbours);
            // Only senders can be unknown to whom it goes.
            let input = input.chain(tiers(Direction::Egress)).chain(no_sender);
            base("policy-input", (Hook::Input, EGRESS), input.collect());
            let itself = Rule::new()
                .lookup([Field::Saddr, Field::Daddr], ITSELF)
                .verdict(Verdict::Accept);
            let rules = [itself, Rule::new().verdict(Verdict::Drop)];
            table.chains.insert(OTHERS.into(), Chain::regular(rules));
            for direction in Direction::BOTH {
                for tier in Tier::ALL {
                    let map = Set::vmap([own_end(direction)]);
                    table.sets.insert(pods_of(direction, tier), map);
                }
            }
            let pairs = Set::set([Field::Saddr, Field::Daddr]);
            table.sets.insert(ITSELF.into(), pairs);
        }
    }

    /// What looks for packets of addresses that nobody is known to have: from such,
    /// and to such.
    fn closed(&mut self, family: Family, ranges: &Closed) -> [Rule; 2] {
        let table = self.table(family);
        let of_family = ranges.iter().filter(|net| family_of(net.addr()) == family);
        let mut closed = Set::set([Field::Saddr]).interval();
        for net in of_family {
            let ends = [net.network(), net.broadcast()];
            let [first, last] = ends.map(|end| Tuple::new(&[end.into()]));
            closed.elements.insert(Key::range(first, last), Data::None);
        }
        table.sets.insert(CLOSED.into(), closed);
        table.sets.insert(HERE.into(), Set::vmap([Field::Saddr]));
        UNKNOWN.map(|(chain, field)| {
            let known = Rule::new().vmap([field], HERE);
            let rules = [known, Rule::new().verdict(Verdict::Drop)];
            table.chains.insert(chain.into(), Chain::regular(rules));
            let rule = Rule::new().lookup([field], CLOSED);
            rule.verdict(Verdict::Jump(chain.into()))
        })
    }

    /// An address that a pod of this node is known to have.
    fn here(&mut self, address: IpAddr) {
        let data = Data::Verdict(Verdict::Return);
        self.element(family_of(address), HERE, Key::from([address.into()]), data);
    }

    /// A pod that policies are about.
    fn isolated(&mut self, address: IpAddr, isolation: &Isolation) {
        let family = family_of(address);
        let own = Value::from(address);
        let pair = Key::from([own.clone(), own.clone()]);
        self.element(family, ITSELF, pair, Data::None);
        for (direction, tier, id) in isolation.iter() {
            let jump = Data::Verdict(Verdict::Jump(chain_of(direction, id)));
            let map = pods_of(direction, tier);
            self.element(family, &map, Key::from([own.clone()]), jump);
        }
    }

    /// What governs pods in one direction and tier.
    fn set(&mut self, id: SetId, set: &PolicySet) {
        let mut rules = Vec::new();
        if !set.named.is_empty() {
            rules.push(Rule::new().vmap(DOOR, doors_of(id)));
            self.doors(id, set);
        }
        if !set.classes.is_empty() {
            rules.push(Rule::new().vmap([Field::L4Proto, Field::Dport], ports_of(id)));
        }
        rules.push(Rule::new().verdict(verdict(&set.rest.way)));
        for family in set.families.iter() {
            let table = self.table(family);
            let chain = Chain::regular(rules.clone());
            table.chains.insert(chain_of(set.direction, id), chain);
            if !set.classes.is_empty() {
                table.sets.insert(ports_of(id), classes(set));
            }
        }
    }

    /// Where a set keeps what it says about ports by name.
    fn doors(&mut self, id: SetId, set: &PolicySet) {
        for family in set.families.iter() {
            let sets = &mut self.table(family).sets;
            sets.entry(doors_of(id)).or_insert_with(|| Set::vmap(DOOR));
        }
    }

    fn door(&mut self, (id, set): (SetId, &PolicySet), door: Door, level: Level) {
        let (address, protocol, port) = door;
        let Some(way) = set.at(Some((protocol, port))).doors.get(&level) else {
            return;
        };
        let protocol = Value::Proto(protocol.number());
        let key = Key::from([address.into(), protocol, Value::Port(port)]);
        let verdict = Data::Verdict(verdict(way));
        self.element(family_of(address), &doors_of(id), key, verdict);
    }

    /// Peers, without the pods among them.
    fn peers(&mut self, id: PeersId, frame: &Frame) {
        self.members(id, frame);
        let field = other_end(frame.direction);
        let among = |set: Name, action| {
            let rule = Rule::new().lookup([field], set);
            rule.verdict(outcome(action))
        };
        for family in frame.families.iter() {
            let table = self.table(family);
            let pods = frame.exceptions();
            let mut rules: Vec<Rule> = pods
                .map(|action| among(members_of(id, action), action))
                .collect();
            for action in ACTIONS {
                let ranges = frame.ranges(family, action);
                if ranges.is_empty() {
                    continue;
                }
                let mut set = Set::set([Field::Saddr]).interval();
                for (first, last) in ranges {
                    let [first, last] = [first, last].map(|end| Tuple::new(&[end.into()]));
                    set.elements.insert(Key::range(first, last), Data::None);
                }
                table.sets.insert(ranges_of(id, action), set);
                rules.push(among(ranges_of(id, action), action));
            }
            rules.push(Rule::new().verdict(outcome(frame.otherwise)));
            table.chains.insert(peers_of(id), Chain::regular(rules));
        }
    }

    /// Where the pods among peers are kept.
    fn members(&mut self, id: PeersId, frame: &Frame) {
        for family in frame.families.iter() {
            let sets = &mut self.table(family).sets;
            for action in frame.exceptions() {
                let pods = || Set::set([Field::Saddr]);
                sets.entry(members_of(id, action)).or_insert_with(pods);
            }
        }
    }

    /// A pod among peers, if not the same becomes of its address for its own sake.
    fn peer(&mut self, (id, frame): (PeersId, &Frame), (address, step): (IpAddr, Step)) {
        let Some(action) = frame.exception(address, Some(step)) else {
            return;
        };
        let key = Key::from([address.into()]);
        let set = members_of(id, action);
        self.element(family_of(address), &set, key, Data::None);
    }
}

/// What may become of a connection.
const ACTIONS: [Action; 3] = [Action::Accept, Action::Deny, Action::Pass];

/// What a port by name is looked up by.
const DOOR: [Field; 3] = [Field::Daddr, Field::L4Proto, Field::Dport];

/// Where a packet has the address of the pod that a policy is about.
fn own_end(direction: Direction) -> Field {
    match direction {
        Direction::Ingress => Field::Daddr,
        Direction::Egress => Field::Saddr,
    }
}

/// Where it has that of the other end.
fn other_end(direction: Direction) -> Field {
    match direction {
        Direction::Ingress => Field::Saddr,
        Direction::Egress => Field::Daddr,
    }
}

/// The classes of ports of a set, as a map.
fn classes(set: &PolicySet) -> Set {
    let map = Set::vmap([Field::L4Proto, Field::Dport]);
    // Single ports need no intervals, which are slower.
    let map = if set.classes.iter().all(|class| class.first == class.last) {
        map
    } else {
        map.interval()
    };
    set.classes.iter().fold(map, |map, class| {
        let [first, last] = [class.first, class.last].map(|port| {
            let protocol = Value::Proto(class.protocol.number());
            Tuple::new(&[protocol, Value::Port(port)])
        });
        let verdict = Data::Verdict(verdict(&class.ports.way));
        map.with(Key::range(first, last), verdict)
    })
}

/// Where a packet goes.
fn verdict(way: &Way) -> Verdict {
    match way {
        Way::All(action) => outcome(*action),
        Way::By(peers) => Verdict::Goto(peers_of(*peers)),
    }
}

/// What becomes of a packet.
fn outcome(action: Action) -> Verdict {
    match action {
        Action::Accept => Verdict::Accept,
        Action::Deny => Verdict::Goto(OTHERS.into()),
        Action::Pass => Verdict::Return,
    }
}

/// The map that leads pods to what a tier says about them.
fn pods_of(direction: Direction, tier: Tier) -> Name {
    match (tier, direction) {
        (Tier::Admin, Direction::Ingress) => "policy_ingress_admin",
        (Tier::Admin, Direction::Egress) => "policy_egress_admin",
        (Tier::NetworkPolicy, Direction::Ingress) => "policy_ingress",
        (Tier::NetworkPolicy, Direction::Egress) => "policy_egress",
        (Tier::Baseline, Direction::Ingress) => "policy_ingress_baseline",
        (Tier::Baseline, Direction::Egress) => "policy_egress_baseline",
    }
    .into()
}

fn chain_of(direction: Direction, id: SetId) -> Name {
    match direction {
        Direction::Ingress => format!("ingress-{id}"),
        Direction::Egress => format!("egress-{id}"),
    }
    .into()
}

fn peers_of(id: PeersId) -> Name {
    format!("peers-{id}").into()
}

fn ports_of(id: SetId) -> Name {
    format!("ports-{id}").into()
}

fn doors_of(id: SetId) -> Name {
    format!("doors-{id}").into()
}

fn members_of(id: PeersId, action: Action) -> Name {
    format!("pods-{}-{id}", word(action)).into()
}

fn ranges_of(id: PeersId, action: Action) -> Name {
    format!("ranges-{}-{id}", word(action)).into()
}

fn word(action: Action) -> &'static str {
    match action {
        Action::Accept => "accept",
        Action::Deny => "deny",
        Action::Pass => "pass",
    }
}
