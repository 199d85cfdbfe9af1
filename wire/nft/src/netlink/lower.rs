//! From statements to expressions over registers.

use super::expr::{Expr, LookupTo};
use crate::value::IFNAMSIZ;
use crate::{
    Compare, DnatTo, Family, Field, MatchOp, RejectKind, Statement, Tuple, Value, Verdict,
};

/// NFT_META_MARK.
pub(super) const META_MARK: u32 = 3;
/// NFT_META_IIFTYPE.
pub(super) const META_IIFTYPE: u32 = 8;
/// ARPHRD_ETHER, as the kernel keeps it.
pub(super) const ETHERNET: [u8; 2] = 1_u16.to_ne_bytes();
/// NFT_CT_MARK.
pub(super) const CT_MARK: u32 = 3;
/// NF_NAT_RANGE_PROTO_RANDOM_FULLY.
pub(super) const FULLY_RANDOM: u32 = 0x10;
/// NFT_REJECT_ICMP_UNREACH.
pub(super) const REJECT_ICMP: u32 = 0;
/// NFT_REJECT_TCP_RST.
pub(super) const REJECT_TCP_RST: u32 = 1;

/// NFT_CT_PROTO_DST.
const CT_PROTO_DST: u32 = 12;
/// NFT_CT_DST_IP.
const CT_DST_IP: u32 = 20;
/// NFT_CT_DST_IP6.
const CT_DST_IP6: u32 = 22;

/// The kernel has this many registers of 4 bytes.
const SLOTS: usize = 16;

/// The expressions that put a field into a register.
fn load_into(out: &mut Vec<Expr>, family: Family, field: Field, dreg: u32) {
    if matches!(field, Field::Jhash(_)) {
        out.push(load(family, Field::Saddr, dreg));
    }
    out.push(load(family, field, dreg));
}

/// Before the link's header is read, nft asks whether the link is an Ethernet, and so
/// knows how to list it.
fn of_ethernet(out: &mut Vec<Expr>, field: Field) {
    if field == Field::EtherSaddr {
        out.push(Expr::Meta {
            dreg: 0,
            key: META_IIFTYPE,
        });
        out.push(Expr::Cmp {
            sreg: 0,
            op: MatchOp::Eq,
            data: ETHERNET.to_vec(),
        });
    }
}

/// The expression that puts a field into a register; a hash has its source there
/// already.
pub(super) fn load(family: Family, field: Field, dreg: u32) -> Expr {
    const LINK: u32 = 0;
    const NETWORK: u32 = 1;
    const TRANSPORT: u32 = 2;
    let network = |ip, ip6| {
        let offset = match family {
            Family::Ip => ip,
            Family::Ip6 => ip6,
        };
        Expr::Payload {
            dreg,
            base: NETWORK,
            offset,
            len: field.bits(family) / 8,
        }
    };
    match field {
        Field::Saddr => network(12, 8),
        Field::Daddr => network(16, 24),
        Field::Sport => Expr::Payload {
            dreg,
            base: TRANSPORT,
            offset: 0,
            len: 2,
        },
        Field::Dport => Expr::Payload {
            dreg,
            base: TRANSPORT,
            offset: 2,
            len: 2,
        },
        Field::EtherSaddr => Expr::Payload {
            dreg,
            base: LINK,
            offset: 6,
            len: 6,
        },
        Field::Mark => Expr::Meta {
            dreg,
            key: META_MARK,
        },
        Field::IifName => Expr::Meta { dreg, key: 6 },
        Field::OifName => Expr::Meta { dreg, key: 7 },
        Field::L4Proto => Expr::Meta { dreg, key: 16 },
        Field::CtState => ct(dreg, 0),
        Field::CtStatus => ct(dreg, 2),
        Field::CtMark => ct(dreg, CT_MARK),
        Field::OrigDaddr => match family {
            Family::Ip => original(dreg, CT_DST_IP),
            Family::Ip6 => original(dreg, CT_DST_IP6),
        },
        Field::OrigDport => original(dreg, CT_PROTO_DST),
        Field::FibDaddrType => Expr::Fib {
            dreg,
            result: 3,
            flags: 2,
        },
        Field::Numgen(numgen) => Expr::Numgen {
            dreg,
            modulus: numgen.modulus,
            kind: u32::from(numgen.random),
            offset: 0,
        },
        Field::Jhash(jhash) => Expr::Hash {
            sreg: dreg,
            dreg,
            len: Field::Saddr.bits(family) / 8,
            modulus: jhash.modulus,
            seed: jhash.seed,
        },
    }
}

/// What conntrack says of the packet itself.
fn ct(dreg: u32, key: u32) -> Expr {
    Expr::Ct {
        dreg,
        key,
        original: false,
    }
}

/// What conntrack says of the connection's first direction.
fn original(dreg: u32, key: u32) -> Expr {
    Expr::Ct {
        dreg,
        key,
        original: true,
    }
}

/// Load fields one after another; the slot behind the last.
fn load_all(out: &mut Vec<Expr>, family: Family, fields: &[Field], first: u32) -> u32 {
    let mut slot = first;
    for field in fields {
        load_into(out, family, *field, slot);
        slot += field.width(family) as u32 / 4;
    }
    slot
}

/// Where data goes behind a key that ends at this slot: as nft does, to the next
/// register of 16 bytes, if it fits there.
fn data_slot(family: Family, end: u32, data: &[Field]) -> u32 {
    let slots: usize = data.iter().map(|field| field.width(family) / 4).sum();
    let aligned = end.next_multiple_of(4);
    if aligned as usize + slots <= SLOTS {
        aligned
    } else {
        end
    }
}

/// A value as it is compared.
fn constant(value: &Value) -> Vec<u8> {
    Tuple::new(std::slice::from_ref(value)).bytes().to_vec()
}

/// The mask of a prefix.
fn prefix_mask(len: usize, prefix: u8) -> Vec<u8> {
    (0..len)
        .map(|place| {
            let bits = usize::from(prefix).saturating_sub(place * 8).min(8);
            (0xff00_u32 >> bits).to_le_bytes()[0]
        })
        .collect()
}

fn lower_match(out: &mut Vec<Expr>, family: Family, field: Field, op: MatchOp, right: &Compare) {
    of_ethernet(out, field);
    let masked = |out: &mut Vec<Expr>, mask: Vec<u8>, op, data| {
        out.push(load(family, field, 0));
        let xor = vec![0; mask.len()];
        out.push(Expr::Bitwise {
            sreg: 0,
            dreg: 0,
            mask,
            xor,
        });
        out.push(Expr::Cmp { sreg: 0, op, data });
    };
    match right {
        Compare::Value(value) => {
            out.push(load(family, field, 0));
            out.push(Expr::Cmp {
                sreg: 0,
                op,
                data: constant(value),
            });
        }
        Compare::Prefix(value, prefix) => {
            let mut data = constant(value);
            let whole = usize::from(*prefix / 8);
            // nft reads just the bytes of a prefix that ends with one.
            if prefix.is_multiple_of(8) && *prefix > 0 && whole < data.len() {
                let mut bytes = load(family, field, 0);
                if let Expr::Payload { len, .. } = &mut bytes {
                    *len = u32::from(*prefix / 8);
                    data.truncate(whole);
                }
                out.push(bytes);
                out.push(Expr::Cmp { sreg: 0, op, data });
            } else {
                masked(out, prefix_mask(data.len(), *prefix), op, data);
            }
        }
        // Just the first bytes, without the terminator.
        Compare::NamePrefix(prefix) => {
            let data = prefix.bytes().take(IFNAMSIZ - 1).collect();
            out.push(load(family, field, 0));
            out.push(Expr::Cmp { sreg: 0, op, data });
        }
        Compare::Masked { mask, value } => {
            masked(
                out,
                mask.to_ne_bytes().to_vec(),
                op,
                value.to_ne_bytes().to_vec(),
            );
        }
        Compare::Any(bits) => {
            let op = match op {
                MatchOp::Eq => MatchOp::Ne,
                MatchOp::Ne => MatchOp::Eq,
            };
            masked(out, bits.to_ne_bytes().to_vec(), op, vec![0; 4]);
        }
    }
}

fn lower_dnat(out: &mut Vec<Expr>, family: Family, to: &DnatTo) {
    let behind_addr = Field::Daddr.width(family) as u32 / 4;
    let number = u32::from(family.number());
    match to {
        DnatTo::Value(addr, port) => {
            out.push(Expr::Immediate {
                dreg: 0,
                data: constant(addr),
            });
            if let Some(port) = port {
                let data = port.to_be_bytes().to_vec();
                out.push(Expr::Immediate {
                    dreg: behind_addr,
                    data,
                });
            }
            let proto = port.map(|_| behind_addr);
            let specified = port.is_some();
            out.push(Expr::Dnat {
                family: number,
                addr: 0,
                proto,
                specified,
            });
        }
        DnatTo::Map { key, map, port } => {
            load_all(out, family, key, 0);
            let to = LookupTo::Slot(0);
            out.push(Expr::Lookup {
                set: map.clone(),
                sreg: 0,
                to,
                inverted: false,
            });
            let proto = port.then_some(behind_addr);
            out.push(Expr::Dnat {
                family: number,
                addr: 0,
                proto,
                specified: false,
            });
        }
    }
}

fn lower_set_mark(out: &mut Vec<Expr>, mask: u32, xor: u32) {
    out.push(Expr::Meta {
        dreg: 0,
        key: META_MARK,
    });
    out.push(Expr::Bitwise {
        sreg: 0,
        dreg: 0,
        mask: mask.to_ne_bytes().to_vec(),
        xor: xor.to_ne_bytes().to_vec(),
    });
    out.push(Expr::MetaSet {
        sreg: 0,
        key: META_MARK,
    });
}

fn lower_set_ct_mark(out: &mut Vec<Expr>, mask: u32, xor: u32) {
    out.push(ct(0, CT_MARK));
    out.push(Expr::Bitwise {
        sreg: 0,
        dreg: 0,
        mask: mask.to_ne_bytes().to_vec(),
        xor: xor.to_ne_bytes().to_vec(),
    });
    out.push(Expr::CtSet {
        sreg: 0,
        key: CT_MARK,
    });
}

/// The code of ICMP or ICMPv6 unreachable.
pub(super) fn reject_code(family: Family, kind: RejectKind) -> Option<u8> {
    match (kind, family) {
        (RejectKind::PortUnreachable, Family::Ip) => Some(3),
        (RejectKind::PortUnreachable, Family::Ip6) => Some(4),
        (RejectKind::AdminProhibited, Family::Ip) => Some(13),
        (RejectKind::AdminProhibited, Family::Ip6) => Some(1),
        (RejectKind::TcpReset, _) => None,
    }
}

fn lower_keep_source(out: &mut Vec<Expr>, family: Family) {
    out.push(load(family, Field::Saddr, 0));
    out.push(Expr::Snat {
        family: u32::from(family.number()),
        addr: 0,
    });
}

fn rejection(family: Family, kind: RejectKind) -> Expr {
    match reject_code(family, kind) {
        Some(code) => Expr::Reject {
            kind: REJECT_ICMP,
            code,
        },
        None => Expr::Reject {
            kind: REJECT_TCP_RST,
            code: 0,
        },
    }
}

/// Append the expressions of a statement.
pub(super) fn lower(out: &mut Vec<Expr>, family: Family, statement: &Statement) {
    match statement {
        Statement::Match(field, op, right) => lower_match(out, family, *field, *op, right),
        Statement::Lookup { key, op, set } => {
            load_all(out, family, key, 0);
            let inverted = *op == MatchOp::Ne;
            out.push(Expr::Lookup {
                set: set.clone(),
                sreg: 0,
                to: LookupTo::Nowhere,
                inverted,
            });
        }
        Statement::Vmap { key, map } => {
            load_all(out, family, key, 0);
            let to = LookupTo::Verdict;
            out.push(Expr::Lookup {
                set: map.clone(),
                sreg: 0,
                to,
                inverted: false,
            });
        }
        Statement::Counter(counts) => out.push(Expr::Counter(*counts)),
        Statement::SetMark { and, or } => lower_set_mark(out, and & !or, *or),
        Statement::SetCtMark { and, or } => lower_set_ct_mark(out, and & !or, *or),
        Statement::KeepSource => lower_keep_source(out, family),
        Statement::Dnat(to) => lower_dnat(out, family, to),
        Statement::Masquerade { fully_random } => {
            out.push(Expr::Masq {
                flags: if *fully_random { FULLY_RANDOM } else { 0 },
            });
        }
        Statement::Reject(kind) => out.push(rejection(family, *kind)),
        Statement::Notrack => out.push(Expr::Notrack),
        Statement::Limit { rate, burst } => out.push(Expr::Limit {
            rate: u64::from(*rate),
            burst: *burst,
        }),
        Statement::Log { group } => out.push(Expr::Log { group: *group }),
        Statement::Dynset {
            op,
            set,
            key,
            data,
            timeout_ms,
        } => {
            let behind = load_all(out, family, key, 0);
            let behind = data_slot(family, behind, data.as_deref().unwrap_or_default());
            if let Some(data) = data {
                load_all(out, family, data, behind);
            }
            out.push(Expr::Dynset {
                op: *op,
                set: set.clone(),
                key: 0,
                data: data.as_ref().map(|_| behind),
                timeout_ms: *timeout_ms,
            });
        }
        Statement::Verdict(verdict) => out.push(Expr::Verdict(verdict.clone())),
        // Only read, never desired.
        Statement::Foreign(_) => out.push(Expr::Verdict(Verdict::Continue)),
    }
}
