//! Endpoints for zones in proportion to the zones' CPUs (E16).
//!
//! Asked for by the annotation `service.kubernetes.io/topology-mode: Auto`
//! (KEP-2433). Zones with more endpoints than their share lend some to zones
//! with fewer. Where a zone's endpoints would be overloaded by more than a
//! fifth, nobody gets a hint.

use std::collections::BTreeMap;

use portolan_model::workloads::{Node, SliceEndpoint};

use super::ZONE;

/// Thousandths of a CPU, by zone.
pub type Cpus = BTreeMap<String, i64>;

/// How much more than its share an endpoint may get.
const OVERLOAD: f64 = 0.2;
const EXCLUDED: [&str; 2] = [
    "node-role.kubernetes.io/control-plane",
    "node-role.kubernetes.io/master",
];

/// The CPUs of each zone; none where a ready node tells too little, or where
/// there are fewer than two zones.
pub fn cpus<'a>(nodes: impl Iterator<Item = &'a Node>) -> Option<Cpus> {
    let mut cpus = Cpus::new();
    for node in nodes {
        let labels = &node.meta.labels;
        if !node.is_ready() || EXCLUDED.iter().any(|label| labels.contains_key(*label)) {
            continue;
        }
        let zone = labels.get(ZONE).filter(|zone| !zone.is_empty())?;
        let cpu = node.allocatable.as_ref().map_or(0, |all| all.cpu);
        if cpu <= 0 {
            return None;
        }
        let sum = cpus.entry(zone.clone()).or_default();
        *sum = sum.saturating_add(cpu);
    }
    (cpus.len() >= 2).then_some(cpus)
}

/// Gives the ready ones among `endpoints` hints; none where that cannot be
/// done fairly, and why.
pub(super) fn allocate(
    endpoints: &mut [&mut SliceEndpoint],
    cpus: Option<&Cpus>,
) -> Result<(), String> {
    let cpus = cpus.ok_or(
        "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes",
    )?;
    let mut ready: Vec<&mut SliceEndpoint> = endpoints
        .iter_mut()
        .map(|endpoint| &mut **endpoint)
        .filter(|endpoint| endpoint.ready)
        .collect();
    let shares = shares(cpus, ready.len())?;
    if ready.iter().any(|endpoint| endpoint.zone.is_empty()) {
        return Err("One or more endpoints do not have a zone specified".to_owned());
    }
    let mut surplus = shares.clone();
    surplus.values_mut().for_each(|share| *share = -*share);
    for endpoint in &ready {
        if let Some(surplus) = surplus.get_mut(&endpoint.zone) {
            *surplus += 1.0;
        }
    }
    let mut loans = loans(surplus);
    for endpoint in &mut ready {
        let loan = loans.get_mut(&endpoint.zone).and_then(Vec::pop);
        endpoint.hints.zones = vec![loan.unwrap_or_else(|| endpoint.zone.clone())];
    }
    Ok(())
}

/// How many endpoints each zone should have.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of endpoints and CPUs are far below 2^52"
)]
fn shares(cpus: &Cpus, count: usize) -> Result<BTreeMap<String, f64>, String> {
    let told = |what: &str| Err(format!("{what} ({count} endpoints, {} zones)", cpus.len()));
    if cpus.len() > count {
        return told("Insufficient number of endpoints");
    }
    let total = cpus.values().sum::<i64>() as f64;
    let mut least_total = 0.0;
    let mut shares = BTreeMap::new();
    for (zone, cpu) in cpus {
        let desired = *cpu as f64 / total * count as f64;
        let least = (desired / (1.0 + OVERLOAD)).ceil();
        least_total += least;
        shares.insert(zone.clone(), desired.max(least));
    }
    if least_total > count as f64 {
        return told(
            "Unable to allocate minimum required endpoints to each zone without exceeding \
             overload threshold",
        );
    }
    Ok(shares)
}

/// Which zones each zone lends endpoints to, one entry for each.
fn loans(mut surplus: BTreeMap<String, f64>) -> BTreeMap<String, Vec<String>> {
    let mut loans: BTreeMap<String, Vec<String>> = BTreeMap::new();
    loop {
        let most = surplus.iter().max_by(|a, b| a.1.total_cmp(b.1));
        let least = surplus.iter().min_by(|a, b| a.1.total_cmp(b.1));
        let (Some((giver, give)), Some((taker, take))) = (most, least) else {
            return loans;
        };
        let (give, take) = (*give, -*take);
        if give < 0.5 || take < 0.5 || (give < 1.0 && take < 1.0) {
            return loans;
        }
        let (giver, taker) = (giver.clone(), taker.clone());
        surplus.insert(giver.clone(), give - 1.0);
        surplus.insert(taker.clone(), 1.0 - take);
        loans.entry(giver).or_default().push(taker);
    }
}
