//! Connections that began before policies changed: cut where they are no longer
//! allowed, if that is asked for, and let go on where they are again.
//!
//! A connection is cut by a bit of its mark, by which its packets are dropped in both
//! directions. To delete it from the kernel's memory would not do: the next packet
//! that the server sends would begin it anew, as a connection the other way round,
//! which may be allowed.
//!
//! Judging is level-triggered: it asks what is, and not what changed. A [`Review`]
//! only bounds whose connections are asked about.

use std::collections::BTreeSet;
use std::net::IpAddr;

use portolan_model::{Direction, Family, Protocol};

use super::{Isolation, PeersId, Policies, PolicySet, SetId, TouchedPolicies, Way};

/// Whose connections are judged again.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Review {
    everything: bool,
    /// Those from and to these addresses.
    pods: BTreeSet<IpAddr>,
}

/// A tracked connection, as far as policies are about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Connection {
    /// Who began it, before its source was translated.
    pub source: IpAddr,
    /// Whom it reaches, after its destination was translated.
    pub destination: IpAddr,
    /// The protocol and the port that it reaches, of protocols with ports.
    pub to: Option<(Protocol, u16)>,
    /// Whether it is cut.
    pub is_cut: bool,
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Turn {
    /// It is cut.
    Cut,
    /// It goes on.
    Restore,
}

impl Review {
    /// Every connection that there is.
    pub fn everything() -> Self {
        Self {
            everything: true,
            ..Self::default()
        }
    }

    /// Those about which a round may have changed what policies say. It costs the
    /// isolated pods of the node at most.
    pub fn of(policies: &Policies, touched: &TouchedPolicies) -> Self {
        let mut pods: BTreeSet<IpAddr> = touched.isolated.keys().copied().collect();
        let peers = touched.peers.pods.keys();
        let peers: BTreeSet<PeersId> = peers.map(|(id, _)| *id).collect();
        let doors = touched.peers.doors.keys();
        let mut changed: BTreeSet<SetId> = doors.map(|(id, _)| *id).collect();
        if !peers.is_empty() {
            let sets = policies.sets().filter(|(_, set)| uses(set, &peers));
            changed.extend(sets.map(|(id, _)| *id));
        }
        if !changed.is_empty() {
            let is = |own: &Isolation| {
                let mut sets = own.iter().map(|(_, _, id)| id);
                sets.any(|id| changed.contains(&id))
            };
            let own = policies.isolated.iter().filter(|(_, own)| is(own));
            pods.extend(own.map(|(address, _)| *address));
        }
        Self {
            everything: false,
            pods,
        }
    }

    /// Takes in another one.
    pub fn merge(&mut self, other: Self) {
        self.everything |= other.everything;
        self.pods.extend(other.pods);
    }

    /// The families of the connections that are asked about.
    pub fn families(&self) -> Vec<Family> {
        let asked = |family: &Family| {
            let mut pods = self.pods.iter();
            self.everything || pods.any(|pod| Family::of(*pod) == *family)
        };
        Family::BOTH.into_iter().filter(asked).collect()
    }

    /// Whether nobody's are asked about.
    pub fn is_empty(&self) -> bool {
        !self.everything && self.pods.is_empty()
    }

    /// What becomes of a connection, if that is another than before. The node itself
    /// always reaches its pods (N12): `own_addresses` are the node's.
    pub fn judge(
        &self,
        policies: &Policies,
        own_addresses: &BTreeSet<IpAddr>,
        connection: &Connection,
    ) -> Option<Turn> {
        let Connection {
            source,
            destination,
            to,
            is_cut,
        } = *connection;
        let mut ends = [source, destination].into_iter();
        if !self.everything && !ends.any(|end| self.pods.contains(&end)) {
            return None;
        }
        let allowed = own_addresses.contains(&source)
            || (policies.allows(Direction::Egress, (source, destination), to)
                && policies.allows(Direction::Ingress, (destination, source), to));
        match (allowed, is_cut) {
            (false, false) => Some(Turn::Cut),
            (true, true) => Some(Turn::Restore),
            (true, false) | (false, true) => None,
        }
    }
}

/// Whether a set leads to some of these peers.
fn uses(set: &PolicySet, peers: &BTreeSet<PeersId>) -> bool {
    let mut ways = set.ways();
    ways.any(|way| matches!(way, Way::By(id) if peers.contains(id)))
}
