//! The packets that knock at what there is.

use std::net::IpAddr;

use portolan_plan::{Frontend, LinkName, NodePlan, Place, Verdict};
use portolan_why::Packet;

use super::{Client, host, pod_link};

/// The packets that a client sends to every frontend there is.
pub fn knocks(plan: &NodePlan, client: Client) -> Vec<Packet> {
    let from_node = client == Client::Node;
    let packet = |frontend: &Frontend| Packet {
        link: client.link(),
        ..knock(*frontend, client.address(frontend.family()), from_node)
    };
    plan.frontends.keys().map(packet).collect()
}

/// The packets that endpoints send to their own frontends (P8).
pub fn self_knocks(plan: &NodePlan) -> Vec<Packet> {
    let mut packets = Vec::new();
    for (frontend, decision) in &plan.frontends {
        if let Verdict::Forward(forward) = &decision.verdict {
            let pods = forward
                .targets
                .iter()
                .filter(|target| plan.view.is_pod_address(target.address));
            packets.extend(pods.map(|target| Packet {
                link: pod_link(),
                ..knock(*frontend, target.address, false)
            }));
        }
    }
    packets
}

fn knock(frontend: Frontend, source: IpAddr, from_node: bool) -> Packet {
    let destination = match frontend.place {
        Place::ClusterIp(address) | Place::External(address) => address,
        Place::NodePort(family) => host(family, 1),
    };
    Packet {
        source,
        destination,
        protocol: frontend.protocol,
        port: frontend.port,
        from_node,
        link: LinkName::NONE,
    }
}
