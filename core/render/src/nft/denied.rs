//! What becomes of a packet that policies deny: it is counted, some are told of, and
//! it is dropped or refused (N18).

use portolan_nft::{Counts, Field, RejectKind, Rule, Ruleset, Statement, Value, Verdict};
use portolan_plan::{Deny, NodeView};

use super::policy::{OTHERS, UNKNOWN};

/// The chain in which every packet that policies deny is counted, by the first counter.
pub const DENIED: &str = OTHERS;

/// So many packets per second are told of, and so many at once: a flood costs no more.
const RATE: u32 = 100;
const BURST: u32 = 200;

const TCP: u8 = 6;

/// Whether both views treat denied packets alike.
pub(super) fn are_alike(one: &NodeView, other: &NodeView) -> bool {
    (one.policy_log, one.policy_deny) == (other.policy_log, other.policy_deny)
}

/// Puts what a view wants in the place where packets are dropped.
pub(super) fn put(view: &NodeView, ruleset: &mut Ruleset) {
    let dropped = Rule::new().verdict(Verdict::Drop);
    let denied = Rule::new().verdict(Verdict::Goto(OTHERS.into()));
    for table in ruleset.tables.values_mut() {
        if let Some(chain) = table.chains.get_mut(OTHERS) {
            chain.rules.retain(|rule| *rule != dropped);
            chain.rules.extend(rules(view));
        }
        // Who sends to a pod that is not known yet tries again, and so is never refused.
        let unknown = UNKNOWN.map(|(name, _)| name);
        let unknown = unknown.iter().filter(|_| view.policy_deny == Deny::Drop);
        for name in unknown {
            let rules = table.chains.get_mut(*name).map(|chain| &mut chain.rules);
            for rule in rules.into_iter().flatten().filter(|rule| **rule == dropped) {
                rule.clone_from(&denied);
            }
        }
    }
}

fn rules(view: &NodeView) -> Vec<Rule> {
    let mut rules = Vec::new();
    if let Some(group) = view.policy_log {
        let limited = Rule::new().then(Statement::Limit {
            rate: RATE,
            burst: BURST,
        });
        rules.push(limited.then(Statement::Log { group }));
    }
    let counted = || Rule::new().then(Statement::Counter(Counts::default()));
    match view.policy_deny {
        Deny::Drop => rules.push(counted().verdict(Verdict::Drop)),
        Deny::Reject => {
            let refuse = |rule: Rule, kind| rule.then(Statement::Reject(kind));
            let tcp = Rule::new().eq(Field::L4Proto, Value::Proto(TCP));
            rules.push(counted());
            rules.push(refuse(tcp, RejectKind::TcpReset));
            rules.push(refuse(Rule::new(), RejectKind::AdminProhibited));
        }
    }
    rules
}
