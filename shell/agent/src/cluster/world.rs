//! What the loop knows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use portolan_model::workloads::{
    ControllerRevision, DaemonSet, Deployment, Endpoints, Lease, Node, Object, ObjectKey, Pod,
    ReplicaSet, Service, Slice, StatefulSet,
};
use portolan_plan::slices::{self, SERVICE_NAME, Triggers};
use portolan_plan::workloads::{Blame, Kind, Store};
use serde_json::Value;

use super::ClusterConfig;
use super::feed::{Message, News, Report};

/// One thing to decide about. The order is the order of urgency: what packets
/// depend on comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Task {
    /// The EndpointSlices of a Service.
    Slices(ObjectKey),
    /// The Endpoints of a Service.
    Endpoints(ObjectKey),
    /// The EndpointSlices that mirror Endpoints which somebody wrote.
    Mirror(ObjectKey),
    /// The node of a pod.
    Schedule(ObjectKey),
    /// The pods of a ReplicaSet.
    ReplicaSet(ObjectKey),
    /// The ReplicaSets of a Deployment.
    Deployment(ObjectKey),
    /// The pods and revisions of a StatefulSet.
    StatefulSet(ObjectKey),
    /// The pods and revisions of a DaemonSet.
    DaemonSet(ObjectKey),
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
    pub(super) stateful_sets: Store<StatefulSet>,
    pub(super) daemon_sets: Store<DaemonSet>,
    pub(super) revisions: Store<ControllerRevision>,
    pub(super) services: Store<Service>,
    pub(super) slices: Store<Slice>,
    pub(super) endpoints: Store<Endpoints>,
    pub(super) nodes: Store<Node>,
    pub(super) leases: Store<Lease>,
    /// When each node was last heard of, by our own clock.
    pub(super) heard: BTreeMap<String, Instant>,
    /// Pods without a node.
    pub(super) waiting: BTreeSet<ObjectKey>,
    /// Pods that are being bound, by key: uid and node.
    pub(super) assumed: BTreeMap<ObjectKey, (String, String)>,
    /// What was last written of each Service's triggers (E15), and what is
    /// being written: for its slices and for its Endpoints.
    pub(super) triggers: BTreeMap<Task, (Triggers, Triggers)>,
    /// Services whose endpoints are shared out by the zones' CPUs (E16).
    pub(super) by_cpu: BTreeSet<ObjectKey>,
    /// Services that were seen to go, and whose Endpoints go with them.
    pub(super) departed: BTreeSet<ObjectKey>,
    /// Why the last writes for workloads failed, by the workloads' uid.
    pub(super) blames: BTreeMap<String, Blame>,
}

impl World {
    pub(super) fn new(config: ClusterConfig) -> Self {
        Self {
            config,
            pods: Store::by(|pod| pairs(&pod.meta.labels).collect()),
            sets: Store::default(),
            deployments: Store::default(),
            stateful_sets: Store::default(),
            daemon_sets: Store::default(),
            revisions: Store::default(),
            services: slices::services_by_selector(),
            slices: Store::by(|slice| {
                let of_service = |(key, _): &(&str, &str)| *key == SERVICE_NAME;
                pairs(&slice.meta.labels).filter(of_service).collect()
            }),
            endpoints: Store::default(),
            nodes: Store::default(),
            leases: Store::default(),
            heard: BTreeMap::new(),
            waiting: BTreeSet::new(),
            assumed: BTreeMap::new(),
            triggers: BTreeMap::new(),
            by_cpu: BTreeSet::new(),
            departed: BTreeSet::new(),
            blames: BTreeMap::new(),
        }
    }

    /// Whether every kind has been listed once.
    pub(super) fn is_listed(&self) -> bool {
        self.pods.is_listed()
            && self.sets.is_listed()
            && self.deployments.is_listed()
            && self.stateful_sets.is_listed()
            && self.daemon_sets.is_listed()
            && self.revisions.is_listed()
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

    /// The pods of a Service, ended ones left out.
    pub(super) fn selected(&self, service: &Service) -> Vec<&Pod> {
        let namespace = &service.meta.key.namespace;
        let rarest = service
            .selector
            .iter()
            .flat_map(pairs)
            .min_by_key(|(key, value)| self.pods.count_labelled(namespace, key, value));
        let Some((key, value)) = rarest else {
            return Vec::new();
        };
        self.pods
            .labelled(namespace, key, value)
            .map(AsRef::as_ref)
            .filter(|pod| !pod.is_finished() && service.selects(&pod.meta.labels))
            .collect()
    }

    /// The Services that lead to pods with these labels.
    pub(super) fn selecting<'a>(
        &'a self,
        namespace: &'a str,
        labels: &'a BTreeMap<String, String>,
    ) -> impl Iterator<Item = &'a Service> {
        slices::selecting(&self.services, namespace, labels)
    }

    /// A task's writes are on the server. True if it must be looked at again.
    pub(super) fn succeeded(&mut self, task: &Task) -> bool {
        if let Some((written, pending)) = self.triggers.get_mut(task) {
            written.clone_from(pending);
        }
        let uid = match task {
            Task::ReplicaSet(key) => self.sets.get(key).map(|set| &set.meta.uid),
            Task::Deployment(key) => self.deployments.get(key).map(|d| &d.meta.uid),
            Task::Slices(_)
            | Task::Endpoints(_)
            | Task::Mirror(_)
            | Task::Schedule(_)
            | Task::StatefulSet(_)
            | Task::DaemonSet(_)
            | Task::Node(_)
            | Task::LostPods(_) => None,
        };
        // What is no longer wrong must leave the status.
        uid.is_some_and(|uid| self.blames.remove(uid).is_some())
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
            Message::StatefulSet(news) => {
                self.news(
                    news,
                    |w| &mut w.stateful_sets,
                    Self::stateful_set,
                    &mut touched,
                );
            }
            Message::DaemonSet(news) => {
                self.news(news, |w| &mut w.daemon_sets, Self::daemon_set, &mut touched);
            }
            Message::Revision(news) => {
                self.news(news, |w| &mut w.revisions, Self::revision, &mut touched);
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
            Message::Report(report) => self.report(report, &mut touched),
        }
        touched
    }

    fn report(&mut self, report: Report<Task>, touched: &mut Touched) {
        match report {
            Report::Wrote(kind, object) => self.wrote(kind, &object, touched),
            Report::ToldToGo(kind, key, uid) => self.told_to_go(kind, &key, &uid, touched),
            Report::Bound(key, uid, node) => self.bound(&key, &uid, node, touched),
            Report::Refused(uid, blame) => {
                self.blames.insert(uid, blame);
            }
            Report::Done { .. } => {}
        }
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

    /// The server's answer to a write is news like any other, only earlier.
    fn wrote(&mut self, kind: Kind, object: &Value, touched: &mut Touched) {
        match kind {
            Kind::Pod => self.answer(object, |w| &mut w.pods, Self::pod, touched),
            Kind::ReplicaSet => self.answer(object, |w| &mut w.sets, Self::set, touched),
            Kind::Deployment => {
                self.answer(object, |w| &mut w.deployments, Self::deployment, touched);
            }
            Kind::StatefulSet => {
                self.answer(
                    object,
                    |w| &mut w.stateful_sets,
                    Self::stateful_set,
                    touched,
                );
            }
            Kind::DaemonSet => {
                self.answer(object, |w| &mut w.daemon_sets, Self::daemon_set, touched);
            }
            Kind::ControllerRevision => {
                self.answer(object, |w| &mut w.revisions, Self::revision, touched);
            }
            Kind::EndpointSlice => self.answer(object, |w| &mut w.slices, Self::slice, touched),
            Kind::Endpoints => {
                self.answer(object, |w| &mut w.endpoints, Self::of_endpoints, touched);
            }
            Kind::Node => self.answer(object, |w| &mut w.nodes, Self::node, touched),
            Kind::Service => self.answer(object, |w| &mut w.services, Self::service, touched),
            Kind::AddressPool | Kind::IpAddressPool => {}
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
            Kind::ControllerRevision => self.revisions.told_to_go(key, uid),
            Kind::EndpointSlice => self.slices.told_to_go(key, uid),
            Kind::Endpoints => self.endpoints.told_to_go(key, uid),
            Kind::Deployment
            | Kind::StatefulSet
            | Kind::DaemonSet
            | Kind::Service
            | Kind::Node
            | Kind::AddressPool
            | Kind::IpAddressPool => {}
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

/// Labels as pairs of texts.
fn pairs(labels: &BTreeMap<String, String>) -> impl Iterator<Item = (&str, &str)> {
    labels
        .iter()
        .map(|(key, value)| (key.as_str(), value.as_str()))
}

/// Whether nothing but the version changed.
pub(super) fn is_same<T: Object + PartialEq>(a: &T, b: &T) -> bool {
    let mut a = a.clone();
    a.meta_mut().version = b.meta().version;
    a == *b
}
