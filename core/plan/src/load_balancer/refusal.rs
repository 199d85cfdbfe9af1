//! Why a Service has no address, as data.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;

use portolan_model::Family;
use portolan_model::workloads::{BalancedPort, ObjectKey};

/// The label by which nodes are left alone by load balancers (L4).
pub const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// One reason why a Service has no address, or not all that it wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// What it asks for could not be understood.
    Request(String),
    /// It asks for an address of a family that it does not have.
    Family(IpAddr),
    /// It requires both families and has cluster addresses of one only.
    OneFamily,
    /// No pool has the name that it asks for.
    UnknownPool(String),
    /// An address that it asks for is in no pool.
    NotInPool(IpAddr),
    /// An address that it asks for is of another pool than the one it asks for.
    OtherPool {
        /// The address.
        address: IpAddr,
        /// The pool that it asks for.
        asked: String,
    },
    /// A pool is for other namespaces.
    Namespace {
        /// The pool.
        pool: String,
        /// The Service's namespace.
        namespace: String,
    },
    /// A pool is for Services with other labels.
    Labels {
        /// The pool.
        pool: String,
    },
    /// Every pool gives addresses only to those that ask for them.
    NoAutoAssign,
    /// Somebody has the address, and does not share it with this Service.
    Taken {
        /// The address.
        address: IpAddr,
        /// Who has it.
        by: ObjectKey,
        /// Why they do not share it.
        why: NotShared,
    },
    /// All addresses of a pool are in use.
    Exhausted {
        /// The pool.
        pool: String,
        /// The family; none where the pool has addresses of one only.
        family: Option<Family>,
        /// How many there are.
        total: u128,
    },
    /// A pool has no address of a family.
    FamilyOfPool {
        /// The pool.
        pool: String,
        /// The family.
        family: Family,
    },
    /// No node may stand in for the Service (L4).
    NoNode(Vec<(String, Unfit)>),
    /// No fit node has an address of a family.
    FamilyOfNodes(Family),
    /// A port of the Service is taken on a node (L12).
    Port {
        /// The port.
        port: BalancedPort,
        /// On these nodes.
        nodes: Vec<String>,
        /// Who has it.
        by: String,
    },
}

/// Why two Services do not share an address (L5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotShared {
    /// One of them, or both, have no sharing key, or they have different ones.
    Key,
    /// Both have this port.
    Port(BalancedPort),
    /// One of them is Local and the other has other pods.
    Backends,
}

/// Why a node does not stand in for a Service (L4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    /// Its condition Ready is not True.
    NotReady,
    /// Its condition NetworkUnavailable is True.
    Network,
    /// It has the label that leaves it alone.
    Excluded,
    /// `externalTrafficPolicy: Local`, and none of the Service's ready endpoints is
    /// there.
    NoEndpoint,
    /// It has no address in the families of the Service.
    NoAddress,
}

impl Refusal {
    /// The reason in a condition: one word for programs.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Request(_) | Self::Family(_) | Self::OneFamily => "InvalidRequest",
            Self::UnknownPool(_) | Self::NoAutoAssign | Self::FamilyOfPool { .. } => "NoPool",
            Self::NotInPool(_) | Self::OtherPool { .. } => "AddressNotInPool",
            Self::Namespace { .. } | Self::Labels { .. } => "PoolNotAllowed",
            Self::Taken { .. } => "AddressTaken",
            Self::Exhausted { .. } => "PoolExhausted",
            Self::NoNode(_) | Self::FamilyOfNodes(_) => "NoEligibleNode",
            Self::Port { .. } => "PortTaken",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request(fault) => f.write_str(fault),
            Self::Family(address) => {
                let family = Family::of(*address);
                write!(f, "{address} is asked for, but the Service has no {family}")
            }
            Self::OneFamily => f.write_str(
                "the Service requires both families, but has a cluster address of one only",
            ),
            Self::UnknownPool(pool) => write!(f, "there is no pool {pool}"),
            Self::NotInPool(address) => write!(f, "{address} is in no pool"),
            Self::OtherPool { address, asked } => write!(f, "{address} is not in pool {asked}"),
            Self::Namespace { pool, namespace } => {
                write!(f, "pool {pool} is not for namespace {namespace}")
            }
            Self::Labels { pool } => {
                write!(f, "pool {pool} is not for Services with these labels")
            }
            Self::NoAutoAssign => {
                f.write_str("no pool gives addresses to Services that do not ask for one")
            }
            Self::Taken { address, by, why } => match why {
                NotShared::Key => write!(f, "{address} is taken by {by}"),
                NotShared::Port(port) => write!(f, "port {port} of {address} is taken by {by}"),
                NotShared::Backends => write!(
                    f,
                    "{address} is taken by {by}: with externalTrafficPolicy Local, only Services with the same pods share an address"
                ),
            },
            Self::Exhausted {
                pool,
                family,
                total,
            } => match family {
                None => write!(f, "pool {pool} exhausted: {total} of {total} used"),
                Some(family) => {
                    write!(
                        f,
                        "pool {pool} exhausted: {total} of {total} {family} addresses used"
                    )
                }
            },
            Self::FamilyOfPool { pool, family } => {
                write!(f, "pool {pool} has no {family} addresses")
            }
            Self::NoNode(nodes) => no_node(f, nodes),
            Self::FamilyOfNodes(family) => write!(f, "no eligible node has an {family} address"),
            Self::Port { port, nodes, by } => {
                write!(f, "port {port} on {} taken by {by}", some(nodes))
            }
        }
    }
}

/// `0 of 2 nodes eligible: n1, n2: not ready`.
fn no_node(f: &mut fmt::Formatter<'_>, nodes: &[(String, Unfit)]) -> fmt::Result {
    write!(f, "0 of {} nodes eligible", nodes.len())?;
    let mut by_reason: BTreeMap<Unfit, Vec<&str>> = BTreeMap::new();
    for (name, why) in nodes {
        by_reason.entry(*why).or_default().push(name);
    }
    for (at, (why, names)) in by_reason.into_iter().enumerate() {
        f.write_str(if at == 0 { ": " } else { "; " })?;
        f.write_str(&some(&names))?;
        write!(f, ": {why}")?;
    }
    Ok(())
}

/// Names, the first ones where there are many: there may be thousands.
fn some(names: &[impl AsRef<str>]) -> String {
    const TOLD: usize = 3;
    let told: Vec<&str> = names.iter().take(TOLD).map(AsRef::as_ref).collect();
    let told = told.join(", ");
    match names.len().checked_sub(TOLD) {
        None | Some(0) => told,
        Some(more) => format!("{told} and {more} more"),
    }
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotReady => f.write_str("not ready"),
            Self::Network => f.write_str("network unavailable"),
            Self::Excluded => write!(f, "label {EXCLUDED}"),
            Self::NoEndpoint => f.write_str("no ready endpoint, with externalTrafficPolicy Local"),
            Self::NoAddress => f.write_str("no address of the Service's families"),
        }
    }
}
