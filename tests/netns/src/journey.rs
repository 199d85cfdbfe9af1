//! What the plans of all nodes say will become of a packet, and whether it does.
//!
//! `why` follows a packet through one node. Here the packet goes on to the next
//! one, until somebody gets it; and the answer goes back, which it can only if it
//! meets every node again that changed the packet and is not its client.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use futures::{StreamExt, TryStreamExt};
use portolan_lab::fabric::NODE_DEVICE;
use portolan_model::{Family, Protocol};
use portolan_plan::LinkName;
use portolan_testkit::packets;
use portolan_why::{Outcome, Packet, Trace, trace};

use crate::talk::{PATIENCE, SILENCE, Seen};
use crate::world::{Client, World};

/// How many attempts run at a time.
const AT_ONCE: usize = 32;

/// Attempts until each of five endpoints was met: with one chance in 10^18 not.
const ATTEMPTS: usize = 200;

/// The link by which nodes hear of each other.
fn network() -> LinkName {
    LinkName::new(NODE_DEVICE).unwrap_or_default()
}

/// One thing that may become of a packet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ending {
    /// This server answers and sees this client.
    Answer(SocketAddr, IpAddr),
    /// It is refused.
    Refused,
    /// It is dropped.
    Dropped,
    /// No answer finds its way back, or nobody is there: anything but an answer.
    Lost,
}

impl Ending {
    fn admits(&self, seen: Seen) -> bool {
        match (self, seen) {
            (Self::Answer(at, client), Seen::Answer { server, peer }) => {
                *at == server && *client == peer
            }
            (Self::Refused, Seen::Refused) | (Self::Dropped, Seen::Silence) => true,
            (Self::Lost, seen) => !matches!(seen, Seen::Answer { .. }),
            (Self::Answer(..) | Self::Refused | Self::Dropped, _) => false,
        }
    }
}

/// A packet on its way.
#[derive(Debug, Clone)]
struct Way {
    packet: Packet,
    /// Nodes that changed its destination and not its source, since its source
    /// was changed last.
    changed_by: Vec<usize>,
    hops: usize,
}

impl World {
    /// What may become of the first packet of a connection. The rules of each node
    /// it meets are held to the traces on the way.
    ///
    /// # Errors
    /// If the rules say something else than the trace.
    pub fn endings(
        &self,
        client: Client,
        protocol: Protocol,
        to: SocketAddr,
    ) -> Result<BTreeSet<Ending>> {
        let packet = self.packet(client, protocol, to);
        let way = Way {
            packet,
            changed_by: Vec::new(),
            hops: 0,
        };
        let mut endings = BTreeSet::new();
        match self.first_node(client, to.ip()) {
            Some(node) => self.meet(node, &way, &mut endings)?,
            None => {
                endings.insert(Ending::Lost);
            }
        }
        Ok(endings)
    }

    /// The first packet of a connection.
    fn packet(&self, client: Client, protocol: Protocol, to: SocketAddr) -> Packet {
        Packet {
            source: self.address(client, Family::of(to.ip())),
            destination: to.ip(),
            protocol,
            port: to.port(),
            from_node: matches!(client, Client::Node(_)),
            link: match client {
                Client::Pod(pod) => self.pods[pod].link,
                Client::Node(_) => LinkName::NONE,
                Client::Outside | Client::Stranger => network(),
            },
        }
    }

    /// The node that a client's packet meets first.
    fn first_node(&self, client: Client, to: IpAddr) -> Option<usize> {
        match client {
            Client::Pod(pod) => Some(self.pods[pod].node),
            Client::Node(node) => Some(node),
            Client::Outside => self.home(to),
            Client::Stranger => self.home(to).or(Some(0)),
        }
    }

    /// Whether a client stays with the endpoint that it had first (P13).
    fn stays(&self, client: Client, protocol: Protocol, to: SocketAddr) -> Result<bool> {
        let Some(node) = self.first_node(client, to.ip()) else {
            return Ok(false);
        };
        let packet = self.packet(client, protocol, to);
        let trace = self.traced(node, packet)?;
        let home = self.home(to.ip()).filter(|home| *home != node);
        let (Outcome::Pass(_), Some(home)) = (&trace.outcome, home) else {
            return Ok(trace.affinity.is_some());
        };
        // The first node carries it to the one whose node port it is.
        let arriving = Packet {
            from_node: false,
            link: network(),
            ..packet
        };
        Ok(self.traced(home, arriving)?.affinity.is_some())
    }

    /// The trace of a client's packet on one node.
    pub fn traced(&self, node: usize, packet: Packet) -> Result<Trace> {
        let rig = &self.nodes[node].rig;
        let trace = trace(&rig.cluster, &rig.plan, &rig.plan.view, packet);
        packets::check(&rig.ruleset, &rig.plan.view, &trace)?;
        Ok(trace)
    }

    /// The node that an address belongs to: its own, or a pod's.
    fn home(&self, address: IpAddr) -> Option<usize> {
        let pod = self.pods.iter().find(|pod| pod.net.ips.contains(&address));
        let node = || {
            self.nodes
                .iter()
                .position(|node| node.net.ips.contains(&address))
        };
        pod.map(|pod| pod.node).or_else(node)
    }

    fn meet(&self, node: usize, way: &Way, endings: &mut BTreeSet<Ending>) -> Result<()> {
        ensure!(way.hops < 8, "{:?} goes round in circles", way.packet);
        let trace = self.traced(node, way.packet)?;
        match &trace.outcome {
            Outcome::Forward(_) => {
                for candidate in trace.reachable() {
                    let Ok(source) = candidate.source else {
                        continue;
                    };
                    let mut next = way.clone();
                    next.packet.destination = candidate.target.address;
                    next.packet.port = candidate.target.port;
                    if !source.is_masqueraded() {
                        next.changed_by.push(node);
                    } else if self.finds_back(node, way) {
                        let family = Family::of(way.packet.destination);
                        next.packet.source = self.address(Client::Node(node), family);
                        next.changed_by = Vec::new();
                    } else {
                        endings.insert(Ending::Lost);
                        continue;
                    }
                    self.carry(node, &next, endings)?;
                }
                return Ok(());
            }
            Outcome::Pass(_) => return self.carry(node, way, endings),
            Outcome::Reject(_) if self.finds_back(node, way) => endings.insert(Ending::Refused),
            Outcome::Reject(_) => endings.insert(Ending::Lost),
            Outcome::Drop(_) => endings.insert(Ending::Dropped),
            Outcome::Here(_) => endings.insert(self.arrived(node, way)),
        };
        Ok(())
    }

    /// From a node to where the packet is for.
    fn carry(&self, node: usize, way: &Way, endings: &mut BTreeSet<Ending>) -> Result<()> {
        match self.home(way.packet.destination) {
            None => endings.insert(Ending::Lost),
            Some(home) if home == node => endings.insert(self.arrived(node, way)),
            Some(home) => {
                let mut next = way.clone();
                next.packet.from_node = false;
                next.packet.link = network();
                next.hops += 1;
                return self.meet(home, &next, endings);
            }
        };
        Ok(())
    }

    fn arrived(&self, node: usize, way: &Way) -> Ending {
        let Packet {
            source,
            destination,
            port,
            ..
        } = way.packet;
        let at = SocketAddr::new(destination, port);
        // Nobody believes a packet from the network that has its own address as source.
        let from_itself = source == destination && !self.nodes[node].net.ips.contains(&source);
        if from_itself || !self.finds_back(node, way) {
            Ending::Lost
        } else if self.listening.contains(&at) {
            Ending::Answer(at, source)
        } else {
            Ending::Refused
        }
    }

    /// Whether an answer from a node meets every node that changed the packet.
    fn finds_back(&self, node: usize, way: &Way) -> bool {
        let home = self.home(way.packet.source);
        way.changed_by
            .iter()
            .all(|by| *by == node || Some(*by) == home)
    }

    /// Sends until every ending that the plans allow was seen; no other may be.
    ///
    /// # Errors
    /// If another one is seen, one is never seen, or nothing can be sent.
    pub async fn check(
        &self,
        client: Client,
        protocol: Protocol,
        to: SocketAddr,
    ) -> Result<BTreeSet<Ending>> {
        let endings = self.endings(client, protocol, to)?;
        let answered = endings
            .iter()
            .all(|ending| matches!(ending, Ending::Answer(..) | Ending::Refused));
        let patience = if answered { PATIENCE } else { SILENCE };
        let stays = self.stays(client, protocol, to)?;
        let mut left = endings.clone();
        for _ in 0..ATTEMPTS {
            let seen = self.knock(client, protocol, to, patience).await?;
            let allowed = endings.iter().any(|ending| ending.admits(seen));
            ensure!(
                allowed,
                "{client:?} to {to}/{protocol}: {seen:?}, not one of {endings:?}"
            );
            left.retain(|ending| !ending.admits(seen));
            if left.is_empty() || stays {
                return Ok(endings);
            }
        }
        anyhow::bail!("{client:?} to {to}/{protocol}: never {left:?} of {endings:?}")
    }

    /// Checks every pair of a client and a place, many at a time; what became of
    /// each, in no order.
    ///
    /// # Errors
    /// As [`World::check`].
    pub async fn check_all(
        &self,
        pairs: impl IntoIterator<Item = (Client, Protocol, SocketAddr)>,
    ) -> Result<Vec<BTreeSet<Ending>>> {
        let checks = pairs
            .into_iter()
            .map(|(client, protocol, to)| self.check(client, protocol, to));
        futures::stream::iter(checks)
            .buffer_unordered(AT_ONCE)
            .try_collect()
            .await
    }
}
