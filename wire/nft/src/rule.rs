//! Rules: statements as nft's syntax has them.

use ipnet::IpNet;

use crate::{Field, Name, Value};

/// Where a packet goes next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Leave this base chain; later base chains still see the packet.
    Accept,
    /// Away with it.
    Drop,
    /// Go on with the next rule.
    Continue,
    /// Back to the calling chain.
    Return,
    /// Into a chain, and back here at its end.
    Jump(Name),
    /// Into a chain, and at its end to where this chain would have returned.
    Goto(Name),
}

impl Verdict {
    /// The chain it names.
    #[must_use]
    pub fn chain(&self) -> Option<&Name> {
        match self {
            Self::Jump(chain) | Self::Goto(chain) => Some(chain),
            Self::Accept | Self::Drop | Self::Continue | Self::Return => None,
        }
    }
}

/// Equal or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MatchOp {
    /// `==`, unwritten where nft leaves it out.
    Eq,
    /// `!=`.
    Ne,
}

/// The right side of a comparison.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Compare {
    /// The whole field.
    Value(Value),
    /// An address range `addr/len`; the address has no bits behind the prefix.
    Prefix(Value, u8),
    /// `iifname "veth*"`: names of links that begin so (at most 15 bytes).
    NamePrefix(String),
    /// `field & mask == value`, for marks.
    Masked {
        /// The bits looked at.
        mask: u32,
        /// What they must be.
        value: u32,
    },
    /// Any of these bits, for `ct state` and `ct status`: `ct state established,related`.
    Any(u32),
}

impl Compare {
    /// A range of addresses; of one address only, that address.
    #[must_use]
    pub fn net(net: IpNet) -> Self {
        let value = Value::from(net.network());
        if net.prefix_len() == net.max_prefix_len() {
            Self::Value(value)
        } else {
            Self::Prefix(value, net.prefix_len())
        }
    }
}

/// What `reject` answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RejectKind {
    /// ICMP or ICMPv6 port unreachable, as the table's family has it.
    PortUnreachable,
    /// ICMP or ICMPv6 administratively prohibited.
    AdminProhibited,
    /// A TCP reset. The rule must have matched TCP before.
    TcpReset,
}

/// Where `dnat` leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum DnatTo {
    /// This address, and port if given. With a port the rule must have matched a
    /// transport protocol before.
    Value(Value, Option<u16>),
    /// What the map says: `dnat ip to … map @endpoints`. For a map of addresses and
    /// ports nft loads the rule again only if it looks at the transport protocol:
    /// by `th dport` in the key, or by a match before.
    Map {
        /// The fields behind which the map is keyed.
        key: Vec<Field>,
        /// The map.
        map: Name,
        /// The map's data is an address and a port, not an address alone.
        port: bool,
    },
}

/// How a rule changes a dynamic set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DynOp {
    /// Add if absent; leaves the timeout of what is there.
    Add,
    /// Add, or start the timeout again.
    Update,
    /// Remove.
    Delete,
}

/// What a counter counted. All counts are equal: they are not a part of the rule.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

impl PartialEq for Counts {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Counts {}

/// One statement of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// `ip saddr 10.0.0.0/8`, `meta mark & 0x4000 != 0`, `ct state invalid`.
    Match(Field, MatchOp, Compare),
    /// `ip saddr . ip daddr @pairs`.
    Lookup {
        /// What is looked up.
        key: Vec<Field>,
        /// `Ne`: go on if it is not there.
        op: MatchOp,
        /// The set.
        set: Name,
    },
    /// `ip daddr . meta l4proto . th dport vmap @services`.
    Vmap {
        /// What is looked up.
        key: Vec<Field>,
        /// The verdict map.
        map: Name,
    },
    /// `counter`.
    Counter(Counts),
    /// `meta mark set meta mark & and | or`: only the bits of a mask change. A bit
    /// is in `and` or in `or`, never in both.
    SetMark {
        /// The bits that stay.
        and: u32,
        /// The bits that are set.
        or: u32,
    },
    /// `ct mark set ct mark & and | or`: the same of a connection's mark.
    SetCtMark {
        /// The bits that stay.
        and: u32,
        /// The bits that are set.
        or: u32,
    },
    /// `snat to ip saddr`: the source stays what it is, whatever other tables say of it
    /// after us.
    KeepSource,
    /// `dnat to …`.
    Dnat(DnatTo),
    /// `masquerade`.
    Masquerade {
        /// Ports are chosen at random.
        fully_random: bool,
    },
    /// `reject`.
    Reject(RejectKind),
    /// `notrack`.
    Notrack,
    /// `limit rate 100/second burst 200 packets`: the rest of the rule is for so many
    /// packets only.
    Limit {
        /// Packets per second.
        rate: u32,
        /// How many there may be at once.
        burst: u32,
    },
    /// `log group 7`: tells who listens at this group of nfnetlink_log.
    Log {
        /// The group.
        group: u16,
    },
    /// `update @affinity { … timeout 3h : … }`. Beware: nft 1.0.6 aborts when it
    /// loads a rule with an IPv6 address beside anything else in the data, or as the
    /// data of a key of two IPv6 addresses. It lists them.
    Dynset {
        /// How.
        op: DynOp,
        /// Which set.
        set: Name,
        /// The key.
        key: Vec<Field>,
        /// What the key leads to, in a map.
        data: Option<Vec<Field>>,
        /// A timeout of its own in milliseconds.
        timeout_ms: Option<u64>,
    },
    /// A verdict; the end of the rule.
    Verdict(Verdict),
    /// Something read from the kernel that this language lacks, so that a rule of
    /// somebody else in our table is seen, and replaced. It is never written.
    Foreign(String),
}

impl Statement {
    /// What it has counted, if it is a counter.
    #[must_use]
    pub fn counts(&self) -> Option<Counts> {
        if let Self::Counter(counts) = self {
            Some(*counts)
        } else {
            None
        }
    }

    /// The set or map this statement names.
    #[must_use]
    pub fn set(&self) -> Option<&Name> {
        match self {
            Self::Lookup { set, .. }
            | Self::Vmap { map: set, .. }
            | Self::Dynset { set, .. }
            | Self::Dnat(DnatTo::Map { map: set, .. }) => Some(set),
            Self::Match(..)
            | Self::Counter(_)
            | Self::SetMark { .. }
            | Self::SetCtMark { .. }
            | Self::KeepSource
            | Self::Dnat(DnatTo::Value(..))
            | Self::Masquerade { .. }
            | Self::Reject(_)
            | Self::Notrack
            | Self::Limit { .. }
            | Self::Log { .. }
            | Self::Verdict(_)
            | Self::Foreign(_) => None,
        }
    }
}

/// A rule: statements from left to right, until one does not match.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Rule {
    /// The statements.
    pub statements: Vec<Statement>,
    /// A comment that is listed with the rule.
    pub comment: Option<String>,
}

impl Rule {
    /// An empty rule, to be filled by the methods below.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With this statement at the end.
    #[must_use]
    pub fn then(mut self, statement: Statement) -> Self {
        self.statements.push(statement);
        self
    }

    /// With `field value` at the end.
    #[must_use]
    pub fn eq(self, field: Field, value: impl Into<Value>) -> Self {
        self.then(Statement::Match(
            field,
            MatchOp::Eq,
            Compare::Value(value.into()),
        ))
    }

    /// With `field != value` at the end.
    #[must_use]
    pub fn ne(self, field: Field, value: impl Into<Value>) -> Self {
        self.then(Statement::Match(
            field,
            MatchOp::Ne,
            Compare::Value(value.into()),
        ))
    }

    /// With `field addr/len` at the end, or `!=`.
    #[must_use]
    pub fn net(self, field: Field, op: MatchOp, net: IpNet) -> Self {
        self.then(Statement::Match(field, op, Compare::net(net)))
    }

    /// With `meta mark & bits == bits` at the end.
    #[must_use]
    pub fn mark_has(self, bits: u32) -> Self {
        let right = Compare::Masked {
            mask: bits,
            value: bits,
        };
        self.then(Statement::Match(Field::Mark, MatchOp::Eq, right))
    }

    /// With `ct mark & bits == bits` at the end.
    #[must_use]
    pub fn ct_mark_has(self, bits: u32) -> Self {
        let right = Compare::Masked {
            mask: bits,
            value: bits,
        };
        self.then(Statement::Match(Field::CtMark, MatchOp::Eq, right))
    }

    /// With `meta mark set meta mark | bits` at the end.
    #[must_use]
    pub fn set_mark_bits(self, bits: u32) -> Self {
        self.then(Statement::SetMark {
            and: !bits,
            or: bits,
        })
    }

    /// With `mark & mask == value` at the end, of a packet's or a connection's mark.
    #[must_use]
    pub fn mark_is(self, mark: Field, mask: u32, value: u32) -> Self {
        let right = Compare::Masked { mask, value };
        self.then(Statement::Match(mark, MatchOp::Eq, right))
    }

    /// With `ct state …` at the end: any of these states.
    #[must_use]
    pub fn ct_state(self, states: crate::CtState) -> Self {
        self.then(Statement::Match(
            Field::CtState,
            MatchOp::Eq,
            Compare::Any(states.0),
        ))
    }

    /// With `key @set` at the end.
    #[must_use]
    pub fn lookup(self, key: impl Into<Vec<Field>>, set: impl Into<Name>) -> Self {
        self.then(Statement::Lookup {
            key: key.into(),
            op: MatchOp::Eq,
            set: set.into(),
        })
    }

    /// With `key != @set` at the end.
    #[must_use]
    pub fn not_in(self, key: impl Into<Vec<Field>>, set: impl Into<Name>) -> Self {
        self.then(Statement::Lookup {
            key: key.into(),
            op: MatchOp::Ne,
            set: set.into(),
        })
    }

    /// With `key vmap @map` at the end.
    #[must_use]
    pub fn vmap(self, key: impl Into<Vec<Field>>, map: impl Into<Name>) -> Self {
        self.then(Statement::Vmap {
            key: key.into(),
            map: map.into(),
        })
    }

    /// With `dnat ip to key map @map` at the end; the map gives address and port.
    #[must_use]
    pub fn dnat_map(self, key: impl Into<Vec<Field>>, map: impl Into<Name>) -> Self {
        self.then(Statement::Dnat(DnatTo::Map {
            key: key.into(),
            map: map.into(),
            port: true,
        }))
    }

    /// With a verdict at the end.
    #[must_use]
    pub fn verdict(self, verdict: Verdict) -> Self {
        self.then(Statement::Verdict(verdict))
    }

    /// With a comment.
    #[must_use]
    pub fn comment(mut self, comment: impl Into<String>) -> Self {
        self.comment = Some(comment.into());
        self
    }
}
