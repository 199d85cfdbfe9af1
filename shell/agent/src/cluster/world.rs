//! What the loop knows, and which decisions a piece of news touches.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use portolan_model::workloads::{
    Deployment, Endpoints, Lease, Node, Object, ObjectKey, Pod, ReplicaSet, Service, Slice,
};
use portolan_plan::slices::{SERVICE_NAME, Triggers};
use portolan_plan::workloads::{Kind, Store};
use serde_json::Value;

use super::ClusterConfig;
use super::feed::{Message, News};

/// One thing to decide about. The order is the order of urgency: what packets
/// depend on comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    /// The EndpointSlices of a Service.
    Slices(ObjectKey),
    /// The Endpoints of a Service.
    Endpoints(ObjectKey),
    /// The node of a pod.
    Schedule(ObjectKey),
    /// The pods of a ReplicaSet.
    ReplicaSet(ObjectKey),
    /// The ReplicaSets of a Deployment.
    Deployment(ObjectKey),
    /// Whether a node lives.
    Node(String),
    /// The pods of a node that does not exist.
    LostPods(String),
}

/// A task, and how long it may wait.
pub(super) type Touched = Vec<(Task, Option<Duration>)>;

/// All stores.
pub(super) struct World {
    pub(super) config: ClusterConfig,
    pub(super) pods: Store<Pod>,
    pub(super) sets: Store<ReplicaSet>,
    pub(super) deployments: Store<Deployment>,
    pub(super) services: Store<Service>,
    pub(super) slices: Store<Slice>,
    pub(super) endpoints: Store<Endpoints>,
    pub(super) nodes: Store<Node>,
    leases: Store<Lease>,
    /// When each node was last heard of, by our own clock.
    heard: BTreeMap<String, Instant>,
    /// Pods that are being bound, by key: uid and node.
    pub(super) assumed: BTreeMap<ObjectKey, (String, String)>,
    /// What was last written of each Service's triggers (E15), and what is
    /// being written.
    pub(super) triggers: BTreeMap<ObjectKey, (Triggers, Triggers)>,
}

impl World {
    pub(super) fn new(config: ClusterConfig) -> Self {
        Self {
            config,
            pods: Store::default(),
            sets: Store::default(),
            deployments: Store::default(),
            services: Store::default(),
            slices: Store::default(),
            endpoints: Store::default(),
            nodes: Store::default(),
            leases: Store::default(),
            heard: BTreeMap::new(),
            assumed: BTreeMap::new(),
            triggers: BTreeMap::new(),
        }
    }

    /// Whether every kind has been listed once.
    pub(super) fn is_listed(&self) -> bool {
        self.pods.is_listed()
            && self.sets.is_listed()
            && self.deployments.is_listed()
            && self.services.is_listed()
            && self.slices.is_listed()
            && self.endpoints.is_listed()
            && self.nodes.is_listed()
            && self.leases.is_listed()
    }

    /// When a node was last heard of; none for nodes without a lease, which
    /// nobody promised to renew.
    pub(super) fn heard(&self, node: &str) -> Option<Instant> {
        self.heard.get(node).copied()
    }

    /// Takes news in. Answers with what has to be decided again.
    pub(super) fn take(&mut self, message: Message) -> Touched {
        let mut touched = Vec::new();
        match message {
            Message::Pod(news) => self.news(news, |w| &mut w.pods, Self::pod, &mut touched),
            Message::ReplicaSet(news) => self.news(news, |w| &mut w.sets, Self::set, &mut touched),
            Message::Deployment(news) => {
                self.news(news, |w| &mut w.deployments, Self::deployment, &mut touched);
            }
            Message::Service(news) => {
                self.news(news, |w| &mut w.services, Self::service, &mut touched);
            }
            Message::Slice(news) => self.news(news, |w| &mut w.slices, Self::slice, &mut touched),
            Message::Endpoints(news) => {
                self.news(news, |w| &mut w.endpoints, Self::of_endpoints, &mut touched);
            }
            Message::Node(news) => self.news(news, |w| &mut w.nodes, Self::node, &mut touched),
            Message::Lease(news) => self.news(news, |w| &mut w.leases, Self::lease, &mut touched),
            Message::Wrote(kind, object) => self.wrote(kind, &object, &mut touched),
            Message::ToldToGo(kind, key, uid) => self.told_to_go(kind, &key, &uid, &mut touched),
            Message::Bound(key, uid, node) => self.bound(&key, &uid, node, &mut touched),
            Message::Done { .. } => {}
        }
        touched
    }

    /// News of any kind: store it, and ask what it touches.
    fn news<T: Object + PartialEq>(
        &mut self,
        news: News<T>,
        store: fn(&mut Self) -> &mut Store<T>,
        touches: fn(&mut Self, &T, bool, &mut Touched),
        touched: &mut Touched,
    ) {
        match news {
            News::All(objects, version) => {
                let before: Vec<_> = store(self).all().cloned().collect();
                store(self).replace(objects, version);
                let after: Vec<_> = store(self).all().cloned().collect();
                for object in before {
                    if store(self).get(&object.meta().key).is_none() {
                        touches(self, &object, true, touched);
                    }
                }
                for object in after {
                    touches(self, &object, false, touched);
                }
            }
            News::Is(object) => {
                let before = store(self).saw(object.clone());
                if let Some(before) = before {
                    if is_same(before.as_ref(), &object) {
                        return;
                    }
                    touches(self, &before, false, touched);
                }
                touches(self, &object, false, touched);
            }
            News::Gone(object) => {
                store(self).saw_end(&object);
                touches(self, &object, true, touched);
            }
        }
    }

    fn pod(&mut self, pod: &Pod, gone: bool, touched: &mut Touched) {
        let namespace = &pod.meta.key.namespace;
        for service in self.services.in_namespace(namespace) {
            if service.selects(&pod.meta.labels) {
                touched.push((Task::Slices(service.meta.key.clone()), None));
                touched.push((Task::Endpoints(service.meta.key.clone()), None));
            }
        }
        self.pods_owner(pod, gone, touched);
        let assumed = self
            .assumed
            .get(&pod.meta.key)
            .is_some_and(|(uid, _)| *uid == pod.meta.uid);
        if assumed && (gone || !pod.node.is_empty()) {
            self.assumed.remove(&pod.meta.key);
        }
        if gone || pod.is_finished() {
            self.waiting_pods(touched);
        } else if pod.node.is_empty() {
            touched.push((Task::Schedule(pod.meta.key.clone()), None));
        } else if self.nodes.get(&ObjectKey::new("", &pod.node)).is_none() {
            let grace = self.config.orphan_grace;
            touched.push((Task::LostPods(pod.node.clone()), Some(grace)));
        }
    }

    /// The ReplicaSet of a pod, or those that may adopt it.
    fn pods_owner(&self, pod: &Pod, gone: bool, touched: &mut Touched) {
        let namespace = &pod.meta.key.namespace;
        match &pod.meta.controller {
            Some(owner) if owner.kind == "ReplicaSet" => {
                let key = ObjectKey::new(namespace, &owner.name);
                if gone || pod.is_finished() {
                    // A Recreate rollout may wait for the last of its pods.
                    let set = self.sets.get(&key);
                    if let Some(owner) = set.and_then(|set| set.meta.controller.as_ref()) {
                        let key = ObjectKey::new(namespace, &owner.name);
                        touched.push((Task::Deployment(key), None));
                    }
                }
                touched.push((Task::ReplicaSet(key), None));
            }
            Some(_) => {}
            None => {
                let adopters = self
                    .sets
                    .in_namespace(namespace)
                    .filter(|set| set.selector.matches(&pod.meta.labels));
                touched.extend(adopters.map(|s| (Task::ReplicaSet(s.meta.key.clone()), None)));
            }
        }
    }

    /// Pods that wait for a node.
    fn waiting_pods(&self, touched: &mut Touched) {
        let waiting = self
            .pods
            .all()
            .filter(|pod| pod.node.is_empty() && pod.is_active());
        touched.extend(waiting.map(|pod| (Task::Schedule(pod.meta.key.clone()), None)));
    }

    fn set(&mut self, set: &ReplicaSet, _gone: bool, touched: &mut Touched) {
        let namespace = &set.meta.key.namespace;
        touched.push((Task::ReplicaSet(set.meta.key.clone()), None));
        match &set.meta.controller {
            Some(owner) => {
                let key = ObjectKey::new(namespace, &owner.name);
                touched.push((Task::Deployment(key), None));
            }
            None => {
                let adopters = self
                    .deployments
                    .in_namespace(namespace)
                    .filter(|d| d.selector.matches(&set.meta.labels));
                touched.extend(adopters.map(|d| (Task::Deployment(d.meta.key.clone()), None)));
            }
        }
    }

    fn deployment(&mut self, deployment: &Deployment, _gone: bool, touched: &mut Touched) {
        touched.push((Task::Deployment(deployment.meta.key.clone()), None));
    }

    fn service(&mut self, service: &Service, gone: bool, touched: &mut Touched) {
        if gone {
            self.triggers.remove(&service.meta.key);
        }
        touched.push((Task::Slices(service.meta.key.clone()), None));
        touched.push((Task::Endpoints(service.meta.key.clone()), None));
    }

    fn slice(&mut self, slice: &Slice, _gone: bool, touched: &mut Touched) {
        if let Some(service) = slice.meta.labels.get(SERVICE_NAME) {
            let key = ObjectKey::new(&slice.meta.key.namespace, service);
            touched.push((Task::Slices(key), None));
        }
    }

    fn of_endpoints(&mut self, endpoints: &Endpoints, _gone: bool, touched: &mut Touched) {
        touched.push((Task::Endpoints(endpoints.meta.key.clone()), None));
    }

    fn node(&mut self, node: &Node, gone: bool, touched: &mut Touched) {
        let name = &node.meta.key.name;
        touched.push((Task::Node(name.clone()), None));
        self.waiting_pods(touched);
        if gone {
            touched.push((Task::LostPods(name.clone()), Some(self.config.orphan_grace)));
        }
        // Zones of endpoints (E7), and endpoints that waited for the node (E11).
        for pod in self.pods.all().filter(|pod| pod.node == *name) {
            for service in self.services.in_namespace(&pod.meta.key.namespace) {
                if service.selects(&pod.meta.labels) {
                    touched.push((Task::Slices(service.meta.key.clone()), None));
                }
            }
        }
    }

    /// Only a change of the lease counts, and only by our own clock.
    fn lease(&mut self, lease: &Lease, gone: bool, touched: &mut Touched) {
        let node = &lease.meta.key.name;
        if gone {
            self.heard.remove(node);
        } else {
            self.heard.insert(node.clone(), Instant::now());
        }
        touched.push((Task::Node(node.clone()), None));
    }

    /// The server's answer to a write is news like any other, only earlier.
    fn wrote(&mut self, kind: Kind, object: &Value, touched: &mut Touched) {
        match kind {
            Kind::Pod => self.answer(object, |w| &mut w.pods, Self::pod, touched),
            Kind::ReplicaSet => self.answer(object, |w| &mut w.sets, Self::set, touched),
            Kind::Deployment => {
                self.answer(object, |w| &mut w.deployments, Self::deployment, touched);
            }
            Kind::EndpointSlice => self.answer(object, |w| &mut w.slices, Self::slice, touched),
            Kind::Endpoints => {
                self.answer(object, |w| &mut w.endpoints, Self::of_endpoints, touched);
            }
            Kind::Node => self.answer(object, |w| &mut w.nodes, Self::node, touched),
            Kind::Service => self.answer(object, |w| &mut w.services, Self::service, touched),
        }
    }

    fn answer<T: Object + PartialEq>(
        &mut self,
        object: &Value,
        store: fn(&mut Self) -> &mut Store<T>,
        touches: fn(&mut Self, &T, bool, &mut Touched),
        touched: &mut Touched,
    ) {
        let object = T::read(object);
        let before = store(self).get(&object.meta().key).cloned();
        store(self).wrote(object.clone());
        if before.is_none_or(|before| !is_same(before.as_ref(), &object)) {
            touches(self, &object, false, touched);
        }
    }

    fn told_to_go(&mut self, kind: Kind, key: &ObjectKey, uid: &str, touched: &mut Touched) {
        match kind {
            Kind::Pod => {
                self.pods.told_to_go(key, uid);
                if let Some(pod) = self.pods.get(key).cloned() {
                    self.pod(&pod, false, touched);
                }
            }
            Kind::ReplicaSet => self.sets.told_to_go(key, uid),
            Kind::EndpointSlice => self.slices.told_to_go(key, uid),
            Kind::Endpoints => self.endpoints.told_to_go(key, uid),
            Kind::Deployment | Kind::Service | Kind::Node => {}
        }
    }

    fn bound(&mut self, key: &ObjectKey, uid: &str, node: Option<String>, touched: &mut Touched) {
        self.assumed.remove(key);
        match node {
            Some(node) => self.pods.amend(key, |pod| {
                if pod.meta.uid == uid {
                    pod.node = node;
                }
            }),
            None => {
                touched.push((Task::Schedule(key.clone()), Some(Duration::from_secs(1))));
            }
        }
    }
}

/// Whether nothing but the version changed.
fn is_same<T: Object + PartialEq>(a: &T, b: &T) -> bool {
    let mut a = a.clone();
    a.meta_mut().version = b.meta().version;
    a == *b
}
