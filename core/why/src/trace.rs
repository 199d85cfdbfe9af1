//! Following one packet through a node's plan.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use portolan_model::{Algorithm, Cluster, Endpoint, Protocol, ServiceKey, Text};
use portolan_nft::hash::slot_of;
use portolan_plan::{
    CLIENT_SEED, DNS_PORT, Decision, Forward, Frontend, LinkName, Masquerade, NodePlan, NodeView,
    Owner, Place, Reason, Selection, Target, Verdict,
};

/// The first packet of a connection, as it meets a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet {
    /// Who sends it.
    pub source: IpAddr,
    /// To which address.
    pub destination: IpAddr,
    /// TCP, UDP or SCTP.
    pub protocol: Protocol,
    /// To which port.
    pub port: u16,
    /// Whether the node itself sends it, as opposed to one that arrives.
    pub from_node: bool,
    /// The link that it arrives on, where the detector looks at that.
    pub link: LinkName,
}

/// What kind of client sends a packet: the rows of P7.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Client {
    /// A pod, by its address.
    Pod,
    /// The node itself.
    Node,
    /// Anybody else, other nodes among them.
    Outside,
}

/// What is known about a packet's way through one node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The node.
    pub node: Text,
    /// The packet.
    pub packet: Packet,
    /// Who sends it.
    pub client: Client,
    /// The Service it is for, if it is for any.
    pub service: Option<Found>,
    /// All endpoints of that port, usable or not.
    pub endpoints: Vec<Candidate>,
    /// For how many idle seconds its client stays with one of them, if it does.
    pub affinity: Option<u32>,
    /// How it gets one of them, where it is forwarded and its client stays with none.
    pub algorithm: Algorithm,
    /// What becomes of it.
    pub outcome: Outcome,
}

impl Trace {
    /// The endpoints that the packet may reach if it begins its client's first
    /// connection.
    pub fn reachable(&self) -> impl Iterator<Item = &Candidate> {
        self.endpoints.iter().filter(|candidate| candidate.drawn)
    }
}

/// A Service that was found behind an address and port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub service: ServiceKey,
    /// The address and port by which it was found; none when only the address
    /// is the Service's.
    pub frontend: Option<Frontend>,
    /// The name of the port.
    pub port_name: Text,
}

/// An endpoint that a packet may reach, or may not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Where it is.
    pub target: Target,
    /// The pod's name, where the endpoint is one.
    pub pod: Option<Text>,
    /// The node's name.
    pub node: Option<Text>,
    /// What becomes of the packet's source on the way to it, or why it is left out.
    pub source: Result<Source, Reason>,
    /// How many connections it gets beside the others; 1 where all are alike.
    pub weight: u16,
    /// Whether the packet may get it: not with a weight of 0, nor where the client's
    /// address leads to another.
    pub drawn: bool,
}

/// Whether the endpoint sees the client's address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// It does.
    Kept,
    /// It sees the node's: the client is no pod.
    NotAPod,
    /// It sees the node's: the node itself is the client.
    FromNode,
    /// It sees the node's: everybody's is replaced here.
    Always,
    /// It does: its node sends answers back here.
    Returned,
    /// It sees the node's: answers would not come back here otherwise.
    NotReturned,
    /// It sees the node's: it is the client itself.
    Hairpin,
}

impl Source {
    /// Whether the source address is replaced.
    pub fn is_masqueraded(self) -> bool {
        !matches!(self, Self::Kept | Self::Returned)
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It reaches one of the endpoints that are not left out.
    Forward(Selection),
    /// It is refused.
    Reject(Reason),
    /// It is dropped.
    Drop(Reason),
    /// A process of this node answers it.
    Here(Reason),
    /// It is none of our business: it goes where routing leads it.
    Pass(Option<Reason>),
}

/// Follows a packet through a node's plan.
pub fn trace(cluster: &Cluster, plan: &NodePlan, view: &NodeView, packet: Packet) -> Trace {
    let client = client(view, &packet);
    let mut trace = Trace {
        node: view.node.clone(),
        packet,
        client,
        service: None,
        endpoints: Vec::new(),
        affinity: None,
        algorithm: Algorithm::Random,
        outcome: Outcome::Pass(None),
    };
    if is_dns(view, &packet) {
        trace.service = owner(plan, packet.destination);
        trace.outcome = Outcome::Here(Reason::AnsweredHere);
    } else if let Some((frontend, decision)) = find(plan, view, &packet) {
        decided(cluster, plan, (frontend, decision), &mut trace);
    } else {
        trace.service = owner(plan, packet.destination);
        trace.outcome = leftover(plan, view, packet.destination);
    }
    trace
}

fn client(view: &NodeView, packet: &Packet) -> Client {
    if packet.from_node {
        Client::Node
    } else if view.is_pod(packet.source, packet.link) {
        Client::Pod
    } else {
        Client::Outside
    }
}

fn is_dns(view: &NodeView, packet: &Packet) -> bool {
    view.dns_addresses.contains(&packet.destination)
        && packet.port == DNS_PORT
        && matches!(packet.protocol, Protocol::Tcp | Protocol::Udp)
}

/// The frontend that a packet knocks at.
fn find<'p>(
    plan: &'p NodePlan,
    view: &NodeView,
    packet: &Packet,
) -> Option<(Frontend, &'p Decision)> {
    let address = packet.destination;
    let own = view.is_node_address(address) || view.dns_addresses.contains(&address);
    let found = plan.find(SocketAddr::new(address, packet.port), packet.protocol, own);
    found.map(|(frontend, decision)| (frontend, &**decision))
}

/// A decision, as it is for this packet.
fn decided(
    cluster: &Cluster,
    plan: &NodePlan,
    (frontend, decision): (Frontend, &Decision),
    trace: &mut Trace,
) {
    trace.service = Some(Found {
        service: decision.service.clone(),
        frontend: Some(frontend),
        port_name: decision.port_name.clone(),
    });
    if decision.refuses(trace.packet.source) {
        trace.outcome = Outcome::Drop(Reason::SourceNotAllowed);
        return;
    }
    let outside = trace.client == Client::Outside && decision.outside.is_some();
    let verdict = decision.for_client(outside);
    let known = |target: Target, source| {
        let endpoint = endpoint(cluster, decision, target);
        Candidate {
            target,
            pod: endpoint.and_then(|endpoint| endpoint.pod.clone()),
            node: endpoint.and_then(|endpoint| endpoint.node.clone()),
            source,
            weight: 1,
            drawn: false,
        }
    };
    trace.outcome = match verdict {
        Verdict::Forward(forward) => {
            trace.affinity = forward.affinity;
            trace.algorithm = forward.algorithm();
            let drawn = drawn(forward, trace.packet.source);
            for (place, target) in forward.targets.iter().enumerate() {
                let source = source(plan, (frontend, forward), *target, trace);
                trace.endpoints.push(Candidate {
                    weight: forward.weight(place),
                    drawn: drawn.contains(target),
                    ..known(*target, Ok(source))
                });
            }
            Outcome::Forward(forward.selection)
        }
        Verdict::Reject(reason) => Outcome::Reject(reason.clone()),
        Verdict::Drop(reason) => Outcome::Drop(reason.clone()),
        Verdict::Here(reason) => Outcome::Here(reason.clone()),
    };
    if outside && let Verdict::Forward(all) = &decision.verdict {
        let used = used(verdict);
        let elsewhere = all.targets.iter().filter(|target| !used.contains(target));
        trace
            .endpoints
            .extend(elsewhere.map(|target| known(*target, Err(Reason::NotOnThisNode))));
    }
    for (target, reason) in &decision.excluded {
        if !used(verdict).contains(target) {
            trace.endpoints.push(known(*target, Err(reason.clone())));
        }
    }
}

/// Whom a client's new connection may get.
fn drawn(forward: &Forward, client: IpAddr) -> BTreeSet<Target> {
    if forward.algorithm() != Algorithm::Maglev {
        return forward.slots().copied().collect();
    }
    let width = u32::try_from(forward.width()).unwrap_or(u32::MAX);
    let slot = slot_of(client, width, CLIENT_SEED);
    forward.at(slot as usize).copied().into_iter().collect()
}

fn used(verdict: &Verdict) -> &[Target] {
    match verdict {
        Verdict::Forward(forward) => &forward.targets,
        Verdict::Reject(_) | Verdict::Drop(_) | Verdict::Here(_) => &[],
    }
}

/// What becomes of the source address on the way to a target (P7, P8).
fn source(
    plan: &NodePlan,
    (frontend, forward): (Frontend, &Forward),
    target: Target,
    trace: &Trace,
) -> Source {
    // What arrives for the node itself does not leave it again, and only what leaves is masqueraded.
    if trace.client != Client::Node && plan.view.is_node_address(target.address) {
        return Source::Kept;
    }
    let from_outside = !matches!(frontend.place, Place::ClusterIp(_));
    match (forward.masquerade, trace.client) {
        (Masquerade::Always, _) => Source::Always,
        (Masquerade::UnlessReturned, _) => {
            match plan.view.keeps(trace.packet.source, target.address) {
                true if target.local => Source::Kept,
                true => Source::Returned,
                false => Source::NotReturned,
            }
        }
        (Masquerade::IfNode, Client::Node) => Source::FromNode,
        (Masquerade::Never, Client::Node) if from_outside => Source::FromNode,
        (Masquerade::UnlessPod, _) if !plan.view.is_pod(trace.packet.source, trace.packet.link) => {
            Source::NotAPod
        }
        (Masquerade::Never | Masquerade::IfNode | Masquerade::UnlessPod, _) => {
            let itself = trace.packet.source == target.address
                && plan.hairpins.contains_key(&target.address);
            if itself {
                Source::Hairpin
            } else {
                Source::Kept
            }
        }
    }
}

/// What is known about an endpoint beyond its address.
fn endpoint<'c>(cluster: &'c Cluster, decision: &Decision, target: Target) -> Option<&'c Endpoint> {
    cluster
        .slices_of(&decision.service)
        .flat_map(|slice| &slice.endpoints)
        .find(|endpoint| endpoint.address == target.address)
}

fn owner(plan: &NodePlan, address: IpAddr) -> Option<Found> {
    let (Owner::Ours(service) | Owner::OtherProxy(service, _)) = plan.owners.get(&address)?;
    Some(Found {
        service: service.clone(),
        frontend: None,
        port_name: "".into(),
    })
}

/// What becomes of a packet that is for no frontend (P6).
fn leftover(plan: &NodePlan, view: &NodeView, address: IpAddr) -> Outcome {
    match plan.owners.get(&address) {
        Some(Owner::Ours(_)) => Outcome::Reject(Reason::NoSuchPort),
        Some(Owner::OtherProxy(_, proxy)) => Outcome::Pass(Some(Reason::OtherProxy(proxy.clone()))),
        None if view.is_service_address(address) => Outcome::Drop(Reason::Unallocated),
        None => Outcome::Pass(None),
    }
}
