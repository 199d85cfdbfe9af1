//! In which order elements come and go, so that a batch may be cut anywhere.
//!
//! A packet looks sets up one after another, and the first that has an answer
//! decides. From that follows what is safe when only a part of a batch is there:
//!
//! - What leads on ([verdict maps](crate::SetData::Verdict)) comes in the order in
//!   which packets look it up and goes in the opposite one: a frontend is refused or
//!   forwarded before what lies behind it takes what is left over, and the other way
//!   round when it goes.
//! - What is only asked for (sets, data maps) comes before anything that leads to it
//!   and goes after it. Among each other these come from the last asked to the first
//!   and go from the first to the last: the second set of a rule says who is exempt
//!   from the first.
//! - What takes the place of something comes together with its end.
//!
//! So while a batch is under way, each packet is treated as before or as after.

use std::collections::{BTreeMap, BTreeSet};

use crate::{Batch, Data, Hook, Key, Name, Shape, Statement, Table, TableId};

/// The most elements that are deleted and added again in one pair of steps.
const REPLACE_AT_ONCE: usize = 512;

/// When packets look sets up: the place of each set among all.
#[derive(Clone, Debug, Default)]
pub struct Lookups(BTreeMap<Name, usize>);

impl Lookups {
    /// The order in which the rules of a table look its sets up: by hook and priority,
    /// then by rule, into the chains that rules lead to.
    #[must_use]
    pub fn of(table: &Table) -> Self {
        let mut hooks: Vec<_> = table
            .chains
            .iter()
            .filter_map(|(name, chain)| {
                let base = chain.base?;
                // What is sent from here looks up a part of what comes in from outside
                // does, which has the whole order.
                let sent = base.hook == Hook::Output;
                Some((stage(base.hook), base.priority, sent, name))
            })
            .collect();
        hooks.sort_unstable();
        let mut walk = Walk {
            table,
            order: Self::default(),
            seen: BTreeSet::new(),
        };
        for (.., chain) in hooks {
            walk.chain(chain);
        }
        walk.order
    }

    /// Sets that only elements lead to come last.
    fn place(&self, set: &str) -> usize {
        self.0.get(set).copied().unwrap_or(usize::MAX)
    }
}

fn stage(hook: Hook) -> u8 {
    match hook {
        Hook::Prerouting | Hook::Output => 0,
        Hook::Input | Hook::Forward => 1,
        Hook::Postrouting => 2,
    }
}

struct Walk<'a> {
    table: &'a Table,
    order: Lookups,
    seen: BTreeSet<&'a Name>,
}

impl<'a> Walk<'a> {
    fn chain(&mut self, name: &'a Name) {
        let Some(chain) = self.table.chains.get(name) else {
            return;
        };
        if !self.seen.insert(name) {
            return;
        }
        for statement in chain.rules.iter().flat_map(|rule| &rule.statements) {
            if let Some(set) = statement.set() {
                let next = self.order.0.len();
                self.order.0.entry(set.clone()).or_insert(next);
            }
            if let Statement::Verdict(verdict) = statement
                && let Some(to) = verdict.chain()
            {
                self.chain(to);
            }
        }
    }
}

/// What changes in one set.
#[derive(Clone, Debug)]
pub struct SetChange {
    /// How the set keeps its keys.
    pub shape: Shape,
    /// Whether its elements are verdicts.
    pub leads_on: bool,
    /// Keys that go.
    pub removed: Vec<Key>,
    /// Elements whose data changes.
    pub replaced: Vec<(Key, Data)>,
    /// Elements that come.
    pub added: Vec<(Key, Data)>,
}

impl SetChange {
    /// No change of such a set.
    #[must_use]
    pub fn new(shape: Shape, leads_on: bool) -> Self {
        Self {
            shape,
            leads_on,
            removed: Vec::new(),
            replaced: Vec::new(),
            added: Vec::new(),
        }
    }
}

/// The changes of a table's sets, to be put into a batch part by part.
#[derive(Debug)]
pub struct SetChanges {
    table: TableId,
    changes: Vec<(Name, SetChange)>,
}

impl SetChanges {
    /// These changes, in the order of the lookups.
    #[must_use]
    pub fn new(
        table: TableId,
        lookups: &Lookups,
        changes: impl IntoIterator<Item = (Name, SetChange)>,
    ) -> Self {
        let mut changes: Vec<_> = changes.into_iter().collect();
        changes.sort_by(|(a, _), (b, _)| {
            let place = |set: &Name| lookups.place(set);
            place(a).cmp(&place(b)).then_with(|| a.cmp(b))
        });
        Self { table, changes }
    }

    /// What is only asked for comes.
    pub fn asked_come(&mut self, batch: &mut Batch) {
        for (set, change) in self.changes.iter_mut().rev() {
            if !change.leads_on {
                come(batch, &self.table, set, change);
            }
        }
    }

    /// What leads on comes.
    pub fn leading_come(&mut self, batch: &mut Batch) {
        for (set, change) in &mut self.changes {
            if change.leads_on {
                come(batch, &self.table, set, change);
            }
        }
    }

    /// What goes: first what leads on, then what is asked for.
    pub fn go(self, batch: &mut Batch) {
        let (leading, asked): (Vec<_>, Vec<_>) = self
            .changes
            .into_iter()
            .partition(|(_, change)| change.leads_on);
        for (set, change) in leading.into_iter().rev().chain(asked) {
            batch.delete_elements(&self.table, &set, change.shape, change.removed);
        }
    }
}

/// Replaces and adds. Ranges that are in the way of new ones go with it.
fn come(batch: &mut Batch, table: &TableId, set: &Name, change: &mut SetChange) {
    let shape = change.shape;
    for some in std::mem::take(&mut change.replaced).chunks(REPLACE_AT_ONCE) {
        let keys = some.iter().map(|(key, _)| key.clone()).collect();
        batch.delete_elements(table, set, shape, keys);
        batch.add_elements(table, set, shape, some.to_vec());
    }
    let removed = std::mem::take(&mut change.removed);
    let (early, late) = match shape {
        Shape::Points => (Vec::new(), removed),
        Shape::Edges => (removed, Vec::new()),
        Shape::Boxes => in_the_way(removed, &change.added),
    };
    change.removed = late;
    let added = std::mem::take(&mut change.added);
    if early.is_empty() {
        batch.add_elements(table, set, shape, added);
        return;
    }
    // Both are one transaction, so no more than needed.
    let prefixes: BTreeSet<&[u8]> = early.iter().map(prefix).collect();
    let (with, alone): (Vec<_>, Vec<_>) = added
        .into_iter()
        .partition(|(key, _)| touches(&prefixes, key));
    batch.add_elements(table, set, shape, alone);
    batch.delete_elements(table, set, shape, early);
    batch.add_elements(table, set, shape, with);
}

/// The bytes that every tuple of a key begins with.
fn prefix(key: &Key) -> &[u8] {
    let (first, last) = (key.first().bytes(), key.last().bytes());
    let same = first.iter().zip(last).take_while(|(a, b)| a == b).count();
    first.get(..same).unwrap_or_default()
}

/// Whether a key may have a tuple in common with one of those that have these
/// prefixes: one of both prefixes begins with the other.
fn touches(prefixes: &BTreeSet<&[u8]>, key: &Key) -> bool {
    let own = prefix(key);
    let longer = prefixes.range(own..).next();
    longer.is_some_and(|longer| longer.starts_with(own))
        || (0..own.len()).any(|length| own.get(..length).is_some_and(|p| prefixes.contains(p)))
}

/// Parts keys into those that may overlap with a new one, and the others.
fn in_the_way(removed: Vec<Key>, added: &[(Key, Data)]) -> (Vec<Key>, Vec<Key>) {
    let prefixes: BTreeSet<&[u8]> = added.iter().map(|(key, _)| prefix(key)).collect();
    removed.into_iter().partition(|key| touches(&prefixes, key))
}
