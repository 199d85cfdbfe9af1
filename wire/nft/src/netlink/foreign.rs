//! Other people's tables: which chains they have, and which rules lead to a chain.
//!
//! What else such rules do is not read: whoever takes a chain away needs to know
//! only who goes there.

use std::collections::BTreeMap;

use super::attr::{Attrs, Message};
use super::consts as c;
use super::expr::Expr;
use crate::{Family, Name, TableId};

/// A rule that leads to another chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lead {
    /// The chain that it is in.
    pub chain: Name,
    /// Its number in the table.
    pub handle: u64,
    /// The chain that it jumps or goes to.
    pub to: Name,
}

/// Tables of others being put together from messages that tell of what there is.
#[derive(Debug, Default)]
pub struct Foreign {
    /// By table the names of its chains, and whether each is at a hook.
    pub chains: BTreeMap<TableId, BTreeMap<Name, bool>>,
    /// By table the rules that lead to other chains, in their order.
    pub leads: BTreeMap<TableId, Vec<Lead>>,
}

impl Foreign {
    /// Take a message. Those that tell of anything else are left aside.
    pub fn take(&mut self, message: &Message<'_>) {
        if message.kind >> 8 != c::NFNL_SUBSYS_NFTABLES {
            return;
        }
        let Some((&[family, _, _, _], attrs)) = message.body.split_first_chunk::<4>() else {
            return;
        };
        let attrs = Attrs::new(attrs);
        // The first attribute of every message names the table.
        let (Some(family), Some(name)) = (Family::from_number(family), attrs.string(c::TABLE_NAME))
        else {
            return;
        };
        let id = TableId::new(family, name);
        match message.kind & 0xff {
            c::NEWTABLE => drop(self.chains.entry(id).or_default()),
            c::NEWCHAIN => {
                if let Some(chain) = attrs.string(c::CHAIN_NAME) {
                    let hooked = attrs.get(c::CHAIN_HOOK).is_some();
                    let chains = self.chains.entry(id).or_default();
                    chains.insert(chain.into(), hooked);
                }
            }
            c::NEWRULE => {
                let leads = self.leads.entry(id).or_default();
                leads.extend(leads_of(&attrs).into_iter().flatten());
            }
            _ => {}
        }
    }
}

fn leads_of(attrs: &Attrs<'_>) -> Option<Vec<Lead>> {
    let chain = attrs.string(c::RULE_CHAIN)?;
    let handle = attrs.be64(c::RULE_HANDLE)?;
    let list = attrs.inside(c::RULE_EXPRESSIONS)?;
    let to = list.filter_map(|(_, element)| {
        if let Expr::Verdict(verdict) = Expr::read(&Attrs::new(element)) {
            verdict.chain().cloned()
        } else {
            None
        }
    });
    Some(
        to.map(|to| Lead {
            chain: chain.into(),
            handle,
            to,
        })
        .collect(),
    )
}
