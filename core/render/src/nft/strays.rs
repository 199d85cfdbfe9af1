//! What connection tracking cannot place, such as a segment outside the window,
//! and therefore does not translate (P18, kubernetes/kubernetes#74839).
//!
//! An endpoint's answer would reach its client from an address that the client
//! never talked to, and the client would reset the connection; and a client's
//! packet to a node port would reach the node itself, which would do the same. So
//! these go no further. Whoever sent them sends them again.
//!
//! Nobody else's packets are touched, which may well take another way back: an
//! endpoint is known by the ranges of pods, or by its address and port if it is
//! no pod; a client's packet by where it goes to.

use portolan_model::{Family, Protocol};
use portolan_nft::{Chain, ChainType, CtState, Field, Hook, Rule, Table, Value, Verdict};
use portolan_plan::NodeView;

use super::table::{OPEN_NODE_PORTS, OUTLYING, POD_CIDRS, SERVICE_CIDRS, to_node_port};

/// The chain of what cannot be placed and may be from an endpoint.
const FROM_ENDPOINT: &str = "from-endpoint";

/// Where filters usually are.
const FILTER: i32 = 0;

/// The chains that drop strays.
pub(super) fn chains(view: &NodeView, family: Family, table: &mut Table) {
    let rows = [
        ("invalid-input", Hook::Input, to_here(view, family)),
        ("invalid-forward", Hook::Forward, to_elsewhere()),
        // A process of this node may be an endpoint, and its client a pod here.
        ("invalid-output", Hook::Output, to_elsewhere()),
    ];
    for (name, hook, rule) in rows {
        let rules = vec![
            invalid().verdict(Verdict::Jump(FROM_ENDPOINT.into())),
            rule.verdict(Verdict::Drop),
        ];
        let chain = Chain::base(ChainType::Filter, hook, FILTER, rules);
        table.chains.insert(name.into(), chain);
    }
    let from_endpoint = Chain::regular(from_endpoint());
    table.chains.insert(FROM_ENDPOINT.into(), from_endpoint);
}

fn invalid() -> Rule {
    Rule::new().ct_state(CtState::INVALID)
}

/// By TCP and SCTP, which can reset; errors by ICMP are let through, which may be
/// about packets that are not tracked at all.
fn from_endpoint() -> Vec<Rule> {
    let from_pods = |protocol: Protocol| {
        Rule::new()
            .eq(Field::L4Proto, Value::Proto(protocol.number()))
            .lookup([Field::Saddr], POD_CIDRS)
            .verdict(Verdict::Drop)
    };
    vec![
        from_pods(Protocol::Tcp),
        from_pods(Protocol::Sctp),
        Rule::new()
            .lookup([Field::Saddr, Field::L4Proto, Field::Sport], OUTLYING)
            .verdict(Verdict::Drop),
    ]
}

/// A client's packet that leaves this node still for a cluster address.
fn to_elsewhere() -> Rule {
    invalid().lookup([Field::Daddr], SERVICE_CIDRS)
}

/// A client's packet that this node would take for its own. (A cluster address
/// that is this node's own is another proxy's doing.)
fn to_here(view: &NodeView, family: Family) -> Rule {
    to_node_port(invalid(), view, family).lookup([Field::L4Proto, Field::Dport], OPEN_NODE_PORTS)
}
