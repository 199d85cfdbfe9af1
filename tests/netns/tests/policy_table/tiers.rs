//! ClusterNetworkPolicies: tiers, priorities, actions.

use portolan_model::{Change, Key};
use serde_json::{Value, json};

use crate::steps::{People, Step, ns, pod, policy};

/// A ClusterNetworkPolicy about all pods called a, unless told otherwise.
fn cluster(name: &str, (tier, priority): (&str, u16), rules: &Value) -> Value {
    let mut spec = json!({
        "tier": tier, "priority": priority,
        "subject": {"pods": {"podSelector": pod("a")}},
    });
    for side in ["subject", "ingress", "egress"] {
        if let Some(own) = rules.get(side) {
            spec[side] = own.clone();
        }
    }
    json!({"kind": "ClusterNetworkPolicy", "metadata": {"name": name}, "spec": spec})
}

fn admin(rules: &Value) -> Value {
    cluster("admin", ("Admin", 50), rules)
}

fn baseline(rules: &Value) -> Value {
    cluster("baseline", ("Baseline", 50), rules)
}

/// A rule of ingress about some pods of all namespaces.
fn pods(action: &str, name: &str) -> Value {
    json!({"action": action, "from": [{"pods": {"podSelector": pod(name)}}]})
}

/// A rule of ingress about all pods of a namespace.
fn space(action: &str, name: &str) -> Value {
    json!({"action": action, "from": [{"namespaces": ns(name)}]})
}

fn everybody(action: &str) -> Value {
    json!({"action": action, "from": [{"namespaces": {}}]})
}

fn at(mut rule: Value, protocols: Value) -> Value {
    rule["protocols"] = protocols;
    rule
}

fn goes(action: &str, to: Value) -> Value {
    json!({"action": action, "to": to})
}

fn number(protocol: &str, number: u16) -> Value {
    json!({protocol: {"destinationPort": {"number": number}}})
}

pub(crate) fn tiers(people: &People) -> Vec<Step> {
    let parts = [
        decisions(),
        order(),
        ports_and_names(),
        networks(people),
        changes(people),
    ];
    parts.into_iter().flatten().collect()
}

/// Which tier decides.
fn decisions() -> Vec<Step> {
    let one = |what, objects: &[Value]| Step::only("N19", what, objects);
    let ingress = |rules: Value| json!({"ingress": rules});
    let closed = policy("x", "closed", &json!({"podSelector": {}}));
    let from_b = json!([{"from": [{"podSelector": pod("b")}]}]);
    let only_b = policy("x", "b", &json!({"podSelector": {}, "ingress": from_b}));
    let deny_y = ingress(json!([space("Deny", "y")]));
    let accept_y = ingress(json!([space("Accept", "y")]));
    let pass_y = ingress(json!([space("Pass", "y"), everybody("Deny")]));
    let spaces = json!({"subject": {"namespaces": ns("y")}, "ingress": [everybody("Deny")]});
    vec![
        one("Admin denies", &[admin(&deny_y)]),
        one("Admin accepts what is open", &[admin(&accept_y)]),
        one(
            "Admin accepts what a NetworkPolicy closes",
            &[admin(&accept_y), closed.clone()],
        ),
        one(
            "Admin denies what a NetworkPolicy allows",
            &[admin(&deny_y), only_b.clone()],
        ),
        one("Admin passes to nobody", &[admin(&pass_y)]),
        one(
            "Admin passes to a NetworkPolicy",
            &[admin(&pass_y), closed.clone()],
        ),
        one(
            "Admin passes to Baseline",
            &[admin(&pass_y), baseline(&deny_y)],
        ),
        one(
            "Baseline denies",
            &[baseline(&ingress(json!([everybody("Deny")])))],
        ),
        one(
            "a NetworkPolicy comes before Baseline",
            &[baseline(&deny_y), only_b],
        ),
        one(
            "Baseline opens nothing that is closed",
            &[baseline(&accept_y), closed],
        ),
        one("Baseline passes", &[baseline(&pass_y)]),
        one("all pods of a namespace", &[admin(&spaces)]),
        one(
            "no rules in a direction",
            &[admin(
                &json!({"egress": [goes("Deny", json!([{"namespaces": ns("z")}]))]}),
            )],
        ),
    ]
}

/// Which rule decides.
fn order() -> Vec<Step> {
    let one = |what, objects: &[Value]| Step::only("N19 N3", what, objects);
    let ingress = |rules: Value| json!({"ingress": rules});
    let rank =
        |name: &str, priority, rules: Value| cluster(name, ("Admin", priority), &ingress(rules));
    let first = json!([
        pods("Accept", "b"),
        space("Deny", "y"),
        pods("Pass", "c"),
        everybody("Deny")
    ]);
    let accept = json!([pods("Accept", "b")]);
    let deny = json!([everybody("Deny")]);
    let pass = json!([space("Pass", "z")]);
    let hidden = json!([everybody("Deny"), everybody("Accept")]);
    vec![
        one("the first rule", &[admin(&ingress(first))]),
        one("a rule behind everybody", &[admin(&ingress(hidden))]),
        one(
            "lower priorities first",
            &[
                rank("deny", 2, deny.clone()),
                rank("accept", 1, accept.clone()),
            ],
        ),
        one(
            "higher priorities last",
            &[
                rank("deny", 1, deny.clone()),
                rank("accept", 2, accept.clone()),
            ],
        ),
        one(
            "by name then",
            &[rank("b", 1, accept.clone()), rank("a", 1, deny.clone())],
        ),
        one(
            "three policies",
            &[
                rank("c", 1000, deny),
                rank("b", 1, pass),
                rank("a", 0, accept),
            ],
        ),
    ]
}

/// At which ports.
fn ports_and_names() -> Vec<Step> {
    let one = |what, rules: Value| Step::only("N19 N10 N14", what, &[admin(&rules)]);
    let ingress = |rules: Value| json!({"ingress": rules});
    let range = json!({"udp": {"destinationPort": {"range": {"start": 80, "end": 81}}}});
    let web = json!([{"destinationNamedPort": "web"}]);
    let udp = json!([{"destinationNamedPort": "serve-80-udp"}]);
    let to_all = json!([{"namespaces": {}}]);
    let by_name = json!([
        {"action": "Accept", "to": [{"namespaces": ns("z")}]},
        {"action": "Deny", "to": to_all, "protocols": web},
        {"action": "Accept", "to": to_all, "protocols": [number("tcp", 80)]},
        {"action": "Accept", "to": to_all, "protocols": udp},
        {"action": "Deny", "to": [{"namespaces": ns("y")}]},
    ]);
    vec![
        one(
            "a number",
            ingress(json!([at(everybody("Deny"), json!([number("tcp", 80)]))])),
        ),
        one(
            "SCTP",
            ingress(json!([at(everybody("Deny"), json!([number("sctp", 81)]))])),
        ),
        one(
            "a range",
            ingress(json!([at(space("Deny", "y"), json!([range]))])),
        ),
        one(
            "a hole",
            ingress(json!([
                at(
                    everybody("Accept"),
                    json!([number("tcp", 81), number("udp", 80)])
                ),
                everybody("Deny")
            ])),
        ),
        one(
            "a name",
            ingress(json!([at(everybody("Deny"), web.clone())])),
        ),
        one("names among other rules", json!({"egress": by_name})),
    ]
}

/// Ranges of addresses, and what nobody knows.
fn networks(people: &People) -> Vec<Step> {
    let one = |what, rules: Value| Step::only("N19 N8 N21", what, &[admin(&rules)]);
    let cidr = |address: &std::net::IpAddr| {
        let bits = if address.is_ipv4() { 32 } else { 128 };
        format!("{address}/{bits}")
    };
    let networks = |pod| -> Value {
        let texts: Vec<String> = people.addresses(pod).iter().map(cidr).collect();
        json!([{"networks": texts}])
    };
    let whole = json!([{"networks": ["0.0.0.0/0", "::/0"]}]);
    let dns = json!({
        "namespaceSelector": ns("kube-system"),
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    });
    let egress = |rules: Value| json!({"egress": rules});
    let unknown = json!([{"nodes": {}}]);
    vec![
        one("a network", egress(json!([goes("Deny", networks(8))]))),
        one(
            "all but one",
            egress(json!([
                goes("Accept", networks(8)),
                goes("Deny", whole.clone())
            ])),
        ),
        one(
            "pods come before",
            egress(json!([
                goes("Pass", json!([{"namespaces": ns("z")}])),
                goes("Deny", whole.clone())
            ])),
        ),
        one(
            "a pod in a network",
            egress(json!([
                goes("Accept", networks(8)),
                goes("Deny", json!([{"pods": {"podSelector": pod("c")}}])),
                goes("Accept", whole.clone())
            ])),
        ),
        one(
            "names",
            egress(json!([
                goes("Accept", json!([{"pods": dns}])),
                goes("Deny", whole)
            ])),
        ),
        one(
            "Accept of the unknown",
            egress(json!([
                goes("Accept", unknown.clone()),
                goes("Deny", networks(8))
            ])),
        ),
        one(
            "Deny of the unknown",
            egress(json!([goes("Deny", unknown.clone())])),
        ),
        one(
            "Pass of the unknown",
            egress(json!([goes("Accept", networks(8)), goes("Pass", unknown)])),
        ),
    ]
}

/// What changes.
fn changes(people: &People) -> Vec<Step> {
    let red = json!({"matchLabels": {"colour": "red"}});
    let rules = json!({
        "subject": {"namespaces": red},
        "ingress": [{"action": "Accept", "from": [{"pods": {"podSelector": red}}]}, everybody("Deny")],
    });
    let subject = json!({
        "subject": {"pods": {"namespaceSelector": {}, "podSelector": red}},
        "ingress": [everybody("Deny")],
    });
    let gone = |name: &str| vec![Change::Delete(Key::ClusterPolicy(name.into()))];
    vec![
        Step::only(
            "N19 N15",
            "nobody is red",
            &[admin(&rules), baseline(&subject)],
        ),
        Step::but(
            "N19 N15",
            "a namespace becomes red",
            vec![People::namespace("y", &[("colour", "red")])],
        ),
        Step::but(
            "N19 N15",
            "a pod becomes red",
            vec![people.pod(3, &[("colour", "red")])],
        ),
        Step::but(
            "N19 N15",
            "another namespace is red",
            vec![
                People::namespace("y", &[]),
                People::namespace("x", &[("colour", "red")]),
            ],
        ),
        Step::but("N19 N15", "Admin goes", gone("admin")),
        Step::but(
            "N19 N15",
            "the pod is red no more",
            vec![people.pod(3, &[])],
        ),
        Step::but("N19 N15", "Baseline goes", gone("baseline")),
    ]
}
