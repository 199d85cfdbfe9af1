//! A whole connection: where a Service leads it, and what each end decides.

use std::net::{IpAddr, SocketAddr};

use portolan_model::{Direction, Family};
use portolan_plan::NodePlan;

use super::judge::{Cause, Judgement, To, judge};
use super::world::{Who, World};
use crate::trace::{Found, Outcome, Packet, Source, trace};

/// Everything that policies decide about a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// Its first packet, as it was sent.
    pub packet: Packet,
    /// Who sends it.
    pub from: Who,
    /// The Service that its address and port are of, if they are one's.
    pub service: Option<Found>,
    /// What a node made of it that leads it nowhere: no policy has a say then.
    pub stopped: Option<Outcome>,
    /// Where it may go: one of these.
    pub hops: Vec<Hop>,
}

/// One place where a connection may go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hop {
    /// The address and port after a Service's was translated.
    pub target: SocketAddr,
    /// Who is there.
    pub who: Who,
    /// The node that it is on, where that is known.
    pub node: Option<String>,
    /// What the source's node decides; none where the source is no pod.
    pub egress: Option<Judgement>,
    /// What the destination's node decides; none where the destination is no pod.
    pub ingress: Option<Judgement>,
    /// What hides the source from the destination's node.
    pub hidden: Option<Hidden>,
}

/// A node replaced the source's address by its own, before the destination's node saw
/// the packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hidden {
    /// The node.
    pub node: String,
    /// The address that the destination's node sees.
    pub address: IpAddr,
    /// Why.
    pub why: Source,
}

impl Hop {
    /// Both ends.
    pub fn judgements(&self) -> impl Iterator<Item = &Judgement> {
        self.egress.iter().chain(&self.ingress)
    }

    /// Whether both ends let it through.
    pub fn allowed(&self) -> bool {
        self.judgements().all(|judgement| judgement.allowed)
    }
}

impl Check {
    /// Whether the connection is let through, wherever it may go.
    pub fn allowed(&self) -> bool {
        self.stopped.is_none() && self.hops.iter().all(Hop::allowed)
    }
}

/// Follows the first packet of a connection from the node of `plan`, where it is sent
/// or comes in.
pub fn check(world: &World<'_>, plan: &NodePlan, packet: Packet) -> Check {
    let node = packet.from_node.then(|| plan.view.node.clone());
    let mut check = Check {
        from: node.map_or_else(|| world.who(packet.source), Who::Node),
        packet,
        service: None,
        stopped: None,
        hops: Vec::new(),
    };
    let way = Way {
        world,
        first: plan,
        from_node: packet.from_node,
        source: packet.source,
    };
    way.through(plan, packet, &mut check);
    check
}

/// Who sends, and from where.
struct Way<'w> {
    world: &'w World<'w>,
    first: &'w NodePlan,
    from_node: bool,
    source: IpAddr,
}

impl Way<'_> {
    /// Follows a packet through one node, and through the one that its destination is
    /// of, where that translates it.
    fn through(&self, plan: &NodePlan, packet: Packet, check: &mut Check) {
        let traced = trace(self.world.cluster, plan, &plan.view, packet);
        check.service = check.service.take().or_else(|| traced.service.clone());
        let untouched = SocketAddr::new(packet.destination, packet.port);
        match &traced.outcome {
            Outcome::Forward(_) => {
                for candidate in traced.reachable() {
                    let masqueraded = candidate.source.as_ref().ok();
                    let at = candidate.target;
                    let at = SocketAddr::new(at.address, at.port);
                    let masqueraded = masqueraded.filter(|source| source.is_masqueraded());
                    let hop = self.hop(plan, &packet, at, masqueraded.copied());
                    check.hops.push(hop);
                }
            }
            Outcome::Here(_) => check.hops.push(self.hop(plan, &packet, untouched, None)),
            Outcome::Pass(_) => {
                let other = self.world.node_at(packet.destination);
                let other = other.filter(|other| other.view.node != plan.view.node);
                let serves = other.filter(|_| plan.view.node == self.first.view.node);
                let packet = Packet {
                    from_node: false,
                    ..packet
                };
                match serves {
                    // What it does with a node port.
                    Some(other) if serves_port(other, &packet) => {
                        self.through(other, packet, check);
                    }
                    _ => check.hops.push(self.hop(plan, &packet, untouched, None)),
                }
            }
            Outcome::Reject(_) | Outcome::Drop(_) => {
                check.stopped = Some(traced.outcome.clone());
            }
        }
    }

    /// What both ends say of a packet that `plan`'s node sends on to a target.
    fn hop(
        &self,
        plan: &NodePlan,
        packet: &Packet,
        target: SocketAddr,
        masqueraded: Option<Source>,
    ) -> Hop {
        let world = self.world;
        let to: To = Some((packet.protocol, target.port()));
        // The source's node sees where the packet goes as it leaves that node.
        let leaves = if plan.view.node == self.first.view.node {
            (target.ip(), to)
        } else {
            (packet.destination, Some((packet.protocol, packet.port)))
        };
        let is_pod = !self.from_node && world.pods_at(self.source).next().is_some();
        let egress = is_pod.then(|| {
            let ends = (self.source, leaves.0);
            judge(world, self.first, Direction::Egress, ends, leaves.1)
        });
        let there = world.judge_of(target.ip());
        // On one and the same node policies come before masquerade.
        let apart = there.is_some_and(|there| there.view.node != plan.view.node);
        let hidden = masqueraded.filter(|_| apart).and_then(|why| {
            let family = Family::of(target.ip());
            let mut own = plan.view.node_addresses.iter().copied();
            Some(Hidden {
                node: plan.view.node.to_string(),
                address: own.find(|address| Family::of(*address) == family)?,
                why,
            })
        });
        let peer = hidden.as_ref().map_or(self.source, |hidden| hidden.address);
        let ingress = there.map(|there| {
            let mut judged = judge(world, there, Direction::Ingress, (target.ip(), peer), to);
            let own = self.from_node && self.first.view.node == there.view.node && !apart;
            if own && judged.cause != Cause::Open {
                // What a node sends itself passes no policy.
                judged.allowed = true;
                judged.cause = Cause::OwnNode;
            }
            judged
        });
        let node = there.map(|there| there.view.node.to_string());
        Hop {
            target,
            who: world.who(target.ip()),
            node,
            egress,
            ingress,
            hidden,
        }
    }
}

/// Whether a node translates what comes to this address and port of its own.
fn serves_port(plan: &NodePlan, packet: &Packet) -> bool {
    let at = SocketAddr::new(packet.destination, packet.port);
    plan.find(at, packet.protocol, true).is_some()
}
