//! Expressions: what the kernel's rules consist of.
//!
//! A register is named by its 4-byte slot, 0 to 15. On the wire a slot whose
//! number is a multiple of four is called by the name of the 16-byte register
//! that begins there, as nft does.

use super::attr::{Attrs, Writer};
use super::consts as c;
use super::set::{read_verdict, write_verdict};
use crate::{Counts, DynOp, MatchOp, Name, Verdict};

/// An expression of nf_tables, as far as we use them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Expr {
    Payload {
        dreg: u32,
        base: u32,
        offset: u32,
        len: u32,
    },
    Meta {
        dreg: u32,
        key: u32,
    },
    MetaSet {
        sreg: u32,
        key: u32,
    },
    CtSet {
        sreg: u32,
        key: u32,
    },
    Ct {
        dreg: u32,
        key: u32,
        /// Of the connection's first direction; else of the packet itself.
        original: bool,
    },
    Fib {
        dreg: u32,
        result: u32,
        flags: u32,
    },
    Numgen {
        dreg: u32,
        modulus: u32,
        kind: u32,
        offset: u32,
    },
    /// Jenkins' hash of so many bytes.
    Hash {
        sreg: u32,
        dreg: u32,
        len: u32,
        modulus: u32,
        seed: u32,
    },
    Cmp {
        sreg: u32,
        op: MatchOp,
        data: Vec<u8>,
    },
    Bitwise {
        sreg: u32,
        dreg: u32,
        mask: Vec<u8>,
        xor: Vec<u8>,
    },
    Lookup {
        set: Name,
        sreg: u32,
        to: LookupTo,
        inverted: bool,
    },
    Immediate {
        dreg: u32,
        data: Vec<u8>,
    },
    Verdict(Verdict),
    Dnat {
        family: u32,
        addr: u32,
        proto: Option<u32>,
        specified: bool,
    },
    /// To this address.
    Snat {
        family: u32,
        addr: u32,
    },
    Masq {
        flags: u32,
    },
    Reject {
        kind: u32,
        code: u8,
    },
    Notrack,
    Counter(Counts),
    /// So many packets per second.
    Limit {
        rate: u64,
        burst: u32,
    },
    /// To nfnetlink_log.
    Log {
        group: u16,
    },
    Dynset {
        op: DynOp,
        set: Name,
        key: u32,
        data: Option<u32>,
        timeout_ms: Option<u64>,
    },
    /// Anything else.
    Other(String),
}

/// Where a lookup puts what it finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LookupTo {
    Nowhere,
    Verdict,
    Slot(u32),
}

/// NF_NAT_RANGE_PROTO_SPECIFIED.
const RANGE_PROTO: u32 = 2;
/// NFTA_CT_DIRECTION.
const CT_DIRECTION: u16 = 3;
/// NFTA_CT_SREG.
const CT_SREG: u16 = 4;
/// IP_CT_DIR_ORIGINAL.
const ORIGINAL: u8 = 0;
/// NFTA_HASH_TYPE.
const HASH_TYPE: u16 = 7;
/// NFT_HASH_JENKINS.
const HASH_JENKINS: u32 = 0;
/// Seconds, the unit of a limit.
const SECOND: u64 = 1;
/// NFT_LIMIT_PKTS.
const LIMIT_PACKETS: u32 = 0;
/// NFTA_LOG_GROUP.
const LOG_GROUP: u16 = 1;
/// NFT_NAT_SNAT.
const NAT_SNAT: u32 = 0;
/// NFT_NAT_DNAT.
const NAT_DNAT: u32 = 1;

fn reg(slot: u32) -> u32 {
    if slot.is_multiple_of(4) {
        c::REG_1 + slot / 4
    } else {
        c::REG32_00 + slot
    }
}

fn slot(reg: u32) -> Option<u32> {
    match reg {
        1..=4 => Some((reg - c::REG_1) * 4),
        8..=23 => Some(reg - c::REG32_00),
        _ => None,
    }
}

fn op_number(op: MatchOp) -> u32 {
    match op {
        MatchOp::Eq => 0,
        MatchOp::Ne => 1,
    }
}

impl Expr {
    fn name(&self) -> &str {
        match self {
            Self::Payload { .. } => "payload",
            Self::Meta { .. } | Self::MetaSet { .. } => "meta",
            Self::Ct { .. } | Self::CtSet { .. } => "ct",
            Self::Fib { .. } => "fib",
            Self::Numgen { .. } => "numgen",
            Self::Hash { .. } => "hash",
            Self::Cmp { .. } => "cmp",
            Self::Bitwise { .. } => "bitwise",
            Self::Lookup { .. } => "lookup",
            Self::Immediate { .. } | Self::Verdict(_) => "immediate",
            Self::Dnat { .. } | Self::Snat { .. } => "nat",
            Self::Masq { .. } => "masq",
            Self::Reject { .. } => "reject",
            Self::Notrack => "notrack",
            Self::Counter(_) => "counter",
            Self::Limit { .. } => "limit",
            Self::Log { .. } => "log",
            Self::Dynset { .. } => "dynset",
            Self::Other(name) => name,
        }
    }

    /// Write the expression as an element of a rule's list.
    pub(super) fn write(&self, out: &mut Writer) {
        let element = out.nest(c::LIST_ELEM);
        out.string(c::EXPR_NAME, self.name());
        let data = out.nest(c::EXPR_DATA);
        self.write_load(out);
        self.write_use(out);
        out.close(data);
        out.close(element);
    }

    /// The attributes of expressions that fill a register.
    fn write_load(&self, out: &mut Writer) {
        if let Self::Payload {
            dreg,
            base,
            offset,
            len,
        } = self
        {
            out.be32(1, reg(*dreg));
            out.be32(2, *base);
            out.be32(3, *offset);
            out.be32(4, *len);
        } else if let Self::Meta { dreg, key } = self {
            out.be32(2, *key);
            out.be32(1, reg(*dreg));
        } else if let Self::Ct {
            dreg,
            key,
            original,
        } = self
        {
            out.be32(2, *key);
            out.be32(1, reg(*dreg));
            if *original {
                out.attr(CT_DIRECTION, &[ORIGINAL]);
            }
        } else if let Self::Fib {
            dreg,
            result,
            flags,
        } = self
        {
            out.be32(3, *flags);
            out.be32(2, *result);
            out.be32(1, reg(*dreg));
        } else if let Self::Bitwise {
            sreg,
            dreg,
            mask,
            xor,
        } = self
        {
            out.be32(1, reg(*sreg));
            out.be32(2, reg(*dreg));
            out.be32(3, mask.len() as u32);
            value(out, 4, mask);
            value(out, 5, xor);
        } else if let Self::Immediate { dreg, data } = self {
            out.be32(1, reg(*dreg));
            value(out, 2, data);
        } else {
            self.write_number(out);
        }
    }

    /// The attributes of expressions that make a number.
    fn write_number(&self, out: &mut Writer) {
        if let Self::Numgen {
            dreg,
            modulus,
            kind,
            offset,
        } = self
        {
            out.be32(1, reg(*dreg));
            out.be32(2, *modulus);
            out.be32(3, *kind);
            out.be32(4, *offset);
        } else if let Self::Hash {
            sreg,
            dreg,
            len,
            modulus,
            seed,
        } = self
        {
            out.be32(1, reg(*sreg));
            out.be32(2, reg(*dreg));
            out.be32(3, *len);
            out.be32(4, *modulus);
            out.be32(5, *seed);
            out.be32(6, 0);
            out.be32(HASH_TYPE, HASH_JENKINS);
        }
    }

    /// The attributes of expressions that use registers or none.
    fn write_use(&self, out: &mut Writer) {
        if let Self::MetaSet { sreg, key } = self {
            out.be32(2, *key);
            out.be32(3, reg(*sreg));
        } else if let Self::CtSet { sreg, key } = self {
            out.be32(2, *key);
            out.be32(CT_SREG, reg(*sreg));
        } else if let Self::Cmp { sreg, op, data } = self {
            out.be32(1, reg(*sreg));
            out.be32(2, op_number(*op));
            value(out, 3, data);
        } else if let Self::Lookup {
            set,
            sreg,
            to,
            inverted,
        } = self
        {
            out.be32(2, reg(*sreg));
            match to {
                LookupTo::Nowhere => {}
                LookupTo::Verdict => out.be32(3, c::REG_VERDICT),
                LookupTo::Slot(slot) => out.be32(3, reg(*slot)),
            }
            out.string(1, set);
            out.be32(5, u32::from(*inverted));
        } else if let Self::Verdict(verdict) = self {
            out.be32(1, c::REG_VERDICT);
            let data = out.nest(2);
            write_verdict(out, verdict);
            out.close(data);
        } else {
            self.write_action(out);
        }
    }

    fn write_action(&self, out: &mut Writer) {
        if let Self::Dnat {
            family,
            addr,
            proto,
            specified,
        } = self
        {
            out.be32(1, NAT_DNAT);
            out.be32(2, *family);
            out.be32(3, reg(*addr));
            if let Some(proto) = proto {
                out.be32(5, reg(*proto));
            }
            if *specified {
                out.be32(7, RANGE_PROTO);
            }
        } else if let Self::Snat { family, addr } = self {
            out.be32(1, NAT_SNAT);
            out.be32(2, *family);
            out.be32(3, reg(*addr));
        } else if let Self::Masq { flags } = self {
            if *flags != 0 {
                out.be32(1, *flags);
            }
        } else if let Self::Reject { kind, code } = self {
            out.be32(1, *kind);
            out.attr(2, &[*code]);
        } else if let Self::Counter(counts) = self {
            out.be64(1, counts.bytes);
            out.be64(2, counts.packets);
        } else if let Self::Limit { rate, burst } = self {
            out.be64(1, *rate);
            out.be64(2, SECOND);
            out.be32(3, *burst);
            out.be32(4, LIMIT_PACKETS);
            out.be32(5, 0);
        } else if let Self::Log { group } = self {
            out.attr(LOG_GROUP, &group.to_be_bytes());
        } else if let Self::Dynset {
            op,
            set,
            key,
            data,
            timeout_ms,
        } = self
        {
            out.be32(4, reg(*key));
            out.be32(3, dyn_number(*op));
            out.string(1, set);
            if let Some(data) = data {
                out.be32(5, reg(*data));
            }
            if let Some(timeout) = timeout_ms {
                out.be64(6, *timeout);
            }
        }
    }

    /// Read an expression from an element of a rule's list.
    pub(super) fn read(element: &Attrs<'_>) -> Self {
        let name = element.string(c::EXPR_NAME).unwrap_or("");
        let data = element.inside(c::EXPR_DATA).unwrap_or(Attrs::new(&[]));
        read_load(name, &data)
            .or_else(|| read_use(name, &data))
            .or_else(|| read_action(name, &data))
            .unwrap_or_else(|| Self::Other(name.to_owned()))
    }
}

fn value(out: &mut Writer, kind: u16, bytes: &[u8]) {
    let nest = out.nest(kind);
    out.attr(c::DATA_VALUE, bytes);
    out.close(nest);
}

fn dyn_number(op: DynOp) -> u32 {
    match op {
        DynOp::Add => 0,
        DynOp::Update => 1,
        DynOp::Delete => 2,
    }
}

fn bytes(data: &Attrs<'_>, kind: u16) -> Option<Vec<u8>> {
    data.inside(kind)?.get(c::DATA_VALUE).map(<[u8]>::to_vec)
}

fn read_load(name: &str, data: &Attrs<'_>) -> Option<Expr> {
    let register = |kind| data.be32(kind).and_then(slot);
    match name {
        "payload" => Some(Expr::Payload {
            dreg: register(1)?,
            base: data.be32(2)?,
            offset: data.be32(3)?,
            len: data.be32(4)?,
        }),
        "meta" => Some(Expr::Meta {
            dreg: register(1)?,
            key: data.be32(2)?,
        }),
        "ct" => Some(Expr::Ct {
            dreg: register(1)?,
            key: data.be32(2)?,
            original: match data.get(CT_DIRECTION) {
                None => false,
                Some(&[ORIGINAL]) => true,
                // The other direction is somebody else's expression.
                Some(_) => return None,
            },
        }),
        "fib" => Some(Expr::Fib {
            dreg: register(1)?,
            result: data.be32(2)?,
            flags: data.be32(3)?,
        }),
        "numgen" => Some(Expr::Numgen {
            dreg: register(1)?,
            modulus: data.be32(2)?,
            kind: data.be32(3)?,
            offset: data.be32(4).unwrap_or(0),
        }),
        "hash" if read_hash_kind(data) => Some(Expr::Hash {
            sreg: register(1)?,
            dreg: register(2)?,
            len: data.be32(3)?,
            modulus: data.be32(4)?,
            // Without one the kernel made one up: that is nobody's rule of ours.
            seed: data.be32(5)?,
        }),
        "bitwise" if data.be32(6).unwrap_or(0) == 0 => Some(Expr::Bitwise {
            sreg: register(1)?,
            dreg: register(2)?,
            mask: bytes(data, 4)?,
            xor: bytes(data, 5)?,
        }),
        "immediate" => Some(Expr::Immediate {
            dreg: register(1)?,
            data: bytes(data, 2)?,
        }),
        _ => None,
    }
}

/// Whether a hash is Jenkins' and counts from 0.
fn read_hash_kind(data: &Attrs<'_>) -> bool {
    data.be32(HASH_TYPE).unwrap_or(HASH_JENKINS) == HASH_JENKINS && data.be32(6).unwrap_or(0) == 0
}

fn read_use(name: &str, data: &Attrs<'_>) -> Option<Expr> {
    let register = |kind| data.be32(kind).and_then(slot);
    match name {
        "meta" => Some(Expr::MetaSet {
            sreg: register(3)?,
            key: data.be32(2)?,
        }),
        "ct" => Some(Expr::CtSet {
            sreg: register(CT_SREG)?,
            key: data.be32(2)?,
        }),
        "cmp" => {
            let op = match data.be32(2)? {
                0 => MatchOp::Eq,
                1 => MatchOp::Ne,
                _ => return None,
            };
            Some(Expr::Cmp {
                sreg: register(1)?,
                op,
                data: bytes(data, 3)?,
            })
        }
        "lookup" => {
            let to = match data.be32(3) {
                None => LookupTo::Nowhere,
                Some(c::REG_VERDICT) => LookupTo::Verdict,
                Some(register) => LookupTo::Slot(slot(register)?),
            };
            Some(Expr::Lookup {
                set: data.string(1)?.into(),
                sreg: register(2)?,
                to,
                inverted: data.be32(5).unwrap_or(0) & 1 != 0,
            })
        }
        "immediate" if data.be32(1) == Some(c::REG_VERDICT) => {
            read_verdict(&data.inside(2)?).map(Expr::Verdict)
        }
        _ => None,
    }
}

fn read_action(name: &str, data: &Attrs<'_>) -> Option<Expr> {
    let register = |kind| data.be32(kind).and_then(slot);
    match name {
        "nat" if data.be32(1) == Some(NAT_DNAT) => {
            let proto = register(5);
            let specified = data.be32(7).unwrap_or(0) & RANGE_PROTO != 0;
            Some(Expr::Dnat {
                family: data.be32(2)?,
                addr: register(3)?,
                proto,
                specified,
            })
        }
        // What is done to ports is somebody else's.
        "nat" if data.be32(1) == Some(NAT_SNAT) && data.be32(5).is_none() => Some(Expr::Snat {
            family: data.be32(2)?,
            addr: register(3)?,
        }),
        "masq" => Some(Expr::Masq {
            flags: data.be32(1).unwrap_or(0),
        }),
        "reject" => {
            let code = data
                .get(2)
                .and_then(|code| code.first().copied())
                .unwrap_or(0);
            Some(Expr::Reject {
                kind: data.be32(1)?,
                code,
            })
        }
        "notrack" => Some(Expr::Notrack),
        "limit"
            if data.be64(2) == Some(SECOND)
                && data.be32(4).unwrap_or(LIMIT_PACKETS) == LIMIT_PACKETS
                && data.be32(5).unwrap_or(0) == 0 =>
        {
            Some(Expr::Limit {
                rate: data.be64(1)?,
                burst: data.be32(3)?,
            })
        }
        // What is logged with a prefix, a length or a level is somebody else's.
        "log" if data.clone().all(|(kind, _)| kind == LOG_GROUP) => Some(Expr::Log {
            group: data.be16(LOG_GROUP)?,
        }),
        "counter" => Some(Expr::Counter(Counts {
            packets: data.be64(2).unwrap_or(0),
            bytes: data.be64(1).unwrap_or(0),
        })),
        "dynset" => Some(Expr::Dynset {
            op: match data.be32(3)? {
                0 => DynOp::Add,
                1 => DynOp::Update,
                2 => DynOp::Delete,
                _ => return None,
            },
            set: data.string(1)?.into(),
            key: register(4)?,
            data: register(5),
            timeout_ms: data.be64(6).filter(|timeout| *timeout > 0),
        }),
        _ => None,
    }
}
