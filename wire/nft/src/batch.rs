//! Batches: ordered changes of a ruleset, committed as one transaction.

use std::collections::BTreeSet;

use crate::{Base, Chain, Data, Key, Name, Rule, Ruleset, Set, Shape, Statement, Table, TableId};

/// A change of one table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Make the table; nothing happens if it is there.
    AddTable {
        /// Its comment.
        comment: Option<String>,
    },
    /// Remove the table and everything in it.
    DeleteTable,
    /// Make an empty chain.
    AddChain {
        /// Its name.
        chain: Name,
        /// Its hook, of a base chain.
        base: Option<Base>,
        /// Its comment.
        comment: Option<String>,
    },
    /// Remove every rule of a chain.
    FlushChain {
        /// The chain.
        chain: Name,
    },
    /// Remove an empty chain to which nothing leads.
    DeleteChain {
        /// The chain.
        chain: Name,
    },
    /// Put a rule at the end of a chain.
    AddRule {
        /// The chain.
        chain: Name,
        /// The rule.
        rule: Rule,
    },
    /// Remove one rule of somebody else's chain, by its number. Ours have none: a
    /// chain is written again as a whole.
    DeleteRule {
        /// The chain.
        chain: Name,
        /// The rule's number in its table.
        handle: u64,
    },
    /// Make a set; its elements are not a part of this.
    AddSet {
        /// Its name.
        set: Name,
        /// Its declaration.
        declaration: Set,
    },
    /// Remove a set that no rule names.
    DeleteSet {
        /// The set.
        set: Name,
    },
    /// Add elements whose keys are not there.
    AddElements {
        /// The set.
        set: Name,
        /// [`Set::shape`] of the set.
        shape: Shape,
        /// The elements.
        elements: Vec<(Key, Data)>,
    },
    /// Remove elements that are there.
    DeleteElements {
        /// The set.
        set: Name,
        /// [`Set::shape`] of the set.
        shape: Shape,
        /// The keys.
        keys: Vec<Key>,
    },
    /// What comes before is committed before what comes after.
    ///
    /// The kernel makes a transaction effective at once, but for packets on their way:
    /// one that was there before finds new chains empty, and while the kernel works
    /// through the transaction a new set of ranges has no elements yet. So nothing may
    /// lead to what came in the same transaction, if packets are on their way there; and
    /// what nothing leads to any more is emptied after that.
    Commit,
}

/// An operation and the table it changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The table.
    pub table: TableId,
    /// What happens to it.
    pub op: Op,
}

/// Changes in their order. All of them happen, or none.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Batch {
    /// The changes.
    pub steps: Vec<Step>,
}

/// Why a batch cannot be applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApplyError {
    /// The step that failed, by its place in the batch.
    pub step: usize,
    /// What is wrong with it.
    pub message: String,
}

impl Batch {
    /// Nothing to do.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty()
    }

    /// Add elements to a set of this shape at the end; nothing for no elements.
    pub fn add_elements(
        &mut self,
        table: &TableId,
        set: &Name,
        shape: Shape,
        elements: Vec<(Key, Data)>,
    ) {
        if !elements.is_empty() {
            self.push(
                table,
                Op::AddElements {
                    set: set.clone(),
                    shape,
                    elements,
                },
            );
        }
    }

    /// Delete elements of a set of this shape at the end; nothing for no keys.
    pub fn delete_elements(&mut self, table: &TableId, set: &Name, shape: Shape, keys: Vec<Key>) {
        if !keys.is_empty() {
            self.push(
                table,
                Op::DeleteElements {
                    set: set.clone(),
                    shape,
                    keys,
                },
            );
        }
    }

    /// Add a step at the end.
    pub fn push(&mut self, table: &TableId, op: Op) {
        self.steps.push(Step {
            table: table.clone(),
            op,
        });
    }

    /// Whether something is deleted and made again: between the two it is missed, so
    /// that such a batch is better not cut.
    #[must_use]
    pub fn makes_anew(&self) -> bool {
        let mut deleted: BTreeSet<(&TableId, bool, &Name)> = BTreeSet::new();
        self.steps.iter().any(|Step { table, op }| {
            if let Op::DeleteChain { chain } = op {
                deleted.insert((table, true, chain));
                false
            } else if let Op::DeleteSet { set } = op {
                deleted.insert((table, false, set));
                false
            } else if let Op::AddChain { chain, .. } = op {
                deleted.contains(&(table, true, chain))
            } else if let Op::AddSet { set, .. } = op {
                deleted.contains(&(table, false, set))
            } else {
                *op == Op::DeleteTable
            }
        })
    }

    /// Add the steps of another batch at the end.
    pub fn extend(&mut self, other: Self) {
        self.steps.extend(other.steps);
    }
}

impl std::fmt::Display for ApplyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "step {}: {}", self.step, self.message)
    }
}

impl std::error::Error for ApplyError {}

impl Ruleset {
    /// Make the changes of a batch, up to the first that fails.
    ///
    /// # Errors
    ///
    /// If the kernel would refuse a step; the kernel then makes none of the changes.
    pub fn apply(&mut self, batch: &Batch) -> Result<(), ApplyError> {
        for (place, step) in batch.steps.iter().enumerate() {
            self.step(step).map_err(|message| ApplyError {
                step: place,
                message,
            })?;
        }
        Ok(())
    }

    fn step(&mut self, step: &Step) -> Result<(), String> {
        if let Op::AddTable { comment } = &step.op {
            let table = self.tables.entry(step.table.clone());
            table.or_insert_with(|| Table {
                comment: comment.clone(),
                ..Table::default()
            });
            return Ok(());
        }
        if step.op == Op::DeleteTable {
            let gone = self.tables.remove(&step.table);
            return gone
                .map(|_| ())
                .ok_or_else(|| format!("no table {}", step.table));
        }
        let table = self.tables.get_mut(&step.table);
        table
            .ok_or_else(|| format!("no table {}", step.table))?
            .op(&step.op)
    }
}

impl Table {
    fn op(&mut self, op: &Op) -> Result<(), String> {
        match op {
            Op::AddTable { .. } | Op::DeleteTable | Op::Commit => Ok(()),
            Op::AddChain {
                chain,
                base,
                comment,
            } => {
                let new = Chain {
                    base: *base,
                    comment: comment.clone(),
                    ..Chain::default()
                };
                let there = self.chains.insert(chain.clone(), new);
                there.map_or(Ok(()), |_| Err(format!("chain {chain} exists")))
            }
            Op::FlushChain { chain } => {
                self.chain(chain)?.rules.clear();
                Ok(())
            }
            Op::DeleteChain { chain } => self.delete_chain(chain),
            Op::AddRule { chain, rule } => {
                for statement in &rule.statements {
                    self.check(statement)?;
                }
                self.chain(chain)?.rules.push(rule.clone());
                Ok(())
            }
            Op::DeleteRule { chain, handle } => {
                Err(format!("chain {chain}: no rule with the number {handle}"))
            }
            Op::AddSet { set, declaration } => {
                let there = self.sets.insert(set.clone(), declaration.declaration());
                there.map_or(Ok(()), |_| Err(format!("set {set} exists")))
            }
            Op::DeleteSet { set } => self.delete_set(set),
            Op::AddElements { set, elements, .. } => self.add_elements(set, elements),
            Op::DeleteElements { set, keys, .. } => {
                let there = &mut self.set(set)?.elements;
                for key in keys {
                    there
                        .remove(key)
                        .ok_or_else(|| format!("set {set}: no {key:?}"))?;
                }
                Ok(())
            }
        }
    }

    fn delete_chain(&mut self, chain: &Name) -> Result<(), String> {
        if !self.chain(chain)?.rules.is_empty() {
            return Err(format!("chain {chain} is not empty"));
        }
        if self.leads_to(chain) {
            return Err(format!("chain {chain} is in use"));
        }
        self.chains.remove(chain);
        Ok(())
    }

    fn delete_set(&mut self, set: &Name) -> Result<(), String> {
        let rules = self.chains.values().flat_map(|chain| &chain.rules);
        let mut statements = rules.flat_map(|rule| &rule.statements);
        if statements.any(|statement| statement.set() == Some(set)) {
            return Err(format!("set {set} is in use"));
        }
        self.sets
            .remove(set)
            .map(|_| ())
            .ok_or_else(|| format!("no set {set}"))
    }

    fn add_elements(&mut self, set: &Name, elements: &[(Key, Data)]) -> Result<(), String> {
        for (key, data) in elements {
            if let Some(chain) = data.chain() {
                self.chain(chain)?;
            }
            let there = self.set(set)?.elements.insert(key.clone(), data.clone());
            if there.is_some_and(|there| there != *data) {
                return Err(format!("set {set}: {key:?} is there with other data"));
            }
        }
        Ok(())
    }

    fn chain(&mut self, name: &Name) -> Result<&mut Chain, String> {
        self.chains
            .get_mut(name)
            .ok_or_else(|| format!("no chain {name}"))
    }

    fn set(&mut self, name: &Name) -> Result<&mut Set, String> {
        self.sets
            .get_mut(name)
            .ok_or_else(|| format!("no set {name}"))
    }

    /// Whether a rule or an element leads to this chain.
    fn leads_to(&self, name: &Name) -> bool {
        let rules = self.chains.values().flat_map(|chain| &chain.rules);
        let by_rule = rules.flat_map(|rule| &rule.statements).any(
            |statement| matches!(statement, Statement::Verdict(to) if to.chain() == Some(name)),
        );
        let mut elements = self.sets.values().flat_map(|set| set.elements.values());
        by_rule || elements.any(|data| data.chain() == Some(name))
    }

    /// What a statement names must be there.
    fn check(&mut self, statement: &Statement) -> Result<(), String> {
        if let Some(set) = statement.set() {
            self.set(set)?;
        }
        if let Statement::Verdict(verdict) = statement
            && let Some(chain) = verdict.chain()
        {
            self.chain(chain)?;
        }
        Ok(())
    }
}
