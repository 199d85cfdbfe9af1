//! Asking for a table, and putting the answers together.

use std::collections::BTreeMap;

use super::attr::{Attrs, Message, Writer};
use super::consts as c;
use super::expr::Expr;
use super::raise::raise;
use super::set::{self, Edge, Element};
use super::udata;
use crate::table::Base;
use crate::{
    ChainType, Data, Digest, Family, Hook, Key, Name, Outline, Rule, Ruleset, Table, TableId,
};

/// A question to the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Every table of a family.
    Tables(Family),
    /// Every chain of a family.
    Chains(Family),
    /// The rules of a table.
    Rules(TableId),
    /// The rules of one chain.
    RulesOf(TableId, Name),
    /// The sets of a table, without their elements.
    Sets(TableId),
    /// The elements of a set.
    Elements(TableId, Name),
    /// The number of the ruleset's generation.
    Generation,
}

impl Request {
    /// The question as a message.
    #[must_use]
    pub fn encode(&self, seq: u32) -> Vec<u8> {
        let mut out = Writer::default();
        let (kind, family) = match self {
            Self::Tables(family) => (c::GETTABLE, family.number()),
            Self::Chains(family) => (c::GETCHAIN, family.number()),
            Self::Rules(table) | Self::RulesOf(table, _) => (c::GETRULE, table.family.number()),
            Self::Sets(table) => (c::GETSET, table.family.number()),
            Self::Elements(table, _) => (c::GETSETELEM, table.family.number()),
            Self::Generation => (c::GETGEN, 0),
        };
        let dump = if *self == Self::Generation {
            0
        } else {
            c::NLM_F_DUMP
        };
        let kind = c::NFNL_SUBSYS_NFTABLES << 8 | kind;
        let open = out.begin(kind, c::NLM_F_REQUEST | dump, seq, [family, 0, 0, 0]);
        match self {
            Self::Tables(_) | Self::Chains(_) | Self::Generation => {}
            Self::Rules(table) => out.string(c::RULE_TABLE, &table.name),
            Self::RulesOf(table, chain) => {
                out.string(c::RULE_TABLE, &table.name);
                out.string(c::RULE_CHAIN, chain);
            }
            Self::Sets(table) => out.string(c::SET_TABLE, &table.name),
            Self::Elements(table, set) => {
                out.string(c::ELEM_LIST_TABLE, &table.name);
                out.string(c::ELEM_LIST_SET, set);
            }
        }
        out.end(open);
        out.bytes
    }
}

/// Tables being put together from messages that tell of what there is.
#[derive(Default)]
pub struct Dump {
    ruleset: Ruleset,
    edges: BTreeMap<(TableId, Name), Vec<Edge>>,
    generation: Option<u32>,
    learned: bool,
    /// What sets hold, when that is all one wants to know.
    digests: Option<BTreeMap<(TableId, Name), Digest>>,
    /// How much the kernel says a table holds, and how many chains were seen that
    /// have no name and go with their rules.
    held: BTreeMap<TableId, (u32, u32)>,
}

impl Dump {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same, for what rules put into dynamic sets too.
    #[must_use]
    pub fn with_learned() -> Self {
        Self {
            learned: true,
            ..Self::default()
        }
    }

    /// The same, for [`Dump::outline`]: elements are not kept.
    #[must_use]
    pub fn outlining() -> Self {
        Self {
            digests: Some(BTreeMap::new()),
            ..Self::default()
        }
    }

    /// Take a message. Those that tell of nothing known are left aside: elements
    /// of unknown sets, chains of unknown tables.
    pub fn take(&mut self, message: &Message<'_>) {
        if message.kind >> 8 != c::NFNL_SUBSYS_NFTABLES {
            return;
        }
        let Some((&[family, _, _, _], attrs)) = message.body.split_first_chunk::<4>() else {
            return;
        };
        let attrs = Attrs::new(attrs);
        let kind = message.kind & 0xff;
        if kind == c::NEWGEN {
            self.generation = attrs.be32(c::GEN_ID);
        }
        let Some(family) = Family::from_number(family) else {
            return;
        };
        // The first attribute of every message names the table.
        let Some(name) = attrs.string(c::TABLE_NAME) else {
            return;
        };
        let id = TableId::new(family, name);
        if kind == c::NEWTABLE {
            if let Some(held) = attrs.be32(c::TABLE_USE) {
                self.held.insert(id.clone(), (held, 0));
            }
            let table = self.ruleset.tables.entry(id).or_default();
            table.comment = attrs.get(c::TABLE_USERDATA).and_then(udata::comment);
            return;
        }
        let Some(table) = self.ruleset.tables.get_mut(&id) else {
            return;
        };
        let bound = match kind {
            c::NEWCHAIN => attrs.be32(c::CHAIN_FLAGS).unwrap_or(0) & c::CHAIN_BINDING,
            c::NEWSET => attrs.be32(c::SET_FLAGS).unwrap_or(0) & c::SET_ANONYMOUS,
            _ => 0,
        };
        if bound != 0 {
            // The kernel counts such chains, but not such sets (Linux 6.18).
            if kind == c::NEWCHAIN
                && let Some((_, nameless)) = self.held.get_mut(&id)
            {
                *nameless += 1;
            }
            return;
        }
        match kind {
            c::NEWCHAIN => take_chain(table, &attrs),
            c::NEWRULE => take_rule(table, family, &attrs),
            c::NEWSET => {
                if let Some((name, set)) = set::read(family, &attrs) {
                    table.sets.insert(name, set);
                }
            }
            c::NEWSETELEM => self.take_elements(&id, &attrs),
            _ => {}
        }
    }

    fn take_elements(&mut self, id: &TableId, attrs: &Attrs<'_>) {
        let Some(name) = attrs.string(c::ELEM_LIST_SET) else {
            return;
        };
        let Some(table) = self.ruleset.tables.get_mut(id) else {
            return;
        };
        let Some(set) = table.sets.get_mut(name) else {
            return;
        };
        // What rules put into a set is not a part of the ruleset.
        let Some(list) = attrs
            .inside(c::ELEM_LIST_ELEMENTS)
            .filter(|_| self.learned || !set.flags.dynamic)
        else {
            return;
        };
        let shape = set.shape();
        let mut digest = Digest::default();
        for (_, element) in list {
            match set::read_element(shape, &Attrs::new(element)) {
                Some(Element::Whole(key, data)) if self.digests.is_some() => {
                    digest.add(&key, &data);
                }
                Some(Element::Whole(key, data)) => {
                    set.elements.insert(key, data);
                }
                Some(Element::Edge(edge)) => {
                    let key = (id.clone(), Name::from(name));
                    self.edges.entry(key).or_default().push(edge);
                }
                None => {}
            }
        }
        if let Some(digests) = &mut self.digests {
            let place = (id.clone(), Name::from(name));
            digests.entry(place).or_default().extend(digest);
        }
    }

    /// The sets that are known, whose elements can be asked for.
    #[must_use]
    pub fn sets(&self) -> Vec<(TableId, Name)> {
        let mut sets = Vec::new();
        for (id, table) in &self.ruleset.tables {
            for (name, set) in &table.sets {
                if !set.flags.dynamic {
                    sets.push((id.clone(), name.clone()));
                }
            }
        }
        sets
    }

    /// Whether no table is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ruleset.tables.is_empty()
    }

    /// Forget every table but this one.
    pub fn keep(&mut self, id: &TableId) {
        self.ruleset.tables.retain(|found, _| found == id);
    }

    /// The generation, if a message told of it.
    #[must_use]
    pub fn generation(&self) -> Option<u32> {
        self.generation
    }

    /// The outline of a table, if it is there.
    #[must_use]
    pub fn outline(mut self, id: &TableId) -> Option<Outline> {
        let digests = self.digests.take().unwrap_or_default();
        let mut outline = Outline::of(self.finish().tables.remove(id)?);
        for ((_, set), digest) in digests.into_iter().filter(|((table, _), _)| table == id) {
            outline.extend(&set, digest);
        }
        Some(outline)
    }

    /// What the messages told.
    #[must_use]
    pub fn finish(mut self) -> Ruleset {
        for ((id, name), edges) in self.edges {
            let table = self.ruleset.tables.get_mut(&id);
            if let Some(set) = table.and_then(|table| table.sets.get_mut(&name)) {
                set.elements.extend::<Vec<(Key, Data)>>(set::join(edges));
            }
        }
        for (id, (held, nameless)) in self.held {
            if let Some(table) = self.ruleset.tables.get_mut(&id) {
                let seen = table.chains.len() + table.sets.len();
                table.alien = usize::try_from(held - nameless.min(held)) != Ok(seen);
            }
        }
        self.ruleset
    }
}

fn take_chain(table: &mut Table, attrs: &Attrs<'_>) {
    let Some(name) = attrs.string(c::CHAIN_NAME) else {
        return;
    };
    let hook = attrs.inside(c::CHAIN_HOOK);
    let hooked = hook.is_some();
    let base = hook.and_then(|hook| {
        Some(Base {
            kind: match attrs.string(c::CHAIN_TYPE)? {
                "filter" => ChainType::Filter,
                "nat" => ChainType::Nat,
                _ => return None,
            },
            hook: Hook::from_number(hook.be32(c::HOOK_HOOKNUM)?)?,
            priority: hook.be32(c::HOOK_PRIORITY)?.cast_signed(),
        })
    });
    let chain = table.chains.entry(name.into()).or_default();
    let accepts = attrs
        .be32(c::CHAIN_POLICY)
        .is_none_or(|policy| policy == c::NF_ACCEPT);
    chain.alien = hooked && (base.is_none() || !accepts);
    chain.base = base;
    chain.comment = attrs.get(c::CHAIN_USERDATA).and_then(udata::comment);
}

fn take_rule(table: &mut Table, family: Family, attrs: &Attrs<'_>) {
    let Some(chain) = attrs.string(c::RULE_CHAIN) else {
        return;
    };
    let Some(list) = attrs.inside(c::RULE_EXPRESSIONS) else {
        return;
    };
    let exprs: Vec<Expr> = list
        .map(|(_, element)| Expr::read(&Attrs::new(element)))
        .collect();
    let rule = Rule {
        statements: raise(family, &exprs),
        comment: attrs.get(c::RULE_USERDATA).and_then(udata::comment),
    };
    // That of a chain without a name goes with the rule that leads there.
    if let Some(chain) = table.chains.get_mut(chain) {
        chain.rules.push(rule);
    }
}
