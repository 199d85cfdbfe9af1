//! NetworkPolicies with real packets. World after world of policies is applied to the
//! same town; each time the kernel must hold what was rendered.

use std::io::ErrorKind;
use std::net::SocketAddr;

use anyhow::{Result, ensure};
use portolan_model::Protocol::{Tcp, Udp};
use portolan_model::{
    Change, Fact, Family, Key, Kind, Labels, Namespace, Pod, PodKey, Protocol, intake,
};
use portolan_netns::facts::{PORT, TCP_TARGET, UDP_TARGET, cluster_ip};
use portolan_netns::talk::{PATIENCE, SILENCE, Seen, connect};
use portolan_netns::town::{A, B, C, NODE_1, WEB, in_town};
use portolan_netns::world::{Client, World, lab_view};
use portolan_plan::{DNS_PORT, Deny, NodeView};
use serde_json::{Value, json};

/// The node of the third pod.
const NODE_2: Client = Client::Node(1);

/// The pods of the town, each with its own label and a common one, and their
/// namespaces.
fn people(world: &World) -> Vec<Change> {
    let pods = [("a", "home"), ("b", "home"), ("c", "away")];
    let pods = world.pods.iter().zip(pods).map(|(pod, (name, namespace))| {
        let labels = [("app", name), ("town", "yes")].into_iter().collect();
        let node = world
            .nodes
            .get(pod.node)
            .map(|node| node.net.name.as_str().into());
        let pod = Pod {
            addresses: pod.net.ips.clone(),
            labels,
            node,
            ..Pod::at(PodKey::new(namespace, name), None)
        };
        Fact::Pod(pod.into())
    });
    let namespaces = ["home", "away", "kube-system"].map(|name| {
        let labels: Labels = [("kubernetes.io/metadata.name", name)]
            .into_iter()
            .collect();
        Fact::Namespace(Namespace {
            name: name.into(),
            labels,
        })
    });
    pods.chain(namespaces).map(Change::Upsert).collect()
}

/// These NetworkPolicies, each a namespace and a spec, and no others.
fn policies(specs: &[(&str, Value)]) -> Result<Change> {
    let facts = specs.iter().zip(0..).map(|((namespace, spec), number)| {
        let name = format!("policy-{number}");
        let object = json!({"metadata": {"namespace": namespace, "name": name}, "spec": spec});
        let (policy, problems) = intake::policy(&serde_json::from_value(object)?);
        ensure!(problems.is_empty(), "{problems:?}");
        Ok(Fact::Policy(policy.into()))
    });
    Ok(Change::Replace(Kind::Policy, facts.collect::<Result<_>>()?))
}

fn target(protocol: Protocol) -> u16 {
    match protocol {
        Tcp | Protocol::Sctp => TCP_TARGET,
        Udp => UDP_TARGET,
    }
}

/// Who gets an answer from whom, in both families; everybody not named gets none. A
/// drop is silent (N18).
async fn check(world: &World, protocols: &[Protocol], wanted: &[(Client, Client)]) -> Result<()> {
    let everybody = [A, B, C, NODE_1, NODE_2];
    let pairs = everybody
        .into_iter()
        .flat_map(|from| [A, B, C].map(move |to| (from, to)));
    for (from, to) in pairs {
        for family in Family::BOTH {
            for protocol in [Tcp, Udp] {
                let at = SocketAddr::new(world.address(to, family), target(protocol));
                let expected = protocols.contains(&protocol) && wanted.contains(&(from, to));
                // Who expects silence need not wait long to be right.
                let patience = if expected { PATIENCE } else { SILENCE };
                let seen = world.knock(from, protocol, at, patience).await?;
                let fits = match seen {
                    Seen::Answer { .. } => expected,
                    Seen::Silence => !expected,
                    Seen::Refused | Seen::Failed(_) => false,
                };
                ensure!(
                    fits,
                    "{from:?} to {to:?} by {protocol} in {family}: {seen:?}"
                );
            }
        }
    }
    Ok(())
}

/// Everybody to everybody, less what is not so.
fn all_but(not: impl Fn(Client, Client) -> bool) -> Vec<(Client, Client)> {
    let everybody = [A, B, C, NODE_1, NODE_2];
    let pairs = everybody
        .into_iter()
        .flat_map(|from| [A, B, C].map(|to| (from, to)));
    pairs
        .filter(|(from, to)| from == to || !not(*from, *to))
        .collect()
}

fn app(name: &str) -> Value {
    json!({"podSelector": {"matchLabels": {"app": name}}})
}

#[test]
fn n1_n3_n4_n6_n12_n14_n15_who_may_come_in() {
    let test = "n1_n3_n4_n6_n12_n14_n15_who_may_come_in";
    in_town(test, async |mut world| {
        let people = people(&world);
        world.apply(&people)?;
        let both = [Tcp, Udp];
        check(&world, &both, &all_but(|_, _| false)).await?;
        let b = json!({"matchLabels": {"app": "b"}});
        let closed = ("home", json!({"podSelector": b}));
        // Its own node may always come in.
        let none = |from, to| to == B && from != NODE_1;
        world.apply(&[policies(std::slice::from_ref(&closed))?])?;
        check(&world, &both, &all_but(none)).await?;
        // A second policy adds to the first.
        let from_a = json!({"podSelector": b, "ingress": [{"from": [app("a")]}]});
        world.apply(&[policies(&[closed.clone(), ("home", from_a)])?])?;
        check(
            &world,
            &both,
            &all_but(|from, to| none(from, to) && from != A),
        )
        .await?;
        // A selector of pods alone means those of the policy's namespace.
        let from_c = json!({"podSelector": b, "ingress": [{"from": [app("c")]}]});
        world.apply(&[policies(&[("home", from_c)])?])?;
        check(&world, &both, &all_but(none)).await?;
        let away = json!({"matchLabels": {"kubernetes.io/metadata.name": "away"}});
        let from_away =
            json!({"podSelector": b, "ingress": [{"from": [{"namespaceSelector": away}]}]});
        world.apply(&[policies(&[("home", from_away)])?])?;
        check(
            &world,
            &both,
            &all_but(|from, to| none(from, to) && from != C),
        )
        .await?;
        let open = json!({"podSelector": {}, "ingress": [{}]});
        world.apply(&[policies(&[closed, ("home", open)])?])?;
        check(&world, &both, &all_but(|_, _| false)).await?;
        world.apply(&[policies(&[])?])?;
        check(&world, &both, &all_but(|_, _| false)).await
    });
}

#[test]
fn n2_n5_n8_n9_n15_where_one_may_go() {
    let test = "n2_n5_n8_n9_n15_where_one_may_go";
    in_town(test, async |mut world| {
        let people = people(&world);
        world.apply(&people)?;
        let a = json!({"matchLabels": {"app": "a"}});
        let egress =
            |rules: Value| json!({"podSelector": a, "policyTypes": ["Egress"], "egress": rules});
        world.apply(&[policies(&[("home", egress(json!([])))])?])?;
        check(&world, &[Tcp, Udp], &all_but(|from, _| from == A)).await?;
        // One protocol, one port: no other.
        let ports = json!([{"port": TCP_TARGET}, {"port": 1, "endPort": 9}]);
        let to_tcp = egress(json!([{"ports": ports}]));
        world.apply(&[policies(&[("home", to_tcp)])?])?;
        for family in Family::BOTH {
            for (to, protocol, expected) in [(B, Tcp, true), (C, Tcp, true), (B, Udp, false)] {
                let at = SocketAddr::new(world.address(to, family), target(protocol));
                let patience = if expected { PATIENCE } else { SILENCE };
                let seen = world.knock(A, protocol, at, patience).await?;
                ensure!(
                    matches!(seen, Seen::Answer { .. }) == expected,
                    "{to:?} {protocol}: {seen:?}"
                );
            }
        }
        // A range less another.
        let [v4, v6] = Family::BOTH.map(|family| world.address(C, family));
        let blocks = json!([{"to": [
            {"ipBlock": {"cidr": "0.0.0.0/0", "except": [format!("{v4}/32")]}},
            {"ipBlock": {"cidr": "::/0", "except": [format!("{v6}/128")]}},
        ]}]);
        world.apply(&[policies(&[("home", egress(blocks))])?])?;
        let not_c = |from, to| from == A && to == C;
        check(&world, &[Tcp, Udp], &all_but(not_c)).await?;
        // Labels decide, as they are now.
        let to_c = egress(json!([{"to": [{
            "namespaceSelector": {}, "podSelector": {"matchLabels": {"app": "c"}},
        }]}]));
        world.apply(&[policies(&[("home", to_c)])?])?;
        check(
            &world,
            &[Tcp, Udp],
            &all_but(|from, to| from == A && to != C),
        )
        .await?;
        world.apply(&[Change::Delete(Key::Pod(PodKey::new("away", "c")))])?;
        check(&world, &[Tcp, Udp], &all_but(|from, _| from == A)).await?;
        world.apply(&people)?;
        check(
            &world,
            &[Tcp, Udp],
            &all_but(|from, to| from == A && to != C),
        )
        .await
    });
}

/// A policy is about pods, not about the addresses of Services; what was allowed once
/// is answered; and pods may always speak to themselves.
#[test]
fn n11_n12_n17_services_replies_and_itself() {
    let test = "n11_n12_n17_services_replies_and_itself";
    in_town(test, async |mut world| {
        let people = people(&world);
        world.apply(&people)?;
        for family in Family::BOTH {
            let open = SocketAddr::new(world.address(B, family), TCP_TARGET);
            world.apply(&[policies(&[])?])?;
            let mut held = connect(world.namespace(A), world.port(), open).await??;
            // Nobody but who is at home gets in, and nobody at home gets out of it.
            let home = json!([{"podSelector": {}}]);
            let spec = json!({
                "podSelector": {}, "policyTypes": ["Ingress", "Egress"],
                "ingress": [{"from": home}], "egress": [{"to": home}],
            });
            world.apply(&[policies(&[("home", spec)])?])?;
            held.echo("still here").await?;
            // Through the Service, behind which are A, B and C: of those at home only.
            let service = SocketAddr::new(cluster_ip(family, WEB), PORT);
            let (mut answers, mut silences) = (0, 0);
            for _ in 0..24 {
                match world.knock(A, Tcp, service, SILENCE).await? {
                    Seen::Answer { server, .. } => {
                        ensure!(server.ip() != world.address(C, family), "{server} answered");
                        answers += 1;
                    }
                    Seen::Silence => silences += 1,
                    seen @ (Seen::Refused | Seen::Failed(_)) => anyhow::bail!("{seen:?}"),
                }
            }
            ensure!(answers > 0 && silences > 0, "{answers} and {silences}");
            // A pod alone behind a policy that lets nobody in reaches itself.
            world.apply(&[policies(&[("home", json!({"podSelector": {}}))])?])?;
            let own = SocketAddr::new(world.address(A, family), TCP_TARGET);
            let seen = world.knock(A, Tcp, own, PATIENCE).await?;
            ensure!(matches!(seen, Seen::Answer { .. }), "itself: {seen:?}");
        }
        Ok(())
    });
}

/// Where that is asked for, who is not let through is told at once: TCP by a reset,
/// UDP by ICMP, whether a Service is in between or not.
#[test]
fn n18_what_is_denied_may_be_refused() {
    let test = "n18_what_is_denied_may_be_refused";
    in_town(test, async |mut world| {
        let people = people(&world);
        world.apply(&people)?;
        world.look(&NodeView {
            policy_deny: Deny::Reject,
            ..lab_view()
        })?;
        let selected = json!({"matchLabels": {"app": "a"}});
        let closed = json!({"podSelector": {}, "policyTypes": ["Ingress"]});
        let kept_in = json!({"podSelector": selected, "policyTypes": ["Egress"]});
        for (namespace, spec, (from, to)) in [
            ("home", closed.clone(), (C, B)),
            ("home", closed, (A, B)),
            ("home", kept_in, (A, C)),
        ] {
            world.apply(&[policies(&[(namespace, spec.clone())])?])?;
            for family in Family::BOTH {
                let at = |protocol| SocketAddr::new(world.address(to, family), target(protocol));
                let seen = world.knock(from, Tcp, at(Tcp), PATIENCE).await?;
                ensure!(seen == Seen::Refused, "{spec}: {from:?} by TCP: {seen:?}");
                let seen = world.knock(from, Udp, at(Udp), PATIENCE).await?;
                let told = [ErrorKind::HostUnreachable, ErrorKind::PermissionDenied];
                let refused = matches!(seen, Seen::Failed(kind) if told.contains(&kind));
                ensure!(refused, "{spec}: {from:?} by UDP: {seen:?}");
            }
        }
        let spec = json!({"podSelector": selected, "policyTypes": ["Egress"]});
        world.apply(&[policies(&[("home", spec)])?])?;
        for family in Family::BOTH {
            let service = SocketAddr::new(cluster_ip(family, WEB), PORT);
            let mut refused = 0;
            for _ in 0..24 {
                match world.knock(A, Tcp, service, PATIENCE).await? {
                    Seen::Refused => refused += 1,
                    // Itself, which it always reaches.
                    Seen::Answer { server, .. } => {
                        ensure!(server.ip() == world.address(A, family), "{server} answered");
                    }
                    seen @ (Seen::Silence | Seen::Failed(_)) => anyhow::bail!("{seen:?}"),
                }
            }
            ensure!(refused > 0, "nobody but itself was drawn");
        }
        Ok(())
    });
}

/// Names are answered on the node itself; to policies whoever answers is a pod of
/// kube-dns.
#[test]
fn n21_who_answers_names_is_kube_dns() {
    let test = "n21_who_answers_names_is_kube_dns";
    in_town(test, async |mut world| {
        let people = people(&world);
        world.apply(&people)?;
        let answering = Family::BOTH.map(|family| cluster_ip(family, 200));
        world.answer_names(&answering).await?;
        world.look(&NodeView {
            dns_addresses: answering.into(),
            ..lab_view()
        })?;
        let selected = json!({"matchLabels": {"app": "a"}});
        let kube_dns = json!({
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
            "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
        });
        let rules = [
            (json!([]), false, false),
            (
                json!([{"to": [kube_dns], "ports": [{"protocol": "UDP", "port": 53}]}]),
                true,
                false,
            ),
            (json!([{"to": [kube_dns]}]), true, true),
            (
                json!([{"to": [kube_dns], "ports": [{"protocol": "TCP", "port": "dns-tcp"}]}]),
                false,
                true,
            ),
        ];
        for (egress, udp, tcp) in rules {
            let spec =
                json!({"podSelector": selected, "policyTypes": ["Egress"], "egress": egress});
            world.apply(&[policies(&[("home", spec)])?])?;
            for address in answering {
                for (protocol, expected) in [(Udp, udp), (Tcp, tcp)] {
                    let at = SocketAddr::new(address, DNS_PORT);
                    let patience = if expected { PATIENCE } else { SILENCE };
                    let seen = world.knock(A, protocol, at, patience).await?;
                    let answered = matches!(seen, Seen::Answer { .. });
                    ensure!(
                        answered == expected,
                        "{egress}: {at} by {protocol}: {seen:?}"
                    );
                    let other = world.knock(B, protocol, at, PATIENCE).await?;
                    ensure!(matches!(other, Seen::Answer { .. }), "B: {other:?}");
                }
            }
        }
        Ok(())
    });
}
