//! ClusterNetworkPolicy objects.
//!
//! What cannot be understood fails closed (N19): a rule that accepts is about nothing
//! then, and any other denies everything. So a field that nobody knows yet counts as not
//! understood, since it may make a rule narrower.

use portolan_api::lean::{self, ClusterPolicyPeer, ClusterPolicyProtocol, Others};

use super::{Problems, policy};
use crate::cluster_policy::{Action, ClusterPolicy, ClusterRule, Subject, Tier};
use crate::key::Protocol;
use crate::labels::LabelSelector;
use crate::policy::{Block, Direction, PolicyPeer, PolicyPort, PolicyRule, PortMatch};
use crate::problem::Problem;

/// The last priority.
const LAST: u16 = 1000;

/// A ClusterNetworkPolicy object as a fact.
pub fn cluster_policy(object: &lean::ClusterNetworkPolicy) -> (ClusterPolicy, Vec<Problem>) {
    let mut problems = Problems::of("ClusterNetworkPolicy", &object.metadata);
    let spec = &object.spec;
    let known = known("spec", &spec.others, &mut problems);
    let tier = match spec.tier.as_str() {
        "Admin" => Some(Tier::Admin),
        "Baseline" => Some(Tier::Baseline),
        other => {
            problems.add("spec.tier", format!("{other:?} is not a known tier"));
            None
        }
    };
    let priority = spec.priority.and_then(|own| u16::try_from(own).ok());
    let priority = priority.filter(|own| *own <= LAST);
    if priority.is_none() {
        problems.add("spec.priority", format!("is not from 0 to {LAST}"));
    }
    let subject = subject(&spec.subject, &mut problems);
    // Of whom a policy speaks, and when, must be known for any of its rules to open.
    let whole = known.is_some() && tier.is_some() && priority.is_some() && subject.is_some();
    let mut rule = |path: String, direction, parts: Parts<'_>| {
        read(&path, direction, parts, whole, &mut problems)
    };
    let ingress = spec.ingress.iter().enumerate().map(|(index, one)| {
        let parts = Parts {
            name: &one.name,
            action: &one.action,
            peers: &one.from,
            protocols: one.protocols.as_deref(),
            others: &one.others,
        };
        rule(format!("spec.ingress[{index}]"), Direction::Ingress, parts)
    });
    let ingress = super::exact(ingress);
    let egress = spec.egress.iter().enumerate().map(|(index, one)| {
        let parts = Parts {
            name: &one.name,
            action: &one.action,
            peers: &one.to,
            protocols: one.protocols.as_deref(),
            others: &one.others,
        };
        rule(format!("spec.egress[{index}]"), Direction::Egress, parts)
    });
    let policy = ClusterPolicy {
        name: object.metadata.name.as_str().into(),
        tier: tier.unwrap_or(Tier::Admin),
        priority: priority.unwrap_or(0),
        subject: subject.unwrap_or_default(),
        ingress,
        egress: super::exact(egress),
    };
    (policy, problems.found)
}

/// A rule of either direction.
struct Parts<'r> {
    name: &'r str,
    action: &'r str,
    peers: &'r [ClusterPolicyPeer],
    protocols: Option<&'r [ClusterPolicyProtocol]>,
    others: &'r Others,
}

/// Reads a rule; `whole` tells whether what is said before the rules was understood.
fn read(
    path: &str,
    direction: Direction,
    parts: Parts<'_>,
    whole: bool,
    problems: &mut Problems,
) -> ClusterRule {
    let action = match parts.action {
        "Accept" => Some(Action::Accept),
        "Deny" => Some(Action::Deny),
        "Pass" => Some(Action::Pass),
        other => {
            let field = format!("{path}.action");
            problems.add(&field, format!("{other:?} is not a known action"));
            None
        }
    };
    let rule = about(path, direction, &parts, problems);
    let (action, rule) = match (action, rule) {
        (Some(action), Some(rule)) if whole || action == Action::Deny => (action, rule),
        (Some(Action::Accept), _) => (Action::Accept, nothing()),
        (Some(Action::Deny | Action::Pass) | None, _) => (Action::Deny, PolicyRule::default()),
    };
    ClusterRule {
        name: (!parts.name.is_empty()).then(|| parts.name.into()),
        action,
        rule,
    }
}

/// A rule that is about nobody.
fn nothing() -> PolicyRule {
    PolicyRule {
        peers: Some(Vec::new()),
        ports: None,
    }
}

/// What a rule is about; none if not all of it is understood.
fn about(
    path: &str,
    direction: Direction,
    parts: &Parts<'_>,
    problems: &mut Problems,
) -> Option<PolicyRule> {
    let mut whole = known(path, parts.others, problems);
    let side = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let mut peers = Vec::new();
    if parts.peers.is_empty() {
        problems.add(&format!("{path}.{side}"), "names nobody".into());
        whole = None;
    }
    for (index, one) in parts.peers.iter().enumerate() {
        let read = peer(&format!("{path}.{side}[{index}]"), direction, one, problems);
        whole = whole.and(read.map(|own| peers.extend(own)));
    }
    let mut ports = Vec::new();
    if parts.protocols.is_some_and(<[_]>::is_empty) {
        problems.add(&format!("{path}.protocols"), "names no protocol".into());
        whole = None;
    }
    for (index, one) in parts.protocols.unwrap_or_default().iter().enumerate() {
        let read = protocol(&format!("{path}.protocols[{index}]"), one, problems);
        whole = whole.and(read.map(|own| ports.extend(own)));
    }
    let block = |peer: &PolicyPeer| matches!(peer, PolicyPeer::Block(_));
    let named = |port: &PolicyPort| matches!(port.port, PortMatch::Named(_));
    if peers.iter().any(block) && ports.iter().any(named) {
        let message = "ranges of addresses have no names of ports";
        problems.add(&format!("{path}.protocols"), message.into());
        whole = None;
    }
    whole.map(|()| PolicyRule {
        peers: Some(super::exact(peers.into_iter())),
        ports: parts
            .protocols
            .map(|_protocols| super::exact(ports.into_iter())),
    })
}

fn peer(
    path: &str,
    direction: Direction,
    peer: &ClusterPolicyPeer,
    problems: &mut Problems,
) -> Option<Vec<PolicyPeer>> {
    known(path, &peer.others, problems)?;
    let here = match (&peer.namespaces, &peer.pods, &peer.networks) {
        (Some(namespaces), None, None) => {
            let field = format!("{path}.namespaces");
            vec![PolicyPeer::Pods {
                namespaces: Some(selector(&field, namespaces, problems)?),
                pods: LabelSelector::default(),
            }]
        }
        (None, Some(pods), None) => {
            let Subject { namespaces, pods } = some(&format!("{path}.pods"), pods, problems)?;
            vec![PolicyPeer::Pods {
                namespaces: Some(namespaces),
                pods,
            }]
        }
        (None, None, Some(networks)) if direction == Direction::Egress => {
            let field = format!("{path}.networks");
            let ranges = problems.ranges(&field, networks.iter().map(String::as_str));
            if ranges.len() != networks.len() || ranges.is_empty() {
                return None;
            }
            let block = |range| {
                PolicyPeer::Block(Block {
                    range,
                    except: Vec::new(),
                })
            };
            ranges.into_iter().map(block).collect()
        }
        _ => {
            problems.add(path, "must be exactly one known kind of peer".into());
            return None;
        }
    };
    Some(here)
}

fn protocol(
    path: &str,
    protocol: &ClusterPolicyProtocol,
    problems: &mut Problems,
) -> Option<Vec<PolicyPort>> {
    known(path, &protocol.others, problems)?;
    let numbers = [
        (Protocol::Tcp, &protocol.tcp),
        (Protocol::Udp, &protocol.udp),
        (Protocol::Sctp, &protocol.sctp),
    ];
    let mut given = numbers
        .iter()
        .filter_map(|(protocol, own)| Some((*protocol, own.as_ref()?)));
    match (given.next(), given.next(), &protocol.destination_named_port) {
        (Some((protocol, own)), None, None) => {
            let path = format!("{path}.{protocol}");
            known(&path, &own.others, problems)?;
            let port = own.destination_port.as_ref();
            let range = port.and_then(|port| range(&path, port, problems));
            if range.is_none() {
                let field = format!("{path}.destinationPort");
                problems.add(&field, "is no port or range of ports".into());
            }
            let (first, last) = range?;
            let port = PortMatch::Range(first, last);
            Some(vec![PolicyPort { protocol, port }])
        }
        (None, None, Some(name)) if !name.is_empty() => {
            // A name is of whichever protocol the destination gave it to.
            let of = |(protocol, _)| PolicyPort {
                protocol,
                port: PortMatch::Named(name.as_str().into()),
            };
            Some(numbers.into_iter().map(of).collect())
        }
        _ => {
            problems.add(path, "must be exactly one known kind of protocol".into());
            None
        }
    }
}

fn range(
    path: &str,
    port: &lean::ClusterPolicyPort,
    problems: &mut Problems,
) -> Option<(u16, u16)> {
    let path = format!("{path}.destinationPort");
    known(&path, &port.others, problems)?;
    let number = |value: i64| u16::try_from(value).ok().filter(|number| *number > 0);
    match (port.number, &port.range) {
        (Some(own), None) => number(own).map(|own| (own, own)),
        (None, Some(range)) => {
            known(&format!("{path}.range"), &range.others, problems)?;
            let ends = number(range.start).zip(number(range.end));
            ends.filter(|(first, last)| first <= last)
        }
        (Some(_), Some(_)) | (None, None) => None,
    }
}

/// The pods that a policy is about; none if that is not understood.
fn subject(subject: &lean::ClusterPolicyPods, problems: &mut Problems) -> Option<Subject> {
    let path = "spec.subject";
    known(path, &subject.others, problems)?;
    match (&subject.namespaces, &subject.pods) {
        (Some(namespaces), None) => Some(Subject {
            namespaces: selector(&format!("{path}.namespaces"), namespaces, problems)?,
            pods: LabelSelector::default(),
        }),
        (None, Some(pods)) => some(&format!("{path}.pods"), pods, problems),
        (Some(_), Some(_)) | (None, None) => {
            problems.add(path, "must be exactly one known kind of subject".into());
            None
        }
    }
}

/// Some pods of some namespaces.
fn some(path: &str, pods: &lean::NamespacedPods, problems: &mut Problems) -> Option<Subject> {
    let whole = known(path, &pods.others, problems);
    let field = format!("{path}.namespaceSelector");
    let namespaces = selector(&field, &pods.namespace_selector, problems);
    let field = format!("{path}.podSelector");
    let pods = selector(&field, &pods.pod_selector, problems);
    whole.and(Some(Subject {
        namespaces: namespaces?,
        pods: pods?,
    }))
}

/// A selector, if all of it means something.
fn selector(
    path: &str,
    object: &lean::LabelSelector,
    problems: &mut Problems,
) -> Option<LabelSelector> {
    let before = problems.found.len();
    let selector = policy::selector(path, object, problems);
    for one in &object.match_expressions {
        let message = match (one.operator.as_str(), one.values.is_empty()) {
            ("In" | "NotIn", true) => "values must be given for In and NotIn",
            ("Exists" | "DoesNotExist", false) => "Exists and DoesNotExist have no values",
            _ => continue,
        };
        let field = format!("{path}.matchExpressions[*].values");
        problems.add(&field, message.into());
    }
    (problems.found.len() == before).then_some(selector)
}

/// Nothing, if there are fields that nobody knows.
fn known(path: &str, others: &Others, problems: &mut Problems) -> Option<()> {
    for name in others.keys() {
        let message = "is not known; the rule fails closed".into();
        problems.add(&format!("{path}.{name}"), message);
    }
    others.is_empty().then_some(())
}

#[cfg(test)]
mod tests;
