//! NetworkPolicy objects.
//!
//! What cannot be understood allows nothing: a peer with a bad range is nobody, a
//! rule whose ports are all bad has none, and a requirement that nobody knows does not
//! keep a policy from the pods that meet its others.

use portolan_api::lean::{self, IntOrString};

use super::Problems;
use crate::key::{PolicyKey, Protocol};
use crate::labels::{Ask, LabelSelector};
use crate::policy::{Block, NetworkPolicy, PolicyPeer, PolicyPort, PolicyRule, PortMatch};
use crate::problem::Problem;
use crate::text::Text;

/// A NetworkPolicy object as a fact.
pub fn policy(object: &lean::NetworkPolicy) -> (NetworkPolicy, Vec<Problem>) {
    let mut problems = Problems::of("NetworkPolicy", &object.metadata);
    let spec = &object.spec;
    let types = &spec.policy_types;
    let said = |name: &str| types.iter().any(|own| own == name);
    let unknown = types
        .iter()
        .find(|own| !matches!(own.as_str(), "Ingress" | "Egress"));
    if let Some(unknown) = unknown {
        let message = format!("{unknown:?} is not a known policy type");
        problems.add("spec.policyTypes", message);
    }
    // Who means a direction that nobody knows may mean either.
    let both = unknown.is_some();
    let ingress = both || types.is_empty() || said("Ingress");
    let egress = both || said("Egress") || types.is_empty() && spec.egress.is_some();
    let ingress = ingress.then(|| {
        let rules = spec.ingress.iter();
        let rules = rules.map(|one| {
            rule(
                "spec.ingress[*]",
                "from",
                (&one.from, &one.ports),
                &mut problems,
            )
        });
        super::exact(rules)
    });
    let egress = egress.then(|| {
        let rules = spec.egress.iter().flatten();
        let rules =
            rules.map(|one| rule("spec.egress[*]", "to", (&one.to, &one.ports), &mut problems));
        super::exact(rules)
    });
    let policy = NetworkPolicy {
        key: PolicyKey::new(&object.metadata.namespace, &object.metadata.name),
        pods: subject(&spec.pod_selector, &mut problems),
        ingress,
        egress,
    };
    (policy, problems.found)
}

fn rule(
    path: &str,
    side: &str,
    (peers, ports): (&[lean::PolicyPeer], &[lean::PolicyPort]),
    problems: &mut Problems,
) -> PolicyRule {
    let at = format!("{path}.{side}[*]");
    let who = peers.iter().filter_map(|one| peer(&at, one, problems));
    let who = (!peers.is_empty()).then(|| super::exact(who));
    let at = format!("{path}.ports[*]");
    let which = ports.iter().filter_map(|one| port(&at, one, problems));
    let which = (!ports.is_empty()).then(|| super::exact(which));
    PolicyRule {
        peers: who,
        ports: which,
    }
}

fn peer(path: &str, peer: &lean::PolicyPeer, problems: &mut Problems) -> Option<PolicyPeer> {
    let selects = peer.pod_selector.is_some() || peer.namespace_selector.is_some();
    if selects && peer.ip_block.is_some() {
        problems.add(path, "may not specify both ipBlock and another peer".into());
        return None;
    }
    if let Some(block) = &peer.ip_block {
        let field = format!("{path}.ipBlock.cidr");
        let range = *problems
            .ranges(&field, [block.cidr.as_str()].into_iter())
            .first()?;
        let field = format!("{path}.ipBlock.except");
        let except = problems.ranges(&field, block.except.iter().map(String::as_str));
        let whole = except.len() == block.except.len();
        return whole.then_some(PolicyPeer::Block(Block { range, except }));
    }
    if !selects {
        problems.add(path, "must specify a peer".into());
        return None;
    }
    let mut read =
        |name: &str, own: &lean::LabelSelector| selector(&format!("{path}.{name}"), own, problems);
    let namespaces = peer.namespace_selector.as_ref();
    let namespaces = namespaces.map(|own| read("namespaceSelector", own));
    let pods = peer.pod_selector.as_ref();
    let pods = pods.map(|own| read("podSelector", own)).unwrap_or_default();
    Some(PolicyPeer::Pods { namespaces, pods })
}

fn port(path: &str, port: &lean::PolicyPort, problems: &mut Problems) -> Option<PolicyPort> {
    let text = port.protocol.as_deref().unwrap_or_default();
    let Some(protocol) = Protocol::parse(text) else {
        let message = format!("{text:?} is not a known protocol");
        problems.add(&format!("{path}.protocol"), message);
        return None;
    };
    let number = |value: i32| u16::try_from(value).ok().filter(|number| *number > 0);
    let port = match (&port.port, port.end_port) {
        (None, None) => Some(PortMatch::All),
        (Some(IntOrString::String(name)), None) => Some(PortMatch::Named(name.as_str().into())),
        (Some(IntOrString::Int(first)), last) => number(*first)
            .zip(number(last.unwrap_or(*first)))
            .filter(|(first, last)| first <= last)
            .map(|(first, last)| PortMatch::Range(first, last)),
        (None | Some(IntOrString::String(_)), Some(_)) => None,
    };
    if port.is_none() {
        problems.add(path, "port and endPort are no range of ports".into());
    }
    port.map(|port| PolicyPort { protocol, port })
}

/// Whom a policy isolates.
fn subject(object: &lean::LabelSelector, problems: &mut Problems) -> LabelSelector {
    let mut known = object.clone();
    known
        .match_expressions
        .retain(|one| is_known(&one.operator));
    // What is left out is told all the same.
    selector("spec.podSelector", object, problems);
    selector("spec.podSelector", &known, problems)
}

fn is_known(operator: &str) -> bool {
    matches!(operator, "In" | "NotIn" | "Exists" | "DoesNotExist")
}

/// A selector. A requirement with an operator that nobody knows holds for nothing.
pub(super) fn selector(
    path: &str,
    object: &lean::LabelSelector,
    problems: &mut Problems,
) -> LabelSelector {
    let values = |texts: &[String]| texts.iter().map(|text| Text::from(text.as_str())).collect();
    let labels = object.match_labels.iter();
    let labels =
        labels.map(|(key, value)| (key.as_str().into(), Ask::In(vec![value.as_str().into()])));
    let mut requirements: Vec<(Text, Ask)> = labels.collect();
    for one in &object.match_expressions {
        let ask = match one.operator.as_str() {
            "In" => Ask::In(values(&one.values)),
            "NotIn" => Ask::NotIn(values(&one.values)),
            "Exists" => Ask::Exists,
            "DoesNotExist" => Ask::DoesNotExist,
            other => {
                let field = format!("{path}.matchExpressions[*].operator");
                problems.add(
                    &field,
                    format!("{other:?} is not a valid selector operator"),
                );
                Ask::In(Vec::new())
            }
        };
        requirements.push((one.key.as_str().into(), ask));
    }
    LabelSelector::new(requirements)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(spec: Value) -> (NetworkPolicy, Vec<Problem>) {
        let object = json!({"metadata": {"name": "p", "namespace": "a"}, "spec": spec});
        policy(&serde_json::from_value(object).expect("a NetworkPolicy"))
    }

    /// Whether it isolates for ingress and for egress, without types and with these.
    #[test]
    fn n2_directions() {
        for (spec, ingress, egress) in [
            (json!({}), true, false),
            (json!({"egress": []}), true, true),
            (json!({"egress": null}), true, false),
            (json!({"ingress": [{}]}), true, false),
            (json!({"policyTypes": ["Egress"]}), false, true),
            (
                json!({"policyTypes": ["Ingress"], "egress": [{}]}),
                true,
                false,
            ),
            (json!({"policyTypes": ["Ingress", "Egress"]}), true, true),
        ] {
            let (policy, problems) = read(spec.clone());
            assert_eq!(problems, [], "{spec}");
            assert_eq!(policy.ingress.is_some(), ingress, "{spec}");
            assert_eq!(policy.egress.is_some(), egress, "{spec}");
        }
    }

    #[test]
    fn n4_nothing_said_is_everybody_and_everything() {
        for rule in [
            json!({}),
            json!({"from": [], "ports": []}),
            json!({"from": null}),
        ] {
            let (policy, _) = read(json!({"ingress": [rule]}));
            assert_eq!(policy.ingress, Some(vec![PolicyRule::default()]));
        }
        assert_eq!(read(json!({"ingress": []})).0.ingress, Some(Vec::new()));
    }

    #[test]
    fn n9_ports() {
        let (policy, problems) = read(json!({"ingress": [{"ports": [
            {"port": 80}, {"protocol": "UDP"}, {"port": "web", "protocol": "SCTP"},
            {"port": 8000, "endPort": 9000},
        ]}]}));
        assert_eq!(problems, []);
        let port = |protocol, port| PolicyPort { protocol, port };
        let wanted = vec![
            port(Protocol::Tcp, PortMatch::Range(80, 80)),
            port(Protocol::Udp, PortMatch::All),
            port(Protocol::Sctp, PortMatch::Named("web".into())),
            port(Protocol::Tcp, PortMatch::Range(8000, 9000)),
        ];
        let rules = policy.ingress.unwrap_or_default();
        assert_eq!(
            rules.first().and_then(|rule| rule.ports.clone()),
            Some(wanted)
        );
    }

    /// What is not understood is told, and allows nothing.
    #[test]
    fn n20_what_is_not_understood_allows_nothing() {
        for (rule, field) in [
            (json!({"from": [{}]}), "spec.ingress[*].from[*]"),
            (
                json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8"}, "podSelector": {}}]}),
                "spec.ingress[*].from[*]",
            ),
            (
                json!({"from": [{"ipBlock": {"cidr": "10.0.0.0"}}]}),
                "spec.ingress[*].from[*].ipBlock.cidr",
            ),
            (
                json!({"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["x"]}}]}),
                "spec.ingress[*].from[*].ipBlock.except",
            ),
            (
                json!({"ports": [{"protocol": "ICMP"}]}),
                "spec.ingress[*].ports[*].protocol",
            ),
            (json!({"ports": [{"port": 0}]}), "spec.ingress[*].ports[*]"),
            (
                json!({"ports": [{"port": 9, "endPort": 8}]}),
                "spec.ingress[*].ports[*]",
            ),
            (
                json!({"ports": [{"port": "a", "endPort": 8}]}),
                "spec.ingress[*].ports[*]",
            ),
        ] {
            let (policy, problems) = read(json!({"ingress": [rule]}));
            assert_eq!(problems.len(), 1, "{rule}");
            assert_eq!(problems[0].field, field, "{rule}");
            let rules = policy.ingress.unwrap_or_default();
            let empty = |rule: &PolicyRule| {
                rule.peers.as_ref().is_some_and(Vec::is_empty)
                    || rule.ports.as_ref().is_some_and(Vec::is_empty)
            };
            assert!(rules.iter().all(empty), "{rules:?}");
        }
    }

    /// Whom it isolates, and in which directions, errs on the side of more.
    #[test]
    fn n20_what_is_not_understood_isolates() {
        let (policy, problems) = read(json!({"policyTypes": ["ingress"]}));
        assert_eq!(problems.len(), 1);
        assert!(policy.ingress.is_some() && policy.egress.is_some());
        let odd = json!({"key": "tier", "operator": "Like", "values": ["a"]});
        let selector = json!({"matchLabels": {"app": "web"}, "matchExpressions": [odd]});
        let (policy, problems) = read(json!({"podSelector": selector}));
        assert_eq!(problems.len(), 1);
        assert!(policy.pods.matches(&[("app", "web")].into_iter().collect()));
        assert!(!policy.pods.matches(&[("app", "db")].into_iter().collect()));
    }
}
