//! Step 6: whether NetworkPolicies let clients come in.
//!
//! Policies are there to keep somebody out, so that is no fault; that nobody at all
//! gets in is one. Everybody who could is asked about: each pod of the cluster, and an
//! address of each range that a policy names.

use std::collections::BTreeSet;
use std::net::IpAddr;

use portolan_model::{Ask, Direction, Family, PolicyPeer, Protocol};
use portolan_plan::NodePlan;
use serde_json::json;

use super::case::{Case, Kind, count, is_ill, listed, replace};
use super::finding::{Checked, Finding, Mend, Severity, Step};
use super::near::nearest;
use crate::policy::{Cause, Judgement, Miss, Near, What, World, about, judge, key};

/// A port of an endpoint, and the node that judges who comes in there.
struct Door<'a> {
    address: IpAddr,
    protocol: Protocol,
    port: u16,
    plan: &'a NodePlan,
}

pub(super) fn check(case: &Case<'_>, before: &[Checked]) -> Checked {
    if case.kind() == Kind::ExternalName {
        return Checked::skipped(Step::Access, "an alias has no pods");
    }
    if case.kind() == Kind::OnNodes {
        return Checked::skipped(Step::Access, "each node answers by itself");
    }
    if let Some(why) = case.seen.policies_unread {
        return Checked::skipped(
            Step::Access,
            format!("NetworkPolicies cannot be read: {why}"),
        );
    }
    let world = World::new(case.seen.cluster, case.seen.plans);
    let doors = doors(case, &world);
    let isolated: Vec<&Door<'_>> = doors
        .iter()
        .filter(|door| door.plan.policies.isolated.contains_key(&door.address))
        .collect();
    if isolated.is_empty() {
        return Checked::ok(Step::Access, "no policy keeps anybody out");
    }
    if is_ill(before) {
        return Checked::skipped(Step::Access, "there is no endpoint to reach");
    }
    let clients = clients(&world);
    let closed: Vec<(&Door<'_>, Judgement)> = isolated
        .iter()
        .filter_map(|door| Some((*door, nobody(&world, door, &clients)?)))
        .collect();
    let policies: BTreeSet<String> = isolated
        .iter()
        .flat_map(|door| about(&world, door.plan, Direction::Ingress, door.address))
        .map(|policy| key(&policy).1.to_owned())
        .collect();
    let policies: Vec<String> = policies.into_iter().collect();
    if policies.is_empty() {
        return Checked::ok(Step::Access, "no policy keeps anybody out");
    }
    let addresses = |doors: &mut dyn Iterator<Item = &Door<'_>>| {
        doors
            .map(|door| door.address)
            .collect::<BTreeSet<_>>()
            .len()
    };
    let all = addresses(&mut doors.iter());
    let shut = addresses(&mut closed.iter().map(|(door, _)| *door));
    let verb = if policies.len() == 1 { "says" } else { "say" };
    let summary = format!("{} {verb} who may come in", listed(&policies));
    let checked = Checked::ok(Step::Access, summary);
    let finding = closed.iter().min_by_key(|(_, judged)| {
        judged
            .nearest()
            .map_or(usize::MAX, |near| near.misses.len())
    });
    let Some((door, judged)) = finding else {
        return checked;
    };
    let severity = if shut == all {
        Severity::Fault
    } else {
        Severity::Warning
    };
    checked.with(vec![blocked(case, door, judged, (severity, shut, all))])
}

/// The ports of the Service's endpoints that are pods of known nodes.
fn doors<'a>(case: &Case<'a>, world: &World<'a>) -> Vec<Door<'a>> {
    let mut doors = Vec::new();
    for slice in &case.slices {
        let addresses = slice
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.conditions.ready.unwrap_or(true))
            .flat_map(|endpoint| &endpoint.addresses);
        for address in addresses.filter_map(|text| text.parse::<IpAddr>().ok()) {
            let Some(plan) = world.judge_of(address) else {
                continue;
            };
            doors.extend(slice.ports.iter().filter_map(|port| {
                Some(Door {
                    address,
                    protocol: Protocol::parse(port.protocol.as_deref().unwrap_or_default())?,
                    port: port.port.and_then(|port| u16::try_from(port).ok())?,
                    plan,
                })
            }));
        }
    }
    doors
}

/// Everybody who may be let in: pods, and an address of each range.
fn clients(world: &World<'_>) -> BTreeSet<IpAddr> {
    let pods = world.cluster.pods().flat_map(|pod| pod.addresses.clone());
    let policies = world.cluster.policies();
    let peers = policies.flat_map(|policy| {
        let rules = policy.ingress.iter().flatten();
        rules.flat_map(|rule| rule.peers.iter().flatten())
    });
    let outside = peers.filter_map(|peer| match peer {
        PolicyPeer::Block(block) => {
            let mut some = block.range.hosts().take(1024);
            some.find(|address| block.contains(*address))
        }
        PolicyPeer::Pods { .. } => None,
    });
    pods.chain(outside).collect()
}

fn at(world: &World<'_>, door: &Door<'_>, client: IpAddr) -> Judgement {
    let to = Some((door.protocol, door.port));
    judge(
        world,
        door.plan,
        Direction::Ingress,
        (door.address, client),
        to,
    )
}

/// How the client that comes nearest is kept out, if everybody is.
fn nobody(world: &World<'_>, door: &Door<'_>, clients: &BTreeSet<IpAddr>) -> Option<Judgement> {
    let same = |client: &&IpAddr| Family::of(**client) == Family::of(door.address);
    let others = clients.iter().filter(same);
    let others = others.filter(|client| **client != door.address);
    let to = Some((door.protocol, door.port));
    let policies = &door.plan.policies;
    let allowed =
        |client: &IpAddr| policies.allows(Direction::Ingress, (door.address, *client), to);
    let others: Vec<IpAddr> = others.copied().collect();
    if others.iter().any(allowed) {
        return None;
    }
    // Where there is no other pod, it is as if somebody came from elsewhere.
    let somebody = match Family::of(door.address) {
        Family::V4 => IpAddr::from([192, 0, 2, 1]),
        Family::V6 => IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1]),
    };
    if allowed(&somebody) {
        return None;
    }
    let judged = others.into_iter().chain([somebody]);
    let judged = judged.map(|client| at(world, door, client));
    judged.min_by_key(|judged| judged.nearest().map_or(usize::MAX, Near::cost))
}

/// What is said of a policy that lets nobody in.
fn blocked(
    case: &Case<'_>,
    door: &Door<'_>,
    judged: &Judgement,
    (severity, shut, all): (Severity, usize, usize),
) -> Finding {
    let port = format!("{}/{}", door.port, door.protocol.name().to_uppercase());
    let policies = judged.policies.iter();
    let policies: Vec<&str> = policies.map(|policy| key(policy).1).collect();
    let pods = format!("{shut} of {}", count(all, "endpoint"));
    let near = match &judged.cause {
        Cause::Nothing(near) => near.first(),
        Cause::Open | Cause::Itself | Cause::OwnNode | Cause::Rules(_) | Cause::Denied(_) => None,
    };
    let policy = near
        .map(|near| &near.rule.policy)
        .or_else(|| judged.policies.first());
    let (namespace, name) = policy.map_or((None, ""), key);
    let (kind, namespace) = match namespace {
        Some(namespace) => ("networkpolicy", namespace.to_owned()),
        None => ("clusternetworkpolicy", String::new()),
    };
    let object = format!("{kind} {name}");
    let denying = match &judged.cause {
        Cause::Denied(rule) => Some(rule.field()),
        Cause::Open | Cause::Itself | Cause::OwnNode | Cause::Rules(_) | Cause::Nothing(_) => None,
    };
    let found = near.and_then(|near| Some((near, near.misses.first()?)));
    let (field, message, mend) = match found {
        None if denying.is_some() => (
            denying.unwrap_or_default(),
            format!("the rule denies everybody to reach {pods} at {port}"),
            Mend {
                text: "have the rule be about fewer, or put one with action Accept before it"
                    .to_owned(),
                command: None,
            },
        ),
        None => (
            "spec.ingress".to_owned(),
            format!(
                "it isolates {pods} and has no rule for what comes in: nobody but their own nodes reaches them at {port}"
            ),
            add_rule(&object, &namespace, door),
        ),
        Some((near, miss)) => (
            miss.field.clone(),
            format!(
                "it lets nobody reach {pods} at {port}: {} {}",
                near.rule.field(),
                miss.what
            ),
            mend(case, near, miss, (&object, &namespace, door)),
        ),
    };
    let others = policies.len().saturating_sub(1);
    let message = match others {
        0 => message,
        _ => format!("{message} (nor does another of {})", listed(&policies)),
    };
    Finding {
        severity,
        object: format!("{kind}/{name}"),
        namespace,
        field,
        message,
        mend: Some(mend),
    }
}

/// `{"protocol": "TCP", "port": 80}`.
fn port_of(door: &Door<'_>) -> serde_json::Value {
    json!({"protocol": door.protocol.name().to_uppercase(), "port": door.port})
}

fn add_rule(object: &str, namespace: &str, door: &Door<'_>) -> Mend {
    let rules = json!([{"ports": [port_of(door)]}]);
    Mend {
        text: "let clients in: this lets everybody in at this port; add a from to say whom"
            .to_owned(),
        command: Some(
            replace(object, namespace, "/spec/ingress", &rules).replacen(
                "\"op\":\"replace\"",
                "\"op\":\"add\"",
                1,
            ),
        ),
    }
}

/// What makes a rule meet what it misses.
fn mend(
    case: &Case<'_>,
    near: &Near,
    miss: &Miss,
    (object, namespace, door): (&str, &str, &Door<'_>),
) -> Mend {
    let pointer = pointer(&miss.field);
    let patch = |pointer: &str, value: &serde_json::Value| {
        let command = replace(object, namespace, pointer, value);
        Some(command.replacen("\"op\":\"replace\"", "\"op\":\"add\"", 1))
    };
    let (text, command) = match &miss.what {
        What::Port { .. } => (
            format!(
                "policies are about the pods' own ports: allow {} there",
                door.port
            ),
            patch(&format!("{pointer}/-"), &port_of(door)),
        ),
        What::Label { key, ask, .. } => match meant(case, key, ask) {
            Some(value) => (
                format!("select {key}={value}"),
                patch(
                    &format!("{pointer}/matchLabels/{}", escaped(key)),
                    &json!(value),
                ),
            ),
            None => (
                format!("no pod has {}: give it to the clients' pods", ask.of(key)),
                None,
            ),
        },
        What::NamespaceLabel {
            namespace: there,
            key,
            ask: Ask::In(values),
            ..
        } if values.len() == 1 => (
            format!("label the clients' namespace, such as {there}"),
            values
                .first()
                .map(|value| format!("kubectl label namespace {there} {key}={value}")),
        ),
        What::NamespaceLabel { .. }
        | What::Namespace { .. }
        | What::NotAPod(_)
        | What::HostNetwork(_)
        | What::OutOfRange(_)
        | What::Excepted(..)
        | What::Unreadable => (format!("let clients in by {}", near.rule.field()), None),
    };
    Mend { text, command }
}

/// The value of a label that a selector may have meant: one that pods have.
fn meant<'a>(case: &Case<'a>, key: &str, ask: &Ask) -> Option<&'a str> {
    let Ask::In(values) = ask else { return None };
    let [typed] = values.as_slice() else {
        return None;
    };
    let pods = case.seen.pods.iter();
    let have: BTreeSet<&str> = pods
        .filter_map(|pod| pod.metadata.labels.get(key).map(String::as_str))
        .filter(|value| *value != &**typed)
        .collect();
    nearest(typed, have)
}

/// `spec.ingress[0].ports` as a JSON pointer.
fn pointer(field: &str) -> String {
    let path = field.replace('[', ".").replace(']', "");
    path.split('.').map(|part| format!("/{part}")).collect()
}

fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}
