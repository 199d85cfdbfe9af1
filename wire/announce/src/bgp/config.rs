//! What is configured about one peer.

use std::net::Ipv4Addr;
use std::time::Duration;

use rustbgpd_wire::{Afi, Safi};

/// A family of unicast routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// IPv4 unicast.
    V4,
    /// IPv6 unicast.
    V6,
}

impl Family {
    /// Both.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// The family of a prefix.
    #[must_use]
    pub const fn of(prefix: ipnet::IpNet) -> Self {
        match prefix {
            ipnet::IpNet::V4(_) => Self::V4,
            ipnet::IpNet::V6(_) => Self::V6,
        }
    }

    pub(super) const fn afi(self) -> Afi {
        match self {
            Self::V4 => Afi::Ipv4,
            Self::V6 => Afi::Ipv6,
        }
    }

    /// The family of these numbers, if it is one of ours.
    pub(super) fn from_wire(afi: Option<Afi>, safi: Option<Safi>) -> Option<Self> {
        if safi != Some(Safi::Unicast) {
            return None;
        }
        Self::ALL
            .into_iter()
            .find(|family| Some(family.afi()) == afi)
    }
}

/// Graceful restart as we offer it (RFC 4724).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restart {
    /// For how long the peer keeps our routes after the connection is lost:
    /// whole seconds, 4095 at most.
    pub time: Duration,
    /// This process follows one whose routes the peer may still keep.
    pub restarted: bool,
}

/// One peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Our autonomous system.
    pub local_as: u32,
    /// The peer's: the same makes the session internal.
    pub peer_as: u32,
    /// Our BGP identifier, not zero.
    pub identifier: Ipv4Addr,
    /// The families that are offered.
    pub families: Vec<Family>,
    /// IPv4 prefixes may go with an IPv6 next hop (RFC 8950).
    pub extended_next_hop: bool,
    /// The session ends when nothing is heard for so long: zero (never), or three
    /// seconds and more. The lower of both sides' counts.
    pub hold_time: Duration,
    /// How long a connection attempt may take, and how long the peer's is waited for
    /// before the next.
    pub connect_retry: Duration,
    /// The wait after a failure; it doubles with each error of the protocol.
    pub idle_hold: Duration,
    /// The longest such wait.
    pub most_idle_hold: Duration,
    /// Wait for the peer to connect.
    pub passive: bool,
    /// Graceful restart, if it is offered.
    pub restart: Option<Restart>,
    /// A peer that announces more prefixes than these, over all families, is
    /// stopped (RFC 4486).
    pub most_prefixes: Option<usize>,
}

impl Config {
    /// A peer with both families and the times that RFC 4271 section 10 suggests, but
    /// for the 120 seconds between attempts: a peer that was not ready would be
    /// without our routes for longer than it keeps them over a restart.
    #[must_use]
    pub fn new(local_as: u32, peer_as: u32, identifier: Ipv4Addr) -> Self {
        Self {
            local_as,
            peer_as,
            identifier,
            families: Family::ALL.to_vec(),
            extended_next_hop: false,
            hold_time: Duration::from_secs(90),
            connect_retry: Duration::from_secs(10),
            idle_hold: Duration::from_secs(2),
            most_idle_hold: Duration::from_secs(60),
            passive: false,
            restart: None,
            most_prefixes: None,
        }
    }

    /// Whether both ends are of one autonomous system (iBGP).
    #[must_use]
    pub const fn is_internal(&self) -> bool {
        self.local_as == self.peer_as
    }

    /// The hold time as an OPEN says it: whole seconds, where one and two are none
    /// that it may say.
    pub(super) fn hold_seconds(&self) -> u16 {
        match u16::try_from(self.hold_time.as_secs()) {
            Ok(0) if self.hold_time.is_zero() => 0,
            Ok(seconds) => seconds.max(3),
            Err(_) => u16::MAX,
        }
    }
}
