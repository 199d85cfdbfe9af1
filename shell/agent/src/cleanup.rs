//! What an agent leaves in its network namespace when it ends, and how to take
//! that away: our tables, the addresses of the cluster's DNS on `lo`, and the rules and
//! routes by which answers go back to where connections came in.
//!
//! Connections that are tracked are left alone: the kernel goes on translating
//! them until they end.

use std::collections::BTreeSet;
use std::fmt;
use std::io;

use ipnet::IpNet;
use portolan_kernel::link::{LinkError, Links};
use portolan_kernel::netns::NetNs;
use portolan_kernel::nft::{CommitError, Nft, OpenError, ReadError};
use portolan_kernel::presence::{Presence, PresenceError, holder};
use portolan_kernel::way::Way;
use portolan_nft::{Batch, Op, TableId};
use portolan_render::nft as render;

use crate::node::{LOOPBACK, PRESENCE};

/// Something that an agent made and left.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Leftover {
    /// A table of nftables.
    Table(TableId),
    /// An address of the loopback link.
    Address(IpNet),
    /// A rule for packets with a mark, and its routing table.
    Way(Way),
}

impl Leftover {
    /// The link that carries our addresses.
    pub const LINK: &str = LOOPBACK;
}

impl fmt::Display for Leftover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Table(table) => write!(f, "table {table}"),
            Self::Way(way) => write!(f, "{way}"),
            Self::Address(address) => write!(f, "address {address} from {LOOPBACK}"),
        }
    }
}

/// Why nothing, or not everything, was taken away.
#[derive(Debug, thiserror::Error)]
pub enum CleanupError {
    /// An agent would put everything back at once.
    #[error("an agent runs in this network namespace{process}: stop it first")]
    AgentRuns {
        /// Its process, in words.
        process: String,
    },
    /// Whether an agent runs cannot be told.
    #[error("look for an agent in this network namespace")]
    Presence(#[source] PresenceError),
    /// No netlink socket for nftables.
    #[error("open nftables")]
    Open(#[source] OpenError),
    /// The tables cannot be read.
    #[error("read the tables of this network namespace")]
    Read(#[source] ReadError),
    /// A table cannot be removed.
    #[error("remove our tables")]
    Commit(#[source] CommitError),
    /// The addresses, rules or routes cannot be read or changed.
    #[error("change the addresses of {LOOPBACK}, or rules and routes")]
    Link(#[source] LinkError),
}

impl CleanupError {
    /// Whether the kernel said that the caller lacks the right.
    pub fn is_forbidden(&self) -> bool {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(self);
        while let Some(error) = cause {
            let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
            if kind == Some(io::ErrorKind::PermissionDenied) {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

/// What an agent has left in a namespace, in order. Nothing is changed.
///
/// # Errors
/// If the kernel does not answer.
pub async fn leftovers(netns: &NetNs) -> Result<Vec<Leftover>, CleanupError> {
    let mut nft = Nft::open(netns).map_err(CleanupError::Open)?;
    let mut found = Vec::new();
    let mut ours: BTreeSet<IpNet> = BTreeSet::new();
    for table in render::tables() {
        if !nft.exists(&table).map_err(CleanupError::Read)? {
            continue;
        }
        let set = render::ANSWERED.into();
        let elements = nft.learned(&table, &set).map_err(CleanupError::Read)?;
        let addresses = elements.iter();
        let addresses = addresses.filter_map(|(key, _)| render::answered(&table, key));
        ours.extend(addresses.map(IpNet::from));
        found.push(Leftover::Table(table));
    }
    let links = Links::open(netns).map_err(CleanupError::Link)?;
    let ways = links.ways().await.map_err(CleanupError::Link)?;
    found.extend(ways.into_iter().map(Leftover::Way));
    let Some(loopback) = links.find(LOOPBACK).await.map_err(CleanupError::Link)? else {
        return Ok(found);
    };
    // Marked by us, or on an old kernel, which forgets marks, known to our table.
    let marked = links.answering_addresses(loopback.index).await;
    ours.extend(marked.map_err(CleanupError::Link)?);
    let there = links.addresses(loopback.index).await;
    let there = there.map_err(CleanupError::Link)?.into_iter();
    found.extend(
        there
            .filter(|net| ours.contains(net))
            .map(Leftover::Address),
    );
    Ok(found)
}

/// Takes away what an agent has left; returns what that was. What goes by itself
/// meanwhile is no error.
///
/// # Errors
/// If an agent runs in the namespace, or the kernel refuses.
pub async fn cleanup(netns: &NetNs) -> Result<Vec<Leftover>, CleanupError> {
    // No agent that starts meanwhile believes itself alone.
    let _alone = alone(netns)?;
    let found = leftovers(netns).await?;
    let mut nft = Nft::open(netns).map_err(CleanupError::Open)?;
    let links = Links::open(netns).map_err(CleanupError::Link)?;
    for leftover in &found {
        match leftover {
            Leftover::Table(table) => delete_table(&mut nft, table)?,
            Leftover::Way(way) => {
                let gone = links.del_way(way).await;
                gone.map_err(CleanupError::Link)?;
            }
            Leftover::Address(address) => {
                let loopback = links.index(LOOPBACK).await.map_err(CleanupError::Link)?;
                let gone = links.del_address(loopback, *address).await;
                gone.map_err(CleanupError::Link)?;
            }
        }
    }
    Ok(found)
}

/// That no agent runs in a namespace, and none that starts believes itself alone until
/// this is dropped.
///
/// # Errors
/// If one runs, or that cannot be told.
pub fn alone(netns: &NetNs) -> Result<Option<Presence>, CleanupError> {
    let held = Presence::hold(netns, PRESENCE).map_err(CleanupError::Presence)?;
    if held.is_none()
        && let Some(agent) = holder(netns, PRESENCE).map_err(CleanupError::Presence)?
    {
        let process = match agent.pid {
            0 => String::new(),
            pid => format!(" (process {pid})"),
        };
        return Err(CleanupError::AgentRuns { process });
    }
    Ok(held)
}

fn delete_table(nft: &mut Nft, table: &TableId) -> Result<(), CleanupError> {
    let mut batch = Batch::new();
    batch.push(table, Op::DeleteTable);
    match nft.commit(&batch) {
        Err(CommitError::Refused { cause, .. }) if cause.kind() == io::ErrorKind::NotFound => {
            Ok(())
        }
        other => other.map_err(CleanupError::Commit),
    }
}
