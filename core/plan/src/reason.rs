//! Why something was decided, as data: `why` prints it, tests compare it.

use std::fmt;

use portolan_model::Text;

/// Why an endpoint is left out, or why a packet is not forwarded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Reason {
    /// The endpoint is neither ready nor serving.
    NotReady,
    /// The endpoint is going away and others are ready.
    Terminating,
    /// A Local policy admits only endpoints of this node.
    NotOnThisNode,
    /// All ready endpoints carry hints, and this one's name other zones.
    HintedElsewhere,
    /// The endpoint's address is itself a cluster address.
    EndpointIsServiceAddress,
    /// There is no usable endpoint anywhere.
    NoEndpoints,
    /// There are usable endpoints, but a Local policy admits none of them here.
    NoLocalEndpoints(Policy),
    /// The address belongs to a Service that has no such port.
    NoSuchPort,
    /// The address is in the Service ranges, and no Service has it.
    Unallocated,
    /// Another proxy serves this Service.
    OtherProxy(Text),
    /// Names are answered on this node itself.
    AnsweredHere,
    /// The client's address is in none of `spec.loadBalancerSourceRanges` (P9).
    SourceNotAllowed,
}

/// Names a traffic policy of a Service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Policy {
    /// `internalTrafficPolicy`.
    Internal,
    /// `externalTrafficPolicy`.
    External,
}

impl Reason {
    /// Whether an endpoint that is left out for this reason serves nevertheless: it
    /// gets no new connections, but those that it has go on (P17).
    #[must_use]
    pub fn still_serves(&self) -> bool {
        match self {
            Self::Terminating | Self::HintedElsewhere | Self::NotOnThisNode => true,
            Self::NotReady
            | Self::EndpointIsServiceAddress
            | Self::NoEndpoints
            | Self::NoLocalEndpoints(_)
            | Self::NoSuchPort
            | Self::Unallocated
            | Self::OtherProxy(_)
            | Self::AnsweredHere
            | Self::SourceNotAllowed => false,
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Internal => "internalTrafficPolicy",
            Self::External => "externalTrafficPolicy",
        })
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReady => f.write_str("not ready"),
            Self::Terminating => f.write_str("terminating, and others are ready"),
            Self::NotOnThisNode => f.write_str("not on this node"),
            Self::HintedElsewhere => f.write_str("hinted for elsewhere"),
            Self::EndpointIsServiceAddress => f.write_str("is itself a cluster address"),
            Self::NoEndpoints => f.write_str("no endpoints"),
            Self::NoLocalEndpoints(policy) => {
                write!(f, "{policy}=Local, no ready endpoint on this node")
            }
            Self::NoSuchPort => f.write_str("the Service has no such port"),
            Self::Unallocated => f.write_str("no Service has this address"),
            Self::OtherProxy(name) => write!(f, "served by the proxy {name:?}"),
            Self::AnsweredHere => f.write_str("names are answered on this node"),
            Self::SourceNotAllowed => {
                f.write_str("loadBalancerSourceRanges does not name the client's address")
            }
        }
    }
}
