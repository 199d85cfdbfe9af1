//! The way back to where a connection came in, for clients that keep their address
//! under `externalTrafficPolicy: Cluster`.
//!
//! ```text
//!  where it came in                        where the endpoint is
//!  y3-unless-returned: connection marked   -150 new, to our pods, from outside:
//!    "here", packet to be masqueraded           the sender's Ethernet address gives
//!  100 "here", to @kept_pods: unmarked,         the connection its number
//!    source kept                           -150 from our pods, with a number: it
//!                                               becomes the packet's mark, by which
//!                                               the packet is routed back
//! ```
//!
//! There are two rules for each other node that takes part, whatever the number of
//! Services; packets meet them if they begin a connection from outside, or answer one.

use ipnet::IpNet;
use portolan_model::Family;
use portolan_nft::{
    Chain, ChainType, Compare, CtState, Field, Hook, MatchOp, Rule, Set, Statement, Table, Value,
    Verdict,
};
use portolan_plan::{NodeView, Replies, of_family};

use super::table::{self, POD_CIDRS};

/// Addresses of nodes, whose own connections are masqueraded.
const NODES: &str = "reply_nodes";
/// Pods whose answers come by this node.
const KEPT: &str = "kept_pods";
/// Pods of this node.
const OWN: &str = "own_pods";
/// The chain that remembers by whom a connection came.
const CAME_BY: &str = "came-by";
/// The chain that sends answers back there.
const GOES_BACK: &str = "goes-back";
/// The chain of those that keep their source.
const KEEP_SOURCE: &str = "keep-source";

/// After connection tracking, before anything that could drop or translate.
const REMEMBER: i32 = -150;

/// Adds sets and chains, where clients keep their addresses at all.
pub(super) fn put(view: &NodeView, family: Family, table: &mut Table) {
    let Some(replies) = &view.replies else {
        return;
    };
    let nodes = replies.nodes.iter().copied();
    let nodes = nodes.filter(|address| Family::of(*address) == family);
    let one = |set: Set, address: std::net::IpAddr| set.with([address.into()], ());
    let nodes = nodes.fold(Set::set([Field::Saddr]), one);
    let of = |ranges: &[IpNet]| of_family(ranges, family).copied().collect::<Vec<_>>();
    let kept = of(&view.kept_ranges());
    let own = of(&view.node_pod_cidrs);
    let ranges = |field, ranges: &[IpNet]| table::ranges(Set::set([field]), ranges, family);
    let sets = [
        (NODES, nodes),
        (KEPT, ranges(Field::Daddr, &kept)),
        (OWN, ranges(Field::Saddr, &own)),
    ];
    for (name, set) in sets {
        table.sets.insert(name.into(), set);
    }
    let chains = [
        (
            "replies-prerouting",
            Chain::base(
                ChainType::Filter,
                Hook::Prerouting,
                REMEMBER,
                arriving(replies.mask),
            ),
        ),
        (CAME_BY, Chain::regular(came_by(replies))),
        (GOES_BACK, Chain::regular(goes_back(replies))),
        (
            KEEP_SOURCE,
            Chain::regular([table::unmark(view), Rule::new().then(Statement::KeepSource)]),
        ),
    ];
    for (name, chain) in chains {
        table.chains.insert(name.into(), chain);
    }
}

fn arriving(mask: u32) -> [Rule; 2] {
    let none = Compare::Masked { mask, value: 0 };
    [
        Rule::new()
            .ct_state(CtState::NEW)
            .lookup([Field::Daddr], OWN)
            .not_in([Field::Saddr], POD_CIDRS)
            .not_in([Field::Saddr], NODES)
            .verdict(Verdict::Jump(CAME_BY.into())),
        Rule::new()
            .lookup([Field::Saddr], OWN)
            .then(Statement::Match(Field::CtMark, MatchOp::Ne, none))
            .verdict(Verdict::Jump(GOES_BACK.into())),
    ]
}

fn came_by(replies: &Replies) -> Vec<Rule> {
    let mask = replies.mask;
    let rules = replies.neighbours.iter().flat_map(|neighbour| {
        let mark = Replies::mark(mask, neighbour.number);
        neighbour.ethers.iter().map(move |ether| {
            Rule::new()
                .eq(Field::EtherSaddr, Value::Ether(*ether))
                .then(Statement::SetCtMark {
                    and: !mask,
                    or: mark,
                })
                .verdict(Verdict::Return)
        })
    });
    rules.collect()
}

fn goes_back(replies: &Replies) -> Vec<Rule> {
    let mask = replies.mask;
    let rules = replies.neighbours.iter().map(|neighbour| {
        let mark = Replies::mark(mask, neighbour.number);
        Rule::new()
            .mark_is(Field::CtMark, mask, mark)
            .then(Statement::SetMark {
                and: !mask,
                or: mark,
            })
            .verdict(Verdict::Return)
    });
    rules.collect()
}

/// In the chain of a frontend, for clients outside: the connection came in here. Where
/// the endpoint's node sends answers back is looked up once it is chosen ([`keep`]).
pub(super) fn came_in_here(view: &NodeView) -> Option<Rule> {
    let mask = view.replies.as_ref()?.mask;
    Some(Rule::new().then(Statement::SetCtMark {
        and: !mask,
        or: mask,
    }))
}

/// Behind translation: such a connection keeps its source, if answers come back and
/// its client is no node.
pub(super) fn keep(view: &NodeView) -> Option<Rule> {
    let mask = view.replies.as_ref()?.mask;
    let here = Rule::new()
        .then(table::TRANSLATED)
        .mark_is(Field::CtMark, mask, mask)
        .mark_has(view.masquerade_bit)
        .not_in([Field::Saddr], NODES)
        .lookup([Field::Daddr], KEPT);
    Some(here.verdict(Verdict::Jump(KEEP_SOURCE.into())))
}
