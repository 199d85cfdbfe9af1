//! What must happen so that one ruleset becomes another.
//!
//! A difference has three parts. New sets and chains come with all that is in them,
//! while nothing leads there. What was there before is switched over: its elements and
//! rules come and go, and the base chains change. Sets and chains that are no longer
//! used go last. Where packets may be on their way, a transaction ends between the parts
//! ([`Op::Commit`]), so that each packet is treated as before or as after if the second
//! part fits into one transaction.
//!
//! In case it does not, the order of the steps makes every state in between a safe one:
//! what is looked up comes before what looks it up (see [`crate::order`]), and goes after
//! it; base chains change when all they need is there. A start from nothing takes effect
//! with its last transaction.
//!
//! A changed chain is flushed and written again, in one transaction. What cannot
//! be changed in place (a set's declaration, a base chain's hook) is deleted and
//! made again. Where a chain that others lead to is in the way, all chains are
//! taken away and made again, and all sets but those that packets fill and that
//! stay as they are; where the table itself is not ours to change, it goes whole.

use std::collections::{BTreeMap, BTreeSet};

use crate::order::{Lookups, SetChange, SetChanges};
use crate::{Batch, Chain, Data, Key, Name, Op, Ruleset, Set, SetData, Table, TableId};

/// The batch that makes `to` of `from`.
///
/// Elements of dynamic sets belong to the packets and are left alone.
#[must_use]
pub fn diff(from: &Ruleset, to: &Ruleset) -> Batch {
    diff_into(from, to.clone())
}

/// The batch that makes `to` of `from`, like [`diff`]. The elements of new sets
/// move into the batch instead of being copied: a start from nothing needs the
/// memory of one image, not of two.
#[must_use]
pub fn diff_into(from: &Ruleset, to: Ruleset) -> Batch {
    let mut batch = Batch::new();
    for id in from.tables.keys().filter(|id| !to.tables.contains_key(*id)) {
        batch.push(id, Op::DeleteTable);
    }
    let nothing = Table::default();
    for (id, mut new) in to.tables {
        let id = &id;
        let razed;
        let old = match from.tables.get(id) {
            Some(old) if chains_fit(old, &new) && can_stay(old, &new) => old,
            Some(old) if can_stay(old, &new) => {
                razed = raze(id, old, &new, &mut batch);
                &razed
            }
            old => {
                if old.is_some() {
                    batch.push(id, Op::DeleteTable);
                }
                batch.push(
                    id,
                    Op::AddTable {
                        comment: new.comment.clone(),
                    },
                );
                &nothing
            }
        };
        let fresh = take_fresh(old, &mut new);
        Differ {
            id,
            old,
            new: &new,
            is_start: std::ptr::eq(old, &nothing),
            fresh,
            batch: &mut batch,
        }
        .run();
    }
    batch
}

/// Takes the elements of the sets that the old table does not have.
fn take_fresh(old: &Table, new: &mut Table) -> BTreeMap<Name, BTreeMap<Key, Data>> {
    let sets = new.sets.iter_mut();
    sets.filter(|(name, set)| !set.flags.dynamic && !old.sets.contains_key(*name))
        .map(|(name, set)| (name.clone(), std::mem::take(&mut set.elements)))
        .collect()
}

/// Whether a table can become another without being made anew: its comment cannot
/// be changed, and what this language lacks cannot be taken out.
fn can_stay(old: &Table, new: &Table) -> bool {
    old.comment == new.comment && !old.alien
}

/// Whether chains can become others one by one: the declaration of one that others
/// lead to cannot be changed.
fn chains_fit(old: &Table, new: &Table) -> bool {
    let same_kind = |old: &Chain, new: &Chain| {
        old.same_declaration(new) || (old.base.is_some() && new.base.is_some())
    };
    old.chains.iter().all(|(name, chain)| {
        new.chains
            .get(name)
            .is_none_or(|wanted| same_kind(chain, wanted))
    })
}

/// Takes everything out of a table but what packets have put into sets that stay
/// as they are; what is left.
fn raze(id: &TableId, old: &Table, new: &Table, batch: &mut Batch) -> Table {
    let stays = |name: &Name, set: &Set| {
        let wanted = new.sets.get(name);
        set.flags.dynamic
            && set.data != SetData::Verdict
            && wanted.is_some_and(|wanted| wanted.same_declaration(set))
    };
    let (kept, gone): (BTreeMap<_, _>, _) = old
        .sets
        .clone()
        .into_iter()
        .partition(|(name, set)| stays(name, set));
    for chain in old.chains.keys().cloned() {
        batch.push(id, Op::FlushChain { chain });
    }
    for (name, set) in gone {
        empty(id, &name, &set, batch);
        batch.push(id, Op::DeleteSet { set: name });
    }
    for chain in old.chains.keys().cloned() {
        batch.push(id, Op::DeleteChain { chain });
    }
    Table {
        comment: old.comment.clone(),
        sets: kept,
        ..Table::default()
    }
}

/// Takes the elements of a map that leads on, before the map goes: kernels without
/// commit 628bd3e49cba (2023) forget where they lead only long after the map, and refuse
/// to delete these chains in the same transaction.
fn empty(id: &TableId, name: &Name, set: &Set, batch: &mut Batch) {
    if set.data == SetData::Verdict && !set.elements.is_empty() {
        let keys = set.elements.keys().cloned().collect();
        batch.delete_elements(id, name, set.shape(), keys);
    }
}

/// What changes in sets, by their names.
type Changes = Vec<(Name, SetChange)>;

struct Differ<'a> {
    id: &'a TableId,
    old: &'a Table,
    new: &'a Table,
    /// No packet meets a rule of the table yet.
    is_start: bool,
    /// The elements of new sets, which are no longer in `new`.
    fresh: BTreeMap<Name, BTreeMap<Key, Data>>,
    batch: &'a mut Batch,
}

impl Differ<'_> {
    fn push(&mut self, op: Op) {
        self.batch.push(self.id, op);
    }

    fn run(&mut self) {
        let remade: BTreeSet<Name> = self.remade_sets();
        let changed: BTreeSet<Name> = self.changed_chains(&remade);
        self.unhook(&remade, &changed);
        self.declare(&remade);
        // What is deleted and made again is missed in between: that is kept short.
        let in_parts = !self.is_start && !self.batch.makes_anew();
        let (came, there) = self.changes(&remade);
        let lookups = Lookups::of(self.new);
        // What nothing leads to yet.
        let mut came = SetChanges::new(self.id.clone(), &lookups, came);
        came.asked_come(self.batch);
        let old = self.old;
        let was_there = |name: &Name| old.chains.contains_key(name);
        self.rules(&changed, |name, chain| {
            chain.base.is_none() && !was_there(name)
        });
        came.leading_come(self.batch);
        if in_parts && self.brings_something() {
            self.push(Op::Commit);
        }
        // What packets meet.
        let mut there = SetChanges::new(self.id.clone(), &lookups, there);
        there.asked_come(self.batch);
        self.rules(&changed, |name, chain| {
            chain.base.is_none() && was_there(name)
        });
        there.leading_come(self.batch);
        self.rules(&changed, |_, chain| chain.base.is_some());
        self.flush_gone(|chain| chain.base.is_some());
        there.go(self.batch);
        if in_parts && self.ends_something() {
            self.push(Op::Commit);
        }
        // What nothing leads to any more.
        self.flush_gone(|chain| chain.base.is_none());
        self.delete_gone();
    }

    /// Whether there are sets or chains that were not there before.
    fn brings_something(&self) -> bool {
        let (old, new) = (self.old, self.new);
        let mut sets = new.sets.keys();
        let mut chains = new.chains.keys();
        sets.any(|name| !old.sets.contains_key(name))
            || chains.any(|name| !old.chains.contains_key(name))
    }

    /// Whether there were sets or chains that are no longer there.
    fn ends_something(&self) -> bool {
        let (old, new) = (self.old, self.new);
        let mut sets = old.sets.keys();
        let mut chains = old.chains.keys();
        sets.any(|name| !new.sets.contains_key(name))
            || chains.any(|name| !new.chains.contains_key(name))
    }

    /// Sets that are there but declared otherwise.
    fn remade_sets(&self) -> BTreeSet<Name> {
        let wanted = |name| self.new.sets.get(name);
        let sets = self.old.sets.iter();
        sets.filter(|(name, set)| wanted(*name).is_some_and(|new| !new.same_declaration(set)))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Chains whose rules must be written again.
    fn changed_chains(&self, remade: &BTreeSet<Name>) -> BTreeSet<Name> {
        let uses = |chain: &Chain| {
            let mut statements = chain.rules.iter().flat_map(|rule| &rule.statements);
            statements.any(|statement| statement.set().is_some_and(|set| remade.contains(set)))
        };
        let chains = self.new.chains.iter();
        chains
            .filter(|(name, chain)| {
                self.old
                    .chains
                    .get(*name)
                    .is_none_or(|old| old != *chain || uses(chain))
            })
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Take away what stands in the way of making things anew.
    fn unhook(&mut self, remade: &BTreeSet<Name>, changed: &BTreeSet<Name>) {
        let old = self.old;
        if !remade.is_empty() {
            for name in old
                .chains
                .keys()
                .filter(|name| changed.contains(*name) || !self.new.chains.contains_key(*name))
            {
                self.batch.push(
                    self.id,
                    Op::FlushChain {
                        chain: name.clone(),
                    },
                );
            }
        }
        for set in remade {
            self.push(Op::DeleteSet { set: set.clone() });
        }
        for (name, chain) in &old.chains {
            let Some(wanted) = self.new.chains.get(name) else {
                continue;
            };
            if !chain.same_declaration(wanted) {
                self.push(Op::FlushChain {
                    chain: name.clone(),
                });
                self.push(Op::DeleteChain {
                    chain: name.clone(),
                });
                self.add_chain(name, wanted);
            }
        }
    }

    fn add_chain(&mut self, name: &Name, chain: &Chain) {
        self.push(Op::AddChain {
            chain: name.clone(),
            base: chain.base,
            comment: chain.comment.clone(),
        });
    }

    fn declare(&mut self, remade: &BTreeSet<Name>) {
        let (old, new) = (self.old, self.new);
        for (name, set) in &new.sets {
            if remade.contains(name) || !old.sets.contains_key(name) {
                let declaration = set.declaration();
                self.push(Op::AddSet {
                    set: name.clone(),
                    declaration,
                });
            }
        }
        for (name, chain) in &new.chains {
            if !old.chains.contains_key(name) {
                self.add_chain(name, chain);
            }
        }
    }

    /// The elements of the old set that the new one can keep.
    fn kept<'b>(&'b self, remade: &BTreeSet<Name>, name: &Name) -> &'b BTreeMap<Key, Data> {
        static NONE: BTreeMap<Key, Data> = BTreeMap::new();
        let old = self.old.sets.get(name).filter(|_| !remade.contains(name));
        old.map_or(&NONE, |set| &set.elements)
    }

    /// What comes with new sets and those that are made anew, and what changes in the
    /// others.
    fn changes(&mut self, remade: &BTreeSet<Name>) -> (Changes, Changes) {
        let (old, new) = (self.old, self.new);
        let is_new = |name: &Name| !old.sets.contains_key(name) || remade.contains(name);
        let sets = new.sets.iter().filter(|(_, set)| !set.flags.dynamic);
        let changes = sets.map(|(name, set)| {
            let mut change = SetChange::new(set.shape(), set.data == SetData::Verdict);
            if let Some(all) = self.fresh.remove(name) {
                change.added = all.into_iter().collect();
                return (name.clone(), change);
            }
            let old = self.kept(remade, name);
            for (key, data) in &set.elements {
                match old.get(key) {
                    None => change.added.push((key.clone(), data.clone())),
                    Some(there) if there == data => {}
                    Some(_) => change.replaced.push((key.clone(), data.clone())),
                }
            }
            change.removed = gone(old, set);
            (name.clone(), change)
        });
        changes.partition(|(name, _)| is_new(name))
    }

    fn rules(&mut self, changed: &BTreeSet<Name>, which: impl Fn(&Name, &Chain) -> bool) {
        let (old, new) = (self.old, self.new);
        for (name, chain) in &new.chains {
            if !changed.contains(name) || !which(name, chain) {
                continue;
            }
            if old
                .chains
                .get(name)
                .is_some_and(|old| !old.rules.is_empty())
            {
                self.push(Op::FlushChain {
                    chain: name.clone(),
                });
            }
            for rule in &chain.rules {
                self.push(Op::AddRule {
                    chain: name.clone(),
                    rule: rule.clone(),
                });
            }
        }
    }

    fn flush_gone(&mut self, which: fn(&Chain) -> bool) {
        let old = self.old;
        for (name, chain) in old.chains.iter().filter(|(_, chain)| which(chain)) {
            if !self.new.chains.contains_key(name) && !chain.rules.is_empty() {
                self.push(Op::FlushChain {
                    chain: name.clone(),
                });
            }
        }
    }

    fn delete_gone(&mut self) {
        let old = self.old;
        for (name, set) in &old.sets {
            if !self.new.sets.contains_key(name) {
                empty(self.id, name, set, self.batch);
                self.batch
                    .push(self.id, Op::DeleteSet { set: name.clone() });
            }
        }
        for name in old
            .chains
            .keys()
            .filter(|name| !self.new.chains.contains_key(*name))
        {
            self.batch.push(
                self.id,
                Op::DeleteChain {
                    chain: name.clone(),
                },
            );
        }
    }
}

fn gone(old: &BTreeMap<Key, Data>, new: &Set) -> Vec<Key> {
    old.keys()
        .filter(|key| !new.elements.contains_key(*key))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ChainType, Family, Field, Hook, Rule, Verdict};

    fn table(chains: &[(&str, Chain)], sets: &[(&str, Set)]) -> Ruleset {
        let table = Table {
            chains: chains
                .iter()
                .map(|(name, chain)| ((*name).into(), chain.clone()))
                .collect(),
            sets: sets
                .iter()
                .map(|(name, set)| ((*name).into(), set.clone()))
                .collect(),
            ..Table::default()
        };
        Ruleset::new().with(TableId::new(Family::Ip, "t"), table)
    }

    #[test]
    fn a_chain_of_another_kind_is_made_anew_and_what_packets_learnt_stays() {
        let memory = || Set::map([Field::Saddr], [Field::Daddr]).dynamic(10, 1000);
        let services = |to: &str| {
            let verdict = Data::Verdict(Verdict::Goto(to.into()));
            let key = [crate::Value::Port(80)];
            Set::vmap([Field::Dport]).with(key, verdict)
        };
        let jump = Rule::new().verdict(Verdict::Jump("a".into()));
        let hooked = |rules: Vec<Rule>| Chain::base(ChainType::Filter, Hook::Input, 0, rules);
        let old = table(
            &[("a", Chain::regular([])), ("b", hooked(vec![jump]))],
            &[("memory", memory()), ("services", services("a"))],
        );
        let new = table(
            &[("a", hooked(Vec::new())), ("c", Chain::regular([]))],
            &[("memory", memory()), ("services", services("c"))],
        );
        for (from, to) in [(&old, &new), (&new, &old)] {
            let batch = diff(from, to);
            let memory: Name = "memory".into();
            let remakes = |op: &Op| {
                *op == Op::DeleteTable
                    || matches!(op, Op::DeleteSet { set } if *set == memory)
                    || matches!(op, Op::AddSet { set, .. } if *set == memory)
            };
            let remade = batch.steps.iter().any(|step| remakes(&step.op));
            assert!(!remade, "{batch:?}");
            assert!(batch.makes_anew());
            let mut made = from.clone();
            made.apply(&batch).unwrap();
            assert_eq!(made, *to);
        }
    }
}
