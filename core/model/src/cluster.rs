//! Everything that is known, indexed the way decisions ask for it.
//!
//! The maps are persistent: a reader takes a snapshot by `clone`, and
//! applying one change afterwards copies a path, not the whole.

use std::net::IpAddr;
use std::sync::Arc;

use imbl::{OrdMap, OrdSet};

use crate::attached::{Attached, Attachment, Uid};
use crate::change::{Change, Dirty};
use crate::cluster_policies::ClusterPolicies;
use crate::cluster_policy::{ClusterPolicy, Tier};
use crate::fact::{Fact, Key, Kind, Namespace, Node, Pod, Service, ServiceCidr, Slice};
use crate::fill::by_turns;
use crate::key::{PodKey, PolicyKey, ServiceKey, SliceKey};
use crate::labels::Labels;
use crate::pods::{Pods, place};
use crate::policy::NetworkPolicy;
use crate::text::{Interner, Text};

/// How many changes pass between two sweeps of the string table.
const SWEEP_EVERY: u32 = 100_000;

/// The facts.
#[derive(Debug, Clone, Default)]
pub struct Cluster {
    services: OrdMap<ServiceKey, Arc<Service>>,
    /// Keyed by owner first, so that the slices of a Service are one range.
    slices: OrdMap<(ServiceKey, Text), Arc<Slice>>,
    owner_by_slice: OrdMap<SliceKey, ServiceKey>,
    by_cluster_ip: OrdSet<(IpAddr, ServiceKey)>,
    by_node_port: OrdSet<(u16, ServiceKey)>,
    by_outer_ip: OrdSet<(IpAddr, ServiceKey)>,
    nodes: OrdMap<Text, Arc<Node>>,
    namespaces: OrdMap<Text, Labels>,
    service_cidrs: OrdMap<Text, Arc<ServiceCidr>>,
    pods: Pods,
    attached: Attached,
    policies: OrdMap<PolicyKey, Arc<NetworkPolicy>>,
    cluster_policies: ClusterPolicies,
    texts: Interner,
    changes: u32,
}

impl PartialEq for Cluster {
    /// Same facts; the string table is bookkeeping.
    fn eq(&self, other: &Self) -> bool {
        self.services == other.services
            && self.slices == other.slices
            && self.nodes == other.nodes
            && self.namespaces == other.namespaces
            && self.service_cidrs == other.service_cidrs
            && self.pods == other.pods
            && self.attached == other.attached
            && self.policies == other.policies
            && self.cluster_policies == other.cluster_policies
    }
}

/// Reading.
impl Cluster {
    /// One Service.
    pub fn service(&self, key: &ServiceKey) -> Option<&Arc<Service>> {
        self.services.get(key)
    }

    /// All Services by name.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.values()
    }

    /// The slices of one Service, by slice name.
    pub fn slices_of(&self, service: &ServiceKey) -> impl Iterator<Item = &Arc<Slice>> {
        let from = (service.clone(), Text::from(""));
        let owner = service.clone();
        self.slices
            .range(from..)
            .take_while(move |((key, _), _)| *key == owner)
            .map(|(_, slice)| slice)
    }

    /// All slices, by Service and name.
    pub fn slices(&self) -> impl Iterator<Item = &Arc<Slice>> {
        self.slices.values()
    }

    /// The Services that claim a cluster address, by name. More than one only
    /// while the API server's view of a reassigned address is arriving.
    pub fn services_at(&self, address: IpAddr) -> impl Iterator<Item = &Arc<Service>> {
        let from = (address, ServiceKey::new("", ""));
        self.by_cluster_ip
            .range(from..)
            .take_while(move |(ip, _)| *ip == address)
            .filter_map(|(_, key)| self.services.get(key))
    }

    /// The Services that claim a node port on some protocol, by name.
    pub fn services_at_node_port(&self, port: u16) -> impl Iterator<Item = &Arc<Service>> {
        let from = (port, ServiceKey::new("", ""));
        self.by_node_port
            .range(from..)
            .take_while(move |(number, _)| *number == port)
            .filter_map(|(_, key)| self.services.get(key))
    }

    /// The Services that claim a load balancer's or an external address, by name.
    pub fn services_at_outer(&self, address: IpAddr) -> impl Iterator<Item = &Arc<Service>> {
        let from = (address, ServiceKey::new("", ""));
        self.by_outer_ip
            .range(from..)
            .take_while(move |(ip, _)| *ip == address)
            .filter_map(|(_, key)| self.services.get(key))
    }

    /// One Node.
    pub fn node(&self, name: &str) -> Option<&Arc<Node>> {
        self.nodes.get(name)
    }

    /// All Nodes by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        self.nodes.values()
    }

    /// Whether a namespace exists.
    pub fn has_namespace(&self, name: &str) -> bool {
        self.namespaces.contains_key(name)
    }

    /// All namespaces by name.
    pub fn namespaces(&self) -> impl Iterator<Item = &Text> {
        self.namespaces.keys()
    }

    /// The labels of a namespace, if it exists.
    pub fn labels_of(&self, namespace: &str) -> Option<&Labels> {
        self.namespaces.get(namespace)
    }

    /// All ServiceCIDRs by name.
    pub fn service_cidrs(&self) -> impl Iterator<Item = &Arc<ServiceCidr>> {
        self.service_cidrs.values()
    }

    /// One pod, if it has an address.
    pub fn pod(&self, key: &PodKey) -> Option<&Arc<Pod>> {
        self.pods.get(key)
    }

    /// All pods that have an address, by name.
    pub fn pods(&self) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.iter()
    }

    /// Those of one namespace.
    pub fn pods_of(&self, namespace: &Text) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.of(namespace)
    }

    /// Those that have a label, of one namespace if one is given.
    pub fn pods_labelled(
        &self,
        label: &(Text, Text),
        namespace: Option<&Text>,
    ) -> impl Iterator<Item = &Arc<Pod>> {
        self.pods.labelled(label, namespace)
    }

    /// Whether a pod of the namespace has this address.
    pub fn has_pod_at(&self, place: &(Text, IpAddr)) -> bool {
        self.pods.has_at(place)
    }

    /// Every namespace and address in it that a pod has.
    pub fn pod_places(&self) -> impl Iterator<Item = &(Text, IpAddr)> {
        self.pods.places()
    }

    /// One NetworkPolicy.
    pub fn policy(&self, key: &PolicyKey) -> Option<&Arc<NetworkPolicy>> {
        self.policies.get(key)
    }

    /// All NetworkPolicies by name.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<NetworkPolicy>> {
        self.policies.values()
    }

    /// Those of one namespace.
    pub fn policies_of(&self, namespace: &Text) -> impl Iterator<Item = &Arc<NetworkPolicy>> {
        let inside = namespace.clone();
        self.policies
            .range(PolicyKey::first_of(namespace)..)
            .take_while(move |(key, _)| key.namespace == inside)
            .map(|(_, policy)| policy)
    }

    /// Whether there is any NetworkPolicy or ClusterNetworkPolicy.
    pub fn has_policies(&self) -> bool {
        !self.policies.is_empty() || self.cluster_policies.names().next().is_some()
    }

    /// One ClusterNetworkPolicy.
    pub fn cluster_policy(&self, name: &str) -> Option<&Arc<ClusterPolicy>> {
        self.cluster_policies.get(name)
    }

    /// Those of a tier, as they are asked: by priority, and by name then (N19).
    pub fn cluster_policies(&self, tier: Tier) -> impl Iterator<Item = &Arc<ClusterPolicy>> {
        self.cluster_policies.of(tier)
    }
}

/// Writing.
impl Cluster {
    /// Takes a change in and says what it made dirty. A change that brings
    /// nothing new makes nothing dirty.
    pub fn apply(&mut self, change: Change) -> Dirty {
        let mut dirty = Dirty::default();
        match change {
            Change::Upsert(fact) => self.upsert(fact, &mut dirty),
            Change::Delete(key) => self.delete(&key, &mut dirty),
            Change::Replace(kind, facts) => self.replace(kind, facts, &mut dirty),
            Change::Attach(attachment) => self.attach(attachment, &mut dirty),
            Change::Detach(key, uid) => self.detach(&key, uid, &mut dirty),
        }
        dirty
    }

    fn upsert(&mut self, fact: Fact, dirty: &mut Dirty) {
        self.sweep();
        match fact {
            Fact::Service(service) => self.upsert_service(service, dirty),
            Fact::Slice(slice) => self.upsert_slice(slice, dirty),
            Fact::Node(node) => {
                if self.nodes.get(&node.name) != Some(&node) {
                    dirty.nodes.insert(node.name.clone());
                    self.nodes.insert(node.name.clone(), node);
                }
            }
            Fact::Namespace(Namespace { name, mut labels }) => {
                if self.namespaces.get(&name) != Some(&labels) {
                    labels.share(&mut self.texts);
                    self.namespaces.insert(name.clone(), labels);
                    dirty.namespaces.insert(name);
                }
            }
            Fact::ServiceCidr(cidr) => {
                if self.service_cidrs.get(&cidr.name) != Some(&cidr) {
                    dirty.service_cidrs.insert(cidr.name.clone());
                    self.service_cidrs.insert(cidr.name.clone(), cidr);
                }
            }
            Fact::Pod(pod) => self.upsert_pod(pod, dirty),
            Fact::Policy(policy) => {
                if self.policies.get(&policy.key) != Some(&policy) {
                    dirty.policies.insert(policy.key.clone());
                    self.policies.insert(policy.key.clone(), policy);
                }
            }
            Fact::ClusterPolicy(policy) => {
                if self.cluster_policies.get(&policy.name) != Some(&policy) {
                    dirty.cluster_policies.insert(policy.name.clone());
                    self.cluster_policies.insert(policy);
                }
            }
        }
    }

    fn delete(&mut self, key: &Key, dirty: &mut Dirty) {
        match key {
            Key::Service(key) => {
                if let Some(old) = self.services.remove(key) {
                    self.unindex(&old);
                    dirty.services.insert(old.key.clone());
                }
            }
            Key::Slice(key) => {
                if let Some(owner) = self.owner_by_slice.remove(key) {
                    self.slices.remove(&(owner.clone(), key.name.clone()));
                    dirty.services.insert(owner);
                }
            }
            Key::Node(name) => {
                if self.nodes.remove(name).is_some() {
                    dirty.nodes.insert(name.clone());
                }
            }
            Key::Namespace(name) => {
                if self.namespaces.remove(name).is_some() {
                    dirty.namespaces.insert(name.clone());
                }
            }
            Key::ServiceCidr(name) => {
                if self.service_cidrs.remove(name).is_some() {
                    dirty.service_cidrs.insert(name.clone());
                }
            }
            Key::Pod(key) => self.remove_pod(key, dirty),
            Key::Policy(key) => {
                if self.policies.remove(key).is_some() {
                    dirty.policies.insert(key.clone());
                }
            }
            Key::ClusterPolicy(name) => {
                if self.cluster_policies.remove(name) {
                    dirty.cluster_policies.insert(name.clone());
                }
            }
        }
    }

    /// Swaps a whole list in; only what differs becomes dirty.
    fn replace(&mut self, kind: Kind, facts: Vec<Fact>, dirty: &mut Dirty) {
        let mut gone = self.keys(kind);
        for fact in by_turns(facts) {
            let key = fact.key();
            if key.kind() == kind {
                gone.remove(&key);
                self.upsert(fact, dirty);
            }
        }
        for key in &gone {
            self.delete(key, dirty);
        }
    }

    fn keys(&self, kind: Kind) -> OrdSet<Key> {
        match kind {
            Kind::Service => self.services.keys().cloned().map(Key::Service).collect(),
            Kind::Slice => self
                .owner_by_slice
                .keys()
                .cloned()
                .map(Key::Slice)
                .collect(),
            Kind::Node => self.nodes.keys().cloned().map(Key::Node).collect(),
            Kind::Namespace => self
                .namespaces
                .keys()
                .cloned()
                .map(Key::Namespace)
                .collect(),
            Kind::ServiceCidr => self
                .service_cidrs
                .keys()
                .cloned()
                .map(Key::ServiceCidr)
                .collect(),
            Kind::Pod => {
                let all = self.pods.keys().chain(self.attached.keys());
                all.cloned().map(Key::Pod).collect()
            }
            Kind::Policy => self.policies.keys().cloned().map(Key::Policy).collect(),
            Kind::ClusterPolicy => {
                let names = self.cluster_policies.names().cloned();
                names.map(Key::ClusterPolicy).collect()
            }
        }
    }

    fn upsert_service(&mut self, mut service: Arc<Service>, dirty: &mut Dirty) {
        if self.services.get(&service.key) == Some(&service) {
            return;
        }
        Arc::make_mut(&mut service).share(&mut self.texts);
        if let Some(old) = self.services.get(&service.key).cloned() {
            self.unindex(&old);
        }
        for address in &service.cluster_ips {
            self.by_cluster_ip.insert((*address, service.key.clone()));
        }
        for port in service.ports.iter().filter_map(|port| port.node_port) {
            self.by_node_port.insert((port, service.key.clone()));
        }
        for address in service.outer_ips() {
            self.by_outer_ip.insert((address, service.key.clone()));
        }
        dirty.services.insert(service.key.clone());
        self.services.insert(service.key.clone(), service);
    }

    fn upsert_slice(&mut self, mut slice: Arc<Slice>, dirty: &mut Dirty) {
        let place = (slice.service.clone(), slice.key.name.clone());
        if self.slices.get(&place) == Some(&slice) {
            return;
        }
        Arc::make_mut(&mut slice).share(&mut self.texts);
        // A slice whose label changed moves to another Service: both are dirty.
        if let Some(owner) = self
            .owner_by_slice
            .insert(slice.key.clone(), slice.service.clone())
            && owner != slice.service
        {
            self.slices.remove(&(owner.clone(), slice.key.name.clone()));
            dirty.services.insert(owner);
        }
        dirty.services.insert(slice.service.clone());
        self.slices
            .insert((slice.service.clone(), slice.key.name.clone()), slice);
    }

    fn upsert_pod(&mut self, mut pod: Arc<Pod>, dirty: &mut Dirty) {
        let waits = self.attached.said(&pod.key).is_some();
        if !waits && self.pods.get(&pod.key) == Some(&pod) {
            return;
        }
        Arc::make_mut(&mut pod).share(&mut self.texts);
        let pod = self.attached.unite(pod);
        self.believe(pod, dirty);
    }

    /// This is so, whoever said it.
    fn believe(&mut self, pod: Arc<Pod>, dirty: &mut Dirty) {
        if pod.addresses.is_empty() {
            return self.forget_pod(&pod.key, dirty);
        }
        if self.pods.get(&pod.key) == Some(&pod) {
            return;
        }
        let before = self.pods.insert(Arc::clone(&pod));
        let places = (before.as_deref().and_then(place), place(&pod));
        if places.0 != places.1 {
            dirty.pods.extend(places.0.into_iter().chain(places.1));
        }
        dirty.selected.insert(pod.key.clone());
    }

    fn remove_pod(&mut self, key: &PodKey, dirty: &mut Dirty) {
        let known = self.attached.said(key).or_else(|| self.pods.get(key));
        let uid = known.map(|pod| pod.uid);
        self.attached.gone(key, uid);
        self.forget_pod(key, dirty);
    }

    fn forget_pod(&mut self, key: &PodKey, dirty: &mut Dirty) {
        if let Some(pod) = self.pods.remove(key) {
            dirty.pods.extend(place(&pod));
            dirty.selected.insert(pod.key.clone());
        }
    }

    /// Takes the word of who made a pod's network.
    fn attach(&mut self, attachment: Attachment, dirty: &mut Dirty) {
        let key = attachment.pod.clone();
        self.attached.tell(attachment);
        self.reconsider(&key, dirty);
    }

    fn detach(&mut self, key: &PodKey, uid: Uid, dirty: &mut Dirty) {
        self.attached.forget(key, uid);
        self.reconsider(key, dirty);
    }

    /// The API's word on a pod counts anew.
    fn reconsider(&mut self, key: &PodKey, dirty: &mut Dirty) {
        let said = self.attached.said(key).or_else(|| self.pods.get(key));
        if let Some(said) = said.cloned() {
            let pod = self.attached.unite(said);
            self.believe(pod, dirty);
        }
    }

    fn unindex(&mut self, service: &Service) {
        for address in &service.cluster_ips {
            self.by_cluster_ip.remove(&(*address, service.key.clone()));
        }
        for port in service.ports.iter().filter_map(|port| port.node_port) {
            self.by_node_port.remove(&(port, service.key.clone()));
        }
        for address in service.outer_ips() {
            self.by_outer_ip.remove(&(address, service.key.clone()));
        }
    }

    /// Keeps the string table from growing with every name that ever was.
    fn sweep(&mut self) {
        self.changes += 1;
        if self.changes >= SWEEP_EVERY {
            self.changes = 0;
            self.texts.forget_unused();
        }
    }
}
