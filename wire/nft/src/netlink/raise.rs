//! From expressions over registers back to statements.

use super::expr::{Expr, LookupTo};
use super::lower::{
    CT_MARK, ETHERNET, FULLY_RANDOM, META_IIFTYPE, META_MARK, REJECT_ICMP, REJECT_TCP_RST, load,
    reject_code,
};
use super::set::kernel_len;
use crate::value::IFNAMSIZ;
use crate::{
    Compare, DnatTo, Family, Field, MatchOp, Name, Numgen, RejectKind, Statement, Tuple, Value,
};

/// What is in a register.
#[derive(Clone)]
enum Held {
    /// A field.
    Field(Field),
    /// The first bytes of an address field.
    Prefix(Field, u32),
    /// A field after a mask and an exclusive or.
    Masked(Field, Vec<u8>, Vec<u8>),
    /// Of what kind the link is.
    LinkKind,
    /// A constant.
    Const(Vec<u8>),
    /// What a map gave for a key.
    Found(Vec<Field>, Name),
}

/// Statements being made of expressions.
struct Raise {
    family: Family,
    /// By slot, in ascending order.
    held: Vec<(u32, Held)>,
    statements: Vec<Statement>,
}

/// The statements that these expressions are.
pub(super) fn raise(family: Family, exprs: &[Expr]) -> Vec<Statement> {
    let mut raise = Raise {
        family,
        held: Vec::new(),
        statements: Vec::new(),
    };
    for expr in exprs {
        if raise.expr(expr).is_none() {
            raise
                .statements
                .push(Statement::Foreign(format!("{expr:?}")));
        }
    }
    raise.statements
}

/// The field that an expression loads, whole or its first bytes.
fn loaded(family: Family, expr: &Expr) -> Option<Held> {
    if let Expr::Numgen {
        modulus,
        kind,
        offset: 0,
        ..
    } = expr
    {
        let numgen = Numgen {
            random: *kind == 1,
            modulus: *modulus,
        };
        return Some(Held::Field(Field::Numgen(numgen)));
    }
    if let Expr::Meta {
        key: META_IIFTYPE, ..
    } = expr
    {
        return Some(Held::LinkKind);
    }
    let fields = [
        Field::EtherSaddr,
        Field::Saddr,
        Field::Daddr,
        Field::Sport,
        Field::Dport,
        Field::L4Proto,
        Field::IifName,
        Field::OifName,
        Field::Mark,
        Field::CtMark,
        Field::CtState,
        Field::CtStatus,
        Field::OrigDaddr,
        Field::OrigDport,
        Field::FibDaddrType,
    ];
    for field in fields {
        let mut whole = load(family, field, 0);
        if let (
            Expr::Payload { dreg, len, .. },
            Expr::Payload {
                dreg: found,
                len: short,
                ..
            },
        ) = (&mut whole, expr)
        {
            *dreg = *found;
            let full = *len;
            *len = *short;
            if whole == *expr {
                return Some(if *short == full {
                    Held::Field(field)
                } else {
                    Held::Prefix(field, *short)
                });
            }
        } else if same_load(&whole, expr) {
            return Some(Held::Field(field));
        }
    }
    None
}

/// Whether two loads differ at most in their register.
fn same_load(load: &Expr, other: &Expr) -> bool {
    match (load, other) {
        (Expr::Meta { key, .. }, Expr::Meta { key: found, .. }) => key == found,
        (
            Expr::Ct { key, original, .. },
            Expr::Ct {
                key: found,
                original: which,
                ..
            },
        ) => (key, original) == (found, which),
        (
            Expr::Fib { result, flags, .. },
            Expr::Fib {
                result: found,
                flags: found_flags,
                ..
            },
        ) => (result, flags) == (found, found_flags),
        (_, _) => false,
    }
}

/// The register that a load fills.
fn dreg(expr: &Expr) -> Option<u32> {
    if let Expr::Payload { dreg, .. }
    | Expr::Meta { dreg, .. }
    | Expr::Ct { dreg, .. }
    | Expr::Fib { dreg, .. }
    | Expr::Numgen { dreg, .. }
    | Expr::Immediate { dreg, .. } = expr
    {
        Some(*dreg)
    } else {
        None
    }
}

fn word(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

/// A compared constant as a value.
fn value(family: Family, field: Field, bytes: &[u8]) -> Option<Value> {
    let mut padded = bytes.to_vec();
    padded.resize(kernel_len(family, &[field]), 0);
    let mut values = Tuple::from_bytes(&padded).values(family, &[field])?;
    values.pop()
}

/// The length of a mask that is a prefix.
fn prefix_len(mask: &[u8]) -> Option<u8> {
    let ones: u32 = mask.iter().map(|byte| byte.leading_ones()).sum();
    let set: u32 = mask.iter().map(|byte| byte.count_ones()).sum();
    let contiguous = mask
        .windows(2)
        .all(|pair| matches!(pair, [0xff, _] | [_, 0]));
    if ones == set && contiguous {
        u8::try_from(ones).ok()
    } else {
        None
    }
}

impl Raise {
    fn put(&mut self, slot: u32, held: Held) {
        self.held.retain(|(place, _)| *place < slot);
        self.held.push((slot, held));
    }

    fn at(&self, slot: u32) -> Option<&Held> {
        self.held
            .iter()
            .find(|(place, _)| *place == slot)
            .map(|(_, held)| held)
    }

    /// The fields from a slot on, up to another.
    fn key(&self, from: u32, until: Option<u32>) -> Option<Vec<Field>> {
        let mut slot = from;
        let mut fields = Vec::new();
        for (place, held) in &self.held {
            if *place < from || until.is_some_and(|until| *place >= until) {
                continue;
            }
            let Held::Field(field) = held else {
                return None;
            };
            if *place != slot {
                return None;
            }
            fields.push(*field);
            slot += field.width(self.family) as u32 / 4;
        }
        (!fields.is_empty()).then_some(fields)
    }

    fn push(&mut self, statement: Statement) {
        self.held.clear();
        self.statements.push(statement);
    }

    /// Take an expression; none if it is not one of this language.
    fn expr(&mut self, expr: &Expr) -> Option<()> {
        if let Expr::Immediate { dreg, data } = expr {
            self.put(*dreg, Held::Const(data.clone()));
        } else if let Expr::Hash {
            sreg,
            dreg,
            len,
            modulus,
            seed,
        } = expr
        {
            let whole = *len == Field::Saddr.bits(self.family) / 8;
            let Some(Held::Field(Field::Saddr)) = self.at(*sreg).filter(|_| whole) else {
                return None;
            };
            self.put(*dreg, Held::Field(Field::jhash(*modulus, *seed)));
        } else if let Some(dreg) = dreg(expr) {
            let held = loaded(self.family, expr)?;
            self.put(dreg, held);
        } else if let Expr::Bitwise {
            sreg,
            dreg,
            mask,
            xor,
        } = expr
        {
            let Held::Field(field) = self.at(*sreg)?.clone() else {
                return None;
            };
            self.put(*dreg, Held::Masked(field, mask.clone(), xor.clone()));
        } else if let Expr::Cmp {
            sreg,
            op: MatchOp::Eq,
            data,
        } = expr
            && *data == ETHERNET
            && matches!(self.at(*sreg), Some(Held::LinkKind))
        {
            // A part of what follows.
            self.held.clear();
        } else if let Expr::Lookup {
            set,
            sreg,
            to,
            inverted,
        } = expr
        {
            self.lookup(set, *sreg, *to, *inverted)?;
        } else {
            let statement = self.statement(expr)?;
            self.push(statement);
        }
        Some(())
    }

    fn lookup(&mut self, set: &Name, sreg: u32, to: LookupTo, inverted: bool) -> Option<()> {
        let key = self.key(sreg, None)?;
        let set = set.clone();
        match (to, inverted) {
            (LookupTo::Nowhere, _) => {
                let op = if inverted { MatchOp::Ne } else { MatchOp::Eq };
                self.push(Statement::Lookup { key, op, set });
            }
            (LookupTo::Verdict, false) => self.push(Statement::Vmap { key, map: set }),
            (LookupTo::Slot(slot), false) => {
                self.held.clear();
                self.put(slot, Held::Found(key, set));
            }
            (LookupTo::Verdict | LookupTo::Slot(_), true) => return None,
        }
        Some(())
    }

    /// The statement that ends with this expression.
    fn statement(&self, expr: &Expr) -> Option<Statement> {
        if let Expr::Cmp { sreg, op, data } = expr {
            self.compare(*sreg, *op, data)
        } else if let Expr::MetaSet { .. } | Expr::CtSet { .. } | Expr::Snat { .. } = expr {
            self.kept(expr)
        } else if let Expr::Dnat {
            family,
            addr,
            proto,
            ..
        } = expr
        {
            if *family != u32::from(self.family.number()) {
                return None;
            }
            self.dnat(*addr, *proto)
        } else if let Expr::Masq { flags } = expr {
            match *flags {
                0 => Some(Statement::Masquerade {
                    fully_random: false,
                }),
                FULLY_RANDOM => Some(Statement::Masquerade { fully_random: true }),
                _ => None,
            }
        } else if let Expr::Reject { kind, code } = expr {
            self.reject(*kind, *code)
        } else if let Expr::Counter(counts) = expr {
            Some(Statement::Counter(*counts))
        } else if let Expr::Dynset {
            op,
            set,
            key,
            data,
            timeout_ms,
        } = expr
        {
            let fields = self.key(*key, *data)?;
            let data = match data {
                None => None,
                Some(slot) => Some(self.key(*slot, None)?),
            };
            let (op, set, timeout_ms) = (*op, set.clone(), *timeout_ms);
            Some(Statement::Dynset {
                op,
                set,
                key: fields,
                data,
                timeout_ms,
            })
        } else if let Expr::Verdict(verdict) = expr {
            Some(Statement::Verdict(verdict.clone()))
        } else if let Expr::Limit { rate, burst } = expr {
            let (rate, burst) = (u32::try_from(*rate).ok()?, *burst);
            Some(Statement::Limit { rate, burst })
        } else if let Expr::Log { group } = expr {
            Some(Statement::Log { group: *group })
        } else {
            (*expr == Expr::Notrack).then_some(Statement::Notrack)
        }
    }

    /// What is written down of a packet.
    fn kept(&self, expr: &Expr) -> Option<Statement> {
        if let Expr::MetaSet {
            sreg,
            key: META_MARK,
        } = expr
        {
            let Held::Masked(Field::Mark, mask, xor) = self.at(*sreg)? else {
                return None;
            };
            Some(Statement::SetMark {
                and: word(mask)?,
                or: word(xor)?,
            })
        } else if let Expr::CtSet { sreg, key: CT_MARK } = expr {
            let Held::Masked(Field::CtMark, mask, xor) = self.at(*sreg)? else {
                return None;
            };
            Some(Statement::SetCtMark {
                and: word(mask)?,
                or: word(xor)?,
            })
        } else if let Expr::Snat { family, addr } = expr {
            let same = *family == u32::from(self.family.number());
            let kept = matches!(self.at(*addr)?, Held::Field(Field::Saddr));
            (same && kept).then_some(Statement::KeepSource)
        } else {
            None
        }
    }

    fn compare(&self, sreg: u32, op: MatchOp, data: &[u8]) -> Option<Statement> {
        let statement = match self.at(sreg)? {
            Held::Field(field @ (Field::IifName | Field::OifName)) if data.len() < IFNAMSIZ => {
                let prefix = String::from_utf8(data.to_vec()).ok()?;
                Statement::Match(*field, op, Compare::NamePrefix(prefix))
            }
            Held::Field(field) => {
                let value = value(self.family, *field, data)?;
                Statement::Match(*field, op, Compare::Value(value))
            }
            Held::Prefix(field, len) => {
                let value = value(self.family, *field, data)?;
                let bits = u8::try_from(len.checked_mul(8)?).ok()?;
                Statement::Match(*field, op, Compare::Prefix(value, bits))
            }
            Held::Masked(field, mask, xor) if xor.iter().all(|byte| *byte == 0) => {
                self.compare_masked(*field, op, mask, data)?
            }
            Held::Masked(..) | Held::Const(_) | Held::Found(..) | Held::LinkKind => return None,
        };
        Some(statement)
    }

    fn compare_masked(
        &self,
        field: Field,
        op: MatchOp,
        mask: &[u8],
        data: &[u8],
    ) -> Option<Statement> {
        match field {
            Field::Saddr | Field::Daddr => {
                let right = Compare::Prefix(value(self.family, field, data)?, prefix_len(mask)?);
                Some(Statement::Match(field, op, right))
            }
            Field::Mark | Field::CtMark => {
                let right = Compare::Masked {
                    mask: word(mask)?,
                    value: word(data)?,
                };
                Some(Statement::Match(field, op, right))
            }
            Field::CtState | Field::CtStatus if word(data)? == 0 => {
                let op = match op {
                    MatchOp::Eq => MatchOp::Ne,
                    MatchOp::Ne => MatchOp::Eq,
                };
                Some(Statement::Match(field, op, Compare::Any(word(mask)?)))
            }
            Field::L4Proto
            | Field::Sport
            | Field::Dport
            | Field::EtherSaddr
            | Field::IifName
            | Field::OifName
            | Field::CtState
            | Field::CtStatus
            | Field::OrigDaddr
            | Field::OrigDport
            | Field::FibDaddrType
            | Field::Numgen(_)
            | Field::Jhash(_) => None,
        }
    }

    fn dnat(&self, addr: u32, proto: Option<u32>) -> Option<Statement> {
        let to = match self.at(addr)? {
            Held::Found(key, map) => DnatTo::Map {
                key: key.clone(),
                map: map.clone(),
                port: proto.is_some(),
            },
            Held::Const(bytes) => {
                let port = match proto {
                    None => None,
                    Some(slot) => {
                        let Held::Const(port) = self.at(slot)? else {
                            return None;
                        };
                        Some(u16::from_be_bytes(port.as_slice().try_into().ok()?))
                    }
                };
                DnatTo::Value(value(self.family, Field::Daddr, bytes)?, port)
            }
            Held::Field(_) | Held::Prefix(..) | Held::Masked(..) | Held::LinkKind => return None,
        };
        Some(Statement::Dnat(to))
    }

    fn reject(&self, kind: u32, code: u8) -> Option<Statement> {
        match kind {
            REJECT_TCP_RST => Some(Statement::Reject(RejectKind::TcpReset)),
            REJECT_ICMP => [RejectKind::PortUnreachable, RejectKind::AdminProhibited]
                .into_iter()
                .find(|kind| reject_code(self.family, *kind) == Some(code))
                .map(Statement::Reject),
            _ => None,
        }
    }
}
