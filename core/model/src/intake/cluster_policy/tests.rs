//! What becomes of ClusterNetworkPolicy objects, those that nobody understands above all.

use serde_json::{Value, json};

use super::*;

fn read(spec: Value) -> (ClusterPolicy, Vec<String>) {
    let object = json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "p"}, "spec": spec, "status": {"conditions": []},
    });
    let object = serde_json::from_value(object).expect("a ClusterNetworkPolicy");
    let (policy, problems) = cluster_policy(&object);
    let fields = problems.into_iter().map(|problem| problem.field);
    (policy, fields.collect())
}

/// A policy with this rule, in ingress or in egress.
fn with(side: &str, rule: &Value) -> Value {
    json!({
        "tier": "Admin", "priority": 7, "subject": {"namespaces": {}},
        side: [rule],
    })
}

fn pods(namespaces: LabelSelector, pods: LabelSelector) -> PolicyPeer {
    PolicyPeer::Pods {
        namespaces: Some(namespaces),
        pods,
    }
}

fn label(key: &str, value: &str) -> LabelSelector {
    LabelSelector::new(vec![(
        key.into(),
        crate::labels::Ask::In(vec![value.into()]),
    )])
}

#[test]
fn n19_what_is_understood() {
    let (policy, problems) = read(json!({
        "tier": "Baseline", "priority": 1000,
        "subject": {"pods": {
            "namespaceSelector": {"matchLabels": {"team": "a"}},
            "podSelector": {"matchLabels": {"app": "web"}},
        }},
        "ingress": [{"name": "first", "action": "Pass", "from": [{"namespaces": {}}]}],
        "egress": [{
            "action": "Deny",
            "to": [
                {"networks": ["10.1.2.3/8", "fd00::/8"]},
                {"pods": {"podSelector": {"matchLabels": {"app": "db"}}}},
            ],
            "protocols": [
                {"tcp": {"destinationPort": {"number": 80}}},
                {"udp": {"destinationPort": {"range": {"start": 1, "end": 9}}}},
                {"sctp": {"destinationPort": {"number": 65535}}},
            ],
        }],
    }));
    assert_eq!(problems, [""; 0]);
    assert_eq!((policy.tier, policy.priority), (Tier::Baseline, 1000));
    assert_eq!(policy.subject.namespaces, label("team", "a"));
    assert_eq!(policy.subject.pods, label("app", "web"));
    let first = ClusterRule {
        name: Some("first".into()),
        action: Action::Pass,
        rule: PolicyRule {
            peers: Some(vec![pods(
                LabelSelector::default(),
                LabelSelector::default(),
            )]),
            ports: None,
        },
    };
    assert_eq!(policy.ingress, [first]);
    let block = |text: &str| {
        PolicyPeer::Block(Block {
            range: text.parse().expect("a range"),
            except: Vec::new(),
        })
    };
    let port = |protocol, first, last| PolicyPort {
        protocol,
        port: PortMatch::Range(first, last),
    };
    let rule = PolicyRule {
        peers: Some(vec![
            block("10.0.0.0/8"),
            block("fd00::/8"),
            pods(LabelSelector::default(), label("app", "db")),
        ]),
        ports: Some(vec![
            port(Protocol::Tcp, 80, 80),
            port(Protocol::Udp, 1, 9),
            port(Protocol::Sctp, 65535, 65535),
        ]),
    };
    let second = ClusterRule {
        name: None,
        action: Action::Deny,
        rule,
    };
    assert_eq!(policy.egress, [second]);
}

/// A name of a port is of whichever protocol.
#[test]
fn n10_n19_ports_by_name() {
    let rule = json!({"action": "Accept", "from": [{"namespaces": {}}],
                      "protocols": [{"destinationNamedPort": "web"}]});
    let (policy, problems) = read(with("ingress", &rule));
    assert_eq!(problems, [""; 0]);
    let ports = policy.ingress[0].rule.ports.clone().unwrap_or_default();
    let protocols: Vec<Protocol> = ports.iter().map(|port| port.protocol).collect();
    assert_eq!(protocols, [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
    let named = |port: &PolicyPort| port.port == PortMatch::Named("web".into());
    assert!(ports.iter().all(named), "{ports:?}");
}

/// Each of these is told, matches nothing where it accepts, and denies all elsewhere.
#[track_caller]
fn fails_closed(cases: &[(&str, &str, Value)]) {
    for (side, part, value) in cases {
        let (direction, peers) = match *side {
            "to" => ("egress", "to"),
            _ => ("ingress", "from"),
        };
        for action in ["Accept", "Deny", "Pass"] {
            let mut rule = json!({"action": action, peers: [{"namespaces": {}}]});
            rule[*side] = value.clone();
            let (policy, problems) = read(with(direction, &rule));
            let field = format!("spec.{direction}[0].{side}{part}");
            assert!(problems.contains(&field), "{rule}: {problems:?}");
            let rules = [policy.ingress, policy.egress].concat();
            let closed = match action {
                "Accept" => (Action::Accept, nothing()),
                _ => (Action::Deny, PolicyRule::default()),
            };
            let read: Vec<_> = rules
                .into_iter()
                .map(|own| (own.action, own.rule))
                .collect();
            assert_eq!(read, [closed], "{rule}");
        }
    }
}

#[test]
fn n19_peers_that_are_not_understood_fail_closed() {
    let odd = json!({"matchExpressions": [{"key": "a", "operator": "Like", "values": ["b"]}]});
    let none = json!({"matchExpressions": [{"key": "a", "operator": "NotIn", "values": []}]});
    let extra = json!({"podSelector": {}, "nodeSelector": {}});
    let two = json!({"namespaces": {}, "pods": {"podSelector": {}}});
    let networks = |texts: Value| json!([{"networks": texts}]);
    let odd_name = "[0].namespaces.matchExpressions[*].operator";
    let no_values = "[0].namespaces.matchExpressions[*].values";
    fails_closed(&[
        ("from", "", json!([])),
        ("from", "[0]", json!([{}])),
        (
            "to",
            "[0].domainNames",
            json!([{"domainNames": ["a.example"]}]),
        ),
        ("to", "[0].nodes", json!([{"nodes": {}}])),
        ("to", "[1]", json!([{"namespaces": {}}, {}])),
        ("to", "[0]", json!([two])),
        (
            "to",
            "[0].networks",
            networks(json!(["10.0.0.0/8", "10.0.0.0/33"])),
        ),
        ("from", "[0]", networks(json!(["10.0.0.0/8"]))),
        ("from", "[0].pods.nodeSelector", json!([{"pods": extra}])),
        ("from", odd_name, json!([{"namespaces": odd}])),
        ("from", no_values, json!([{"namespaces": none}])),
        ("l7", "", json!({"method": "GET"})),
    ]);
}

#[test]
fn n19_ports_that_are_not_understood_fail_closed() {
    let port = |port: Value| json!([{"tcp": {"destinationPort": port}}]);
    let source = json!([{"tcp": {"sourcePort": {"number": 9}}}]);
    let tcp = "[0].tcp.destinationPort";
    fails_closed(&[
        ("protocols", "", json!([])),
        ("protocols", "[0]", json!([{}])),
        ("protocols", "[0].icmp", json!([{"icmp": {"type": 8}}])),
        ("protocols", tcp, json!([{"tcp": {}}])),
        ("protocols", "[0].tcp.sourcePort", source),
        ("protocols", tcp, port(json!({"number": 0}))),
        ("protocols", tcp, port(json!({"number": 65536}))),
        (
            "protocols",
            tcp,
            port(json!({"range": {"start": 9, "end": 8}})),
        ),
    ]);
}

/// A range has no names of ports, so a rule of both would be about nothing.
#[test]
fn n19_ranges_have_no_names_of_ports() {
    let rule = json!({"action": "Deny", "to": [{"networks": ["::/0"]}],
                      "protocols": [{"destinationNamedPort": "web"}]});
    let (policy, problems) = read(with("egress", &rule));
    assert_eq!(problems, ["spec.egress[0].protocols"]);
    assert_eq!(policy.egress[0].rule, PolicyRule::default());
}

/// Of whom a policy speaks, when it is asked, and what it does.
#[test]
fn n19_policies_that_are_not_understood_open_nothing() {
    let rules = json!([
        {"action": "Accept", "from": [{"namespaces": {}}]},
        {"action": "Deny", "from": [{"pods": {"podSelector": {}}}]},
        {"action": "Pass", "from": [{"namespaces": {}}]},
    ]);
    for (field, name, value) in [
        ("spec.tier", "tier", json!("Platform")),
        ("spec.priority", "priority", json!(1001)),
        ("spec.priority", "priority", Value::Null),
        ("spec.subject", "subject", json!({})),
        ("spec.subject.nodes", "subject", json!({"nodes": {}})),
        ("spec.stage", "stage", json!("Audit")),
    ] {
        let mut spec = json!({"tier": "Admin", "priority": 0, "subject": {"namespaces": {}}});
        spec["ingress"] = rules.clone();
        spec[name] = value;
        let (policy, problems) = read(spec.clone());
        assert_eq!(problems.first().map(String::as_str), Some(field), "{spec}");
        let labels = [("app", "web")].into_iter().collect();
        assert!(policy.subject.selects(None, &labels), "{spec}");
        assert_eq!(policy.ingress[0].rule, nothing(), "{spec}");
        let all = pods(LabelSelector::default(), LabelSelector::default());
        assert_eq!(policy.ingress[1].rule.peers, Some(vec![all]), "{spec}");
        assert_eq!(policy.ingress[2].action, Action::Deny, "{spec}");
        assert_eq!(policy.ingress[2].rule, PolicyRule::default(), "{spec}");
    }
    let rule = json!({"action": "Log", "from": [{"namespaces": {}}]});
    let (policy, problems) = read(with("ingress", &rule));
    assert_eq!(problems, ["spec.ingress[0].action"]);
    assert_eq!(policy.ingress[0].action, Action::Deny);
    assert_eq!(policy.ingress[0].rule, PolicyRule::default());
}
