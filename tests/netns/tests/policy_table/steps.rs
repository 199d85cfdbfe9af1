//! Who lives in the town, and what is changed there step by step.

use std::net::IpAddr;

use portolan_model::{
    Change, Fact, Key, Kind, Labels, NamedPort, Namespace, Pod, PodKey, PolicyKey, Protocol, intake,
};
use portolan_netns::world::World;
use serde_json::{Value, json};

const NAMESPACES: [&str; 3] = ["x", "y", "z"];
const PODS: [&str; 3] = ["a", "b", "c"];

/// What is changed at once.
#[derive(Clone)]
pub(crate) struct Step {
    /// The rules that it is about.
    pub(crate) rules: &'static str,
    /// What it is, in words.
    pub(crate) what: &'static str,
    pub(crate) changes: Vec<Change>,
}

impl Step {
    /// These policies of both kinds, and no others.
    pub(crate) fn only(rules: &'static str, what: &'static str, objects: &[Value]) -> Self {
        let facts: Vec<Fact> = objects.iter().map(fact).collect();
        let of = |kind| {
            let own = facts.iter().filter(|fact| fact.key().kind() == kind);
            Change::Replace(kind, own.cloned().collect())
        };
        Self {
            rules,
            what,
            changes: vec![of(Kind::Policy), of(Kind::ClusterPolicy)],
        }
    }

    /// These changes to what there is.
    pub(crate) fn but(rules: &'static str, what: &'static str, changes: Vec<Change>) -> Self {
        Self {
            rules,
            what,
            changes,
        }
    }

    /// How many policies it brings.
    pub(crate) fn policies(&self) -> usize {
        let is = |fact: &Fact| matches!(fact, Fact::Policy(_) | Fact::ClusterPolicy(_));
        let counts = self.changes.iter().map(|change| match change {
            Change::Upsert(fact) => usize::from(is(fact)),
            Change::Replace(_, facts) => facts.iter().filter(|fact| is(fact)).count(),
            Change::Delete(_) | Change::Attach(_) | Change::Detach(..) => 0,
        });
        counts.sum()
    }
}

/// What an object says; all of it must be understood.
fn fact(object: &Value) -> Fact {
    let clusterwide = object["kind"] == "ClusterNetworkPolicy";
    let object = object.clone();
    let (fact, problems) = if clusterwide {
        let object = serde_json::from_value(object).expect("a ClusterNetworkPolicy");
        let (policy, problems) = intake::cluster_policy(&object);
        (Fact::ClusterPolicy(policy.into()), problems)
    } else {
        let object = serde_json::from_value(object).expect("a NetworkPolicy");
        let (policy, problems) = intake::policy(&object);
        (Fact::Policy(policy.into()), problems)
    };
    // What nobody knows is told, and fails closed (N19).
    let unknown = |problem: &portolan_model::Problem| clusterwide && !problem.message.is_empty();
    assert!(problems.iter().all(unknown), "{problems:?}");
    fact
}

/// A NetworkPolicy.
pub(crate) fn policy(namespace: &str, name: &str, spec: &Value) -> Value {
    json!({
        "kind": "NetworkPolicy",
        "metadata": {"namespace": namespace, "name": name}, "spec": spec,
    })
}

/// A policy of x that is about what comes in to some pods.
fn into(pods: &Value, rules: &Value) -> Value {
    policy("x", "into", &json!({"podSelector": pods, "ingress": rules}))
}

/// A policy of x that is about where some pods go.
fn out(pods: &Value, rules: &Value) -> Value {
    let spec = json!({"podSelector": pods, "policyTypes": ["Egress"], "egress": rules});
    policy("x", "out", &spec)
}

fn all() -> Value {
    json!({})
}

/// The pods of this name.
pub(crate) fn pod(name: &str) -> Value {
    json!({"matchLabels": {"pod": name}})
}

/// The namespace of this name.
pub(crate) fn ns(name: &str) -> Value {
    json!({"matchLabels": {"kubernetes.io/metadata.name": name}})
}

fn ask(key: &str, operator: &str, values: &[&str]) -> Value {
    let ask = if values.is_empty() {
        json!({"key": key, "operator": operator})
    } else {
        json!({"key": key, "operator": operator, "values": values})
    };
    json!({"matchExpressions": [ask]})
}

fn from(peers: &Value) -> Value {
    json!([{"from": peers}])
}

fn to(peers: &Value) -> Value {
    json!([{"to": peers}])
}

/// The pods and where they are: the pods of a namespace are on three nodes.
pub(crate) struct People {
    /// By pod, both families.
    pods: Vec<Vec<IpAddr>>,
    nodes: Vec<(String, Vec<IpAddr>)>,
}

impl People {
    pub(crate) fn of(world: &World) -> Self {
        let nodes = world.nodes.iter();
        Self {
            pods: world.pods.iter().map(|pod| pod.net.ips.clone()).collect(),
            nodes: nodes
                .map(|node| (node.net.name.clone(), node.net.ips.clone()))
                .collect(),
        }
    }

    /// Some town: enough to count what is done there.
    pub(crate) fn anywhere() -> Self {
        let at = |last| vec![IpAddr::from([192, 0, 2, last])];
        Self {
            pods: (1..10).map(at).collect(),
            nodes: (11..14).map(|last| (String::new(), at(last))).collect(),
        }
    }

    /// The index of a pod's node.
    pub(crate) fn node(pod: usize) -> usize {
        pod / PODS.len()
    }

    /// `x/a`.
    pub(crate) fn name(pod: usize) -> String {
        let key = Self::key(pod);
        format!("{}/{}", key.namespace, key.name)
    }

    fn key(pod: usize) -> PodKey {
        let namespace = NAMESPACES[pod % NAMESPACES.len()];
        PodKey::new(namespace, PODS[pod / NAMESPACES.len()])
    }

    /// A pod with these labels beside its own.
    pub(crate) fn pod(&self, index: usize, labels: &[(&str, &str)]) -> Change {
        let key = Self::key(index);
        let name = key.name.clone();
        let own = [("pod", &*name)].into_iter().chain(labels.iter().copied());
        // To one pod "web" is another port than to all others.
        let web = if index == 6 { 81 } else { 80 };
        let port = |name: &str, protocol, port| NamedPort {
            name: name.into(),
            protocol,
            port,
        };
        let pod = Pod {
            addresses: self.pods[index].clone(),
            labels: own.collect(),
            node: Some(self.nodes[Self::node(index)].0.as_str().into()),
            ports: vec![
                port("web", Protocol::Tcp, web),
                port("serve-80-udp", Protocol::Udp, 80),
                port("serve-81-sctp", Protocol::Sctp, 81),
            ],
            ..Pod::at(key, None)
        };
        Change::Upsert(Fact::Pod(pod.into()))
    }

    /// A namespace with these labels beside its own.
    pub(crate) fn namespace(name: &str, labels: &[(&str, &str)]) -> Change {
        let own = [("kubernetes.io/metadata.name", name)].into_iter();
        let labels: Labels = own.chain(labels.iter().copied()).collect();
        let name = name.into();
        Change::Upsert(Fact::Namespace(Namespace { name, labels }))
    }

    /// Everybody, and a pod that is its node.
    pub(crate) fn arrive(&self) -> Vec<Change> {
        let pods = (0..self.pods.len()).map(|index| self.pod(index, &[]));
        let (node, addresses) = &self.nodes[1];
        let host = Pod {
            addresses: addresses.clone(),
            labels: [("pod", "a")].into_iter().collect(),
            node: Some(node.as_str().into()),
            host_network: true,
            ..Pod::at(PodKey::new("y", "host"), None)
        };
        let namespaces = NAMESPACES.into_iter().chain(["kube-system"]);
        let namespaces = namespaces.map(|name| Self::namespace(name, &[("team", "all")]));
        let host = Change::Upsert(Fact::Pod(host.into()));
        pods.chain(namespaces).chain([host]).collect()
    }

    /// Blocks of these addresses alone.
    fn blocks(addresses: &[IpAddr]) -> Value {
        let block = |address: &IpAddr| {
            let bits = if address.is_ipv4() { 32 } else { 128 };
            json!({"ipBlock": {"cidr": format!("{address}/{bits}")}})
        };
        addresses.iter().map(block).collect()
    }

    /// Everything but these addresses.
    fn all_but(addresses: &[IpAddr]) -> Value {
        let block = |address: &IpAddr| {
            let (whole, bits) = if address.is_ipv4() {
                ("0.0.0.0/0", 32)
            } else {
                ("::/0", 128)
            };
            json!({"ipBlock": {"cidr": whole, "except": [format!("{address}/{bits}")]}})
        };
        addresses.iter().map(block).collect()
    }

    /// A pod's addresses.
    pub(crate) fn addresses(&self, pod: usize) -> &[IpAddr] {
        &self.pods[pod]
    }
}

/// What may come in.
pub(crate) fn ingress(people: &People) -> Vec<Step> {
    [selected(), chosen(), ranges(people)]
        .into_iter()
        .flatten()
        .collect()
}

/// Who is isolated, and from everybody or nobody.
fn selected() -> Vec<Step> {
    let one = |rules, what, object: Value| Step::only(rules, what, &[object]);
    let types = json!({"podSelector": all(), "policyTypes": ["Ingress"]});
    let empty = json!([{"from": [], "ports": []}]);
    vec![
        one("N1 N2 N4", "nobody into x", into(&all(), &json!([]))),
        one("N2", "types alone", policy("x", "p", &types)),
        one("N4", "everybody into x", into(&all(), &json!([{}]))),
        one("N4", "empty from and ports", into(&all(), &empty)),
        one("N1", "one pod", into(&pod("a"), &json!([]))),
        Step::only("N1", "none any more", &[]),
    ]
}

/// Peers by their labels.
fn chosen() -> Vec<Step> {
    let one =
        |rules, what, peers: Value| Step::only(rules, what, &[into(&pod("a"), &from(&peers))]);
    let by_pod = |what, selector: Value| one("N6", what, json!([{"podSelector": selector}]));
    let by_ns = |what, selector: Value| one("N6", what, json!([{"namespaceSelector": selector}]));
    let both = json!([{"namespaceSelector": ns("y"), "podSelector": pod("b")}]);
    let either = json!([{"namespaceSelector": ns("y")}, {"podSelector": pod("b")}]);
    let anywhere = json!([{"namespaceSelector": all(), "podSelector": pod("b")}]);
    let host = json!([{"namespaceSelector": ns("y"), "podSelector": pod("a")}]);
    let [from_b, from_y] = [
        json!([{"podSelector": pod("b")}]),
        json!([{"namespaceSelector": ns("y")}]),
    ];
    let open = |peers| json!({"podSelector": pod("a"), "ingress": from(&peers)});
    let union = [
        policy("x", "closed", &json!({"podSelector": all()})),
        policy("x", "b", &open(from_b)),
        policy("x", "y", &open(from_y)),
    ];
    vec![
        by_pod("pods of the own namespace", pod("b")),
        by_pod("all pods of the own namespace", all()),
        by_ns("a namespace", ns("y")),
        by_ns("all namespaces", all()),
        one("N6", "pods of a namespace", both),
        one("N6 N5", "a namespace or pods", either),
        one("N6", "pods of all namespaces", anywhere),
        by_pod("In", ask("pod", "In", &["b", "c"])),
        by_pod("NotIn", ask("pod", "NotIn", &["b"])),
        by_pod("Exists", ask("pod", "Exists", &[])),
        by_pod("DoesNotExist", ask("tier", "DoesNotExist", &[])),
        by_ns(
            "namespaces NotIn",
            ask("kubernetes.io/metadata.name", "NotIn", &["y"]),
        ),
        one("N13", "a pod with hostNetwork is its node", host),
        Step::only("N3", "policies add up", &union),
    ]
}

/// Peers by their addresses.
fn ranges(people: &People) -> Vec<Step> {
    let one = |rules, what, rules_of: Value| Step::only(rules, what, &[into(&pod("a"), &rules_of)]);
    let [b, c] = [3, 6].map(|pod| people.addresses(pod));
    let overlapping = json!([{"from": People::all_but(b)}, {"from": People::blocks(b)}]);
    let node = People::blocks(&people.nodes[1].1);
    vec![
        one("N8", "a range", from(&People::blocks(b))),
        one("N8", "ranges less others", from(&People::all_but(b))),
        one("N8", "what one rule excepts another allows", overlapping),
        one("N8 N13", "a range is a node", from(&node)),
        one("N12", "itself and its own node", from(&People::blocks(c))),
    ]
}

/// Where one may go.
pub(crate) fn egress(people: &People) -> Vec<Step> {
    let one = |rules, what, object: Value| Step::only(rules, what, &[object]);
    let a = pod("a");
    let x = |peers: Value| out(&pod("a"), &to(&peers));
    let dns = json!({
        "namespaceSelector": ns("kube-system"),
        "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
    });
    let udp = json!([{"protocol": "UDP", "port": 53}]);
    let named = json!([{"to": [dns], "ports": [{"protocol": "TCP", "port": "dns-tcp"}]}]);
    let without_types = json!({"podSelector": a, "egress": []});
    let ends = [
        out(&a, &to(&json!([{"namespaceSelector": ns("y")}]))),
        policy(
            "y",
            "into",
            &json!({"podSelector": pod("b"), "ingress": []}),
        ),
    ];
    let c = people.addresses(6);
    let node = &people.nodes[0].1;
    vec![
        one("N2", "nowhere", out(&all(), &json!([]))),
        one("N2", "both by default", policy("x", "p", &without_types)),
        one("N4", "everywhere", out(&all(), &json!([{}]))),
        one(
            "N6",
            "pods of the own namespace",
            x(json!([{"podSelector": pod("b")}])),
        ),
        one(
            "N6",
            "a namespace",
            x(json!([{"namespaceSelector": ns("z")}])),
        ),
        one(
            "N6",
            "pods of a namespace",
            x(json!([{"namespaceSelector": ns("z"), "podSelector": pod("c")}])),
        ),
        one(
            "N5",
            "a namespace or pods",
            x(json!([{"namespaceSelector": ns("z")}, {"podSelector": pod("b")}])),
        ),
        one("N8", "a range", x(People::blocks(c))),
        one("N8", "ranges less others", x(People::all_but(c))),
        one(
            "N8 N21",
            "a range, and nobody's names",
            x(People::blocks(node)),
        ),
        Step::only("N3", "both ends have a say", &ends),
        one(
            "N21",
            "names",
            out(&a, &json!([{"to": [dns], "ports": udp}])),
        ),
        one("N21", "names by all", out(&a, &to(&json!([dns])))),
        one("N21 N10", "names by the name of a port", out(&a, &named)),
        one(
            "N21",
            "names alone, of all namespaces",
            out(&a, &json!([{"ports": udp}])),
        ),
    ]
}

/// At which ports.
pub(crate) fn ports(_people: &People) -> Vec<Step> {
    [numbers(), names()].concat()
}

/// All pods, wherever they are.
fn everywhere() -> Value {
    json!([{"namespaceSelector": all()}])
}

/// Ports by their numbers.
fn numbers() -> Vec<Step> {
    let one = |rules, what, object: Value| Step::only(rules, what, &[object]);
    let at = |ports: Value| into(&pod("c"), &json!([{"ports": ports}]));
    let go = |ports: Value| out(&pod("a"), &json!([{"to": everywhere(), "ports": ports}]));
    let two_ports = json!([{"port": 80}, {"port": 81, "protocol": "UDP"}]);
    let ends = [
        go(json!([{"port": 80}])),
        into(&all(), &json!([{"ports": two_ports}])),
    ];
    let two = json!([
        {"from": [{"podSelector": pod("b")}], "ports": [{"port": 80}]},
        {"ports": [{"port": 81, "protocol": "SCTP"}]},
    ]);
    let any = json!([{"port": 81}, {"port": 80, "protocol": "UDP"}]);
    let end = json!([{"port": 79, "endPort": 80, "protocol": "SCTP"}]);
    let whole = json!([{"port": 80, "endPort": 81}]);
    let sctp = json!([{"port": 80, "protocol": "SCTP"}]);
    let udp = json!([{"port": 80, "protocol": "UDP"}]);
    let there = json!([{"port": 81}, {"port": 80, "protocol": "SCTP"}]);
    vec![
        one("N9", "TCP by default", at(json!([{"port": 80}]))),
        one("N9", "all of a protocol", at(json!([{"protocol": "UDP"}]))),
        one("N9", "a range", at(whole)),
        one("N9", "up to its end", at(end)),
        one("N5 N9", "any of the ports", at(any)),
        one("N5", "peers and ports", into(&pod("c"), &two)),
        one("N14", "SCTP alone", at(sctp)),
        one("N14", "UDP is not TCP", at(udp)),
        one("N9", "where to", go(there)),
        Step::only("N3 N9", "ports at both ends", &ends),
    ]
}

/// Ports by their names.
fn names() -> Vec<Step> {
    let one = |what, object: Value| Step::only("N10", what, &[object]);
    let at = |ports: Value| into(&all(), &json!([{"ports": ports}]));
    let go = |ports: Value| out(&pod("a"), &json!([{"to": everywhere(), "ports": ports}]));
    let name = json!([{"port": "web"}]);
    let udp = json!([{"port": "web", "protocol": "UDP"}]);
    let both = json!([
        {"port": "serve-81-sctp", "protocol": "SCTP"},
        {"port": 80, "protocol": "UDP"},
    ]);
    vec![
        one("a name", at(name.clone())),
        one("a name of another protocol", at(udp)),
        one("a name that nobody has", at(json!([{"port": "nothing"}]))),
        one("a name at the other end", go(name)),
        one("a name and a number", go(both)),
    ]
}

/// What changes, and what does not.
pub(crate) fn changes(people: &People) -> Vec<Step> {
    let red = json!({"matchLabels": {"colour": "red"}});
    let from_red = json!([{"podSelector": red}, {"namespaceSelector": red}]);
    let by_colour = into(&pod("a"), &from(&from_red));
    let reds = into(&red, &json!([]));
    let set = |object: Value| Change::Upsert(fact(&object));
    let gone = |name: &str| Change::Delete(Key::Policy(PolicyKey::new("x", name)));
    let by_name = into(&pod("a"), &from(&json!([{"namespaceSelector": ns("z")}])));
    let away = Change::Delete(Key::Pod(People::key(3)));
    vec![
        Step::only("N15", "no pod is red", &[by_colour]),
        Step::but(
            "N15",
            "a pod becomes red",
            vec![people.pod(3, &[("colour", "red")])],
        ),
        Step::but(
            "N15",
            "a namespace becomes red",
            vec![People::namespace("y", &[("colour", "red")])],
        ),
        Step::but("N15", "the pod is red no more", vec![people.pod(3, &[])]),
        Step::but("N15 N16", "a pod goes", vec![away]),
        Step::but(
            "N15 N16",
            "it comes again, red",
            vec![people.pod(3, &[("colour", "red")])],
        ),
        Step::but(
            "N15",
            "the namespace is red no more",
            vec![People::namespace("y", &[])],
        ),
        Step::but("N15", "the policy allows somebody else", vec![set(by_name)]),
        Step::but(
            "N15 N18",
            "another policy, and nothing of the first",
            vec![
                gone("into"),
                set(policy("x", "other", &json!({"podSelector": pod("b")}))),
            ],
        ),
        Step::but(
            "N11 N15",
            "where to, beside",
            vec![set(out(&all(), &to(&json!([{"podSelector": pod("b")}]))))],
        ),
        Step::but("N15", "red pods are closed", vec![gone("out"), set(reds)]),
        Step::but(
            "N15",
            "and this one is not any more",
            vec![people.pod(3, &[])],
        ),
        Step::but("N15", "all policies go", vec![gone("into"), gone("other")]),
    ]
}
