//! Why an address is not announced, as data.

use std::fmt;

use portolan_model::workloads::ObjectKey;

use crate::load_balancer::Unfit;

/// Why a node does not announce an address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mute {
    /// It may not stand in for the Service (L4).
    Unfit(Unfit),
    /// No agent there says that it announces.
    NoAgent,
    /// The announcement is not for nodes with its labels.
    NotSelected,
    /// None of its links has a subnet with the address in it.
    NoSubnet,
    /// It has none of the links that the announcement names.
    NoInterface,
    /// None of the peers that the announcement is for is for this node.
    NoPeer,
    /// Its peers are not told of addresses of this family.
    OtherFamily,
}

/// Why nobody announces an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsaid {
    /// It is an address of a node.
    OfNodes,
    /// It is in no pool.
    NotInPool,
    /// No announcement is about MetalLB's pool that it is of.
    NoAdvertisement(ObjectKey),
    /// The announcements that are about its pool are for Services with other labels.
    OtherServices(Vec<ObjectKey>),
}

impl fmt::Display for Mute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unfit(why) => why.fmt(f),
            Self::NoAgent => f.write_str("no agent announces there"),
            Self::NotSelected => f.write_str("not selected by the announcement"),
            Self::NoSubnet => f.write_str("no link has a subnet with this address"),
            Self::NoInterface => f.write_str("none of the announcement's interfaces"),
            Self::OtherFamily => f.write_str("its peers are not told of this family (families)"),
            Self::NoPeer => f.write_str("no peer of the announcement is for this node"),
        }
    }
}

impl fmt::Display for Unsaid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::OfNodes => f.write_str("an address of a node needs no announcement"),
            Self::NotInPool => f.write_str("it is in no pool"),
            Self::NoAdvertisement(pool) => write!(
                f,
                "no L2Advertisement or BGPAdvertisement is about pool {}",
                pool.name
            ),
            Self::OtherServices(by) => {
                let names: Vec<String> = by.iter().map(ObjectKey::to_string).collect();
                let names = names.join(", ");
                write!(
                    f,
                    "its announcements ({names}) are for Services with other labels"
                )
            }
        }
    }
}
