//! The interpreter: a packet goes through the hooks of a ruleset.
//!
//! ```text
//! incoming: prerouting ─ routing ─┬─ input                (for this machine)
//!                                 └─ forward ─ postrouting
//! outgoing: output ─ routing ─ postrouting
//! ```
//!
//! At a hook base chains run by priority, but nat chains all run where the kernel's
//! translation stands (-100 for destinations, 100 for sources), by priority among
//! themselves, and only for packets that begin a connection. A packet whose
//! destination was translated is seen translated by everything after.
//!
//! Not modelled: what connection tracking does to later packets, and that packets come
//! faster than a limit lets through. What rules add to
//! dynamic sets is told, and counts once the caller has put it there.

use std::net::IpAddr;

use crate::hash;
use crate::table::Base;
use crate::value::TCP;
use crate::{
    Chain, ChainType, Compare, CtState, CtStatus, Data, DnatTo, DynOp, Family, FibType, Field,
    Hook, Key, MatchOp, Name, RejectKind, Rule, Ruleset, Set, Statement, Table, Tuple, Value,
    Verdict,
};

/// The kernel follows no more jumps than this (NFT_JUMP_STACK_SIZE).
const MAX_DEPTH: usize = 16;

/// Chains below this priority see packets before connection tracking does.
const BEFORE_CONNTRACK: i32 = -200;

/// A packet, as far as rules look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source address.
    pub saddr: IpAddr,
    /// Destination address; of the same family.
    pub daddr: IpAddr,
    /// Transport protocol number.
    pub proto: u8,
    /// Source port; 0 for protocols without ports.
    pub sport: u16,
    /// Destination port; 0 for protocols without ports.
    pub dport: u16,
    /// Who put it on that link; none where it is no Ethernet.
    pub ether: Option<[u8; 6]>,
    /// The interface it came in by; empty if it is from this machine.
    pub iif: String,
    /// The interface it leaves by; empty before routing.
    pub oif: String,
    /// Its mark.
    pub mark: u32,
    /// Its connection's mark.
    pub ct_mark: u32,
    /// What conntrack says of it.
    pub ct_state: CtState,
    /// The status of its connection.
    pub ct_status: CtStatus,
}

impl Packet {
    /// The first TCP packet of a connection.
    #[must_use]
    pub fn tcp(saddr: IpAddr, daddr: IpAddr, dport: u16) -> Self {
        Self {
            saddr,
            daddr,
            proto: TCP,
            sport: 40_000,
            dport,
            ether: None,
            iif: String::new(),
            oif: String::new(),
            mark: 0,
            ct_mark: 0,
            ct_state: CtState::NEW,
            ct_status: CtStatus::default(),
        }
    }

    /// The family of its addresses.
    #[must_use]
    pub fn family(&self) -> Family {
        match self.daddr {
            IpAddr::V4(_) => Family::Ip,
            IpAddr::V6(_) => Family::Ip6,
        }
    }
}

/// What the world around the rules says.
pub trait Env {
    /// The number below `modulus` that a `numgen` in this chain gives.
    fn numgen(&mut self, chain: &Name, modulus: u32) -> u32;

    /// The routing table's type of an address.
    fn fib(&self, addr: IpAddr) -> FibType;

    /// The interface by which a packet leaves, asked after prerouting and output.
    fn route(&self, packet: &Packet) -> Option<String> {
        let _ = packet;
        None
    }
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It went through; this is what left.
    Accept(Passed),
    /// It was dropped at this hook.
    Drop(Hook),
    /// It was rejected at this hook.
    Reject(Hook, RejectKind),
}

/// A packet that went through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passed {
    /// The packet with its destination translated and its mark.
    pub packet: Packet,
    /// Whether its destination was translated.
    pub dnat: bool,
    /// Whether its source becomes the address of the interface it leaves by, and
    /// if so, whether its port is random.
    pub masquerade: Option<bool>,
    /// Whether connection tracking was switched off for it.
    pub notrack: bool,
    /// What rules put into dynamic sets because of it.
    pub learned: Vec<Learned>,
}

/// An element that a rule put into a dynamic set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learned {
    /// The set.
    pub set: Name,
    /// Its key.
    pub key: Tuple,
    /// What the key leads to.
    pub data: Data,
    /// How long it lives, in milliseconds.
    pub timeout_ms: Option<u64>,
}

/// Run a packet that came in by an interface: to this machine or through it, as
/// the routing table's type of its destination after prerouting says.
pub fn run_incoming(ruleset: &Ruleset, packet: &Packet, env: &mut dyn Env) -> Outcome {
    let mut run = Run::new(ruleset, packet, env);
    if let Some(end) = run.hook(Hook::Prerouting) {
        return end;
    }
    run.route();
    let addr = run.state.packet.daddr;
    if run.env.fib(addr) == FibType::Local {
        return run.hooks(&[Hook::Input]);
    }
    run.hooks(&[Hook::Forward, Hook::Postrouting])
}

/// Run a packet that this machine sends.
pub fn run_outgoing(ruleset: &Ruleset, packet: &Packet, env: &mut dyn Env) -> Outcome {
    run(ruleset, packet, &[Hook::Output, Hook::Postrouting], env)
}

/// Run a packet through these hooks in their order.
pub fn run(ruleset: &Ruleset, packet: &Packet, hooks: &[Hook], env: &mut dyn Env) -> Outcome {
    Run::new(ruleset, packet, env).hooks(hooks)
}

struct Run<'a> {
    ruleset: &'a Ruleset,
    env: &'a mut dyn Env,
    /// The destination before translation.
    original: (IpAddr, u16),
    state: Passed,
}

/// How a chain ended.
enum End {
    /// At its end or by `return`.
    Return,
    Accept,
    Drop,
    Reject(RejectKind),
    /// A translation was decided, which ends all nat chains of the hook.
    Nat,
}

/// What a statement says.
enum Step {
    /// The rule goes on.
    Next,
    /// The rule does not match.
    Miss,
    Verdict(Verdict),
    End(End),
}

fn of(matched: bool) -> Step {
    if matched { Step::Next } else { Step::Miss }
}

/// Where a base chain really runs.
fn order(base: &Base) -> (i32, i32) {
    match (base.kind, base.hook) {
        (ChainType::Filter, _) => (base.priority, base.priority),
        (ChainType::Nat, Hook::Prerouting | Hook::Output) => (-100, base.priority),
        (ChainType::Nat, Hook::Input | Hook::Forward | Hook::Postrouting) => (100, base.priority),
    }
}

impl<'a> Run<'a> {
    fn new(ruleset: &'a Ruleset, packet: &Packet, env: &'a mut dyn Env) -> Self {
        let state = Passed {
            packet: packet.clone(),
            dnat: false,
            masquerade: None,
            notrack: false,
            learned: Vec::new(),
        };
        Self {
            ruleset,
            env,
            original: (packet.daddr, packet.dport),
            state,
        }
    }

    fn hooks(mut self, hooks: &[Hook]) -> Outcome {
        for hook in hooks {
            if let Some(end) = self.hook(*hook) {
                return end;
            }
            if matches!(hook, Hook::Prerouting | Hook::Output) {
                self.route();
            }
        }
        Outcome::Accept(self.state)
    }

    fn route(&mut self) {
        if let Some(oif) = self.env.route(&self.state.packet) {
            self.state.packet.oif = oif;
        }
    }

    /// Run the base chains of a hook; the outcome if the packet ends there.
    fn hook(&mut self, hook: Hook) -> Option<Outcome> {
        let ruleset = self.ruleset;
        let family = self.state.packet.family();
        let mut chains: Vec<(&Base, &Name, &Chain, &Table)> = Vec::new();
        for (_, table) in ruleset.tables.iter().filter(|(id, _)| id.family == family) {
            for (name, chain) in &table.chains {
                if let Some(base) = chain.base.as_ref().filter(|base| base.hook == hook) {
                    chains.push((base, name, chain, table));
                }
            }
        }
        chains.sort_by_key(|(base, ..)| order(base));
        let mut translated = false;
        for (base, name, chain, table) in chains {
            let nat = base.kind == ChainType::Nat;
            let begins = self.state.packet.ct_state.0 & CtState::NEW.0 != 0;
            if nat && (translated || !begins) {
                continue;
            }
            match (Walk {
                run: self,
                family,
                table,
                base: *base,
            })
            .chain(name, chain, 0)
            {
                End::Return | End::Accept => {}
                End::Nat => translated = true,
                End::Drop => return Some(Outcome::Drop(hook)),
                End::Reject(kind) => return Some(Outcome::Reject(hook, kind)),
            }
        }
        None
    }
}

/// A packet in the chains of one table.
struct Walk<'r, 'a> {
    run: &'r mut Run<'a>,
    family: Family,
    table: &'a Table,
    base: Base,
}

impl Walk<'_, '_> {
    fn chain(&mut self, name: &Name, chain: &Chain, depth: usize) -> End {
        for rule in &chain.rules {
            let verdict = match self.rule(name, rule) {
                Step::Next | Step::Miss => continue,
                Step::End(end) => return end,
                Step::Verdict(verdict) => verdict,
            };
            match verdict {
                Verdict::Accept => return End::Accept,
                Verdict::Drop => return End::Drop,
                Verdict::Continue => {}
                Verdict::Return => return End::Return,
                // A goto takes no room on the kernel's stack, but a loop must end.
                Verdict::Goto(to) => return self.enter(&to, depth + 1),
                Verdict::Jump(to) => match self.enter(&to, depth + 1) {
                    End::Return => {}
                    end @ (End::Accept | End::Drop | End::Reject(_) | End::Nat) => return end,
                },
            }
        }
        End::Return
    }

    fn enter(&mut self, name: &Name, depth: usize) -> End {
        let table = self.table;
        match table.chains.get(name) {
            Some(chain) if depth < MAX_DEPTH => self.chain(name, chain, depth),
            _ => End::Drop,
        }
    }

    fn rule(&mut self, chain: &Name, rule: &Rule) -> Step {
        for statement in &rule.statements {
            match self.statement(chain, statement) {
                Step::Next => {}
                step @ (Step::Miss | Step::Verdict(_) | Step::End(_)) => return step,
            }
        }
        Step::Next
    }

    fn statement(&mut self, chain: &Name, statement: &Statement) -> Step {
        match statement {
            Statement::Match(Field::EtherSaddr, ..) if self.run.state.packet.ether.is_none() => {
                Step::Miss
            }
            Statement::Match(field, op, right) => {
                let value = self.value(chain, *field);
                of(compare(&value, right) == (*op == MatchOp::Eq))
            }
            Statement::Lookup { key, op, set } => {
                let found = self.find(chain, key, set).is_some();
                of(found == (*op == MatchOp::Eq))
            }
            Statement::Vmap { key, map } => match self.find(chain, key, map) {
                Some(Data::Verdict(verdict)) => Step::Verdict(verdict),
                Some(Data::None | Data::Tuple(_)) | None => Step::Miss,
            },
            Statement::SetMark { and, or } => {
                let mark = &mut self.run.state.packet.mark;
                *mark = *mark & and | or;
                Step::Next
            }
            Statement::SetCtMark { and, or } => {
                let mark = &mut self.run.state.packet.ct_mark;
                *mark = *mark & and | or;
                Step::Next
            }
            Statement::KeepSource => Step::End(End::Nat),
            Statement::Dnat(to) => self.dnat(chain, to),
            Statement::Masquerade { fully_random } => {
                self.run.state.masquerade = Some(*fully_random);
                Step::End(End::Nat)
            }
            Statement::Reject(kind) => Step::End(End::Reject(*kind)),
            Statement::Notrack => {
                if self.base.priority < BEFORE_CONNTRACK {
                    self.run.state.notrack = true;
                    self.run.state.packet.ct_state = CtState::UNTRACKED;
                }
                Step::Next
            }
            Statement::Verdict(verdict) => Step::Verdict(verdict.clone()),
            Statement::Counter(_) | Statement::Limit { .. } | Statement::Log { .. } => Step::Next,
            Statement::Dynset {
                op: DynOp::Add | DynOp::Update,
                set,
                key,
                data,
                timeout_ms,
            } => {
                let learned = Learned {
                    set: set.clone(),
                    key: self.tuple(chain, key),
                    data: match data {
                        Some(data) => Data::Tuple(self.tuple(chain, data)),
                        None => Data::None,
                    },
                    timeout_ms: *timeout_ms,
                };
                self.run.state.learned.push(learned);
                Step::Next
            }
            Statement::Dynset {
                op: DynOp::Delete, ..
            } => Step::Next,
            Statement::Foreign(_) => Step::Miss,
        }
    }

    fn value(&mut self, chain: &Name, field: Field) -> Value {
        let packet = &self.run.state.packet;
        match field {
            Field::Saddr => packet.saddr.into(),
            Field::Daddr => packet.daddr.into(),
            Field::L4Proto => Value::Proto(packet.proto),
            Field::Sport => Value::Port(packet.sport),
            Field::Dport => Value::Port(packet.dport),
            Field::EtherSaddr => Value::Ether(packet.ether.unwrap_or_default()),
            Field::IifName => Value::Iface(packet.iif.clone()),
            Field::OifName => Value::Iface(packet.oif.clone()),
            Field::Mark => Value::Mark(packet.mark),
            Field::CtMark => Value::Mark(packet.ct_mark),
            Field::CtState => Value::CtState(packet.ct_state),
            Field::CtStatus => Value::CtStatus(packet.ct_status),
            Field::OrigDaddr => self.run.original.0.into(),
            Field::OrigDport => Value::Port(self.run.original.1),
            Field::FibDaddrType => Value::Fib(self.run.env.fib(packet.daddr)),
            Field::Numgen(numgen) => {
                let number = self.run.env.numgen(chain, numgen.modulus);
                Value::Number(number % numgen.modulus.max(1))
            }
            Field::Jhash(jhash) => {
                let saddr = Tuple::new(&[packet.saddr.into()]);
                Value::Number(hash::slot(saddr.bytes(), jhash.modulus, jhash.seed))
            }
        }
    }

    fn find(&mut self, chain: &Name, key: &[Field], set: &Name) -> Option<Data> {
        let tuple = self.tuple(chain, key);
        let table = self.table;
        look_up(self.family, table.sets.get(set)?, &tuple).cloned()
    }

    fn tuple(&mut self, chain: &Name, fields: &[Field]) -> Tuple {
        let values: Vec<Value> = fields
            .iter()
            .map(|field| self.value(chain, *field))
            .collect();
        Tuple::new(&values)
    }

    fn dnat(&mut self, chain: &Name, to: &DnatTo) -> Step {
        let (addr, port) = match to {
            DnatTo::Value(addr, port) => (addr.addr(), *port),
            DnatTo::Map { key, map, port } => {
                let Some(Data::Tuple(tuple)) = self.find(chain, key, map) else {
                    return Step::Miss;
                };
                let fields: &[Field] = if *port {
                    &[Field::Daddr, Field::Dport]
                } else {
                    &[Field::Daddr]
                };
                match tuple.values(self.family, fields).as_deref() {
                    Some([addr, Value::Port(port)]) => (addr.addr(), Some(*port)),
                    Some([addr]) => (addr.addr(), None),
                    Some(_) | None => return Step::Miss,
                }
            }
        };
        let state = &mut self.run.state;
        if let Some(addr) = addr {
            state.packet.daddr = addr;
        }
        if let Some(port) = port {
            state.packet.dport = port;
        }
        state.packet.ct_status.0 |= CtStatus::DNAT.0;
        state.dnat = true;
        Step::End(End::Nat)
    }
}

/// What a set holds for a tuple.
fn look_up<'a>(family: Family, set: &'a Set, tuple: &Tuple) -> Option<&'a Data> {
    if !set.flags.interval {
        return set.elements.get(&Key::Exact(tuple.clone()));
    }
    let widths = Field::widths(family, &set.key);
    set.elements
        .iter()
        .find(|(key, _)| key.covers(&widths, tuple))
        .map(|(_, data)| data)
}

fn compare(left: &Value, right: &Compare) -> bool {
    match right {
        Compare::Value(value) => left == value,
        Compare::Prefix(value, len) => match (left, value) {
            (Value::V4(left), Value::V4(right)) => {
                let mask = u32::MAX
                    .checked_shl(32_u32.saturating_sub(u32::from(*len)))
                    .unwrap_or(0);
                left.to_bits() & mask == right.to_bits() & mask
            }
            (Value::V6(left), Value::V6(right)) => {
                let shift = 128_u32.saturating_sub(u32::from(*len));
                let mask = u128::MAX.checked_shl(shift).unwrap_or(0);
                left.to_bits() & mask == right.to_bits() & mask
            }
            (_, _) => false,
        },
        Compare::NamePrefix(prefix) => {
            matches!(left, Value::Iface(name) if name.starts_with(prefix.as_str()))
        }
        Compare::Masked { mask, value } => {
            matches!(left, Value::Mark(left) if left & mask == *value)
        }
        Compare::Any(bits) => match left {
            Value::CtState(CtState(left)) | Value::CtStatus(CtStatus(left)) => left & bits != 0,
            Value::V4(_)
            | Value::V6(_)
            | Value::Proto(_)
            | Value::Port(_)
            | Value::Number(_)
            | Value::Mark(_)
            | Value::Ether(_)
            | Value::Iface(_)
            | Value::Fib(_) => false,
        },
    }
}
