//! Batches as transactions.

use super::attr::{Open, Writer};
use super::consts as c;
use super::expr::Expr;
use super::{lower, set, udata};
use crate::{Base, Batch, Data, Key, Op, Rule, Shape, Step, TableId};

/// The longest list of elements in one message: an attribute's length has 16 bits.
const MAX_LIST: usize = 60_000;

/// Bytes for one `sendmsg`, which the kernel takes whole or refuses whole.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    /// The messages.
    pub bytes: Vec<u8>,
    /// The sequence number of the first message.
    first: u32,
    /// The batch's step that each message is from.
    steps: Vec<usize>,
}

impl Transaction {
    /// The step of the batch that made the message with this sequence number.
    #[must_use]
    pub fn step(&self, seq: u32) -> Option<usize> {
        // The first message begins the batch.
        let place = seq.wrapping_sub(self.first).checked_sub(1)?;
        self.steps.get(usize::try_from(place).ok()?).copied()
    }

    /// The number of messages between begin and end.
    #[must_use]
    pub fn len(&self) -> usize {
        self.steps.len()
    }

    /// Whether nothing is between begin and end.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// The sequence number behind the last message.
    #[must_use]
    pub fn next_seq(&self) -> u32 {
        self.first
            .wrapping_add(self.steps.len() as u32)
            .wrapping_add(2)
    }
}

/// Write a batch as transactions of about `limit` bytes at most.
///
/// One transaction is best, and is what a large enough limit gives. Cuts fall
/// between steps and inside long lists of added elements, but never between a
/// chain's flush and its rules, nor between the deletion and the addition of a
/// set's elements: what replaces something comes together with its end. A batch
/// whose steps are safe one after another stays safe when it is cut.
///
/// `seq` is the first sequence number; `generation` makes the kernel refuse the
/// first transaction (ERESTART) if anybody changed the ruleset since.
#[must_use]
pub fn encode(batch: &Batch, limit: usize, seq: u32, generation: Option<u32>) -> Vec<Transaction> {
    let mut encoder = Encoder {
        limit,
        ..Encoder::default()
    };
    encoder.begin(seq, generation);
    for (place, step) in batch.steps.iter().enumerate() {
        encoder.glued = place
            .checked_sub(1)
            .and_then(|before| batch.steps.get(before))
            .is_some_and(|before| glued(before, step));
        encoder.step(place, step);
    }
    encoder.finish();
    encoder.done
}

/// Whether no transaction may end between these two.
fn glued(before: &Step, step: &Step) -> bool {
    if before.table != step.table {
        return false;
    }
    match (&before.op, &step.op) {
        (
            Op::FlushChain { .. } | Op::AddRule { .. } | Op::DeleteChain { .. },
            Op::AddRule { .. } | Op::AddChain { .. },
        )
        | (Op::DeleteTable, _) => true,
        (Op::DeleteElements { set: old, .. }, Op::AddElements { set: new, .. }) => old == new,
        (_, _) => false,
    }
}

#[derive(Default)]
struct Encoder {
    limit: usize,
    done: Vec<Transaction>,
    out: Writer,
    first: u32,
    steps: Vec<usize>,
    glued: bool,
    /// Sets need an id of their own in a transaction.
    set_id: u32,
}

fn nfgen(family: u8, resource: u16) -> [u8; 4] {
    let [high, low] = resource.to_be_bytes();
    [family, 0, high, low]
}

impl Encoder {
    fn begin(&mut self, seq: u32, generation: Option<u32>) {
        self.first = seq;
        let header = nfgen(0, c::NFNL_SUBSYS_NFTABLES);
        let open = self
            .out
            .begin(c::NFNL_MSG_BATCH_BEGIN, c::NLM_F_REQUEST, seq, header);
        if let Some(generation) = generation {
            self.out.be32(c::NFNL_BATCH_GENID, generation);
        }
        self.out.end(open);
    }

    fn finish(&mut self) {
        let seq = self
            .first
            .wrapping_add(self.steps.len() as u32)
            .wrapping_add(1);
        let header = nfgen(0, c::NFNL_SUBSYS_NFTABLES);
        let open = self
            .out
            .begin(c::NFNL_MSG_BATCH_END, c::NLM_F_REQUEST, seq, header);
        self.out.end(open);
        let transaction = Transaction {
            bytes: std::mem::take(&mut self.out.bytes),
            first: self.first,
            steps: std::mem::take(&mut self.steps),
        };
        if !transaction.is_empty() {
            self.done.push(transaction);
        }
    }

    /// Begin a message of a step, in a new transaction if this one is full.
    fn message(&mut self, step: usize, table: &TableId, kind: u16, flags: u16) -> Open {
        if !self.glued && !self.steps.is_empty() && self.out.bytes.len() + MAX_LIST > self.limit {
            self.finish();
            let next = self.done.last().map_or(self.first, Transaction::next_seq);
            self.begin(next, None);
        }
        self.steps.push(step);
        let seq = self.first.wrapping_add(self.steps.len() as u32);
        let header = nfgen(table.family.number(), 0);
        let kind = c::NFNL_SUBSYS_NFTABLES << 8 | kind;
        self.out.begin(kind, c::NLM_F_REQUEST | flags, seq, header)
    }

    fn step(&mut self, place: usize, step: &Step) {
        let table = &step.table;
        match &step.op {
            Op::AddTable { comment } => {
                let open = self.message(place, table, c::NEWTABLE, c::NLM_F_CREATE);
                self.out.string(c::TABLE_NAME, &table.name);
                self.out.be32(c::TABLE_FLAGS, 0);
                if let Some(comment) = comment {
                    self.out
                        .attr(c::TABLE_USERDATA, &udata::of_comment(comment));
                }
                self.out.end(open);
            }
            Op::DeleteTable => {
                let open = self.message(place, table, c::DELTABLE, 0);
                self.out.string(c::TABLE_NAME, &table.name);
                self.out.end(open);
            }
            Op::AddChain {
                chain,
                base,
                comment,
            } => {
                let flags = c::NLM_F_CREATE | c::NLM_F_EXCL;
                let open = self.message(place, table, c::NEWCHAIN, flags);
                self.out.string(c::CHAIN_TABLE, &table.name);
                self.out.string(c::CHAIN_NAME, chain);
                self.chain(base.as_ref(), comment.as_deref());
                self.out.end(open);
            }
            Op::FlushChain { chain } => self.named(place, table, c::DELRULE, chain),
            Op::DeleteChain { chain } => self.named(place, table, c::DELCHAIN, chain),
            Op::AddRule { chain, rule } => self.rule(place, table, chain, rule),
            Op::AddSet { set, declaration } => {
                let flags = c::NLM_F_CREATE | c::NLM_F_EXCL;
                let open = self.message(place, table, c::NEWSET, flags);
                self.set_id += 1;
                self.out.string(c::SET_TABLE, &table.name);
                self.out.string(c::SET_NAME, set);
                set::write(&mut self.out, table.family, declaration, self.set_id);
                self.out.end(open);
            }
            Op::DeleteSet { set } => self.named(place, table, c::DELSET, set),
            Op::AddElements {
                set,
                shape,
                elements,
            } => {
                let elements = elements.iter().map(|(key, data)| (key, data));
                self.elements((place, table, c::NEWSETELEM), set, *shape, elements);
            }
            Op::DeleteElements { set, shape, keys } => {
                let elements = keys.iter().map(|key| (key, &Data::None));
                self.elements((place, table, c::DELSETELEM), set, *shape, elements);
            }
        }
    }

    /// A message that only names a chain or a set of a table: the numbers of the
    /// attributes are those of a set, or of a chain.
    fn named(&mut self, place: usize, table: &TableId, kind: u16, name: &str) {
        let open = self.message(place, table, kind, 0);
        let attr = match kind {
            c::DELCHAIN => c::CHAIN_NAME,
            c::DELSET => c::SET_NAME,
            _ => c::RULE_CHAIN,
        };
        self.out.string(c::CHAIN_TABLE, &table.name);
        self.out.string(attr, name);
        self.out.end(open);
    }

    fn chain(&mut self, base: Option<&Base>, comment: Option<&str>) {
        if let Some(base) = base {
            let hook = self.out.nest(c::CHAIN_HOOK);
            self.out.be32(c::HOOK_HOOKNUM, base.hook.number());
            self.out
                .be32(c::HOOK_PRIORITY, base.priority.cast_unsigned());
            self.out.close(hook);
            self.out.be32(c::CHAIN_POLICY, c::NF_ACCEPT);
            self.out.string(c::CHAIN_TYPE, base.kind.name());
        }
        if let Some(comment) = comment {
            self.out
                .attr(c::CHAIN_USERDATA, &udata::of_comment(comment));
        }
    }

    fn rule(&mut self, place: usize, table: &TableId, chain: &str, rule: &Rule) {
        let flags = c::NLM_F_CREATE | c::NLM_F_APPEND;
        let open = self.message(place, table, c::NEWRULE, flags);
        self.out.string(c::RULE_TABLE, &table.name);
        self.out.string(c::RULE_CHAIN, chain);
        let list = self.out.nest(c::RULE_EXPRESSIONS);
        let mut exprs: Vec<Expr> = Vec::new();
        for statement in &rule.statements {
            lower::lower(&mut exprs, table.family, statement);
        }
        for expr in &exprs {
            expr.write(&mut self.out);
        }
        self.out.close(list);
        if let Some(comment) = &rule.comment {
            self.out.attr(c::RULE_USERDATA, &udata::of_comment(comment));
        }
        self.out.end(open);
    }

    fn elements<'a>(
        &mut self,
        (place, table, kind): (usize, &TableId, u16),
        name: &str,
        shape: Shape,
        elements: impl Iterator<Item = (&'a Key, &'a Data)>,
    ) {
        let flags = if kind == c::NEWSETELEM {
            c::NLM_F_CREATE
        } else {
            0
        };
        let mut elements = elements.peekable();
        while elements.peek().is_some() {
            let open = self.message(place, table, kind, flags);
            self.out.string(c::ELEM_LIST_TABLE, &table.name);
            self.out.string(c::ELEM_LIST_SET, name);
            let list = self.out.nest(c::ELEM_LIST_ELEMENTS);
            while self.out.nested_len(list) < MAX_LIST {
                let Some((key, data)) = elements.next() else {
                    break;
                };
                set::write_element(&mut self.out, shape, key, data);
            }
            self.out.close(list);
            self.out.end(open);
        }
    }
}
