//! What keeps a rule from allowing a connection.

use std::fmt;
use std::net::IpAddr;

use portolan_model::{Ask, PodKey, Text};

use super::world::Who;

/// One thing that is not as a rule asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Miss {
    /// The field of the policy that asks.
    pub field: String,
    /// What it asks, and what there is.
    pub what: What,
}

/// What a rule asks, and what there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// A label of the peer.
    Label {
        /// The peer.
        pod: PodKey,
        /// The label.
        key: Text,
        /// What is asked of it.
        ask: Ask,
        /// What the peer has.
        has: Option<Text>,
    },
    /// A label of the peer's namespace.
    NamespaceLabel {
        /// The namespace.
        namespace: Text,
        /// The label.
        key: Text,
        /// What is asked of it.
        ask: Ask,
        /// What the namespace has.
        has: Option<Text>,
    },
    /// The policy's own namespace.
    Namespace {
        /// The policy's.
        own: Text,
        /// The peer's.
        peer: Text,
    },
    /// A pod: selectors find nothing else.
    NotAPod(IpAddr),
    /// A pod with an address of its own: this one has its node's (N13).
    HostNetwork(PodKey),
    /// An address of the range.
    OutOfRange(IpAddr),
    /// An address that is not excepted, as this one is by this range.
    Excepted(IpAddr, String),
    /// One of these ports.
    Port {
        /// What is allowed, in words.
        allowed: Vec<String>,
        /// What is asked for; none for a protocol without ports.
        wanted: Option<String>,
        /// Names among them that the destination has no such port for.
        names: Vec<Text>,
    },
    /// Something that nobody could read.
    Unreadable,
}

impl What {
    /// How far it is from being met.
    pub(super) fn cost(&self) -> usize {
        match self {
            Self::Label { .. }
            | Self::NamespaceLabel { .. }
            | Self::Port { .. }
            | Self::Excepted(..) => 2,
            Self::Namespace { .. } | Self::HostNetwork(_) => 3,
            Self::OutOfRange(_) => 5,
            Self::Unreadable => 6,
            // Where a pod is, what it lacks tells more.
            Self::NotAPod(_) => 100,
        }
    }
}

/// `has app=other`, or `has no label app`.
fn has(key: &str, value: Option<&Text>) -> String {
    match value {
        Some(value) => format!("has {key}={value}"),
        None => format!("has no label {key}"),
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label {
                pod,
                key,
                ask,
                has: value,
            } => write!(
                f,
                "asks for {}; {} {}",
                ask.of(key),
                Who::of(pod),
                has(key, value.as_ref())
            ),
            Self::NamespaceLabel {
                namespace,
                key,
                ask,
                has: value,
            } => write!(
                f,
                "asks for namespaces with {}; namespace {namespace} {}",
                ask.of(key),
                has(key, value.as_ref())
            ),
            Self::Namespace { own, peer } => write!(
                f,
                "is about pods of the policy's own namespace {own}, as it has no namespaceSelector; the pod is in {peer}"
            ),
            Self::NotAPod(address) => {
                write!(f, "selects pods; {address} is no pod's address")
            }
            Self::HostNetwork(pod) => write!(
                f,
                "selects pods; pod {pod} has hostNetwork and so its node's address, which only an ipBlock allows"
            ),
            Self::OutOfRange(address) => write!(f, "does not contain {address}"),
            Self::Excepted(address, range) => write!(f, "excepts {address} by {range}"),
            Self::Port {
                allowed,
                wanted,
                names,
            } => {
                let allowed = allowed.join(", ");
                match wanted {
                    Some(wanted) => write!(f, "allows {allowed}; not {wanted}")?,
                    None => write!(f, "allows {allowed}; not a protocol without ports")?,
                }
                for name in names {
                    write!(f, "; the destination has no such port named {name:?}")?;
                }
                Ok(())
            }
            Self::Unreadable => f.write_str("cannot be read, and so allows nothing"),
        }
    }
}
