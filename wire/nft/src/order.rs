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

use crate::{Batch, Data, Hook, Key, Name, SetData, Shape, Statement, Table, TableId};

/// The most elements that are deleted and added again in one pair of steps.
const REPLACE_AT_ONCE: usize = 512;

/// When packets look sets up: the place of each set among all.
#[derive(Clone, Debug, Default)]
pub struct Lookups(BTreeMap<Name, usize>);

impl Lookups {
    /// The order in which the rules of a table look its sets up: by hook and priority,
    /// then by rule, into the chains that rules lead to. A verdict map that several base
    /// chains look up has its place behind those that any of them looks up before.
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
        let ways = hooks.into_iter().map(|(.., chain)| {
            let mut way = Walk {
                table,
                sets: Vec::new(),
                seen: BTreeSet::new(),
            };
            way.chain(chain);
            way.sets
        });
        let ways: Vec<Vec<&Name>> = ways.collect();
        let leads_on = |set: &&Name| {
            let set = table.sets.get(*set);
            set.is_some_and(|set| set.data == SetData::Verdict)
        };
        let leading = ways.iter().map(|way| {
            let sets = way.iter().copied();
            sets.filter(leads_on).collect()
        });
        // The two are never compared with each other.
        let leading = in_order(leading.collect());
        let all = leading.into_iter().chain(ways.into_iter().flatten());
        let mut order = Self::default();
        for set in all {
            let next = order.0.len();
            order.0.entry(set.clone()).or_insert(next);
        }
        order
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

/// A packet's way through one base chain, with all sets that it may look up.
struct Walk<'a> {
    table: &'a Table,
    sets: Vec<&'a Name>,
    seen: BTreeSet<&'a Name>,
}

impl<'a> Walk<'a> {
    fn chain(&mut self, name: &'a Name) {
        let Some((name, chain)) = self.table.chains.get_key_value(name) else {
            return;
        };
        if !self.seen.insert(name) {
            return;
        }
        for statement in chain.rules.iter().flat_map(|rule| &rule.statements) {
            if let Some(set) = statement.set()
                && !self.sets.contains(&set)
            {
                self.sets.push(set);
            }
            if let Statement::Verdict(verdict) = statement
                && let Some(to) = verdict.chain()
            {
                self.chain(to);
            }
        }
    }
}

/// All that lead on, as each of the ways has them, or as the first that has one where
/// ways differ: one that two base chains look up comes behind those that either looks up
/// before.
fn in_order(ways: Vec<Vec<&Name>>) -> Vec<&Name> {
    let mut waiting: Vec<&Name> = Vec::new();
    let mut before: BTreeMap<&Name, BTreeSet<&Name>> = BTreeMap::new();
    for way in ways {
        let mut earlier = None;
        for set in way {
            if !waiting.contains(&set) {
                waiting.push(set);
            }
            before.entry(set).or_default().extend(earlier.replace(set));
        }
    }
    let mut order: Vec<&Name> = Vec::new();
    while !waiting.is_empty() {
        let is_next = |set: &&Name| {
            let mut before = before.get(set).into_iter().flatten();
            before.all(|earlier| order.contains(earlier))
        };
        let next = waiting.iter().position(is_next).unwrap_or_default();
        order.push(waiting.remove(next));
    }
    order
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
