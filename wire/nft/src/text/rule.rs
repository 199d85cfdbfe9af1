//! Rules and values.

use super::{duration, quoted};
use crate::value::{TCP, UDP};
use crate::{
    Compare, CtState, CtStatus, DnatTo, DynOp, Family, Field, Jhash, MatchOp, RejectKind, Rule,
    Statement, Value, Verdict,
};

/// Protocol numbers and the names of /etc/protocols, which nft prints.
const PROTOCOLS: [(u8, &str); 12] = [
    (1, "icmp"),
    (2, "igmp"),
    (4, "ipencap"),
    (TCP, "tcp"),
    (UDP, "udp"),
    (33, "dccp"),
    (47, "gre"),
    (50, "esp"),
    (51, "ah"),
    (58, "ipv6-icmp"),
    (132, "sctp"),
    (136, "udplite"),
];

/// Protocols whose ports nft prints with the protocol's own name.
const WITH_PORTS: [u8; 5] = [TCP, UDP, 33, 132, 136];

/// A value as nft prints it.
pub(super) fn value(value: &Value) -> String {
    match value {
        Value::V4(addr) => addr.to_string(),
        Value::V6(addr) => addr.to_string(),
        Value::Proto(proto) => protocol(*proto),
        Value::Port(port) => port.to_string(),
        Value::Number(number) => number.to_string(),
        Value::Mark(mark) => format!("{mark:#010x}"),
        Value::Ether(octets) => octets.map(|octet| format!("{octet:02x}")).join(":"),
        Value::Iface(name) => format!("\"{name}\""),
        Value::Fib(kind) => kind.name().to_owned(),
        Value::CtState(CtState(bits)) => names(*bits, &STATES),
        Value::CtStatus(CtStatus(bits)) => names(*bits, &STATUSES),
    }
}

/// Values of a concatenation.
pub(super) fn values(list: &[Value]) -> String {
    list.iter().map(value).collect::<Vec<_>>().join(" . ")
}

fn protocol(number: u8) -> String {
    let known = PROTOCOLS.iter().find(|(found, _)| *found == number);
    known.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}

const STATES: [(u32, &str); 5] = [
    (1, "invalid"),
    (2, "established"),
    (4, "related"),
    (8, "new"),
    (64, "untracked"),
];

const STATUSES: [(u32, &str); 7] = [
    (1, "expected"),
    (2, "seen-reply"),
    (4, "assured"),
    (8, "confirmed"),
    (0x10, "snat"),
    (0x20, "dnat"),
    (0x200, "dying"),
];

fn names(bits: u32, names: &[(u32, &str)]) -> String {
    let known: Vec<&str> = names
        .iter()
        .filter(|(bit, _)| bits & bit != 0)
        .map(|(_, name)| *name)
        .collect();
    if known.is_empty() {
        format!("{bits:#x}")
    } else {
        known.join(",")
    }
}

/// A field as nft prints it.
fn field(family: Family, field: Field, transport: &str) -> String {
    let network = family.name();
    match field {
        Field::Saddr => format!("{network} saddr"),
        Field::Daddr => format!("{network} daddr"),
        Field::L4Proto => "meta l4proto".to_owned(),
        Field::Sport => format!("{transport} sport"),
        Field::Dport => format!("{transport} dport"),
        Field::EtherSaddr => "ether saddr".to_owned(),
        Field::IifName => "iifname".to_owned(),
        Field::OifName => "oifname".to_owned(),
        Field::Mark => "meta mark".to_owned(),
        Field::CtMark => "ct mark".to_owned(),
        Field::CtState => "ct state".to_owned(),
        Field::CtStatus => "ct status".to_owned(),
        Field::OrigDaddr => format!("ct original {network} daddr"),
        Field::OrigDport => "ct original proto-dst".to_owned(),
        Field::FibDaddrType => "fib daddr type".to_owned(),
        Field::Numgen(numgen) => {
            let kind = if numgen.random { "random" } else { "inc" };
            format!("numgen {kind} mod {}", numgen.modulus)
        }
        Field::Jhash(Jhash { modulus, seed }) => {
            format!("jhash {network} saddr mod {modulus} seed {seed:#x}")
        }
    }
}

fn concat(family: Family, fields: &[Field], transport: &str) -> String {
    let fields: Vec<String> = fields
        .iter()
        .map(|one| field(family, *one, transport))
        .collect();
    fields.join(" . ")
}

/// Fields of a concatenation.
pub(super) fn fields(family: Family, fields: &[Field]) -> String {
    concat(family, fields, "th")
}

/// A verdict as nft prints it.
pub(super) fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Accept => "accept".to_owned(),
        Verdict::Drop => "drop".to_owned(),
        Verdict::Continue => "continue".to_owned(),
        Verdict::Return => "return".to_owned(),
        Verdict::Jump(chain) => format!("jump {chain}"),
        Verdict::Goto(chain) => format!("goto {chain}"),
    }
}

/// A rule being printed.
struct Printer {
    family: Family,
    parts: Vec<String>,
    /// The transport protocol that the rule has matched.
    transport: Option<u8>,
    /// The place of `meta l4proto …`, while nothing has made it redundant.
    implied: Option<usize>,
}

impl Rule {
    /// The rule as nft prints it.
    #[must_use]
    pub fn text(&self, family: Family) -> String {
        let mut printer = Printer {
            family,
            parts: Vec::new(),
            transport: None,
            implied: None,
        };
        for statement in &self.statements {
            let part = printer.statement(statement);
            printer.parts.push(part);
        }
        printer.parts.retain(|part| !part.is_empty());
        let mut text = printer.parts.join(" ");
        if let Some(comment) = &self.comment {
            text.push_str(&format!(" comment {}", quoted(comment)));
        }
        text
    }
}

impl Printer {
    /// nft leaves out `meta l4proto tcp` where `tcp dport` follows.
    fn imply(&mut self) {
        if let Some(part) = self
            .implied
            .take()
            .and_then(|place| self.parts.get_mut(place))
        {
            part.clear();
        }
    }

    fn fields(&mut self, fields: &[Field]) -> String {
        if !fields
            .iter()
            .any(|field| matches!(field, Field::Sport | Field::Dport))
        {
            return concat(self.family, fields, "th");
        }
        self.imply();
        let known = self
            .transport
            .filter(|proto| WITH_PORTS.contains(proto))
            .map(protocol);
        concat(self.family, fields, known.as_deref().unwrap_or("th"))
    }

    fn statement(&mut self, statement: &Statement) -> String {
        match statement {
            Statement::Match(field, op, right) => self.compare(*field, *op, right),
            Statement::Lookup { key, op, set } => {
                let not = if *op == MatchOp::Ne { "!= " } else { "" };
                format!("{} {not}@{set}", self.fields(key))
            }
            Statement::Vmap { key, map } => format!("{} vmap @{map}", self.fields(key)),
            Statement::Counter(counts) => {
                // nft forgets across a counter that the protocol is implied.
                self.implied = None;
                format!("counter packets {} bytes {}", counts.packets, counts.bytes)
            }
            Statement::SetMark { and, or } => set_mark("meta mark", and & !or, *or),
            Statement::SetCtMark { and, or } => set_mark("ct mark", and & !or, *or),
            Statement::KeepSource => format!("snat to {} saddr", self.family.name()),
            Statement::Dnat(to) => self.dnat(to),
            Statement::Masquerade {
                fully_random: false,
            } => "masquerade".to_owned(),
            Statement::Masquerade { fully_random: true } => "masquerade fully-random".to_owned(),
            Statement::Reject(kind) => self.reject(*kind),
            Statement::Notrack => "notrack".to_owned(),
            // nft leaves out the burst that it takes where none is given.
            Statement::Limit { rate, burst: 5 } => format!("limit rate {rate}/second"),
            Statement::Limit { rate, burst } => {
                format!("limit rate {rate}/second burst {burst} packets")
            }
            Statement::Log { group } => format!("log group {group}"),
            Statement::Dynset {
                op,
                set,
                key,
                data,
                timeout_ms,
            } => {
                let op = match op {
                    DynOp::Add => "add",
                    DynOp::Update => "update",
                    DynOp::Delete => "delete",
                };
                let key = self.fields(key);
                let timeout =
                    timeout_ms.map_or(String::new(), |ms| format!(" timeout {}", duration(ms)));
                let data = data
                    .as_ref()
                    .map_or(String::new(), |data| format!(" : {}", self.fields(data)));
                format!("{op} @{set} {{ {key}{timeout}{data} }}")
            }
            Statement::Verdict(found) => verdict(found),
            Statement::Foreign(what) => format!("# {what}"),
        }
    }

    fn compare(&mut self, left: Field, op: MatchOp, right: &Compare) -> String {
        let not = if op == MatchOp::Ne { "!= " } else { "" };
        let name = self.fields(&[left]);
        match right {
            Compare::Value(found) => {
                if let (Value::Proto(proto), MatchOp::Eq) = (found, op) {
                    self.transport = Some(*proto);
                    self.implied = Some(self.parts.len());
                }
                // A flag that is compared, not looked for.
                let flag = matches!(found, Value::CtState(_) | Value::CtStatus(_));
                let not = if flag && op == MatchOp::Eq {
                    "== "
                } else {
                    not
                };
                format!("{name} {not}{}", value(found))
            }
            // nft prints an address for the range of one address.
            Compare::Prefix(found, len) if u32::from(*len) == left.bits(self.family) => {
                format!("{name} {not}{}", value(found))
            }
            Compare::Prefix(found, len) => format!("{name} {not}{}/{len}", value(found)),
            Compare::NamePrefix(prefix) => format!("{name} {not}\"{prefix}*\""),
            Compare::Masked { mask, value } => {
                let op = if op == MatchOp::Ne { "!=" } else { "==" };
                format!("{name} & {mask:#010x} {op} {value:#010x}")
            }
            Compare::Any(bits) => {
                let bits = if left == Field::CtStatus {
                    names(*bits, &STATUSES)
                } else {
                    names(*bits, &STATES)
                };
                let not = if op == MatchOp::Ne { "! " } else { "" };
                format!("{name} {not}{bits}")
            }
        }
    }

    fn dnat(&mut self, to: &DnatTo) -> String {
        match to {
            DnatTo::Map { key, map, port } => {
                let key = self.fields(key);
                let family = if *port {
                    format!(" {}", self.family.name())
                } else {
                    String::new()
                };
                format!("dnat{family} to {key} map @{map}")
            }
            DnatTo::Value(addr, None) => format!("dnat to {}", value(addr)),
            DnatTo::Value(addr, Some(port)) => match self.family {
                Family::Ip => format!("dnat to {}:{port}", value(addr)),
                Family::Ip6 => format!("dnat to [{}]:{port}", value(addr)),
            },
        }
    }

    fn reject(&mut self, kind: RejectKind) -> String {
        match (kind, self.family) {
            (RejectKind::PortUnreachable, _) => "reject".to_owned(),
            (RejectKind::AdminProhibited, Family::Ip) => {
                "reject with icmp admin-prohibited".to_owned()
            }
            (RejectKind::AdminProhibited, Family::Ip6) => {
                "reject with icmpv6 admin-prohibited".to_owned()
            }
            (RejectKind::TcpReset, _) => {
                self.imply();
                "reject with tcp reset".to_owned()
            }
        }
    }
}

fn set_mark(mark: &str, and: u32, or: u32) -> String {
    if or == 0 {
        format!("{mark} set {mark} & {and:#010x}")
    } else if and == !or {
        format!("{mark} set {mark} | {or:#010x}")
    } else {
        format!("{mark} set {mark} & {:#010x} | {or:#010x}", and | or)
    }
}
