//! What is written to a Service, and told about it (L2, L3).

use std::net::IpAddr;

use jiff::Timestamp;
use portolan_model::workloads::{BalancedService, Condition};
use serde_json::{Value, json};

use super::{Assigned, FINALIZER, Refusal};
use crate::workloads::{About, Action, Kind, Step, Tell};

/// The condition that says whether a Service has its addresses, and why not.
pub const CONDITION: &str = "portolan.dev/AddressAssigned";
/// Kubernetes' condition for ports that a load balancer cannot open.
const PORTS: &str = "LoadBalancerPortsError";
/// Its reason.
const TAKEN: &str = "PortTaken";

/// What brings a Service that we serve to what it was assigned.
pub(super) fn write(service: &BalancedService, assigned: &Assigned, now: Timestamp) -> Step {
    let mut step = Step::default();
    if !service.finalizers.iter().any(|one| one == FINALIZER) {
        let body = json!({"metadata": {"finalizers": [FINALIZER]}});
        step.write(Kind::Service, &service.meta, Action::Strategic(body));
    }
    let is = service.ingress == assigned.addresses && !service.foreign_ingress;
    let conditions = conditions(service, assigned, now);
    if is && conditions.is_empty() {
        return step;
    }
    let mut status = json!({});
    if !is {
        status["loadBalancer"] = ingress(&assigned.addresses);
    }
    if !conditions.is_empty() {
        status["conditions"] = conditions.into();
    }
    let action = Action::StrategicStatus(json!({ "status": status }));
    step.write(Kind::Service, &service.meta, action);
    step.tell = tell(service, assigned, is);
    step
}

/// What leaves a Service to others that we do not serve, or no longer.
pub(super) fn let_go(service: &BalancedService) -> Step {
    let mut step = Step::default();
    if service.wanted && !service.meta.deleting {
        // Somebody else's class: whatever is there is theirs.
        return step;
    }
    let ours: Vec<Value> = [CONDITION, PORTS]
        .into_iter()
        .filter(|kind| is_our_condition(service, kind))
        .map(drop_condition)
        .collect();
    let has_ingress = !service.ingress.is_empty() || service.foreign_ingress;
    let stays = !service.wanted && !service.meta.deleting;
    if stays && (has_ingress || !ours.is_empty()) {
        let mut status = json!({"loadBalancer": {"ingress": null}});
        if !ours.is_empty() {
            status["conditions"] = ours.into();
        }
        let action = Action::StrategicStatus(json!({ "status": status }));
        step.write(Kind::Service, &service.meta, action);
    }
    if service.finalizers.iter().any(|one| one == FINALIZER) {
        let body = json!({"metadata": {"$deleteFromPrimitiveList/finalizers": [FINALIZER]}});
        step.write(Kind::Service, &service.meta, Action::Strategic(body));
    }
    step
}

fn is_our_condition(service: &BalancedService, kind: &str) -> bool {
    let known = service.condition(kind);
    known.is_some_and(|known| kind == CONDITION || known.reason == TAKEN)
}

fn drop_condition(kind: &str) -> Value {
    json!({"$patch": "delete", "type": kind})
}

fn ingress(addresses: &[IpAddr]) -> Value {
    if addresses.is_empty() {
        return json!({"ingress": null});
    }
    let entries = addresses
        .iter()
        .map(|address| json!({"ip": address.to_string(), "ipMode": "VIP"}));
    json!({"ingress": entries.collect::<Vec<_>>()})
}

/// The conditions that are not as they should be.
fn conditions(service: &BalancedService, assigned: &Assigned, now: Timestamp) -> Vec<Value> {
    let message = told(&assigned.missing);
    let got = !assigned.addresses.is_empty();
    let reason = match assigned.missing.first() {
        Some(refusal) => refusal.reason(),
        None => "Assigned",
    };
    let status = if got { "True" } else { "False" };
    let mut changed = Vec::new();
    let known = service.condition(CONDITION);
    changed.extend(condition(known, (CONDITION, status, reason, &message), now));
    let ports: Vec<Refusal> = assigned
        .missing
        .iter()
        .filter(|one| is_about_ports(one))
        .cloned()
        .collect();
    let known = service.condition(PORTS);
    if ports.is_empty() {
        let ours = is_our_condition(service, PORTS);
        changed.extend(ours.then(|| drop_condition(PORTS)));
    } else {
        changed.extend(condition(known, (PORTS, "True", TAKEN, &told(&ports)), now));
    }
    changed
}

fn is_about_ports(refusal: &Refusal) -> bool {
    matches!(refusal, Refusal::Port { .. })
        || matches!(
            refusal,
            Refusal::Taken {
                why: super::NotShared::Port(_),
                ..
            }
        )
}

/// A condition, if it is not so already.
fn condition(
    known: Option<&Condition>,
    (kind, status, reason, message): (&str, &str, &str, &str),
    now: Timestamp,
) -> Option<Value> {
    let same_status = known.filter(|known| known.status == status);
    if same_status.is_some_and(|known| known.reason == reason && known.message == message) {
        return None;
    }
    let since = same_status.and_then(|known| known.changed).unwrap_or(now);
    Some(json!({
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": since.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    }))
}

/// The reasons as a text; the first ones where there are many.
fn told(refusals: &[Refusal]) -> String {
    /// Each node may have one.
    const MOST: usize = 4;
    let mut texts: Vec<String> = refusals.iter().take(MOST).map(Refusal::to_string).collect();
    if refusals.len() > MOST {
        texts.push(format!("and {} more", refusals.len() - MOST));
    }
    texts.join("; ")
}

/// Events, with the reasons that MetalLB has.
fn tell(service: &BalancedService, assigned: &Assigned, is: bool) -> Vec<Tell> {
    let about = About::new(Kind::Service, &service.meta);
    let event = |warning, reason, message| Tell {
        about: about.clone(),
        warning,
        reason,
        message,
    };
    let key = &service.meta.key;
    let why = told(&assigned.missing);
    let had = quoted(&service.ingress);
    let mut events = Vec::new();
    if assigned.addresses.is_empty() {
        if !service.ingress.is_empty() {
            let message = format!("The addresses {had} are no longer for {key}: {why}");
            events.push(event(false, "ClearAssignment", message));
        }
        let message = format!("Failed to allocate IP for \"{key}\": {why}");
        events.push(event(true, "AllocationFailed", message));
        return events;
    }
    if !is {
        let has = quoted(&assigned.addresses);
        events.push(if service.ingress.is_empty() {
            event(false, "IPAllocated", format!("Assigned IP {has}"))
        } else {
            let message = format!("Updated LoadBalancer with new IPs: {had} -> {has}");
            event(false, "UpdatedLoadBalancer", message)
        });
    }
    if !assigned.missing.is_empty() {
        let message = format!("Not all addresses for \"{key}\": {why}");
        events.push(event(true, "AdditionalAssignFailed", message));
    }
    events
}

fn quoted(addresses: &[IpAddr]) -> String {
    let quoted: Vec<String> = addresses
        .iter()
        .map(|address| format!("\"{address}\""))
        .collect();
    format!("[{}]", quoted.join(" "))
}
