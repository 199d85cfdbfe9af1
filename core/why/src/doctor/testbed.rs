//! A small cluster for the tables of tests: objects in, findings out.

use std::sync::Arc;

use portolan_api::lean;
use portolan_model::{Change, Cluster, Fact, Kind, Problem, intake};
use portolan_plan::{NodePlan, NodeView};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Announcers, Answer, Attempt, Checkup, Kernel, Knock, Seen, examine, worth_trying};

/// Objects as the API server holds them.
#[derive(Debug, Clone)]
pub(super) struct Bed {
    pub(super) service: Value,
    pub(super) others: Vec<Value>,
    pub(super) pods: Vec<Value>,
    pub(super) slices: Vec<Value>,
    pub(super) policies: Vec<Value>,
    pub(super) deployments: Vec<Value>,
    pub(super) events: Vec<Value>,
    pub(super) nodes: Vec<&'static str>,
    pub(super) attempts: Vec<Attempt>,
    pub(super) kernels: Vec<Kernel>,
    pub(super) announcers: Option<Arc<Announcers>>,
}

/// A pod of deployment `web` on a node: ready, and listing port 80 as `http`.
pub(super) fn pod(name: &str, node: &str, address: &str) -> Value {
    json!({
        "metadata": {"name": name, "namespace": "shop", "uid": name,
            "labels": {"app": "web", "pod-template-hash": "abc"},
            "ownerReferences": [{"kind": "ReplicaSet", "name": "web-abc", "controller": true}]},
        "spec": {"nodeName": node, "containers": [{"name": "nginx", "image": "nginx:1.27",
            "ports": [{"name": "http", "containerPort": 80, "protocol": "TCP"}]}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "nginx", "ready": true, "state": {"running": {}}}]},
    })
}

/// The same, not ready.
pub(super) fn unready(mut pod: Value) -> Value {
    pod["status"]["conditions"][0]["status"] = "False".into();
    pod["status"]["containerStatuses"][0]["ready"] = false.into();
    pod
}

pub(super) fn dns() -> Value {
    json!({"metadata": {"name": "kube-dns", "namespace": "kube-system"},
        "spec": {"clusterIP": "10.96.0.10", "clusterIPs": ["10.96.0.10"], "ports": [{"port": 53, "protocol": "UDP"}]}})
}

impl Bed {
    /// `shop/web`, two ready pods on two of three nodes, and their endpoints.
    pub(super) fn healthy() -> Self {
        let slice = json!({
            "metadata": {"name": "web-1", "namespace": "shop",
                "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "ports": [{"name": "", "protocol": "TCP", "port": 80}],
            "endpoints": [
                {"addresses": ["10.244.1.2"], "nodeName": "node-1", "conditions": {"ready": true},
                 "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-abc-1"}},
                {"addresses": ["10.244.2.2"], "nodeName": "node-2", "conditions": {"ready": true},
                 "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-abc-2"}},
            ],
        });
        Self {
            service: json!({
                "metadata": {"name": "web", "namespace": "shop"},
                "spec": {"type": "ClusterIP", "clusterIP": "10.96.1.1", "clusterIPs": ["10.96.1.1"],
                    "ipFamilies": ["IPv4"], "selector": {"app": "web"},
                    "ports": [{"port": 80, "targetPort": 80, "protocol": "TCP"}]},
            }),
            others: vec![dns()],
            pods: vec![
                pod("web-abc-1", "node-1", "10.244.1.2"),
                pod("web-abc-2", "node-2", "10.244.2.2"),
            ],
            slices: vec![slice],
            policies: Vec::new(),
            deployments: Vec::new(),
            events: Vec::new(),
            nodes: vec!["node-1", "node-2", "node-3"],
            attempts: Vec::new(),
            kernels: Vec::new(),
            announcers: None,
        }
    }

    /// The same without endpoints, as they are where nobody is ready.
    pub(super) fn without_endpoints(mut self) -> Self {
        self.slices[0]["endpoints"] = json!([]);
        self
    }

    /// Puts pods, namespaces and NetworkPolicies among the facts.
    fn policed(&self, cluster: &mut Cluster) {
        let pods: Vec<lean::PodFacts> = views(&self.pods);
        let pods = pods.iter().map(|pod| Fact::Pod(intake::pod(pod).0.into()));
        cluster.apply(Change::Replace(Kind::Pod, pods.collect()));
        let policies: Vec<lean::NetworkPolicy> = views(&self.policies);
        let policies = policies.iter();
        let policies = policies.map(|policy| Fact::Policy(intake::policy(policy).0.into()));
        cluster.apply(Change::Replace(Kind::Policy, policies.collect()));
    }

    /// The same with a NetworkPolicy in the Service's namespace.
    pub(super) fn with_policy(mut self, name: &str, spec: Value) -> Self {
        let policy = json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec});
        self.policies.push(policy);
        self
    }

    /// What a connection to a pod came to.
    pub(super) fn tried(mut self, pod: &str, port: u16, answer: Answer) -> Self {
        let (namespace, pod) = ("shop".to_owned(), pod.to_owned());
        let knock = Knock {
            namespace,
            pod,
            port,
        };
        self.attempts.push(Attempt { knock, answer });
        self
    }

    pub(super) fn examine(&self) -> Checkup {
        self.look(|seen, service| examine(seen, service, &self.attempts))
    }

    pub(super) fn worth_trying(&self) -> Vec<Knock> {
        self.look(worth_trying)
    }

    fn look<T>(&self, with: impl FnOnce(&Seen<'_>, &lean::Service) -> T) -> T {
        let services: Vec<lean::Service> = views(self.others.iter().chain([&self.service]));
        let slices: Vec<lean::EndpointSlice> = views(&self.slices);
        let pods: Vec<lean::Pod> = views(&self.pods);
        let deployments: Vec<lean::Deployment> = views(&self.deployments);
        let events: Vec<lean::Event> = views(&self.events);
        let (mut cluster, problems) = cluster(&services, &slices, &self.nodes);
        self.policed(&mut cluster);
        let plans: Vec<NodePlan> = self.nodes.iter().map(|node| plan(&cluster, node)).collect();
        let service = services.last().expect("the Service is the last");
        let seen = Seen {
            pods: &pods,
            services: &services,
            slices: &slices,
            deployments: &deployments,
            events: &events,
            cluster: &cluster,
            policies_unread: None,
            problems: &problems,
            plans: &plans,
            announcers: self.announcers.as_deref(),
            kernels: &self.kernels,
            domain: "cluster.local",
        };
        with(&seen, service)
    }
}

/// The views of objects; what is none is left out, as no server sends it.
pub(super) fn views<'v, T: DeserializeOwned>(
    objects: impl IntoIterator<Item = &'v Value>,
) -> Vec<T> {
    let objects = objects.into_iter().cloned();
    objects
        .filter_map(|object| serde_json::from_value(object).ok())
        .collect()
}

/// The facts of these objects, by the agents' own intake.
pub(super) fn cluster(
    services: &[lean::Service],
    slices: &[lean::EndpointSlice],
    nodes: &[&str],
) -> (Cluster, Vec<Problem>) {
    let mut cluster = Cluster::default();
    let mut problems = Vec::new();
    let mut facts = Vec::new();
    for service in services {
        let (fact, found) = intake::service(service);
        problems.extend(found);
        facts.push(Fact::Service(fact.into()));
    }
    cluster.apply(Change::Replace(Kind::Service, facts));
    let mut facts = Vec::new();
    for slice in slices {
        let (fact, found) = intake::slice(slice);
        problems.extend(found);
        facts.extend(fact.map(|fact| Fact::Slice(fact.into())));
    }
    cluster.apply(Change::Replace(Kind::Slice, facts));
    let nodes = nodes.iter().enumerate().map(|(index, name)| {
        let object: lean::Node = serde_json::from_value(json!({
            "metadata": {"name": name},
            "status": {"addresses": [{"type": "InternalIP", "address": format!("172.18.0.{}", index + 2)}]},
        }))
        .expect("a node");
        let (fact, _) = intake::node(&object);
        Fact::Node(fact.into())
    });
    cluster.apply(Change::Replace(Kind::Node, nodes.collect()));
    (cluster, problems)
}

fn plan(cluster: &Cluster, node: &str) -> NodePlan {
    let view = NodeView {
        node: node.into(),
        service_cidrs: vec!["10.96.0.0/16".parse().expect("a range")],
        cluster_pod_cidrs: vec!["10.244.0.0/16".parse().expect("a range")],
        dns_addresses: vec!["10.96.0.10".parse().expect("an address")],
        ..NodeView::default()
    };
    portolan_plan::node(cluster, &view.observed(cluster))
}
