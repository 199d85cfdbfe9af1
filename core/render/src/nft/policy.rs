//! NetworkPolicies: who may reach this node's pods, and whom they may reach.
//!
//! Judged after translation and before masquerade: at forward for other pods and the
//! outside, at input for the node itself and for who answers names on it (N17, N21).
//! What the node itself sends passes no such hook, which lets probes through (N12).
//!
//! A new packet meets the same few rules whatever the number of policies, pods and
//! peers: its pod leads to the chain of its set, its port to that of the peers there,
//! and these are looked up in one set of addresses and one of ranges. A chain returns
//! to let pass, since the other end may have a say as well.
//!
//! Without a pod that policies select nothing of this is there.

use std::collections::BTreeSet;
use std::net::IpAddr;

use portolan_model::{Direction, Family};
use portolan_nft::{
    Batch, Chain, ChainType, CtState, Data, Field, Hook, Key, Name, Rule, Ruleset, Set, Table,
    Tuple, Value, Verdict, diff,
};
use portolan_plan::policy::{
    Allowed, Closed, Door, Frame, Isolation, PeersId, Policies, PolicySet, SetId, TouchedPolicies,
};

use super::{family_of, table_id};

/// Pods that are isolated, and the chains that govern what they send.
const EGRESS: &str = "policy_egress";
/// The same for what they get.
const INGRESS: &str = "policy_ingress";
/// Isolated pods, each paired with itself (N12).
const ITSELF: &str = "policy_self";

/// Ranges of this node's pods whose addresses are closed until a pod is known to have
/// them (N16).
const CLOSED: &str = "policy_closed";
/// The addresses that pods of this node are known to have. This is a map that leads
/// on, and is looked up last, so that an address opens after its pod is isolated.
const HERE: &str = "policy_here";
/// The chains of packets from and to such ranges.
const UNKNOWN: [(&str, Field); 2] = [
    ("policy-from-known", Field::Saddr),
    ("policy-to-known", Field::Daddr),
];

/// The chain of what no rule allows.
const OTHERS: &str = "policy-others";

const FILTER: i32 = 0;

/// ICMPv6. What neighbours say to each other (RFC 4861) is not for policies, and the
/// kernel tracks nothing of it but the rest of ICMPv6.
const ICMP_V6: u8 = 58;

/// Puts everything into the tables.
pub(super) fn put(policies: &Policies, ruleset: &mut Ruleset) {
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
        for address in peers.pods.keys() {
            part.peer(*id, *address);
        }
    }
    for (id, door) in policies.doors() {
        part.door(*id, door);
    }
}

/// Whether anything is to be judged.
fn has_hooks(policies: &Policies) -> bool {
    policies.sets().next().is_some() || policies.closed().is_some()
}

/// What a round changed: what there was of it, and what there is now.
pub(super) fn delta(policies: &Policies, touched: &TouchedPolicies) -> Batch {
    if *touched == TouchedPolicies::default() {
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
        // Those of peers that come or go are told with them.
        if let (Some(peers), false) = (after, touched.peers.peers.contains_key(id)) {
            was.members(*id, &peers.frame);
            is.members(*id, &peers.frame);
        }
        if *before {
            was.peer(*id, *address);
        }
        if after.is_some_and(|peers| peers.pods.contains_key(address)) {
            is.peer(*id, *address);
        }
    }
    for ((id, door), before) in &touched.peers.doors {
        if let (Some(set), false) = (policies.set(*id), touched.sets.contains_key(id)) {
            was.doors(*id, set);
            is.doors(*id, set);
        }
        if *before {
            was.door(*id, door);
        }
        if policies.has_door(*id, *door) {
            is.door(*id, door);
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
            let unknown = closed.map(|ranges| self.closed(family, ranges));
            let table = self.table(family);
            let mut base = |name: &str, hook, rules: Vec<Rule>| {
                let chain = Chain::base(ChainType::Filter, hook, FILTER, rules);
                table.chains.insert(name.into(), chain);
            };
            let known = || {
                Rule::new()
                    .ct_state(CtState::ESTABLISHED.or(CtState::RELATED))
                    .verdict(Verdict::Accept)
            };
            // What is no longer allowed is marked by who looks through connections.
            let cut = || cut_bit.map(|bit| Rule::new().ct_mark_has(bit).verdict(Verdict::Drop));
            let egress = || Rule::new().vmap([Field::Saddr], EGRESS);
            let ingress = Rule::new().vmap([Field::Daddr], INGRESS);
            let forward = cut().into_iter().chain([known(), egress(), ingress]);
            let forward = forward.chain(unknown.iter().flatten().cloned());
            base("policy-forward", Hook::Forward, forward.collect());
            let neighbours = Rule::new()
                .ct_state(CtState::UNTRACKED)
                .eq(Field::L4Proto, Value::Proto(ICMP_V6))
                .verdict(Verdict::Accept);
            let neighbours = (family == Family::V6).then_some(neighbours);
            let input = cut()
                .into_iter()
                .chain([known()])
                .chain(neighbours)
                .chain([egress()]);
            // Only senders can be unknown to whom it goes.
            let input = input.chain(unknown.into_iter().flatten().take(1));
            base("policy-input", Hook::Input, input.collect());
            let itself = Rule::new()
                .lookup([Field::Saddr, Field::Daddr], ITSELF)
                .verdict(Verdict::Return);
            let rules = [itself, Rule::new().verdict(Verdict::Drop)];
            table.chains.insert(OTHERS.into(), Chain::regular(rules));
            for (name, set) in [
                (EGRESS, Set::vmap([Field::Saddr])),
                (INGRESS, Set::vmap([Field::Daddr])),
                (ITSELF, Set::set([Field::Saddr, Field::Daddr])),
            ] {
                table.sets.insert(name.into(), set);
            }
        }
    }

    /// What looks for packets of addresses that nobody is known to have: from such,
    /// and to such.
    fn closed(&mut self, family: Family, ranges: &Closed) -> Vec<Rule> {
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
        let rules = UNKNOWN.map(|(chain, field)| {
            let known = Rule::new().vmap([field], HERE);
            let rules = [known, Rule::new().verdict(Verdict::Drop)];
            table.chains.insert(chain.into(), Chain::regular(rules));
            let rule = Rule::new().lookup([field], CLOSED);
            rule.verdict(Verdict::Jump(chain.into()))
        });
        rules.into()
    }

    /// An address that a pod of this node is known to have.
    fn here(&mut self, address: IpAddr) {
        let data = Data::Verdict(Verdict::Return);
        self.element(family_of(address), HERE, Key::from([address.into()]), data);
    }

    /// An isolated pod.
    fn isolated(&mut self, address: IpAddr, isolation: &Isolation) {
        let family = family_of(address);
        let own = Value::from(address);
        let pair = Key::from([own.clone(), own.clone()]);
        self.element(family, ITSELF, pair, Data::None);
        for (direction, map) in [(Direction::Ingress, INGRESS), (Direction::Egress, EGRESS)] {
            if let Some(id) = isolation.set(direction) {
                let jump = Verdict::Jump(chain_of(direction, id));
                self.element(family, map, Key::from([own.clone()]), Data::Verdict(jump));
            }
        }
    }

    /// What governs pods in one direction.
    fn set(&mut self, id: SetId, set: &PolicySet) {
        let mut rules = Vec::new();
        if !set.named.is_empty() {
            let at = [Field::Daddr, Field::L4Proto, Field::Dport];
            let rule = Rule::new().lookup(at, doors_of(id));
            rules.push(rule.verdict(Verdict::Return));
            self.doors(id, set);
        }
        if !set.classes.is_empty() {
            rules.push(Rule::new().vmap([Field::L4Proto, Field::Dport], ports_of(id)));
        }
        rules.push(Rule::new().verdict(verdict(&set.rest)));
        for family in set.families.iter() {
            let table = self.table(family);
            let chain = Chain::regular(rules.clone());
            table.chains.insert(chain_of(set.direction, id), chain);
            if !set.classes.is_empty() {
                table.sets.insert(ports_of(id), classes(set));
            }
        }
    }

    /// Where a set keeps what it allows by name.
    fn doors(&mut self, id: SetId, set: &PolicySet) {
        let at = [Field::Daddr, Field::L4Proto, Field::Dport];
        for family in set.families.iter() {
            let sets = &mut self.table(family).sets;
            sets.entry(doors_of(id)).or_insert_with(|| Set::set(at));
        }
    }

    fn door(&mut self, id: SetId, (address, protocol, port): &Door) {
        let protocol = Value::Proto(protocol.number());
        let key = Key::from([(*address).into(), protocol, Value::Port(*port)]);
        self.element(family_of(*address), &doors_of(id), key, Data::None);
    }

    /// Peers, without the pods among them.
    fn peers(&mut self, id: PeersId, frame: &Frame) {
        self.members(id, frame);
        let field = match frame.direction {
            Direction::Ingress => Field::Saddr,
            Direction::Egress => Field::Daddr,
        };
        let among = |set: Name| {
            let rule = Rule::new().lookup([field], set);
            rule.verdict(Verdict::Return)
        };
        for (family, ranges) in Family::BOTH.into_iter().zip(&frame.ranges) {
            if !frame.families.iter().any(|needed| needed == family) {
                continue;
            }
            let table = self.table(family);
            let mut rules = vec![among(members_of(id))];
            if !ranges.is_empty() {
                let mut set = Set::set([Field::Saddr]).interval();
                for (first, last) in ranges {
                    let [first, last] = [*first, *last].map(|end| Tuple::new(&[end.into()]));
                    set.elements.insert(Key::range(first, last), Data::None);
                }
                table.sets.insert(ranges_of(id), set);
                rules.push(among(ranges_of(id)));
            }
            rules.push(Rule::new().verdict(Verdict::Goto(OTHERS.into())));
            table.chains.insert(peers_of(id), Chain::regular(rules));
        }
    }

    /// Where the pods among peers are kept.
    fn members(&mut self, id: PeersId, frame: &Frame) {
        for family in frame.families.iter() {
            let sets = &mut self.table(family).sets;
            let pods = || Set::set([Field::Saddr]);
            sets.entry(members_of(id)).or_insert_with(pods);
        }
    }

    fn peer(&mut self, id: PeersId, address: IpAddr) {
        let key = Key::from([address.into()]);
        self.element(family_of(address), &members_of(id), key, Data::None);
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
        let verdict = Data::Verdict(verdict(&class.allowed));
        map.with(Key::range(first, last), verdict)
    })
}

/// Where a packet goes from which only these are allowed.
fn verdict(allowed: &Allowed<Option<PeersId>>) -> Verdict {
    match allowed {
        Allowed::Everybody => Verdict::Return,
        Allowed::Only(None) => Verdict::Goto(OTHERS.into()),
        Allowed::Only(Some(peers)) => Verdict::Goto(peers_of(*peers)),
    }
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

fn members_of(id: PeersId) -> Name {
    format!("pods-{id}").into()
}

fn ranges_of(id: PeersId) -> Name {
    format!("ranges-{id}").into()
}
