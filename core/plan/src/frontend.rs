//! The vocabulary of data plane decisions: where clients knock, and what
//! becomes of them.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use ipnet::IpNet;

use portolan_model::{Algorithm, Family, Protocol, ServiceKey, Text};

use crate::balance::Balance;
use crate::reason::Reason;
use crate::view::NodeView;

/// One address and port that clients connect to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Frontend {
    /// The address, or "any address of the node that opens node ports".
    pub place: Place,
    /// TCP, UDP or SCTP: the same number on two protocols is two frontends (P12).
    pub protocol: Protocol,
    /// The port number clients use.
    pub port: u16,
}

/// Where a frontend listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// A Service's cluster address.
    ClusterIp(IpAddr),
    /// An address of a load balancer, or one of `spec.externalIPs`.
    External(IpAddr),
    /// The node's own addresses, in one family.
    NodePort(Family),
}

impl Frontend {
    /// The family of the packets that reach it.
    pub fn family(&self) -> Family {
        match self.place {
            Place::ClusterIp(address) | Place::External(address) => Family::of(address),
            Place::NodePort(family) => family,
        }
    }

    /// Where a packet to this address and port may have knocked; what comes first
    /// counts. `own` tells whether the address is one of the node's.
    pub(crate) fn candidates(
        view: &NodeView,
        to: SocketAddr,
        protocol: Protocol,
        own: bool,
    ) -> impl Iterator<Item = Self> {
        let (address, port) = (to.ip(), to.port());
        let node_port = Place::NodePort(Family::of(address));
        let places = [
            Some(Place::ClusterIp(address)),
            Some(Place::External(address)),
            view.opens_node_ports(address, own).then_some(node_port),
        ];
        let at = move |place| Self {
            place,
            protocol,
            port,
        };
        places.into_iter().flatten().map(at)
    }
}

impl fmt::Display for Frontend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            place,
            protocol,
            port,
        } = self;
        match place {
            Place::ClusterIp(address) | Place::External(address) => {
                write!(f, "{}/{protocol}", SocketAddr::new(*address, *port))
            }
            Place::NodePort(family) => write!(f, "{family} node port {port}/{protocol}"),
        }
    }
}

/// What is decided for one frontend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The Service that owns the frontend.
    pub service: ServiceKey,
    /// The name of its port.
    pub port_name: Text,
    /// What happens to a packet.
    pub verdict: Verdict,
    /// What happens instead to a packet from outside, that is neither from a
    /// pod nor from this node; none when it makes no difference.
    pub outside: Option<Verdict>,
    /// Who may come at all, as disjoint ranges; none when everybody may (P9).
    pub sources: Option<Vec<IpNet>>,
    /// Endpoints that [`Decision::verdict`] does not use, and why.
    pub excluded: Vec<(Target, Reason)>,
}

impl Decision {
    /// The verdict that holds for one kind of client.
    pub fn for_client(&self, outside: bool) -> &Verdict {
        match &self.outside {
            Some(verdict) if outside => verdict,
            Some(_) | None => &self.verdict,
        }
    }

    /// Whether a client is kept out by its address (P9).
    pub fn refuses(&self, source: IpAddr) -> bool {
        self.sources
            .as_ref()
            .is_some_and(|ranges| !ranges.iter().any(|range| range.contains(&source)))
    }
}

/// What happens to the packets of one frontend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Sent to one of the targets.
    Forward(Forward),
    /// Refused, so that the client knows at once.
    Reject(Reason),
    /// Dropped without an answer.
    Drop(Reason),
    /// Neither translated nor tracked: a process of this node answers.
    Here(Reason),
}

/// A translation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// The endpoints, sorted and without duplicates; never empty.
    pub targets: Vec<Target>,
    /// By what rule these were selected.
    pub selection: Selection,
    /// Whose source address is replaced by the node's.
    pub masquerade: Masquerade,
    /// For how many idle seconds a client stays with its endpoint; none when
    /// every connection chooses anew (P13).
    pub affinity: Option<u32>,
    /// How connections are spread over the targets; none for each at random, as
    /// likely as the others.
    pub balance: Option<Arc<Balance>>,
}

/// One endpoint of a frontend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// The endpoint's address.
    pub address: IpAddr,
    /// The port there.
    pub port: u16,
    /// Whether it is on this node.
    pub local: bool,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", SocketAddr::new(self.address, self.port))
    }
}

/// An endpoint outside the pods' ranges: a process of a node, or somebody else's
/// server. Pods are known by their ranges; these only by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Outlying {
    /// The endpoint's address.
    pub address: IpAddr,
    /// What it speaks.
    pub protocol: Protocol,
    /// The port there.
    pub port: u16,
}

/// Which rule of P1–P3 selected the endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Selection {
    /// All ready endpoints.
    Ready,
    /// The ready endpoints that hints name for this node.
    SameNode,
    /// The ready endpoints that hints name for this node's zone.
    SameZone,
    /// None is ready; those that still serve while they terminate.
    ServingTerminating,
    /// The ready endpoints of this node.
    LocalReady,
    /// None is ready on this node; those that still serve while they terminate.
    LocalServingTerminating,
}

impl fmt::Display for Selection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready => "ready",
            Self::SameNode => "ready and hinted for this node",
            Self::SameZone => "ready and hinted for this zone",
            Self::ServingTerminating => "terminating but still serving, as none is ready",
            Self::LocalReady => "ready on this node",
            Self::LocalServingTerminating => "on this node, terminating but still serving",
        })
    }
}

/// Whose source address is replaced by the node's (P7).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Masquerade {
    /// Nobody's.
    Never,
    /// Everybody's but a pod's.
    UnlessPod,
    /// This node's own.
    IfNode,
    /// Everybody's, but where the endpoint's node sends answers back here and the client
    /// is no node ([`NodeView::keeps`]).
    UnlessReturned,
    /// Everybody's.
    Always,
}

/// Which table of forwards a verdict belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Looked up by address, protocol and port.
    Address,
    /// Looked up by protocol and port on the node's own addresses.
    NodePort,
    /// The same, for clients outside, before [`Lane::NodePort`].
    NodePortOutside,
    /// Looked up by address, protocol and port; what the node itself sends is
    /// masqueraded.
    External,
    /// The same, for clients outside, before [`Lane::External`].
    ExternalOutside,
}

/// The shape of a forward: everything about it except who the targets are.
/// A renderer needs one small program per shape in use, however many Services
/// there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shape {
    /// The family of its packets.
    pub family: Family,
    /// Where it is looked up.
    pub lane: Lane,
    /// Whose source is replaced.
    pub masquerade: Masquerade,
    /// Among how many slots it chooses.
    pub width: usize,
    /// How it draws one.
    pub draw: Draw,
    /// Whether clients stay with their endpoint.
    pub sticky: bool,
}

/// How a connection gets its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Draw {
    /// At random.
    Random,
    /// By counting on. Each frontend counts for itself: where two shared a counter,
    /// one that alternates with the other would always meet the same endpoints.
    Counter(Frontend),
    /// By the client's address.
    Client,
}

impl Forward {
    /// How a connection gets its slot.
    pub fn algorithm(&self) -> Algorithm {
        let balance = self.balance.as_ref();
        balance.map_or(Algorithm::Random, |balance| balance.algorithm)
    }

    /// Which target each slot stands for; none for one each, in order.
    fn table(&self) -> Option<&[u16]> {
        self.balance.as_ref()?.slots.as_deref()
    }

    /// Among how many slots a connection's is drawn.
    pub fn width(&self) -> usize {
        self.table().map_or(self.targets.len(), <[u16]>::len)
    }

    /// The target that a slot stands for; none for a slot that there is not.
    pub fn at(&self, slot: usize) -> Option<&Target> {
        match self.table() {
            Some(table) => self.targets.get(usize::from(*table.get(slot)?)),
            None => self.targets.get(slot),
        }
    }

    /// The target of each slot.
    pub fn slots(&self) -> impl Iterator<Item = &Target> {
        (0..self.width()).filter_map(|slot| self.at(slot))
    }

    /// The weight of the target at a place in [`Forward::targets`].
    pub fn weight(&self, place: usize) -> u16 {
        let weights = self.balance.as_ref().map(|balance| &balance.weights);
        let weight = weights.and_then(|weights| weights.get(place));
        weight.copied().unwrap_or(1)
    }

    /// Its shape where it is looked up.
    pub fn shape(&self, frontend: Frontend, lane: Lane) -> Shape {
        Shape {
            family: frontend.family(),
            lane,
            masquerade: self.masquerade,
            width: self.width(),
            draw: match self.algorithm() {
                Algorithm::Random => Draw::Random,
                Algorithm::RoundRobin => Draw::Counter(frontend),
                Algorithm::Maglev => Draw::Client,
            },
            sticky: self.affinity.is_some(),
        }
    }
}

impl Decision {
    /// For how long clients stay with an endpoint, if they do.
    pub fn affinity(&self) -> Option<u32> {
        let verdicts = std::iter::once(&self.verdict).chain(&self.outside);
        let mut forwards = verdicts.filter_map(|verdict| match verdict {
            Verdict::Forward(forward) => forward.affinity,
            Verdict::Reject(_) | Verdict::Drop(_) | Verdict::Here(_) => None,
        });
        forwards.next()
    }
}

impl Frontend {
    /// The lanes of a decision for this frontend, each with its verdict.
    pub fn lanes<'d>(&self, decision: &'d Decision) -> impl Iterator<Item = (Lane, &'d Verdict)> {
        let (lane, outside) = match self.place {
            // Who comes from where makes no difference at a cluster address.
            Place::ClusterIp(_) => (Lane::Address, Lane::Address),
            Place::NodePort(_) => (Lane::NodePort, Lane::NodePortOutside),
            Place::External(_) => (Lane::External, Lane::ExternalOutside),
        };
        let others = decision.outside.as_ref().map(|verdict| (outside, verdict));
        std::iter::once((lane, &decision.verdict)).chain(others)
    }

    /// The shapes that a decision for this frontend needs.
    pub fn shapes<'d>(&self, decision: &'d Decision) -> impl Iterator<Item = Shape> + use<'_, 'd> {
        self.lanes(decision)
            .filter_map(move |(lane, verdict)| match verdict {
                Verdict::Forward(forward) => Some(forward.shape(*self, lane)),
                Verdict::Reject(_) | Verdict::Drop(_) | Verdict::Here(_) => None,
            })
    }
}
