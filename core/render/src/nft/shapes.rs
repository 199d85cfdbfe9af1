//! The chains that choose an endpoint and translate: one per shape in use. Where
//! endpoints are taken in turn, each frontend is a shape of its own.

use std::net::IpAddr;

use portolan_nft::{Chain, Field, Name, Rule};
use portolan_plan::{CLIENT_SEED, Draw, Frontend, Lane, Masquerade, NodeView, Place, Shape};

use super::{affinity, replies, table};

/// The maps of one lane.
#[derive(Debug, Clone, Copy)]
pub(super) struct LaneMaps {
    /// Frontend to chain.
    pub(super) chains: &'static str,
    /// Frontend and slot to endpoint.
    pub(super) endpoints: &'static str,
    /// Frontend to refusal.
    pub(super) refusals: &'static str,
    /// The chains' first letter.
    letter: &'static str,
}

/// The maps of a lane.
pub(super) fn maps(lane: Lane) -> LaneMaps {
    match lane {
        Lane::Address => LaneMaps {
            chains: "services",
            endpoints: "endpoints",
            refusals: "no_endpoints",
            letter: "n",
        },
        Lane::NodePort => LaneMaps {
            chains: "nodeports",
            endpoints: "nodeport_endpoints",
            refusals: "no_endpoint_nodeports",
            letter: "p",
        },
        Lane::NodePortOutside => LaneMaps {
            chains: "outside_nodeports",
            endpoints: "outside_endpoints",
            refusals: "no_endpoint_outside",
            letter: "o",
        },
        Lane::External => LaneMaps {
            chains: "externals",
            endpoints: "external_endpoints",
            refusals: "no_endpoint_externals",
            letter: "x",
        },
        Lane::ExternalOutside => LaneMaps {
            chains: "outside_externals",
            endpoints: "outside_external_endpoints",
            refusals: "no_endpoint_outside_externals",
            letter: "y",
        },
    }
}

/// All lanes.
pub(super) const LANES: [Lane; 5] = [
    Lane::Address,
    Lane::NodePort,
    Lane::NodePortOutside,
    Lane::External,
    Lane::ExternalOutside,
];

/// What a lane's frontends are looked up by.
pub(super) fn key(lane: Lane) -> Vec<Field> {
    match lane {
        Lane::Address | Lane::External | Lane::ExternalOutside => {
            vec![Field::Daddr, Field::L4Proto, Field::Dport]
        }
        Lane::NodePort | Lane::NodePortOutside => vec![Field::L4Proto, Field::Dport],
    }
}

/// The name of a shape's chain, such as `n5-unless-pod`.
pub(super) fn name(shape: Shape) -> Name {
    let Shape {
        lane,
        masquerade,
        width,
        draw,
        sticky,
        ..
    } = shape;
    let suffix = match masquerade {
        Masquerade::Never => "",
        Masquerade::UnlessPod => "-unless-pod",
        Masquerade::IfNode => "-if-node",
        Masquerade::UnlessReturned => "-unless-returned",
        Masquerade::Always => "-masquerade",
    };
    let sticky = if sticky { "-sticky" } else { "" };
    let draw = match draw {
        Draw::Random => String::new(),
        Draw::Client => "-by-client".to_owned(),
        Draw::Counter(frontend) => format!("-in-turn-{}", word(frontend)),
    };
    format!("{}{width}{suffix}{sticky}{draw}", maps(lane).letter).into()
}

/// A frontend, within the name of a chain; which has no colons.
fn word(frontend: Frontend) -> String {
    let Frontend {
        place,
        protocol,
        port,
    } = frontend;
    match place {
        Place::ClusterIp(IpAddr::V4(address)) | Place::External(IpAddr::V4(address)) => {
            format!("{address}-{protocol}-{port}")
        }
        Place::ClusterIp(IpAddr::V6(address)) | Place::External(IpAddr::V6(address)) => {
            format!("{:032x}-{protocol}-{port}", address.to_bits())
        }
        Place::NodePort(_) => format!("{protocol}-{port}"),
    }
}

/// A shape's chain: mark who is to be masqueraded, choose what the client had
/// or anew, translate.
pub(super) fn chain(view: &NodeView, shape: Shape) -> Chain {
    let mut rules = Vec::new();
    let bit = view.masquerade_bit;
    match shape.masquerade {
        Masquerade::Always => rules.push(Rule::new().set_mark_bits(bit)),
        Masquerade::UnlessReturned => {
            rules.extend(replies::came_in_here(view));
            rules.push(Rule::new().set_mark_bits(bit));
        }
        Masquerade::UnlessPod => {
            rules.push(table::from_no_pod(Rule::new(), view).set_mark_bits(bit));
        }
        // What the node itself sends is marked on its way here.
        Masquerade::Never | Masquerade::IfNode => {}
    }
    if shape.sticky {
        rules.push(affinity::known_client());
    }
    let mut slot = key(shape.lane);
    let width = u32::try_from(shape.width).unwrap_or(u32::MAX);
    slot.push(match shape.draw {
        Draw::Random => Field::random(width),
        Draw::Counter(_) => Field::inc(width),
        Draw::Client => Field::jhash(width, CLIENT_SEED),
    });
    rules.push(Rule::new().dnat_map(slot, maps(shape.lane).endpoints));
    Chain::regular(rules)
}
