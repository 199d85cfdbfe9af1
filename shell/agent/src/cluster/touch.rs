//! Which decisions a piece of news touches.

use std::time::Instant;

use portolan_model::workloads::{
    ControllerRevision, DaemonSet, Deployment, Endpoints, Lease, Meta, Node, ObjectKey, Pod,
    ReplicaSet, Selector, Service, Slice, StatefulSet,
};
use portolan_plan::slices::{SERVICE_NAME, by_cpu};

use super::world::{Task, Touched, World};

impl World {
    pub(super) fn pod(&mut self, pod: &Pod, gone: bool, touched: &mut Touched) {
        for service in self.selecting(&pod.meta.key.namespace, &pod.meta.labels) {
            touched.push((Task::Slices(service.meta.key.clone()), None));
            touched.push((Task::Endpoints(service.meta.key.clone()), None));
        }
        self.pods_owner(pod, gone, touched);
        if gone {
            self.heirs(&pod.meta, touched);
        }
        let assumed = self
            .assumed
            .get(&pod.meta.key)
            .is_some_and(|(uid, _)| *uid == pod.meta.uid);
        if assumed && (gone || !pod.node.is_empty()) {
            self.assumed.remove(&pod.meta.key);
        }
        if pod.node.is_empty() && pod.is_active() && !gone {
            self.waiting.insert(pod.meta.key.clone());
        } else {
            self.waiting.remove(&pod.meta.key);
        }
        if gone || pod.is_finished() {
            self.waiting_pods(touched, |_| true);
        } else if pod.node.is_empty() {
            touched.push((Task::Schedule(pod.meta.key.clone()), None));
        } else {
            // Somebody may wait for a neighbour like this one.
            self.waiting_pods(touched, |waiting| waiting.neighbours.is_some());
        }
        if gone || pod.is_finished() || pod.node.is_empty() {
            return;
        }
        if self.nodes.get(&ObjectKey::new("", &pod.node)).is_none() {
            let grace = self.config.orphan_grace;
            touched.push((Task::LostPods(pod.node.clone()), Some(grace)));
        }
    }

    /// What made a pod, or what may adopt it.
    fn pods_owner(&self, pod: &Pod, gone: bool, touched: &mut Touched) {
        let namespace = &pod.meta.key.namespace;
        let Some(owner) = &pod.meta.controller else {
            self.adopters(&pod.meta, touched);
            return;
        };
        let key = ObjectKey::new(namespace, &owner.name);
        match owner.kind.as_str() {
            "ReplicaSet" => {
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
            "StatefulSet" => touched.push((Task::StatefulSet(key), None)),
            "DaemonSet" => touched.push((Task::DaemonSet(key), None)),
            _ => {}
        }
    }

    /// StatefulSets that waited for a name which somebody else's pod had.
    fn heirs(&self, pod: &Meta, touched: &mut Touched) {
        let sets = self.stateful_sets.in_namespace(&pod.key.namespace);
        let sets = sets.filter(|set| set.ordinal(&pod.key.name).is_some());
        touched.extend(sets.map(|s| (Task::StatefulSet(s.meta.key.clone()), None)));
    }

    /// Everything that selects a pod which nobody controls.
    fn adopters(&self, pod: &Meta, touched: &mut Touched) {
        let namespace = &pod.key.namespace;
        let selects = |selector: &Selector| selector.matches(&pod.labels);
        let sets = self.sets.in_namespace(namespace);
        let sets = sets.filter(|set| selects(&set.selector));
        touched.extend(sets.map(|s| (Task::ReplicaSet(s.meta.key.clone()), None)));
        self.keepers(pod, touched);
    }

    /// The StatefulSets and DaemonSets that select a pod or revision.
    fn keepers(&self, object: &Meta, touched: &mut Touched) {
        let namespace = &object.key.namespace;
        let selects = |selector: &Selector| selector.matches(&object.labels);
        let sets = self.stateful_sets.in_namespace(namespace);
        let sets = sets.filter(|set| selects(&set.selector));
        touched.extend(sets.map(|s| (Task::StatefulSet(s.meta.key.clone()), None)));
        let sets = self.daemon_sets.in_namespace(namespace);
        let sets = sets.filter(|set| selects(&set.selector));
        touched.extend(sets.map(|s| (Task::DaemonSet(s.meta.key.clone()), None)));
    }

    /// Pods that wait for a node.
    fn waiting_pods(&self, touched: &mut Touched, concerns: impl Fn(&Pod) -> bool) {
        let waiting = self.waiting.iter().filter(|key| {
            self.pods
                .get(key)
                .is_some_and(|pod| pod.node.is_empty() && pod.is_active() && concerns(pod))
        });
        touched.extend(waiting.map(|key| (Task::Schedule(key.clone()), None)));
    }

    pub(super) fn set(&mut self, set: &ReplicaSet, _gone: bool, touched: &mut Touched) {
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

    pub(super) fn deployment(&mut self, object: &Deployment, gone: bool, touched: &mut Touched) {
        if gone {
            self.blames.remove(&object.meta.uid);
        }
        touched.push((Task::Deployment(object.meta.key.clone()), None));
    }

    pub(super) fn stateful_set(&mut self, set: &StatefulSet, _: bool, touched: &mut Touched) {
        touched.push((Task::StatefulSet(set.meta.key.clone()), None));
    }

    pub(super) fn daemon_set(&mut self, set: &DaemonSet, _: bool, touched: &mut Touched) {
        touched.push((Task::DaemonSet(set.meta.key.clone()), None));
    }

    pub(super) fn revision(
        &mut self,
        revision: &ControllerRevision,
        _gone: bool,
        touched: &mut Touched,
    ) {
        let Some(owner) = &revision.meta.controller else {
            self.keepers(&revision.meta, touched);
            return;
        };
        let key = ObjectKey::new(&revision.meta.key.namespace, &owner.name);
        match owner.kind.as_str() {
            "StatefulSet" => touched.push((Task::StatefulSet(key), None)),
            "DaemonSet" => touched.push((Task::DaemonSet(key), None)),
            _ => {}
        }
    }

    pub(super) fn service(&mut self, service: &Service, gone: bool, touched: &mut Touched) {
        let key = &service.meta.key;
        if gone {
            self.triggers.remove(&Task::Slices(key.clone()));
            self.triggers.remove(&Task::Endpoints(key.clone()));
            if self.endpoints.get(key).is_some() {
                self.departed.insert(key.clone());
            }
        } else {
            self.departed.remove(key);
        }
        if !gone && by_cpu(service) {
            self.by_cpu.insert(key.clone());
        } else {
            self.by_cpu.remove(key);
        }
        touched.push((Task::Slices(key.clone()), None));
        touched.push((Task::Endpoints(key.clone()), None));
        touched.push((Task::Mirror(key.clone()), None));
    }

    pub(super) fn slice(&mut self, slice: &Slice, _gone: bool, touched: &mut Touched) {
        if let Some(service) = slice.meta.labels.get(SERVICE_NAME) {
            let key = ObjectKey::new(&slice.meta.key.namespace, service);
            touched.push((Task::Slices(key.clone()), None));
            touched.push((Task::Mirror(key), None));
        }
    }

    pub(super) fn of_endpoints(&mut self, object: &Endpoints, gone: bool, touched: &mut Touched) {
        let key = &object.meta.key;
        if gone {
            self.departed.remove(key);
        }
        touched.push((Task::Endpoints(key.clone()), None));
        touched.push((Task::Mirror(key.clone()), None));
    }

    pub(super) fn node(&mut self, node: &Node, gone: bool, touched: &mut Touched) {
        let name = &node.meta.key.name;
        touched.push((Task::Node(name.clone()), None));
        self.waiting_pods(touched, |_| true);
        if gone {
            touched.push((Task::LostPods(name.clone()), Some(self.config.orphan_grace)));
        }
        let daemons = self.daemon_sets.all();
        touched.extend(daemons.map(|set| (Task::DaemonSet(set.meta.key.clone()), None)));
        // Shares of zones (E16).
        let shared = self.by_cpu.iter();
        touched.extend(shared.map(|key| (Task::Slices(key.clone()), None)));
        // Zones of endpoints (E7), and endpoints that waited for the node (E11).
        for pod in self.pods.all().filter(|pod| pod.node == *name) {
            let services = self.selecting(&pod.meta.key.namespace, &pod.meta.labels);
            touched.extend(services.map(|s| (Task::Slices(s.meta.key.clone()), None)));
        }
    }

    /// Only a change of the lease counts, and only by our own clock.
    pub(super) fn lease(&mut self, lease: &Lease, gone: bool, touched: &mut Touched) {
        let node = &lease.meta.key.name;
        if gone {
            self.heard.remove(node);
        } else {
            self.heard.insert(node.clone(), Instant::now());
        }
        touched.push((Task::Node(node.clone()), None));
    }
}
