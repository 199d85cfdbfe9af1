//! Batches as transactions.

use super::attr::{Open, Writer};
use super::consts as c;
use super::expr::Expr;
use super::{lower, set, udata};
use std::collections::BTreeSet;

use crate::{Base, Batch, Data, Key, Name, Op, Rule, Shape, Step, TableId};

/// The longest list of elements in one message: an attribute's length has 16 bits.
const MAX_LIST: usize = 60_000;

/// A place in a batch: a step, and how many of its elements are before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Place {
    step: usize,
    element: usize,
}

/// Bytes for one `sendmsg`, which the kernel takes whole or refuses whole.
#[derive(Clone, Debug, Default)]
pub struct Transaction {
    /// The messages.
    pub bytes: Vec<u8>,
    /// The sequence number of the first message.
    first: u32,
    /// The batch's step that each message is from.
    steps: Vec<usize>,
    /// What of the batch it is.
    from: Place,
    until: Place,
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

    /// What of `batch`, from which it was written, is in this transaction.
    #[must_use]
    pub fn part(&self, batch: &Batch) -> Batch {
        let mut part = Batch::new();
        let steps = batch.steps.iter().enumerate();
        for (number, step) in steps.take(self.until.step + 1).skip(self.from.step) {
            let first = if number == self.from.step {
                self.from.element
            } else {
                0
            };
            let last = if number == self.until.step {
                self.until.element
            } else {
                usize::MAX
            };
            let Step { table, op } = step;
            if let Op::AddElements {
                set,
                shape,
                elements,
            } = op
            {
                let elements = elements.get(first..last.min(elements.len()));
                part.add_elements(table, set, *shape, elements.unwrap_or_default().to_vec());
            } else if let Op::DeleteElements { set, shape, keys } = op {
                let keys = keys.get(first..last.min(keys.len()));
                part.delete_elements(table, set, *shape, keys.unwrap_or_default().to_vec());
            } else if number < self.until.step {
                // A step without elements is in one transaction, where it begins.
                part.push(table, op.clone());
            }
        }
        part
    }

    /// The sequence number behind the last message.
    #[must_use]
    pub fn next_seq(&self) -> u32 {
        self.first
            .wrapping_add(self.steps.len() as u32)
            .wrapping_add(2)
    }
}

/// Write a batch as transactions of about `limit` bytes at most, one by one: no more
/// than one is in memory.
///
/// One transaction is best, and is what a large enough limit gives. Cuts fall
/// between steps and inside long lists of elements, but never between a chain's
/// flush and its rules, nor between the deletion and the addition of sets, chains
/// or a set's elements: what replaces something comes together with its end. A batch
/// whose steps are safe one after another stays safe when it is cut. [`Op::Commit`]
/// always ends a transaction.
///
/// `seq` is the first sequence number; `generation` makes the kernel refuse the
/// first transaction (ERESTART) if anybody changed the ruleset since.
pub fn encode(
    batch: &Batch,
    limit: usize,
    seq: u32,
    generation: Option<u32>,
) -> impl Iterator<Item = Transaction> {
    let mut encoder = Encoder {
        batch,
        unreached: unreached(batch),
        limit,
        place: Place::default(),
        out: Writer::default(),
        first: seq,
        steps: Vec::new(),
        glued: false,
        set_id: 0,
    };
    let mut generation = generation;
    std::iter::from_fn(move || encoder.transaction(generation.take()))
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
        | (Op::DeleteTable, _)
        | (
            Op::FlushChain { .. } | Op::DeleteSet { .. } | Op::DeleteChain { .. },
            Op::FlushChain { .. }
            | Op::DeleteSet { .. }
            | Op::DeleteChain { .. }
            | Op::AddSet { .. },
        ) => true,
        (Op::DeleteElements { set: old, .. }, Op::AddElements { set: new, .. }) => old == new,
        (_, _) => false,
    }
}

/// The chains that come with a batch and hang at no hook: no packet gets there before
/// what leads to them, so a transaction may end between two of them.
fn unreached(batch: &Batch) -> BTreeSet<(&TableId, &Name)> {
    let steps = batch.steps.iter();
    let come = steps.filter_map(|step| {
        let Op::AddChain {
            chain, base: None, ..
        } = &step.op
        else {
            return None;
        };
        Some((&step.table, chain))
    });
    come.collect()
}

/// The chain that a step fills or makes.
fn chain(step: &Step) -> Option<&Name> {
    let (Op::AddRule { chain, .. } | Op::AddChain { chain, .. }) = &step.op else {
        return None;
    };
    Some(chain)
}

struct Encoder<'a> {
    batch: &'a Batch,
    unreached: BTreeSet<(&'a TableId, &'a Name)>,
    limit: usize,
    /// What comes next.
    place: Place,
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

/// Where the next step begins.
fn after(place: Place) -> Place {
    Place {
        step: place.step + 1,
        element: 0,
    }
}

impl Encoder<'_> {
    /// The next transaction; none after the last.
    fn transaction(&mut self, generation: Option<u32>) -> Option<Transaction> {
        let from = self.place;
        let batch = self.batch;
        self.begin(generation);
        while let Some(step) = batch.steps.get(self.place.step) {
            let before = self.place.step.checked_sub(1);
            self.glued = before
                .and_then(|before| batch.steps.get(before))
                .is_some_and(|before| glued(before, step) && !self.apart(before, step));
            let ends = step.op == Op::Commit && !self.steps.is_empty();
            if step.op == Op::Commit {
                self.place = after(self.place);
                if ends {
                    break;
                }
                continue;
            }
            if !self.step(self.place.step, step) {
                break;
            }
            self.place = after(self.place);
        }
        self.finish(from)
    }

    fn begin(&mut self, generation: Option<u32>) {
        let header = nfgen(0, c::NFNL_SUBSYS_NFTABLES);
        let kind = c::NFNL_MSG_BATCH_BEGIN;
        let open = self.out.begin(kind, c::NLM_F_REQUEST, self.first, header);
        if let Some(generation) = generation {
            self.out.be32(c::NFNL_BATCH_GENID, generation);
        }
        self.out.end(open);
    }

    fn finish(&mut self, from: Place) -> Option<Transaction> {
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
            from,
            until: self.place,
        };
        self.first = transaction.next_seq();
        (!transaction.is_empty()).then_some(transaction)
    }

    /// The longest list of elements in one message.
    fn list(&self) -> usize {
        MAX_LIST.min(self.limit)
    }

    /// Whether the steps are about two chains of which the first is unreached.
    fn apart(&self, before: &Step, step: &Step) -> bool {
        chain(before).is_some_and(|own| {
            self.unreached.contains(&(&before.table, own)) && chain(step) != Some(own)
        })
    }

    /// Whether the next message belongs into a new transaction.
    fn is_full(&self) -> bool {
        let room = self.limit.saturating_sub(self.out.bytes.len());
        !self.glued && !self.steps.is_empty() && room < self.list()
    }

    /// Begin a message of a step.
    fn message(&mut self, step: usize, table: &TableId, kind: u16, flags: u16) -> Open {
        self.steps.push(step);
        let seq = self.first.wrapping_add(self.steps.len() as u32);
        let header = nfgen(table.family.number(), 0);
        let kind = c::NFNL_SUBSYS_NFTABLES << 8 | kind;
        self.out.begin(kind, c::NLM_F_REQUEST | flags, seq, header)
    }

    /// Write a step, or what there is room for; says whether that was all of it.
    fn step(&mut self, place: usize, step: &Step) -> bool {
        let table = &step.table;
        if let Op::AddElements {
            set,
            shape,
            elements,
        } = &step.op
        {
            let elements = elements.iter().map(|(key, data)| (key, data));
            return self.elements((place, table, c::NEWSETELEM), set, *shape, elements);
        }
        if let Op::DeleteElements { set, shape, keys } = &step.op {
            let elements = keys.iter().map(|key| (key, &Data::None));
            return self.elements((place, table, c::DELSETELEM), set, *shape, elements);
        }
        if self.is_full() {
            return false;
        }
        self.whole_step(place, table, &step.op);
        true
    }

    /// Write a step that is one message.
    fn whole_step(&mut self, place: usize, table: &TableId, op: &Op) {
        match op {
            // It is between transactions, not in one.
            Op::Commit => {}
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
            Op::DeleteRule { chain, handle } => {
                let open = self.message(place, table, c::DELRULE, 0);
                self.out.string(c::RULE_TABLE, &table.name);
                self.out.string(c::RULE_CHAIN, chain);
                self.out.be64(c::RULE_HANDLE, *handle);
                self.out.end(open);
            }
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
            // These are lists of messages.
            Op::AddElements { .. } | Op::DeleteElements { .. } => {}
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

    /// Write the elements that are not written yet, as far as there is room; says
    /// whether that was all.
    fn elements<'b>(
        &mut self,
        (place, table, kind): (usize, &TableId, u16),
        name: &str,
        shape: Shape,
        elements: impl Iterator<Item = (&'b Key, &'b Data)>,
    ) -> bool {
        let flags = if kind == c::NEWSETELEM {
            c::NLM_F_CREATE
        } else {
            0
        };
        let steps = self.batch.steps.get(place..).unwrap_or_default();
        let replaces = matches!(steps, [step, next, ..] if glued(step, next));
        let mut elements = elements.skip(self.place.element).peekable();
        while elements.peek().is_some() {
            if self.is_full() {
                return false;
            }
            let open = self.message(place, table, kind, flags);
            self.out.string(c::ELEM_LIST_TABLE, &table.name);
            self.out.string(c::ELEM_LIST_SET, name);
            let list = self.out.nest(c::ELEM_LIST_ELEMENTS);
            for (key, data) in elements.by_ref() {
                set::write_element(&mut self.out, shape, key, data);
                self.place.element += 1;
                if self.out.nested_len(list) >= self.list() {
                    break;
                }
            }
            self.out.close(list);
            self.out.end(open);
            self.glued |= replaces;
        }
        true
    }
}
