//! What is written to a pool: how much of it is in use, and what is wrong with it.

use jiff::Timestamp;
use portolan_api::value::{int_at, str_at};
use portolan_model::Family;
use portolan_model::workloads::{ObjectKey, Pool};
use serde_json::{Value, json};

use super::LoadBalancer;
use super::gaps::disjoint;
use super::pools::Stock;
use crate::workloads::{About, Action, Kind, Step, Tell};

/// The condition that says whether all of a pool is understood and its own.
const READY: &str = "Ready";
/// The greatest whole number that every JSON reader has exactly.
const MOST: u128 = (1 << 53) - 1;

/// What is written to a pool, or told about it: ours has a status for it, and
/// about MetalLB's an event is told when it came or changed.
pub fn pool(balancer: &LoadBalancer, key: &ObjectKey, changed: bool, now: Timestamp) -> Step {
    let mut step = Step::default();
    let Some(stock) = balancer.pools.stock(key) else {
        return step;
    };
    let meta = &stock.pool.meta;
    if stock.pool.is_own() {
        if let Some(status) = pool_status(balancer, stock, now) {
            let body = json!({ "status": status });
            step.write(Kind::AddressPool, meta, Action::MergeStatus(body));
        }
    } else if changed && let Some((reason, message)) = fault(balancer, stock) {
        step.tell.push(Tell {
            about: About::new(Kind::IpAddressPool, meta),
            warning: true,
            reason,
            message,
        });
    }
    step
}

/// The status of a pool of our own kind, if it is not so already.
fn pool_status(balancer: &LoadBalancer, stock: &Stock, now: Timestamp) -> Option<Value> {
    let count = |family| {
        let (used, free) = stock.count(family);
        (used.min(MOST) as u64, free.min(MOST) as u64)
    };
    let (v4, v6) = (count(Family::V4), count(Family::V6));
    let free = (v4.1 + v6.1).min(MOST as u64);
    let fault = fault(balancer, stock);
    let (status, reason) = match fault {
        None => ("True", "Valid"),
        Some((reason, _)) => ("False", reason),
    };
    let message = fault.map(|(_, message)| message).unwrap_or_default();
    let known = stock.pool.condition(READY);
    let is = |field, wanted: &str| known.is_some_and(|known| str_at(known, field) == wanted);
    let counted = |field: &str, wanted: u64| {
        int_at(&stock.pool.status, field).is_some_and(|known| u64::try_from(known) == Ok(wanted))
    };
    let same = counted("ipv4.used", v4.0)
        && counted("ipv4.free", v4.1)
        && counted("ipv6.used", v6.0)
        && counted("ipv6.free", v6.1)
        && is("status", status)
        && is("reason", reason)
        && is("message", &message);
    if same {
        return None;
    }
    let since = match known.filter(|known| str_at(known, "status") == status) {
        Some(known) => str_at(known, "lastTransitionTime").to_owned(),
        None => now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    };
    Some(json!({
        "used": v4.0 + v6.0,
        "free": free,
        "ipv4": {"used": v4.0, "free": v4.1},
        "ipv6": {"used": v6.0, "free": v6.1},
        "conditions": [{
            "type": READY, "status": status, "reason": reason, "message": message,
            "lastTransitionTime": since,
        }],
    }))
}

/// What is wrong with a pool.
fn fault(balancer: &LoadBalancer, stock: &Stock) -> Option<(&'static str, String)> {
    let pool = &stock.pool;
    if !pool.faults.is_empty() {
        return Some(("InvalidRange", pool.faults.join("; ")));
    }
    let others = balancer.pools.stocks().map(|stock| &stock.pool);
    let mut others = others.filter(|other| other.meta.key != pool.meta.key);
    let other = others.find(|other| overlap(pool, other))?;
    let message = format!(
        "addresses are in pool {} too: each is given once, by either of them",
        other.name()
    );
    Some(("Overlaps", message))
}

fn overlap(a: &Pool, b: &Pool) -> bool {
    let (a, b) = (disjoint(&a.spans), disjoint(&b.spans));
    a.iter().any(|a| {
        b.iter()
            .any(|b| a.contains(b.first()) || b.contains(a.first()))
    })
}
