//! NetworkPolicies: who may reach whom.

use ipnet::IpNet;

use crate::key::{PolicyKey, Protocol};
use crate::labels::LabelSelector;
use crate::text::Text;

/// A NetworkPolicy of `networking.k8s.io/v1`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPolicy {
    /// Its name.
    pub key: PolicyKey,
    /// `spec.podSelector`: the pods of its namespace that it isolates.
    pub pods: LabelSelector,
    /// What may come in; none if it says nothing about what comes in (N2). An empty
    /// list lets nothing in (N4).
    pub ingress: Option<Vec<PolicyRule>>,
    /// What may go out, in the same manner.
    pub egress: Option<Vec<PolicyRule>>,
}

/// One way of a connection, seen from the pod that a policy selects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// To the pod.
    Ingress,
    /// From the pod.
    Egress,
}

impl Direction {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Ingress, Self::Egress];

    /// As `policyTypes` has it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingress => "Ingress",
            Self::Egress => "Egress",
        }
    }
}

impl NetworkPolicy {
    /// Its rules for a direction; none if it does not isolate there.
    pub fn rules(&self, direction: Direction) -> Option<&[PolicyRule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }
}

/// One element of `spec.ingress` or `spec.egress`: any of the peers at any of the
/// ports (N5).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PolicyRule {
    /// `from` or `to`; none for everybody (N4). An empty list, which the API does not
    /// know, is of a rule of whose peers none could be read: nobody.
    pub peers: Option<Vec<PolicyPeer>>,
    /// `ports`; none for all of them, and for protocols without ports (N4). An empty
    /// list is of a rule of whose ports none could be read.
    pub ports: Option<Vec<PolicyPort>>,
}

/// Who a rule allows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PolicyPeer {
    /// Pods (N6).
    Pods {
        /// `namespaceSelector`; none for the policy's own namespace.
        namespaces: Option<LabelSelector>,
        /// `podSelector`; none for all pods there.
        pods: LabelSelector,
    },
    /// `ipBlock`: a range less others (N8).
    Block(Block),
}

/// A range of addresses less others.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Block {
    /// `cidr`.
    pub range: IpNet,
    /// `except`.
    pub except: Vec<IpNet>,
}

impl Block {
    /// Whether an address is in it.
    pub fn contains(&self, address: std::net::IpAddr) -> bool {
        self.range.contains(&address) && !self.except.iter().any(|net| net.contains(&address))
    }
}

/// One element of `ports`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyPort {
    /// The protocol; TCP if it is not given (N9).
    pub protocol: Protocol,
    /// Which ports of it.
    pub port: PortMatch,
}

/// Which ports of a protocol.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PortMatch {
    /// All.
    All,
    /// From the first to the last, both included.
    Range(u16, u16),
    /// The one that the destination pod calls so (N10).
    Named(Text),
}
