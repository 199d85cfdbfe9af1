//! What the table holds whatever Services there are: sets, and the chains at
//! the hooks.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use portolan_model::{Family, Protocol};
use portolan_nft::{
    Chain, ChainType, Compare, CtState, CtStatus, Data, FibType, Field, Hook, Key, MatchOp, Name,
    RejectKind, Rule, Set, Statement, Table, Tuple, Value, Verdict,
};
use portolan_plan::{DNS_PORT, Detector, Lane, NodePortAddresses, NodeView, of_family};

use super::affinity;
use super::shapes::{LANES, key, maps};
use super::{replies, strays};

/// The ranges of pods.
pub(super) const POD_CIDRS: &str = "pod_cidrs";
/// The ranges of cluster addresses.
pub(super) const SERVICE_CIDRS: &str = "service_cidrs";
/// Allocated cluster addresses, and what happens to what is not translated.
pub(super) const CLUSTER_IPS: &str = "cluster_ips";
/// Local endpoints, each paired with itself.
pub(super) const HAIRPIN: &str = "hairpin";
/// Outer addresses in use.
pub(super) const EXTERNAL_IPS: &str = "external_ips";
/// Frontends that only some may use.
pub(super) const LIMITED: &str = "limited";
/// Who may use them.
pub(super) const ALLOWED: &str = "allowed";
/// TCP and SCTP endpoints that are no pods, by address, protocol and port.
pub(super) const OUTLYING: &str = "outlying_endpoints";
/// Node ports that are forwarded.
pub(super) const OPEN_NODE_PORTS: &str = "open_nodeports";
/// Where names are answered.
pub(super) const DNS: &str = "dns";
/// The addresses on which node ports are open.
const NODEPORT_ADDRESSES: &str = "nodeport_addresses";

/// The chain that refuses.
pub(super) const REFUSE: &str = "refuse";
/// The chain of what this node itself sends to node ports.
const FROM_NODE: &str = "from-node";
/// The same for outer addresses.
const FROM_NODE_OUT: &str = "from-node-out";
/// The chain that masquerades; nft allows none of its own words as a name.
const HIDE_SOURCE: &str = "hide-source";

const RAW: i32 = -300;
const BEFORE_TRANSLATION: i32 = -120;
const TRANSLATION: i32 = -110;
const AFTER_TRANSLATION: i32 = -90;
const SOURCE_TRANSLATION: i32 = 100;

/// The table of one family without any Service.
pub(super) fn table(view: &NodeView, family: Family) -> Table {
    let mut table = Table::default();
    sets(view, family, &mut table);
    chains(view, family, &mut table);
    strays::chains(view, family, &mut table);
    replies::put(view, family, &mut table);
    table
}

fn sets(view: &NodeView, family: Family, table: &mut Table) {
    let mut put = |name: &str, set: Set| table.sets.insert(name.into(), set);
    for lane in LANES {
        let frontend = key(lane);
        let slot: Vec<_> = frontend.iter().copied().chain([Field::random(1)]).collect();
        put(maps(lane).chains, Set::vmap(frontend.clone()));
        put(maps(lane).refusals, Set::vmap(frontend));
        put(
            maps(lane).endpoints,
            Set::map(slot, [Field::Daddr, Field::Dport]),
        );
    }
    for (name, set) in affinity::sets() {
        put(name, set);
    }
    put(
        OUTLYING,
        Set::set([Field::Saddr, Field::L4Proto, Field::Sport]),
    );
    put(OPEN_NODE_PORTS, Set::set([Field::L4Proto, Field::Dport]));
    put(CLUSTER_IPS, Set::vmap([Field::Daddr]));
    put(HAIRPIN, Set::set([Field::Saddr, Field::Daddr]));
    put(EXTERNAL_IPS, Set::set([Field::Daddr]));
    put(LIMITED, Set::set(key(Lane::External)));
    let mut from = key(Lane::External);
    from.push(Field::Saddr);
    put(ALLOWED, Set::set(from).interval());
    put(
        POD_CIDRS,
        ranges(Set::set([Field::Saddr]), view.pod_ranges(), family),
    );
    put(
        SERVICE_CIDRS,
        ranges(Set::set([Field::Daddr]), &view.service_cidrs, family),
    );
    let node_ports = Set::set([Field::Daddr]);
    let open = view.node_port_ranges(family);
    put(
        NODEPORT_ADDRESSES,
        match view.node_ports.of(family) {
            NodePortAddresses::Within { .. } => ranges(node_ports, &open, family),
            NodePortAddresses::Primary | NodePortAddresses::AnyLocal => {
                let one = |set: Set, net: &IpNet| set.with([net.addr().into()], ());
                open.iter().fold(node_ports, one)
            }
        },
    );
    let mut dns = Set::set([Field::Daddr, Field::L4Proto, Field::Dport]);
    for address in view
        .dns_addresses
        .iter()
        .filter(|address| Family::of(**address) == family)
    {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let key = [
                (*address).into(),
                Value::Proto(protocol.number()),
                Value::Port(DNS_PORT),
            ];
            dns = dns.with(key, ());
        }
    }
    put(DNS, dns);
}

/// An interval set of disjoint ranges.
pub(super) fn ranges(set: Set, ranges: &[IpNet], family: Family) -> Set {
    let mut set = set.interval();
    for range in IpNet::aggregate(&of_family(ranges, family).copied().collect()) {
        let [first, last] =
            [range.network(), range.broadcast()].map(|end| Tuple::new(&[end.into()]));
        let key = if first == last {
            Key::Exact(first)
        } else {
            Key::range(first, last)
        };
        set.elements.insert(key, Data::None);
    }
    set
}

fn chains(view: &NodeView, family: Family, table: &mut Table) {
    use ChainType::{Filter, Nat};
    use Hook::{Output, Postrouting, Prerouting};
    let mut base = |name: &str, kind, hook, priority, rules: Vec<Rule>| {
        table
            .chains
            .insert(name.into(), Chain::base(kind, hook, priority, rules));
    };
    base("raw-prerouting", Filter, Prerouting, RAW, untracked());
    base("raw-output", Filter, Output, RAW, untracked());
    base(
        "refuse-prerouting",
        Filter,
        Prerouting,
        BEFORE_TRANSLATION,
        refusals(view, family, true),
    );
    base(
        "refuse-output",
        Filter,
        Output,
        BEFORE_TRANSLATION,
        refusals(view, family, false),
    );
    base(
        "nat-prerouting",
        Nat,
        Prerouting,
        TRANSLATION,
        arriving(view, family),
    );
    base(
        "nat-output",
        Nat,
        Output,
        TRANSLATION,
        departing(view, family),
    );
    base(
        "leftover-prerouting",
        Filter,
        Prerouting,
        AFTER_TRANSLATION,
        leftovers(),
    );
    base(
        "leftover-output",
        Filter,
        Output,
        AFTER_TRANSLATION,
        leftovers(),
    );
    base(
        "nat-postrouting",
        Nat,
        Postrouting,
        SOURCE_TRANSLATION,
        source(view),
    );
    affinity::chains(table);
    let mut regular = |name: &str, rules: Vec<Rule>| {
        table.chains.insert(name.into(), Chain::regular(rules));
    };
    regular(REFUSE, refuse());
    regular(FROM_NODE, from_node(view, Lane::NodePort));
    regular(FROM_NODE_OUT, from_node(view, Lane::External));
    regular(HIDE_SOURCE, vec![unmark(view), masquerade()]);
}

/// To and from a DNS address: no connection tracking, and so no translation
/// and no refusal either.
fn untracked() -> Vec<Rule> {
    let queries = [Field::Daddr, Field::L4Proto, Field::Dport];
    let answers = [Field::Saddr, Field::L4Proto, Field::Sport];
    vec![
        Rule::new().lookup(queries, DNS).then(Statement::Notrack),
        Rule::new().lookup(answers, DNS).then(Statement::Notrack),
    ]
}

/// New connections to frontends without usable endpoints.
fn refusals(view: &NodeView, family: Family, arriving: bool) -> Vec<Rule> {
    let new = || Rule::new().ct_state(CtState::NEW);
    let look = |rule: Rule, lane| rule.vmap(key(lane), maps(lane).refusals);
    let outside = |rule: Rule| from_no_pod(rule, view);
    let node_port = || to_node_port(new(), view, family);
    let mut rules = vec![kept_out(), look(new(), Lane::Address)];
    if arriving {
        rules.push(look(outside(new()), Lane::ExternalOutside));
    }
    rules.push(look(new(), Lane::External));
    if arriving {
        rules.push(look(outside(node_port()), Lane::NodePortOutside));
    }
    rules.push(look(node_port(), Lane::NodePort));
    rules
}

/// New connections to frontends that their clients may not use (P9).
fn kept_out() -> Rule {
    let mut from = key(Lane::External);
    from.push(Field::Saddr);
    Rule::new()
        .ct_state(CtState::NEW)
        .lookup(key(Lane::External), LIMITED)
        .not_in(from, ALLOWED)
        .verdict(Verdict::Drop)
}

/// Translation of what arrives.
fn arriving(view: &NodeView, family: Family) -> Vec<Rule> {
    let look = |rule: Rule, lane| rule.vmap(key(lane), maps(lane).chains);
    let to_node_port = || to_node_port(Rule::new(), view, family);
    vec![
        look(Rule::new(), Lane::Address),
        look(from_no_pod(Rule::new(), view), Lane::ExternalOutside),
        look(Rule::new(), Lane::External),
        look(from_no_pod(to_node_port(), view), Lane::NodePortOutside),
        look(to_node_port(), Lane::NodePort),
    ]
}

/// Translation of what this node sends.
fn departing(view: &NodeView, family: Family) -> Vec<Rule> {
    vec![
        Rule::new().vmap(key(Lane::Address), maps(Lane::Address).chains),
        Rule::new()
            .lookup([Field::Daddr], EXTERNAL_IPS)
            .verdict(Verdict::Jump(FROM_NODE_OUT.into())),
        to_node_port(Rule::new(), view, family).verdict(Verdict::Jump(FROM_NODE.into())),
    ]
}

/// What this node sends to a node port or an outer address is masqueraded
/// whatever the policy (P7); what turns out to be neither loses the mark again.
fn from_node(view: &NodeView, lane: Lane) -> Vec<Rule> {
    vec![
        Rule::new().set_mark_bits(view.masquerade_bit),
        Rule::new().vmap(key(lane), maps(lane).chains),
        unmark(view),
    ]
}

/// New connections to cluster addresses that nothing translated (P6).
fn leftovers() -> Vec<Rule> {
    let new = || Rule::new().ct_state(CtState::NEW);
    vec![
        new().vmap([Field::Daddr], CLUSTER_IPS),
        new()
            .lookup([Field::Daddr], SERVICE_CIDRS)
            .verdict(Verdict::Drop),
    ]
}

fn source(view: &NodeView) -> Vec<Rule> {
    let mut rules: Vec<Rule> = replies::keep(view).into_iter().collect();
    rules.extend([
        Rule::new()
            .mark_has(view.masquerade_bit)
            .verdict(Verdict::Jump(HIDE_SOURCE.into())),
        Rule::new()
            .then(TRANSLATED)
            .lookup([Field::Saddr, Field::Daddr], HAIRPIN)
            .then(MASQUERADED),
    ]);
    rules
}

/// A reset for TCP, since the kernel limits the rate of ICMP errors and a
/// client would wait for the next one; the error for all others.
fn refuse() -> Vec<Rule> {
    vec![
        Rule::new()
            .eq(Field::L4Proto, Value::Proto(Protocol::Tcp.number()))
            .then(Statement::Reject(RejectKind::TcpReset)),
        Rule::new().then(Statement::Reject(RejectKind::PortUnreachable)),
    ]
}

/// `ct status dnat`.
pub(super) const TRANSLATED: Statement =
    Statement::Match(Field::CtStatus, MatchOp::Eq, Compare::Any(CtStatus::DNAT.0));

const MASQUERADED: Statement = Statement::Masquerade { fully_random: true };

fn masquerade() -> Rule {
    Rule::new().then(MASQUERADED)
}

pub(super) fn unmark(view: &NodeView) -> Rule {
    Rule::new().then(Statement::SetMark {
        and: !view.masquerade_bit,
        or: 0,
    })
}

/// Only packets that the detector takes for no pod's (P7). What the node itself
/// sends arrives on no link, and so on no pod's.
pub(super) fn from_no_pod(rule: Rule, view: &NodeView) -> Rule {
    match view.detector {
        Detector::ClusterCidr | Detector::NodeCidr => rule.not_in([Field::Saddr], POD_CIDRS),
        Detector::Bridge(name) => rule.ne(Field::IifName, Value::Iface(name.to_string())),
        Detector::Prefix(prefix) => rule.then(Statement::Match(
            Field::IifName,
            MatchOp::Ne,
            Compare::NamePrefix(prefix.to_string()),
        )),
    }
}

/// Only packets to an address on which node ports are open (P11).
pub(super) fn to_node_port(rule: Rule, view: &NodeView, family: Family) -> Rule {
    let own = |rule: Rule| {
        let (loopback, length) = match family {
            Family::V4 => (IpAddr::V4(Ipv4Addr::new(127, 0, 0, 0)), 8),
            Family::V6 => (IpAddr::V6(Ipv6Addr::LOCALHOST), 128),
        };
        let range = Compare::Prefix(loopback.into(), length);
        rule.eq(Field::FibDaddrType, Value::Fib(FibType::Local))
            .then(Statement::Match(Field::Daddr, MatchOp::Ne, range))
    };
    let listed = |rule: Rule| rule.lookup([Field::Daddr], Name::from(NODEPORT_ADDRESSES));
    match view.node_ports.of(family) {
        NodePortAddresses::Primary => listed(rule),
        NodePortAddresses::AnyLocal => own(rule),
        // What is in no range is seen to be so at once.
        NodePortAddresses::Within { .. } => own(listed(rule)),
    }
}
