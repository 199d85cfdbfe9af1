//! Tables, chains and the whole ruleset.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{Rule, Set};

/// The name of a table, chain, set or map.
pub type Name = Arc<str>;

/// The address family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Family {
    /// `ip`: IPv4.
    Ip,
    /// `ip6`: IPv6.
    Ip6,
}

impl Family {
    /// nft's word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Ip6 => "ip6",
        }
    }

    /// The number of netfilter (NFPROTO_*).
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Ip => 2,
            Self::Ip6 => 10,
        }
    }

    pub(crate) const fn from_number(number: u8) -> Option<Self> {
        match number {
            2 => Some(Self::Ip),
            10 => Some(Self::Ip6),
            _ => None,
        }
    }
}

/// Which table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableId {
    /// Its family.
    pub family: Family,
    /// Its name.
    pub name: Name,
}

impl TableId {
    /// The table of this family and name.
    #[must_use]
    pub fn new(family: Family, name: impl Into<Name>) -> Self {
        Self {
            family,
            name: name.into(),
        }
    }
}

impl std::fmt::Display for TableId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}", self.family.name(), self.name)
    }
}

/// Where in a packet's way a base chain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hook {
    /// Before routing.
    Prerouting,
    /// To this machine, after routing.
    Input,
    /// Through this machine, after routing.
    Forward,
    /// From this machine.
    Output,
    /// Before it leaves.
    Postrouting,
}

impl Hook {
    /// nft's word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Prerouting => "prerouting",
            Self::Input => "input",
            Self::Forward => "forward",
            Self::Output => "output",
            Self::Postrouting => "postrouting",
        }
    }

    /// The number of netfilter (NF_INET_*).
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Prerouting => 0,
            Self::Input => 1,
            Self::Forward => 2,
            Self::Output => 3,
            Self::Postrouting => 4,
        }
    }

    pub(crate) const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::Prerouting),
            1 => Some(Self::Input),
            2 => Some(Self::Forward),
            3 => Some(Self::Output),
            4 => Some(Self::Postrouting),
            _ => None,
        }
    }
}

/// What a base chain is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChainType {
    /// Accept, drop, reject, mark; every packet.
    Filter,
    /// Translation; the first packet of a connection only.
    Nat,
}

impl ChainType {
    /// nft's word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Filter => "filter",
            Self::Nat => "nat",
        }
    }
}

/// The hook of a base chain. Its policy is accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// What it is for.
    pub kind: ChainType,
    /// Where it stands.
    pub hook: Hook,
    /// Lower goes first: raw -300, mangle -150, dstnat -100, filter 0, srcnat 100.
    pub priority: i32,
}

/// A chain of rules.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Chain {
    /// The hook, of a base chain.
    pub base: Option<Base>,
    /// A comment that is listed with the chain.
    pub comment: Option<String>,
    /// The rules in their order.
    pub rules: Vec<Rule>,
    /// Read from the kernel: declared with something that this language lacks,
    /// such as another type, hook or policy. It is never written.
    pub alien: bool,
}

impl Chain {
    /// A chain that other chains go to.
    #[must_use]
    pub fn regular(rules: impl Into<Vec<Rule>>) -> Self {
        Self {
            rules: rules.into(),
            ..Self::default()
        }
    }

    /// A chain at a hook.
    #[must_use]
    pub fn base(kind: ChainType, hook: Hook, priority: i32, rules: impl Into<Vec<Rule>>) -> Self {
        Self {
            base: Some(Base {
                kind,
                hook,
                priority,
            }),
            rules: rules.into(),
            ..Self::default()
        }
    }

    /// The same with a comment.
    #[must_use]
    pub fn comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }

    /// Whether both are declared alike, whatever their rules.
    #[must_use]
    pub fn same_declaration(&self, other: &Self) -> bool {
        self.base == other.base && self.comment == other.comment && self.alien == other.alien
    }
}

/// A table.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Table {
    /// A comment that is listed with the table.
    pub comment: Option<String>,
    /// Sets, maps and verdict maps.
    pub sets: BTreeMap<Name, Set>,
    /// Chains.
    pub chains: BTreeMap<Name, Chain>,
    /// Read from the kernel: it holds something that this language lacks, such as
    /// objects or flowtables. It is never written.
    pub alien: bool,
}

/// Tables of every family.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Ruleset {
    /// The tables.
    pub tables: BTreeMap<TableId, Table>,
}

impl Ruleset {
    /// No table.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With this table.
    #[must_use]
    pub fn with(mut self, id: TableId, table: Table) -> Self {
        self.tables.insert(id, table);
        self
    }
}
