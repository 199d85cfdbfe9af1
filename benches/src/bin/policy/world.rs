//! 1 000 policies and 10 000 pods, of which 200 are on this node.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use anyhow::{Result, ensure};
use portolan_benches::wires;
use portolan_model::{Change, Cluster, Fact, Family, Kind, Labels, Namespace, Pod, PodKey, intake};
use portolan_plan::NodeView;
use serde_json::{Value, json};

pub(crate) const PODS: usize = 10_000;
pub(crate) const POLICIES: usize = 1_000;
/// Pods of this node.
const OWN: usize = 200;
const NAMESPACES: usize = 50;
/// Applications of a namespace; each has a policy.
const APPS: usize = POLICIES / NAMESPACES;
const NODE: &str = "this";

/// The node whose rules are made.
pub(crate) fn view() -> NodeView {
    NodeView {
        node: NODE.into(),
        dns_addresses: vec![Ipv4Addr::new(10, 96, 0, 10).into()],
        ..NodeView::default()
    }
}

/// What labels a pod of an application has.
pub(crate) fn labels(app: usize) -> Labels {
    let name = format!("app-{app}");
    let tier = if app.is_multiple_of(4) {
        "front"
    } else {
        "back"
    };
    let version = format!("v{}", app % 3);
    let pairs = [
        ("app", name.as_str()),
        ("tier", tier),
        ("version", version.as_str()),
        ("pod-template-hash", "7d9f6c5b4"),
    ];
    pairs.into_iter().collect()
}

/// A pod by its number.
pub(crate) fn pod(number: usize) -> Pod {
    let (namespace, name) = (number % NAMESPACES, format!("pod-{number}"));
    let app = number / NAMESPACES % APPS;
    let [high, low] = u16::try_from(number).unwrap_or(u16::MAX).to_be_bytes();
    let node = if number < OWN {
        NODE.to_owned()
    } else {
        format!("node-{}", number % 100)
    };
    Pod {
        addresses: vec![Ipv4Addr::new(10, 244, high, low).into()],
        labels: labels(app),
        node: Some(node.as_str().into()),
        ..Pod::at(PodKey::new(&format!("team-{namespace}"), &name), None)
    }
}

/// What the policy of an application says: its neighbours and the front of its team
/// may come in, at a port and a range; it may go out to the next application, for
/// names, and to the outside.
fn policy(number: usize) -> Value {
    let (namespace, app) = (number % NAMESPACES, number / NAMESPACES);
    let pods = |app: usize| json!({"podSelector": {"matchLabels": {"app": format!("app-{app}")}}});
    let next = (app + 1) % APPS;
    let team = json!({"matchLabels": {"team": format!("group-{}", namespace % 5)}});
    json!({
        "metadata": {"namespace": format!("team-{namespace}"), "name": format!("app-{app}")},
        "spec": {
            "podSelector": {"matchLabels": {"app": format!("app-{app}")}},
            "policyTypes": ["Ingress", "Egress"],
            "ingress": [
                {"from": [pods((app + APPS - 1) % APPS)], "ports": [{"port": 8080}, {"port": 8081}]},
                {
                    "from": [{"namespaceSelector": team, "podSelector": {"matchLabels": {"tier": "front"}}}],
                    "ports": [{"port": 9000, "endPort": 9100}],
                },
            ],
            "egress": [
                {"to": [pods(next)]},
                {
                    "to": [{
                        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
                        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
                    }],
                    "ports": [{"protocol": "UDP", "port": 53}],
                },
                {
                    "to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}],
                    "ports": [{"port": 443}],
                },
            ],
        },
    })
}

/// The two ends of the packets' way, as pods of this node: the application behind
/// another, to which the other may go.
fn ends() -> [Pod; 2] {
    let own = |name: &str, app, addresses: Vec<IpAddr>| Pod {
        addresses,
        labels: labels(app),
        node: Some(NODE.into()),
        ..Pod::at(PodKey::new("team-0", name), None)
    };
    let both = |of: fn(Family) -> Vec<IpAddr>| Family::BOTH.into_iter().flat_map(of).collect();
    [
        own("client", 0, both(wires::clients)),
        own("server", 1, both(wires::pods)),
    ]
}

/// Every object.
pub(crate) fn changes() -> Result<Vec<Change>> {
    let namespaces = (0..NAMESPACES).map(|number| {
        let (name, team) = (format!("team-{number}"), format!("group-{}", number % 5));
        let pairs = [
            ("kubernetes.io/metadata.name", name.as_str()),
            ("team", team.as_str()),
        ];
        let labels = pairs.into_iter().collect();
        Fact::Namespace(Namespace {
            name: name.as_str().into(),
            labels,
        })
    });
    let policies = (0..POLICIES).map(|number| {
        let (policy, problems) = intake::policy(&serde_json::from_value(policy(number))?);
        ensure!(problems.is_empty(), "{problems:?}");
        Ok(Fact::Policy(Arc::new(policy)))
    });
    let pods = (0..PODS).map(pod).chain(ends());
    Ok(vec![
        Change::Replace(Kind::Namespace, namespaces.collect()),
        Change::Replace(Kind::Pod, pods.map(|pod| Fact::Pod(pod.into())).collect()),
        Change::Replace(Kind::Policy, policies.collect::<Result<_>>()?),
    ])
}

/// The facts of all that.
pub(crate) fn facts(changes: Vec<Change>) -> Cluster {
    let mut facts = Cluster::default();
    for change in changes {
        facts.apply(change);
    }
    facts
}
